"""A fused kernel as loops in LLVM IR.

A kernel is a function of a range of its units of work (see `walk`), or of blocks of them, so that
threads can share it:

    void step(ptr table, ptr sizes, i64 first unit, i64 last unit)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.op import constant_value
from graphdrop.op import size as size_op
from graphdrop.ops import create, random
from graphdrop.replay import operand
from graphdrop.schedule import Kernel, Place, draws_by_row
from graphdrop.schedule.walk import Stage
from graphdrop.types import num_elements

from .access import fetch, put, stream
from .draws import NUMBERS, Mask, Words, lane_bits, number
from .lanes import Lanes, literal, memory_type, scalar_type
from .module import Code, Module
from .reductions import combine, horizontal, identity, wide
from .scalars import PRINTERS
from .walk import BLOCKS, TILE, Walk, counts

SHARED_WORK = 1 << 20  # bytes to move from which on it pays to wake other threads
STREAMED = 1 << 23  # bytes; writing around the caches saves reading what is overwritten


class Printer(Walk):
    """Prints one kernel as a function of a module."""

    def __init__(self, kernel: Kernel, module: Module) -> None:
        super().__init__(kernel)
        self.module = module
        self.code = Code(module, own=True)
        self.bases: dict[tuple[str, Node], str] = {}
        drawing = (n for n in kernel.nodes if "key" in n.op.operand_names)
        self.keys = {operand(n, "key") for n in drawing}
        self.masks: dict[Node, Mask] = {}
        self.words: dict[Node, Words] = {}
        self.streams: dict[Node, str] = {}
        self.own: list[str] = []
        self.kept = {n: self._row(n) for stage in self.stages for n in stage.kept}

    def _row(self, node: Node) -> str:
        """Memory for one value of a whole row."""
        length = self.code.size(self.axes.sizes[-1])
        return self._memory(self.code.once(f"mul i64 {length}, {node.dtype.itemsize}"))

    def _memory(self, nbytes: str | int) -> str:
        """Memory that the function has while it runs; a stack may be small."""
        for known in ("declare ptr @malloc(i64)", "declare void @free(ptr)"):
            self.module.needs[known] = None
        self.own.append(self.code.once(f"call ptr @malloc(i64 {nbytes})", "own"))
        return self.own[-1]

    @property
    def least_to_share(self) -> int | None:
        """From how many elements on other threads may help; None if there is never so much."""
        bytes_each = sum(
            p.buffer.dtype.itemsize
            for p, s in (*self.reads.values(), *self.writes.values())
            if s[-1] != 0
        )
        calls = sum("@gd_" in text for text in self.code.lines)
        least = SHARED_WORK // (bytes_each + 32 * calls + len(self.kernel.nodes) + 1)
        known = num_elements(self.kernel.domain)
        return None if isinstance(known, int) and known < least else least

    # ---- text
    def print(self) -> str:
        """The name of the function."""
        code = self.code
        first, last, before = "%first", "%last", "entry"
        if self.columns:
            first, last, before = *self._block(), "block"
        code.do("br label %units")
        code.label("units")
        code.do(f"%unit = phi i64 [ {first}, %{before} ], [ %unit.next, %unit.end ]")
        code.do(f"%more = icmp slt i64 %unit, {last}")
        code.do("br i1 %more, label %unit.begin, label %done")
        code.label("unit.begin")
        self._unit()
        code.do("br label %unit.end")
        code.label("unit.end")
        code.do("%unit.next = add i64 %unit, 1")
        code.do("br label %units")
        code.label("done")
        if self.columns:
            code.do("%block.next = add i64 %block.number, 1")
            code.do("br label %blocks")
            code.label("end")
        if self.streams:
            code.do("fence seq_cst")  # other threads are to see what went around the caches
        for memory in self.own:
            code.do(f"call void @free(ptr {memory})")
        code.do("ret void")
        return self.module.step([*code.entry(), *code.lines])

    def _block(self) -> tuple[str, str]:
        """Begins a loop over blocks; returns the first unit of one, and the one after its last."""
        code = self.code
        code.do("br label %blocks")
        code.label("blocks")
        code.do("%block.number = phi i64 [ %first, %entry ], [ %block.next, %done ]")
        code.do("%some = icmp slt i64 %block.number, %last")
        code.do("br i1 %some, label %block, label %end")
        code.label("block")
        units = code.size(self.units)
        after = code.emit("add i64 %block.number, 1")
        first, last = (code.emit(f"mul i64 {b}, {units}") for b in ("%block.number", after))
        return code.emit(f"udiv i64 {first}, {BLOCKS}"), code.emit(f"udiv i64 {last}, {BLOCKS}")

    def _unit(self) -> None:
        """One tile of one row."""
        code, last = self.code, self.axes.sizes[-1]
        tiles, length = code.size(self.tiles), code.size(last)
        row = "%unit" if tiles == "1" else code.emit(f"udiv i64 %unit, {tiles}")
        tile = "0" if tiles == "1" else code.emit(f"urem i64 %unit, {tiles}")
        start = code.mul(tile, str(TILE))
        left = length if start == "0" else code.emit(f"sub i64 {length}, {start}")
        count = left if tiles == "1" else code.smaller(left, str(TILE))
        self._bases(row, start)
        self._decide_streams()
        flat = code.add(code.mul(row, length), start)
        for window in self._windows():
            window.fill(flat, count)
        self.starts, self.column = flat, start
        self.scalars = self._scalars()
        for stage in self.stages:
            for node, total in self._loop(stage, count).items():
                self._add_up(node, total)

    def _bases(self, row: str, start: str) -> None:
        """The address of the first element of every access in this unit."""
        code, outer = self.code, self.axes.sizes[:-1]
        index: list[str] = []
        rest = row
        for size in reversed(outer[1:]):
            text = code.size(size)
            index.append(code.emit(f"urem i64 {rest}, {text}"))
            rest = code.emit(f"udiv i64 {rest}, {text}")
        index.append(rest)
        index.reverse()
        for role, group in (("r", self.reads), ("w", self.writes), ("s", self.reduced)):
            for node, (place, strides) in group.items():
                if role == "r" and self._immediate(place) is not None:
                    continue
                if role == "s" and node in self.partial:
                    parts, kind = code.buffer(place.buffer.number), scalar_type(wide(node))
                    address = code.emit(f"getelementptr {kind}, ptr {parts}, i64 %unit")
                    self.bases[role, node] = address
                    continue
                offset = "0"
                if node in self.columns:
                    offset = code.mul("%block.number", code.size(place.buffer.elements))
                elif outer:
                    for i, stride in zip(index, strides[:-1], strict=True):
                        offset = code.add(offset, code.mul(i, code.size(stride)))
                offset = code.add(offset, code.mul(start, code.size(strides[-1])))
                base, kind = code.place(place), memory_type(place.buffer.dtype)
                self.bases[role, node] = (
                    base
                    if offset == "0"
                    else code.emit(f"getelementptr {kind}, ptr {base}, i64 {offset}")
                )

    def _decide_streams(self) -> None:
        """Which results are so large that they are written around the caches."""
        code = self.code
        for node, (place, strides) in self.writes.items():
            each, known = node.dtype.itemsize, place.buffer.elements
            small = isinstance(known, int) and known * each < STREAMED
            if small or strides[-1] != 1 or self.width * each % 64 or node.dtype.kind == "b":
                continue
            address = code.emit(f"ptrtoint ptr {self.bases['w', node]} to i64")
            low = code.emit(f"and i64 {address}, 63")
            aligned = code.emit(f"icmp eq i64 {low}, 0")
            large = code.emit(f"icmp sge i64 {code.size(known)}, {STREAMED // each}")
            self.streams[node] = code.emit(f"and i1 {aligned}, {large}")

    def _immediate(self, place: Place) -> Any:
        """A constant number that is part of the text; other floats are loaded, so that kernels that
        differ in them alone are one.
        """
        value = constant_value(place.buffer.node)
        if value is None or value.ndim or (value.dtype.kind == "f" and value not in (0, 1)):
            return None
        return value

    def _windows(self) -> list[Mask | Words]:
        """One for every draw; dropouts of one mask share theirs."""
        found: list[Mask | Words] = []
        masks: dict[tuple[int, tuple[Node, ...]], Mask] = {}
        for node in self.kernel.nodes:
            if "key" not in node.op.operand_names:
                continue
            training, key, step, example = node.inputs[-4:]
            by_row, shape = draws_by_row(node), self.kernel.domain
            total = num_elements(shape[1:] if by_row else shape)
            which = (
                node.params["site"], self._scalar(training), self._address(key),
                self._scalar(step), self.code.size(total),
                self._scalar(example) if by_row else None,
            )  # fmt: skip
            if node.op in NUMBERS:
                bits = lane_bits(node)
                memory = self._memory(Words.nbytes(bits))
                self.words[node] = Words(self.code, bits, memory, *which)
                found.append(self.words[node])
                continue
            known = (node.params["site"], node.inputs[-5:])
            if known not in masks:
                threshold = self._scalar(node.inputs[-5])
                masks[known] = Mask(self.code, threshold, *which)
                found.append(masks[known])
            self.masks[node] = masks[known]
        return found

    def _address(self, key: Node) -> str:
        return self.bases["r", key]

    def _scalar(self, node: Node) -> str:
        """A scalar operand, as one register or literal."""
        place, _ = self.reads[node]
        known = self._immediate(place)
        if known is not None:
            return literal(known.dtype, known)
        return self._load_one(node)

    def _load_one(self, node: Node) -> str:
        kind = memory_type(node.dtype)
        value = self.code.emit(f"load {kind}, ptr {self.bases['r', node]}")
        return self.code.emit(f"trunc i8 {value} to i1") if node.dtype == np.bool_ else value

    def _scalars(self) -> dict[Node, tuple[str, str]]:
        """Values that do not change within a unit: the kind, and a register or a literal."""
        found = {}
        for node, (_, strides) in self.reads.items():
            if node in self.keys:
                continue
            if strides[-1] == 0:
                found[node] = (scalar_type(node.dtype), self._scalar(node))
        return found

    def _loop(self, stage: Stage, count: str) -> dict[Node, str]:
        """Whole vectors, then what is left; returns the sums of reductions along the last axis."""
        code, width, tag = self.code, self.width, stage.number
        summed = [n for n in stage.nodes if n in self.reduced and self.reduced[n][1][-1] == 0]
        lanes = Lanes(width, self.module.needs, self.code.names)
        starts = {n: lanes.constant(self.held(n), identity(n)) for n in summed}
        splats = {}
        for node, (kind, one) in self.scalars.items():
            known = not one.startswith("%")
            splats[node] = lanes.repeat(kind, one) if known else lanes.splat(kind, one)
        code.lines += lanes.lines
        if width == 1:
            body = Lanes(1, self.module.needs, self.code.names)
            sums = self._body(stage, body, "0", None, splats, starts)
            code.lines += body.lines
            return sums
        whole = code.emit(f"and i64 {count}, {-width}")
        code.do(f"br label %vectors{tag}")
        before = self._last_label()
        code.label(f"vectors{tag}")
        body = Lanes(width, self.module.needs, self.code.names)
        sums = {n: f"%sum{tag}.{i}" for i, n in enumerate(summed)}
        j = f"%j{tag}"
        after = self._body(stage, body, j, None, splats, sums)
        end = next((x[:-1] for x in reversed(body.lines) if x.endswith(":")), f"vector{tag}")
        code.do(f"{j} = phi i64 [ 0, %{before} ], [ {j}.next, %{end} ]")
        for node, name in sums.items():
            kind = body.of(self.held(node))
            code.do(f"{name} = phi {kind} [ {starts[node]}, %{before} ], [ {after[node]}, %{end} ]")
        more = code.emit(f"icmp slt i64 {j}, {whole}")
        code.do(f"br i1 {more}, label %vector{tag}, label %rest{tag}")
        code.label(f"vector{tag}")
        code.lines += body.lines
        code.do(f"{j}.next = add i64 {j}, {width}")
        code.do(f"br label %vectors{tag}")
        code.label(f"rest{tag}")
        some = code.emit(f"icmp slt i64 {whole}, {count}")
        code.do(f"br i1 {some}, label %tail{tag}, label %sums{tag}")
        code.label(f"tail{tag}")
        tail = Lanes(width, self.module.needs, self.code.names)
        left = tail.emit(f"sub i64 {count}, {whole}")
        every = tail.splat("i64", left)
        mask = tail.emit(f"icmp slt {tail.type('i64')} {tail.positions()}, {every}")
        last = self._body(stage, tail, whole, mask, splats, sums)
        code.lines += tail.lines
        code.do(f"br label %sums{tag}")
        code.label(f"sums{tag}")
        found = {}
        for i, (node, name) in enumerate(sums.items()):
            kind = body.of(self.held(node))
            total = f"%total{tag}.{i}"
            code.do(f"{total} = phi {kind} [ {name}, %rest{tag} ], [ {last[node]}, %tail{tag} ]")
            found[node] = total
        return found

    def _last_label(self) -> str:
        return next(x[:-1] for x in reversed(self.code.lines) if x.endswith(":"))

    # ---- one vector
    def _body(
        self, stage: Stage, b: Lanes, j: str, mask: str | None, splats: dict[Node, str],
        sums: dict[Node, str],
    ) -> dict[Node, str]:  # fmt: skip
        """The nodes of a stage on the elements from j on; returns the new sums."""
        values = dict(splats)
        for node in stage.reads:
            if node not in values and node not in self.keys:
                values[node] = self._load(b, node, j, mask)
        for node in stage.again:
            values[node] = fetch(b, self.kept[node], memory_type(node.dtype), j, "1", mask)
        for spread, root in self.kernel.rows.items():
            if root in values:
                values[spread] = values[root]
        after = {}
        for node in stage.nodes:
            if node in self.reduced:
                x = values[node.inputs[0]]
                if node in sums:
                    after[node] = self._accumulate(b, node, sums[node], x, mask)
                else:
                    self._add_to_memory(b, node, x, j, mask)
            elif node in self.masks:
                values[node] = self._drop(b, node, values, j)
            elif node in self.words:
                words = self.words[node]
                values[node] = number(b, node, words.lanes(b, j), words.training, values)
            elif node.op is create.iota:
                values[node] = self._position(b, j)
            elif node in self.hits and b.width > 1:
                values[node] = self._hit(b, node, j)
            elif node.op is size_op:
                values[node] = b.splat("i64", self.code.size(node.params["size"]))
            else:
                given = [values[i] for i in node.inputs]
                values[node] = PRINTERS[node.op](b, node, *given)
        for node in stage.kept:
            put(b, self.kept[node], memory_type(node.dtype), values[node], j, "1", mask)
        for node in stage.writes:
            self._store(b, node, values[node], j, mask)
        return after

    def _load(self, b: Lanes, node: Node, j: str, mask: str | None) -> str:
        place, strides = self.reads[node]
        if place.buffer.node.op is create.iota and counts(place, strides):
            at = b.emit(f"add i64 {self.column}, {j}")
            return b.binary("add", "i64", b.splat("i64", at), b.positions())
        kind = memory_type(place.buffer.dtype)
        value = fetch(b, self.bases["r", node], kind, j, self.code.size(strides[-1]), mask)
        return self._from_memory(b, node, value)

    def _from_memory(self, b: Lanes, node: Node, value: str) -> str:
        if node.dtype != np.bool_:
            return value
        return b.emit(f"trunc {b.type('i8')} {value} to {b.type('i1')}")

    def _store(self, b: Lanes, node: Node, value: str, j: str, mask: str | None) -> None:
        _, strides = self.writes[node]
        if node.dtype == np.bool_:
            value = b.emit(f"zext {b.type('i1')} {value} to {b.type('i8')}")
        base, kind = self.bases["w", node], memory_type(node.dtype)
        if node in self.streams and mask is None and b.width > 1:
            stream(b, self.streams[node], base, kind, value, j)
        else:
            put(b, base, kind, value, j, self.code.size(strides[-1]), mask)

    # ---- draws and positions
    def _position(self, b: Lanes, j: str) -> str:
        at = b.emit(f"add i64 {self.starts}, {j}")
        return b.binary("add", "i64", b.splat("i64", at), b.positions())

    def _hit(self, b: Lanes, node: Node, j: str) -> str:
        """Where the position is the one that the row asks for: bytes are compared, not indices."""
        kind, one = self.scalars[self.hits[node]]
        at = b.emit(f"add i64 {self.column}, {j}")
        lane = b.emit(f"sub {kind} {one}, {at}")
        here = b.emit(f"icmp ult {kind} {lane}, {b.width}")
        lane = b.emit(f"trunc {kind} {lane} to i8")
        lane = b.emit(f"select i1 {here}, i8 {lane}, i8 -1")
        return b.emit(f"icmp eq {b.type('i8')} {b.splat('i8', lane)}, {b.positions('i8')}")

    def _drop(self, b: Lanes, node: Node, values: dict[Node, str], j: str) -> str:
        window = self.masks[node]
        keep = window.bits(b, j)
        if node.op is random.mask:
            return keep
        x, dtype = values[node.inputs[0]], node.dtype
        kind = scalar_type(dtype)
        if node.params["scaled"]:
            wide = "float" if kind == "half" else kind
            scale = b.splat(wide, window.scale(b, wide))
            up = b.convert("fpext", kind, wide, x) if kind != wide else x
            x = b.binary("fmul", wide, up, scale)
            x = b.convert("fptrunc", wide, kind, x) if kind != wide else x
        return b.select(keep, kind, x, b.constant(dtype, 0))

    # ---- reductions
    def _operand(self, b: Lanes, node: Node, x: str, new: np.dtype[Any]) -> str:
        """The operand in a wider dtype: small integers are added up in 64 bits."""
        old = node.inputs[0].dtype
        a, c = scalar_type(old), scalar_type(new)
        if a == c:
            return x
        how = {"f": "fpext", "i": "sext"}.get(old.kind, "zext")
        return b.convert(how, a, c, x)

    def _accumulate(self, b: Lanes, node: Node, total: str, x: str, mask: str | None) -> str:
        dtype = self.held(node)
        x = self._operand(b, node, x, dtype)
        if mask is not None:
            neutral = b.constant(dtype, identity(node))
            x = b.select(mask, scalar_type(dtype), x, neutral)
        return combine(b, node, dtype, total, x)

    def _add_to_memory(self, b: Lanes, node: Node, x: str, j: str, mask: str | None) -> None:
        _, strides = self.reduced[node]
        kind, base = memory_type(node.dtype), self.bases["s", node]
        old = fetch(b, base, kind, j, self.code.size(strides[-1]), mask)
        new = combine(b, node, node.dtype, old, self._operand(b, node, x, node.dtype))
        put(b, base, kind, new, j, self.code.size(strides[-1]), mask)

    def _add_up(self, node: Node, total: str) -> None:
        """The lanes of a sum together, and added to what memory has; stages after this know it,
        unless it is but a part.
        """
        one, dtype = Lanes(1, self.module.needs, self.code.names), self.held(node)
        kind, held = scalar_type(dtype), scalar_type(node.dtype)
        if self.width > 1:
            total = horizontal(one, node, dtype, self.width, total)
        base = self.bases["s", node]
        if node in self.partial:
            one.do(f"store {kind} {total}, ptr {base}")
            self.code.lines += one.lines
            return
        old = one.emit(f"load {held}, ptr {base}")
        old = old if held == kind else one.convert("fpext", held, kind, old)
        new = combine(one, node, dtype, old, total)
        new = new if held == kind else one.convert("fptrunc", kind, held, new)
        one.do(f"store {held} {new}, ptr {base}")
        self.code.lines += one.lines
        self.scalars[node] = (held, new)
