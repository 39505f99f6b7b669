"""NumPy rules of `graphdrop.ops.join`."""

from __future__ import annotations

import numpy as np

from graphdrop.ops import join as ops

from .rule import Table

RULES: Table = {ops.concatenate: lambda *xs, axis: np.concatenate(xs, axis)}
