"""How a fused kernel walks its domain: axes, units of work, stages, and what is added up apart.

The axes of the domain that every access walks evenly are made one.  The last axis that is left is
cut into tiles; a unit of work is one tile of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.op import constant_value
from graphdrop.ops import create, elementwise, reduce
from graphdrop.schedule import Kernel, Place, contiguous
from graphdrop.schedule.walk import collapse, stages_of
from graphdrop.types import Size, num_elements

from .functions import FUNCTIONS
from .reductions import wide

BLOCKS = 8  # of rows whose sums along the first axes are added up apart
LEAST_IN_BLOCKS = 1 << 14  # elements
TILE = 2048  # elements; what a unit touches stays in the nearest cache


class Walk:
    """How a kernel is walked.

    width    elements that are computed at once
    axes     the domain with as few axes as there can be
    reads, writes, reduced  the kernel's places, with their strides along these axes
    stages   walks over each row
    partial  reductions to which several units add: each writes down its own part
    columns  reductions along all axes but the last: each block of rows has results of its own
    hits     comparisons of the position in a row with a number that each row has; which that is
    picks    sums along a row of what such a comparison lets through, one element at most
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
        self.stages = stages_of(kernel, FUNCTIONS)
        self.partial = self._partial()
        self.columns = self._columns()
        self.hits = {n: row for n in kernel.nodes if (row := self._asked(n)) is not None}
        self.picks = {n for n in self.reduced if self._picks(n)}

    def _width(self) -> int:
        if num_elements(self.kernel.domain) == 1:
            return 1
        sizes = [n.dtype.itemsize for n in (*self.kernel.reads, *self.kernel.nodes)]
        width = 8 if max(sizes, default=4) == 8 and 4 not in sizes and 2 not in sizes else 16
        # every instruction of a function waits for the one before: two at a time fill the gaps
        functions = any(n.op.name in FUNCTIONS for n in self.kernel.nodes)
        return 2 * width if functions else width

    def held(self, node: Node) -> np.dtype[Any]:
        """What the lanes of a reduction hold."""
        return node.dtype if node in self.picks else wide(node)

    def _asked(self, node: Node) -> Node | None:
        """The number of a row that the position is compared with; None if this is no hit."""
        if node.op is not elementwise.equal or any(n not in self.reads for n in node.inputs):
            return None
        for counted, row in (node.inputs, node.inputs[::-1]):
            (place, strides), (_, other) = self.reads[counted], self.reads[row]
            if place.buffer.node.op is create.iota and counts(place, strides) and other[-1] == 0:
                return row if row.dtype == np.int64 else None
        return None

    def _picks(self, node: Node) -> bool:
        """Whether a sum along a row has one term at most that is not 0; such a sum is exact."""
        x = node.inputs[0]
        if node.op is not reduce.sum or x.op is not elementwise.where or node in self.partial:
            return False
        condition, _, other = x.inputs
        if condition not in self.hits or other not in self.reads or self.reduced[node][1][-1] != 0:
            return False
        known = constant_value(self.reads[other][0].buffer.node)
        return known is not None and not known.any()

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


def counts(place: Place, strides: Sequence[Size]) -> bool:
    """Whether 0, 1, 2, ... goes along the last axis and nowhere else."""
    return place.offset == 0 and strides[-1] == 1 and all(s == 0 for s in strides[:-1])
