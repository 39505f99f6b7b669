"""Gradients of the formulas that `stabilize.py` puts right.

Gradients are built from the formula as written: that of log(u) divides by u, and what made u then
multiplies by u.  Where u underflows, that is 0/0, although u is positive and cancels.
"""

from __future__ import annotations

from typing import Any

from ..graph import Node
from ..op import Op
from ..ops.brackets import Entry, Index
from ..ops.elementwise import add, div, exp, mul, neg, sigmoid, softplus, sub
from ..ops.index import _gather, _scatter_add, _set_subtensor, _subtensor
from ..ops.reduce import logsumexp, sum
from ..ops.shape import reshape
from ..ops.softmax import softmax
from ..pattern import Head, any_op, var
from ..rewrite import Rule, fit, is_number, rule
from .stabilize import stands_along

POSITIVE = frozenset({exp, sigmoid, softmax, softplus, add, sub, sum})  # the ops of such nodes
DEPTH = 3  # of products in which a divisor is looked for


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


a, x, y, g = var("a"), var("x"), var("y"), var("g")
u = var("u", is_positive)
axis = var("axis")


@rule((g * u) / u, exact=False)
def cancelled_factor(node: Node, g: Node) -> Node:
    return fit(g, node)


def _is_product_with_positive(op: Op, heads: tuple[Head, ...]) -> bool:
    return op is mul and not POSITIVE.isdisjoint(h.op for h in heads)


@rule(any_op("u * (... / u ...)", _is_product_with_positive), exact=False)
def cancelled_divisor(node: Node) -> Node | None:
    """u times an expression in which a quotient, or a term of a sum, is divided by u."""
    for factor, other in (node.inputs, node.inputs[::-1]):
        if is_positive(factor):
            found = _times(other, factor)
            if found is not None:
                return fit(found, node)
    return None


def _times(node: Node, u: Node) -> Node | None:
    """node * u where that cancels a divisor of node, or of a term of it; else None."""
    if node.op not in (add, sub):
        return _undivided(node, u, DEPTH)
    a, b = (_undivided(i, u, DEPTH) for i in node.inputs)
    if a is None and b is None:
        return None
    first, second = node.inputs
    made: Node = node.op(first * u if a is None else a, second * u if b is None else b)
    return made


def _undivided(node: Node, u: Node, depth: int) -> Node | None:
    """The product without its divisor u; None if it is not divided by u."""
    if node.op is div and _are_equal(node.inputs[1], u):
        return node.inputs[0]
    if node.op not in (mul, div, neg) or not depth:
        return None
    inner = _undivided(node.inputs[0], u, depth - 1)
    if inner is not None:
        return node.op(inner, *node.inputs[1:])
    if node.op is mul:
        inner = _undivided(node.inputs[1], u, depth - 1)
        if inner is not None:
            return node.inputs[0] * inner
    return None


def _are_equal(a: Node, b: Node) -> bool:
    """Whether two positive nodes are one, or sigmoid(-x) and 1 - sigmoid(x)."""
    if a is b:
        return True
    rest, other = (a, b) if a.op is sub else (b, a)
    if rest.op is not sub or not is_positive(rest) or other.op is not sigmoid:
        return False
    (z,), (w,) = rest.inputs[1].inputs, other.inputs
    return (z.op is neg and z.inputs[0] is w) or (w.op is neg and w.inputs[0] is z)


@rule(sigmoid(neg(x)) * exp(x), exact=False)
def logistic_gradient(node: Node, x: Node) -> Node:
    """exp(x) / (1 + exp(x)), whose quotient has become sigmoid(-x)."""
    return fit(sigmoid(x), node)


@rule(sigmoid(x) * exp(neg(x)), exact=False)
def logistic_gradient_of_negative(node: Node, x: Node) -> Node:
    return fit(sigmoid(neg(x)), node)


@rule((g / (1 + exp(x))) * exp(x), exact=False)
def gradient_of_softplus(node: Node, g: Node, x: Node) -> Node:
    """The gradient of log(1 + exp(x))."""
    return fit(g * sigmoid(x), node)


total = sum(exp(x), axis=axis)


@rule((g / total) * exp(x), reshape(g / total) * exp(x), exact=False)
def gradient_of_logsumexp(node: Node, g: Node, x: Node, axis: tuple[int, ...]) -> Node | None:
    """The gradient of log(sum(exp(x))) is softmax(x)."""
    factor = next(i for i in node.inputs if i.op is not exp)
    if not stands_along(factor, x, axis):
        return None
    share = (
        softmax(x, axis=axis[0])
        if len(axis) == 1
        else exp(x - logsumexp(x, axis=axis, keepdims=True))
    )
    divided = factor.inputs[0] if factor.op is reshape else factor
    return fit(reshape(fit(g, divided), factor.shape) * share, node)


c, d = var("c"), var("d")
through_sum = sum(neg(c / d), axis=axis)


@rule((a / total + reshape(through_sum)) * exp(x), (a / total + through_sum) * exp(x), exact=False)
def gradient_of_softmax(
    node: Node, a: Node, x: Node, c: Node, d: Node, axis: tuple[int, ...]
) -> Node | None:
    """The gradient of exp(x) / sum(exp(x)): what flows to exp(x) directly and through the sum."""
    added = next(i for i in node.inputs if i.op is add)
    quotient = next(i for i in added.inputs if i.op is div)
    reduced = next(i for i in added.inputs if i.op is not div)
    summed = (reduced.inputs[0] if reduced.op is reshape else reduced).inputs[0]
    stand = stands_along(d, x, axis) and stands_along(reduced, x, axis)
    if not stand or quotient.inputs[1] is not d or len(axis) != 1 or summed.shape != x.shape:
        return None
    share = softmax(x, axis=axis[0])
    total = sum(fit(c, summed), axis=axis, keepdims=True)
    return fit(share * a - share * total, node)


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


# gradients of the parts of an array, such as those of a recurrent layer's gates


@rule(_set_subtensor(x, y) + _set_subtensor(0, g), exact=False)
def parts_side_by_side(node: Node, x: Node, y: Node, g: Node) -> Node | None:
    """A sum of arrays that are 0 but for parts, which do not overlap: one array with the parts."""
    first, second = node.inputs
    if not is_number(second.inputs[0], 0):
        first, second = second, first
    value, index = second.inputs[1], second.params["index"]
    base = first
    while base.op is _set_subtensor:
        if not _apart(base.params["index"], index):
            return None
        base = base.inputs[0]
    if not is_number(base, 0) or not is_number(second.inputs[0], 0):
        return None
    return fit(_set_subtensor.make((first, value), {"index": index}), node)


def _apart(a: Index, b: Index) -> bool:
    """Whether two parts of an array have no element in common, by what is known of them."""
    entries = zip(a, b, strict=False) if "new" not in a + b else ()
    return any(_before(p, q) or _before(q, p) for p, q in entries)


def _before(a: Entry, b: Entry) -> bool:
    """Whether positions along an axis end before others begin."""
    if isinstance(a, tuple) and isinstance(b, tuple) and a[1] == 1 and b[1] == 1:
        gap = b[0] - (a[0] + a[2])
        return isinstance(gap, int) and gap >= 0
    return isinstance(a, int) and isinstance(b, int) and a < b


GRADIENTS: tuple[Rule, ...] = (
    cancelled_factor, cancelled_divisor, logistic_gradient, logistic_gradient_of_negative,
    gradient_of_softplus, gradient_of_logsumexp, gradient_of_softmax, cancelled_in_place,
    cancelled_in_place_of_difference, parts_side_by_side,
)  # fmt: skip
