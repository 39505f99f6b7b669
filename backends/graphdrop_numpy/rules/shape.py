"""NumPy rules of `graphdrop.ops.shape`."""

from __future__ import annotations

import numpy as np

from graphdrop.errors import ShapeError
from graphdrop.ops import shape as ops

from .rule import Array, Table


def _checked(shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(size < 0 for size in shape):  # the value of a node
        raise ShapeError(f"the shape {shape} has a negative size")
    return shape


def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, _checked(shape))


def reshape(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(_checked(shape))


RULES: Table = {
    ops.reshape: reshape,
    ops.transpose: lambda x, *, axes: x.transpose(axes),
    ops.specify_shape: lambda x, *, shape: x,
    ops.broadcast_to: broadcast_to,
}
