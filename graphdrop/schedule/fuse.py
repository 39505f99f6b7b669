"""Which nodes are computed together: groups, each of which becomes one step.

Elementwise operations of one shape join the groups of their operands, and reductions the group
whose domain they reduce, unless the groups would then wait for each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from ..graph import Node
from ..types import Shape, num_elements

LOOP, REDUCE, VIEW, LEAF, ALONE = "loop", "reduce", "view", "leaf", "alone"
WINDOW = 2048  # elements of a row whose bits a kernel keeps at once
MOST_NODES = 256  # in one kernel; more would not fit into registers anyway
# where all values stay in the nearest caches, short kernels are as fast, and more of them are alike
FEW_ELEMENTS, FEW_NODES = 1 << 14, 16


class Groups:
    """Groups of nodes; a group is known by a number.

    kind    what a node is: LOOP, REDUCE, VIEW, LEAF, or ALONE for a step of its own
    source  the node whose memory a view is of
    spreads whether an operand is a reduction that is the same for all of a row
    """

    def __init__(
        self, order: Sequence[Node], kind: Callable[[Node], str],
        source: Callable[[Node], Node], spreads: Callable[[Node, Node], bool],
    ) -> None:  # fmt: skip
        self.kind, self.source, self.spreads = kind, source, spreads
        self.number: dict[Node, int] = {}
        self.members: dict[int, list[Node]] = {}
        self.domain: dict[int, Shape | None] = {}
        self._needs: dict[int, set[int]] = {}
        self._users: dict[int, set[int]] = {}
        self._span: dict[int, tuple[int, int]] = {}  # the first and last place of its members
        self._latest: dict[int, int] = {}  # the last place of all that it needs, itself included
        self._merged: dict[int, int] = {}
        self._fresh = itertools.count()
        for place, node in enumerate(order):
            if kind(node) not in (VIEW, LEAF):
                self._add(node, place)

    def _add(self, node: Node, place: int) -> None:
        kind = self.kind(node)
        sources = dict.fromkeys(self.source(d) for d in node.dependencies)
        needs = {self.number[s] for s in sources if s in self.number}
        needs = {self._root(n) for n in needs}
        domain = None if kind == ALONE else node.inputs[0].shape if kind == REDUCE else node.shape
        group = self._candidate(node, domain, needs) if domain is not None else None
        if group is None:
            group = next(self._fresh)
            self.members[group], self.domain[group] = [], domain
            self._needs[group], self._users[group] = set(), set()
            self._span[group], self._latest[group] = (place, place), place
        self.members[group].append(node)
        self._needs[group] |= needs - {group}
        for need in needs - {group}:
            self._users[need].add(group)
        self._span[group] = (self._span[group][0], place)
        self._reached(group, max([place, *(self._latest[n] for n in needs)]))
        self.number[node] = group
        if domain is not None:
            for other in sorted(needs - {group}):
                if self._joinable(node, domain, other):
                    self._merge(self._root(self.number[node]), self._root(other))

    def _candidate(self, node: Node, domain: Shape, needs: set[int]) -> int | None:
        """The group that a node can join: the youngest of its operands' that allows it."""
        for group in sorted(needs, key=lambda g: -self._span[g][1]):
            if self._delays(group, needs - {group}) or not self._joinable(node, domain, group):
                continue
            if not any(self._reaches(other, group) for other in needs - {group}):
                return group
        return None

    def _delays(self, group: int, needs: set[int]) -> bool:
        """Whether one number that needs nothing computed, such as 1 / size, would have to wait: all
        that needs it would, and could not be computed with what it waits for.
        """
        domain = self.domain[group]
        one = domain is not None and num_elements(domain) == 1
        return one and bool(needs) and not self._needs[group]

    def _joinable(self, node: Node, domain: Shape, group: int) -> bool:
        group = self._root(group)
        if self.domain[group] != domain or len(self.members[group]) >= _most(domain):
            return False
        return self._reads_elements(node, group) and self._window_suffices(node, group)

    def _window_suffices(self, node: Node, group: int) -> bool:
        """Whether a draw may join a group that may walk its rows several times."""
        if "key" not in node.op.operand_names:
            return True
        size = node.shape[-1] if node.ndim else 1
        if isinstance(size, int) and size <= WINDOW:
            return True
        return not any(
            self.kind(self.source(d)) == REDUCE and self.source(d) in self.members[group]
            for n in self.members[group] for d in n.dependencies
        )  # fmt: skip

    def _reads_elements(self, node: Node, group: int) -> bool:
        """Whether all that a node reads of a group is the element at hand: no view of others, and
        no reduction's result.
        """
        scalars = _scalars(node)
        for operand in node.dependencies:
            root = self.source(operand)
            inside = root in self.number and self._root(self.number[root]) == group
            plain = operand is root and self.kind(root) == LOOP and operand not in scalars
            if inside and not plain and not self._same_in_row(node, operand, group):
                return False
        return True

    def _same_in_row(self, node: Node, operand: Node, group: int) -> bool:
        """Whether an operand is a reduction of the group that its rows may be walked again for."""
        root = self.source(operand)
        if (self.kind(node), self.kind(root)) != (LOOP, REDUCE) or not self.spreads(operand, root):
            return False
        # the bits of draws are kept for a window only
        size = root.inputs[0].shape[-1]
        drawing = any("key" in n.op.operand_names for n in (node, *self.members[group]))
        return not drawing or (isinstance(size, int) and size <= WINDOW)

    def _merge(self, a: int, b: int) -> None:
        """Make one group of two, unless a third one stands between them."""
        domain = self.domain[a]
        most = MOST_NODES if domain is None else _most(domain)
        if a == b or len(self.members[a]) + len(self.members[b]) > most:
            return
        if self._delays(a, self._needs[b] - {a}) or self._delays(b, self._needs[a] - {b}):
            return
        if any(self._reaches(n, b) for n in self._needs[a] - {b}) or any(
            self._reaches(n, a) for n in self._needs[b] - {a}
        ):
            return
        both = ((a, b), (b, a))
        if not all(
            self._reads_elements(n, y) and self._window_suffices(n, y)
            for x, y in both
            for n in self.members[x]
        ):
            return
        self.members[a] += self.members.pop(b)
        self._needs[a] = (self._needs[a] | self._needs.pop(b)) - {a, b}
        (first, last), (other_first, other_last) = self._span[a], self._span.pop(b)
        self._span[a] = (min(first, other_first), max(last, other_last))
        self._merged[b] = a
        self._users[a] |= self._users.pop(b)
        latest = max(self._latest[a], self._latest.pop(b))
        self._latest[a] = -1
        self._reached(a, latest)

    def _reached(self, group: int, place: int) -> None:
        """Tell a group, and all that need it, how late a place they need."""
        todo = [group]
        while todo:
            group = self._root(todo.pop())
            if self._latest[group] < place:
                self._latest[group] = place
                todo += self._users[group]

    def _root(self, group: int) -> int:
        while group in self._merged:
            group = self._merged[group]
        return group

    def _reaches(self, start: int, goal: int) -> bool:
        """Whether `start` needs `goal`, directly or through others."""
        start, goal = self._root(start), self._root(goal)
        oldest = self._span[goal][0]
        seen, todo = {start}, [start]
        while todo:
            group = todo.pop()
            if group == goal:
                return True
            for need in self._needs[group]:
                root = self._root(need)
                # nothing that needs only what ends before the goal begins can need it
                if root not in seen and self._latest[root] >= oldest:
                    seen.add(root)
                    todo.append(root)
        return False

    def ordered(self) -> list[list[Node]]:
        """The groups, those needed first; members operands first."""
        place = {n: i for i, n in enumerate(self.number)}
        done: set[int] = set()
        waiting: set[int] = set()
        found = []
        for start in sorted(self.members, key=lambda g: self._span[g][1]):
            stack = [start]
            while stack:
                group = stack[-1]
                missing = [r for n in self._needs[group] if (r := self._root(n)) not in done]
                if group in done or not missing:
                    stack.pop()
                    if group not in done:
                        done.add(group)
                        found.append(sorted(self.members[group], key=place.__getitem__))
                    continue
                # seen again, a group must have all it needs
                assert group not in waiting, "groups wait for each other"
                waiting.add(group)
                stack += missing
        return found


def _most(domain: Shape) -> int:
    """How many nodes a kernel may have."""
    elements = num_elements(domain)
    return FEW_NODES if isinstance(elements, int) and elements <= FEW_ELEMENTS else MOST_NODES


def _scalars(node: Node) -> tuple[Node, ...]:
    """What a draw must know before its first element: all but the elements that it drops."""
    names = node.op.operand_names
    if "key" not in names:
        return ()
    return tuple(n for n, name in zip(node.inputs, names, strict=True) if name != "x")


def groups_of(
    order: Iterable[Node], kind: Callable[[Node], str], source: Callable[[Node], Node],
    spreads: Callable[[Node, Node], bool],
) -> list[list[Node]]:  # fmt: skip
    """The steps' nodes in order; see `Groups`."""
    return Groups(list(order), kind, source, spreads).ordered()
