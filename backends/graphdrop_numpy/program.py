"""A graph as a flat list of NumPy calls, prepared once and run in order.

A value lives in a numbered slot and is dropped after its last use.  An elementwise result is
written over an operand that dies there.  Sizes are put into the calls once for every set of sizes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from graphdrop.backend import Graph
from graphdrop.errors import BackendError, GraphdropError, ShapeError
from graphdrop.graph import Node, toposort
from graphdrop.op import constant_value, explain
from graphdrop.substitute import map_sizes
from graphdrop.types import Atom, evaluate

from .lower import lower
from .rules import RULES

# (function, operand slots, result slot, slot to write over or -1, slots dead afterwards)
Call = tuple[Callable[..., Any], tuple[int, ...], int, int, tuple[int, ...]]
PLANS_KEPT = 64  # prepared call lists for the last so many sets of sizes


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
        self.constants = [(self.slot[n], c) for n in order if (c := constant_value(n)) is not None]
        self.nodes = [n for n in order if n not in leaves and constant_value(n) is None]
        self.outputs = [self.slot[n] for n in graph.outputs]
        self.storage = _storage(order)
        self.copied = self._aliased_outputs(graph, leaves)
        self.calls = self._schedule(graph)
        self._plans: OrderedDict[tuple[int, ...], list[Call]] = OrderedDict()

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

    def _schedule(self, graph: Graph) -> list[tuple[Node, tuple[int, ...], int, tuple[int, ...]]]:
        """For every node: operand slots, the slot it may overwrite, the slots that die."""
        last: dict[int, int] = {}
        busy: dict[Node, int] = {}  # storage -> the last step that reads it
        operands = [tuple(self.slot[d] for d in n.dependencies) for n in self.nodes]
        for step, node in enumerate(self.nodes):
            for dependency in node.dependencies:
                last[self.slot[dependency]] = step
                busy[self.storage[dependency]] = step
        kept = set(self.outputs)
        for node in graph.outputs:
            busy[self.storage[node]] = len(self.nodes)
        computed = set(self.nodes)
        calls = []
        for step, (node, slots) in enumerate(zip(self.nodes, operands, strict=True)):
            reuse = next(
                (
                    self.slot[i]
                    for i in node.inputs
                    if _can_overwrite(node, i)
                    and i in computed
                    and self.storage[i] is i
                    and busy[i] == step
                ),
                -1,
            )
            dead = tuple({s for s in slots if last[s] == step and s not in kept})
            calls.append((node, slots, reuse, dead))
        return calls

    def _plan(self, sizes: tuple[int, ...]) -> list[Call]:
        plan = self._plans.get(sizes)
        if plan is None:
            known = dict(zip(self.atoms, sizes, strict=True))
            plan = [
                (_prepare(node, known), slots, self.slot[node], reuse, dead)
                for node, slots, reuse, dead in self.calls
            ]
            self._plans[sizes] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    # ---- running
    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        values = self._values(arrays)
        plan, result = self._plan(sizes), -1
        try:
            with np.errstate(all="ignore"):
                for function, slots, result, reuse, dead in plan:
                    operands = [values[s] for s in slots]
                    if reuse < 0:
                        values[result] = function(*operands)
                    else:
                        values[result] = function(*operands, out=values[reuse])
                    for s in dead:
                        values[s] = None
        except GraphdropError as error:
            node = next(n for n in self.nodes if self.slot[n] == result)
            raise explain(node.op.name, error, node.inputs, node.origin) from None
        return self._results(values)

    def observe(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[[Node, Any, float], None]
    ) -> list[Any]:
        values = self._values(arrays)
        with np.errstate(all="ignore"):
            for node, call in zip(self.nodes, self._plan(sizes), strict=True):
                function, slots, result, reuse, dead = call
                out = {} if reuse < 0 else {"out": values[reuse]}
                start = time.perf_counter()
                try:
                    values[result] = function(*(values[s] for s in slots), **out)
                except GraphdropError as error:
                    raise explain(node.op.name, error, node.inputs, node.origin) from None
                seen(node, values[result], time.perf_counter() - start)
                for s in dead:
                    values[s] = None
        return self._results(values)

    def _values(self, arrays: Sequence[Any]) -> list[Any]:
        values: list[Any] = [*arrays, *[None] * (len(self.slot) - self.inputs)]
        for slot, array in self.constants:
            values[slot] = array
        return values

    def _results(self, values: list[Any]) -> list[Any]:
        found = zip(self.outputs, self.copied, strict=True)
        return [np.array(values[s]) if copy else np.asarray(values[s]) for s, copy in found]


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
    arrays, given = values[: len(node.inputs)], values[len(node.inputs) :]
    atoms = [n.value_atom for n in node.size_inputs]
    env = known | {a: int(v) for a, v in zip(atoms, given, strict=True) if a is not None}
    for a, b in node.checks:
        if evaluate(a, env) != evaluate(b, env):
            raise ShapeError(
                f"needs {a} == {b}, which are {evaluate(a, env)} and {evaluate(b, env)}"
            )
    return rule(*arrays, **map_sizes(dict(node.params), env))
