"""The words of draws: Philox4x64-10 on vectors (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), as functions that kernels call.

Each is a module of its own, as most programs call one of them.
"""

from __future__ import annotations

import itertools
from typing import Any

from graphdrop.kept import Single

from .engine import own_module
from .lanes import Lanes

GROUP = 2048  # bits of the 8 blocks that are drawn at once
WORDS = ("seed", "site", "call", "step", "example", "first", "groups")
FIELDS = {"gd_words": WORDS, "gd_mask": (*WORDS, "threshold")}
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # what is added to the key for each round
FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
ROUNDS = 10


def declaration(name: str) -> str:
    return f"declare void @{name}(ptr, {', '.join(['i64'] * len(FIELDS[name]))})"


@Single
def _engine(name: str) -> Any:
    return own_module(name, FUNCTIONS[name], {})


def address(name: str) -> int:
    """Where one of `FUNCTIONS` is."""
    found: int = _engine(name).get_function_address(name)
    return found


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
    return _of_groups("gd_mask", begin, end)


def words_function() -> str:
    """void gd_words(out, seed, site, call, step, example, first block, groups)

    The 32 words of every group.
    """
    end = """  %o = shl i64 %g, 8
  %at = getelementptr i8, ptr %out, i64 %o
  store <32 x i64> {words}, ptr %at, align 8
"""
    return _of_groups("gd_words", "", end)


FUNCTIONS = {"gd_mask": mask_function, "gd_words": words_function}


def product(b: Lanes, x: str, y: str) -> tuple[str, str]:
    """The high and low halves of products of 64 bits, from four products of 32."""
    low32, half = _every(b, 2**32 - 1), _every(b, 32)

    def op(name: str, x: str, y: str) -> str:
        return b.binary(name, "i64", x, y)

    xl, xh, yl, yh = (
        op("and", x, low32),
        op("lshr", x, half),
        op("and", y, low32),
        op("lshr", y, half),
    )
    ll, lh, hl, hh = op("mul", xl, yl), op("mul", xl, yh), op("mul", xh, yl), op("mul", xh, yh)
    # hl may be as large as (2**32-1)**2 and the sum still fits in 64 bits
    middle = op("add", op("add", op("lshr", ll, half), op("and", lh, low32)), hl)
    high = op("add", op("add", hh, op("lshr", lh, half)), op("lshr", middle, half))
    return high, op("or", op("shl", middle, half), op("and", ll, low32))


def _every(b: Lanes, value: int) -> str:
    return b.repeat("i64", str(value - 2**64 if value >= 2**63 else value))


def _words(b: Lanes) -> str:
    """The 32 words of 8 blocks, those of one block side by side; %g is the group."""

    def op(name: str, x: str, y: str) -> str:
        return b.binary(name, "i64", x, y)

    first = b.emit(f"add i64 {b.emit('add i64 %first, 1')}, {b.emit('shl i64 %g, 3')}")
    c0 = op("add", b.splat("i64", first), b.positions())
    c1, c2, c3, k0, k1 = (
        b.splat("i64", f"%{name}") for name in ("call", "step", "example", "seed", "site")
    )
    for i in range(ROUNDS):
        if i:
            k0, k1 = (op("add", k, _every(b, w)) for k, w in zip((k0, k1), WEYL, strict=True))
        (h0, l0), (h1, l1) = (
            product(b, c, _every(b, f)) for c, f in zip((c0, c2), FACTORS, strict=True)
        )
        c0, c1, c2, c3 = op("xor", op("xor", h1, c1), k0), l1, op("xor", op("xor", h0, c3), k1), l0
    # c0[0] c1[0] c2[0] c3[0] c0[1] ...
    pairs = [i for k in range(8) for i in (k, 8 + k)]
    left, right = (_shuffled(b, 8, x, y, pairs) for x, y in ((c0, c1), (c2, c3)))
    order = [i for k in range(8) for i in (2 * k, 2 * k + 1, 16 + 2 * k, 17 + 2 * k)]
    return _shuffled(b, 16, left, right, order)


def _shuffled(b: Lanes, width: int, x: str, y: str, order: list[int]) -> str:
    whole, picks = f"<{width} x i64>", ", ".join(f"i32 {i}" for i in order)
    return b.emit(f"shufflevector {whole} {x}, {whole} {y}, <{len(order)} x i32> <{picks}>")


def _of_groups(name: str, begin: str, end: str) -> str:
    """A function that walks groups; `end` is what is done with the words of one, {words}."""
    b = Lanes(8, {}, itertools.count())
    words = _words(b)
    body = "\n".join(b.lines)
    given = ", ".join(f"i64 %{field}" for field in FIELDS[name])
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
