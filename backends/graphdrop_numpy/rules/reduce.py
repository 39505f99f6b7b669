"""NumPy rules of `graphdrop.ops.reduce`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import reduce as ops

from .rule import Table

RULES: Table = {ops.sum: np.sum, ops.max: np.max, ops.min: np.min, ops.any: np.any, ops.all: np.all}
