"""How a fused kernel walks its domain: axes, units of work, stages, and what is added up apart.

The axes of the domain that every access walks evenly are made one.  The last axis that is left is
cut into tiles; a unit of work is one tile of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphdrop.graph import Node
from graphdrop.schedule import Kernel, contiguous
from graphdrop.types import Size, num_elements

from .functions import FUNCTIONS

BLOCKS = 8  # of rows whose sums along the first axes are added up apart
LEAST_IN_BLOCKS = 1 << 14  # elements
TILE = 2048  # elements; what a unit touches stays in the nearest cache


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


def stages_of(kernel: Kernel) -> list[Stage]:
    """A kernel's walks over its rows: one more than reductions wait for each other.

    What a later walk needs of an earlier one is computed again, from what is loaded again, but for
    results of functions, which are kept.
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
        known.update(n for n in nodes if n.op.name in FUNCTIONS)
    return found


class Walk:
    """How a kernel is walked.

    width    elements that are computed at once
    axes     the domain with as few axes as there can be
    reads, writes, reduced  the kernel's places, with their strides along these axes
    stages   walks over each row
    partial  reductions to which several units add: each writes down its own part
    columns  reductions along all axes but the last: each block of rows has results of its own
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.width = self._width()
        places = [*kernel.reads.items(), *kernel.writes.items(), *kernel.reduced.items()]
        self.axes = collapse(kernel.domain, [p.strides for _, p in places])
        count = len(kernel.reads), len(kernel.writes)
        walks = list(zip(places, self.axes.strides, strict=True))
        self.reads = {n: (p, s) for (n, p), s in walks[: count[0]]}
        self.writes = {n: (p, s) for (n, p), s in walks[count[0] : sum(count)]}
        self.reduced = {n: (p, s) for (n, p), s in walks[sum(count) :]}
        self.stages = stages_of(kernel)
        self.partial = self._partial()
        self.columns = self._columns()

    def _width(self) -> int:
        if num_elements(self.kernel.domain) == 1:
            return 1
        sizes = [n.dtype.itemsize for n in (*self.kernel.reads, *self.kernel.nodes)]
        width = 8 if max(sizes, default=4) == 8 and 4 not in sizes and 2 not in sizes else 16
        # every instruction of a function waits for the one before: two at a time fill the gaps
        functions = any(n.op.name in FUNCTIONS for n in self.kernel.nodes)
        return 2 * width if functions else width

    @property
    def rows(self) -> Size:
        return num_elements(tuple(self.axes.sizes[:-1]))

    @property
    def units(self) -> Size:
        """How many units of work there are."""
        return self.rows * self.tiles

    @property
    def shares(self) -> Size:
        """What the function is given a range of: units, or blocks of units."""
        return BLOCKS if self.columns else self.units

    @property
    def tiles(self) -> Size:
        if self.kernel.rows:
            return 1  # a row must be whole to be walked again
        return (self.axes.sizes[-1] + (TILE - 1)) // TILE

    @property
    def divisible(self) -> bool:
        """Whether units may run at the same time: no two of them add to one result."""
        apart = {*self.partial, *self.columns}
        return all(n in apart or self._own_result(n) for n in self.reduced)

    def _own_result(self, node: Node) -> bool:
        """Whether a reduction has a result, or a part of one, for each unit alone."""
        strides = self.reduced[node][1]
        return 0 not in strides[:-1] and (strides[-1] != 0 or self.tiles == 1)

    def _partial(self) -> list[Node]:
        """Reductions to whose results several units add: each writes down its own part first.

        A result has the parts of units that follow on one another: those of a row, or all.
        """
        found = []
        for node, (place, strides) in self.reduced.items():
            dense = contiguous(tuple(self.axes.sizes[:-1]))
            rows = tuple(strides[:-1]) == dense and place.offset == 0
            whole = all(s == 0 for s in strides) and self.units != 1
            if strides[-1] == 0 and (whole or rows) and not self._own_result(node):
                found.append(node)
        return found

    def _columns(self) -> list[Node]:
        """Reductions along all axes but the last: each block of rows has results of its own first.

        The blocks are the same however many threads there are, and so are the sums.
        """
        known = num_elements(self.kernel.domain)
        if isinstance(known, int) and known < LEAST_IN_BLOCKS:
            return []
        return [
            node
            for node, (place, strides) in self.reduced.items()
            if strides[-1] == 1 and all(s == 0 for s in strides[:-1]) and place.offset == 0
            and len(strides) > 1
        ]  # fmt: skip
