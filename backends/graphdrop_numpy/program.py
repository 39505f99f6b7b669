"""A graph as a flat list of NumPy calls, prepared once and run in order.

The list is the text of a Python function, one call a line (`NumpyProgram.text`): the quickest loop
that Python has.  A value is dropped after its last use, and an elementwise result is written over
an operand that dies there.  Sizes are put into the calls once for every set of sizes.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from graphdrop.backend import Graph
from graphdrop.errors import BackendError, GraphdropError
from graphdrop.graph import Node, format_origin, toposort
from graphdrop.kept import Recent
from graphdrop.op import constant_value, explain
from graphdrop.substitute import map_sizes
from graphdrop.types import Atom

from .bodies import PARTS, Compile, Observer, Runner, with_values
from .lower import lower
from .rules import RULES

Function = Callable[..., Any]
FIRST_LINE = 3  # of the program's text that is a step
PLANS_KEPT = 64  # prepared calls for the last so many sets of sizes


@dataclass(frozen=True)
class Call:
    """One step: `rule of node` on some slots, written over the slot `reuse` unless that is -1."""

    node: Node
    operands: tuple[int, ...]
    result: int
    reuse: int
    dead: tuple[int, ...]  # slots that are not read again


class NumpyProgram:
    """An executable graph; see `graphdrop.backend.Executable`.

    copy    whether results must be arrays of their own
    bodies  what compiles the bodies of loops and branches, if not this class
    """

    def __init__(self, graph: Graph, *, copy: bool = True, bodies: Compile | None = None) -> None:
        graph = replace(graph, outputs=tuple(lower(graph.outputs)))
        self.atoms = graph.atoms
        order = toposort(graph.outputs)
        leaves = set(graph.inputs)
        self.slot = {
            n: i for i, n in enumerate([*graph.inputs, *(o for o in order if o not in leaves)])
        }
        self.inputs = len(graph.inputs)
        self.constants = {self.slot[n]: c for n in order if (c := constant_value(n)) is not None}
        self.nodes = [n for n in order if n not in leaves and constant_value(n) is None]
        self.outputs = [self.slot[n] for n in graph.outputs]
        self.storage = _storage(order)
        self.aliased = self._aliased_outputs(graph, leaves)
        self.copy = copy
        self.calls = self._schedule(graph)
        # the programs of bodies, made once for all sizes
        loose = bodies or partial(NumpyProgram, copy=False)
        self.parts = {
            n: PARTS[n.op](n, order, graph.atoms, loose) for n in self.nodes if n.op in PARTS
        }
        self._run = self._compile()
        self._plans = Recent(self._plan, PLANS_KEPT)

    # ---- preparation
    def _aliased_outputs(self, graph: Graph, leaves: set[Node]) -> list[bool]:
        """Which outputs may share memory with a leaf or another output."""
        seen: set[Node] = set()
        aliased = []
        for node in graph.outputs:
            root = self.storage[node]
            aliased.append(
                root in seen
                or root in leaves
                or constant_value(root) is not None
                or (root is not node and root.shape != node.shape)
            )
            seen.add(root)
        return aliased

    def _schedule(self, graph: Graph) -> list[Call]:
        last: dict[int, int] = {}  # slot -> the last step that reads it
        busy: dict[Node, int] = {}  # storage -> the same
        for step, node in enumerate(self.nodes):
            for dependency in node.dependencies:
                last[self.slot[dependency]] = step
                busy[self.storage[dependency]] = step
        for node in graph.outputs:
            last[self.slot[node]] = busy[self.storage[node]] = len(self.nodes)
        computed = set(self.nodes)

        def dies(node: Node, step: int) -> bool:
            owns = self.storage[node] is node and node in computed
            return owns and busy[node] == step

        calls = []
        for step, node in enumerate(self.nodes):
            slots = tuple(self.slot[d] for d in node.dependencies)
            over = (i for i in node.inputs if _can_overwrite(node, i) and dies(i, step))
            reuse = next((self.slot[i] for i in over), -1)
            dead = tuple(dict.fromkeys(s for s in slots if last[s] == step))
            calls.append(Call(node, slots, self.slot[node], reuse, dead))
        return calls

    def text(self) -> str:
        """The program as Python: `a` are the inputs' arrays, `f` the prepared functions.

        Step k is on line FIRST_LINE + k.  Nothing in it comes from names.
        """
        names = [f"c{s}" if s in self.constants else f"v{s}" for s in range(len(self.slot))]
        inputs = "".join(f"{names[s]}, " for s in range(self.inputs))
        lines = ["def run(a, f):", f"    {inputs}= a" if inputs else "    pass"]
        for k, call in enumerate(self.calls):
            given = [names[s] for s in call.operands]
            if call.reuse >= 0:
                given.append(f"out={names[call.reuse]}")
            forget = "".join(f"; {names[s]} = None" for s in call.dead if s not in self.constants)
            lines.append(f"    {names[call.result]} = f[{k}]({', '.join(given)}){forget}")
        results = [names[s] for s in self.outputs]
        if self.copy:
            found = zip(results, self.aliased, strict=True)
            results = [f"{'array' if aliased else 'asarray'}({r})" for r, aliased in found]
        return "\n".join([*lines, f"    return [{', '.join(results)}]"])

    def _compile(self) -> Callable[[list[Any], list[Function]], list[Any]]:
        scope: dict[str, Any] = {f"c{s}": array for s, array in self.constants.items()}
        scope.update(array=np.array, asarray=np.asarray)
        exec(compile(self.text(), "<numpy program>", "exec"), scope)
        run: Callable[[list[Any], list[Function]], list[Any]] = scope["run"]
        return run

    def _plan(self, sizes: tuple[int, ...]) -> list[Function]:
        """The function of every step, with numbers for its sizes."""
        known = dict(zip(self.atoms, sizes, strict=True))
        return [self.parts[n](known) if n in self.parts else _prepare(n, known) for n in self.nodes]

    # ---- running
    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        plan = self._plans[sizes]
        try:
            with np.errstate(all="ignore"):
                return self._run(arrays, plan)
        except GraphdropError as error:
            raise self.explained(error) from None

    def listing(self, what: str) -> str:
        """See `Executable.listing`."""
        if what == "source":
            return self.text()
        if what == "assembly":
            raise BackendError(
                "the numpy backend calls NumPy and has no machine code of its own; compile with "
                "backend='llvm'"
            )
        return "\n".join(
            f"{k:4}  {c.node.op.name} {c.node.type}  {format_origin(c.node.origin)}"
            for k, c in enumerate(self.calls)
        )

    def shortcut(self, arrays: list[Any], shared: Any, sizes: tuple[int, ...]) -> None:
        """There is none; see `Executable.shortcut`."""

    def runner(self, sizes: tuple[int, ...], seen: Observer | None = None) -> Runner:
        """What runs a body many times: without the checks and settings of `run`."""
        plan = self._plans[sizes]
        if seen is not None:
            plan = self._watched(plan, seen)
        return lambda arrays: self._run(arrays, plan)

    def explained(self, error: GraphdropError) -> GraphdropError:
        """The error of a rule, naming the operation and the user's line."""
        frames = traceback.walk_tb(error.__traceback__)
        line = next(line for f, line in frames if f.f_code is self._run.__code__)
        node = self.calls[line - FIRST_LINE].node
        return explain(node.op.name, error, node.inputs, node.origin)

    def observe(self, arrays: list[Any], sizes: tuple[int, ...], seen: Observer) -> list[Any]:
        try:
            with np.errstate(all="ignore"):
                return self._run(arrays, self._watched(self._plans[sizes], seen))
        except GraphdropError as error:
            raise self.explained(error) from None

    def _watched(self, plan: list[Function], seen: Observer) -> list[Function]:
        """The plan, reporting every step; the steps of bodies report themselves."""

        def watched(node: Node, function: Function) -> Function:
            def call(*operands: Any, **out: Any) -> Any:
                inside: list[float] = []

                def also(inner: Node, value: Any, seconds: float, what: str = "") -> None:
                    inside.append(seconds)
                    seen(inner, value, seconds, what)

                if node in self.parts:
                    out["seen"] = also
                start = time.perf_counter()
                value = function(*operands, **out)
                seen(node, value, time.perf_counter() - start - sum(inside))
                return value

            return call

        return [watched(n, f) for n, f in zip(self.nodes, plan, strict=True)]


def _storage(order: Sequence[Node]) -> dict[Node, Node]:
    """For every node, the node whose memory it may be a view of; itself if it owns its memory."""
    storage: dict[Node, Node] = {}
    for node in order:
        storage[node] = storage[node.inputs[0]] if _may_alias(node) else node
    return storage


def _may_alias(node: Node) -> bool:
    return bool(node.inputs) and node.op.view


def _can_overwrite(node: Node, operand: Node) -> bool:
    return (
        isinstance(RULES.get(node.op), np.ufunc)
        and node.type == operand.type
        and node.ndim > 0
        and not node.size_inputs
    )


def _prepare(node: Node, known: dict[Atom, int]) -> Callable[..., Any]:
    """The function that computes a node from the arrays of its dependencies."""
    rule = RULES.get(node.op)
    if rule is None:
        raise BackendError(f"the numpy backend has no rule for {node.op.name}")
    if node.size_inputs:
        return partial(_run_sized, rule, node, known)
    if not node.params:
        return rule
    return partial(rule, **map_sizes(dict(node.params), known))


def _run_sized(rule: Callable[..., Any], node: Node, known: dict[Atom, int], *values: Any) -> Any:
    """Compute a node some of whose sizes are values of the graph itself."""
    arrays, env = with_values(node, known, values)
    return rule(*arrays, **map_sizes(dict(node.params), env))
