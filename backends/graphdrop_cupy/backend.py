"""The cupy backend's `Backend` value, made when somebody asks for it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from graphdrop.backend import Backend
from graphdrop.errors import BackendError, MissingError

from .device import Device
from .program import CupyProgram
from .scalars import EXPRESSIONS

INSTEAD = "or compute on the CPU with backend='llvm'"


def make_backend(xp: Any, name: str = "cupy") -> Backend:
    """The backend on an array module: cupy, or what stands in for it."""
    device = Device(xp)
    return Backend(
        name=name, rules=EXPRESSIONS, compile=partial(CupyProgram, device=device),
        to_device=device.put, to_host=device.get, array_type=xp.ndarray,
    )  # fmt: skip


@cache
def load() -> Backend:
    """The backend on this machine's GPU; an error that says what to install if there is none."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendError(_broken(error)) from error
        raise MissingError(
            "backend 'cupy' needs CuPy, which is not installed; install it with "
            f"pip install 'graphdrop[cupy]', {INSTEAD}"
        ) from None
    except ImportError as error:
        raise BackendError(_broken(error)) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"CuPy is installed, but finds no GPU that it can use ({error}); install NVIDIA's "
            f"driver for the CUDA version of your CuPy, {INSTEAD}"
        ) from None
    if not count:
        raise BackendError(f"CuPy is installed, but this machine has no GPU; add one, {INSTEAD}")
    return make_backend(cupy)


def _broken(error: Exception) -> str:
    return (
        f"CuPy is installed, but cannot be imported ({error}); install the package for your CUDA "
        f"version, such as cupy-cuda13x, anew, {INSTEAD}"
    )
