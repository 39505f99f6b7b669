"""Draws inside kernels: the lanes of a window of elements, drawn when the first of them is met.

A window is a few kilobytes on the stack at most, so neither masks nor words reach memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.ops import random as draws
from graphdrop.replay import operand
from graphdrop.schedule.fuse import WINDOW as ROW

from . import functions
from .engine import compile_module
from .lanes import Lanes, literal, scalar_type
from .module import Code, Module
from .scalars import converted

GROUP = 2048  # bits of the 8 blocks that are drawn at once
WORD_FIELDS = ("seed", "site", "call", "step", "example", "first", "groups")
MASK_FIELDS = (*WORD_FIELDS, "threshold")
NUMBERS = (draws.uniform, draws.normal, draws.bernoulli, draws.randint)


class Window(ABC):
    """The lanes of one draw, for kernels that walk its elements in C order.

    bits   of the lane that an element has
    room   how many elements there are lanes for, a multiple of a group's
    key    the address of the stream's seed and the call's number
    total  how many elements the draw has
    """

    def __init__(
        self, code: Code, bits: int, room: int, nbytes: int, site: int, training: str, key: str,
        step: str, total: str,
    ) -> None:  # fmt: skip
        self.code, self.room, self.total = code, room, total
        self.site, self.training, self.key, self.step = site, training, key, step
        self.group, self.shift = GROUP // bits, (256 // bits).bit_length() - 1
        self.memory = code.once(f"alloca [{nbytes} x i8], align 64", "lanes")
        self.begin, self.end = (code.once("alloca i64", "window") for _ in range(2))
        for place in (self.begin, self.end):
            code.entry().append(f"  store i64 0, ptr {place}")

    @abstractmethod
    def _draw(self, given: str, groups: str) -> None:
        """The call that fills the memory; `given` are the words' first arguments."""

    def fill(self, flat: str, count: str) -> None:
        """Make the window hold the elements from `flat` on."""
        code = self.code
        stop = code.add(flat, count)
        begin, end = (code.emit(f"load i64, ptr {p}") for p in (self.begin, self.end))
        missing = code.emit(
            f"or i1 {code.holds('slt', flat, begin)}, {code.holds('sgt', stop, end)}"
        )
        with code.when(missing):
            first = code.number("and", flat, -self.group)
            wanted = code.smaller(code.number("sub", self.total, first), self.room)
            groups = code.number("udiv", code.add(wanted, self.group - 1), self.group)
            code.store("i64", first, self.begin)
            code.store("i64", code.add(first, code.mul(groups, self.group)), self.end)
            block = code.number("lshr", first, self.shift)
            seed = code.load("i64", self.key)
            call = code.load("i64", code.at("i64", self.key, 1))
            site = self.site - 2**64 if self.site >= 2**63 else self.site
            self._draw(
                f"ptr {self.memory}, i64 {seed}, i64 {site}, i64 {call}, i64 {self.step}, i64 0, "
                f"i64 {block}",
                groups,
            )
        self.at = code.number("sub", flat, code.emit(f"load i64, ptr {self.begin}"))


class Mask(Window):
    """Bits: whether an element's 16-bit lane is at least the threshold."""

    ROOM = 4096

    def __init__(self, code: Code, module: Module, threshold: str, *which: Any) -> None:
        # one byte more than a whole load reads
        super().__init__(code, 16, self.ROOM, self.ROOM // 8 + 8, *which)
        self.threshold = threshold
        _declare(module, "gd_mask", MASK_FIELDS)

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

    def __init__(self, code: Code, module: Module, bits: int, *which: Any) -> None:
        self.kind = f"i{bits}"
        room = ROW + GROUP // bits
        # the last load may read a vector's width more
        super().__init__(code, bits, room, (room + 32) * bits // 8, *which)
        _declare(module, "gd_words", WORD_FIELDS)

    def _draw(self, given: str, groups: str) -> None:
        some = self.code.choose(self.training, "i64", groups, 0)
        self.code.do(f"call void @gd_words({given}, i64 {some})")

    def lanes(self, b: Lanes, j: str) -> str:
        """The lanes of the elements from j on."""
        at = b.emit(f"add i64 {self.at}, {j}")
        address = b.emit(f"getelementptr {self.kind}, ptr {self.memory}, i64 {at}")
        size = int(self.kind[1:]) // 8
        return b.emit(f"load {b.type(self.kind)}, ptr {address}, align {size}")


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
    return b.binary("add", "i64", low, b.select(whole, "i64", lanes, _high_product(b, lanes, span)))


def _high_product(b: Lanes, x: str, y: str) -> str:
    """The high halves of products of 64 bits, from four products of 32."""
    low32 = b.repeat("i64", str(2**32 - 1))

    def op(name: str, x: str, y: str) -> str:
        return b.binary(name, "i64", x, y)

    def up(x: str) -> str:
        return op("lshr", x, b.repeat("i64", "32"))

    xl, xh, yl, yh = op("and", x, low32), up(x), op("and", y, low32), up(y)
    ll, lh, hl, hh = op("mul", xl, yl), op("mul", xl, yh), op("mul", xh, yl), op("mul", xh, yh)
    middle = op("add", op("add", up(ll), op("and", lh, low32)), hl)
    return op("add", op("add", hh, up(lh)), up(middle))


def _as_word(b: Lanes, node: Node, given: Mapping[Node, str]) -> str:
    kind = scalar_type(node.dtype)
    if kind == "i64":
        return given[node]
    return b.convert("sext" if node.dtype.kind == "i" else "zext", kind, "i64", given[node])


def _narrow(b: Lanes, kind: str, word: str) -> str:
    return word if kind == "i64" else b.convert("trunc", "i64", kind, word)


# ---- the words
def _declare(module: Module, name: str, fields: tuple[str, ...]) -> None:
    module.needs[f"declare void @{name}(ptr, {', '.join(['i64'] * len(fields))})"] = None


@cache
def _engine(name: str) -> Any:
    return compile_module(FUNCTIONS[name](), {})


def symbols(text: str) -> dict[str, int]:
    """The addresses of the functions below that a module's text calls."""
    return {
        name: _engine(name).get_function_address(name) for name in FUNCTIONS if f"@{name}(" in text
    }


def mask_function() -> str:
    """void gd_mask(out, seed, site, call, step, example, first block, groups, threshold)

    128 bits for every group: bit i is whether the i-th 16-bit lane is at least the threshold.
    """
    every16 = "shufflevector <128 x i16> %l1, <128 x i16> poison, <128 x i32> zeroinitializer"
    begin = f"""  %small = call i64 @llvm.umin.i64(i64 %threshold, i64 65535)
  %l0 = trunc i64 %small to i16
  %l1 = insertelement <128 x i16> poison, i16 %l0, i64 0
  %least = {every16}
  %none = icmp ugt i64 %threshold, 65535
"""
    end = """  %lanes = bitcast <32 x i64> {words} to <128 x i16>
  %kept = icmp uge <128 x i16> %lanes, %least
  %bits = bitcast <128 x i1> %kept to i128
  %found = select i1 %none, i128 0, i128 %bits
  %o = shl i64 %g, 4
  %at = getelementptr i8, ptr %out, i64 %o
  store i128 %found, ptr %at, align 1
"""
    return _of_groups("gd_mask", MASK_FIELDS, begin, end)


def words_function() -> str:
    """void gd_words(out, seed, site, call, step, example, first block, groups)

    The 32 words of every group.
    """
    end = """  %o = shl i64 %g, 8
  %at = getelementptr i8, ptr %out, i64 %o
  store <32 x i64> {words}, ptr %at, align 8
"""
    return _of_groups("gd_words", WORD_FIELDS, "", end)


# a module for each, as most programs call one of them
FUNCTIONS = {"gd_mask": mask_function, "gd_words": words_function}


def _of_groups(name: str, fields: tuple[str, ...], begin: str, end: str) -> str:
    """A function that walks groups of 8 blocks of Philox4x64-10 (Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011); `end` is done with the 32 words of each, {words}.
    """
    wide = "<8 x i64>"
    lines: list[str] = []
    count = 0

    def emit(text: str) -> str:
        nonlocal count
        count += 1
        lines.append(f"  %p{count} = {text}")
        return f"%p{count}"

    def every(value: int) -> str:
        signed = value - 2**64 if value >= 2**63 else value
        return "<" + ", ".join([f"i64 {signed}"] * 8) + ">"

    def op(name: str, a: str, b: str) -> str:
        return emit(f"{name} {wide} {a}, {b}")

    low32 = every(2**32 - 1)

    def product(x: str, m: int) -> tuple[str, str]:
        """The high and low halves of x * m, from four products of 32 bits."""
        xl, xh = op("and", x, low32), op("lshr", x, every(32))
        ml, mh = every(m & (2**32 - 1)), every(m >> 32)
        ll, lh, hl, hh = op("mul", xl, ml), op("mul", xl, mh), op("mul", xh, ml), op("mul", xh, mh)
        middle = op("add", op("add", op("lshr", ll, every(32)), op("and", lh, low32)), hl)
        # hl may be as large as (2**32-1)**2 and the sum still fits in 64 bits
        high = op("add", op("add", hh, op("lshr", lh, every(32))), op("lshr", middle, every(32)))
        low = op("or", op("shl", middle, every(32)), op("and", ll, low32))
        return high, low

    def splat(name: str) -> str:
        first = emit(f"insertelement {wide} poison, i64 {name}, i64 0")
        return emit(f"shufflevector {wide} {first}, {wide} poison, <8 x i32> zeroinitializer")

    block = emit("add i64 %first, 1")
    shift = emit("shl i64 %g, 3")
    block = emit(f"add i64 {block}, {shift}")
    c0 = op("add", splat(block), "<i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7>")
    c1, c2, c3 = splat("%call"), splat("%step"), splat("%example")
    k0, k1 = splat("%seed"), splat("%site")
    for i in range(10):
        if i:
            k0 = op("add", k0, every(0x9E3779B97F4A7C15))
            k1 = op("add", k1, every(0xBB67AE8584CAA73B))
        h0, l0 = product(c0, 0xD2E7470EE14C6C93)
        h1, l1 = product(c2, 0xCA5A826395121157)
        c0, c1, c2, c3 = op("xor", op("xor", h1, c1), k0), l1, op("xor", op("xor", h0, c3), k1), l0
    # words of one block side by side: c0[0] c1[0] c2[0] c3[0] c0[1] ...
    a = emit(f"shufflevector {wide} {c0}, {wide} {c1}, <16 x i32> <" + ", ".join(
        f"i32 {i}" for k in range(8) for i in (k, 8 + k)) + ">")  # fmt: skip
    b = emit(f"shufflevector {wide} {c2}, {wide} {c3}, <16 x i32> <" + ", ".join(
        f"i32 {i}" for k in range(8) for i in (k, 8 + k)) + ">")  # fmt: skip
    order = [i for k in range(8) for i in (2 * k, 2 * k + 1, 16 + 2 * k, 17 + 2 * k)]
    words = emit(f"shufflevector <16 x i64> {a}, <16 x i64> {b}, <32 x i32> <" + ", ".join(
        f"i32 {i}" for i in order) + ">")  # fmt: skip
    body = "\n".join(lines)
    given = ", ".join(f"i64 %{field}" for field in fields)
    return f"""define void @{name}(ptr %out, {given}) {{
entry:
{begin}  br label %groups.check
groups.check:
  %g = phi i64 [ 0, %entry ], [ %g.next, %group ]
  %more = icmp ult i64 %g, %groups
  br i1 %more, label %group, label %done
group:
{body}
{end.format(words=words)}  %g.next = add i64 %g, 1
  br label %groups.check
done:
  ret void
}}"""
