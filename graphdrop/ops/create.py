"""Arrays made from sizes and numbers, and the masks and grids that come with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_node, composed, constant, constant_value, op, promoted
from ..op import size as size_op
from ..types import (
    Dim,
    Size,
    TensorType,
    as_dtype,
    broadcast_shapes,
    floordiv,
    max_size,
    normalize_axis,
)
from .elementwise import cast, equal, greater_equal, maximum, where
from .elementwise import floor as floor_of
from .elementwise import floordiv as divide_down
from .leaf import as_shape, as_size
from .shape import broadcast_to, expand_dims, reshape


@op
def iota(*, size: Size) -> TensorType:
    """0, 1, ..., size - 1 as int64; what `arange` and all masks by position are made of."""
    return TensorType(np.dtype(np.int64), (size,))


# constant arrays --------------------------------------------------------------------------------
@composed
def full(shape: Any, value: Any, dtype: Any = None) -> Node:
    """An array of one value: a number, or a node that broadcasts to the shape."""
    node = as_node(value, None if isinstance(value, (Node, Dim)) else dtype)
    return broadcast_to(node if dtype is None else cast(node, dtype), as_shape(shape))


@composed
def zeros(shape: Any, dtype: Any = DEFAULT_FLOAT) -> Node:
    """Zeros; sizes may be symbolic."""
    return full(shape, 0, as_dtype(dtype))


@composed
def ones(shape: Any, dtype: Any = DEFAULT_FLOAT) -> Node:
    """Ones; sizes may be symbolic."""
    return full(shape, 1, as_dtype(dtype))


def full_like(x: Any, value: Any, dtype: Any = None) -> Node:
    """An array of one value with x's shape, and x's dtype unless given."""
    node = as_node(x)
    return full(node.shape, value, as_dtype(node.dtype if dtype is None else dtype))


def zeros_like(x: Any, dtype: Any = None) -> Node:
    """Zeros of x's shape and dtype."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Node:
    """Ones of x's shape and dtype."""
    return full_like(x, 1, dtype)


# ranges -----------------------------------------------------------------------------------------
def as_bound(value: Any) -> Any:
    """An end of a range: an int or Dim where known when the graph is built, else an int64 node."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, Dim):
        return value
    node = as_node(value)
    if node.ndim or not node.tensor_type.is_integer:
        raise DTypeError(f"a bound must be an integer scalar, got {node!r}")
    known = constant_value(node)
    if known is not None:
        return int(known)
    return node.params["size"] if node.op is size_op else cast(node, np.int64)


def span(start: Any, stop: Any, step: int) -> Size:
    """How many steps lead from start to before stop; bounds are ints, Dims or int64 nodes."""
    gap = stop - start if step > 0 else start - stop
    width = abs(step)
    if isinstance(gap, Node):
        return as_size(maximum(divide_down(gap + (width - 1), width), 0))
    length = max_size(gap, 0)
    return length if width == 1 else floordiv(length + (width - 1), width)


@composed
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Node:
    """start, start + step, ... before stop, as np.arange.

    Integer bounds may be symbolic sizes or integer scalar nodes and give int64; `step` must be
    known.  Floats must be plain numbers and give float32; use `linspace` for ends that are nodes.
    """
    if stop is None:
        start, stop = 0, start
    numbers = (start, stop, step)
    if any(isinstance(n, (float, np.floating)) for n in numbers):
        if any(isinstance(n, (Node, Dim)) for n in numbers):
            raise ArgumentError("float bounds must all be plain numbers; use gd.linspace")
        kind = promoted(*numbers) if dtype is None else as_dtype(dtype)
        return constant(np.arange(*map(float, numbers)).astype(kind))
    low, high, by = map(as_bound, numbers)
    if not isinstance(by, int) or by == 0:
        raise ArgumentError(f"step must be a known integer other than 0, got {step!r}")
    made: Node = iota.make((), {"size": span(low, high, by)})
    made = made if by == 1 else made * by
    made = made if isinstance(low, int) and low == 0 else made + low
    return made if dtype is None else cast(made, dtype)


@composed
def linspace(
    start: Any, stop: Any, num: Any = 50, endpoint: bool = True, dtype: Any = None
) -> Node:
    """`num` evenly spaced values from start to stop, on a new first axis if those are arrays.

    Start and stop may be nodes, and are differentiable; numbers give float32 by default.
    """
    count = as_size(num)
    kind = promoted(start, stop, 1.0) if dtype is None else as_dtype(dtype)
    work = kind if kind.kind == "f" else np.dtype(np.float64)
    low, high = (cast(v, work) if isinstance(v, Node) else as_node(v, work) for v in (start, stop))
    shape = (count,) + (1,) * len(broadcast_shapes(low.shape, high.shape))
    position = reshape(iota.make((), {"size": count}), shape)
    last = max_size(count - 1 if endpoint else count, 1)
    values = low + cast(position, work) * ((high - low) / cast(as_node(last), work))
    if endpoint:  # the end itself, which rounding may miss
        values = where(equal(position, last), high, values)
    return cast(values if kind.kind == "f" else floor_of(values), kind)


@composed
def meshgrid(*xs: Any, indexing: str = "xy") -> list[Node]:
    """The coordinates of a grid, one array for each 1-d operand, as np.meshgrid."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"indexing must be 'xy' or 'ij', got {indexing!r}")
    nodes = [as_node(x) for x in xs]
    if any(n.ndim > 1 for n in nodes):
        raise ShapeError("takes vectors and scalars")
    place = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        place[:2] = [1, 0]
    sizes = [n.size for n in nodes]
    shape = [sizes[place[axis]] for axis in range(len(nodes))]
    return [
        broadcast_to(reshape(n, tuple(s if a == axis else 1 for a in range(len(nodes)))), shape)
        for n, s, axis in zip(nodes, sizes, place, strict=True)
    ]


# masks by position --------------------------------------------------------------------------------
def _columns_from_diagonal(rows: Size, columns: Size, k: int) -> tuple[Node, Node]:
    """Where the k-th diagonal is in each row, and the number of each column; they broadcast."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise ArgumentError(f"k must be a known integer, got {k!r}")
    row = reshape(iota.make((), {"size": rows}), (rows, 1))
    return row + int(k), iota.make((), {"size": columns})


@composed
def eye(n: Any, m: Any = None, k: int = 0, dtype: Any = DEFAULT_FLOAT) -> Node:
    """Ones on the k-th diagonal of an n by m (default n) matrix, zeros elsewhere."""
    rows = as_size(n)
    return cast(equal(*_columns_from_diagonal(rows, rows if m is None else as_size(m), k)), dtype)


@composed
def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = DEFAULT_FLOAT) -> Node:
    """Ones on and below the k-th diagonal of an n by m (default n) matrix, zeros above."""
    rows = as_size(n)
    columns = rows if m is None else as_size(m)
    return cast(greater_equal(*_columns_from_diagonal(rows, columns, k)), dtype)


@composed
def tril(x: Any, k: int = 0) -> Node:
    """x with zeros above the k-th diagonal of every matrix in its last two axes."""
    node = _matrices(x)
    return where(tri(node.shape[-2], node.shape[-1], k, bool), node, 0)


@composed
def triu(x: Any, k: int = 0) -> Node:
    """x with zeros below the k-th diagonal of every matrix in its last two axes."""
    node = _matrices(x)
    return where(tri(node.shape[-2], node.shape[-1], k - 1, bool), 0, node)


def _matrices(x: Any) -> Node:
    node = as_node(x)
    if node.ndim < 2:
        raise ShapeError(f"needs at least 2 axes, got {node.type}")
    return node


@composed
def one_hot(ids: Any, n: Any, axis: int = -1, dtype: Any = DEFAULT_FLOAT) -> Node:
    """1 at position ids[...] of a new axis of size n, 0 elsewhere.

    An id outside [0, n), say -1 for "none", gives only zeros.
    """
    node = as_node(ids)
    if not node.tensor_type.is_integer:
        raise DTypeError(f"ids must be integers, got {node.type}")
    place, count = normalize_axis(axis, node.ndim + 1), as_size(n)
    after: Sequence[Size] = (1,) * (node.ndim - place)
    position = reshape(iota.make((), {"size": count}), (count, *after))
    return cast(equal(expand_dims(node, place), position), dtype)
