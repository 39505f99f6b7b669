"""Operations with bodies of their own: a scan is a Python loop, a cond runs one of two programs.

A body is compiled when the program around it is, once for all sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from graphdrop.backend import Graph
from graphdrop.cond import cond_op
from graphdrop.errors import GraphdropError, ShapeError
from graphdrop.graph import Node
from graphdrop.op import Op, get
from graphdrop.scan import scan_op
from graphdrop.types import Atom, evaluate

Observer: TypeAlias = Callable[..., None]  # see `graphdrop.backend.Executable.observe`
Runner: TypeAlias = Callable[[list[Any]], list[Any]]


class Program(Protocol):
    """A compiled body; see `program.NumpyProgram`."""

    aliased: list[bool]

    def runner(self, sizes: tuple[int, ...], seen: Observer | None = None) -> Runner: ...

    def explained(self, error: GraphdropError) -> GraphdropError: ...


# a graph -> its program, whose results may share memory with other arrays
Compile: TypeAlias = Callable[[Graph], Program]


def with_values(
    node: Node, known: Mapping[Atom, int], values: Sequence[Any]
) -> tuple[Sequence[Any], dict[Atom, int]]:
    """The operands among the arrays of a node's dependencies, and all sizes, those that are values
    of the graph included; what these must be equal to is checked.
    """
    operands, given = values[: len(node.inputs)], values[len(node.inputs) :]
    atoms = [n.value_atom for n in node.size_inputs]
    env = {**known, **{a: int(v) for a, v in zip(atoms, given, strict=True) if a is not None}}
    if given:
        for a, b in node.checks:
            if evaluate(a, env) != evaluate(b, env):
                raise ShapeError(
                    f"needs {a} == {b}, which are {evaluate(a, env)} and {evaluate(b, env)}"
                )
    return operands, env


class Scan:
    """A scan as a Python loop over the program of its body.

    Outs that nobody uses are not computed.
    """

    def __init__(
        self, node: Node, order: Sequence[Node], atoms: tuple[Atom, ...], compile: Compile
    ) -> None:
        self.node = node
        self.carries, self.sequences = node.params["carries"], node.params["sequences"]
        used = {n.params["index"] for n in order if n.op is get and n.inputs[0] is node}
        self.outs = [i for i in range(self.carries, len(node.type.items)) if i in used]
        body = node.params["body"]
        kept = [*range(self.carries), *self.outs]
        self.program = compile(Graph(body.inputs, tuple(body.outputs[i] for i in kept), atoms))

    def __call__(self, known: dict[Atom, int]) -> Callable[..., Any]:
        return partial(self.run, known, self.program.runner(tuple(known.values())))

    def run(
        self, known: dict[Atom, int], step: Runner, *values: Any, seen: Observer | None = None
    ) -> tuple[Any, ...]:
        if seen is not None:
            step = self.program.runner(tuple(known.values()), seen)
        arrays, env = with_values(self.node, known, values)
        length = evaluate(self.node.params["length"], env)
        if length < 0:
            raise ShapeError(f"the length {self.node.params['length']} is {length}")
        carry, rest = self._cut(arrays)
        elements, captured = rest[: self.sequences], rest[self.sequences :]
        outs = [self._empty(i, env) for i in self.outs]
        steps = range(length)
        try:
            for t in reversed(steps) if self.node.params["reverse"] else steps:
                given = [np.int64(t), *carry, *[e[t] for e in elements], *captured]
                carry, rows = self._cut(step(given))
                for out, row in zip(outs, rows, strict=True):
                    out[t] = row
        except GraphdropError as error:
            raise self.program.explained(error) from None
        results: list[Any] = [None] * len(self.node.type.items)
        # the first carries are others' arrays, and a step may hand on what it was given
        results[: self.carries] = [
            np.array(c) if aliased or not length else np.asarray(c)
            for c, aliased in zip(carry, self.program.aliased, strict=False)
        ]
        for i, out in zip(self.outs, outs, strict=True):
            results[i] = out
        return tuple(results)

    def _cut(self, arrays: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return arrays[: self.carries], arrays[self.carries :]

    def _empty(self, index: int, env: Mapping[Atom, int]) -> Any:
        found = self.node.type.items[index]
        return np.empty([evaluate(s, env) for s in found.shape], found.dtype)


class Cond:
    """A cond: the programs of both branches, of which one runs."""

    def __init__(
        self, node: Node, order: Sequence[Node], atoms: tuple[Atom, ...], compile: Compile
    ) -> None:
        self.node = node
        bodies = (node.params["otherwise"], node.params["then"])
        self.programs = [compile(Graph(b.inputs, b.outputs, atoms)) for b in bodies]

    def __call__(self, known: dict[Atom, int]) -> Callable[..., Any]:
        runners = [p.runner(tuple(known.values())) for p in self.programs]
        return partial(self.run, known, runners)

    def run(
        self, known: dict[Atom, int], runners: list[Runner], *values: Any,
        seen: Observer | None = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        (predicate, *captured), _ = with_values(self.node, known, values)
        taken = int(bool(predicate))
        program, branch = self.programs[taken], runners[taken]
        if seen is not None:
            branch = program.runner(tuple(known.values()), seen)
        try:
            results = branch(captured)
        except GraphdropError as error:
            raise program.explained(error) from None
        return tuple(
            np.array(r) if aliased else np.asarray(r)
            for r, aliased in zip(results, program.aliased, strict=True)
        )


# op -> (node, the order of its graph, known sizes, compile) -> sizes -> function of arrays
PARTS: dict[Op, Callable[..., Callable[[dict[Atom, int]], Callable[..., Any]]]] = {
    scan_op: Scan,
    cond_op: Cond,
}
