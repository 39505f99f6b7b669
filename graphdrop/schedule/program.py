"""What a graph becomes before a backend prints it: steps over buffers.

A `Program` is data.  Sizes in it are symbolic, so that one program serves every size; nothing in it
says how a step is computed, only on which memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..graph import Node, format_origin
from ..types import Atom, Shape, Size, evaluate, num_elements


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """Memory of one array in C order.

    number  its place in `Program.buffers`
    role    "input", "constant", "output", "scratch", or "foreign": made by a step outside
    node    what it holds
    room    how many elements, if the backend lays out what it holds in an order of its own
    """

    number: int
    role: str
    node: Node
    room: Size | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    @property
    def elements(self) -> Size:
        return num_elements(self.node.shape) if self.room is None else self.room

    def __repr__(self) -> str:
        return f"{self.role[0]}{self.number}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the elements of an array are: offset and strides, counted in elements of a buffer."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: Size = 0

    @property
    def is_whole(self) -> bool:
        """Whether the elements are all of the buffer's, in its order."""
        dense = contiguous(self.shape)
        return (
            self.offset == 0
            and num_elements(self.shape) == self.buffer.elements
            and all(
                a == b or size == 1
                for a, b, size in zip(self.strides, dense, self.shape, strict=True)
            )
        )


def contiguous(shape: Shape) -> Shape:
    """The strides of an array in C order."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))


@dataclass(frozen=True, eq=False)
class Kernel:
    """Loops over a domain in which everything is computed for one element after the other.

    nodes    what is computed, operands first: elementwise operations, draws, then reductions
    reads    values from memory, placed along the domain's axes (stride 0 where they broadcast)
    writes   what of the nodes is kept, placed likewise; a copy writes what it reads
    reduced  results of reductions, with stride 0 along the reduced axes
    rows     operands that are a reduction of this very kernel, spread over its row: what needs them
             is computed when the row has been walked once
    """

    domain: Shape
    nodes: tuple[Node, ...]
    reads: dict[Node, Place]
    writes: dict[Node, Place]
    reduced: dict[Node, Place]
    rows: dict[Node, Node] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Product:
    """A product of matrices (..., n, k) and (..., k, m); transposes are strides.

    packed  the right operand in the backend's own order, if that was made before; see `Pack`
    """

    node: Node
    left: Place
    right: Place
    out: Place
    packed: Buffer | None = None


@dataclass(frozen=True, eq=False)
class Pack:
    """The right operand of products in a loop, laid out before it in the backend's own order.

    node    one of the products
    source  the operand, a matrix
    result  a buffer with as much room as the backend wants
    rows    how many rows the products have
    loops   the lengths of the loops around them: where one has no steps, nothing is read
    """

    node: Node
    source: Place
    result: Buffer
    rows: Size
    loops: tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an array at positions that are data.

    node   a gather, which copies them; a scatter_add, which adds to them one after the other; or a
           check that the positions are such, whose result is the positions' own memory; or the
           last_equal of positions, whatever they are of
    ids    the positions
    limit  how many rows there are
    array  whose rows are meant; of a scatter_add the result, which holds the array already
    rows   what is made, or added, in C order
    """

    node: Node
    ids: Place
    limit: Size
    array: Place | None = None
    rows: Place | None = None

    @property
    def adds(self) -> bool:
        return self.array is not None and self.array.buffer.node is self.node


@dataclass(frozen=True, eq=False)
class Outside:
    """An operation that this backend does not print: another one computes it.

    operands  what it needs, in the order of the node's dependencies
    results   one buffer for a tensor, or one for every result
    """

    node: Node
    operands: tuple[tuple[Node, Place], ...]
    results: tuple[Buffer | None, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """A scan whose step is a program of its own, all of whose steps a backend prints.

    body       its inputs are the index, the carries, an element of each sequence, what is captured;
               its outputs the new carries, then the outs in use
    length     the number of steps
    reverse    from the last row to the first
    first      the first carries
    sequences  rows along the first axis
    captured   values that stay
    carries    for each carry where it ends, and memory of its size: steps write to them in turn
    outs       stacked outs, a row for every step
    """

    node: Node
    body: Program
    length: Size
    reverse: bool
    first: tuple[Place, ...]
    sequences: tuple[Place, ...]
    captured: tuple[Place, ...]
    carries: tuple[tuple[Buffer, Buffer], ...]
    outs: tuple[Buffer, ...]


Step: TypeAlias = "Kernel | Product | Pack | Rows | Outside | Loop"


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order over buffers.

    inputs   buffers of the graph's inputs, in their order
    outputs  buffers of the graph's outputs, each one's own; a foreign one that occurs again stands
             for a copy, which whoever runs the program makes
    atoms    the sizes that a call fixes
    """

    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    atoms: tuple[Atom, ...]
    places: dict[Node, Place] = field(repr=False)

    def text(self) -> str:
        """The program for people: one step a line, with what is fused in it."""
        return "\n".join(line for i, step in enumerate(self.steps) for line in _lines(i, step))

    @property
    def loops(self) -> list[Loop]:
        return [step for step in self.steps if isinstance(step, Loop)]

    @property
    def is_printed(self) -> bool:
        """Whether no step is outside."""
        return not any(isinstance(step, Outside) for step in self.steps)


def touched(step: Step) -> Iterator[tuple[Buffer, bool]]:
    """The buffers of a step, and whether it writes them."""
    if isinstance(step, Kernel):
        yield from ((p.buffer, False) for p in step.reads.values())
        yield from ((p.buffer, True) for p in (*step.writes.values(), *step.reduced.values()))
    elif isinstance(step, Product):
        yield from ((step.left.buffer, False), (step.right.buffer, False), (step.out.buffer, True))
        if step.packed is not None:
            yield step.packed, False
    elif isinstance(step, Pack):
        yield from ((step.source.buffer, False), (step.result, True))
    elif isinstance(step, Rows):
        yield step.ids.buffer, False
        if step.array is not None:
            yield step.array.buffer, step.adds
        if step.rows is not None:
            yield step.rows.buffer, not step.adds
    elif isinstance(step, Loop):
        places = (*step.first, *step.sequences, *step.captured)
        yield from ((p.buffer, False) for p in places)
        yield from ((b, True) for pair in step.carries for b in pair)
        yield from ((b, True) for b in step.outs)
    else:
        yield from ((p.buffer, False) for _, p in step.operands)
        yield from ((b, True) for b in step.results if b is not None)


def moved(step: Step) -> Size:
    """Bytes that a step reads and writes if each element is met once."""
    total: Size = 0
    if isinstance(step, Rows):  # of the array no more than the rows in question
        times = 1 + (step.array is not None) + step.adds
        for place, count in ((step.ids, 1), (step.rows, times)):
            if place is not None:
                total = total + num_elements(place.shape) * place.buffer.dtype.itemsize * count
        return total
    for buffer, _ in touched(step):
        # an operand that is packed is not read a second time as it was
        if buffer.room is None or isinstance(step, Pack):
            total = total + buffer.elements * buffer.dtype.itemsize
    return total


def operations(step: Step) -> Size:
    """Arithmetic of a step; functions such as exp count as one operation."""
    if isinstance(step, Product):
        return num_elements(step.node.shape) * step.left.shape[-1] * 2
    if isinstance(step, Kernel):
        return num_elements(step.domain) * len(step.nodes)
    if isinstance(step, Loop):
        each: Size = 0
        for inner in step.body.steps:
            each = each + operations(inner)
        return each * step.length
    return 0


@dataclass(frozen=True)
class Cost:
    """What a step takes, for profilers that do not see its values."""

    nbytes: int
    operations: int


def cost(step: Step, env: Mapping[Atom, int]) -> Cost:
    """What a step takes for the sizes of a call."""
    return Cost(evaluate(moved(step), env), evaluate(operations(step), env))


def title(step: Step) -> tuple[Node, str]:
    """A step in a few words, and the node to whose line of the user it belongs."""
    if isinstance(step, Kernel):
        ends = [*step.writes, *step.reduced]
        names = " ".join(dict.fromkeys(n.op.name for n in step.nodes)) or "copy"
        return ends[-1], f"kernel: {names}"
    if isinstance(step, Loop):
        return step.node, f"loop: {len(step.body.steps)} steps"
    if isinstance(step, Pack):
        return step.node, f"pack: right operand of {step.node.op.name}"
    kinds = {Product: "product", Rows: "rows", Outside: "outside"}
    return step.node, f"{kinds[type(step)]}: {step.node.op.name}"


def _lines(number: int, step: Step) -> Iterator[str]:
    yield _line(number, step)
    if isinstance(step, Loop):
        yield from ("      " + line for line in step.body.text().splitlines())


def _line(number: int, step: Step) -> str:
    reads = ", ".join(dict.fromkeys(repr(b) for b, writes in touched(step) if not writes))
    writes = ", ".join(dict.fromkeys(repr(b) for b, writes in touched(step) if writes))
    if isinstance(step, Kernel):
        names = [n.op.name for n in step.nodes]
        what = f"kernel over {list(step.domain)}: {' '.join(names) or 'copy'}"
    elif isinstance(step, Product):
        what = f"product: matmul {step.left.shape} @ {step.right.shape}"
    elif isinstance(step, Pack):
        what = f"pack: {step.source.shape} for a loop's products  {format_origin(step.node.origin)}"
    elif isinstance(step, Rows):
        what = f"rows: {step.node.op.name}  {format_origin(step.node.origin)}"
    elif isinstance(step, Loop):
        what = f"loop of {step.length} steps  {format_origin(step.node.origin)}"
    else:
        what = f"outside: {step.node.op.name}  {format_origin(step.node.origin)}"
    return f"{number:4}  {writes} <- {reads}  {what}  {moved(step)} bytes"
