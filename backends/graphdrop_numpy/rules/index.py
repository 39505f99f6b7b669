"""NumPy rules of `graphdrop.ops.index` and `brackets`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from graphdrop.errors import OutOfRangeError
from graphdrop.op import get
from graphdrop.ops import brackets
from graphdrop.ops import index as ops
from graphdrop.ops.brackets import Index
from graphdrop.ops.gather import row_index

from .rule import Array, Table


def key_of(index: Index, ids: Sequence[Array] = ()) -> tuple[Any, ...]:
    """What to write between NumPy's brackets."""
    arrays = iter(ids)
    return tuple(
        None if e == "new" else ... if e == "..." else next(arrays) if e == "ids"
        else slice_of(*e) if isinstance(e, tuple) else e
        for e in index
    )  # fmt: skip


def slice_of(start: Any, step: int, length: Any) -> slice:
    """`length` positions; an end before the first element is written None, not as a negative."""
    stop = start + step * length
    return slice(start if length else 0, (stop if stop >= 0 else None) if length else 0, step)


def in_range(rule: Callable[..., Array]) -> Callable[..., Array]:
    """NumPy's IndexError as an error that the program can explain."""

    @wraps(rule)
    def checked(*operands: Array, index: Index) -> Array:
        try:
            return rule(*operands, index=index)
        except IndexError as error:
            raise OutOfRangeError(str(error)) from None

    return checked


def basic_key(x: Array, index: Index) -> tuple[Any, ...]:
    # NumPy would count a position below 0 from the end, and give a scalar where there is no axis
    if any(e < 0 for e in index if isinstance(e, int)):
        raise OutOfRangeError(f"a position of {index} is below 0 in shape {x.shape}")
    return (*key_of(index), Ellipsis)


@in_range
def subtensor(x: Array, *, index: Index) -> Array:
    y: Array = x[basic_key(x, index)]
    return y


@in_range
def set_subtensor(x: Array, value: Array, *, index: Index) -> Array:
    y = np.array(x)
    y[basic_key(x, index)] = value
    return y


@in_range
def gather(x: Array, *ids: Array, index: Index) -> Array:
    y: Array = x[key_of(index, ids)]
    return y if any(i.ndim for i in ids) else y.copy()  # NumPy gives a view for scalars


@in_range
def scatter_add(x: Array, value: Array, *ids: Array, index: Index) -> Array:
    y = np.array(x, order="C")
    if index == row_index(y.shape) and y.ndim > 1:
        # the same additions in the same order; NumPy is ten times faster with one flat index
        rows, width = np.arange(len(y))[ids[0]], y[:1].size
        places = rows[..., None] * width + np.arange(width)
        value = np.broadcast_to(value, (*rows.shape, *y.shape[1:]))
        np.add.at(y.reshape(-1), places.reshape(-1), value.reshape(-1))
        return y
    np.add.at(y, key_of(index, ids), value)
    return y


@in_range
def scatter_set(x: Array, value: Array, *ids: Array, index: Index) -> Array:
    y = np.array(x)
    y[key_of(index, ids)] = value
    return y


def nonzero(x: Array, *, count: int) -> tuple[Array, ...]:
    return tuple(np.ascontiguousarray(places) for places in np.nonzero(x))


RULES: Table = {
    ops._subtensor: subtensor,
    ops._set_subtensor: set_subtensor,
    ops._gather: gather,
    ops._scatter_add: scatter_add,
    ops._scatter_set: scatter_set,
    brackets._nonzero: nonzero,
    get: lambda results, *, index: results[index],
}
