"""The llvm backend's `Backend` value."""

from __future__ import annotations

from graphdrop.arrays import to_host
from graphdrop.backend import Backend

from .program import LlvmProgram
from .scalars import PRINTERS

BACKEND = Backend(
    name="llvm",
    rules=PRINTERS,
    compile=LlvmProgram,
    to_device=to_host,
    to_host=to_host,
)
