"""The CPU at full speed: a compiled function is one LLVM module over NumPy arrays."""

from .backend import BACKEND

__all__ = ["BACKEND"]
