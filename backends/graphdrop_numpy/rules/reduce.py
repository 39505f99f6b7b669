"""NumPy rules of `graphdrop.ops.reduce`, `softmax` and `cumulative`."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdrop.errors import ShapeError
from graphdrop.ops import cumulative, reduce, softmax

from .rule import Array, Rule, Table


def nonempty(rule: Rule) -> Rule:
    """A reduction of which NumPy says that nothing has no result."""

    def run(x: Array, **params: Any) -> Array:
        try:
            result: Array = rule(x, **params)
        except ValueError as error:
            raise ShapeError(str(error)) from None
        return result

    return run


def row_max(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    result: Array = np.max(x, axis=axis, keepdims=keepdims, initial=least)
    return result


def logsumexp(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)  # the sum is 0 or inf then, and its logarithm right
    total: Array = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else total.squeeze(axis)


def softmax_(x: Array, *, axis: int) -> Array:
    e: Array = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    e /= np.sum(e, axis=axis, keepdims=True)
    return e


def log_softmax(x: Array, *, axis: int) -> Array:
    shifted: Array = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    shifted -= np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
    return shifted


def cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if reverse else np.cumsum(x, axis)


def cumprod(x: Array, *, axis: int, exclusive: bool, reverse: bool) -> Array:
    if reverse:
        flipped = cumprod(np.flip(x, axis), axis=axis, exclusive=exclusive, reverse=False)
        return np.flip(flipped, axis)
    y = np.cumprod(x, axis)
    if not exclusive:
        return y
    y = np.moveaxis(y, axis, 0)
    shifted = np.concatenate([np.ones_like(y[:1]), y[:-1]])
    return np.moveaxis(shifted, 0, axis)


def linear_recurrence(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    if reverse:
        a, b = np.flip(a, axis), np.flip(b, axis)
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    z = np.zeros_like(b)
    if len(b) > 1:
        z[1] = b[0]
    for k in range(1, len(b) - 1):
        z[k + 1] = a[k] * z[k] + b[k]
    z = np.moveaxis(z, 0, axis)
    return np.flip(z, axis) if reverse else z


RULES: Table = {
    reduce.sum: np.add.reduce, reduce.prod: np.prod, reduce.any: np.any, reduce.all: np.all,
    reduce.row_max: row_max, reduce.max: nonempty(np.max), reduce.min: nonempty(np.min),
    reduce.argmax: nonempty(np.argmax), reduce.argmin: nonempty(np.argmin),
    reduce.logsumexp: logsumexp, softmax.softmax: softmax_, softmax.log_softmax: log_softmax,
    cumulative.cumsum: cumsum, cumulative.cumprod: cumprod,
    cumulative.linear_recurrence: linear_recurrence,
}  # fmt: skip
