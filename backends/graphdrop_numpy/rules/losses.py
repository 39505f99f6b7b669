"""NumPy rules of `graphdrop.ops.losses`."""

from __future__ import annotations

import numpy as np

from graphdrop.errors import OutOfRangeError
from graphdrop.ops import losses as ops

from .rule import Array, Table


def sigmoid_cross_entropy(x: Array, t: Array) -> Array:
    # all terms are positive where t is 0 or 1, so that nothing cancels
    loss: Array = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
    return loss


def softmax_cross_entropy(logits: Array, labels: Array, *, ignore: int | None) -> Array:
    rows, ids, ignored = _rows(logits, labels, ignore)
    shifted = rows - np.max(rows, axis=1, keepdims=True, initial=-np.inf)
    loss: Array = np.log(np.sum(np.exp(shifted), axis=1)) - shifted[np.arange(ids.size), ids]
    loss[ignored] = 0
    return loss.reshape(labels.shape).astype(logits.dtype, copy=False)


def softmax_cross_entropy_grad(
    g: Array, logits: Array, labels: Array, *, ignore: int | None
) -> Array:
    rows, ids, ignored = _rows(logits, labels, ignore)
    weight = g.reshape(-1, 1)
    p: Array = rows - np.max(rows, axis=1, keepdims=True, initial=-np.inf)
    np.exp(p, out=p)
    p *= weight / np.sum(p, axis=1, keepdims=True)
    p[np.arange(ids.size), ids] -= weight[:, 0]
    p[ignored] = 0
    return p.reshape(logits.shape).astype(logits.dtype, copy=False)


def checked_labels(labels: Array, *, classes: int, ignore: int | None) -> Array:
    ids = labels if ignore is None else labels[labels != ignore]
    if ids.size and not (ids.min() >= 0 and ids.max() < classes):
        wrong = ids[(ids < 0) | (ids >= classes)][0]
        raise OutOfRangeError(f"the label {wrong} is not one of {classes} classes")
    return labels


def _rows(logits: Array, labels: Array, ignore: int | None) -> tuple[Array, Array, Array]:
    """Logits as a matrix, a class for every row, and which rows are ignored (class 0 there).

    float16 is computed in float32: a probability near 1, less 1, has no digits left.
    """
    classes = logits.shape[-1]
    ids = labels.reshape(-1)
    ignored = ids == ignore if ignore is not None else np.zeros(0, np.intp)
    if ignore is not None:
        ids = np.where(ignored, 0, ids)
    checked_labels(ids, classes=classes, ignore=None)
    wide = logits.astype(np.result_type(logits, np.float32), copy=False)
    return wide.reshape(ids.size, classes), ids, ignored


RULES: Table = {
    ops.checked_labels: checked_labels,
    ops.sigmoid_cross_entropy: sigmoid_cross_entropy,
    ops.softmax_cross_entropy: softmax_cross_entropy,
    ops.softmax_cross_entropy_grad: softmax_cross_entropy_grad,
}
