"""The benchmark models, written as a graphdrop user would write them.

Each builder takes a `Model` (weights, resident data, a stream) and the settings of a workload, and
returns a compiled training step that takes no arguments.  Rates of 0 leave the draws out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphdrop as gd
from graphdrop import nn, optim

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Model:
    """Shared weights, resident data and a stream for one workload."""

    def __init__(self, weights: Arrays, data: Arrays, seed: int, backend: str) -> None:
        self.w = {name: gd.shared(value, name) for name, value in weights.items()}
        self.d = {name: gd.shared(value, name) for name, value in data.items()}
        self.stream = gd.RandomStream(seed)
        self.backend = backend

    def drop(self, x: Any, rate: float) -> Any:
        return gd.dropout(x, rate, self.stream)

    def step(self, loss: Any, updates: Any) -> Callable[[], Any]:
        return gd.function([], loss, updates=updates, backend=self.backend)


def mlp(model: Model, c: Any) -> Callable[[], Any]:
    """784-1024-1024-10, relu, dropout on the input and the hidden layers, Nesterov momentum."""
    w, h = model.w, model.drop(model.d["x"], c.rate_in)
    for i in range(2):
        h = model.drop(gd.relu(h @ w[f"W{i}"] + w[f"b{i}"]), c.rate_hid)
    logits = h @ w["W2"] + w["b2"]
    loss = nn.softmax_cross_entropy(logits, model.d["y"]).mean()
    updates = optim.sgd(loss, list(w.values()), lr=c.lr, momentum=c.momentum, nesterov=True)
    return model.step(loss, updates)


def blobs(model: Model, c: Any) -> Callable[[], Any]:
    """A narrow deep classifier with Adam: bound by the cost of a call, not by arithmetic."""
    w, h = model.w, model.d["x"]
    for i in range(c.layers):
        h = model.drop(gd.relu(h @ w[f"W{i}"] + w[f"b{i}"]), c.rate_hid)
    logits = h @ w[f"W{c.layers}"] + w[f"b{c.layers}"]
    loss = nn.sigmoid_cross_entropy(logits, model.d["y"].reshape(-1, 1)).mean()
    updates = optim.adam(loss, list(w.values()), lr=c.lr, beta1=c.beta1, beta2=c.beta2, eps=c.eps)
    return model.step(loss, updates)


def attention(model: Model, c: Any) -> Callable[[], Any]:
    """A pre-norm transformer block; dropout on attention, both residuals and the inner layer."""
    w, x = model.w, model.d["x"]
    batch, time, width, head = c.batch, c.T, c.d, c.d // c.heads
    y = nn.layer_norm(x, w["g1"], w["h1"], eps=c.eps)
    qkv = (y @ w["Wqkv"] + w["bqkv"]).reshape(batch, time, 3, c.heads, head)
    q, k, v = (qkv.transpose(2, 0, 3, 1, 4)[i] for i in range(3))
    scores = (q * head**-0.5) @ k.transpose(0, 1, 3, 2)
    mixed = model.drop(gd.softmax(scores, axis=-1), c.rate_hid) @ v
    mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, time, width)
    x = x + model.drop(mixed @ w["Wp"] + w["bp"], c.rate_hid)
    inner = gd.gelu(nn.layer_norm(x, w["g2"], w["h2"], eps=c.eps) @ w["W1"] + w["b1"])
    x = x + model.drop(model.drop(inner, c.rate_hid) @ w["W2"] + w["b2"], c.rate_hid)
    loss = gd.square(x - model.d["t"]).mean()
    return model.step(loss, optim.sgd(loss, list(w.values()), lr=c.lr))


MODELS: dict[str, Callable[[Model, Any], Callable[[], Any]]] = {
    "mlp": mlp,
    "blobs": blobs,
    "attention": attention,
}
