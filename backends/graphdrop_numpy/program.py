"""A graph as a flat list of NumPy calls, prepared once and run in order.

The list is the text of a Python function, one call a line (`NumpyProgram.text`): the quickest loop
that Python has.  A value is dropped after its last use, and an elementwise result is written over
an operand that dies there.  Sizes are put into the calls once for every set of sizes.
"""

from __future__ import annotations

import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from graphdrop.backend import Graph
from graphdrop.errors import BackendError, GraphdropError, ShapeError
from graphdrop.graph import Node, toposort
from graphdrop.op import Op, constant_value, explain
from graphdrop.scan import scan_op
from graphdrop.substitute import map_sizes
from graphdrop.types import Atom, evaluate

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
    """An executable graph; see `graphdrop.backend.Executable`."""

    def __init__(self, graph: Graph) -> None:
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
        self.copied = self._aliased_outputs(graph, leaves)
        self.calls = self._schedule(graph)
        self._run = self._compile()
        self._plans: OrderedDict[tuple[int, ...], list[Function]] = OrderedDict()

    # ---- preparation
    def _aliased_outputs(self, graph: Graph, leaves: set[Node]) -> list[bool]:
        """Which outputs must be copied: those that share memory with a leaf or another output."""
        seen: set[Node] = set()
        copied = []
        for node in graph.outputs:
            root = self.storage[node]
            copied.append(
                root in seen
                or root in leaves
                or constant_value(root) is not None
                or (root is not node and root.shape != node.shape)
            )
            seen.add(root)
        return copied

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
        found = zip(self.outputs, self.copied, strict=True)
        results = [f"{'array' if copy else 'asarray'}({names[s]})" for s, copy in found]
        return "\n".join([*lines, f"    return [{', '.join(results)}]"])

    def _compile(self) -> Callable[[list[Any], list[Function]], list[Any]]:
        scope: dict[str, Any] = {f"c{s}": array for s, array in self.constants.items()}
        scope.update(array=np.array, asarray=np.asarray)
        exec(compile(self.text(), "<numpy program>", "exec"), scope)
        run: Callable[[list[Any], list[Function]], list[Any]] = scope["run"]
        return run

    def _plan(self, sizes: tuple[int, ...]) -> list[Function]:
        """The function of every step, with numbers for its sizes."""
        plan = self._plans.get(sizes)
        if plan is None:
            known = dict(zip(self.atoms, sizes, strict=True))
            plan = self._plans[sizes] = [_prepare(call.node, known) for call in self.calls]
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    # ---- running
    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        plan = self._plan(sizes)
        try:
            with np.errstate(all="ignore"):
                return self._run(arrays, plan)
        except GraphdropError as error:
            raise self._explained(error) from None

    def _explained(self, error: GraphdropError) -> GraphdropError:
        """The error of a rule, naming the operation and the user's line."""
        frames = traceback.walk_tb(error.__traceback__)
        line = next(line for f, line in frames if f.f_code is self._run.__code__)
        node = self.calls[line - FIRST_LINE].node
        return explain(node.op.name, error, node.inputs, node.origin)

    def observe(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[[Node, Any, float], None]
    ) -> list[Any]:
        plan = self._plan(sizes)

        def watched(k: int) -> Function:
            def call(*operands: Any, **out: Any) -> Any:
                start = time.perf_counter()
                value = plan[k](*operands, **out)
                seen(self.calls[k].node, value, time.perf_counter() - start)
                return value

            return call

        try:
            with np.errstate(all="ignore"):
                return self._run(arrays, [watched(k) for k in range(len(plan))])
        except GraphdropError as error:
            raise self._explained(error) from None


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
    if node.op in LOOPS:
        return LOOPS[node.op](node, known)
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
    arrays, given = values[: len(node.inputs)], values[len(node.inputs) :]
    atoms = [n.value_atom for n in node.size_inputs]
    env = known | {a: int(v) for a, v in zip(atoms, given, strict=True) if a is not None}
    for a, b in node.checks:
        if evaluate(a, env) != evaluate(b, env):
            raise ShapeError(
                f"needs {a} == {b}, which are {evaluate(a, env)} and {evaluate(b, env)}"
            )
    return rule(*arrays, **map_sizes(dict(node.params), env))


class ScanLoop:
    """A scan as a Python loop over the program of its body."""

    def __init__(self, node: Node, known: dict[Atom, int]) -> None:
        body = node.params["body"]
        self.carries, self.sequences = node.params["carries"], node.params["sequences"]
        self.reverse = node.params["reverse"]
        self.program = NumpyProgram(Graph(body.inputs, body.outputs, tuple(known)))
        self.sizes = tuple(known.values())
        self.length = evaluate(node.params["length"], known)
        self.outs = [
            (tuple(evaluate(s, known) for s in t.shape), t.dtype)
            for t in node.type.items[self.carries :]
        ]

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        first = self.carries + self.sequences
        carry = [np.array(a) for a in arrays[: self.carries]]
        elements, captured = arrays[self.carries : first], arrays[first:]
        outs = [np.empty(shape, dtype) for shape, dtype in self.outs]
        steps = range(self.length)
        for t in reversed(steps) if self.reverse else steps:
            given = [np.int64(t), *carry, *(e[t] for e in elements), *captured]
            results = self.program.run(given, self.sizes)
            carry = results[: self.carries]
            for out, value in zip(outs, results[self.carries :], strict=True):
                out[t] = value
        return (*carry, *outs)


# ops with bodies of their own: (node, sizes) -> function
LOOPS: dict[Op, Callable[[Node, dict[Atom, int]], Function]] = {scan_op: ScanLoop}
