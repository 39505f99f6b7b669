"""Losses and metrics: one value for every example (or element), so that `.mean()` follows.

    loss = nn.softmax_cross_entropy(logits, labels).mean()

Predictions and targets must have equal shapes: a column against a row never broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_node, composed
from ..ops import losses as ops
from ..ops.elementwise import (
    abs,
    cast,
    clip,
    equal,
    exp,
    greater,
    log,
    maximum,
    not_equal,
    square,
    where,
)  # fmt: skip
from ..ops.reduce import argmax, logsumexp, mean, sum
from ..ops.shape import expand_dims
from ..ops.softmax import log_softmax
from ..types import normalize_axis, unify


@composed
def softmax_cross_entropy(
    logits: Any, labels: Any, *, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Node:
    """-log softmax(logits)[label] for each example; the gradient is softmax - onehot.

    logits           (..., classes), any real numbers
    labels           (...): integer classes; or (..., classes): float probabilities of the classes
    ignore_index     integer labels with this value give loss 0 and gradient 0.  `.mean()` counts
                     them; loss.sum() / gd.not_equal(labels, ignore_index).sum() does not
    label_smoothing  share of the probability that is spread evenly over all classes (Szegedy 2016)

    An integer label outside the classes is an error at the call.
    """
    logits, labels = _floats("logits", logits), as_node(labels)
    if not logits.ndim:
        raise ShapeError(f"logits have classes along their last axis, got {logits!r}")
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    if labels.tensor_type.is_float:
        if ignore_index is not None:
            raise ArgumentError("ignore_index is for integer labels; weight soft ones instead")
        return _soft_cross_entropy(logits, labels, label_smoothing)
    _check_classes(logits, labels)
    loss = ops.softmax_cross_entropy(logits, labels, ignore=_as_id(ignore_index))
    if label_smoothing:
        if ignore_index is not None:  # a NaN in an ignored row must not reach the gradient
            logits = where(expand_dims(not_equal(labels, ignore_index), -1), logits, 0)
        # -sum of (1/classes) log softmax is logsumexp - mean
        even = logsumexp(logits, axis=-1) - mean(logits, axis=-1)
        if ignore_index is not None:
            even = where(not_equal(labels, ignore_index), even, 0)
        loss = loss * (1 - label_smoothing) + even * label_smoothing
    return loss


def _soft_cross_entropy(logits: Node, labels: Node, smoothing: float) -> Node:
    _check_pair("logits", logits, "soft labels", labels)
    if smoothing:
        labels = labels * (1 - smoothing) + smoothing / as_node(logits.shape[-1])
    return -sum(labels * log_softmax(logits), axis=-1)


@composed
def sigmoid_cross_entropy(logits: Any, targets: Any) -> Node:
    """-t log(p) - (1 - t) log(1 - p) with p = sigmoid(logits), elementwise and without overflow.

    The binary cross entropy of independent labels; targets are in [0, 1], of the logits' shape,
    floats, integers or bools.  The gradient is sigmoid(logits) - t.
    """
    return ops.sigmoid_cross_entropy(*_pair("logits", logits, "targets", targets))


# the other name of the field; PyTorch calls it binary_cross_entropy_with_logits
binary_cross_entropy = sigmoid_cross_entropy


@composed
def mse(predictions: Any, targets: Any) -> Node:
    """(prediction - target)**2, elementwise."""
    x, t = _pair("predictions", predictions, "targets", targets)
    return square(x - t)


@composed
def mae(predictions: Any, targets: Any) -> Node:
    """|prediction - target|, elementwise; the gradient at 0 is 0."""
    x, t = _pair("predictions", predictions, "targets", targets)
    return abs(x - t)


@composed
def huber(predictions: Any, targets: Any, delta: float = 1.0) -> Node:
    """d**2 / 2 where |d| <= delta, delta * (|d| - delta/2) beyond, elementwise (Huber 1964)."""
    if not delta > 0:
        raise ArgumentError(f"delta must be positive, got {delta}")
    x, t = _pair("predictions", predictions, "targets", targets)
    d = x - t
    near = clip(d, -delta, delta)
    return near * (d - 0.5 * near)


@composed
def hinge(scores: Any, targets: Any, margin: float = 1.0) -> Node:
    """max(0, margin - target * score), elementwise; targets are -1 or 1."""
    x, t = _pair("scores", scores, "targets", targets)
    return maximum(margin - t * x, 0)


@composed
def kl_divergence(p: Any, q: Any, axis: int = -1, *, logits: bool = False) -> Node:
    """KL(p || q) = sum of p log(p / q) along an axis; at least 0, and 0 where p is q.

    logits  p and q are given as logits, of which the softmax is meant: exact where q underflows

    A class that p gives no probability adds 0.
    """
    p, q = _pair("p", _floats("p", p), "q", _floats("q", q))
    axis = normalize_axis(axis, p.ndim)
    if logits:
        log_p, log_q = log_softmax(p, axis=axis), log_softmax(q, axis=axis)
        return sum(exp(log_p) * (log_p - log_q), axis=axis)
    # log(1) in the places where p is 0, so that neither value nor gradient is NaN there
    some = greater(p, 0)
    safe_p, safe_q = where(some, p, 1), where(some, q, 1)
    return sum(where(some, p * (log(safe_p) - log(safe_q)), 0), axis=axis)


@composed
def accuracy(scores: Any, labels: Any) -> Node:
    """1 where the highest of the scores (..., classes) is the label's (...), else 0; float32."""
    scores, labels = as_node(scores), as_node(labels)
    if not scores.ndim:
        raise ShapeError(f"scores have classes along their last axis, got {scores!r}")
    _check_classes(scores, labels)
    return cast(equal(argmax(scores, axis=-1), labels), DEFAULT_FLOAT)


# --------------------------------------------------------------------------------------------
# what they check


def _floats(name: str, value: Any) -> Node:
    node = as_node(value)
    if not node.tensor_type.is_float:
        raise DTypeError(f"{name} must be floats, got {node!r}; cast them with gd.cast")
    return node


def _as_id(ignore_index: Any) -> int | None:
    if ignore_index is None:
        return None
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, (int, np.integer)):
        raise ArgumentError(f"ignore_index must be an integer, got {ignore_index!r}")
    return int(ignore_index)


def _check_classes(scores: Node, labels: Node) -> None:
    """Integer labels, one for each row of scores."""
    if not labels.tensor_type.is_integer:
        raise DTypeError(
            f"labels must be integer classes (or, for a loss, float probabilities of the shape of "
            f"the logits), got {labels!r}"
        )
    if labels.ndim != scores.ndim - 1:
        hint = " (squeeze its last axis?)" if labels.ndim == scores.ndim else ""
        raise ShapeError(
            f"{scores!r} needs integer labels with {scores.ndim - 1} axes, got {labels!r}{hint}"
        )
    _unify("scores", scores.shape[:-1], "labels", labels.shape)


def _pair(name: str, prediction: Any, other: str, target: Any) -> tuple[Node, Node]:
    """Float predictions and targets of one shape; a Python number is the target of all."""
    x = _floats(name, prediction)
    if isinstance(target, (bool, int, float)):
        return x, as_node(target, x.dtype)
    t = as_node(target)
    t = t if t.tensor_type.is_float else cast(t, x.dtype)
    _check_pair(name, x, other, t)
    return x, t


def _check_pair(name: str, x: Node, other: str, t: Node) -> None:
    if x.ndim != t.ndim:
        raise ShapeError(f"{name} {x!r} and {other} {t!r} must have equal shapes")
    _unify(name, x.shape, other, t.shape)


def _unify(name: str, a: Sequence[Any], other: str, b: Sequence[Any]) -> None:
    for i, (m, n) in enumerate(zip(a, b, strict=True)):
        unify(m, n, f"axis {i} of {name} and {other} must agree: sizes")
