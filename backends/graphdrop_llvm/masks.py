"""Masks inside kernels: bits for a window of elements, drawn when the first of them is met.

A window is a few hundred bytes on the stack, so a mask never reaches memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .engine import compile_module
from .lanes import Lanes
from .module import Code, Module

LANES = 128  # 16-bit lanes of the 8 blocks that are drawn at once
WINDOW = 4096  # elements
FIELDS = ("seed", "site", "call", "step", "example", "first", "groups", "threshold")
MASK_DECLARATION = f"declare void @gd_mask(ptr, {', '.join(['i64'] * len(FIELDS))})"


class Window:
    """The bits of one draw, for kernels that walk its elements in C order.

    threshold, training, step   operands, as scalars
    key                         the address of the stream's seed and the call's number
    total                       how many elements the draw has
    """

    def __init__(
        self, code: Code, site: int, threshold: str, training: str, key: str, step: str,
        total: str, module: Module,
    ) -> None:  # fmt: skip
        self.code, self.total = code, total
        self.threshold, self.training, self.step, self.key, self.site = (
            threshold, training, step, key, site,
        )  # fmt: skip
        # one byte more than a whole load reads
        self.bytes = code.once(f"alloca [{WINDOW // 8 + 8} x i8], align 64", "bits")
        self.begin = code.once("alloca i64", "window")
        self.end = code.once("alloca i64", "window")
        code.entry().append(f"  store i64 0, ptr {self.begin}")
        code.entry().append(f"  store i64 0, ptr {self.end}")
        module.needs[MASK_DECLARATION] = None

    def fill(self, flat: str, count: str) -> None:
        """Make the window hold the elements from `flat` on."""
        code = self.code
        tag = code.fresh("d")[1:]
        stop = code.add(flat, count)
        begin, end = (code.emit(f"load i64, ptr {p}") for p in (self.begin, self.end))
        early, late = (
            code.emit(f"icmp slt i64 {flat}, {begin}"),
            code.emit(f"icmp sgt i64 {stop}, {end}"),
        )
        missing = code.emit(f"or i1 {early}, {late}")
        code.do(f"br i1 {missing}, label %{tag}.fill, label %{tag}.full")
        code.label(f"{tag}.fill")
        first = code.emit(f"and i64 {flat}, {-LANES}")
        left = code.emit(f"sub i64 {self.total}, {first}")
        wanted = code.smaller(left, str(WINDOW))
        up = code.emit(f"add i64 {wanted}, {LANES - 1}")
        groups = code.emit(f"lshr i64 {up}, 7")
        reach = code.emit(f"shl i64 {groups}, 7")
        code.do(f"store i64 {first}, ptr {self.begin}")
        code.do(f"store i64 {code.add(first, reach)}, ptr {self.end}")
        block = code.emit(f"lshr i64 {first}, 4")  # 16 lanes a block
        seed = code.emit(f"load i64, ptr {self.key}")
        after = code.emit(f"getelementptr i64, ptr {self.key}, i64 1")
        call = code.emit(f"load i64, ptr {after}")
        site = self.site - 2**64 if self.site >= 2**63 else self.site
        # while not training all are kept: lanes are at least 0
        least = code.emit(f"select i1 {self.training}, i64 {self.threshold}, i64 0")
        code.do(
            f"call void @gd_mask(ptr {self.bytes}, i64 {seed}, i64 {site}, i64 {call}, "
            f"i64 {self.step}, i64 0, i64 {block}, i64 {groups}, i64 {least})"
        )
        code.do(f"br label %{tag}.full")
        code.label(f"{tag}.full")
        begin = code.emit(f"load i64, ptr {self.begin}")
        self.at = code.emit(f"sub i64 {flat}, {begin}")

    def bits(self, b: Lanes, j: str) -> str:
        """Which of the elements from j on are kept."""
        at = b.emit(f"add i64 {self.at}, {j}")
        byte = b.emit(f"lshr i64 {at}, 3")
        address = b.emit(f"getelementptr i8, ptr {self.bytes}, i64 {byte}")
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


@cache
def _engine() -> Any:
    return compile_module(philox(), {})


def symbols(text: str) -> dict[str, int]:
    """The address of the function below, where a module's text calls it."""
    name = "gd_mask"
    return {name: _engine().get_function_address(name)} if f"@{name}(" in text else {}


def philox() -> str:
    """void gd_mask(out, seed, site, call, step, example, first block, groups, threshold).

    128 bits for every group of 8 blocks: bit i is whether the i-th 16-bit lane >= threshold.
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
    lanes = emit(f"bitcast <32 x i64> {words} to <128 x i16>")
    kept = emit(f"icmp uge <128 x i16> {lanes}, %least")
    bits = emit(f"bitcast <128 x i1> {kept} to i128")
    every16 = "shufflevector <128 x i16> %l1, <128 x i16> poison, <128 x i32> zeroinitializer"
    body = "\n".join(lines)
    given = ", ".join(f"i64 %{field}" for field in FIELDS)
    return f"""define void @gd_mask(ptr %out, {given}) {{
entry:
  %small = call i64 @llvm.umin.i64(i64 %threshold, i64 65535)
  %l0 = trunc i64 %small to i16
  %l1 = insertelement <128 x i16> poison, i16 %l0, i64 0
  %least = {every16}
  %none = icmp ugt i64 %threshold, 65535
  br label %groups.check
groups.check:
  %g = phi i64 [ 0, %entry ], [ %g.next, %group ]
  %more = icmp ult i64 %g, %groups
  br i1 %more, label %group, label %done
group:
{body}
  %found = select i1 %none, i128 0, i128 {bits}
  %o = shl i64 %g, 4
  %at = getelementptr i8, ptr %out, i64 %o
  store i128 %found, ptr %at, align 1
  %g.next = add i64 %g, 1
  br label %groups.check
done:
  ret void
}}"""
