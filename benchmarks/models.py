"""The benchmark models, written as a graphdrop user would write them.

Each builder takes a `Model` (weights, resident data, a stream) and the settings of a workload, and
returns a compiled step that takes no arguments; what it gives begins with the loss.  Rates of 0
leave the draws out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphdrop as gd
from graphdrop import nn, optim
from graphdrop.backend import get_backend

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Model:
    """Shared weights, inputs for the data and a stream for one workload.

    Data lie where the backend computes, and so do results: on a device, nothing is copied.
    """

    def __init__(self, weights: Arrays, data: Arrays, seed: int, backend: str) -> None:
        self.w = {name: gd.shared(value, name) for name, value in weights.items()}
        self.d = {name: gd.tensor(name, a.dtype, a.shape) for name, a in data.items()}
        self.arrays = {name: get_backend(backend).to_device(a) for name, a in data.items()}
        self.data = data
        self.stream = gd.RandomStream(seed)
        self.backend = backend

    def drop(self, x: Any, rate: float, axes: Any = None) -> Any:
        return gd.dropout(x, rate, self.stream, axes=axes) if rate else x

    def step(self, loss: Any, updates: Any) -> Callable[[], Any]:
        return self._compiled(loss, updates)

    def values(self, *outputs: Any) -> Callable[[], Any]:
        return self._compiled(outputs, None)

    def _compiled(self, outputs: Any, updates: Any) -> Callable[[], Any]:
        """A function of the data, given the data."""
        f = gd.function(
            list(self.d.values()), outputs, updates=updates, backend=self.backend,
            on_unused_input="ignore", results="device",
        )  # fmt: skip
        return Given(f, list(self.arrays.values()))


class Given:
    """A compiled function with its arguments."""

    def __init__(self, function: Any, arrays: list[Any]) -> None:
        self.function, self.arrays = function, arrays

    def __call__(self) -> Any:
        return self.function(*self.arrays)


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


def rnn(model: Model, c: Any) -> Callable[[], Any]:
    """A vanilla RNN language model, dropout on the state of every step."""
    w, x = model.w, model.d["x"]

    def step(h: Any, xw: Any) -> tuple[Any, Any]:
        h = model.drop(gd.tanh(xw + h @ w["Wh"]), c.rate_hid)
        return h, h

    xw = w["E"][x] @ w["Wx"] + w["b"]
    _, hs = gd.scan(step, xw, init=gd.zeros((c.batch, c.hidden)))
    loss = nn.softmax_cross_entropy(hs @ w["Wo"] + w["bo"], model.d["y"]).mean()
    return model.step(loss, optim.sgd(loss, list(w.values()), lr=c.lr))


def lstm(model: Model, c: Any, variational: bool = False) -> Callable[[], Any]:
    """Two LSTM layers; dropout between layers, or masks shared over time and on the state too."""
    w, h = model.w, model.w["E"][model.d["x"]]
    axes = 0 if variational else None  # axis 0 is time

    for layer in range(c.layers):
        wh = w[f"Wh{layer}"]
        noise = model.drop(gd.ones((c.batch, c.hidden)), c.rate_hid) if variational else None

        def step(state: Any, xw: Any, wh: Any = wh, noise: Any = noise) -> tuple[Any, Any]:
            h, cell = state
            i, f, g, o = gd.split(xw + (h if noise is None else h * noise) @ wh, 4, axis=-1)
            cell = gd.sigmoid(f) * cell + gd.sigmoid(i) * gd.tanh(g)
            h = gd.sigmoid(o) * gd.tanh(cell)
            return (h, cell), h

        xw = model.drop(h, c.rate_hid, axes) @ w[f"Wx{layer}"] + w[f"b{layer}"]
        zeros = gd.zeros((c.batch, c.hidden))
        _, h = gd.scan(step, xw, init=(zeros, zeros))
    logits = model.drop(h, c.rate_hid, axes) @ w["Wo"] + w["bo"]
    losses = nn.softmax_cross_entropy(logits, model.d["y"])
    params = list(w.values())
    grads = optim.clip_by_global_norm(gd.grad(losses.sum() / c.batch, params), c.clip)
    return model.step(losses.mean(), optim.sgd(grads, params, lr=c.lr))


def lstm_var(model: Model, c: Any) -> Callable[[], Any]:
    return lstm(model, c, variational=True)


def mc(model: Model, c: Any) -> Callable[[], Any]:
    """Mean and variance of the MLP's classes over fresh masks."""
    w = model.w
    h = model.drop(model.d["x"], c.rate_in)
    for i in range(2):
        h = model.drop(gd.relu(h @ w[f"W{i}"] + w[f"b{i}"]), c.rate_hid)
    p = gd.softmax(h @ w["W2"] + w["b2"], axis=-1)
    return model.values(*nn.mc_dropout(p, c.samples))


def drop_bw(model: Model, c: Any) -> Callable[[], Any]:
    """relu and dropout, forward and backward: bound by memory."""
    x = model.d["x"]
    loss = (model.drop(gd.relu(x * c.a + c.b), c.rate_hid) * model.d["c"]).sum()
    return model.values(loss, gd.grad(loss, x))


def chain(model: Model, c: Any) -> Callable[[], Any]:
    """A chain of elementwise functions and its gradient."""
    x = model.d["x"]
    loss = (gd.tanh(x * c.w + c.b) * gd.sigmoid(x) + gd.exp(-x * x)).mean()
    return model.values(loss, gd.grad(loss, x))


def deep(model: Model, c: Any) -> Callable[[], Any]:
    """A thousand small operations and their gradient."""
    x = h = model.d["x"]
    for i, k in enumerate(model.data["c"].tolist()):
        h = gd.tanh(h + k) if i % 2 == 0 else h * k
    loss = h.sum()
    return model.values(loss, gd.grad(loss, x))


def softmax_ce(model: Model, c: Any) -> Callable[[], Any]:
    """A wide softmax cross entropy and its gradient."""
    loss = nn.softmax_cross_entropy(model.d["x"], model.d["y"]).mean()
    return model.values(loss, gd.grad(loss, model.d["x"]))


def tiny(model: Model, c: Any) -> Callable[[], Any]:
    """One call of a small function with an argument."""
    x = gd.vector("x", shape=(c.n,))
    y = gd.tanh(model.w["w"] * x + model.w["b"]).sum()
    f = gd.function([x], y, backend=model.backend, results="device")
    array = model.arrays["x"]
    return lambda: f(array)


def tiny_grad(model: Model, c: Any) -> Callable[[], Any]:
    """One call of its gradient by two vectors."""
    x = gd.vector("x", shape=(c.n,))
    params = [model.w["w"], model.w["b"]]
    loss = gd.tanh(params[0] * x + params[1]).sum()
    f = gd.function([x], gd.grad(loss, params), backend=model.backend, results="device")
    array = model.arrays["x"]
    return lambda: f(array)


MODELS: dict[str, Callable[[Model, Any], Callable[[], Any]]] = {
    f.__name__: f
    for f in (
        mlp, blobs, attention, rnn, lstm, lstm_var, mc, drop_bw, chain, deep, softmax_ce, tiny,
        tiny_grad,
    )
}  # fmt: skip
