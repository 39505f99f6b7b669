"""Gradients of the formulas that `stabilize.py` puts right.

Gradients are built from the formula as written: that of log(u) divides by u, and what made u then
multiplies by u.  Where u underflows, that is 0/0, although u is positive and cancels.
"""

from __future__ import annotations

from typing import Any

from ..graph import Node
from ..ops.elementwise import add, exp, mul, sigmoid, softplus, sub
from ..ops.index import _gather, _scatter_add, _set_subtensor, _subtensor
from ..ops.reduce import kept_shape, logsumexp, sum
from ..ops.shape import reshape
from ..ops.softmax import softmax
from ..pattern import var
from ..rewrite import Rule, fit, is_number, rule


def is_positive(node: Node) -> bool:
    """Whether a node is positive by what it computes, were it not for rounding."""
    if node.op in (exp, sigmoid, softmax, softplus):
        return True
    if node.op is sub:  # 1 - sigmoid(x)
        return is_number(node.inputs[0], 1) and node.inputs[1].op is sigmoid
    if node.op is add:  # 1 + exp(x)
        a, b = node.inputs
        return (is_number(a, 1) and b.op is exp) or (is_number(b, 1) and a.op is exp)
    return node.op is sum and node.inputs[0].op is exp


x, y, g = var("x"), var("y"), var("g")
u = var("u", is_positive)
axis = var("axis")


@rule((g / u) * u, (g * u) / u, exact=False)
def cancelled(node: Node, g: Node) -> Node:
    return fit(g, node)


@rule(((g / u) * y) * u, exact=False)
def cancelled_around_factor(node: Node, g: Node, y: Node) -> Node:
    return fit(mul(g, y), node)


@rule((g / u - y) * u, exact=False)
def cancelled_in_difference(node: Node, g: Node, y: Node, u: Node) -> Node:
    """The gradient of log(softmax(x)): (g / p - s) * p."""
    return fit(g - u * y, node)


@rule((g / (1 + exp(x))) * exp(x), exact=False)
def gradient_of_softplus(node: Node, g: Node, x: Node) -> Node:
    """The gradient of log(1 + exp(x))."""
    return fit(g * sigmoid(x), node)


total = sum(exp(x), axis=axis)


@rule((g / total) * exp(x), reshape(g / total) * exp(x), exact=False)
def gradient_of_logsumexp(node: Node, g: Node, x: Node, axis: tuple[int, ...]) -> Node | None:
    """The gradient of log(sum(exp(x))) is softmax(x)."""
    kept = kept_shape(x.shape, axis, True)
    factor = next(i for i in node.inputs if i.op is not exp)
    if factor.shape != kept:
        return None
    share = (
        softmax(x, axis=axis[0])
        if len(axis) == 1
        else exp(x - logsumexp(x, axis=axis, keepdims=True))
    )
    divided = factor.inputs[0] if factor.op is reshape else factor
    return fit(reshape(fit(g, divided), kept) * share, node)


# gradients of log(softmax(x)[ids]): g / p[ids], put in the places of ids
placed = _scatter_add(0, g / _gather(u, ...), ...)
placed_at = _set_subtensor(0, g / _subtensor(u))


@rule(placed * u, placed_at * u, exact=False)
def cancelled_in_place(node: Node, g: Node) -> Node | None:
    put = next(i for i in node.inputs if i.op in (_scatter_add, _set_subtensor))
    numerator = _without_divisor(put, g)
    return None if numerator is None else fit(numerator, node)


@rule((placed - y) * u, (placed_at - y) * u, exact=False)
def cancelled_in_place_of_difference(node: Node, g: Node, y: Node, u: Node) -> Node | None:
    difference = next(i for i in node.inputs if i is not u)
    numerator = _without_divisor(difference.inputs[0], g)
    return None if numerator is None else fit(numerator - u * y, node)


def _without_divisor(put: Node, g: Node) -> Node | None:
    """`g` put where g / u[ids] is, if the places put to are those read from."""
    zero, quotient, *ids = put.inputs
    read: Any = quotient.inputs[1]
    if tuple(ids) != read.inputs[1:] or put.params["index"] != read.params["index"]:
        return None
    return put.op.make((zero, fit(g, quotient), *ids), dict(put.params))


GRADIENTS: tuple[Rule, ...] = (
    cancelled, cancelled_around_factor, cancelled_in_difference, gradient_of_softplus,
    gradient_of_logsumexp, cancelled_in_place, cancelled_in_place_of_difference,
)  # fmt: skip
