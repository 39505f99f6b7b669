"""What a picture shows of a graph: boxes and arrows, with nothing of their places yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import printing
from ..errors import positive
from ..function import Function
from ..graph import Node, format_origin, toposort
from ..op import constant_value

FORWARD, GRADIENT = "forward", "gradient"
# operations that a reader does not miss: their operand is drawn in their place
PLUMBING = frozenset(
    {"cast", "broadcast_to", "reshape", "transpose", "get", "stop_gradient", "override_gradient"}
)
LEAVES = ("input", "shared", "constant")
LONGEST = 44  # characters of one line in a box; the rest is in the hover text


@dataclass(frozen=True)
class Box:
    """One thing drawn.

    kind   as `printing.kind_of`, or 'output', or 'more' for operations left out
    part   'forward' or 'gradient'
    title  the first line
    lines  smaller lines below it
    tip    everything known, shown on hover
    node   what it stands for; None for an output's mark and for 'more'
    """

    kind: str
    part: str
    title: str
    lines: tuple[str, ...] = ()
    tip: tuple[str, ...] = ()
    node: Node | None = None


@dataclass
class Picture:
    """Boxes, arrows between their indices (operand, user), a title and a note."""

    title: str = ""
    note: str = ""
    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box) -> int:
        self.boxes.append(box)
        return len(self.boxes) - 1


def picture_of(
    obj: Any, *, what: str = "graph", forward: Any = None, collapse: bool = True, limit: int = 400
) -> Picture:
    """The picture of a node, of nodes in containers, or of a compiled function; see `draw`."""
    limit = positive(limit, "limit")
    roots = printing.roots_of(obj, what)
    name = f"{obj.name} on {obj.backend}" if isinstance(obj, Function) else ""
    return _Builder(roots, forward_part(roots, forward), collapse, limit).build(name)


def forward_part(roots: Sequence[printing.Root], forward: Any) -> set[Node]:
    """The nodes of the forward part; what is left is the gradient and the updates.

    They are what the nodes in `forward` depend on; by default the outputs of a function that also
    has updates, else everything.
    """
    if forward is not None:
        return set(toposort(r.node for r in printing.roots_of(forward)))
    outputs = [r.node for r in roots if r.updated is None]
    return set(toposort(outputs or [r.node for r in roots]))


def part_of(node: Node, forward: set[Node]) -> str:
    return FORWARD if node in forward else GRADIENT


def elide(text: str) -> str:
    """The text, its middle left out where it is too long for a box."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST * 2 // 3]}…{text[-(LONGEST // 3 - 1) :]}"


def tip_of(node: Node, part: str) -> tuple[str, ...]:
    """The hover text of a node, line by line."""
    return (
        f"{printing.title(node)}  {node.type}",
        *printing.details(node),
        f"{part} part",
        f"built at {printing.shown(format_origin(node.origin))}",
    )


class _Builder:
    """Turns nodes into boxes; a leaf gets a box for every use if the picture is collapsed."""

    def __init__(
        self, roots: Sequence[printing.Root], forward: set[Node], collapse: bool, limit: int
    ) -> None:
        self.roots = roots
        self.forward = forward
        self.collapse = collapse
        self.limit = limit
        self.picture = Picture()
        self.index: dict[Node, int] = {}

    def build(self, title: str) -> Picture:
        self.picture.title = printing.shown(title)
        chosen, total = self._choose()
        # in toposorted order, so that equal graphs give equal pictures
        for node in toposort(r.node for r in self.roots):
            if node in chosen:
                self.index[node] = self._box(node, chosen)
        for root in self.roots:
            self._mark(root, chosen)
        if len(chosen) < total:
            self.picture.note = (
                f"{len(chosen):,} of {total:,} values shown, those nearest the outputs; "
                f"limit={total} shows all"
            )
        return self.picture

    # ---- what is drawn
    def base(self, node: Node) -> tuple[Node, str]:
        """The value drawn in a node's place, and 'ᵀ' if it is drawn untransposed."""
        flips = 0
        while self.collapse and _is_plumbing(node):
            flips += node.op.name == "transpose"
            node = node.inputs[0]
        return node, "ᵀ" * (flips % 2)

    def _operands(self, node: Node) -> Iterable[Node]:
        """The values drawn with an arrow to `node`."""
        for _, operand in printing.operands_of(node):
            value, _ = self.base(operand)
            if not (self.collapse and _is_inline(value)):
                yield value

    def _choose(self) -> tuple[set[Node], int]:
        """Up to `limit` values, breadth first from the roots, and how many there are in all."""
        reached: dict[Node, None] = {}
        queue = deque(self.base(r.node)[0] for r in self.roots)
        while queue:
            node = queue.popleft()
            if node in reached or (self.collapse and _is_inline(node)):
                continue
            reached[node] = None
            queue.extend(self._operands(node))
        return set(list(reached)[: self.limit]), len(reached)

    # ---- boxes
    def _box(self, node: Node, chosen: set[Node]) -> int:
        if self.collapse and printing.kind_of(node) in LEAVES:
            return -1  # drawn beside every user
        index = self.picture.add(self._describe(node))
        self._connect(self._operands(node), index, chosen)
        return index

    def _connect(self, operands: Iterable[Node], user: int, chosen: set[Node]) -> None:
        for operand in dict.fromkeys(operands):
            if operand not in chosen:
                part = part_of(operand, self.forward)
                source = self.picture.add(Box("more", part, "…", tip=("not shown",)))
            elif self.index[operand] < 0:
                source = self.picture.add(self._describe(operand))
            else:
                source = self.index[operand]
            self.picture.arrows.append((source, user))

    def _describe(self, node: Node) -> Box:
        kind, part = printing.kind_of(node), part_of(node, self.forward)
        lines = [str(node.type)]
        if kind in ("dropout", "random"):
            lines = _draw_lines(node) + lines
        elif node.op.name == "transpose":
            lines.insert(0, f"axes {printing.format_param(node.params['axes'])}")
        title = elide(self._title(node))
        return Box(kind, part, title, tuple(map(elide, lines)), tip_of(node, part), node)

    def _title(self, node: Node) -> str:
        """'mul(0.1, ·)': the operation, with its operands where some have no arrow of their own."""
        name = printing.title(node)
        if not node.inputs or not self.collapse or printing.is_draw(node):
            return name
        words, plain = [], True
        for operand in node.inputs:
            value, suffix = self.base(operand)
            inline = _is_inline(value)
            plain = plain and not inline and not suffix
            words.append((printing.title(value) if inline else "·") + suffix)
        return name if plain else f"{name}({', '.join(words)})"

    def _mark(self, root: printing.Root, chosen: set[Node]) -> None:
        """The box that says what a root is for."""
        node, suffix = self.base(root.node)
        part = part_of(root.node, self.forward)
        if root.updated is not None:
            title = f"new {printing.title(root.updated)}"
        else:
            title = (f"output{root.label}" if root.label[:1] in ("", "[") else root.label) + suffix
        inline = self.collapse and _is_inline(node)
        if inline:
            title = f"{title} = {printing.title(node)}"
        index = self.picture.add(Box("output", part, elide(title), tip=(title,)))
        self._connect([] if inline else [node], index, chosen)


def _is_inline(node: Node) -> bool:
    """Whether a value is written into its user's box: a scalar constant, a size, a stream."""
    kind = printing.kind_of(node)
    if kind == "constant":
        array = constant_value(node)
        return array is None or array.ndim == 0
    return kind == "stream"


def _is_plumbing(node: Node) -> bool:
    if node.op.name == "transpose" and node.params["axes"][-2:] != (node.ndim - 1, node.ndim - 2):
        return False  # more than 'ᵀ' can say
    return node.op.name in PLUMBING


def _draw_lines(node: Node) -> list[str]:
    """The site and rate of a draw, and the axes that share its mask."""
    words = printing.site_of(node)
    if "threshold" in node.op.operand_names:
        rate = printing.rate_of(node)
        words += " · rate known at the call" if rate is None else f" · rate {rate:.4g}"
    shared = node.params.get("shared")
    return [words, f"shared over axes {printing.format_param(shared)}"] if shared else [words]
