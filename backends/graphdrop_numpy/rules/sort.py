"""NumPy rules of `graphdrop.ops.sort`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import sort as ops

from .rule import Array, Table


def argsort(x: Array, *, axis: int, descending: bool) -> Array:
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # backwards twice, so that equal elements keep their order
    last = x.shape[axis] - 1
    order: Array = last - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    return order


def searchsorted(x: Array, values: Array, *, side: str) -> Array:
    return np.asarray(np.searchsorted(x, values, side))  # type: ignore[call-overload]


def last_equal(x: Array) -> Array:
    _, first, which = np.unique(x[::-1], return_index=True, return_inverse=True)
    positions: Array = len(x) - 1 - first[which]
    return positions[::-1]


RULES: Table = {
    ops._sort: lambda x, *, axis: np.sort(x, axis, kind="stable"),
    ops._argsort: argsort,
    ops._searchsorted: searchsorted,
    ops.last_equal: last_equal,
}
