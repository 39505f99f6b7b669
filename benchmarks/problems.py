"""What every framework is given: settings, initial weights and data of each workload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SETTINGS: dict[str, dict[str, Any]] = {
    "mlp": {"batch": 128, "widths": (784, 1024, 1024, 10), "rate_in": 0.2, "rate_hid": 0.5,
            "lr": 0.01, "momentum": 0.9},
    "blobs": {"batch": 100, "widths": (2, 64, 64, 64, 64, 1), "layers": 4, "rate_hid": 0.5,
              "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "rnn": {"vocab": 2000, "hidden": 128, "T": 32, "batch": 16, "rate_hid": 0.5, "lr": 0.5},
    "lstm": {"vocab": 5000, "hidden": 200, "T": 35, "batch": 20, "layers": 2, "rate_hid": 0.5,
             "lr": 1.0, "clip": 5.0},
    "attention": {"d": 256, "heads": 4, "T": 128, "batch": 8, "rate_hid": 0.1, "lr": 0.1,
                  "eps": 1e-5},
    "mc": {"batch": 128, "widths": (784, 1024, 1024, 10), "n_in": 784, "samples": 50,
           "rate_in": 0.2, "rate_hid": 0.5},
    "drop_bw": {"n": 1 << 24, "rate_hid": 0.5, "a": 1.25, "b": 0.125},
    "chain": {"n": 1 << 23, "w": 1.25, "b": 0.125},
    "softmax_ce": {"batch": 4096, "classes": 10000},
    "deep": {"n": 1000, "ops": 1000},
    "tiny": {"n": 10},
    "tiny_grad": {"n": 10},
}  # fmt: skip
SETTINGS["lstm_var"] = SETTINGS["lstm"]
WORKLOADS = (
    "drop_bw", "chain", "softmax_ce", "mlp", "mc", "blobs", "rnn", "lstm", "lstm_var", "attention",
    "deep", "tiny", "tiny_grad",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One workload: all arrays are float32, but for labels, which are int64."""

    name: str
    settings: SimpleNamespace
    weights: dict[str, Array]
    data: dict[str, Array]


def problem(name: str, rate: float | None = None) -> Problem:
    """The workload called `name`; `rate` in place of its own rates of dropout."""
    settings = dict(SETTINGS[name])
    if rate is not None:
        settings |= {key: rate for key in settings if key.startswith("rate_")}
    c = SimpleNamespace(**settings)
    weights, data = _MAKERS[name](np.random.default_rng(7), c)
    return Problem(name, c, weights, data)


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


Made = tuple[dict[str, Array], dict[str, Array]]


def _layers(rng: np.random.Generator, c: Any) -> dict[str, Array]:
    weights = {}
    for i, (n, m) in enumerate(zip(c.widths, c.widths[1:], strict=False)):
        weights[f"W{i}"] = _normal(rng, n, m, scale=(2 / n) ** 0.5)
        weights[f"b{i}"] = _zeros(m)
    return weights


def _mlp(rng: np.random.Generator, c: Any) -> Made:
    x = rng.random((c.batch, c.widths[0]), np.float32)
    return _layers(rng, c), {"x": x, "y": rng.integers(0, c.widths[-1], c.batch)}


def _blobs(rng: np.random.Generator, c: Any) -> Made:
    y = rng.integers(0, 2, c.batch)
    x = _normal(rng, c.batch, 2) + (1.4 * y[:, None] - 0.7).astype(np.float32)
    return _layers(rng, c), {"x": x, "y": y.astype(np.float32)}


def _words(rng: np.random.Generator, c: Any) -> dict[str, Array]:
    return {name: rng.integers(0, c.vocab, (c.T, c.batch)) for name in "xy"}  # time first


def _rnn(rng: np.random.Generator, c: Any) -> Made:
    h, scale = c.hidden, c.hidden**-0.5
    weights = {
        "E": _normal(rng, c.vocab, h), "Wx": _normal(rng, h, h, scale=scale),
        "Wh": _normal(rng, h, h, scale=scale), "b": _zeros(h),
        "Wo": _normal(rng, h, c.vocab, scale=scale), "bo": _zeros(c.vocab),
    }  # fmt: skip
    return weights, _words(rng, c)


def _lstm(rng: np.random.Generator, c: Any) -> Made:
    def uniform(*shape: int) -> Array:
        return rng.uniform(-0.1, 0.1, shape).astype(np.float32)

    h = c.hidden
    weights = {"E": uniform(c.vocab, h)}
    for layer in range(c.layers):  # gates in PyTorch's order: input, forget, cell, output
        weights[f"Wx{layer}"], weights[f"Wh{layer}"] = uniform(h, 4 * h), uniform(h, 4 * h)
        weights[f"b{layer}"] = _zeros(4 * h)
    weights["Wo"], weights["bo"] = uniform(h, c.vocab), _zeros(c.vocab)
    return weights, _words(rng, c)


def _attention(rng: np.random.Generator, c: Any) -> Made:
    d, weights = c.d, {}
    for name, n, m in (("qkv", d, 3 * d), ("p", d, d), ("1", d, 4 * d), ("2", 4 * d, d)):
        weights[f"W{name}"] = _normal(rng, n, m, scale=n**-0.5)
        weights[f"b{name}"] = _zeros(m)
    for i in (1, 2):
        weights[f"g{i}"], weights[f"h{i}"] = np.ones(d, np.float32), _zeros(d)
    return weights, {name: _normal(rng, c.batch, c.T, d) for name in "xt"}


def _drop_bw(rng: np.random.Generator, c: Any) -> Made:
    return {}, {"x": _normal(rng, c.n), "c": _normal(rng, c.n)}


def _softmax_ce(rng: np.random.Generator, c: Any) -> Made:
    y = rng.integers(0, c.classes, c.batch)
    return {}, {"x": _normal(rng, c.batch, c.classes), "y": y}


def _deep(rng: np.random.Generator, c: Any) -> Made:
    """Links tanh(x + c) and x * c by turns, that let neither values nor gradients vanish."""
    even = np.arange(c.ops) % 2 == 0
    links = np.where(even, rng.uniform(-0.01, 0.01, c.ops), rng.uniform(1, 1.02, c.ops))
    return {}, {"x": _normal(rng, c.n), "c": links.astype(np.float32)}


def _chain(rng: np.random.Generator, c: Any) -> Made:
    return {}, {"x": _normal(rng, c.n)}


def _tiny(rng: np.random.Generator, c: Any) -> Made:
    return {name: _normal(rng, c.n) for name in "wb"}, {"x": _normal(rng, c.n)}


_MAKERS: dict[str, Callable[[np.random.Generator, Any], Made]] = {
    "mlp": _mlp, "mc": _mlp, "blobs": _blobs, "rnn": _rnn, "lstm": _lstm, "lstm_var": _lstm,
    "attention": _attention, "drop_bw": _drop_bw, "softmax_ce": _softmax_ce, "deep": _deep,
    "chain": _chain, "tiny": _tiny, "tiny_grad": _tiny,
}  # fmt: skip
