"""CUDA C on a CPU: what the cupy backend is tested with where there is no GPU.

`register()` offers the backend "shim": the cupy backend on `fake_cupy`.
"""

from __future__ import annotations

import shutil

import pytest

NAME = "shim"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def register() -> str:
    """Offer the backend, once; its name."""
    from graphdrop.backend import available, register
    from graphdrop_cupy import make_backend

    from . import fake_cublas, fake_cupy

    if NAME not in available():
        register(make_backend(fake_cupy, NAME, fake_cublas.library))
    return NAME
