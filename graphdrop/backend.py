"""What a backend is, and how one is found.

A backend is a value.  Packages offer one under the entry-point group `graphdrop.backends`; the core
never imports a backend by name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np

from .errors import BackendError, MissingError
from .graph import Node
from .op import Op
from .types import Atom

GROUP = "graphdrop.backends"


@dataclass(frozen=True)
class Graph:
    """What a backend compiles: a closed graph.

    inputs   leaves whose arrays are given at each call, in this order
    outputs  what is computed
    atoms    the symbolic sizes that the inputs fix; `Executable.run` gets their values
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    atoms: tuple[Atom, ...]


class Executable(Protocol):
    """A compiled graph.  Runs in several threads at once; outputs are new arrays of its own, of the
    backend's `array_type`, which it takes as well as NumPy's.
    """

    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        """The outputs for the inputs' arrays and the atoms' values."""

    def shortcut(
        self, arrays: list[Any], shared: Sequence[Any], sizes: tuple[int, ...]
    ) -> Callable[..., list[Any] | None] | None:
        """A quicker `run` for arrays of the dtypes and shapes of `arrays`, if there is one.

        The last of them are the values of `shared`, which it reads itself.  It takes the others as
        its arguments, checks them itself, and returns None for any that are unlike, or while shared
        values are being replaced.
        """

    def listing(self, what: str) -> str:
        """Text for people: "program" (its steps), "source" (what was printed), "assembly"."""

    def observe(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[..., None]
    ) -> list[Any]:
        """As `run`, calling `seen(node, value, seconds, what)` after every step; for the profiler.

        value  what was made, or something with its `nbytes`
        what   the step in a few words, where the operation's name is not enough
        """


@dataclass(frozen=True)
class Store:
    """What a backend has compiled, for processes that build a graph of the same name again.

    keep    (name, executable, a line of notes): keeps what it takes to run it
    revive  (name, the graph's atoms, what makes the graph) -> the executable and the notes; None if
            nothing is kept.  The graph is made only for those who look inside, and for errors
    """

    keep: Callable[[str, Executable, str], None]
    revive: Callable[[str, tuple[Atom, ...], Callable[[], Graph]], tuple[Executable, str] | None]


@dataclass(frozen=True)
class Backend:
    """How graphs are computed.

    name         what users pass as backend=
    rules        op -> how this backend computes it (of the backend's own kind)
    compile      graph -> executable; numpy's takes `bodies`, what compiles those of loops
    to_device    an array, NumPy's or of some device, as one of `array_type`
    to_host      one of `array_type` as NumPy's
    unsupported  op -> why this backend does not compute it
    array_type   what values are between calls: NumPy's arrays, or a device's
    store        where it keeps what it has compiled for other processes, if it does
    """

    name: str
    rules: Mapping[Op, Any]
    compile: Callable[..., Executable]
    to_device: Callable[[Any], Any]
    to_host: Callable[[Any], Any]
    unsupported: Mapping[Op, str] = field(default_factory=dict)
    array_type: type = np.ndarray
    store: Store | None = None

    @property
    def is_host(self) -> bool:
        """Whether values between calls are NumPy's arrays."""
        return self.array_type is np.ndarray


# what "auto" takes, best first, of those installed
PREFERENCE = ("cupy", "llvm", "numpy")
ENVIRONMENT = "GRAPHDROP_BACKEND"

_loaded: dict[str, Backend] = {}


@cache
def _installed() -> dict[str, Any]:
    """Entry points by name; looked up once, since it reads every installed package."""
    from importlib.metadata import entry_points  # not needed to import graphdrop

    return {e.name: e for e in entry_points(group=GROUP)}


def available() -> list[str]:
    """The names of the installed backends."""
    return sorted({*_installed(), *_loaded})


def register(backend: Backend) -> None:
    """Offer a backend without packaging it."""
    if backend.name in available():
        raise BackendError(f"a backend named {backend.name!r} already exists")
    _loaded[backend.name] = backend


def get_backend(name: str) -> Backend:
    """The backend called `name`; "auto" is what GRAPHDROP_BACKEND says, or the fastest."""
    if name == "auto":
        name = os.environ.get(ENVIRONMENT, name)
    if name == "auto":
        return _best()
    if name in _loaded:
        return _loaded[name]
    entry = _installed().get(name)
    if entry is None:
        raise BackendError(
            f"unknown backend {name!r}; installed are {', '.join(available()) or 'none'} "
            f"(and 'auto'); a backend is a package with an entry point in {GROUP!r}"
        )
    backend = entry.load()
    if not isinstance(backend, Backend):
        raise BackendError(f"the entry point {name!r} gives {backend!r}, not a graphdrop Backend")
    return _loaded.setdefault(name, backend)


@cache
def _best() -> Backend:
    """The first of `PREFERENCE` that works here; says once what does not, if it is installed."""
    for name in PREFERENCE:
        if name not in available():
            continue
        try:
            return get_backend(name)
        except MissingError:
            continue
        except BackendError as error:
            warnings.warn(f"backend='auto' goes on without {name!r}: {error}", stacklevel=2)
    raise BackendError("no backend is installed; install graphdrop anew")
