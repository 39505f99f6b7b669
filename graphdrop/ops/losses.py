"""Cross entropies from logits: operations of their own, for accuracy and one kernel a row.

Users call them through `nn.losses`, which checks labels and adds what can be composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph import Node
from ..op import Op, as_node, op, promoted
from ..types import Shape, Size, TensorType, unify
from .create import ones_like
from .elementwise import cast, elementwise, float_of, neg, not_equal, sigmoid, where
from .reduce import sum
from .shape import expand_dims
from .softmax import softmax

sigmoid_cross_entropy: Op = elementwise(
    "sigmoid_cross_entropy", 2, operands=float_of,
    vjp=lambda g, y, x, t: (g * (sigmoid(x) - t), neg(g * x)),
    doc="-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)): max(x, 0) - x t + log1p(exp(-|x|)).",
)  # fmt: skip


def _check(logits: TensorType, labels: TensorType) -> Shape:
    """The shape of one value for each row of logits."""
    if not logits.is_float or labels.dtype != np.int64:
        raise DTypeError(f"needs float logits and int64 labels, got {logits} and {labels}")
    if labels.ndim != logits.ndim - 1:
        raise ShapeError(f"needs one label for each row of the logits, got {logits} and {labels}")
    rows = zip(logits.shape[:-1], labels.shape, strict=True)
    return tuple(unify(a, b, "the numbers of rows and of labels") for a, b in rows)


@op(view=True)
def checked_labels(labels: TensorType, *, classes: Size, ignore: int | None) -> TensorType:
    """The labels themselves, once each is found to be one of the classes or `ignore`."""
    return labels


@checked_labels.vjp
def _(g: Node, y: Node, labels: Node, **params: Any) -> Sequence[Node | None]:
    return (None,)


@op
def softmax_cross_entropy(
    logits: TensorType, labels: TensorType, *, ignore: int | None
) -> TensorType:
    """logsumexp(row) - row[label] for logits of shape (..., classes) and int64 labels (...).

    0 where the label is `ignore`.  Any other label outside the classes is an error at the call.
    """
    return logits.with_shape(_check(logits, labels))


@softmax_cross_entropy.prepare
def _(logits: Any, labels: Any, ignore: int | None = None) -> tuple[list[Node], dict[str, Any]]:
    return [cast(logits, float_of(promoted(logits))), cast(as_node(labels), np.int64)], {
        "ignore": ignore
    }


@softmax_cross_entropy.vjp
def _(g: Node, y: Node, logits: Node, labels: Node, *, ignore: int | None) -> Sequence[Node | None]:
    return softmax_cross_entropy_grad.make((g, logits, labels), {"ignore": ignore}), None


@op
def softmax_cross_entropy_grad(
    g: TensorType, logits: TensorType, labels: TensorType, *, ignore: int | None
) -> TensorType:
    """(softmax(row) - onehot(label)) * g for every row; exactly 0 where the label is `ignore`."""
    rows = _check(logits, labels)
    if g.dtype != logits.dtype or g.ndim != len(rows):
        raise ShapeError(f"needs one {logits.dtype} for each row of {logits}, got {g}")
    for a, b in zip(g.shape, rows, strict=True):
        unify(a, b, "the numbers of gradients and of rows")
    return logits


@softmax_cross_entropy_grad.vjp
def _(
    h: Node, y: Node, g: Node, logits: Node, labels: Node, *, ignore: int | None
) -> Sequence[Node | None]:
    kept = g if ignore is None else where(not_equal(labels, ignore), g, 0)
    p, weighted = softmax(logits), h * expand_dims(kept, -1)
    toward_logits = p * (weighted - sum(weighted * p, axis=-1, keepdims=True))
    slope = softmax_cross_entropy_grad.make((ones_like(g), logits, labels), {"ignore": ignore})
    return sum(h * slope, axis=-1), toward_logits, None
