"""Draws inside kernels: the lanes of a window of elements, drawn when the first of them is met.

A window is half a kilobyte on the stack for a mask and 17 elsewhere at most for words, so that both
stay in the nearest cache.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.ops import random as draws
from graphdrop.replay import operand
from graphdrop.schedule.fuse import WINDOW as ROW

from . import functions
from .lanes import Lanes, literal, scalar_type
from .module import Code
from .philox import GROUP, declaration, product
from .scalars import converted

NUMBERS = (draws.uniform, draws.normal, draws.bernoulli, draws.randint)


class Window(ABC):
    """The lanes of one draw, for kernels that walk its elements in C order.

    bits    of the lane that an element has
    room    how many elements there are lanes for, a multiple of a group's
    memory  the address of the window
    key     the address of the stream's seed and the call's number
    total   how many elements the draw has, or each of its rows
    row     the number that the row at hand has; None if elements are counted from the first of all
    """

    def __init__(
        self, code: Code, bits: int, room: int, memory: str, site: int, training: str, key: str,
        step: str, total: str, row: str | None,
    ) -> None:  # fmt: skip
        self.code, self.room, self.total, self.row = code, room, total, row
        self.site, self.training, self.key, self.step = site, training, key, step
        self.group, self.shift = GROUP // bits, (256 // bits).bit_length() - 1
        self.memory = memory
        self.begin, self.end, self.held = (code.once("alloca i64", "window") for _ in range(3))
        for place in (self.begin, self.end, self.held):  # no row is number 0
            code.entry().append(f"  store i64 0, ptr {place}")

    @abstractmethod
    def _draw(self, given: str, groups: str) -> None:
        """The call that fills the memory; `given` are the words' first arguments."""

    def fill(self, flat: str, count: str) -> None:
        """Make the window hold the elements from `flat` on, which are of one row."""
        code = self.code
        if self.row is not None:
            flat = code.number("urem", flat, self.total)
        stop = code.add(flat, count)
        begin, end = (code.emit(f"load i64, ptr {p}") for p in (self.begin, self.end))
        missing = code.emit(
            f"or i1 {code.holds('slt', flat, begin)}, {code.holds('sgt', stop, end)}"
        )
        if self.row is not None:
            other = code.holds("ne", self.row, code.load("i64", self.held))
            missing = code.emit(f"or i1 {missing}, {other}")
        with code.when(missing):
            first = code.number("and", flat, -self.group)
            wanted = code.smaller(code.number("sub", self.total, first), self.room)
            groups = code.number("udiv", code.add(wanted, self.group - 1), self.group)
            code.store("i64", first, self.begin)
            if self.row is not None:
                code.store("i64", self.row, self.held)
            code.store("i64", code.add(first, code.mul(groups, self.group)), self.end)
            block = code.number("lshr", first, self.shift)
            seed = code.load("i64", self.key)
            call = code.load("i64", code.at("i64", self.key, 1))
            site = self.site - 2**64 if self.site >= 2**63 else self.site
            self._draw(
                f"ptr {self.memory}, i64 {seed}, i64 {site}, i64 {call}, i64 {self.step}, "
                f"i64 {self.row or 0}, i64 {block}",
                groups,
            )
        self.at = code.number("sub", flat, code.emit(f"load i64, ptr {self.begin}"))


class Mask(Window):
    """Bits: whether an element's 16-bit lane is at least the threshold."""

    ROOM = 4096

    def __init__(self, code: Code, threshold: str, *which: Any) -> None:
        # one byte more than a whole load reads
        memory = code.once(f"alloca [{self.ROOM // 8 + 8} x i8], align 64", "bits")
        super().__init__(code, 16, self.ROOM, memory, *which)
        self.threshold = threshold
        code.module.needs[declaration("gd_mask")] = None

    def _draw(self, given: str, groups: str) -> None:
        # while not training all are kept: lanes are at least 0
        least = self.code.choose(self.training, "i64", self.threshold, 0)
        self.code.do(f"call void @gd_mask({given}, i64 {groups}, i64 {least})")

    def bits(self, b: Lanes, j: str) -> str:
        """Which of the elements from j on are kept."""
        at = b.emit(f"add i64 {self.at}, {j}")
        byte = b.emit(f"lshr i64 {at}, 3")
        address = b.emit(f"getelementptr i8, ptr {self.memory}, i64 {byte}")
        word = b.emit(f"load i64, ptr {address}, align 1")  # 7 bits more than 32 lanes
        shift = b.emit(f"and i64 {at}, 7")
        moved = b.emit(f"lshr i64 {word}, {shift}")
        if b.width == 1:
            return b.emit(f"trunc i64 {moved} to i1")
        few = b.emit(f"trunc i64 {moved} to i{b.width}")
        return b.emit(f"bitcast i{b.width} {few} to {b.type('i1')}")

    def scale(self, b: Lanes, kind: str) -> str:
        """65536 / (65536 - threshold) as a register; 1 while not training, 0 if none is kept."""
        t = b.emit(f"sitofp i64 {self.threshold} to double")
        kept = b.emit(f"fsub double 65536.0, {t}")
        ratio = b.emit(f"fdiv double 65536.0, {kept}")
        none = b.emit(f"fcmp ole double {kept}, 0.0")
        some = b.emit(f"select i1 {none}, double 0.0, double {ratio}")
        found = b.emit(f"select i1 {self.training}, double {some}, double 1.0")
        return found if kind == "double" else b.emit(f"fptrunc double {found} to {kind}")


class Words(Window):
    """Lanes of 32 or 64 bits; nothing is drawn while not training."""

    def __init__(self, code: Code, bits: int, memory: str, *which: Any) -> None:
        self.kind = f"i{bits}"
        super().__init__(code, bits, _room(bits), memory, *which)
        code.module.needs[declaration("gd_words")] = None

    @staticmethod
    def nbytes(bits: int) -> int:
        """What its memory must have: the last load may read a vector's width more."""
        return (_room(bits) + 32) * bits // 8

    def _draw(self, given: str, groups: str) -> None:
        some = self.code.choose(self.training, "i64", groups, 0)
        self.code.do(f"call void @gd_words({given}, i64 {some})")

    def lanes(self, b: Lanes, j: str) -> str:
        """The lanes of the elements from j on."""
        at = b.emit(f"add i64 {self.at}, {j}")
        address = b.emit(f"getelementptr {self.kind}, ptr {self.memory}, i64 {at}")
        size = int(self.kind[1:]) // 8
        return b.emit(f"load {b.type(self.kind)}, ptr {address}, align {size}")


def _room(bits: int) -> int:
    return ROW + GROUP // bits


def lane_bits(node: Node) -> int:
    """How many bits of its words an element of a draw of numbers has."""
    if node.op is draws.bernoulli or (node.op is draws.uniform and node.dtype != np.float64):
        return 32
    return 64


# ---- from lanes to numbers
def number(b: Lanes, node: Node, lanes: str, training: str, given: Mapping[Node, str]) -> str:
    """The value of a draw on its lanes; at rest that of its docstring.

    training  one bit for all
    given     operands' values
    """
    kind, zero = scalar_type(node.dtype), b.constant(node.dtype, 0)
    if node.op is draws.uniform:
        drawn = _uniform(b, node.dtype, lanes)
    elif node.op is draws.normal:
        drawn = converted(b, np.dtype(np.float64), node.dtype, _normal(b, lanes))
    elif node.op is draws.bernoulli:
        drawn = _bernoulli(b, lanes, given[operand(node, "p")])
    else:
        low, last = (_as_word(b, operand(node, n), given) for n in ("low", "last"))
        drawn, zero = (_narrow(b, kind, x) for x in (_integer(b, low, last, lanes), low))
    whole = b.type(kind)
    return b.emit(f"select i1 {training}, {whole} {drawn}, {whole} {zero}")


def _uniform(b: Lanes, dtype: np.dtype[Any], lanes: str) -> str:
    shift, word, wide = {
        "float64": (11, "i64", np.float64), "float32": (8, "i32", np.float32),
        "float16": (21, "i32", np.float32),
    }[dtype.name]  # fmt: skip
    digits = int(word[1:]) - shift
    held = np.dtype(wide)
    top = b.binary("lshr", word, lanes, b.repeat(word, str(shift)))
    drawn = b.convert("sitofp", word, scalar_type(held), top)
    drawn = b.binary("fmul", scalar_type(held), drawn, b.constant(held, 2.0**-digits))
    return converted(b, held, dtype, drawn)


def _normal(b: Lanes, lanes: str) -> str:
    """Box and Muller's, as doubles."""

    def half(word: str) -> str:
        return b.convert("uitofp", "i32", "double", b.convert("trunc", "i64", "i32", word))

    def times(x: str, factor: float) -> str:
        return b.binary("fmul", "double", x, b.repeat("double", literal(np.dtype("f8"), factor)))

    high = half(b.binary("lshr", "i64", lanes, b.repeat("i64", "32")))
    high = b.binary("fadd", "double", high, b.repeat("double", "0.5"))
    logs = functions.call(b, "log", "double", times(high, 2.0**-32))
    radius = b.intrinsic("sqrt", "double", times(logs, -2.0))
    angle = times(times(half(lanes), 2.0**-32), 2.0 * math.pi)
    return b.binary("fmul", "double", radius, functions.call(b, "cos", "double", angle))


def _bernoulli(b: Lanes, lanes: str, p: str) -> str:
    scaled = b.binary("fmul", "double", p, b.repeat("double", literal(np.dtype("f8"), 2.0**32)))
    weight = b.convert("fptoui", "double", "i64", b.intrinsic("rint", "double", scaled))
    return b.emit(f"icmp ult {b.type('i64')} {b.convert('zext', 'i32', 'i64', lanes)}, {weight}")


def _integer(b: Lanes, low: str, last: str, lanes: str) -> str:
    """From low to last; the span is 0 where it is all of 2**64."""
    one, zero = b.repeat("i64", "1"), b.repeat("i64", "0")
    span = b.binary("add", "i64", b.binary("sub", "i64", last, low), one)
    whole = b.emit(f"icmp eq {b.type('i64')} {span}, {zero}")
    return b.binary("add", "i64", low, b.select(whole, "i64", lanes, product(b, lanes, span)[0]))


def _as_word(b: Lanes, node: Node, given: Mapping[Node, str]) -> str:
    kind = scalar_type(node.dtype)
    if kind == "i64":
        return given[node]
    return b.convert("sext" if node.dtype.kind == "i" else "zext", kind, "i64", given[node])


def _narrow(b: Lanes, kind: str, word: str) -> str:
    return word if kind == "i64" else b.convert("trunc", "i64", kind, word)
