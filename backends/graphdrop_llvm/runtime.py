"""What all programs share, compiled once: threads, and the way in."""

from __future__ import annotations

import ctypes
import os
import threading

from graphdrop.kept import Single
from graphdrop.threads import follow

from .engine import compile_module
from .entry import TAKE, knows_layout
from .shortcut import SHORTCUT, new_array
from .shortcut import symbols as interpreter
from .workers import POOL


class Runtime:
    """Shared native functions of this process.

    symbols   their addresses, for what is printed
    take      the address of `gd_take`, see `entry`; None where objects lie otherwise in memory
    shortcut  the address of `gd_shortcut`, see `shortcut`, or None likewise
    """

    def __init__(self) -> None:
        known = knows_layout()
        texts = [POOL, *([TAKE, SHORTCUT] if known else [])]
        self._engine = compile_module("\n".join(texts), interpreter() if known else {}, level=0)
        found = self._engine.get_function_address
        self.symbols: dict[str, int] = {n: found(n) for n in ("gd_parallel", "gd_allowed")}
        self.take: int | None = found("gd_take") if known else None
        self.shortcut: int | None = found("gd_shortcut") if known else None
        if known:
            place = self._engine.get_global_value_address("gd_new_array")
            ctypes.c_uint64.from_address(place).value = new_array()
        self._start = ctypes.CFUNCTYPE(None)(found("gd_start"))
        self._allow = ctypes.CFUNCTYPE(None, ctypes.c_int64)(found("gd_threads"))
        self._worker = ctypes.CFUNCTYPE(None)(found("gd_worker"))
        self._workers, self._lock = 0, threading.Lock()
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """A fresh start: only the caller of a fork survives it, and the lock may be held."""
        self._start()
        self._workers = 0
        self._allow(1)  # workers come with the next program

    def allow(self, threads: int) -> None:
        """Let so many threads share a kernel, the caller included."""
        with self._lock:
            while self._workers < threads - 1:
                self._workers += 1
                name = f"graphdrop-{self._workers}"
                threading.Thread(target=self._worker, name=name, daemon=True).start()
            self._allow(threads)


@Single
def runtime() -> Runtime:
    """The one of this process, made when the first program is compiled."""
    found = Runtime()
    follow(found.allow)
    return found
