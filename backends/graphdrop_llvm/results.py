"""New arrays for results: large ones take the memory of results that nobody holds any more.

Memory fresh from the system has to be cleared first, which takes longer than most kernels need to
fill it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdrop.kept import Spares
from graphdrop.schedule.memory import ALIGN

LARGE = 1 << 18  # bytes; what is smaller the allocator keeps at hand itself
SPARES = 2  # a new value and the old one take turns


class Results:
    """Arrays of one shape and dtype, each of which belongs to whoever asked for it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._spares = Spares(self._fresh, SPARES)

    def new(self) -> np.ndarray[Any, Any]:
        if self.nbytes < LARGE:
            return np.empty(self.shape, self.dtype)
        memory = self._spares.take()
        start = -memory.ctypes.data % ALIGN
        array = memory[start : start + self.nbytes].view(self.dtype).reshape(self.shape)
        self._spares.keep(memory)
        return array

    def _fresh(self) -> np.ndarray[Any, Any]:
        return np.empty(self.nbytes + ALIGN, np.uint8)
