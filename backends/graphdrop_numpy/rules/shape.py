"""NumPy rules of `graphdrop.ops.shape`."""

from __future__ import annotations

import numpy as np

from graphdrop.errors import ShapeError
from graphdrop.ops import shape as ops

from .rule import Array, Table


def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Array:
    if any(size < 0 for size in shape):  # the value of a node
        raise ShapeError(f"the shape {shape} has a negative size")
    return np.broadcast_to(x, shape)


RULES: Table = {
    ops.reshape: lambda x, *, shape: x.reshape(shape),
    ops.transpose: lambda x, *, axes: x.transpose(axes),
    ops.specify_shape: lambda x, *, shape: x,
    ops.broadcast_to: broadcast_to,
}
