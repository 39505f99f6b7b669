"""What is rewritten before a program is made: operations of rows as reductions and elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ..graph import Node, origin_scope, toposort
from ..op import Op, constant, constant_value
from ..ops import random as draws
from ..ops.create import iota
from ..ops.elementwise import (
    cast,
    div,
    equal,
    exp,
    greater,
    greater_equal,
    isfinite,
    isnan,
    less,
    less_equal,
    log,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    not_equal,
    pow,
    round,
    where,
)
from ..ops.index import _gather, _scatter_add
from ..ops.losses import (
    checked_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_grad,
)
from ..ops.reduce import all, any, argmax, argmin, logsumexp, max, min, row_max, sum
from ..ops.shape import broadcast_to, expand_dims, reshape
from ..ops.softmax import log_softmax, softmax
from ..substitute import rebuild
from ..types import Shape, Size
from . import windows
from .fetch import rows_added, rows_fetched

Rules: TypeAlias = "Mapping[Op, Callable[[Node], Node]]"


def lower(outputs: Sequence[Node], rules: Rules | None = None) -> list[Node]:
    """The same graph in operations that are printed: see the functions below.

    rules  others than these
    """
    rules = RULES if rules is None else rules
    done: dict[Node, Node] = {}
    for node in toposort(outputs):
        new = rebuild(node, done, {})
        rule = rules.get(new.op)
        if rule is not None and 0 not in _known_sizes(new):
            with origin_scope(node.origin):
                new = _shaped(rule(new), new.shape)
        done[node] = new
    return [done[node] for node in outputs]


def _shaped(node: Node, shape: Shape) -> Node:
    """The same in a shape whose sizes, if they are others, the call makes equal to these."""
    return node if node.shape == shape else reshape(node, shape)


def _known_sizes(node: Node) -> list[Size]:
    """The sizes of all operands; rows of no elements are left to the numpy backend."""
    return [s for n in node.inputs for s in n.shape]


def _dropout(node: Node) -> Node:
    """A dropout whose mask elements share as that mask, a product and a choice."""
    node = _known_ids(node)
    if not node.params["shared"]:
        return node
    x, threshold, training, *draw = node.inputs
    shape = draws.noise_shape(x.shape, node.params["shared"])
    names = {k: node.params[k] for k in ("site", "name")}
    keep = draws.mask.make((threshold, training, *draw), {**names, "shape": shape})
    if node.params["scaled"]:
        # where all are dropped the factor does not matter
        kept = maximum(draws.STEPS - cast(threshold, "float64"), 1.0)
        wide = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype
        factor = where(training, draws.STEPS / kept, 1.0)
        x = cast(cast(x, wide) * cast(factor, wide), x.dtype)
    return where(keep, x, constant(np.zeros((), x.dtype)))


def _wide(x: Node) -> Node:
    return cast(x, "float32") if x.dtype == np.float16 else x


def _shifted(x: Node, axis: int) -> Node:
    """x less the largest of its row; no row, no complaint."""
    return x - row_max(x, axis=axis, keepdims=True)


def _inverse(total: Node, shape: Shape) -> Node:
    """1 / total in the shape of the rows, so that it is part of the same kernel."""
    spread = broadcast_to(total, shape)
    return div(constant(np.ones((), total.dtype)), spread)


def _softmax(node: Node) -> Node:
    axis = node.params["axis"]
    weights = exp(_shifted(_wide(node.inputs[0]), axis))
    total = sum(weights, axis=axis, keepdims=True)
    return cast(weights * _inverse(total, node.shape), node.dtype)


def _log_softmax(node: Node) -> Node:
    axis = node.params["axis"]
    shifted = _shifted(_wide(node.inputs[0]), axis)
    total = sum(exp(shifted), axis=axis, keepdims=True)
    return cast(shifted - log(broadcast_to(total, node.shape)), node.dtype)


def _labels(node: Node, logits: Node, labels: Node) -> Node:
    """The labels that a cross entropy is given, checked, one for every row of the logits."""
    given = {"classes": logits.shape[-1], "ignore": node.params["ignore"]}
    return _shaped(checked_labels.make((labels,), given), logits.shape[:-1])


def _chosen(labels: Node, classes: Size) -> Node:
    """Whether a class is the label of its row."""
    return equal(expand_dims(labels, -1), iota.make((), {"size": classes}))


def _cross_entropy(node: Node) -> Node:
    logits, labels = node.inputs
    ignore, known = node.params["ignore"], _labels(node, logits, labels)
    shifted = _shifted(_wide(logits), -1)
    total = sum(exp(shifted), axis=-1, keepdims=True)  # as the gradient has it
    own = sum(where(_chosen(known, logits.shape[-1]), shifted, 0), axis=-1)
    loss = log(reshape(total, own.shape)) - own
    if ignore is not None:
        loss = where(equal(known, ignore), 0, loss)
    return cast(loss, node.dtype)


def _cross_entropy_grad(node: Node) -> Node:
    g, logits, labels = node.inputs
    ignore, known = node.params["ignore"], _labels(node, logits, labels)
    weights = exp(_shifted(_wide(logits), -1))
    total = sum(weights, axis=-1, keepdims=True)
    each = expand_dims(_shaped(_wide(g), known.shape), -1)
    slope = weights * (broadcast_to(each, logits.shape) * _inverse(total, logits.shape))
    slope = slope - where(_chosen(known, logits.shape[-1]), each, 0)
    if ignore is not None:
        slope = where(expand_dims(equal(known, ignore), -1), 0, slope)
    return cast(slope, node.dtype)


def _any(node: Node) -> Node:
    """Bools are counted: threads hand on numbers."""
    return not_equal(sum(cast(cast(node.inputs[0], bool), np.int64), **node.params), 0)


def _all(node: Node) -> Node:
    false = logical_not(cast(node.inputs[0], bool))
    return equal(sum(cast(false, np.int64), **node.params), 0)


def _extreme(node: Node) -> Node:
    """The largest or smallest of bools, as numbers."""
    if node.dtype != np.bool_:
        return node
    return cast(node.op(cast(node.inputs[0], np.uint8), **node.params), np.bool_)


def _position(node: Node) -> Node:
    """The first position at which the extreme is, or a NaN."""
    x, axis = node.inputs[0], node.params["axis"]
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    x = cast(x, np.uint8) if x.dtype == np.bool_ else x
    extreme = (max if node.op is argmax else min)(x, axis=axis, keepdims=True)
    hit = equal(x, extreme)
    hit = logical_or(hit, isnan(x)) if x.dtype.kind == "f" else hit
    size = x.shape[axis]
    order = reshape(iota.make((), {"size": size}), (size, *[1] * (x.ndim - axis - 1)))
    return reshape(min(where(hit, order, size), axis=axis), node.shape)


def _logsumexp(node: Node) -> Node:
    x, axis = _wide(node.inputs[0]), node.params["axis"]
    largest = row_max(x, axis=axis, keepdims=True)
    shift = where(isfinite(largest), largest, 0)
    total = log(sum(exp(x - shift), axis=axis, keepdims=True)) + shift
    return cast(reshape(total, node.shape), node.dtype)


def _known_ids(node: Node) -> Node:
    """A draw with ids of which none is below 1; such a one is told as by `_threshold`."""
    *others, ids = node.inputs
    if not ids.ndim:
        return node
    known = _all_hold(greater_equal(ids, 1))
    return node.op.make((*others, ids + cast(known, ids.dtype)), dict(node.params))


def _all_hold(good: Node) -> Node:
    """A zero for every bool; where one is false the step says so, as of a label of no class."""
    fault = cast(logical_not(good), np.int64)
    return checked_labels.make((fault,), {"classes": 1, "ignore": None})


def _threshold(node: Node) -> Node:
    """T of a rate; one outside [0, 1] is noticed, and so explained by the oracle."""
    (rate,) = node.inputs
    some = minimum(maximum(round(rate * draws.STEPS), 1), draws.STEPS - 1)
    steps = where(greater(rate, 0), where(less(rate, 1), some, draws.STEPS), 0)
    inside = logical_and(greater_equal(rate, 0), less_equal(rate, 1))
    return cast(steps, np.int64) + reshape(_all_hold(expand_dims(inside, 0)), ())


def _power(node: Node) -> Node:
    """A power of integers; an exponent below 0 is noticed, and so explained by the oracle."""
    a, b = node.inputs
    if node.dtype.kind != "i" or constant_value(b) is not None:
        return node
    known = reshape(_all_hold(greater_equal(reshape(b, (-1,)), 0)), b.shape)
    return pow(a, b + cast(known, b.dtype))


RULES: Rules = {
    draws.dropout: _dropout, draws.threshold: _threshold,
    **dict.fromkeys((draws.mask, draws.uniform, draws.normal, draws.bernoulli, draws.randint),
                    _known_ids),
    softmax: _softmax, log_softmax: _log_softmax,
    softmax_cross_entropy: _cross_entropy, softmax_cross_entropy_grad: _cross_entropy_grad,
    any: _any, all: _all, max: _extreme, min: _extreme, argmax: _position, argmin: _position,
    logsumexp: _logsumexp, pow: _power, _gather: rows_fetched,
    _scatter_add: rows_added, **windows.RULES,
}  # fmt: skip
