"""Reading and writing by arrays of positions: what NumPy has beside brackets."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, constant
from ..types import Shape, Size, max_size, min_size, normalize_axis
from .brackets import Index
from .create import iota, zeros
from .elementwise import cast, clip, mod
from .index import _gather, getitem, inc_subtensor, set_subtensor
from .shape import reshape, transpose


def row_index(shape: Shape) -> Index:
    """The index of x[ids] for an x of this shape: whole slices along the first axis."""
    return ("ids", *((0, 1, size) for size in shape[1:]))


def integers(ids: Any) -> Node:
    """A node of integers; an empty list counts as one."""
    empty = isinstance(ids, (list, tuple)) and not len(ids)
    node = as_node(ids, np.int64 if empty else None)
    if not node.tensor_type.is_integer:
        raise DTypeError(
            f"indices must be integers, got {node.type}; cast them with gd.cast(ids, 'int64')"
        )
    return node


@composed
def take(x: Any, ids: Any, axis: int | None = None, mode: str = "raise") -> Node:
    """The slices of x at positions `ids` along an axis, whose place the axes of ids take.

    axis  None: of x flattened
    mode  what becomes of a position outside the axis: "raise", "wrap" (modulo the size) or "clip"
    """
    node, places = as_node(x), integers(ids)
    if axis is None:
        node, axis = reshape(node, (-1,)), 0
    axis = normalize_axis(axis, node.ndim)
    size = node.shape[axis]
    if mode == "wrap":
        places = mod(cast(places, np.int64), size)
    elif mode == "clip":
        places = clip(cast(places, np.int64), 0, size - 1)
    elif mode != "raise":
        raise ArgumentError(f"mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
    return getitem(node, (slice(None),) * axis + (places,))


@composed
def take_along_axis(x: Any, ids: Any, axis: int = -1) -> Node:
    """x[..., ids[...], ...]: along one axis, at positions that differ from place to place.

    x and ids have the same number of axes; along the others sizes known to be 1 broadcast.  What is
    gathered can be replaced: set_subtensor(take_along_axis(x, ids, axis), value).
    """
    node, places = as_node(x), integers(ids)
    if node.ndim != places.ndim:
        raise ShapeError(f"x and ids must have the same number of axes, got {node.type} and {ids}")
    axis = normalize_axis(axis, node.ndim)
    grids = []
    for a, size in enumerate(node.shape):
        if a == axis:
            grids.append(places)
        elif size == 1:
            grids.append(constant(np.zeros((1,) * node.ndim, np.int64)))
        else:
            after: tuple[Size, ...] = (1,) * (node.ndim - a - 1)
            grids.append(reshape(iota.make((), {"size": size}), (size, *after)))
    return _gather.make((node, *grids), {"index": ("ids",) * node.ndim})


@composed
def scatter_add(x: Any, ids: Any, values: Any, axis: int = 0) -> Node:
    """x with `values` added to its slices at positions `ids` along an axis.

    A position that occurs twice gets both.  For the gradient of rows taken from a table:
    scatter_add(zeros_like(table), ids, g).
    """
    return inc_subtensor(take(x, ids, axis), values)


# diagonals ----------------------------------------------------------------------------------------
@composed
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The elements [..., i, i + offset] of the matrices in two axes, along a new last axis."""
    node = as_node(x)
    if node.ndim < 2:
        raise ShapeError(f"needs at least 2 axes, got {node.type}")
    first, second = normalize_axis(axis1, node.ndim), normalize_axis(axis2, node.ndim)
    if isinstance(offset, bool) or not isinstance(offset, (int, np.integer)):
        raise ArgumentError(f"the offset must be a known integer, got {offset!r}")
    if first == second:
        raise ArgumentError("axis1 and axis2 must be two axes")
    others = [a for a in range(node.ndim) if a not in (first, second)]
    node = transpose(node, (*others, first, second))
    rows, columns = node.shape[-2:]
    down, right = max(-int(offset), 0), max(int(offset), 0)
    count = max_size(min_size(rows - down, columns - right), 0)
    return getitem(node, (..., _counted(down, count), _counted(right, count)))


def _counted(start: int, count: Size) -> Node:
    """start, start + 1, ..., `count` of them."""
    along = iota.make((), {"size": count})
    return along + start if start else along


@composed
def diag(x: Any, k: int = 0) -> Node:
    """The k-th diagonal of a matrix; of a vector, the matrix with that diagonal and zeros."""
    node = as_node(x)
    if node.ndim == 2:
        return diagonal(node, k)
    if node.ndim != 1:
        raise ShapeError(f"needs a vector or a matrix, got {node.type}; see gd.diagonal")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise ArgumentError(f"k must be a known integer, got {k!r}")
    n = node.shape[0] + abs(int(k))
    along = (_counted(max(-k, 0), node.shape[0]), _counted(max(k, 0), node.shape[0]))
    return set_subtensor(getitem(zeros((n, n), node.dtype), along), node)
