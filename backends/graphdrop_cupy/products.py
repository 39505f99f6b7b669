"""Products of matrices by cuBLAS, through a handle of our own.

CuPy has the library, but refuses to call it while a graph is recorded.  So its functions are called
by ctypes; those for recorded and for other calls are the same, with memory of one size, and so are
the bits.  (CUDA Toolkit documentation, "cuBLAS".)
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphdrop.errors import BackendError

WORKSPACE = 32 << 20  # bytes for cuBLAS's own use; no other amount has been tried on a GPU
NORMAL, TURNED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
WHOLE_SUMS = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: float16 adds up in float32
ANY = -1  # CUBLAS_GEMM_DEFAULT
# by dtype: cudaDataType, cublasComputeType_t, and what the factors 1 and 0 are
KINDS: dict[str, tuple[int, int, Any]] = {
    "float16": (2, 68, ctypes.c_float), "float32": (0, 68, ctypes.c_float),
    "float64": (1, 70, ctypes.c_double),
}  # fmt: skip

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_MATRIX = [_POINTER, _INT, _INT]  # its address, type and leading dimension
_HEAD = [_POINTER, *[_INT] * 5, _POINTER]  # handle, turns, sizes, factor
FUNCTIONS: dict[str, list[Any]] = {
    "cublasCreate_v2": [_POINTER],
    "cublasSetMathMode": [_POINTER, _INT],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    "cublasGemmEx": [*_HEAD, *_MATRIX, *_MATRIX, _POINTER, *_MATRIX, _INT, _INT],
    "cublasGemmStridedBatchedEx": [
        *_HEAD, *_MATRIX, _LONG, *_MATRIX, _LONG, _POINTER, *_MATRIX, _LONG, _INT, _INT, _INT
    ],
}  # fmt: skip


def cublas() -> Any:
    """The library that CuPy has loaded; ImportError or OSError if there is none."""
    from cupy_backends.cuda.libs import cublas as extension

    library = ctypes.CDLL(extension.__file__)  # names are looked up in what it stands on, too
    for name, kinds in FUNCTIONS.items():
        getattr(library, name).argtypes = kinds
    return library


@dataclass(frozen=True)
class Matrix:
    """A matrix as cuBLAS reads it, column by column.

    how      NORMAL if it is there the transpose of ours, TURNED if it is ours
    leading  how many elements its columns are apart
    """

    how: int
    leading: int


def as_columns(array: Any) -> Matrix | None:
    """How cuBLAS reads the matrices of an array; None if it cannot read them as they are."""
    (rows, columns), (down, across) = array.shape[-2:], _strides(array)[-2:]
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return Matrix(NORMAL, max(down if rows > 1 else columns, 1))
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return Matrix(TURNED, max(across if columns > 1 else rows, 1))
    return None


def _strides(array: Any) -> tuple[int, ...]:
    return tuple(s // array.dtype.itemsize for s in array.strides)


class Products:
    """Multiplies on one stream.

    library  cuBLAS's functions
    memory   an array of WORKSPACE bytes, which no other stream uses
    dense    copies an array whose matrices cuBLAS cannot read: rows backwards, or all the same row
    """

    def __init__(self, library: Any, memory: Any, dense: Callable[[Any], Any]) -> None:
        self.library, self.memory, self.dense = library, memory, dense
        handle = ctypes.c_void_p()
        self._ask("cublasCreate_v2", ctypes.addressof(handle))
        self.handle = handle.value
        self._ask("cublasSetMathMode", self.handle, WHOLE_SUMS)
        self._lock = threading.Lock()

    def _ask(self, name: str, *given: Any) -> None:
        status = getattr(self.library, name)(*given)
        if status:
            raise BackendError(f"cuBLAS: {name} failed with status {status}")

    def multiply(self, stream: int, left: Any, right: Any, out: Any) -> None:
        """out = left @ right on a stream; `out` is in C order."""
        left, right = (a if as_columns(a) else self.dense(a) for a in (left, right))
        axes = _axes(out.shape[:-2], [_batch(a, out.ndim) for a in (left, right, out)])
        with self._lock:
            self._ask("cublasSetStream_v2", self.handle, stream)
            # which takes the memory away
            self._ask("cublasSetWorkspace_v2", self.handle, self.memory.data.ptr, WORKSPACE)
            even = bool(axes) and min(axes[-1].strides) >= 0
            inner = axes.pop() if even else _Axis(1, (0, 0, 0))
            for position in itertools.product(*(range(a.size) for a in axes)):
                starts = [
                    sum(i * a.strides[k] for i, a in zip(position, axes, strict=True))
                    for k in range(3)
                ]
                self._one(left, right, out, starts, inner)

    def _one(self, left: Any, right: Any, out: Any, starts: Sequence[int], axis: _Axis) -> None:
        """Products that lie evenly apart.  Column by column all is transposed: C' = B' A'."""
        kind, sums, number = KINDS[out.dtype.name]
        (rows, columns), inner = out.shape[-2:], left.shape[-1]
        one, zero = number(1), number(0)
        a, b = as_columns(left), as_columns(right)
        assert a is not None
        assert b is not None
        at = [
            x.data.ptr + s * x.dtype.itemsize
            for x, s in zip((left, right, out), starts, strict=True)
        ]
        head = (self.handle, b.how, a.how, columns, rows, inner, ctypes.addressof(one))
        second, first = (at[1], kind, b.leading), (at[0], kind, a.leading)
        last = (ctypes.addressof(zero), at[2], kind, columns)
        if axis.size == 1:
            self._ask("cublasGemmEx", *head, *second, *first, *last, sums, ANY)
            return
        x, y, z = axis.strides
        self._ask(
            "cublasGemmStridedBatchedEx", *head, *second, y, *first, x, *last, z, axis.size, sums,
            ANY,
        )  # fmt: skip


@dataclass(frozen=True)
class _Axis:
    """An axis of a batch: how many products, and how far the three arrays' are apart."""

    size: int
    strides: tuple[int, int, int]


def _batch(array: Any, ndim: int) -> list[int]:
    """The strides of the axes before a matrix; 0 where one matrix serves all."""
    own = [0 if n == 1 else s for n, s in zip(array.shape, _strides(array), strict=True)][:-2]
    return [0] * (ndim - 2 - len(own)) + own


def _axes(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> list[_Axis]:
    """The axes of a batch, those that are evenly spaced together made one; last the longest that no
    array walks backwards, if there is one.
    """
    found: list[_Axis] = []
    for size, *apart in zip(sizes, *strides, strict=True):
        axis = _Axis(size, (apart[0], apart[1], apart[2]))
        if size == 1:
            continue
        if found and all(
            o == n * size for o, n in zip(found[-1].strides, axis.strides, strict=True)
        ):
            axis = _Axis(found.pop().size * size, axis.strides)
        found.append(axis)
    return sorted(found, key=lambda a: a.size if min(a.strides) >= 0 else 0)
