"""The inner parts of products: a tile of the result in registers, and operands packed for it.

A tile of `height` rows by a few vectors is summed over k while it stays in registers: for every k
one row of the right operand is loaded, and each number of a column of the left one multiplies it.
Packed operands lie in the order in which tiles read them: for every k `height` numbers of the left
one, or a tile's width of the right one (Goto and van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34(3), 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .flow import Flow, Function

SIZES = {"float": 4, "double": 8}
SHORT = {"float": "f32", "double": "f64"}
LINE = 64  # bytes that come from memory together
BLOCK = 128  # rows of a panel that are turned together
GROUP = 4  # rows that are turned into columns together; widths and heights are multiples of it


@dataclass(frozen=True)
class Registers:
    """What a processor's registers hold.

    register  bytes of a vector
    vectors   in the width of a tile
    heights   of tiles, the greatest first; the last rows get the smallest that holds them
    """

    register: int
    vectors: int
    heights: tuple[int, ...]


@dataclass(frozen=True)
class Tiles:
    """Prints the inner functions for one type of numbers."""

    kind: str
    registers: Registers

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return SIZES[self.kind]

    @property
    def lanes(self) -> int:
        return self.registers.register // self.size

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.registers.vectors * self.lanes

    @property
    def height(self) -> int:
        """Rows of the tallest tile."""
        return self.registers.heights[0]

    @property
    def _turned_at_once(self) -> int:
        return max(self.lanes, GROUP)

    def __post_init__(self) -> None:
        if any(p % GROUP for p in (self.width, *self.registers.heights)):
            raise ValueError(f"tiles of {self.width} columns and {self.registers.heights} rows")

    def text(self) -> str:
        printed = [self.tile(h) for h in self.registers.heights]
        packs = [self.pack(p) for p in dict.fromkeys((self.width, *self.registers.heights))]
        return "\n".join([*printed, self.turn(), *packs, self.move()])

    # ---- a tile
    def tile(self, height: int) -> str:
        """c = a b, or c += a b where %more: `height` rows of c, all of a tile's width.

        a is packed; rows of b are %ldb apart, those of c %ldc, counted in numbers; k > 0.
        """
        kind, size, vector = self.kind, self.size, f"<{self.lanes} x {self.kind}>"
        f = Function(
            f"define internal void @tile{height}(ptr %a, ptr %b, i64 %ldb, ptr %c, i64 %ldc, "
            "i64 %k, i1 %more)"
        )
        sums = [[f.slot(vector) for _ in range(self.registers.vectors)] for _ in range(height)]
        for slot in (s for row in sums for s in row):
            f.store(vector, "zeroinitializer", slot)
        left, right = f.slot("ptr"), f.slot("ptr")
        f.store("ptr", "%a", left)
        f.store("ptr", "%b", right)
        fma = f"call {vector} @llvm.fmuladd.v{self.lanes}{SHORT[kind]}"
        with f.loop(0, "%k"):
            a, b = f.load("ptr", left), f.load("ptr", right)
            row = [
                f.load(vector, f.at(kind, b, q * self.lanes), size)
                for q in range(self.registers.vectors)
            ]
            for r in range(height):
                x = splat(f, kind, self.lanes, f.load(kind, f.at(kind, a, r)))
                for slot, y in zip(sums[r], row, strict=True):
                    old = f.load(vector, slot)
                    new = f.emit(f"{fma}({vector} {x}, {vector} {y}, {vector} {old})")
                    f.store(vector, new, slot)
            f.store("ptr", f.at(kind, a, height), left)
            f.store("ptr", f.at(kind, b, "%ldb"), right)
        with f.only("%more"):
            self._put(f, sums, add=True)
        self._put(f, sums, add=False)
        return f.text()

    def _put(self, f: Flow, sums: Sequence[Sequence[str]], add: bool) -> None:
        vector = f"<{self.lanes} x {self.kind}>"
        for r, row in enumerate(sums):
            start = f.at(self.kind, "%c", f.mul("%ldc", r))
            for q, slot in enumerate(row):
                to = f.at(self.kind, start, q * self.lanes)
                value = f.load(vector, slot)
                if add:
                    old = f.load(vector, to, self.size)
                    value = f.emit(f"fadd {vector} {old}, {value}")
                f.store(vector, value, to, self.size)

    # ---- packing
    def pack(self, p: int) -> str:
        """Panels of p columns: panel j / p of `to` gets from[i sk + j sp], row after row.

        i < %k, j < %n; the last panel is filled up with zeros.
        """
        f = Function(
            f"define internal void @pack{p}(ptr %to, ptr %from, i64 %sk, i64 %sp, i64 %k, i64 %n) "
            "noinline"
        )
        kind = self.kind
        whole = f.mul(f.number("sdiv", "%n", p), p)
        rows, turned = f.holds("eq", "%sp", 1), f.holds("eq", "%sk", 1)
        with f.when(rows), f.loop(0, "%k") as i:  # memory is read as it lies
            source = f.at(kind, "%from", f.mul(i, "%sk"))
            with f.loop(0, whole, p) as j:
                to = f.at(kind, "%to", f.add(f.mul(j, "%k"), f.mul(i, p)))
                self._copy(f, p, to, f.at(kind, source, j))
        other = f.emit(f"xor i1 {rows}, true")
        # a block of rows is finished before the next: it stays in the first cache
        turn = f.both(turned, other)
        with f.when(turn), f.loop(0, whole, p) as j, f.loop(0, "%k", BLOCK) as i:
            some = f.smaller(BLOCK, f.number("sub", "%k", i))
            for r in range(0, p, GROUP):
                to = f.at(kind, "%to", f.add(f.add(f.mul(j, "%k"), f.mul(i, p)), r))
                source = f.at(kind, "%from", f.add(f.mul(f.add(j, r), "%sp"), i))
                f.do(f"call void @turn(ptr {to}, i64 {p}, ptr {source}, i64 %sp, i64 {some})")
        first = f.choose(f.emit(f"or i1 {rows}, {turned}"), "i64", whole, 0)
        with f.loop(first, "%n", p) as j:
            panel = f.at(kind, "%to", f.mul(j, "%k"))
            columns = f.smaller(p, f.number("sub", "%n", j))
            with f.loop(0, "%k") as i:
                to = f.at(kind, panel, f.mul(i, p))
                source = f.at(kind, "%from", f.add(f.mul(i, "%sk"), f.mul(j, "%sp")))
                with f.loop(0, columns) as c:
                    self._copy(f, 1, f.at(kind, to, c), f.at(kind, source, f.mul(c, "%sp")))
                with f.loop(columns, p) as c:
                    f.store(kind, "0.0", f.at(kind, to, c))
        return f.text()

    def _copy(self, f: Flow, count: int, to: str, source: str) -> None:
        kind = self.kind if count == 1 else f"<{count} x {self.kind}>"
        f.store(kind, f.load(kind, source, self.size), to, self.size)

    def turn(self) -> str:
        """to[i, j] = from[j, i] for i < k and j < 4; rows are %p and %sp numbers apart."""
        f = Function(
            "define internal void @turn(ptr %to, i64 %p, ptr %from, i64 %sp, i64 %k) noinline"
        )
        kind, n = self.kind, self._turned_at_once
        vector = f"<{n} x {kind}>"
        starts = [f.at(kind, "%from", f.mul("%sp", r)) for r in range(GROUP)]
        whole = f.mul(f.number("sdiv", "%k", n), n)
        with f.loop(0, whole, n) as i:
            rows = [f.load(vector, f.at(kind, s, i), self.size) for s in starts]
            to = f.at(kind, "%to", f.mul(i, "%p"))
            columns = self._turned(f, rows)
            for g in range(n // GROUP):
                for column in columns:
                    part = _shuffle(f, vector, column, "poison", range(GROUP * g, GROUP * (g + 1)))
                    f.store(f"<{GROUP} x {kind}>", part, to, self.size)
                    to = f.at(kind, to, "%p")
        with f.loop(whole, "%k") as i:
            to = f.at(kind, "%to", f.mul(i, "%p"))
            for r, start in enumerate(starts):
                self._copy(f, 1, f.at(kind, to, r), f.at(kind, start, i))
        return f.text()

    def _turned(self, f: Flow, rows: list[str]) -> list[str]:
        """Four vectors, whose group g holds the four rows' numbers 4g, 4g + 1, 4g + 2, 4g + 3."""
        n = self._turned_at_once
        vector = f"<{n} x {self.kind}>"

        def merge(a: str, b: str, order: tuple[int, int, int, int]) -> str:
            # numbers from 4 on are those of the second vector's group
            picks = [(n if o >= GROUP else 0) + GROUP * g + o % GROUP
                     for g in range(n // GROUP) for o in order]  # fmt: skip
            return _shuffle(f, vector, a, b, picks)

        low, high = (0, 4, 1, 5), (2, 6, 3, 7)
        first, second = (0, 1, 4, 5), (2, 3, 6, 7)
        pairs = [(merge(rows[0], rows[1], o), merge(rows[2], rows[3], o)) for o in (low, high)]
        return [merge(a, b, o) for a, b in pairs for o in (first, second)]

    def move(self) -> str:
        """A few rows and columns from one matrix to another."""
        f = Function(
            "define internal void @move(ptr %to, i64 %lt, ptr %from, i64 %lf, i64 %rows, "
            "i64 %columns) noinline"
        )
        with f.loop(0, "%rows") as i:
            to = f.at(self.kind, "%to", f.mul(i, "%lt"))
            source = f.at(self.kind, "%from", f.mul(i, "%lf"))
            with f.loop(0, "%columns") as j:
                self._copy(f, 1, f.at(self.kind, to, j), f.at(self.kind, source, j))
        return f.text()


def splat(f: Flow, kind: str, lanes: int, x: str) -> str:
    """A number in every lane of a vector."""
    vector = f"<{lanes} x {kind}>"
    first = f.emit(f"insertelement {vector} poison, {kind} {x}, i64 0")
    zeros = f"<{lanes} x i32> zeroinitializer"
    return f.emit(f"shufflevector {vector} {first}, {vector} poison, {zeros}")


def _shuffle(f: Flow, vector: str, a: str, b: str, picks: Sequence[int]) -> str:
    numbers = ", ".join(f"i32 {p}" for p in picks)
    return f.emit(f"shufflevector {vector} {a}, {vector} {b}, <{len(picks)} x i32> <{numbers}>")
