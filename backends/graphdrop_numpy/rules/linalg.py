"""NumPy rules of `graphdrop.ops.linalg`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import linalg as ops

from .rule import Table

RULES: Table = {ops._matmul: np.matmul}
