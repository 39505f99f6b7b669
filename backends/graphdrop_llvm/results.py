"""New arrays for results: large ones take the memory of results that nobody holds any more.

Memory fresh from the system has to be cleared first, which takes longer than most kernels need to
fill it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from graphdrop.schedule.memory import ALIGN

LARGE = 1 << 18  # bytes; what is smaller the allocator keeps at hand itself
SPARES = 2  # a new value and the old one take turns
_OURS = 2  # references to memory that only this module knows: a variable, and getrefcount's own


class Results:
    """Arrays of one shape and dtype, each of which belongs to whoever asked for it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._spares: list[np.ndarray[Any, Any]] = []

    def new(self) -> np.ndarray[Any, Any]:
        if self._bytes < LARGE:
            return np.empty(self.shape, self.dtype)
        memory = self._free()
        start = -memory.ctypes.data % ALIGN
        array = memory[start : start + self._bytes].view(self.dtype).reshape(self.shape)
        self._spares.append(memory)
        return array

    def _free(self) -> np.ndarray[Any, Any]:
        """Memory that no array is a view of; what is popped here no other thread sees."""
        for _ in range(len(self._spares)):
            try:
                memory = self._spares.pop(0)
            except IndexError:
                break
            if sys.getrefcount(memory) == _OURS:
                return memory
            if len(self._spares) < SPARES:
                self._spares.append(memory)
        return np.empty(self._bytes + ALIGN, np.uint8)
