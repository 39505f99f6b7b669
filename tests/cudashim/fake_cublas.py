"""cuBLAS's functions on the CPU, called by ctypes as the library's are."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdrop_cupy.products import FUNCTIONS, WORKSPACE

from . import fake_cupy

TYPES = {0: np.dtype("f4"), 1: np.dtype("f8"), 2: np.dtype("f2")}
SUMS = {68: np.dtype("f4"), 70: np.dtype("f8")}
FAILED = 14  # CUBLAS_STATUS_INTERNAL_ERROR
SUCCESS = 0


class Handles:
    """What the library keeps of a handle: its stream, and where its memory is."""

    def __init__(self) -> None:
        self.stream: dict[int, int] = {}
        self.memory: dict[int, int] = {}

    def create(self, place: int) -> None:
        number = 1000 + len(self.stream)
        self.stream[number], self.memory[number] = 0, 0
        ctypes.c_void_p.from_address(place).value = number

    def set_stream(self, handle: int, stream: int | None) -> None:
        self.stream[handle], self.memory[handle] = stream or 0, 0

    def set_workspace(self, handle: int, memory: int, nbytes: int) -> None:
        assert nbytes == WORKSPACE
        fake_cupy.Memory.at(memory)
        self.memory[handle] = memory

    def multiply(
        self, handle: int, turn_a: int, turn_b: int, m: int, n: int, k: int, alpha: int,
        a: int, kind_a: int, lda: int, apart_a: int, b: int, kind_b: int, ldb: int, apart_b: int,
        beta: int, c: int, kind_c: int, ldc: int, apart_c: int, count: int, sums: int, how: int,
    ) -> None:  # fmt: skip
        """As cublasGemmStridedBatchedEx; all matrices are column by column."""
        assert kind_a == kind_b == kind_c
        assert how == -1
        assert self.stream[handle] == fake_cupy.get_current_stream().ptr
        assert self.memory[handle], "a new stream takes the memory away"
        factor = {68: ctypes.c_float, 70: ctypes.c_double}[sums]
        assert (factor.from_address(alpha).value, factor.from_address(beta).value) == (1, 0)

        def matrices(
            start: int, leading: int, apart: int, turn: int, rows: int, columns: int
        ) -> Any:
            """As they are multiplied; `rows` and `columns` after the turn."""
            dtype = TYPES[kind_a]
            stored = (columns, rows) if turn else (rows, columns)
            assert leading >= max(stored[0], 1)
            memory = fake_cupy.Memory.at(start)
            last = apart * (count - 1) + leading * (stored[1] - 1) + stored[0]
            assert start + last * dtype.itemsize <= memory.ptr + memory.nbytes
            raw = (ctypes.c_char * (memory.ptr + memory.nbytes - start)).from_address(start)
            found = np.ndarray(
                (count, *stored), dtype, raw, 0,
                tuple(s * dtype.itemsize for s in (apart, 1, leading)),
            )  # fmt: skip
            return found.swapaxes(1, 2) if turn else found

        left = matrices(a, lda, apart_a, turn_a, m, k)
        right = matrices(b, ldb, apart_b, turn_b, k, n)
        out = matrices(c, ldc, apart_c, 0, m, n)

        def work() -> None:
            wide = SUMS[sums]
            with np.errstate(all="ignore"):
                # matrices are in C order when transposed, as the oracle's are
                turned = (right.swapaxes(1, 2).astype(wide), left.swapaxes(1, 2).astype(wide))
                out.swapaxes(1, 2)[...] = np.matmul(*turned)

        fake_cupy.do(work)


def library() -> Any:
    """The functions, as ctypes gives them."""
    handles = Handles()

    def one(*given: Any) -> None:
        """cublasGemmEx as a batch of one."""
        head, (a, kind_a, lda), (b, kind_b, ldb) = given[:7], given[7:10], given[10:13]
        beta, (c, kind_c, ldc), (sums, how) = given[13], given[14:17], given[17:]
        handles.multiply(*head, a, kind_a, lda, 0, b, kind_b, ldb, 0, beta, c, kind_c, ldc, 0, 1,
                         sums, how)  # fmt: skip

    works: dict[str, Callable[..., None]] = {
        "cublasCreate_v2": handles.create, "cublasSetMathMode": lambda handle, mode: None,
        "cublasSetStream_v2": handles.set_stream, "cublasSetWorkspace_v2": handles.set_workspace,
        "cublasGemmEx": one, "cublasGemmStridedBatchedEx": handles.multiply,
    }  # fmt: skip

    def called(name: str) -> Any:
        kinds = FUNCTIONS[name]

        def status(*given: Any) -> int:
            try:
                works[name](*given)
            except Exception as error:  # noqa: BLE001  # C would not let it through
                print(f"{name}: {error!r}")
                return FAILED
            return SUCCESS

        return ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(status)

    return types.SimpleNamespace(**{name: called(name) for name in FUNCTIONS})
