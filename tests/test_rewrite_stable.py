"""Formulas as they are written in papers, and what rewrites make of them at extreme arguments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.graph import Node
from graphdrop.ops.elementwise import exp, log, sigmoid
from graphdrop.ops.reduce import logsumexp
from graphdrop.ops.softmax import log_softmax, softmax

EXTREME = np.array([[1000.0, -1000.0, 3.0], [1.0, 2.0, 3.0], [-500.0, 500.0, 0.0]])
TARGET = np.array([[1.0, 0.0, 0.5], [0.2, 0.3, 0.4], [1.0, 1.0, 0.0]])
CHOSEN = (np.arange(3), np.array([1, 0, 2]))


def softmax_by_hand(x: Node) -> Node:
    return exp(x) / exp(x).sum(axis=1, keepdims=True)


def softmax_shifted_by_hand(x: Node) -> Node:
    weights = exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def logistic_by_hand(x: Node) -> Node:
    return 1 / (1 + exp(-x))


def cross_entropy(p: Node) -> Node:
    return -(TARGET * log(p) + (1 - TARGET) * log(1 - p))


# as written, and as it should have been written
STABLE: dict[str, tuple[Callable[[Node], Node], Callable[[Node], Node]]] = {
    "log softmax": (lambda x: log(softmax(x))[CHOSEN], lambda x: log_softmax(x)[CHOSEN]),
    "log of chosen softmax": (lambda x: log(softmax(x)[CHOSEN]), lambda x: log_softmax(x)[CHOSEN]),
    "log of a softmax row": (lambda x: log(softmax(x)[2]), lambda x: log_softmax(x)[2]),
    "log of softmax by hand": (
        lambda x: log(softmax_by_hand(x))[CHOSEN], lambda x: log_softmax(x)[CHOSEN],
    ),
    "log of chosen softmax by hand": (
        lambda x: log(softmax_by_hand(x)[CHOSEN]), lambda x: log_softmax(x)[CHOSEN],
    ),
    "softmax by hand": (softmax_by_hand, softmax),
    "softmax times targets": (lambda x: TARGET * softmax_by_hand(x), lambda x: TARGET * softmax(x)),
    "shifted": (
        lambda x: log(softmax_shifted_by_hand(x)[CHOSEN]), lambda x: log_softmax(x)[CHOSEN],
    ),
    "soft labels": (lambda x: TARGET * log(softmax(x)), lambda x: TARGET * log_softmax(x)),
    "logsumexp": (lambda x: log(exp(x).sum(axis=1)), lambda x: logsumexp(x, axis=1)),
    "logsumexp, kept": (
        lambda x: log(exp(x).sum(axis=1, keepdims=True)),
        lambda x: logsumexp(x, axis=1, keepdims=True),
    ),
    "logsumexp of all": (lambda x: log(exp(x).sum()), lambda x: logsumexp(x)),
    "softmax by hand over the first axis": (
        lambda x: TARGET * (exp(x) / exp(x).sum(axis=0)), lambda x: TARGET * softmax(x, axis=0),
    ),
    "logsumexp over the first axis": (
        lambda x: log(exp(x).sum(axis=0)), lambda x: logsumexp(x, axis=0),
    ),
    "softplus": (lambda x: log(1 + exp(x)), gd.softplus),
    "log1p of exp": (lambda x: gd.log1p(exp(x)), gd.softplus),
    "log of exp": (lambda x: log(exp(x)), lambda x: x * 1),
    "log sigmoid": (lambda x: log(sigmoid(x)), lambda x: -gd.softplus(-x)),
    "log of the rest": (lambda x: log(1 - sigmoid(x)), lambda x: -gd.softplus(x)),
    "logistic by hand": (logistic_by_hand, sigmoid),
    "log of logistic by hand": (lambda x: log(logistic_by_hand(x)), lambda x: -gd.softplus(-x)),
    "binary cross entropy": (
        lambda x: cross_entropy(sigmoid(x)), lambda x: gd.softplus(x) - TARGET * x,
    ),
    "binary cross entropy by hand": (
        lambda x: cross_entropy(logistic_by_hand(x)), lambda x: gd.softplus(x) - TARGET * x,
    ),
}  # fmt: skip


@pytest.mark.parametrize("reduced", ["sum", "mean"])
@pytest.mark.parametrize("name", STABLE)
def test_formulas_and_their_gradients_become_stable(name: str, reduced: str) -> None:
    """At x = 1000 every one of these overflows or divides by 0 as written."""
    v = gd.tensor("v", "float64", ("n", 3))
    written, meant = (getattr(build(v), reduced)() for build in STABLE[name])
    outputs = [written, gd.grad(written, v)]
    right = gd.function([v], [meant, gd.grad(meant, v)], optimize=False, backend="numpy")
    found = gd.function([v], outputs, backend="numpy")(EXTREME)
    for a, expected in zip(found, right(EXTREME), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, expected, rtol=1e-12, atol=1e-15)
    plain = gd.function([v], outputs, optimize=False, backend="numpy")(EXTREME)
    assert not all(np.isfinite(p).all() for p in plain) or "shifted" in name or "softmax" in name
