"""What every elementwise operation is in CUDA C: op -> an expression in which {0}, {1}, ... are the
operands, {f} is "f" for float and nothing for double, and {T} is the type of the result.

Values of float16 are floats that hold what float16 can; see `expression`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.op import Op
from graphdrop.ops import elementwise as ops
from graphdrop.ops import losses

# dtype -> the type of a value, and of what is in memory
VALUES = {
    "bool": "bool", "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64", "float16": "float",
    "float32": "float", "float64": "double",
}  # fmt: skip
MEMORY = {**VALUES, "bool": "u8", "float16": "u16"}


def same(text: str) -> dict[str, str]:
    return {"f": text, "i": text, "b": text}


def function(name: str) -> dict[str, str]:
    """A function of CUDA's, of one or two floats."""
    return {"f": name + "{f}({0})"}


def comparison(sign: str) -> dict[str, str]:
    return same("{0} " + sign + " {1}")


# op -> kind of its operands ("f", "i" for all integers, "b") -> expression
EXPRESSIONS: dict[Op, dict[str, str]] = {
    ops.add: {"f": "{0} + {1}", "i": "gd_add({0}, {1})", "b": "{0} || {1}"},
    ops.sub: {"f": "{0} - {1}", "i": "gd_sub({0}, {1})"},
    ops.mul: {"f": "{0} * {1}", "i": "gd_mul({0}, {1})", "b": "{0} && {1}"},
    ops.div: {"f": "{0} / {1}"},
    ops.neg: {"f": "-{0}", "i": "gd_sub(({T})0, {0})"},
    ops.maximum: {**same("gd_max({0}, {1})"), "b": "{0} || {1}"},
    ops.minimum: {**same("gd_min({0}, {1})"), "b": "{0} && {1}"},
    ops.abs: {"f": "fabs{f}({0})", "i": "gd_abs({0})", "b": "{0}"},
    ops.sign: {**same("gd_sign({0})"), "b": "{0}"},
    ops.square: {"f": "{0} * {0}", "i": "gd_mul({0}, {0})", "b": "{0}"},
    ops.relu: {**same("gd_relu({0})"), "b": "{0}"},
    ops.rsqrt: {"f": "1 / sqrt{f}({0})"},
    ops.floor: {**function("floor"), "i": "{0}", "b": "{0}"},
    ops.ceil: {**function("ceil"), "i": "{0}", "b": "{0}"},
    ops.trunc: {**function("trunc"), "i": "{0}", "b": "{0}"},
    ops._round: {**function("rint"), "i": "{0}", "b": "{0}"},
    ops.sqrt: function("sqrt"),
    ops.equal: comparison("=="), ops.not_equal: comparison("!="),
    ops.less: comparison("<"), ops.less_equal: comparison("<="),
    ops.greater: comparison(">"), ops.greater_equal: comparison(">="),
    ops.isnan: {"f": "{0} != {0}", "i": "false", "b": "false"},
    ops.isinf: {"f": "fabs{f}({0}) == GD_INF", "i": "false", "b": "false"},
    ops.isfinite: {"f": "fabs{f}({0}) < GD_INF", "i": "true", "b": "true"},
    ops.where: {"b": "{0} ? {1} : {2}"},
    ops.stop_gradient: same("{0}"),
    ops.bitwise_and: {"i": "{0} & {1}", "b": "{0} && {1}"},
    ops.bitwise_or: {"i": "{0} | {1}", "b": "{0} || {1}"},
    ops.bitwise_xor: {"i": "{0} ^ {1}", "b": "{0} != {1}"},
    ops.bitwise_not: {"i": "~{0}", "b": "!{0}"},
    ops.logical_and: {"b": "{0} && {1}"}, ops.logical_or: {"b": "{0} || {1}"},
    ops.logical_xor: {"b": "{0} != {1}"}, ops.logical_not: {"b": "!{0}"},
    ops.floordiv: {"f": "gd_floordiv({0}, {1})", "i": "gd_floordiv({0}, {1})"},
    ops.mod: {"f": "gd_mod({0}, {1})", "i": "gd_mod({0}, {1})"},
    ops.pow: {"f": "pow{f}({0}, {1})", "i": "gd_pow({0}, {1})"},
    ops.exp: function("exp"), ops.expm1: function("expm1"), ops.log: function("log"),
    ops.log1p: function("log1p"), ops.log2: function("log2"), ops.log10: function("log10"),
    ops.sin: function("sin"), ops.cos: function("cos"), ops.tan: function("tan"),
    ops.arcsin: function("asin"), ops.arccos: function("acos"), ops.arctan: function("atan"),
    ops.arctan2: {"f": "atan2{f}({0}, {1})"}, ops.sinh: function("sinh"),
    ops.cosh: function("cosh"), ops.tanh: function("tanh"), ops.arcsinh: function("asinh"),
    ops.arccosh: function("acosh"), ops.arctanh: function("atanh"),
    ops.hypot: {"f": "hypot{f}({0}, {1})"}, ops.erf: function("erf"),
    ops.lgamma: {"f": "gd_lgamma({0})"}, ops.sigmoid: {"f": "gd_sigmoid({0})"},
    ops.softplus: {"f": "gd_softplus({0})"}, ops.logaddexp: {"f": "gd_logaddexp({0}, {1})"},
    losses.sigmoid_cross_entropy: {"f": "gd_sigmoid_loss({0}, {1})"},
}  # fmt: skip


def prints(node: Node) -> bool:
    """Whether an elementwise operation has an expression."""
    return node.op is ops._cast or node.op in EXPRESSIONS


def expression(node: Node, operands: list[str]) -> str:
    """The value of an elementwise node; that of float16 is rounded after every operation."""
    if node.op is ops._cast:
        return converted(node.inputs[0].dtype, node.dtype, operands[0])
    kind = node.inputs[0].dtype.kind
    form = EXPRESSIONS[node.op]["i" if kind in "iu" else kind]
    letter = "" if np.float64 in (node.dtype, node.inputs[0].dtype) else "f"
    value = VALUES[node.dtype.name]
    text = form.replace("{f}", letter).replace("{T}", value)
    for i, x in enumerate(operands):
        text = text.replace(f"{{{i}}}", x)
    if node.dtype == np.float16:
        return f"gd_half({text})"
    return text if kind == "f" else f"({value})({text})"


def converted(old: np.dtype[Any], new: np.dtype[Any], x: str) -> str:
    """NumPy's astype: to bool by comparing with 0, floats to integers by truncation."""
    if old == new:
        return x
    if new.kind == "b":
        return f"{x} != 0"
    if new == np.float16:
        return f"gd_half({x})" if old.kind == "f" else f"gd_half((float)({x}))"
    if old.kind == "f" and new.kind == "u" and new.itemsize < 8:
        x = f"(long long)({x})"  # below 0 they wrap, as NumPy's do
    return f"({VALUES[new.name]})({x})"


def literal(dtype: np.dtype[Any], value: Any) -> str:
    """A number as text, exact to the bit (NaN but for its payload)."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind in "iu":
        if dtype == np.uint64:
            return f"{int(value)}ull"
        if int(value) == -(2**63):
            return "(-9223372036854775807ll - 1)"
        return f"({VALUES[dtype.name]})({int(value)}ll)"
    number = float(value)
    if number != number:
        return f"({VALUES[dtype.name]})GD_NAN"
    if number in (np.inf, -np.inf):
        return f"({VALUES[dtype.name]})({'-' if number < 0 else ''}GD_INF)"
    return f"({VALUES[dtype.name]}){number.hex()}"


def stored(dtype: np.dtype[Any], value: str) -> str:
    """A value as memory has it."""
    return f"gd_bits16({value})" if dtype == np.float16 else value
