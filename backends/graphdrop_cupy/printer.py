"""A launch as the text of a CUDA kernel.

Three kinds, by what threads that follow on one another do:

    elements  each has an element of the domain
    rows      they share a row: the reduced axes, whose last one is the domain's
    columns   they have results side by side, and walk down the reduced axes

Sizes are arguments, so that a kernel serves them all.  Long reductions are cut into chunks, each of
which leaves a part of every result for a second kernel to join in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphdrop.graph import Node
from graphdrop.op import constant_value
from graphdrop.op import size as size_op
from graphdrop.ops import create, random
from graphdrop.replay import operand
from graphdrop.schedule import (
    Buffer,
    Kernel,
    Place,
    contiguous,
    draws_by_row,
    draws_numbers,
    replaces,
)
from graphdrop.schedule.walk import Stage, collapse, stages_of
from graphdrop.types import Size, num_elements

from . import draws
from .reductions import HOW, Join, accumulator, identity, join
from .scalars import MEMORY, VALUES, expression, literal, stored


@dataclass
class Printed:
    """The text of a kernel and how to launch it.

    text     but for its name, which is @
    buffers  the arguments: addresses of these first
    sizes    then the values of these
    kind     "elements", "rows" or "columns", or "blocks" that share their work by themselves
    outs     how many results there are, of elements how many in all
    length   how many elements are reduced to one
    draws    whether a warp takes 512 elements at once
    joins    reductions that can be cut into chunks: what joins their parts, which are arguments
             before the sizes; the number of chunks and their length are the last arguments
    """

    text: str
    buffers: list[Buffer]
    sizes: list[Size]
    kind: str
    outs: Size
    length: Size
    draws: bool
    joins: list[Join] = field(default_factory=list)


class Printer:
    """Prints one launch; `print` is all that others need."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        drawing = [n for n in kernel.nodes if "key" in n.op.operand_names]
        self.keys = {operand(n, "key") for n in drawing}
        self.numbers = [n for n in drawing if draws_numbers(n)]
        counts = any(n.op is create.iota for n in kernel.nodes)
        places = [*kernel.reads.items(), *kernel.writes.items(), *kernel.reduced.items()]
        # positions in C order are walked along too where somebody asks for them, in rows also
        flat = [contiguous(kernel.domain)] if drawing or counts else []
        if any(draws_by_row(n) for n in drawing):
            flat.append((0, *flat[0][1:]))
        axes = collapse(kernel.domain, [p.strides for _, p in places] + flat)
        self.axes = axes.sizes
        self.positions = dict(zip(("flat", "within"), axes.strides[len(places) :], strict=False))
        reads, walks = len(kernel.reads), list(zip(places, axes.strides, strict=False))
        self.read_strides = {n: s for (n, _), s in walks[:reads]}
        self.strides = {n: s for (n, _), s in walks[reads:]}
        self.over = [self._is_reduced(a) for a in range(len(self.axes))]
        self.kind = self._kind()
        self.drawing = [n for n in drawing if n not in self.numbers]  # of masks
        by_row = any(draws_by_row(n) for n in self.drawing)
        self.together = bool(self.drawing) and not by_row and self._in_order()
        self.chunked = bool(kernel.reduced) and not kernel.rows
        self.buffers: list[Buffer] = []
        self.sizes: list[Size] = []
        self.lines: list[str] = []
        self.names: dict[Node, str] = {}
        self.bits: dict[tuple[int, tuple[Node, ...]], str] = {}
        self.indent = 1

    def _is_reduced(self, axis: int) -> bool:
        reduced = self.kernel.reduced
        return bool(reduced) and all(self.strides[n][axis] == 0 for n in reduced)

    def _kind(self) -> str:
        if not self.kernel.reduced:
            return "elements"
        return "rows" if self.over[-1] else "columns"

    def _in_order(self) -> bool:
        """Whether the elements of a row, or of all, follow on one another in the domain."""
        first = self.over.index(True) if True in self.over else 0
        return self.kind != "columns" and all(self.over[first:]) == (self.kind == "rows")

    # ---- text
    def do(self, line: str) -> None:
        self.lines.append("  " * self.indent + line)

    def begin(self, line: str) -> None:
        self.do(line + " {")
        self.indent += 1

    def end(self) -> None:
        self.indent -= 1
        self.do("}")

    def size(self, size: Size) -> str:
        """A size as an expression: a number, or an argument."""
        if isinstance(size, int):
            return str(size)
        if size not in self.sizes:
            self.sizes.append(size)
        return f"s{self.sizes.index(size)}"

    def buffer(self, buffer: Buffer) -> str:
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return f"b{self.buffers.index(buffer)}"

    def print(self) -> Printed:
        """The launch's text, arguments and sizes."""
        kept = [s for s, over in zip(self.axes, self.over, strict=True) if not over]
        inner = [s for s, over in zip(self.axes, self.over, strict=True) if over]
        outs, length = num_elements(tuple(kept)), num_elements(tuple(inner))
        self._uniform()
        {"elements": self._elements, "rows": self._rows, "columns": self._columns}[self.kind](
            outs, length
        )
        joins = [join(n, p.buffer) for n, p in self.kernel.reduced.items() if self.chunked]
        written = {p.buffer for p in (*self.kernel.writes.values(), *self.kernel.reduced.values())}
        one_place = self._one_place()
        given = []
        for i, b in enumerate(self.buffers):
            const = "" if b in written else "const "
            alone = "" if b in one_place else "__restrict__ "
            given.append(f"{const}{MEMORY[b.dtype.name]} *{alone}b{i}")
        if self.chunked:
            kinds = [VALUES[accumulator(n).name] for n in self.kernel.reduced]
            given += [f"{kind} *__restrict__ p{i}" for i, kind in enumerate(kinds)]
        given += [f"const INDEX s{i}" for i in range(len(self.sizes))]
        given += ["const INDEX chunks", "const INDEX chunk"] if self.chunked else []
        head = f'extern "C" __global__ void @({", ".join(given)}) {{'
        text = "\n".join([head, *self.lines, "}"])
        return Printed(
            text, self.buffers, self.sizes, self.kind, outs, length, self.together, joins
        )

    def _one_place(self) -> set[Buffer]:
        """Buffers that may lie in one place: what is written over what is read."""
        reads = {p.buffer for p in self.kernel.reads.values() if p.buffer.role == "scratch"}
        writes = {p.buffer for p in self.kernel.writes.values() if p.buffer.role == "scratch"}
        pairs = itertools.product(writes, reads)
        return {b for pair in pairs if replaces(self.kernel, *pair) for b in pair}

    # ---- positions
    def _indices(self, position: str, over: bool) -> dict[int, str]:
        """The indices along the kept or the reduced axes, of a position among them."""
        axes = [a for a in range(len(self.axes)) if self.over[a] == over]
        if len(axes) == 1:
            return {axes[0]: position}
        found, rest, tag = {}, position, "r" if over else "o"
        for a in reversed(axes[1:]):
            size = self.size(self.axes[a])
            self.do(f"const INDEX {tag}{a} = {rest} % {size}, {tag}{a}d = {rest} / {size};")
            found[a], rest = f"{tag}{a}", f"{tag}{a}d"
        if axes:
            found[axes[0]] = rest
        return found

    def _sum(self, offset: Size, strides: Sequence[Size], at: dict[int, str]) -> str:
        """Where an element is: the offset, and the indices times the strides."""
        terms = [] if offset == 0 else [self.size(offset)]
        for a, index in at.items():
            stride = strides[a]
            if stride != 0:
                terms.append(index if stride == 1 else f"{index} * {self.size(stride)}")
        return " + ".join(terms) or "0"

    def _element(self, place: Place, strides: Sequence[Size], at: dict[int, str]) -> str:
        return f"{self.buffer(place.buffer)}[{self._sum(place.offset, strides, at)}]"

    # ---- values
    def _name(self, node: Node) -> str:
        return self.names.setdefault(node, f"v{len(self.names)}")

    def _let(self, node: Node, value: str) -> None:
        self.do(f"const {VALUES[node.dtype.name]} {self._name(node)} = {value};")

    def _load(self, node: Node, at: dict[int, str]) -> None:
        place = self.kernel.reads[node]
        source = self._element(place, self.read_strides[node], at)
        if node.dtype == np.float16:
            source = f"gd_float({source})"
        elif node.dtype == np.bool_:
            source = f"{source} != 0"
        self._let(node, source)

    def _uniform(self) -> None:
        """What is the same for all elements: numbers, and what draws have to know."""
        for node, place in self.kernel.reads.items():
            if node in self.keys:
                self.names[node] = self.buffer(place.buffer)
                continue
            value = constant_value(place.buffer.node)
            if value is not None and value.ndim == 0:
                self.names[node] = literal(value.dtype, value)
            elif self._is_uniform(node):
                self._load(node, {})
        for node in self.kernel.nodes:
            if node.op is random.dropout and node.params["scaled"]:
                self._scale(node)

    def _is_uniform(self, node: Node) -> bool:
        return node in self.keys or all(s == 0 for s in self.read_strides[node])

    def _scale(self, node: Node) -> None:
        kind = "double" if node.dtype == np.float64 else "float"
        threshold, training = (self.names[operand(node, k)] for k in ("threshold", "training"))
        self.do(
            f"const {kind} scale{self._draw(node)} = "
            f"{training} ? ({kind})gd_scale({threshold}) : ({kind})1;"
        )

    def _draw(self, node: Node) -> int:
        return self.drawing.index(node)

    def _which(self, node: Node) -> tuple[int, tuple[Node, ...]]:
        """Nodes that agree in this see the same bits."""
        names = ("threshold", "training", "key", "step", "example")
        return node.params["site"], tuple(operand(node, n) for n in names)

    def _given(self, node: Node) -> tuple[str, str]:
        """Whether a draw is training, and the arguments of its function around a position."""
        threshold, training, key, step, example = (self.names[n] for n in self._which(node)[1])
        return training, f"{key}, {node.params['site']}ull, {step}, {example}, @, {threshold}"

    def _masks(self, block: str) -> None:
        """Every thread of a warp draws the bits of 16 elements, 512 in all."""
        self.bits = {}
        for node in self.drawing:
            which = self._which(node)
            if which not in self.bits:
                name = self.bits[which] = f"bits{len(self.bits)}"
                training, given = self._given(node)
                call = f"gd_kept({given.replace('@', block)})"
                self.do(f"const u32 {name} = {training} ? {call} : 0xffff;")

    def _shared_bits(self) -> None:
        """The bits of the 32 elements at hand, from the two threads that have drawn them."""
        for name in self.bits.values():
            self.do(f"const u32 {name}k = __shfl_sync(ALL, {name}, 2 * k + lane / 16);")

    def _keep(self, node: Node) -> str:
        if self.together:
            return f"({self.bits[self._which(node)]}k >> (lane % 16) & 1) != 0"
        training, given = self._given(node)
        return f"!{training} || gd_keeps({given.replace('@', _position(node))})"

    def _value(self, node: Node) -> None:
        if node.op is create.iota:
            self._let(node, "(long long)flat")
        elif node.op is size_op:
            self._let(node, self.size(node.params["size"]))
        elif node in self.numbers:
            self._let(node, draws.number(node, self.names, _position(node)))
        elif node.op is random.mask:
            self._let(node, self._keep(node))
        elif node.op is random.dropout:
            x = self.names[node.inputs[0]]
            if node.params["scaled"]:
                x = f"{x} * scale{self._draw(node)}"
                x = f"gd_half({x})" if node.dtype == np.float16 else x
            self._let(node, f"{self._keep(node)} ? {x} : 0")
        else:
            self._let(node, expression(node, [self.names[n] for n in node.inputs]))

    def _body(self, stage: Stage, at: dict[int, str]) -> None:
        """One element: what a stage reads, computes, writes and adds."""
        counted = [n for n in stage.nodes if n.op is create.iota or n in self.numbers]
        counted += [n for n in stage.nodes if n in self.drawing and not self.together]
        for name in dict.fromkeys(map(_position, counted)):
            self.do(f"const INDEX {name} = {self._sum(0, self.positions[name], at)};")
        for node in stage.reads:
            if not self._is_uniform(node):
                self._load(node, at)
        for node in stage.nodes:
            if node in self.kernel.reduced:
                kind = VALUES[accumulator(node).name]
                value = f"({kind}){self.names[node.inputs[0]]}"
                total = self._total(node)
                self.do(f"{total} = {HOW[node.op]}::of({total}, {value});")
            else:
                self._value(node)
        for node in stage.writes:
            place = self.kernel.writes[node]
            target = self._element(place, self.strides[node], at)
            self.do(f"{target} = {stored(node.dtype, self.names[node])};")

    # ---- loops
    def _elements(self, outs: Size, length: Size) -> None:
        (stage,) = stages_of(self.kernel)
        count = self.size(outs)
        if self.together:
            self.do("const INDEX thread = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;")
            self.do("const int lane = threadIdx.x % 32;")
            self.begin(
                f"for (INDEX a = thread / 32 * 512; a < {count}; "
                "a += (INDEX)gridDim.x * blockDim.x * 16)"
            )
            self._masks("a / 16 + lane")
            self.lines.append("#pragma unroll 4")  # so that several elements are on their way
            self.begin("for (int k = 0; k < 16; k++)")
            self._shared_bits()
            self.do("const INDEX i = a + 32 * k + lane;")
            self.begin(f"if (i < {count})")
            self._body(stage, self._indices("i", False))
            self.end()
            self.end()
        else:
            self.begin(
                f"for (INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x; i < {count}; "
                "i += (INDEX)gridDim.x * blockDim.x)"
            )
            self._body(stage, self._indices("i", False))
        self.end()

    def _total(self, node: Node) -> str:
        return f"t{list(self.kernel.reduced).index(node)}"

    def _totals(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            kind = VALUES[accumulator(node).name]
            self.do(f"{kind} {self._total(node)} = {identity(node)};")

    def _chunks(self, length: Size, unit: str, outs: str) -> None:
        """Which result, and from where to where its elements go."""
        count = self.size(length)
        if self.chunked:
            self.do(f"const INDEX o = {unit} % {outs}, c = {unit} / {outs};")
            self.do("const INDEX begin = c * chunk;")
            self.do(f"const INDEX end = min(begin + chunk, (INDEX){count});")
        else:
            self.do(f"const INDEX o = {unit}, begin = 0, end = {count};")

    def _put(self, node: Node, at: dict[int, str], outs: str) -> None:
        """A result, or the part of it that this chunk has."""
        place, total = self.kernel.reduced[node], self._total(node)
        value = stored(node.dtype, f"({VALUES[node.dtype.name]}){total}")
        target = self._element(place, self.strides[node], at)
        if self.chunked:
            part = list(self.kernel.reduced).index(node)
            self.do(f"if (chunks > 1) p{part}[c * {outs} + o] = {total};")
            self.do(f"else {target} = {value};")
        else:
            self.do(f"{target} = {value};")

    def _rows(self, outs: Size, length: Size) -> None:
        units = f"{self.size(outs)} * chunks" if self.chunked else self.size(outs)
        self.do(f"const INDEX units = {units};")
        self.do("const int lane = threadIdx.x % 32;")
        self.begin(
            "for (INDEX first = (INDEX)blockIdx.x * blockDim.y; first < units; "
            "first += (INDEX)gridDim.x * blockDim.y)"
        )
        self.do("const bool there = first + threadIdx.y < units;")
        self.do("const INDEX unit = there ? first + threadIdx.y : 0;")
        self._chunks(length, "unit", self.size(outs))
        at = self._indices("o", False)
        for stage in stages_of(self.kernel):
            summed = [n for n in stage.nodes if n in self.kernel.reduced]
            self._totals(summed)
            self._walk_row(stage, at, self.size(length))
            for node in summed:
                total, kind = self._total(node), VALUES[node.dtype.name]
                self.do(f"{total} = gd_in_row<{HOW[node.op]}>({total});")
                self.begin("if (there && threadIdx.x == 0)")
                self._put(node, at, self.size(outs))
                self.end()
                value = f"({kind}){total}"
                value = f"gd_half({total})" if node.dtype == np.float16 else value
                for spread, root in self.kernel.rows.items():
                    if root is node:
                        self.names[spread] = value
        self.end()

    def _walk_row(self, stage: Stage, at: dict[int, str], length: str) -> None:
        if self.together:
            self.do(f"const INDEX f{stage.number} = o * {length};")
            base = f"f{stage.number}"
            self.begin(
                f"for (INDEX a = (({base} + begin) & ~(INDEX)15) + threadIdx.x / 32 * 512; "
                f"there && a < {base} + end; a += (INDEX)blockDim.x * 16)"
            )
            self._masks("a / 16 + lane")
            self.begin(f"for (int k = 0; k < 16 && a + 32 * k < {base} + end; k++)")
            self._shared_bits()
            self.do(f"const INDEX r = a + 32 * k + lane - {base};")
            self.begin("if (r >= begin && r < end)")
            self._body(stage, {**at, **self._indices("r", True)})
            self.end()
            self.end()
        else:
            self.begin("for (INDEX r = begin + threadIdx.x; there && r < end; r += blockDim.x)")
            self._body(stage, {**at, **self._indices("r", True)})
        self.end()

    def _columns(self, outs: Size, length: Size) -> None:
        (stage,) = stages_of(self.kernel)
        count = self.size(outs)
        self.do(f"const INDEX tiles = ({count} + 31) / 32;")
        self.begin("for (INDEX u = blockIdx.x; u < tiles * chunks; u += gridDim.x)")
        self.do("const INDEX o = u % tiles * 32 + threadIdx.x, c = u / tiles;")
        self.do(f"const bool there = o < {count};")
        self.do("const INDEX begin = c * chunk;")
        self.do(f"const INDEX end = min(begin + chunk, (INDEX){self.size(length)});")
        at = self._indices("o", False)
        self._totals(self.kernel.reduced)
        self.begin("for (INDEX r = begin + threadIdx.y; there && r < end; r += blockDim.y)")
        self._body(stage, {**at, **self._indices("r", True)})
        self.end()
        for node in self.kernel.reduced:
            total = self._total(node)
            self.do(f"{total} = gd_in_column<{HOW[node.op]}>({total});")
            self.begin("if (there && threadIdx.y == 0)")
            self._put(node, at, count)
            self.end()
        self.end()


def _position(node: Node) -> str:
    """The variable with the position that a node counts from: of all elements, or in a row."""
    drawn = "key" in node.op.operand_names
    return "within" if drawn and draws_by_row(node) else "flat"
