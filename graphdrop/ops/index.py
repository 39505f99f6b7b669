"""Parts of arrays: read, replaced, added to.  What an `Index` is stands in `brackets.py`.

Operands that index are broadcast; their axes stand where NumPy puts them: in the place of the
"ids" if these are neighbours, else first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, get, op, promoted
from ..types import (
    Shape,
    Size,
    TensorType,
    broadcast_shapes,
    num_elements,
    unify,
)
from .brackets import NO_AXIS, Entry, Index, _nonzero, parse
from .create import iota, zeros, zeros_like
from .elementwise import add, coerce, equal, where
from .shape import broadcast_to, reshape

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
        if entry in NO_AXIS:
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
        raise DTypeError(
            f"indices must be integers, got {', '.join(map(str, ids))}; cast them with "
            f"gd.cast(ids, 'int64')"
        )


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
    return any(i.op is iota and i.shape == shape for i in ids)


def _last_writer(x: Node, value: Node, ids: Sequence[Node], index: Index) -> Node:
    """For every element of the value, whether it is the last one put to its place."""
    axes = [e for e in index if e not in NO_AXIS]
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
    ids, index = parse(node, key)
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
