"""Who is reading the arrays of shared values: a call that runs, or a copy being made.

An array is replaced whole or, where few of its rows change, written to in place (`commit.py`); it
must not be written to while somebody reads it.  A reader takes a lease together with the array, in
one moment under `swap`; a writer asks, under `swap` too, whether anyone else holds one.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

# guards the moment in which shared values are read or replaced together
swap = threading.RLock()

# above 0 while values are being replaced or written to, for readers that hold the interpreter's
# lock and no other: nobody begins to write under it, but a writer may have let it go half-way
changing = ctypes.c_int64(0)

_numbers = itertools.count()
_owners: WeakSet[Any] = WeakSet()  # of locks that outlive a call
_readers: dict[int, Sequence[Any]] = {}  # lease -> the shared variables read under it


def lock_of(owner: Any) -> threading.RLock:
    """A lock for an object to keep as its `lock`; a process that is forked gets a new one."""
    _owners.add(owner)
    return threading.RLock()


def _forked() -> None:
    """Only the thread that forks lives on; nobody holds a lock or a lease any more."""
    global swap
    swap = threading.RLock()
    _readers.clear()
    changing.value = 0
    for owner in list(_owners):
        owner.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # with `swap` held nobody is half-way through replacing a value
    os.register_at_fork(
        before=lambda: swap.acquire(), after_in_parent=lambda: swap.release(),
        after_in_child=_forked,
    )  # fmt: skip


def new() -> int:
    """A lease of nothing yet."""
    return next(_numbers)


def take(lease: int, variables: Sequence[Any]) -> None:
    """Begin to read the variables' arrays; `swap` must be held."""
    _readers[lease] = variables


def give_back(lease: int) -> None:
    """End a lease, taken or not; `swap` need not be held, as a writer would but copy in vain."""
    _readers.pop(lease, None)


def read_elsewhere(variable: Any, lease: int) -> bool:
    """Whether anyone but the holder of a lease reads the variable; `swap` must be held."""
    for number, read in _readers.copy().items():
        if number != lease and any(v is variable for v in read):
            return True
    return False


@contextmanager
def writing() -> Iterator[None]:
    """Around all that may replace shared values or write to them; `swap` is held."""
    with swap:
        changing.value += 1
        try:
            yield
        finally:
            changing.value -= 1


@contextmanager
def reading(variables: Sequence[Any]) -> Iterator[list[Any]]:
    """The arrays of shared variables, taken in one moment."""
    lease = new()
    try:
        with swap:
            take(lease, variables)
            arrays = [v.array for v in variables]
        yield arrays
    finally:
        give_back(lease)
