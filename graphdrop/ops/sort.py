"""Sorting and searching.  All sorts are stable; NaN counts as the largest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import Node
from ..op import as_node, composed, op, promoted
from ..types import TensorType, min_size, normalize_axis
from .elementwise import coerce
from .gather import take_along_axis
from .index import window
from .leaf import as_size
from .shape import reshape, specify_shape

Prepared = tuple[list[Node], dict[str, Any]]


@op(name="sort")
def _sort(x: TensorType, *, axis: int) -> TensorType:
    """x in ascending order along an axis."""
    return x


@_sort.vjp
def _(g: Node, y: Node, x: Node, *, axis: int) -> Sequence[Node | None]:
    rank = argsort(argsort(x, axis), axis)  # the place of each element of x in y
    return (take_along_axis(g, rank, axis),)


@op(name="argsort")
def _argsort(x: TensorType, *, axis: int, descending: bool) -> TensorType:
    """The positions, along an axis, that put x in order; equal elements stay in theirs."""
    return x.with_dtype(np.int64)


@_argsort.vjp
def _(g: Node, y: Node, x: Node, *, axis: int, descending: bool) -> Sequence[Node | None]:
    return (None,)


def _axis(x: Any, axis: int | None) -> tuple[Node, int]:
    """The operand, flattened for axis None, and a non-negative axis."""
    node = as_node(x)
    if axis is None:
        node, axis = reshape(node, (-1,)), 0
    return node, normalize_axis(axis, node.ndim)


@composed
def argsort(x: Any, axis: int | None = -1, descending: bool = False) -> Node:
    """The positions, along an axis (None: of x flattened), that put x in order.

    Equal elements stay in their order, descending too, where NaN comes first.
    """
    node, along = _axis(x, axis)
    return _argsort.make((node,), {"axis": along, "descending": bool(descending)})


@composed
def sort(x: Any, axis: int | None = -1, descending: bool = False) -> Node:
    """x in order along an axis (None: flattened).  The gradient goes back where each value was."""
    node, along = _axis(x, axis)
    made = _sort.make((node,), {"axis": along})
    size = made.shape[along]
    return window(made, along, size - 1, size, -1) if descending else made


@composed
def top_k(x: Any, k: Any, axis: int = -1) -> tuple[Node, Node]:
    """The k largest elements along an axis, largest first, and their positions.

    Of equal elements the first is taken first.
    """
    node, along = _axis(x, axis)
    count, size = as_size(k, "k"), node.shape[along]
    if isinstance(count, int) and isinstance(size, int) and count > size:
        raise ShapeError(f"the {count} largest of {size} elements do not exist")
    order = argsort(node, along, descending=True)
    ids = window(order, along, 0, min_size(count, size))
    ids = specify_shape(ids, (*order.shape[:along], count, *order.shape[along + 1 :]))
    return take_along_axis(node, ids, along), ids


@op
def last_equal(x: TensorType) -> TensorType:
    """For every element of a vector of int64 the position of the last one that is equal."""
    if x.ndim != 1 or x.dtype != np.int64:
        raise ShapeError(f"equal elements are looked for in a vector of int64, got {x}")
    return x


@last_equal.vjp
def _(g: Node, y: Node, x: Node) -> Sequence[Node | None]:
    return (None,)


@op(name="searchsorted")
def _searchsorted(x: TensorType, values: TensorType, *, side: str) -> TensorType:
    """Where each value would go in the ascending vector x."""
    if x.ndim != 1:
        raise ShapeError(f"the sorted operand must be a vector, got {x}")
    return values.with_dtype(np.int64)


@_searchsorted.vjp
def _(g: Node, y: Node, x: Node, values: Node, *, side: str) -> Sequence[Node | None]:
    return None, None


@composed
def searchsorted(x: Any, values: Any, side: str = "left") -> Node:
    """Where each value would go in the ascending vector x, as int64.

    That is the number of elements that are smaller; with side="right", not larger.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"side must be 'left' or 'right', got {side!r}")
    return _searchsorted.make(tuple(coerce((x, values), promoted(x, values))), {"side": side})
