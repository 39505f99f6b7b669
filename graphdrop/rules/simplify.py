"""Arithmetic, logic, selection and casts that can be had for less.  All exact.

Hence no `x + 0.0 -> x` (it makes 0.0 of -0.0), no `x * 0.0 -> 0` and no `x - x -> 0` (NaN and
infinity), and a division becomes a product only by a power of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..op import constant, size
from ..ops.elementwise import (
    _cast,
    _round,
    abs,
    add,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    div,
    equal,
    floor,
    floordiv,
    greater,
    greater_equal,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mul,
    neg,
    not_equal,
    pow,
    relu,
    sign,
    square,
    stop_gradient,
    sub,
    trunc,
    where,
)
from ..ops.leaf import override_gradient
from ..pattern import any_op, number, var
from ..rewrite import Rule, fit, full, rule, scalar, scalar_of

x, y, z, c = var("x"), var("y"), var("z"), var("c")
k = number("k")
n = var("x", lambda node: node.tensor_type.is_integer)
b = var("x", lambda node: node.tensor_type.is_bool)
m = var("x", lambda node: not node.tensor_type.is_float)  # no NaN, no infinity, no -0.0


# operands that decide ------------------------------------------------------------------------
@rule(
    x - 0, x + -0.0, n + 0, x * 1, x / 1, pow(x, 1), floordiv(n, 1), b * True, b + False,
    bitwise_or(n, 0), bitwise_xor(n, 0), bitwise_or(b, False), bitwise_xor(b, False),
    bitwise_and(b, True), logical_and(x, True), logical_or(x, False), logical_xor(x, False),
    maximum(x, -np.inf), minimum(x, np.inf),
)  # fmt: skip
def neutral_operand(node: Node, x: Node) -> Node:
    """x + -0.0, x * 1, ... are x."""
    return fit(x, node)


@rule(
    n * 0, b * False, bitwise_and(n, 0), bitwise_and(b, False), logical_and(x, False), m - m,
    bitwise_xor(m, m), logical_xor(x, x), less(x, x), greater(x, x), not_equal(m, m),
)  # fmt: skip
def always_zero(node: Node) -> Node:
    """Products with 0, differences and orders of equals: 0 or False whatever x is."""
    return full(0, node)


@rule(
    pow(x, 0), b + True, bitwise_or(b, True), logical_or(x, True),
    equal(m, m), less_equal(m, m), greater_equal(m, m),
)  # fmt: skip
def always_one(node: Node) -> Node:
    """x ** 0 (NaN and 0 included) is 1; x or True and x == x without NaN are True."""
    return full(1, node)


@rule(
    maximum(x, x), minimum(x, x), bitwise_and(x, x), bitwise_or(x, x), logical_and(x, x),
    logical_or(x, x),
)  # fmt: skip
def same_operands(x: Node) -> Node:
    """max(x, x) is x."""
    return x


@rule(isnan(_cast(m)))
def integers_are_not_nan(node: Node) -> Node:
    return full(False, node)


# signs ---------------------------------------------------------------------------------------
@rule(neg(neg(x)), logical_not(logical_not(x)), bitwise_not(bitwise_not(x)))
def double_negation(x: Node) -> Node:
    return x


@rule(x * -1, x / -1)
def times_minus_one(node: Node, x: Node) -> Node:
    return fit(neg(x), node)


@rule(x + neg(y))
def add_negative(node: Node, x: Node, y: Node) -> Node:
    return fit(sub(x, y), node)


@rule(x - neg(y))
def subtract_negative(node: Node, x: Node, y: Node) -> Node:
    return fit(add(x, y), node)


@rule(neg(x) * neg(y), neg(x) / neg(y))
def two_negatives(node: Node, x: Node, y: Node) -> Node:
    return fit(node.op(x, y), node)


@rule(neg(x) * k, neg(x * k))
def negative_times_number(node: Node, x: Node, k: Node) -> Node:
    """The sign goes into the constant."""
    return fit(mul(x, neg_scalar(k)), node)


@rule(neg(x) / k, neg(x / k))
def negative_by_number(node: Node, x: Node, k: Node) -> Node:
    return fit(div(x, neg_scalar(k)), node)


def neg_scalar(k: Node) -> Node:
    value = scalar_of(k)
    assert value is not None
    return scalar(np.negative(value), k)


@rule(neg(x) * y)
def sign_out_of_product(node: Node, x: Node, y: Node) -> Node:
    """Signs gather at the root, where they meet other signs, additions and constants."""
    return fit(neg(mul(x, y)), node)


@rule(neg(x) / y)
def sign_out_of_quotient(node: Node, x: Node, y: Node) -> Node:
    return fit(neg(div(x, y)), node)


@rule(x / neg(y))
def sign_out_of_divisor(node: Node, x: Node, y: Node) -> Node:
    return fit(neg(div(x, y)), node)


@rule(abs(neg(x)), square(neg(x)), square(abs(x)))
def even_function(node: Node, x: Node) -> Node:
    """|-x| is |x|."""
    made: Node = node.op(x)
    return made


@rule(
    abs(abs(x)), floor(floor(x)), ceil(ceil(x)), _round(_round(x)), trunc(trunc(x)), relu(relu(x)),
    sign(sign(x)),
)  # fmt: skip
def idempotent(node: Node) -> Node:
    """floor(floor(x)) is floor(x)."""
    return node.inputs[0]


# numbers -------------------------------------------------------------------------------------
@rule(x / k)
def divide_by_power_of_two(node: Node, x: Node, k: Node) -> Node | None:
    """x / 4 is x * 0.25, rounded the same way as the reciprocal is exact."""
    value = scalar_of(k)
    assert value is not None
    mantissa, _ = np.frexp(value)
    if not np.isfinite(value) or np.abs(mantissa) != 0.5:
        return None
    with np.errstate(over="ignore"):
        inverse = np.asarray(1 / value, value.dtype)
    # not a subnormal, which some devices take for 0
    normal = np.isfinite(inverse) and np.abs(inverse) >= np.finfo(value.dtype).tiny
    return fit(mul(x, scalar(inverse, k)), node) if normal else None


# selection and logic -------------------------------------------------------------------------
@rule(where(True, x, y), where(False, y, x), where(c, x, x))
def decided_where(node: Node, x: Node) -> Node:
    return fit(x, node)


@rule(where(logical_not(c), x, y), where(bitwise_not(c), x, y))
def where_not(node: Node, c: Node, x: Node, y: Node) -> Node:
    return fit(where(c, y, x), node)


@rule(where(c, where(c, x, z), y), where(c, x, where(c, z, y)))
def where_in_where(node: Node, c: Node, x: Node, y: Node) -> Node:
    return fit(where(c, x, y), node)


@rule(where(x, True, False))
def where_is_condition(node: Node, x: Node) -> Node:
    return fit(x, node)


@rule(where(x, False, True))
def where_is_opposite(node: Node, x: Node) -> Node:
    return fit(logical_not(x), node)


@rule(logical_not(equal(x, y)))
def not_equal_is_not_equal(x: Node, y: Node) -> Node:
    return not_equal(x, y)


@rule(logical_not(not_equal(x, y)))
def not_different_is_equal(x: Node, y: Node) -> Node:
    return equal(x, y)


_OPPOSITE = {
    less: greater_equal, less_equal: greater, greater: less_equal, greater_equal: less,
}  # fmt: skip


@rule(*(logical_not(order(m, y)) for order in _OPPOSITE))
def opposite_order(node: Node, x: Node, y: Node) -> Node:
    """not (x < y) is x >= y, but for NaN."""
    made: Node = _OPPOSITE[node.inputs[0].op](x, y)
    return made


# casts ---------------------------------------------------------------------------------------
@rule(_cast(_cast(x)))
def cast_of_cast(node: Node, x: Node) -> Node | None:
    """A cast on the way is left out if it loses nothing."""
    through, last = node.inputs[0].dtype, node.dtype
    if not _lossless(x.dtype, through):
        return None
    # floats out of an integer's range have no agreed value, so those casts stay as they are
    to_integer = last.kind in "iu" and (x.dtype.kind == "f" or through.kind == "f")
    return None if to_integer and not _lossless(x.dtype, last) else cast(x, last)


def _lossless(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    if source.kind in "iu" and target.kind == "f":
        # an unsigned integer has one bit more of magnitude than a signed one
        return source.itemsize * 8 - (source.kind == "i") <= np.finfo(target).nmant + 1
    return bool(np.can_cast(source, target, "safe"))


# nodes that are their operand ----------------------------------------------------------------
@rule(stop_gradient(x), override_gradient(x, ...))
def gradient_control(x: Node) -> Node:
    """Once the gradients are built, these are their value."""
    return x


@rule(any_op("size", lambda op, heads: op is size))
def known_size(node: Node) -> Node | None:
    """A size that has become a number."""
    value = node.params["size"]
    return constant(np.int64(value)) if isinstance(value, int) else None


SIMPLIFY: tuple[Rule, ...] = (
    gradient_control, known_size, neutral_operand, always_zero, always_one, same_operands,
    integers_are_not_nan, double_negation, times_minus_one, add_negative, subtract_negative,
    two_negatives, negative_times_number, negative_by_number, sign_out_of_product,
    sign_out_of_quotient, sign_out_of_divisor, even_function, idempotent, divide_by_power_of_two,
    decided_where, where_not, where_in_where, where_is_condition, where_is_opposite,
    not_equal_is_not_equal, not_different_is_equal, opposite_order, cast_of_cast,
)  # fmt: skip
