"""What every elementwise operation is in LLVM: op -> a function that prints it.

A printer gets the lanes, the node and the operands' registers, and returns the result's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from graphdrop.graph import Node
from graphdrop.op import Op
from graphdrop.ops import elementwise as ops
from graphdrop.ops import losses
from graphdrop.substitute import slot
from graphdrop.types import TensorType

from . import functions
from .lanes import Lanes, scalar_type

Printer: TypeAlias = Callable[..., str]
_F32 = np.dtype(np.float32)
_AS_FLOAT32 = slot(0, TensorType(_F32, ()))  # stands for a node of that dtype


def _kind(node: Node) -> str:
    return scalar_type(node.inputs[0].dtype if node.inputs else node.dtype)


def arithmetic(integers: str, floats: str, bools: str = "") -> Printer:
    """A single instruction, by the kind of the operands."""

    def printer(b: Lanes, node: Node, x: str, y: str) -> str:
        dtype = node.inputs[0].dtype
        name = floats if dtype.kind == "f" else bools if dtype.kind == "b" else integers
        return b.binary(name, scalar_type(dtype), x, y)

    return printer


def compare(word: str, floats: str) -> Printer:
    """A comparison; NaN compares false but for "une"."""

    def printer(b: Lanes, node: Node, x: str, y: str) -> str:
        dtype = node.inputs[0].dtype
        if dtype.kind == "f":
            return b.emit(f"fcmp {floats} {b.of(dtype)} {x}, {y}")
        sign = "" if word in ("eq", "ne") else "s" if dtype.kind == "i" else "u"
        return b.emit(f"icmp {sign}{word} {b.of(dtype)} {x}, {y}")

    return printer


def intrinsic(name: str) -> Printer:
    def printer(b: Lanes, node: Node, *values: str) -> str:
        return b.intrinsic(name, _kind(node), *values)

    return printer


def math(name: str) -> Printer:
    """A function of the vector library; float16 goes through float32."""

    def printer(b: Lanes, node: Node, *values: str) -> str:
        return function(b, name, node.dtype, *values)

    return in_float32(printer)


def in_float32(inner: Callable[..., str]) -> Printer:
    """float16 computed as float32; `inner` gets a node of the dtype that it computes in."""

    def printer(b: Lanes, node: Node, *values: str) -> str:
        if node.dtype != np.float16:
            return inner(b, node, *values)
        wide = [b.convert("fpext", "half", "float", v) for v in values]
        return b.convert("fptrunc", "float", "half", inner(b, _AS_FLOAT32, *wide))

    return printer


def function(b: Lanes, name: str, dtype: np.dtype[Any], *values: str) -> str:
    """A call of a function of the vector library."""
    return functions.call(b, name, scalar_type(dtype), *values)


def extreme(floats: str, integers: str) -> Printer:
    """maximum or minimum; NaN if either is."""

    def printer(b: Lanes, node: Node, x: str, y: str) -> str:
        dtype = node.dtype
        if dtype.kind == "f":
            return b.intrinsic(floats, scalar_type(dtype), x, y)
        if dtype.kind == "b":
            return b.binary("or" if floats == "maximum" else "and", "i1", x, y)
        sign = "s" if dtype.kind == "i" else "u"
        return b.intrinsic(sign + integers, scalar_type(dtype), x, y)

    return printer


def neg(b: Lanes, node: Node, x: str) -> str:
    if node.dtype.kind == "f":
        return b.emit(f"fneg {b.of(node.dtype)} {x}")
    return b.binary("sub", _kind(node), b.constant(node.dtype, 0), x)


def absolute(b: Lanes, node: Node, x: str) -> str:
    if node.dtype.kind == "f":
        return b.intrinsic("fabs", _kind(node), x)
    if node.dtype.kind in "bu":
        return x
    opposite = b.binary("sub", _kind(node), b.constant(node.dtype, 0), x)
    negative = b.emit(f"icmp slt {b.of(node.dtype)} {x}, {b.constant(node.dtype, 0)}")
    return b.select(negative, _kind(node), opposite, x)


def square(b: Lanes, node: Node, x: str) -> str:
    return b.binary("fmul" if node.dtype.kind == "f" else "mul", _kind(node), x, x)


def relu(b: Lanes, node: Node, x: str) -> str:
    # x itself where it is NaN
    zero = b.constant(node.dtype, 0)
    if node.dtype.kind != "f":
        return extreme("maximum", "max")(b, node, x, zero)
    negative = b.emit(f"fcmp ole {b.of(node.dtype)} {x}, {zero}")
    return b.select(negative, _kind(node), zero, x)


def rsqrt(b: Lanes, node: Node, x: str) -> str:
    root = b.intrinsic("sqrt", _kind(node), x)
    return b.binary("fdiv", _kind(node), b.constant(node.dtype, 1), root)


def where(b: Lanes, node: Node, condition: str, x: str, y: str) -> str:
    return b.select(condition, scalar_type(node.dtype), x, y)


def same(b: Lanes, node: Node, x: str) -> str:
    return x


def invert(b: Lanes, node: Node, x: str) -> str:
    ones = b.repeat(_kind(node), "true" if node.dtype.kind == "b" else "-1")
    return b.binary("xor", _kind(node), x, ones)


def cast(b: Lanes, node: Node, x: str) -> str:
    """NumPy's astype: to bool by comparing with 0, floats to integers by truncation."""
    return converted(b, node.inputs[0].dtype, node.dtype, x)


def converted(b: Lanes, old: np.dtype[Any], new: np.dtype[Any], x: str) -> str:
    a, c = scalar_type(old), scalar_type(new)
    if np.float16 in (old, new) and old != new and np.float32 not in (old, new):
        # machines convert float16 from and to float32 only; but for doubles, that rounds once
        if old == np.float64:
            return b.convert("fptrunc", "float", "half", _odd(b, x))
        return converted(b, _F32, new, converted(b, old, _F32, x))
    if new.kind == "b":
        zero = b.constant(old, 0)
        word = "fcmp une" if old.kind == "f" else "icmp ne"
        return b.emit(f"{word} {b.of(old)} {x}, {zero}")
    if old.kind == "f" and new.kind == "f":
        if old.itemsize == new.itemsize:
            return x
        return b.convert("fpext" if new.itemsize > old.itemsize else "fptrunc", a, c, x)
    if old.kind == "f":
        # what is out of range is undefined in NumPy; here it is the nearest integer
        short = {"float": "f32", "double": "f64", "half": "f16"}[a]
        tail = (short, c) if b.width == 1 else (f"v{b.width}{short}", f"v{b.width}{c}")
        sign = "s" if new.kind == "i" else "u"
        name = f"llvm.fpto{sign}i.sat.{tail[1]}.{tail[0]}"
        return b.call(name, b.type(c), (b.type(a), x))
    if new.kind == "f":
        return b.convert("sitofp" if old.kind == "i" else "uitofp", a, c, x)
    if old.itemsize == new.itemsize and old.kind != "b":
        return x
    if old.kind == "b" or new.itemsize > old.itemsize:
        return b.convert("sext" if old.kind == "i" else "zext", a, c, x)
    return b.convert("trunc", a, c, x)


def _odd(b: Lanes, x: str) -> str:
    """A double as a float that is odd where it is not exact, so that rounding it again is right."""
    near = b.convert("fptrunc", "double", "float", x)
    back = b.convert("fpext", "float", "double", near)
    bits = b.emit(f"bitcast {b.type('float')} {near} to {b.type('i32')}")
    one = b.repeat("i32", "1")
    even = b.emit(f"icmp eq {b.type('i32')} {b.binary('and', 'i32', bits, one)}, "
                  f"{b.repeat('i32', '0')}")  # fmt: skip
    other = b.emit(f"fcmp one {b.type('double')} {back}, {x}")
    sizes = [b.intrinsic("fabs", "double", v) for v in (back, x)]
    above = b.emit(f"fcmp ogt {b.type('double')} {sizes[0]}, {sizes[1]}")
    step = b.select(above, "i32", b.repeat("i32", "-1"), one)
    moved = b.binary("add", "i32", bits, step)
    odd = b.select(b.binary("and", "i1", even, other), "i32", moved, bits)
    return b.emit(f"bitcast {b.type('i32')} {odd} to {b.type('float')}")


def sign(b: Lanes, node: Node, x: str) -> str:
    kind, dtype, whole = _kind(node), node.dtype, b.of(node.dtype)
    zero = b.constant(dtype, 0)
    if dtype.kind == "u":
        return b.select(b.emit(f"icmp ne {whole} {x}, {zero}"), kind, b.constant(dtype, 1), zero)
    above, below = ("fcmp ogt", "fcmp olt") if dtype.kind == "f" else ("icmp sgt", "icmp slt")
    # what is neither above nor below 0 is 0 or NaN: itself, but for -0.0
    rest = x if dtype.kind != "f" else b.binary("fadd", kind, x, zero)
    low = b.select(b.emit(f"{below} {whole} {x}, {zero}"), kind, b.constant(dtype, -1), rest)
    return b.select(b.emit(f"{above} {whole} {x}, {zero}"), kind, b.constant(dtype, 1), low)


def rounding(name: str) -> Printer:
    def printer(b: Lanes, node: Node, x: str) -> str:
        return b.intrinsic(name, _kind(node), x) if node.dtype.kind == "f" else x

    return printer


def classify(which: str) -> Printer:
    """isnan, isinf, isfinite; of integers too."""

    def printer(b: Lanes, node: Node, x: str) -> str:
        dtype = node.inputs[0].dtype
        if dtype.kind != "f":
            return b.repeat("i1", "true" if which == "isfinite" else "false")
        if which == "isnan":
            return b.emit(f"fcmp uno {b.of(dtype)} {x}, {x}")
        size = b.intrinsic("fabs", scalar_type(dtype), x)
        word = "oeq" if which == "isinf" else "olt"
        return b.emit(f"fcmp {word} {b.of(dtype)} {size}, {b.constant(dtype, np.inf)}")

    return printer


def _negated_size(b: Lanes, dtype: np.dtype[Any], x: str) -> str:
    return b.emit(f"fneg {b.of(dtype)} {b.intrinsic('fabs', scalar_type(dtype), x)}")


def softplus(b: Lanes, node: Node, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|))."""
    dtype, kind = node.dtype, _kind(node)
    tail = function(b, "log1p", dtype, function(b, "exp", dtype, _negated_size(b, dtype, x)))
    return b.binary("fadd", kind, relu(b, node, x), tail)


def sigmoid_cross_entropy(b: Lanes, node: Node, x: str, t: str) -> str:
    """max(x, 0) - x t + log1p(exp(-|x|))."""
    dtype, kind = node.dtype, _kind(node)
    tail = function(b, "log1p", dtype, function(b, "exp", dtype, _negated_size(b, dtype, x)))
    head = b.binary("fsub", kind, relu(b, node, x), b.binary("fmul", kind, x, t))
    return b.binary("fadd", kind, head, tail)


def logaddexp(b: Lanes, node: Node, x: str, y: str) -> str:
    """max + log1p(exp(min - max)); the larger one where the difference is no number."""
    dtype, kind = node.dtype, scalar_type(node.dtype)
    high, low = b.intrinsic("maximum", kind, x, y), b.intrinsic("minimum", kind, x, y)
    apart = b.binary("fsub", kind, low, high)
    tail = function(b, "log1p", dtype, function(b, "exp", dtype, apart))
    equal = b.emit(f"fcmp oeq {b.of(dtype)} {x}, {y}")  # both may be infinite
    tail = b.select(equal, kind, b.constant(dtype, np.log(2)), tail)
    return b.binary("fadd", kind, high, tail)


def lgamma(b: Lanes, node: Node, x: str) -> str:
    """log |Gamma(x)|; as SciPy has it, -inf at -inf and inf where 1 / x overflows."""
    kind, whole, dtype = scalar_type(node.dtype), b.of(node.dtype), node.dtype
    found = function(b, "lgamma", dtype, x)
    lowest = b.emit(f"fcmp oeq {whole} {x}, {b.constant(dtype, -np.inf)}")
    found = b.select(lowest, kind, x, found)
    if dtype != np.float64:
        return found
    tiny = b.intrinsic("fabs", kind, b.binary("fdiv", kind, b.constant(dtype, 1), x))
    over = b.emit(f"fcmp oeq {whole} {tiny}, {b.constant(dtype, np.inf)}")
    return b.select(over, kind, tiny, found)


def division(remainder: bool) -> Printer:
    """Python's // and %, for integers (0 where the divisor is 0) and floats."""

    def printer(b: Lanes, node: Node, x: str, y: str) -> str:
        dtype = node.dtype
        if dtype.kind == "f":
            return in_float32(floats)(b, node, x, y)
        kind, whole = scalar_type(dtype), b.of(dtype)
        zero, one = b.constant(dtype, 0), b.constant(dtype, 1)
        none = b.emit(f"icmp eq {whole} {y}, {zero}")
        sign = "s" if dtype.kind == "i" else "u"
        bad = none
        if sign == "s":  # the lowest number by -1 has no quotient
            lowest = b.emit(f"icmp eq {whole} {x}, {b.constant(dtype, np.iinfo(dtype).min)}")
            minus = b.emit(f"icmp eq {whole} {y}, {b.constant(dtype, -1)}")
            bad = b.binary("or", "i1", none, b.binary("and", "i1", lowest, minus))
        safe = b.select(bad, kind, one, y)
        quotient = b.binary(f"{sign}div", kind, x, safe)
        rest = b.binary("sub", kind, x, b.binary("mul", kind, quotient, safe))
        if sign == "s":
            # the remainder has the divisor's sign
            apart = b.emit(f"icmp slt {whole} {b.binary('xor', kind, rest, safe)}, {zero}")
            some = b.emit(f"icmp ne {whole} {rest}, {zero}")
            wrong = b.binary("and", "i1", apart, some)
            rest = b.binary("add", kind, rest, b.select(wrong, kind, safe, zero))
            lower = b.binary("sub", kind, quotient, one)
            quotient = b.select(wrong, kind, lower, quotient)
        return b.select(none, kind, zero, rest if remainder else quotient)

    def floats(b: Lanes, node: Node, x: str, y: str) -> str:
        dtype, kind, whole = node.dtype, scalar_type(node.dtype), b.of(node.dtype)
        zero = b.constant(dtype, 0)
        rest = b.binary("frem", kind, x, y)
        some = b.emit(f"fcmp une {whole} {rest}, {zero}")
        below, divisor = (b.emit(f"fcmp olt {whole} {v}, {zero}") for v in (rest, y))
        apart = b.binary("and", "i1", some, b.binary("xor", "i1", below, divisor))
        moved = b.select(apart, kind, b.binary("fadd", kind, rest, y), rest)
        if remainder:
            return b.select(some, kind, moved, b.intrinsic("copysign", kind, zero, y))
        ratio = b.binary("fdiv", kind, b.binary("fsub", kind, x, rest), y)
        lower = b.binary("fsub", kind, ratio, b.constant(dtype, 1))
        ratio = b.select(apart, kind, lower, ratio)
        down = b.intrinsic("floor", kind, ratio)
        far = b.emit(
            f"fcmp ogt {whole} {b.binary('fsub', kind, ratio, down)}, {b.constant(dtype, 0.5)}"
        )
        near = b.select(far, kind, b.binary("fadd", kind, down, b.constant(dtype, 1)), down)
        exact = b.binary("fdiv", kind, x, y)
        flat = b.intrinsic("copysign", kind, zero, exact)
        found = b.select(b.emit(f"fcmp une {whole} {ratio}, {zero}"), kind, near, flat)
        return b.select(b.emit(f"fcmp oeq {whole} {y}, {zero}"), kind, exact, found)

    return printer


def power(b: Lanes, node: Node, x: str, y: str) -> str:
    """x ** y; integers by squaring, as NumPy wraps."""
    if node.dtype.kind == "f":
        return math("pow")(b, node, x, y)
    kind, whole = scalar_type(node.dtype), b.of(node.dtype)
    zero, one = b.constant(node.dtype, 0), b.constant(node.dtype, 1)
    total, base, rest = one, x, y
    for _ in range(8 * node.dtype.itemsize):
        odd = b.emit(f"icmp ne {whole} {b.binary('and', kind, rest, one)}, {zero}")
        total = b.select(odd, kind, b.binary("mul", kind, total, base), total)
        base = b.binary("mul", kind, base, base)
        rest = b.binary("lshr", kind, rest, one)
    return total


PRINTERS: dict[Op, Printer] = {
    ops.add: arithmetic("add", "fadd", "or"), ops.sub: arithmetic("sub", "fsub"),
    ops.mul: arithmetic("mul", "fmul", "and"), ops.div: arithmetic("", "fdiv"), ops.neg: neg,
    ops.maximum: extreme("maximum", "max"), ops.minimum: extreme("minimum", "min"),
    ops.abs: absolute, ops.sign: sign, ops.square: square, ops.relu: relu, ops.rsqrt: rsqrt,
    ops.floor: rounding("floor"), ops.ceil: rounding("ceil"), ops.trunc: rounding("trunc"),
    ops._round: rounding("rint"), ops.sqrt: intrinsic("sqrt"),
    ops.equal: compare("eq", "oeq"), ops.not_equal: compare("ne", "une"),
    ops.less: compare("lt", "olt"), ops.less_equal: compare("le", "ole"),
    ops.greater: compare("gt", "ogt"), ops.greater_equal: compare("ge", "oge"),
    ops.isnan: classify("isnan"), ops.isinf: classify("isinf"),
    ops.isfinite: classify("isfinite"), ops.where: where, ops._cast: cast,
    ops.stop_gradient: same, ops.bitwise_and: arithmetic("and", "", "and"),
    ops.bitwise_or: arithmetic("or", "", "or"), ops.bitwise_xor: arithmetic("xor", "", "xor"),
    ops.bitwise_not: invert, ops.logical_and: arithmetic("", "", "and"),
    ops.logical_or: arithmetic("", "", "or"), ops.logical_xor: arithmetic("", "", "xor"),
    ops.logical_not: invert, ops.floordiv: division(False), ops.mod: division(True),
    ops.exp: math("exp"), ops.expm1: math("expm1"), ops.log: math("log"), ops.log1p: math("log1p"),
    ops.log2: math("log2"), ops.log10: math("log10"), ops.sin: math("sin"), ops.cos: math("cos"),
    ops.tan: math("tan"), ops.arcsin: math("asin"), ops.arccos: math("acos"),
    ops.arctan: math("atan"), ops.arctan2: math("atan2"), ops.sinh: math("sinh"),
    ops.cosh: math("cosh"), ops.tanh: math("tanh"), ops.arcsinh: math("asinh"),
    ops.arccosh: math("acosh"), ops.arctanh: math("atanh"), ops.hypot: math("hypot"),
    ops.erf: math("erf"), ops.lgamma: in_float32(lgamma), ops.sigmoid: math("sigmoid"),
    ops.softplus: in_float32(softplus), ops.logaddexp: in_float32(logaddexp), ops.pow: power,
    losses.sigmoid_cross_entropy: in_float32(sigmoid_cross_entropy),
}  # fmt: skip
