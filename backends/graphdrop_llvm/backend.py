"""The llvm backend's `Backend` value."""

from __future__ import annotations

import numpy as np

from graphdrop.backend import Backend

from .program import LlvmProgram
from .scalars import PRINTERS

BACKEND = Backend(
    name="llvm",
    rules=PRINTERS,
    compile=LlvmProgram,
    to_device=np.asarray,
    to_host=np.asarray,
)
