"""NumPy rules of `graphdrop.ops.random` (and of the literals and leaves that need one)."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdrop.errors import RandomError
from graphdrop.op import size
from graphdrop.ops import leaf
from graphdrop.ops import random as ops
from graphdrop.random import kept_scale, lanes, threshold_of

from .elementwise import select
from .rule import Array, Table

Shape = tuple[int, ...]


def mask(
    threshold: Array, training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape,
) -> Array:  # fmt: skip
    if not training:
        return np.ones(shape, bool)
    dropped = int(threshold)
    if dropped == ops.STEPS:
        return np.zeros(shape, bool)
    return lanes(key, site, step, example, shape, np.uint16) >= np.uint16(dropped)


def dropout(
    x: Array, threshold: Array, training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shared: tuple[int, ...], scaled: bool,
) -> Array:  # fmt: skip
    if not training:
        return x.copy()  # a result of its own, as while training
    shape = tuple(1 if i in shared else s for i, s in enumerate(x.shape))
    keep = mask(threshold, training, key, step, example, site=site, name=name, shape=shape)
    return select(keep, scale_kept(x, threshold) if scaled else x)


def scale_kept(x: Array, threshold: Array) -> Array:
    """`x` times 65536 / (65536 - threshold); float16 by way of float32."""
    wide = np.float32 if x.dtype == np.float16 else x.dtype.type
    return (x * wide(kept_scale(int(threshold)))).astype(x.dtype, copy=False)


def uniform(
    training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> Array:  # fmt: skip
    if not training:
        return np.zeros(shape, dtype)
    if dtype == np.float64:
        wide: Array = lanes(key, site, step, example, shape, np.uint64) >> np.uint64(11)
        return wide * 2.0**-53
    shift, unit = (8, 2.0**-24) if dtype == np.float32 else (21, 2.0**-11)
    top: Array = lanes(key, site, step, example, shape, np.uint32) >> np.uint32(shift)
    found: Array = top.astype(dtype) * dtype.type(unit)
    return found


def normal(
    training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> Array:  # fmt: skip
    if not training:
        return np.zeros(shape, dtype)
    lane = lanes(key, site, step, example, shape, np.uint64)
    high, low = lane >> np.uint64(32), lane & np.uint64(0xFFFFFFFF)
    radius = np.sqrt(-2.0 * np.log((high + 0.5) * 2.0**-32))
    return np.asarray(radius * np.cos(2.0 * np.pi * (low * 2.0**-32))).astype(dtype)


def bernoulli(
    p: Array, training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape,
) -> Array:  # fmt: skip
    weight = weights(p, 2.0**32)
    if not training:
        return np.zeros(shape, bool)
    return lanes(key, site, step, example, shape, np.uint32) < weight


def weights(p: Array, unit: float) -> Array:
    """rint(p * unit) as uint64; an error for what is no probability."""
    if not ((p >= 0) & (p <= 1)).all():
        raise RandomError(f"probabilities must be between 0 and 1, got {p}")
    return np.asarray(np.rint(p * unit)).astype(np.uint64)


def high_product(a: Array, b: Array) -> Array:
    """The high 64 bits of the 128-bit products of uint64, from four products of 32 bits."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & low, b >> half, b & low
    cross = (a0 * b0 >> half) + (a1 * b0 & low) + (a0 * b1 & low)
    high: Array = a1 * b1 + (a1 * b0 >> half) + (a0 * b1 >> half) + (cross >> half)
    return high


def randint(
    low: Array, last: Array, training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> Array:  # fmt: skip
    info = np.iinfo(dtype)
    if not ((low >= info.min) & (low <= last) & (last <= info.max)).all():
        raise RandomError(
            f"randint needs {info.min} <= low < high <= {info.max + 1} for {dtype}, got {low} and "
            f"{last} + 1"
        )
    # sums of uint64 wrap as two's complement does; a span of 2**64 shows as 0
    start = low.astype(np.uint64)
    span = last.astype(np.uint64) - start + np.uint64(1)
    if not training:
        return np.broadcast_to(start, shape).astype(dtype)
    lane = lanes(key, site, step, example, shape, np.uint64)
    return (start + np.where(span == 0, lane, high_product(lane, span))).astype(dtype)


def categorical(
    p: Array, training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, shape: Shape,
) -> Array:  # fmt: skip
    classes = p.shape[-1]
    if not 1 <= classes <= ops.MOST_CLASSES:
        raise RandomError(f"the number of classes must be in [1, 2**24), got {classes}")
    totals = np.cumsum(weights(p, 2.0**40), axis=-1, dtype=np.uint64)
    if not (totals[..., -1] > 0).all():
        raise RandomError("a categorical draw has classes without any probability")
    if not training:
        return np.zeros(shape, np.int64)
    lane = lanes(key, site, step, example, shape, np.uint64)
    r = high_product(lane, totals[..., -1])
    if totals.ndim == 1:
        return np.asarray(np.searchsorted(totals, r, side="right")).astype(np.int64, copy=False)
    return np.asarray(np.sum(totals <= r[..., None], axis=-1, dtype=np.int64))


def permutation(
    training: Array, key: Array, step: Array, example: Array,
    *, site: int, name: str | None, length: int,
) -> Array:  # fmt: skip
    if not training:
        return np.arange(length, dtype=np.int64)
    lane = lanes(key, site, step, example, (length,), np.uint64)
    return np.argsort(lane, kind="stable").astype(np.int64, copy=False)


RULES: Table = {
    ops.threshold: lambda rate: np.int64(threshold_of(rate)),
    ops.mask: mask,
    ops.dropout: dropout,
    ops.uniform: uniform,
    ops.normal: normal,
    ops.bernoulli: bernoulli,
    ops.randint: randint,
    ops.categorical: categorical,
    ops.permutation: permutation,
    size: lambda *, size: np.int64(size),
    leaf.override_gradient: lambda y, *inputs, rule: y,
}
