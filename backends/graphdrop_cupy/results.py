"""New arrays for results, where earlier results were that nobody holds any more.

Calls can be replayed only where their arrays lie as they did before: a new value of a shared
variable takes turns with the one before it.
"""

from __future__ import annotations

import sys
from typing import Any

from .device import Device

SPARES = 3
_OURS = 2  # references to an array that only this module knows: a variable, and getrefcount's own


class Results:
    """Arrays of one shape and dtype, each of which belongs to whoever asked for it."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: Any) -> None:
        self.device, self.shape, self.dtype = device, shape, dtype
        self._spares: list[Any] = []

    def new(self) -> Any:
        """An array that nobody else has; what is popped here no other thread sees."""
        array = self._free()
        self._spares.append(array)
        return array

    def _free(self) -> Any:
        for _ in range(len(self._spares)):
            try:
                array = self._spares.pop(0)
            except IndexError:
                break
            if sys.getrefcount(array) == _OURS:
                return array
            if len(self._spares) < SPARES:
                self._spares.append(array)
        return self.device.empty(self.shape, self.dtype)
