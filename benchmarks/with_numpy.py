"""Workloads in NumPy, gradients by hand and memory allocated once: those with few formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from problems import Problem
from scipy.special import expit

Step = Callable[[], Any]


class Masks:
    """Masks of kept entries, scaled; drawn from 16 random bits an entry."""

    def __init__(self, rate: float, shape: tuple[int, ...]) -> None:
        self.rng = np.random.Generator(np.random.SFC64(0))
        self.threshold, self.shape = round(rate * 65536), shape
        self.found = np.empty(shape, np.float32)
        self.count, self.scale = int(np.prod(shape)), np.float32(1 / (1 - rate))

    def draw(self) -> Any:
        if not self.threshold:
            return np.float32(1)
        words = self.rng.integers(0, 2**64, -(-self.count // 4), np.uint64)
        kept = words.view(np.uint16)[: self.count].reshape(self.shape) >= self.threshold
        return np.multiply(kept, self.scale, out=self.found)


def mlp(p: Problem) -> Step:
    w, x, y, c = {k: v.copy() for k, v in p.weights.items()}, p.data["x"], p.data["y"], p.settings
    v = {k: np.zeros_like(a) for k, a in w.items()}
    rows = np.arange(len(y))
    noise = [Masks(c.rate_in, x.shape)] + [Masks(c.rate_hid, (c.batch, n)) for n in c.widths[1:3]]

    def step() -> Any:
        masks = [m.draw() for m in noise]
        h0 = x * masks[0]
        a1 = h0 @ w["W0"] + w["b0"]
        h1 = np.maximum(a1, 0) * masks[1]
        a2 = h1 @ w["W1"] + w["b1"]
        h2 = np.maximum(a2, 0) * masks[2]
        logits = h2 @ w["W2"] + w["b2"]
        logits -= logits.max(1, keepdims=True)
        e = np.exp(logits)
        total = e.sum(1)
        loss = (np.log(total) - logits[rows, y]).mean()
        d = e / total[:, None]
        d[rows, y] -= 1
        d /= np.float32(len(y))
        g = {"W2": h2.T @ d, "b2": d.sum(0)}
        d = (d @ w["W2"].T) * masks[2] * (a2 > 0)
        g |= {"W1": h1.T @ d, "b1": d.sum(0)}
        d = (d @ w["W1"].T) * masks[1] * (a1 > 0)
        g |= {"W0": h0.T @ d, "b0": d.sum(0)}
        for k, value in g.items():
            v[k] *= np.float32(c.momentum)
            v[k] += value
            value += np.float32(c.momentum) * v[k]
            value *= np.float32(c.lr)
            w[k] -= value
        return loss

    return step


def drop_bw(p: Problem) -> Step:
    x, k, c = p.data["x"], p.data["c"], p.settings
    noise, a = Masks(c.rate_hid, x.shape), np.float32(c.a)
    pre, slope = np.empty_like(x), np.empty_like(x)

    def step() -> Any:
        np.multiply(x, a, out=pre)
        np.add(pre, np.float32(c.b), out=pre)
        np.multiply(k, noise.draw(), out=slope)
        np.multiply(slope, pre > 0, out=slope)
        loss = np.dot(pre, slope)
        return loss, slope * a

    return step


def chain(p: Problem) -> Step:
    x, c = p.data["x"], p.settings

    def step() -> Any:
        t, s, e = np.tanh(x * np.float32(c.w) + np.float32(c.b)), expit(x), np.exp(-x * x)
        loss = (t * s + e).mean()
        g = (1 - t * t) * s * np.float32(c.w) + t * s * (1 - s) - 2 * x * e
        return loss, g / np.float32(x.size)

    return step


def softmax_ce(p: Problem) -> Step:
    x, y = p.data["x"], p.data["y"]
    rows, e = np.arange(len(y)), np.empty_like(x)

    def step() -> Any:
        np.subtract(x, x.max(1, keepdims=True), out=e)
        own = e[rows, y]
        np.exp(e, out=e)
        total = e.sum(1)
        g = e * (1 / (total * np.float32(len(y))))[:, None]
        g[rows, y] -= np.float32(1 / len(y))
        return (np.log(total) - own).mean(), g

    return step


def deep(p: Problem) -> Step:
    x, links = p.data["x"], p.data["c"]

    def step() -> Any:
        values, h = [], x
        for i, k in enumerate(links):
            h = np.tanh(h + k) if i % 2 == 0 else h * k
            values.append(h)
        g = np.ones_like(x)
        for i in reversed(range(len(links))):
            g = g * (1 - values[i] ** 2) if i % 2 == 0 else g * links[i]
        return h.sum(), g

    return step


def tiny(p: Problem) -> Step:
    w, b, x = p.weights["w"], p.weights["b"], p.data["x"]
    return lambda: np.tanh(w * x + b).sum()


def tiny_grad(p: Problem) -> Step:
    w, b, x = p.weights["w"], p.weights["b"], p.data["x"]

    def step() -> Any:
        t = np.tanh(w * x + b)
        g = 1 - t * t
        return g * x, g

    return step


MODELS: dict[str, Callable[[Problem], Step]] = {
    f.__name__: f for f in (mlp, drop_bw, chain, softmax_ce, deep, tiny, tiny_grad)
}
