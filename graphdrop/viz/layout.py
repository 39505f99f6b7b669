"""Places for boxes and arrows: a layered layout, operands above their users.

The steps of Sugiyama, Tagawa and Toda (1981): layers by longest path, arrows that span several
layers cut at each, orders within layers by barycentres so that few arrows cross, then the
horizontal places that minimise the squared lengths of the arrows under the boxes' distances.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

Point: TypeAlias = "tuple[float, float]"

GAP_X, GAP_Y = 26.0, 38.0  # pixels between boxes
LANE = 8.0  # width kept free for an arrow that passes a layer
LONGEST_CUT = 30  # arrows over more layers are drawn straight, so that work stays linear
ORDER_SWEEPS, PLACE_SWEEPS = 16, 60
EFFORT = 2000  # boxes and lanes for which all these sweeps are made; fewer for more


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes; for every arrow the points it passes, top to bottom; total size."""

    centres: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def layered(
    sizes: Sequence[Point], arrows: Sequence[tuple[int, int]], weights: Sequence[float]
) -> Layout:
    """Places for boxes of `sizes` (width, height) under acyclic `arrows` (from, to).

    The larger an arrow's weight, the more it is kept short and upright.
    """
    if not sizes:
        return Layout([], [], 0.0, 0.0)
    net = _Net(sizes, arrows, weights)
    net.order()
    net.place()
    return net.layout()


def assign_layers(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    """A layer for every box, below those of its operands and as close to its users as is free."""
    above, below = _neighbours(count, arrows)
    order = _topological(above, below)
    layer = [0] * count
    for i in order:
        layer[i] = max((layer[j] + 1 for j in above[i]), default=0)
    for i in reversed(order):
        # moving down shortens the arrows out and lengthens those in
        if below[i] and len(below[i]) >= len(above[i]):
            layer[i] = min(layer[j] for j in below[i]) - 1
    used = {value: rank for rank, value in enumerate(sorted(set(layer)))}
    return [used[value] for value in layer]


def _neighbours(
    count: int, arrows: Sequence[tuple[int, int]]
) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for a, b in arrows:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _topological(above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> list[int]:
    waiting = [len(a) for a in above]
    order = [i for i, n in enumerate(waiting) if n == 0]
    for i in order:
        for j in below[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                order.append(j)
    assert len(order) == len(above), "the arrows have a cycle"
    return order


class _Net:
    """Boxes and lanes (an arrow's passages through layers), with arrows only between neighbours."""

    def __init__(
        self, sizes: Sequence[Point], arrows: Sequence[tuple[int, int]], weights: Sequence[float]
    ) -> None:
        self.sizes = list(sizes)
        self.boxes = len(sizes)
        self.arrows = list(arrows)
        self.layer = assign_layers(len(sizes), arrows)
        self.chains: list[list[int]] = []
        self.links: dict[tuple[int, int], float] = {}  # with their stiffness
        for (a, b), weight in zip(arrows, weights, strict=True):
            span = self.layer[b] - self.layer[a]
            lanes = range(self.layer[a] + 1, self.layer[b]) if span <= LONGEST_CUT else ()
            chain = [a, *(self._lane(k) for k in lanes), b]
            self.chains.append(chain)
            if span <= LONGEST_CUT:
                for link in pairwise(chain):
                    between_lanes = min(link) >= self.boxes
                    # long arrows are to be straight
                    self.links[link] = weight * (16.0 if between_lanes else 1.0)
        self.above, self.below = _neighbours(len(self.sizes), list(self.links))
        self.effort = min(1.0, EFFORT / len(self.sizes))
        self.rows: list[list[int]] = [[] for _ in range(max(self.layer) + 1)]
        for i in self._depth_first():
            self.rows[self.layer[i]].append(i)
        self.x = [0.0] * len(self.sizes)

    def _lane(self, layer: int) -> int:
        self.sizes.append((LANE, 0.0))
        self.layer.append(layer)
        return len(self.sizes) - 1

    def _depth_first(self) -> list[int]:
        """Everything, neighbours close together, from the bottom up: a good order to start with."""
        found: dict[int, None] = {}
        stack = [i for i in range(self.boxes) if not self.below[i]][::-1]
        while stack:
            i = stack.pop()
            if i not in found:
                found[i] = None
                stack.extend(reversed(self.above[i]))
        found.update(dict.fromkeys(range(len(self.sizes))))
        return list(found)

    # ---- orders
    def order(self) -> None:
        """Reorder the rows, keeping the order with the fewest crossings."""
        best, fewest = [list(r) for r in self.rows], self._crossings()
        for sweep in range(4 + round(ORDER_SWEEPS * self.effort)):
            if fewest == 0:
                break
            down = sweep % 2 == 0
            near = self.above if down else self.below
            for k in range(1, len(self.rows)) if down else range(len(self.rows) - 2, -1, -1):
                rank = {j: r for r, j in enumerate(self.rows[k - 1 if down else k + 1])}
                now = {i: r for r, i in enumerate(self.rows[k])}
                self.rows[k].sort(key=lambda i: _mean([rank[j] for j in near[i]], now[i]))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(r) for r in self.rows], crossings
        self.rows = best

    def _crossings(self) -> int:
        total = 0
        for upper, lower in pairwise(self.rows):
            rank = {j: r for r, j in enumerate(upper)}
            seen: list[int] = []
            for i in lower:
                ends = sorted(rank[j] for j in self.above[i])
                total += sum(len(seen) - bisect_right(seen, e) for e in ends)
                for e in ends:
                    insort(seen, e)
        return total

    # ---- places
    def place(self) -> None:
        """Horizontal places: rows settle in turn to where their neighbours pull them."""
        gaps = [[self._gap(a, b) for a, b in pairwise(r)] for r in self.rows]
        for row, gap in zip(self.rows, gaps, strict=True):
            self._settle(row, gap, [0.0] * len(row), [1.0] * len(row))
        sweeps = 4 + round(PLACE_SWEEPS * self.effort)
        for sweep in range(sweeps):
            down, both = sweep % 2 == 0, sweep >= sweeps - 4
            for k in range(len(self.rows)) if down else reversed(range(len(self.rows))):
                wanted, weights = [], []
                for i in self.rows[k]:
                    pulls = [(self.x[j], self.links[j, i]) for j in self.above[i] if down or both]
                    pulls += [
                        (self.x[j], self.links[i, j]) for j in self.below[i] if both or not down
                    ]
                    weight = sum([w for _, w in pulls])
                    wanted.append(sum([x * w for x, w in pulls]) / weight if pulls else self.x[i])
                    weights.append(weight or 0.1)
                self._settle(self.rows[k], gaps[k], wanted, weights)

    def _gap(self, a: int, b: int) -> float:
        space = GAP_X if a < self.boxes and b < self.boxes else GAP_X / 2
        return (self.sizes[a][0] + self.sizes[b][0]) / 2 + space

    def _settle(
        self, row: list[int], gaps: list[float], wanted: list[float], weights: list[float]
    ) -> None:
        for i, x in zip(row, closest(wanted, weights, gaps), strict=True):
            self.x[i] = x

    # ---- the result
    def layout(self) -> Layout:
        left = min(self.x[i] - self.sizes[i][0] / 2 for i in range(len(self.sizes)))
        right = max(self.x[i] + self.sizes[i][0] / 2 for i in range(len(self.sizes)))
        tops, heights, y = [], [], 0.0
        for row in self.rows:
            height = max(self.sizes[i][1] for i in row)
            tops.append(y)
            heights.append(height)
            y += height + GAP_Y
        centres = [
            (self.x[i] - left, tops[self.layer[i]] + heights[self.layer[i]] / 2)
            for i in range(len(self.sizes))
        ]
        routes = []
        leaving, arriving = self._ports(centres)
        for chain, start, end in zip(self.chains, leaving, arriving, strict=True):
            lanes = []
            for i in chain[1:-1]:
                top, height = tops[self.layer[i]], heights[self.layer[i]]
                lanes += [(centres[i][0], top), (centres[i][0], top + height)]
            routes.append([start, *lanes, end])
        return Layout(centres[: self.boxes], routes, right - left, y - GAP_Y)

    def _ports(self, centres: list[Point]) -> tuple[list[Point], list[Point]]:
        """Where each arrow leaves and arrives: spread over the box, in the order of directions."""
        leaving: list[Point] = [(0.0, 0.0)] * len(self.chains)
        arriving = list(leaving)
        for ends, own, other, side in ((leaving, 0, 1, 0.5), (arriving, -1, -2, -0.5)):
            groups: dict[int, list[int]] = {}
            for k, chain in enumerate(self.chains):
                groups.setdefault(chain[own], []).append(k)
            for box, group in groups.items():
                group.sort(key=lambda k: centres[self.chains[k][other]][0])
                (x, y), (width, height) = centres[box], self.sizes[box]
                step = min(18.0, width * 0.7 / len(group))
                for place, k in enumerate(group):
                    ends[k] = (x + (place - (len(group) - 1) / 2) * step, y + side * height)
        return leaving, arriving


def _mean(values: list[int], otherwise: int) -> float:
    return sum(values) / len(values) if values else float(otherwise)


def closest(
    wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]
) -> list[float]:
    """The x that minimise sum(weights * (x - wanted)**2) with x[i+1] - x[i] >= gaps[i].

    Isotonic regression by pooling adjacent violators (Ayer et al. 1955), after taking off the gaps.
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, members = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, more, count = blocks.pop()
            mean = (mean * weight + other * more) / (weight + more)
            weight, members = weight + more, members + count
        blocks.append((mean, weight, members))
    flat = [mean for mean, _, members in blocks for _ in range(members)]
    return [x + offset for x, offset in zip(flat, offsets, strict=False)]
