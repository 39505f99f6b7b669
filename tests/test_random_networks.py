"""Networks made of layers in any order, of known and unknown sizes: every backend agrees with the
oracle on values, gradients and what updates make of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop import nn, optim
from graphdrop.graph import Node

from . import cudashim

Layer = Callable[["Network", Node], Node]
SHIM = cudashim.register()


@dataclass
class Network:
    """What layers are made with; weights are the same in every network of one seed."""

    stream: gd.RandomStream
    training: Node
    ids: Node
    dtype: str
    rng: np.random.Generator
    weights: list[Any] = field(default_factory=list)

    def weight(self, *shape: Any) -> Any:
        start = (self.rng.normal(size=shape) / 2).astype(self.dtype)
        self.weights.append(gd.shared(start, f"w{len(self.weights)}"))
        return self.weights[-1]

    def drop(self, x: Node, **how: Any) -> Node:
        return gd.dropout(x, 0.25, self.stream, self.training, **how)


LAYERS: dict[str, Layer] = {
    "tanh": lambda g, x: gd.tanh(x),
    "swish": lambda g, x: x * gd.sigmoid(x),
    "leaky": lambda g, x: gd.where(x > 0, x, x * 0.1),
    "product": lambda g, x: x @ g.weight(x.shape[-1], 17),
    "narrow": lambda g, x: x @ g.weight(x.shape[-1], 1),
    "bias": lambda g, x: x + g.weight(x.shape[-1]),
    "bell": lambda g, x: gd.exp(-gd.square(x)) * g.weight(x.shape[-1]),
    "norm": lambda g, x: nn.layer_norm(x, g.weight(x.shape[-1]), g.weight(x.shape[-1])),
    "softmax": lambda g, x: gd.softmax(x),
    "log softmax": lambda g, x: gd.log_softmax(x),
    "logsumexp": lambda g, x: x - gd.logsumexp(x, axis=-1, keepdims=True),
    "centred rows": lambda g, x: x - x.mean(axis=-1, keepdims=True),
    "centred columns": lambda g, x: x - x.mean(axis=0, keepdims=True),
    "short rows": lambda g, x: x / (1 + gd.square(x).sum(axis=-1, keepdims=True)),
    "short columns": lambda g, x: x / (1 + gd.square(x).sum(axis=0, keepdims=True)),
    "dropout": lambda g, x: g.drop(x),
    "dropout of rows": lambda g, x: g.drop(x, axes=-1),
    "dropout of columns": lambda g, x: g.drop(x, axes=0),
    "dropout by ids": lambda g, x: g.drop(x, example=g.ids),
    "beside itself": lambda g, x: gd.concatenate([x, x * x], axis=-1),
    "backwards": lambda g, x: x[:, ::-1],
}
LOSSES: dict[str, Callable[[Node, Node], Node]] = {
    "cross entropy": lambda y, labels: nn.softmax_cross_entropy(y, labels).mean(),
    "mean square": lambda y, labels: gd.square(y).mean(),
    "column sums": lambda y, labels: gd.square(y.sum(axis=0)).sum(),
    "row logsumexp": lambda y, labels: gd.logsumexp(y, axis=-1).sum(),
}
SETTINGS = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip


def results(
    names: list[str],
    loss: str,
    rows: int,
    columns: int,
    known: bool,
    dtype: str,
    seed: int,
    backend: str,
) -> list[Any]:
    """What three steps give, one of them not training, and the weights after these."""
    size = rows if known else "rows"
    x, labels = gd.matrix("x", shape=(size, columns), dtype=dtype), gd.lvector("labels")
    training, ids = gd.flag("training"), gd.lvector("ids")
    net = Network(gd.RandomStream(seed), training, ids, dtype, np.random.default_rng(seed))
    y: Node = x
    for name in ("bias", *names):
        y = LAYERS[name](net, y)
    cost = LOSSES[loss](y, labels)
    cost = cost + sum(gd.square(w).sum() for w in net.weights) * 0.01
    slopes = gd.grad(cost, [x, *net.weights], disconnected="zero")
    inputs = {"backend": backend, "on_unused_input": "ignore", "inputs": [x, labels, training, ids]}
    step = gd.function(
        outputs=[y, cost, *slopes], **inputs,
        updates=optim.sgd(cost, net.weights, lr=0.05, momentum=0.9),
    )  # fmt: skip
    # what is not kept for a gradient may have to be computed again
    look = gd.function(outputs=[y.sum(axis=0), gd.square(y).sum(axis=-1)], **inputs)
    rng, found = np.random.default_rng(seed + 1), []
    for flag in (True, False, True):
        values, numbers = rng.normal(size=(rows, columns)).astype(dtype), rng.integers(0, 99, rows)
        given = values, np.zeros(rows, np.int64), flag, numbers
        found += [*step(*given), *look(*given)]
    return [*found, *(w.get_value() for w in net.weights)]


def agrees(backend: str, count: int) -> None:
    @settings(SETTINGS, max_examples=count)
    @given(
        names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6),
        loss=st.sampled_from(sorted(LOSSES)), rows=st.sampled_from([1, 2, 33, 130]),
        columns=st.sampled_from([1, 2, 31, 300]), known=st.booleans(),
        dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 99),
    )  # fmt: skip
    def check(**network: Any) -> None:
        pairs = zip(*(results(**network, backend=b) for b in ("numpy", backend)), strict=True)
        for right, found in pairs:
            assert (found.shape, found.dtype) == (right.shape, right.dtype)
            largest = np.abs(np.nan_to_num(right)).max(initial=1)
            rough = 1e6 if network["dtype"] == "float32" else 1
            np.testing.assert_allclose(found, right, rtol=1e-8 * rough, atol=1e-9 * rough * largest)

    check()


@pytest.mark.slow
def test_on_the_cpu() -> None:
    agrees("llvm", 160)


@cudashim.needs_compiler
@pytest.mark.slow
def test_as_cuda_kernels() -> None:
    agrees(SHIM, 80)
