"""NumPy rules of `graphdrop.ops.create`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import create as ops

from .rule import Table

RULES: Table = {ops.iota: lambda *, size: np.arange(size, dtype=np.int64)}
