"""The GPU: programs as CUDA kernels by way of CuPy, imported when `BACKEND` is asked for."""

from __future__ import annotations

from typing import Any

from .backend import load, make_backend

__all__ = ["BACKEND", "make_backend"]


def __getattr__(name: str) -> Any:
    if name == "BACKEND":
        return load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
