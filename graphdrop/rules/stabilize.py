"""Formulas that overflow, cancel or lose digits, put as the operation that does not.

These change rounding, and give finite values where the formula as written gives inf or NaN.  The
gradients of such formulas are in `gradients.py`.

`1 - sigmoid(x)` becomes sigmoid(-x) only inside a logarithm: it is a factor of every sigmoid's
gradient, where another exponential would cost more than the digits are worth.
"""

from __future__ import annotations

import numpy as np

from ..graph import Node
from ..ops.elementwise import (
    abs,
    exp,
    expm1,
    log,
    log1p,
    mul,
    neg,
    pow,
    relu,
    rsqrt,
    sigmoid,
    softplus,
    sqrt,
    square,
)
from ..ops.index import _gather, _subtensor
from ..ops.reduce import kept_shape, logsumexp, max, sum
from ..ops.shape import broadcast_to, reshape
from ..ops.softmax import log_softmax, softmax
from ..pattern import var
from ..rewrite import Rule, fit, rule, scalar
from ..types import num_elements
from .shapes import unstretch

x, y = var("x"), var("y")
axis, keepdims, index = var("axis"), var("keepdims"), var("index")
real = var("x", lambda node: node.tensor_type.is_float)


# powers --------------------------------------------------------------------------------------
@rule(pow(x, 2), exact=False)
def power_2(node: Node, x: Node) -> Node:
    return fit(square(x), node)


@rule(pow(real, -1), exact=False)
def power_minus_1(node: Node, x: Node) -> Node:
    return fit(scalar(1, x) / x, node)


@rule(pow(real, 0.5), exact=False)
def power_half(node: Node, x: Node) -> Node | None:
    """Only of what is never negative: pow(-inf, 0.5) is inf, sqrt(-inf) is NaN."""
    return fit(sqrt(x), node) if never_negative(x) else None


@rule(pow(real, -0.5), exact=False)
def power_minus_half(node: Node, x: Node) -> Node | None:
    return fit(rsqrt(x), node) if never_negative(x) else None


@rule(1 / sqrt(x), exact=False)
def one_over_sqrt(node: Node, x: Node) -> Node:
    return fit(rsqrt(x), node)


@rule(sqrt(square(x)), sqrt(x * x), exact=False)
def sqrt_of_square(x: Node) -> Node:
    return abs(x)


def never_negative(node: Node) -> bool:
    """Whether all elements are >= 0 or NaN by the operation that made them."""
    while node.op in (sum, max, reshape, broadcast_to):
        node = node.inputs[0]
    return node.op in (square, exp, abs, relu, sigmoid, softmax, softplus) or (
        node.op is mul and node.inputs[0] is node.inputs[1]
    )


# logarithms and exponentials -----------------------------------------------------------------
@rule(log(exp(x)), exact=False)
def log_of_exp(x: Node) -> Node:
    return x


@rule(log(1 + exp(x)), log1p(exp(x)), exact=False)
def log_of_one_plus_exp(node: Node, x: Node) -> Node:
    return fit(softplus(x), node)


@rule(log(sigmoid(x)), exact=False)
def log_of_sigmoid(x: Node) -> Node:
    return neg(softplus(neg(x)))


@rule(log(1 - sigmoid(x)), log1p(neg(sigmoid(x))), exact=False)
def log_of_one_minus_sigmoid(node: Node, x: Node) -> Node:
    return fit(neg(softplus(x)), node)


@rule(log(1 + x), exact=False)
def log_of_one_plus(node: Node, x: Node) -> Node:
    return fit(log1p(x), node)


@rule(log(1 - x), exact=False)
def log_of_one_minus(node: Node, x: Node) -> Node:
    return fit(log1p(neg(x)), node)


@rule(exp(x) - 1, exp(x) + -1, exact=False)
def exp_minus_one(node: Node, x: Node) -> Node:
    return fit(expm1(x), node)


@rule(1 - exp(x), exact=False)
def one_minus_exp(node: Node, x: Node) -> Node:
    return fit(neg(expm1(x)), node)


@rule(1 / (1 + exp(x)), exact=False)
def logistic(node: Node, x: Node) -> Node:
    """1 / (1 + exp(-z)) is sigmoid(z)."""
    return fit(sigmoid(neg(x)), node)


@rule(exp(x) / (1 + exp(x)), exact=False)
def logistic_of_quotient(node: Node, x: Node) -> Node:
    return fit(sigmoid(x), node)


# softmax and its relatives -------------------------------------------------------------------
total = sum(exp(x), axis=axis)


@rule(exp(x) / total, exp(x) / reshape(total), exact=False)
def softmax_written_out(node: Node, x: Node, axis: tuple[int, ...]) -> Node | None:
    """exp(x) / sum(exp(x)), where the sum stands along the axis it was taken over."""
    stands = stands_along(node.inputs[1], x, axis)
    return softmax(x, axis=axis[0]) if stands and len(axis) == 1 else None


def stands_along(reduced: Node, x: Node, axis: tuple[int, ...]) -> bool:
    """Whether a reduction of x over `axis` broadcasts against x along those axes."""
    aligned = (*[1] * (x.ndim - reduced.ndim), *reduced.shape)
    return aligned == kept_shape(x.shape, axis, True)


shifted = x - max(x, axis=axis, keepdims=True)


@rule(softmax(shifted, axis=y), log_softmax(shifted, axis=y), exact=False)
def softmax_of_shifted(node: Node, x: Node, axis: tuple[int, ...], y: int) -> Node | None:
    """Both subtract the largest element themselves."""
    made: Node = node.op(x, axis=y)
    return made if axis in ((y,), tuple(range(x.ndim))) else None


@rule(
    logsumexp(shifted, axis=axis, keepdims=keepdims) + max(x, axis=axis, keepdims=keepdims),
    exact=False,
)
def logsumexp_of_shifted(x: Node, axis: tuple[int, ...], keepdims: bool) -> Node:
    return logsumexp(x, axis=axis, keepdims=keepdims)


@rule(log(sum(exp(x), axis=axis, keepdims=keepdims)), exact=False)
def log_of_sum_of_exp(x: Node, axis: tuple[int, ...], keepdims: bool) -> Node:
    return logsumexp(x, axis=axis, keepdims=keepdims)


@rule(log(softmax(x, axis=axis)), exact=False)
def log_of_softmax(x: Node, axis: int) -> Node:
    return log_softmax(x, axis=axis)


@rule(x - logsumexp(x, axis=axis, keepdims=True), exact=False)
def minus_logsumexp(x: Node, axis: tuple[int, ...]) -> Node | None:
    return log_softmax(x, axis=axis[0]) if len(axis) == 1 else None


probability = var("x", lambda node: node.op is softmax)


@rule(log(_gather(probability, ...)), log(_subtensor(probability)), exact=False)
def log_of_chosen_softmax(node: Node, x: Node) -> Node:
    """log(softmax(z)[ids]) is log_softmax(z)[ids]."""
    chosen = node.inputs[0]
    return chosen.op.make((log(x), *chosen.inputs[1:]), dict(chosen.params))


# sums ----------------------------------------------------------------------------------------
@rule(sum(broadcast_to(real), axis=axis), exact=False)
def sum_of_copies(node: Node, x: Node, axis: tuple[int, ...]) -> Node | None:
    """The sum of n copies is a product with n, which rounds once."""
    copies = num_elements(node.inputs[0].shape)
    if not isinstance(copies, int) or copies >= 2 ** np.finfo(x.dtype).nmant:
        return None  # n itself would be rounded
    return unstretch(node, x, axis)


STABILIZE: tuple[Rule, ...] = (
    power_2, power_minus_1, power_half, power_minus_half, one_over_sqrt, sqrt_of_square,
    log_of_exp, log_of_one_plus_exp, log_of_sigmoid, log_of_one_minus_sigmoid, log_of_one_plus,
    log_of_one_minus, exp_minus_one, one_minus_exp, logistic, logistic_of_quotient,
    softmax_written_out, softmax_of_shifted, logsumexp_of_shifted, log_of_sum_of_exp,
    log_of_softmax, minus_logsumexp, log_of_chosen_softmax, sum_of_copies,
)  # fmt: skip
