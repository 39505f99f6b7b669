"""The op table's rows for the cross entropies (the losses around them: tests/test_losses.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..ops import losses
from ..ops.leaf import imatrix, ivector, lvector, matrix, vector
from .table import FLOATS, Array, Bad, Case, Sample, binary, values


def rows(*shape: int, ignore: int | None = None, strided: bool = False) -> Sample:
    """Logits of a shape, and a class (or `ignore`) for every row."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        logits = values(rng, dtype, shape[::-1] if strided else shape, -3, 3)
        logits = logits.T if strided else logits
        labels = rng.integers(0, shape[-1], shape[:-1]) if 0 not in shape else np.zeros(shape[:-1])
        if ignore is not None:
            labels = np.where(rng.random(shape[:-1]) < 0.5, labels, ignore)
        return [logits, labels.astype(np.int64)]

    return make


def row_samples(ignore: int | None = None) -> list[Sample]:
    shapes = [(3, 4), (5,), (2, 3, 4), (3, 1), (0, 4), (2, 0, 3), (1, 2)]
    return [rows(*s, ignore=ignore) for s in shapes] + [rows(3, 4, ignore=ignore, strided=True)]


def with_gradient(sample: Sample) -> Sample:
    """The operands of the gradient: one number for every row, then those of a sample."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        logits, labels = sample(rng, dtype)
        return [values(rng, dtype, labels.shape, -2, 2), logits, labels]

    return make


def cross_entropy(logits: Array, labels: Array, ignore: int | None = None) -> Array:
    """The formula in float64, row by row."""
    x = logits.astype(np.float64)
    loss = np.zeros(labels.shape)
    for i in np.ndindex(labels.shape):
        if labels[i] != ignore:
            loss[i] = np.log(np.exp(x[i] - x[i][labels[i]]).sum())
    return loss.astype(logits.dtype)


def cross_entropy_grad(g: Array, logits: Array, labels: Array, ignore: int | None = None) -> Array:
    x = logits.astype(np.float64)
    found = np.zeros(x.shape)
    for i in np.ndindex(labels.shape):
        if labels[i] != ignore:
            hot = np.arange(x.shape[-1]) == labels[i]
            found[i] = (np.exp(x[i]) / np.exp(x[i]).sum() - hot) * g[i]
    return found.astype(logits.dtype)


def torch_cross_entropy(ignore: int = -100) -> Any:
    def call(logits: Any, labels: Any) -> Any:
        import torch

        flat = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1),
            ignore_index=ignore, reduction="none",
        )  # fmt: skip
        return flat.reshape(labels.shape)

    return call


def torch_sigmoid_cross_entropy(x: Any, t: Any) -> Any:
    import torch

    same_shape: Any = torch.broadcast_tensors  # it has no types
    x, t = same_shape(x, t)
    return torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")


def sigmoid_cross_entropy(x: Array, t: Array) -> Array:
    wide = x.astype(np.float64)
    loss = np.maximum(wide, 0) - wide * t + np.log1p(np.exp(-np.abs(wide)))
    return loss.astype(np.result_type(x, t))


# 1 - p has the absolute error of 1, and is the largest of a row where p is near 1
CANCELS = 64

CASES: list[Case] = [
    Case(
        "sigmoid_cross_entropy", losses.sigmoid_cross_entropy, sigmoid_cross_entropy, binary(),
        covers=["sigmoid_cross_entropy"], torch=torch_sigmoid_cross_entropy,
    ),
    Case(
        "checked_labels", lambda t: losses.checked_labels(t, classes=5, ignore=-1), lambda t: t,
        [lambda rng, dtype: [rng.integers(-1, 5, (3, 4)).astype(dtype)]],
        ("int64",), covers=["checked_labels"], wrt=(),
    ),
    Case(
        "softmax_cross_entropy", losses.softmax_cross_entropy, cross_entropy, row_samples(),
        covers=["softmax_cross_entropy", "softmax_cross_entropy_grad"],
        torch=torch_cross_entropy(), ulp=CANCELS,
    ),
    Case(
        "softmax_cross_entropy ignore",
        lambda x, t: losses.softmax_cross_entropy(x, t, ignore=-7),
        lambda x, t: cross_entropy(x, t, -7), row_samples(ignore=-7),
        torch=torch_cross_entropy(-7), ulp=CANCELS,
    ),
    Case(
        "softmax_cross_entropy_grad",
        lambda g, x, t: losses.softmax_cross_entropy_grad(g, x, t, ignore=None),
        cross_entropy_grad, [with_gradient(s) for s in row_samples()], FLOATS,
        covers=["softmax_cross_entropy_grad"], wrt=(0, 1), ulp=CANCELS,
    ),
    Case(
        "softmax_cross_entropy_grad ignore",
        lambda g, x, t: losses.softmax_cross_entropy_grad(g, x, t, ignore=0),
        lambda g, x, t: cross_entropy_grad(g, x, t, 0),
        [with_gradient(s) for s in row_samples(ignore=0)], FLOATS, wrt=(0, 1), ulp=CANCELS,
    ),
]  # fmt: skip

BAD: list[Bad] = [
    Bad(
        "softmax_cross_entropy of a label matrix",
        lambda: losses.softmax_cross_entropy(matrix("x"), imatrix("t")),
        ShapeError, "one label for each row",
    ),
    Bad(
        "softmax_cross_entropy of unequal rows",
        lambda: losses.softmax_cross_entropy(matrix(shape=(3, 4)), ivector(shape=(5,))),
        ShapeError, "rows and of labels 3 and 5 differ",
    ),
    Bad(
        "softmax_cross_entropy_grad of a float label",
        lambda: losses.softmax_cross_entropy_grad(vector(), matrix(), vector(), ignore=None),
        DTypeError, "int64 labels",
    ),
    Bad(
        "softmax_cross_entropy_grad of a gradient matrix",
        lambda: losses.softmax_cross_entropy_grad(
            matrix(), matrix(), lvector(), ignore=None
        ),
        ShapeError, "needs one float32 for each row",
    ),
    Bad(
        "sigmoid_cross_entropy of unequal sizes",
        lambda: losses.sigmoid_cross_entropy(vector(shape=(2,)), vector(shape=(3,))),
        ShapeError, "do not broadcast",
    ),
]  # fmt: skip
