"""NumPy rules of `graphdrop.ops.shape`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import shape as ops

from .rule import Table

RULES: Table = {
    ops.reshape: lambda x, *, shape: x.reshape(shape),
    ops.transpose: lambda x, *, axes: x.transpose(axes),
    ops.specify_shape: lambda x, *, shape: x,
    ops.broadcast_to: lambda x, *, shape: np.broadcast_to(x, shape),
}
