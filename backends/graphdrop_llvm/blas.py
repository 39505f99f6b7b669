"""Which library computes products of matrices: MKL where the user has it, otherwise SciPy's BLAS.

GRAPHDROP_BLAS chooses: "scipy", "mkl", or the path of a library with Fortran's names (sgemm_) and
integers of 32 bits.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from graphdrop.errors import BackendError
from graphdrop.threads import follow

ENVIRONMENT = "GRAPHDROP_BLAS"


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
    found = _mkl() if wish in ("", "mkl") else Path(wish)
    if found is None:
        if wish:
            raise BackendError(f"{ENVIRONMENT}={wish}: MKL is not installed; pip install mkl")
        return None
    try:
        library = ctypes.CDLL(str(found))
    except OSError as error:
        raise BackendError(f"{ENVIRONMENT}={wish or 'mkl'}: {error}") from None
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


def _of_scipy(routine: str) -> int:
    """The address that SciPy publishes."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[routine]
    api = ctypes.pythonapi
    name, pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found: int = pointer(capsule, name(capsule))
    return found
