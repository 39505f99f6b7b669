"""The library that computes products of matrices where the user wants one.

GRAPHDROP_BLAS names it: "mkl", "scipy", or the path of a library with Fortran's names (sgemm_) and
integers of 32 bits.  Unset or empty, products are our own; see `gemm`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

from graphdrop.errors import BackendError
from graphdrop.threads import follow

ENVIRONMENT = "GRAPHDROP_BLAS"
_lock = threading.Lock()


def chosen() -> bool:
    """Whether a library computes products, and not our own functions."""
    return bool(os.environ.get(ENVIRONMENT))


@cache
def address(routine: str) -> int:
    """Where the library has a routine."""
    library = _library()
    if library is None:
        return _of_scipy(routine)
    try:
        return ctypes.cast(getattr(library, f"{routine}_"), ctypes.c_void_p).value or 0
    except AttributeError:
        raise BackendError(
            f"{ENVIRONMENT}: {library._name} has no {routine}_, so it is no BLAS with Fortran's "
            f"names; name another, or 'scipy'"
        ) from None


@cache
def _library() -> ctypes.CDLL | None:
    """The library that was chosen; None for SciPy's."""
    wish = os.environ.get(ENVIRONMENT, "")
    if wish == "scipy":
        return None
    found = _mkl() if wish == "mkl" else Path(wish)
    if found is None:
        raise BackendError(f"{ENVIRONMENT}={wish}: MKL is not installed; pip install mkl")
    try:
        library = ctypes.CDLL(str(found))
    except OSError as error:
        raise BackendError(f"{ENVIRONMENT}={wish}: {error}") from None
    if hasattr(library, "MKL_Set_Num_Threads"):
        follow(library.MKL_Set_Num_Threads)
        _let_sleep(found)
    return library


def _mkl() -> Path | None:
    """MKL as pip and conda install it."""
    for base in dict.fromkeys((sys.prefix, sys.base_prefix)):
        for pattern in ("lib/libmkl_rt.so*", "Library/bin/mkl_rt*.dll"):
            for path in sorted(Path(base).glob(pattern)):
                return path
    return None


def _let_sleep(mkl: Path) -> None:
    """MKL's threads are not to spin between products: the core is wanted for kernels."""
    for path in (*mkl.parent.glob("libiomp5.so"), *mkl.parent.glob("libiomp5md.dll")):
        ctypes.CDLL(str(path)).kmp_set_blocktime(0)


def _cython_blas() -> Any:
    """SciPy's module alone: all of scipy.linalg takes longer to import than a program to compile.

    It is known under its name afterwards, so that whoever imports scipy.linalg gets the same.
    """
    name = "scipy.linalg.cython_blas"
    with _lock:
        _load_alone(name)
    return sys.modules.get(name) or import_module(name)


def _load_alone(name: str) -> None:
    if name not in sys.modules and "scipy.linalg" not in sys.modules:
        import scipy

        folders = [os.path.join(folder, "linalg") for folder in scipy.__path__]
        spec = PathFinder.find_spec(name, folders)
        if spec is not None and spec.loader is not None:
            module = sys.modules[name] = module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise


def _of_scipy(routine: str) -> int:
    """The address that SciPy publishes."""
    capsule = _cython_blas().__pyx_capi__[routine]
    api = ctypes.pythonapi
    name, pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found: int = pointer(capsule, name(capsule))
    return found
