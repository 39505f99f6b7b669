"""What a picture shows of a compiled function's program: its steps, and the arrays between them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from .. import printing
from ..errors import ArgumentError
from ..function import Function
from ..graph import Node, format_origin
from ..schedule import Buffer, Kernel, Loop, Pack, Product, Program, moved, title, touched
from ..types import Atom, Size, evaluate
from .picture import FORWARD, Box, Picture, elide, tip_of

LISTED = 6  # operations of a kernel in its box; all are in the hover text
WORDS = 42  # characters of a line of them


def picture_of_program(function: Any, limit: int) -> Picture:
    """Steps as boxes, with what is fused in each, arrows for arrays, and the memory of a call."""
    if not isinstance(function, Function):
        raise ArgumentError(f"only a compiled function has a program, got {function!r}")
    program = getattr(function.executable, "program", None)
    if not isinstance(program, Program):
        raise ArgumentError(
            f"the {function.backend} backend takes one step an operation: draw what='graph'"
        )
    last = function.executable.listing("program").splitlines()[-1]
    memory = f"  ·  {last}" if last.startswith("memory") else ""
    picture = Picture(printing.shown(f"{function.name} on {function.backend}{memory}"))
    count = len(program.steps)
    if count > limit:
        picture.note = f"the last {limit:,} of {count:,} steps; limit={count} shows all"
    drawing = _Drawing(picture, program, function.sizes)
    drawing.steps(limit)
    drawing.results(function)
    return picture


class _Drawing:
    def __init__(self, picture: Picture, program: Program, sizes: dict[Atom, int]) -> None:
        self.picture, self.program, self.sizes = picture, program, sizes
        self.makers: dict[Buffer, int] = {}

    def steps(self, limit: int) -> None:
        left_out = len(self.program.steps) - limit
        for number, step in enumerate(self.program.steps):
            reads = dict.fromkeys(b for b, writes in touched(step) if not writes)
            if number < left_out:
                continue
            box = self.picture.add(self._box(number, step))
            for buffer in reads:
                if (source := self._source(buffer)) is not None:
                    self.picture.arrows.append((source, box))
            written = dict.fromkeys(b for b, writes in touched(step) if writes)
            # what is only looked at is read on in its own memory
            for buffer in written or reads:
                if buffer in written and buffer in self.makers:  # changed in place
                    self.picture.arrows.append((self.makers[buffer], box))
                self.makers[buffer] = box

    def results(self, function: Function) -> None:
        """A mark for every result, every new value, and what new rows of a value are made from."""
        names = {
            r.node: f"new {printing.title(r.updated)}" if r.updated is not None else r.label
            for r in printing.roots_of(function)
        }
        wanted = function.executable.graph.outputs  # type: ignore[attr-defined]
        for node, buffer in zip(wanted, self.program.outputs, strict=True):
            if buffer in self.makers:
                name = elide(names.get(node, "for new rows"))
                mark = self.picture.add(Box("output", FORWARD, name, (str(node.type),)))
                self.picture.arrows.append((self.makers[buffer], mark))

    def _source(self, buffer: Buffer) -> int | None:
        """The box that an array comes from; one for every use of an input, none for a constant."""
        if buffer in self.makers:
            return self.makers[buffer]
        if buffer.role == "constant" or printing.kind_of(buffer.node) == "stream":
            return None
        node = buffer.node
        kind = printing.kind_of(node) if buffer.role == "input" else "more"
        name = printing.title(node) if kind != "more" else "…"
        return self.picture.add(Box(kind, FORWARD, elide(name), (str(node.type),)))

    def _box(self, number: int, step: Any) -> Box:
        node, what = title(step)
        word, lines = what.split(":")[0], list(self._lines(step))
        if word == "kernel" and any("key" in n.op.operand_names for n in step.nodes):
            kind = "dropout"
        else:
            kind = word if word in ("product", "pack", "rows", "loop", "outside") else "op"
        tip = (
            f"step {number}: {what}", *(tip_of(n, FORWARD)[0] for n in _nodes(step)),
            f"built at {printing.shown(format_origin(node.origin))}",
        )  # fmt: skip
        return Box(kind, FORWARD, f"{number}  {word}", tuple(map(elide, lines)), tip)

    def _lines(self, step: Any) -> list[str]:
        if isinstance(step, Kernel):
            over = ", ".join(str(self._known(s)) for s in step.domain)
            lines = [*_listed(n.op.name for n in step.nodes), f"over [{over}]"]
        elif isinstance(step, Product):
            left, right = (
                ", ".join(str(self._known(s)) for s in p.shape) for p in (step.left, step.right)
            )
            lines = [f"({left}) @ ({right})"]
        elif isinstance(step, Pack):
            lines = [f"({', '.join(str(self._known(s)) for s in step.source.shape)})"]
        elif isinstance(step, Loop):
            inner = [n.op.name for s in step.body.steps for n in _nodes(s)]
            count = f"{self._known(step.length)} times {len(step.body.steps)} steps"
            lines = [count, *_listed(inner)]
        else:
            lines = [step.node.op.name]
        return [*lines, f"{self._amount(moved(step))} moved"]

    def _known(self, size: Size) -> Size:
        try:
            return evaluate(size, self.sizes)
        except KeyError:
            return size

    def _amount(self, nbytes: Size) -> str:
        found = self._known(nbytes)
        if not isinstance(found, int):
            return f"{found} bytes"
        for unit in ("bytes", "kB", "MB"):
            if found < 10_000:
                return f"{found:,} {unit}"
            found = round(found / 1000)
        return f"{found:,} GB"


def _nodes(step: Any) -> tuple[Node, ...]:
    return step.nodes if isinstance(step, Kernel) else (step.node,)


def _listed(names: Iterable[str]) -> list[str]:
    """The first names, in lines that a box holds."""
    found = list(dict.fromkeys(names)) or ["copy"]
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return textwrap.wrap(" ".join([*found[:LISTED], *more]), WORDS)
