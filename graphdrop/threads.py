"""How many threads a compiled function may use."""

from __future__ import annotations

import os
from collections.abc import Callable

from .errors import positive

_listeners: list[Callable[[int], None]] = []


def _default() -> int:
    """The cores this process may run on, or fewer if OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(wish), cores or 1) if wish.isdigit() and int(wish) else cores or 1


_number = _default()


def get_num_threads() -> int:
    """How many threads share a large kernel, the caller's included."""
    return _number


def set_num_threads(number: int) -> None:
    """Let so many threads share a large kernel, the caller's included; 1 means no others.

    Results do not depend on it.  Where GRAPHDROP_BLAS lets a library compute products: MKL follows
    this number, SciPy's has threads of its own (OPENBLAS_NUM_THREADS, or threadpoolctl).
    """
    global _number
    _number = positive(number, "the number of threads")
    for listener in _listeners:
        listener(_number)


def follow(listener: Callable[[int], None]) -> None:
    """Call `listener` with the number now, and whenever it changes; for backends."""
    _listeners.append(listener)
    listener(_number)
