"""Indexing: reading and replacing parts of an array, by NumPy's rules.

An index is kept in one canonical form, `Index`, one entry for every axis of the operand (and for
every new one):

    an int or Dim            the position along an axis, which goes
    (start, step, length)    a slice: positions start, start + step, ...; step may be negative
    "ids"                    positions given by the next integer operand
    "new"                    a new axis of size 1

Operands that index are broadcast; their axes stand where NumPy puts them: in the place of the
"ids" if these are neighbours, else first.  A mask becomes the positions where it holds (`nonzero`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, constant_value, get, op, promoted, split
from ..op import size as size_op
from ..substitute import size_of_value
from ..types import (
    Dim,
    Shape,
    Size,
    TensorType,
    TupleType,
    broadcast_shapes,
    max_size,
    min_size,
    num_elements,
    unify,
)
from .create import as_bound, iota, span, zeros, zeros_like
from .elementwise import add, cast, coerce, equal, less, maximum, minimum, where
from .leaf import as_size
from .reduce import sum as sum_of
from .shape import broadcast_to, reshape

Entry: TypeAlias = "Size | tuple[Size, int, Size] | str"
Index: TypeAlias = "tuple[Entry, ...]"


# --------------------------------------------------------------------------------------------
# operations


def _place(index: Index) -> int | None:
    """The axis of the result at which the axes of "ids" begin; None without any."""
    at = [i for i, entry in enumerate(index) if entry == "ids"]
    if not at:
        return None
    return at[0] if at[-1] - at[0] == len(at) - 1 else 0


def indexed_shape(x: Shape, index: Index, ids: Sequence[Shape] = ()) -> Shape:
    """The shape of x[index]; checks positions that are known."""
    sizes = iter(x)
    shape: list[Size] = []
    for entry in index:
        if entry == "new":
            shape.append(1)
            continue
        size = next(sizes)
        if isinstance(entry, tuple):
            shape.append(entry[2])
        elif isinstance(entry, int) and not 0 <= entry < _known(size, entry + 1):
            raise OutOfRangeError(f"position {entry} is outside an axis of size {size}")
    assert next(sizes, None) is None, (x, index)
    place = _place(index)
    if place is not None:
        assert len(ids) == index.count("ids"), (index, ids)
        shape[place:place] = broadcast_shapes(*ids)
    return tuple(shape)


def _known(size: Size, otherwise: int) -> int:
    return size if isinstance(size, int) else otherwise


def _check_ids(ids: Sequence[TensorType]) -> None:
    if not all(i.is_integer for i in ids):
        raise DTypeError(f"indices must be integers, got {', '.join(map(str, ids))}")


@op(name="subtensor", view=True)
def _subtensor(x: TensorType, *, index: Index) -> TensorType:
    """x[index] for positions and slices: a view."""
    return x.with_shape(indexed_shape(x.shape, index))


@_subtensor.vjp
def _(g: Node, y: Node, x: Node, *, index: Index) -> Sequence[Node | None]:
    return (_set_subtensor.make((zeros_like(x), g), {"index": index}),)


@op(name="set_subtensor")
def _set_subtensor(x: TensorType, value: TensorType, *, index: Index) -> TensorType:
    """x with `value`, of the shape of x[index], in the place of x[index]."""
    _check_value(x, value, indexed_shape(x.shape, index))
    return x


@_set_subtensor.vjp
def _(g: Node, y: Node, x: Node, value: Node, *, index: Index) -> Sequence[Node | None]:
    zero = _set_subtensor.make((g, zeros_like(value)), {"index": index})
    return zero, _subtensor.make((g,), {"index": index})


@op(name="gather")
def _gather(x: TensorType, *ids: TensorType, index: Index) -> TensorType:
    """x[index] with integer arrays in it: the elements at positions that the operands give."""
    _check_ids(ids)
    return x.with_shape(indexed_shape(x.shape, index, [i.shape for i in ids]))


@_gather.vjp
def _(g: Node, y: Node, x: Node, *ids: Node, index: Index) -> Sequence[Node | None]:
    gx = _scatter_add.make((zeros_like(x), g, *ids), {"index": index})
    return gx, *(None for _ in ids)


@op(name="scatter_add")
def _scatter_add(x: TensorType, value: TensorType, *ids: TensorType, index: Index) -> TensorType:
    """x with `value` added to x[index]; positions that occur twice get both."""
    _check_ids(ids)
    _check_value(x, value, indexed_shape(x.shape, index, [i.shape for i in ids]))
    return x


@_scatter_add.vjp
def _(g: Node, y: Node, x: Node, value: Node, *ids: Node, index: Index) -> Sequence[Node | None]:
    return g, _gather.make((g, *ids), {"index": index}), *(None for _ in ids)


@op(name="scatter_set")
def _scatter_set(x: TensorType, value: TensorType, *ids: TensorType, index: Index) -> TensorType:
    """x with `value` in the place of x[index]; where positions are equal the last one counts."""
    _check_ids(ids)
    _check_value(x, value, indexed_shape(x.shape, index, [i.shape for i in ids]))
    return x


@_scatter_set.vjp
def _(g: Node, y: Node, x: Node, value: Node, *ids: Node, index: Index) -> Sequence[Node | None]:
    gx = _scatter_set.make((g, zeros_like(value), *ids), {"index": index})
    gv = _gather.make((g, *ids), {"index": index})
    if not _distinct(ids):
        gv = where(_last_writer(x, gv, ids, index), gv, 0)
    return gx, gv, *(None for _ in ids)


def _check_value(x: TensorType, value: TensorType, shape: Shape) -> None:
    if value.dtype != x.dtype:
        raise DTypeError(f"the value must be {x.dtype}, got {value.dtype}")
    if value.ndim != len(shape):
        raise ShapeError(f"the value must have shape {list(shape)}, got {list(value.shape)}")
    for a, b in zip(value.shape, shape, strict=True):
        unify(a, b, f"the value must have shape {list(shape)}, but sizes")


def _distinct(ids: Sequence[Node]) -> bool:
    """Whether no position can occur twice, as far as is known."""
    shape = broadcast_shapes(*(i.shape for i in ids))
    if num_elements(shape) == 1:
        return True
    if all(i.op is get and i.inputs[0].op is _nonzero for i in ids):
        return True
    return len(shape) == 1 and any(i.op is iota for i in ids)


def _last_writer(x: Node, value: Node, ids: Sequence[Node], index: Index) -> Node:
    """For every element of the value, whether it is the last one put to its place."""
    axes = [e for e in index if e != "new"]
    sizes = tuple(s for s, e in zip(x.shape, axes, strict=True) if e == "ids")
    shape = broadcast_shapes(*(i.shape for i in ids))
    turn = reshape(iota.make((), {"size": num_elements(shape)}), shape)
    every = {"index": ("ids",) * len(ids)}
    last = _scatter_set.make((zeros(sizes, np.int64), turn, *ids), every)
    wins = equal(_gather.make((last, *ids), every), turn)
    place = _place(index)
    assert place is not None
    after = value.ndim - place - len(shape)
    return reshape(wins, (1,) * place + shape + (1,) * after)


@op(name="nonzero")
def _nonzero(x: TensorType, *, count: Size, shape: Shape) -> TupleType:
    """Where x holds, in C order: one vector of positions for every axis.

    count  how many there are
    shape  what x's shape must be
    """
    for a, b in zip(x.shape, shape, strict=True):
        unify(a, b, "the mask's size and that of the axis it indexes,")
    return TupleType((TensorType(np.dtype(np.int64), (count,)),) * x.ndim)


@_nonzero.vjp
def _(g: Any, y: Any, x: Node, *, count: Size, shape: Shape) -> Sequence[Node | None]:
    return (None,)


def _where_true(mask: Node, shape: Shape) -> tuple[Node, ...]:
    known = constant_value(mask)
    count = as_size(sum_of(mask)) if known is None else int(known.sum())
    return split(_nonzero.make((mask,), {"count": count, "shape": shape}))


@composed
def nonzero(x: Any) -> tuple[Node, ...]:
    """Where x is not zero, in C order: one int64 vector of positions for every axis."""
    node = as_node(x)
    if not node.ndim:
        raise ShapeError("a scalar has no positions; use x != 0")
    return _where_true(cast(node, bool), node.shape)


# --------------------------------------------------------------------------------------------
# from what the user writes to an Index


def _parse(x: Node, key: Any) -> tuple[list[Node], Index]:
    """Integer operands and canonical index of x[key]."""
    index: list[Any] = []
    sizes = iter(x.shape)
    for item in _expand(x, [_item(k) for k in (key if isinstance(key, tuple) else (key,))]):
        if item is None:
            index.append("new")
        elif isinstance(item, slice):
            index.append(_slice(item, next(sizes)))
        elif isinstance(item, Node):
            _check_known(item, next(sizes))
            index.append(item)
        else:
            index.append(_position(item, next(sizes)))
    if not any(isinstance(e, Node) for e in index):
        return [], tuple(index)
    # beside integer arrays NumPy takes a single position for an array too
    kept = tuple(e if isinstance(e, tuple) or e == "new" else "ids" for e in index)
    return [as_node(e) for e, k in zip(index, kept, strict=True) if k == "ids"], kept


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
            yield from (slice(None),) * (x.ndim - used)
            axis += x.ndim - used
            continue
        if isinstance(item, Node) and item.tensor_type.is_bool:
            yield from _where_true(item, x.shape[axis : axis + n])
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


def window(x: Node, axis: int, start: Size, length: Size, step: int = 1) -> Node:
    """x[start : start + step*length : step] along one axis, where that is known to lie inside."""
    index: list[Entry] = [(0, 1, size) for size in x.shape]
    index[axis] = (start, step, length)
    return _subtensor.make((x,), {"index": tuple(index)})


# --------------------------------------------------------------------------------------------
# what the user calls


@composed
def getitem(x: Any, key: Any) -> Node:
    """x[key] by NumPy's rules: positions, slices, None, ..., integer arrays, boolean masks.

    Integers and bounds of slices may be symbolic sizes or integer scalar nodes, arrays and masks
    may be nodes.  A position outside its axis is an OutOfRangeError (an IndexError), when the graph
    is built if it is known, else at the call.  With a mask the size of the result is only known at
    run time.
    """
    node = as_node(x)
    ids, index = _parse(node, key)
    if ids:
        return _gather.make((node, *ids), {"index": index})
    return _subtensor.make((node,), {"index": index})


@composed
def set_subtensor(part: Any, value: Any) -> Node:
    """x with `value` in the place of part = x[...]; x itself stays as it is.

    `part` is what indexing, `take` or `take_along_axis` gave; the result has the shape of the x
    that was indexed: of y for part = y[1:], whatever y is.  The value broadcasts.  Where an integer
    array names a position twice the last one counts.  Also written x[...].set(value).
    """
    base, ids, params = _indexed(part)
    fitted = _fit(value, part)
    if ids:
        return _scatter_set.make((base, fitted, *ids), params)
    return _set_subtensor.make((base, fitted), params)


@composed
def inc_subtensor(part: Any, value: Any) -> Node:
    """x with `value` added to part = x[...]; see `set_subtensor`.

    Where an integer array names a position twice both are added.  Also written x[...].inc(value).
    """
    base, ids, params = _indexed(part)
    fitted = _fit(value, part)
    if ids:
        return _scatter_add.make((base, fitted, *ids), params)
    return _set_subtensor.make((base, add(part, fitted)), params)


def _indexed(part: Any) -> tuple[Node, tuple[Node, ...], dict[str, Any]]:
    """What was indexed, by which operands, and how."""
    if not isinstance(part, Node) or part.op not in (_subtensor, _gather):
        raise ArgumentError(f"needs a part of an array, x[...], got {part!r}")
    return part.inputs[0], part.inputs[1:], dict(part.params)


def _fit(value: Any, part: Node) -> Node:
    """The value in dtype and shape of the part it replaces."""
    if promoted(value, part) != part.dtype:
        raise DTypeError(
            f"a value of {promoted(value)} does not fit into {part.dtype}; cast it with "
            f"gd.cast(value, {part.dtype.name!r})"
        )
    return broadcast_to(coerce([value], part.dtype)[0], part.shape)
