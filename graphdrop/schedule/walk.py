"""How a kernel's domain is walked: with as few axes as there can be, and rows several times."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..graph import Node
from ..types import Size
from .program import Kernel


@dataclass
class Axes:
    """A domain with fewer axes, and the strides of every access along them."""

    sizes: list[Size]
    strides: list[list[Size]]


def collapse(domain: Sequence[Size], accesses: Sequence[Sequence[Size]]) -> Axes:
    """Neighbouring axes made one wherever every access walks through both evenly."""
    sizes: list[Size] = []
    strides: list[list[Size]] = [[] for _ in accesses]
    for axis, size in enumerate(domain):
        if size == 1:
            continue
        steps = [a[axis] for a in accesses]
        if sizes and all(s[-1] == t * size for s, t in zip(strides, steps, strict=True)):
            sizes[-1] = sizes[-1] * size
            for s, t in zip(strides, steps, strict=True):
                s[-1] = t
        else:
            sizes.append(size)
            for s, t in zip(strides, steps, strict=True):
                s.append(t)
    if not sizes:
        return Axes([1], [[0] for _ in accesses])
    return Axes(sizes, strides)


@dataclass
class Stage:
    """What is done in one walk over a row: nodes, what they load, what is stored.

    again  results of functions that an earlier walk has left in memory of the row's own
    kept   those that this walk leaves there
    """

    number: int
    nodes: list[Node]
    reads: list[Node]
    writes: list[Node]
    again: list[Node]
    kept: list[Node]


def stages_of(kernel: Kernel, functions: Collection[str] = ()) -> list[Stage]:
    """A kernel's walks over its rows: one more than reductions wait for each other.

    What a later walk needs of an earlier one is computed again, from what is loaded again, but for
    results of `functions`, names of operations, which are kept.
    """
    number: dict[Node, int] = {}
    for node in kernel.nodes:
        waits = [number[kernel.rows[d]] + 1 for d in node.dependencies if d in kernel.rows]
        number[node] = max([0, *waits, *(number[d] for d in node.dependencies
                                         if d in number and d not in kernel.rows)])  # fmt: skip
    found: list[Stage] = []
    known: set[Node] = set()  # results of functions in earlier walks
    for k in range(max(number.values(), default=0) + 1):
        writes = [n for n in kernel.writes if number.get(n, 0) == k]
        needed = {*writes, *(n for n in kernel.reduced if number[n] == k)}
        for node in reversed(kernel.nodes):
            if node in needed and node not in known:
                needed.update(d for d in node.dependencies if d not in kernel.rows)
        nodes = [n for n in kernel.nodes if n in needed and n not in known]
        again = [n for n in kernel.nodes if n in needed and n in known]
        for earlier in found:
            earlier.kept += [n for n in again if n in earlier.nodes and n not in earlier.kept]
        reads = [n for n in kernel.reads if n in needed]
        found.append(Stage(k, nodes, reads, writes, again, []))
        known.update(n for n in nodes if n.op.name in functions)
    return found
