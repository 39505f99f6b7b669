"""The cupy backend's `Backend` value, made when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from graphdrop.backend import Backend
from graphdrop.errors import BackendError, MissingError

from . import products
from .device import Device
from .program import CupyProgram
from .scalars import EXPRESSIONS

INSTEAD = "or compute on the CPU with backend='llvm'"


def make_backend(
    xp: Any, name: str = "cupy", library: Callable[[], Any] = products.cublas
) -> Backend:
    """The backend on an array module and cuBLAS's functions, or what stands in for these."""
    return _backend_on(Device(xp, library), name)


def _backend_on(device: Device, name: str) -> Backend:
    return Backend(
        name=name, rules=EXPRESSIONS, compile=partial(CupyProgram, device=device),
        to_device=device.put, to_host=device.get, array_type=device.xp.ndarray,
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
    device = Device(cupy, products.cublas)
    try:
        device.check()
    except (
        ImportError, OSError, AttributeError, RuntimeError, cupy.cuda.compiler.CompileException
    ) as error:  # fmt: skip
        raise BackendError(
            f"CuPy is installed and finds a GPU, but not all that it needs of CUDA ({error}); "
            f"install it with your CuPy, such as pip install 'cupy-cuda13x[ctk]', {INSTEAD}"
        ) from None
    return _backend_on(device, "cupy")


def _broken(error: Exception) -> str:
    return (
        f"CuPy is installed, but cannot be imported ({error}); install the package for your CUDA "
        f"version, such as cupy-cuda13x, anew, {INSTEAD}"
    )
