"""What stands between brackets, by NumPy's rules: turned into integer operands and an `Index`.

An index is kept in one canonical form, one entry for every axis of the operand (and for every new
one):

    an int or Dim            the position along an axis, which goes
    (start, step, length)    a slice: positions start, start + step, ...; step may be negative
    "ids"                    positions given by the next integer operand
    "new"                    a new axis of size 1
    "..."                    no axis: an ellipsis of none, which parts integer arrays beside it

A mask becomes the positions where it holds (`nonzero`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, constant_value, op, split
from ..op import size as size_op
from ..substitute import size_of_value
from ..types import Dim, Size, TensorType, TupleType, max_size, min_size
from .create import as_bound, span
from .elementwise import cast, less, maximum, minimum, where
from .leaf import as_size
from .reduce import sum as sum_of
from .shape import specify_shape

Entry: TypeAlias = "Size | tuple[Size, int, Size] | str"
Index: TypeAlias = "tuple[Entry, ...]"
NO_AXIS = ("new", "...")  # entries that are about no axis of the operand


def parse(x: Node, key: Any) -> tuple[list[Node], Index]:
    """Integer operands and canonical index of x[key]."""
    index: list[Any] = []
    sizes = iter(x.shape)
    for item in _expand(x, [_item(k) for k in (key if isinstance(key, tuple) else (key,))]):
        if item is None:
            index.append("new")
        elif item is Ellipsis:
            index.append("...")
        elif isinstance(item, slice):
            index.append(_slice(item, next(sizes)))
        elif isinstance(item, Node):
            _check_known(item, next(sizes))
            index.append(item)
        else:
            index.append(_position(item, next(sizes)))
    if not any(isinstance(e, Node) for e in index):
        return [], tuple(e for e in index if e != "...")
    # beside integer arrays NumPy takes a single position for an array too
    kept = [e if isinstance(e, (tuple, str)) else "ids" for e in index]
    ids = [as_node(e) for e, k in zip(index, kept, strict=True) if k == "ids"]
    if "..." in kept and not _parts_neighbours(kept):
        kept.remove("...")
    return ids, tuple(kept)


def _parts_neighbours(index: list[Any]) -> bool:
    """Whether it is the ellipsis alone that stands between integer arrays."""
    at = [i for i, entry in enumerate(index) if entry == "ids"]
    between = index[at[0] : at[-1] + 1]
    return "..." in between and all(e in ("ids", "...") for e in between)


def _item(key: Any) -> Any:
    """One part of an index: None, Ellipsis, a slice, an int, a Dim or a node."""
    if key is None or key is Ellipsis or isinstance(key, (slice, Dim)):
        return key
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return int(key)
    empty = isinstance(key, (list, tuple)) and not len(key)
    node = as_node(key, np.int64 if empty else None)
    if node.tensor_type.is_float:
        raise DTypeError(f"an index must be integers, bools or slices, got {node!r}")
    if node.ndim:
        return node
    if node.tensor_type.is_bool:
        raise ArgumentError(f"a single bool is no index, got {node!r}; use gd.where")
    known = constant_value(node)
    if known is not None:
        return int(known)
    return node.params["size"] if node.op is size_op else node


def _expand(x: Node, items: list[Any]) -> Iterator[Any]:
    """The items with one for every axis: the ellipsis written out, masks turned into positions."""
    axes = [1 if not isinstance(i, Node) or not i.tensor_type.is_bool else i.ndim for i in items]
    used = sum(n for i, n in zip(items, axes, strict=True) if i is not None and i is not Ellipsis)
    if used > x.ndim:
        raise ShapeError(f"{used} axes are indexed, but there are only {x.ndim}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("an index can have only one ellipsis (...)")
    if not dots:
        items, axes = [*items, Ellipsis], [*axes, 0]
    axis = 0
    for item, n in zip(items, axes, strict=True):
        if item is Ellipsis:
            yield from (slice(None),) * (x.ndim - used) or (Ellipsis,)
            axis += x.ndim - used
            continue
        if isinstance(item, Node) and item.tensor_type.is_bool:
            shape = x.shape[axis : axis + n]
            yield from _where_true(item if item.shape == shape else specify_shape(item, shape))
        else:
            yield item
        axis += 0 if item is None else n


def _position(position: Size, size: Size) -> Size:
    """A single position, counted from the start; known ones are checked."""
    found = size + position if _is_negative(position) else position
    if isinstance(position, int) and isinstance(size, int) and not -size <= position < size:
        raise OutOfRangeError(f"index {position} is outside an axis of size {size}")
    return found


def _is_negative(size: Size) -> bool:
    """Whether it counts from the end: a Dim only where it is minus a size."""
    if isinstance(size, int):
        return size < 0
    away = -size
    return isinstance(away, Dim) and max_size(away, 0) == away


def _check_known(ids: Node, size: Size) -> None:
    known = constant_value(ids)
    if known is None or not isinstance(size, int):
        return
    wrong = known[(known < -size) | (known >= size)]
    if wrong.size:
        raise OutOfRangeError(f"index {wrong.flat[0]} is outside an axis of size {size}")


def _slice(given: slice, size: Size) -> tuple[Size, int, Size]:
    """(start, step, length) of a slice of an axis.

    A symbolic size as bound counts from the start and is cut off at 0; minus a size counts from the
    end.  An integer node counts from the end where it is negative when the function runs.
    """
    step = 1 if given.step is None else given.step
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step == 0:
        raise ArgumentError(f"the step of a slice must be a known integer, not 0, got {step!r}")
    step = int(step)
    start, stop = (None if b is None else as_bound(b) for b in (given.start, given.stop))
    if isinstance(start, Node) or isinstance(stop, Node):
        low, high = (0, size) if step > 0 else (size - 1, -1)
        first = as_node(low) if start is None else _clipped(start, size, step)
        last = as_node(high) if stop is None else _clipped(stop, size, step)
        return size_of_value(first), step, span(first, last, step)
    if stop is None and isinstance(start, int) and start < 0 < step:
        length = min_size(-start, size)  # the last few
        return size - length, step, span(0, length, step)
    begin = _first(start, size, step)
    length = span(begin, _last(stop, size, step), step)
    return (0 if length == 0 else begin), step, length


def _first(start: Size | None, size: Size, step: int) -> Size:
    """The position at which a slice begins; past the end only if its length is 0."""
    if start is None:
        return 0 if step > 0 else size - 1
    if step > 0:
        return max_size(size + start if _is_negative(start) else start, 0)
    return size + start if _is_negative(start) else min_size(start, size - 1)


def _last(stop: Size | None, size: Size, step: int) -> Size:
    """The position before which a slice ends."""
    if stop is None:
        return size if step > 0 else -1
    if step > 0:
        if _is_negative(stop):
            return size + stop
        return 0 if stop == 0 else min_size(stop, size)
    if _is_negative(stop):
        return max_size(size + stop, -1)
    return stop if max_size(stop, 0) == stop else max_size(stop, -1)


def _clipped(bound: Any, size: Size, step: int) -> Node:
    """A bound known at run time, counted from the start and cut off at the ends."""
    length, node = as_node(size), cast(as_node(bound), np.int64)
    low, high = (0, length) if step > 0 else (-1, length - 1)
    return minimum(maximum(where(less(node, 0), node + length, node), low), high)


# masks ------------------------------------------------------------------------------------------
@op(name="nonzero")
def _nonzero(x: TensorType, *, count: Size) -> TupleType:
    """Where x holds, in C order: one vector of positions for every axis; `count` of them."""
    return TupleType((TensorType(np.dtype(np.int64), (count,)),) * x.ndim)


@_nonzero.vjp
def _(g: Any, y: Any, x: Node, *, count: Size) -> Sequence[Node | None]:
    return (None,)


def _where_true(mask: Node) -> tuple[Node, ...]:
    known = constant_value(mask)
    count = as_size(sum_of(mask)) if known is None else int(known.sum())
    return split(_nonzero.make((mask,), {"count": count}))


@composed
def nonzero(x: Any) -> tuple[Node, ...]:
    """Where x is not zero, in C order: one int64 vector of positions for every axis."""
    node = as_node(x)
    if not node.ndim:
        raise ShapeError("a scalar has no positions; use x != 0")
    return _where_true(cast(node, bool))
