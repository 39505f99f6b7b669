"""Compiled functions: from a graph of nodes to something that is called with arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from . import leases, tree
from .backend import Backend, Executable, Graph, get_backend
from .binding import Binder
from .bodies import inner_nodes
from .commit import Commit
from .compilation import Compilation
from .errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    InputError,
    NanError,
    RandomError,
    ShapeError,
)
from .graph import Node, current_origin, format_origin, leaves, toposort
from .op import as_node, called, constant
from .ops.leaf import Shared, shared
from .ops.leaf import _input as input_op
from .ops.random import random_key
from .profiling import DEVICE, HOST, Ceilings, Profile, Took, quickest
from .replay import find_draws, regenerate_mask, stream_flags
from .rewrite import Trace
from .substitute import substitute
from .threads import get_num_threads
from .types import Atom, Dim, unify


@called
def function(
    inputs: Sequence[Node],
    outputs: Any = None,
    updates: Any = None,
    givens: Any = None,
    *,
    backend: str = "auto",
    name: str | None = None,
    on_unused_input: str = "raise",
    optimize: bool = True,
    check_nan: bool = False,
    results: str = "host",
) -> Function:
    """Compile a graph into a callable.

    inputs           input nodes, in the order of the arguments
    outputs          a node, or nodes in lists, tuples and dicts; results come back the same way
    updates          new values of shared variables: a dict, or a list of (shared, node) pairs
    givens           replacements made before anything else: a dict or pairs (node, node or value)
    backend          "numpy", "llvm", "cupy" or "auto"
    on_unused_input  "raise", "warn" or "ignore"
    optimize         whether rewrites run; results agree either way
    results          "host": results are NumPy arrays; "device": they stay where they are computed
    check_nan        stop at the first NaN or infinity, naming the line that made it; slow, and on
                     the numpy backend, which alone has every value
    """
    if on_unused_input not in ("raise", "warn", "ignore"):
        raise ArgumentError(
            f"on_unused_input must be 'raise', 'warn' or 'ignore', got {on_unused_input!r}"
        )
    if check_nan and backend not in ("auto", "numpy"):
        raise ArgumentError(
            f"check_nan looks at every value, and {backend!r} keeps few of them; leave `backend` "
            f"out, or give 'numpy'"
        )
    if results not in ("host", "device"):
        raise ArgumentError(f"results must be 'host' or 'device', got {results!r}")
    return Function(
        inputs,
        outputs,
        updates,
        givens,
        backend=backend,
        name=name,
        on_unused_input=on_unused_input,
        optimize=optimize,
        check_nan=check_nan,
        results=results,
    )


class Function:
    """A compiled function.  Call it with arrays, by position or by input name.

    inputs    the input nodes
    shared    the shared variables it reads or updates
    streams   the random streams it draws from
    call      the number of the last call that drew, None before the first
    backend   the name of the backend
    built     the nodes of outputs and updates as built, after givens and before rewrites
    commit    how updates are put in place
    structure how the outputs nest (see `tree`)
    """

    def __init__(
        self, inputs: Any, outputs: Any, updates: Any, givens: Any, *, backend: str,
        name: str | None, on_unused_input: str, optimize: bool, check_nan: bool,
        results: str = "host",
    ) -> None:  # fmt: skip
        self.name = name or "function"
        self.inputs = _check_inputs(inputs)
        self.check_nan = check_nan
        self.call: int | None = None
        wanted, self.structure = tree.flatten(outputs)
        update_pairs = _check_updates(updates)
        targets = [as_node(r) for r in wanted] + [new for _, new in update_pairs]
        replaced = dict(_check_given(old, new) for old, new in _pairs(givens, "givens"))
        targets = substitute(targets, replaced)
        user_graph = toposort(targets)
        found = [node for node in user_graph if not node.inputs]
        self._check_leaves(found, replaced)

        self.updated = [old for old, _ in update_pairs]
        self.updated_order = sorted(self.updated, key=lambda s: s.serial)
        # values inside fused kernels are never in memory: the oracle is asked where a NaN begins
        chosen = get_backend("numpy" if check_nan and backend == "auto" else backend)
        self.backend, self._array_type = chosen.name, chosen.array_type
        self._to_device = chosen.to_device
        moves = results == "host" and not chosen.is_host
        self._to_host = chosen.to_host if moves else None  # what is done with results
        self.draws = find_draws(user_graph)
        self._drawing = stream_flags(self.draws)
        self.streams = list(self._drawing)
        self.shared = _unique([n for n in found if isinstance(n, Shared)] + self.updated)
        self.binder = Binder(
            self.inputs, inner_nodes(user_graph), current_origin(), chosen.to_device
        )  # fmt: skip
        self._check_unused(found, replaced, on_unused_input)
        self.built = tuple(targets)
        self._results = len(wanted)
        self._rebuild = tree.rebuilder(self.structure)
        keys = [s.key for s in self.streams]
        graph = Graph((*self.inputs, *self.shared, *keys), self.built, self.binder.atoms)
        self.compilation = Compilation(graph, self.updated, chosen, optimize)
        self.executable, kinds = self.compilation.compiled()
        self.commit = Commit(self.updated, targets[self._results :], kinds)
        unknown = dict.fromkeys(f for flags in self._drawing.values() for f in flags or ())
        self._input_flags = [(f, self.inputs.index(f)) for f in unknown if f in self.inputs]
        self._computed_flags = tuple(f for f in unknown if f not in self.inputs)
        self._flags = self._compile_flags(chosen)
        self._last_sizes: tuple[int, ...] | None = None
        # what changes nothing may take a shortcut
        self._pure = not (self.updated or self.streams or check_nan)
        self._shortcut: Callable[..., list[Any] | None] | None = None

    def _check_leaves(self, found: list[Node], givens: Mapping[Node, Node]) -> None:
        known = set(self.inputs)
        for node in found:
            if node.op is input_op and node not in known:
                advice = (
                    "givens replace it in the outputs, but not in what other givens put there"
                    if node in givens
                    else f"or give it a value with givens={{{node.name or 'node'}: ...}}"
                )
                raise InputError(
                    f"the outputs need the input {node!r} (declared at "
                    f"{format_origin(node.origin)}); add it to the inputs, {advice}"
                )

    def _check_unused(self, found: list[Node], givens: Mapping[Node, Node], how: str) -> None:
        if how == "ignore":
            return
        for node in self.binder.unused(found):
            why = "is replaced by givens" if node in givens else "is not used by any output"
            message = (
                f"the input {node!r} {why} (declared at "
                f"{format_origin(node.origin)}); remove it, or pass on_unused_input='ignore'"
            )
            if how == "raise":
                raise InputError(message)
            warnings.warn(message, stacklevel=5)

    def _compile_flags(self, backend: Backend) -> Executable | None:
        """What computes the flags that say whether a call draws, where they are not inputs."""
        if not self._computed_flags:
            return None
        for leaf in leaves(self._computed_flags):
            if leaf.op is random_key:
                raise RandomError(
                    "a training flag cannot itself depend on a draw; draw it in another function"
                )
        graph = Graph((*self.inputs, *self.shared), self._computed_flags, self.binder.atoms)
        return backend.compile(graph)

    # ---- calling
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        shortcut = self._shortcut
        if shortcut is not None and not kwargs:
            results = shortcut(*args)
            if results is not None:
                return self._rebuild(results)
        arrays, sizes = self.binder.bind(args, kwargs, self.name)
        held: list[Shared] = []
        lease = leases.new()
        try:
            for variable in self.updated_order:
                variable.lock.acquire()
                held.append(variable)
            with leases.swap:
                leases.take(lease, self.shared)
                kind = self._array_type
                old = [a if type(a := s.array) is kind else self._moved(s) for s in self.shared]
            arrays += old
            arrays += self._keys(arrays, sizes)
            if self.check_nan:
                results = self.executable.observe(arrays, sizes, _raise_on_nan)
            else:
                results = self.executable.run(arrays, sizes)
            # the shortcut is for the sizes of the last call, which it does not tell
            known = self._pure and sizes == self._last_sizes
            self._shortcut = self.executable.shortcut(arrays, self.shared, sizes) if known else None
            self._last_sizes = sizes
            if self.updated:
                before = dict(zip(self.shared, old, strict=True)) if self.commit.by_rows else {}
                self.commit.run(results[self._results :], before, lease)
        finally:
            leases.give_back(lease)
            for variable in held:
                variable.lock.release()
        found = results[: self._results]
        return self._rebuild(found if self._to_host is None else [self._to_host(r) for r in found])

    def _moved(self, variable: Shared) -> Any:
        """The array of a shared value, brought to where this function computes, and kept there."""
        variable.array = self._to_device(variable.array)
        return variable.array

    def _keys(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        """The [seed, call] of every stream; streams that draw in this call advance."""
        if not self.streams:
            return []
        flags: dict[Node, Any] = {f: arrays[i] for f, i in self._input_flags}
        if self._flags is not None:
            found = self._flags.run(list(arrays), sizes)
            flags.update(zip(self._computed_flags, found, strict=True))
        keys = []
        for stream, needed in self._drawing.items():
            number = 0
            if needed is None or any(flags[f] for f in needed):
                number = self.call = stream.take_call()
            keys.append(np.array([stream.seed, number], np.uint64))
        return keys

    # ---- looking inside
    @property
    def graph(self) -> Graph:
        """What is computed, after rewrites; of rows written in place the backend has only these."""
        return self.compilation.rewritten[0]

    @property
    def trace(self) -> Trace:
        """The rewrites that fired."""
        return self.compilation.rewritten[1]

    def mask(
        self, name: str | int, call: int, *, rate: float | None = None, example: Any = None,
        **sizes: int,
    ) -> Any:  # fmt: skip
        """The mask that the draw `name` (or site number) had in a call: bool, True where kept.

        Sizes are those of this function's last call unless given by name; `rate` is needed only
        where it is not a constant, `example` only where ids key the draw.
        """
        return regenerate_mask(
            self.draws, name, call, rate=rate, example=example, known=self.sizes, sizes=sizes
        )

    def source(self) -> str:
        """What the backend printed of the graph: LLVM's intermediate representation, or Python."""
        return self.executable.listing("source")

    def assembly(self) -> str:
        """The machine code, where the backend makes some."""
        return self.executable.listing("assembly")

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """Run a call, up to three times, and return the time of every step in the quickest, with
        the user's lines: the first call has to wait for memory that the system clears.

        Shared values are not updated and streams do not advance.
        """
        arrays, sizes = self.binder.bind(args, kwargs, self.name)
        keys = [np.array([s.seed, s.calls], np.uint64) for s in self.streams]

        def observed() -> list[Took]:
            steps: list[Took] = []

            def seen(node: Node, value: Any, seconds: float, what: str = "") -> None:
                nbytes, arithmetic = (getattr(value, name, 0) for name in ("nbytes", "operations"))
                steps.append(Took(node, what or node.op.name, nbytes, arithmetic, seconds))

            self.executable.observe(arrays + values + keys, sizes, seen)
            return steps

        with leases.reading(self.shared) as values:
            values = [self._to_device(v) for v in values]
            steps = quickest(observed)
        return Profile(steps, partial(ceilings, self.backend, get_num_threads()))

    @property
    def sizes(self) -> dict[Atom, int]:
        """The symbolic sizes of the last call."""
        return dict(zip(self.binder.atoms, self._last_sizes or (), strict=False))

    def __reduce__(self) -> Any:
        raise GraphError(
            "compiled functions are neither pickled nor copied; save their values with gd.save, "
            "build the graph again and load them"
        )

    def __repr__(self) -> str:
        names = ", ".join(n.name or "?" for n in self.inputs)
        return f"<graphdrop function {self.name}({names}) on {self.backend}>"


@cache
def ceilings(backend: str, threads: int) -> Ceilings:
    """What this machine can do, measured once for each backend and number of threads."""
    long, wide = HOST if get_backend(backend).is_host else DEVICE
    x, v = shared(np.ones((wide, wide), np.float32)), shared(np.ones(long, np.float32))
    copy, product = (function([], y, backend=backend).profile for y in (v * 2, x @ x))
    return Ceilings.measured(long, copy, wide, product)


def _raise_on_nan(node: Node, value: Any, seconds: float, what: str = "") -> None:
    if getattr(value, "dtype", None) is None or value.dtype.kind != "f":
        return
    if not np.isfinite(value).all():
        kind = "NaN" if np.isnan(value).any() else "infinity"
        raise NanError(f"{node.op.name} made a {kind}: {node!r}")


# --------------------------------------------------------------------------------------------
# checking what the user gave


def _check_inputs(inputs: Any) -> list[Node]:
    nodes = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    for node in nodes:
        if not isinstance(node, Node):
            raise InputError(
                f"inputs must be nodes made with gd.matrix() and the like, got {node!r}"
            )
        if isinstance(node, Shared):
            raise InputError(f"{node!r} is shared; it is read without being an input")
        if node.op is not input_op:
            raise InputError(f"{node!r} is computed, so it cannot be an input; use givens")
    if len(set(nodes)) != len(nodes):
        raise InputError("an input is listed twice")
    names = [n.name for n in nodes if n.name]
    double = {n for n in names if names.count(n) > 1}
    if double:
        raise InputError(f"two inputs are called {', '.join(sorted(double))}; rename one")
    return nodes


def _pairs(value: Any, what: str) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    pairs = list(value.items()) if isinstance(value, Mapping) else list(value)
    if any(not isinstance(p, (tuple, list)) or len(p) != 2 for p in pairs):
        raise ArgumentError(f"{what} must be a dict or a list of pairs, got {value!r}")
    return [(a, b) for a, b in pairs]


def _check_given(old: Any, new: Any) -> tuple[Node, Node]:
    if not isinstance(old, Node):
        raise ArgumentError(f"givens replace nodes, got {old!r}")
    node = _like(new, old)
    for a, b in zip(old.shape, node.shape, strict=False):  # `substitute` compares their number
        unify(a, b, f"{node!r} cannot be given for {old!r}: sizes")
    return old, node


def _like(value: Any, old: Node) -> Node:
    """A node or value that takes the place of `old`; values of its kind are cast to its dtype."""
    if isinstance(value, (Node, Dim)):
        return as_node(value)
    natural = np.asarray(value).dtype
    if natural.kind in "biuf" and not np.can_cast(natural, old.dtype, "same_kind"):
        raise DTypeError(
            f"{natural} values cannot take the place of {old!r}; convert them with "
            f"np.asarray(value, {old.dtype.name!r}) if that is meant"
        )
    return constant(value, old.dtype)


def _check_updates(updates: Any) -> list[tuple[Shared, Node]]:
    pairs = []
    for old, new in _pairs(updates, "updates"):
        if not isinstance(old, Shared):
            raise InputError(f"only shared variables can be updated, got {old!r}")
        node = _like(new, old)
        if node.dtype != old.dtype:
            raise DTypeError(
                f"the update of {old!r} is {node!r} (built at {format_origin(node.origin)}); cast "
                f"it with gd.cast(new, {old.dtype.name!r})"
            )
        if node.ndim != old.ndim:
            raise ShapeError(f"the update of {old!r} has another number of axes: {node!r}")
        for a, b in zip(old.shape, node.shape, strict=True):
            unify(a, b, f"the update of {old!r} does not fit: sizes")
        pairs.append((old, node))
    if len({old for old, _ in pairs}) != len(pairs):
        raise InputError("a shared variable is updated twice")
    return pairs


def _unique(nodes: Sequence[Shared]) -> list[Shared]:
    return list(dict.fromkeys(nodes))
