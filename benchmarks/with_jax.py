"""The workloads in JAX, compiled whole, with weights given away to each step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen={str(os.environ['OMP_NUM_THREADS'] != '1').lower()} "
    f"intra_op_parallelism_threads={os.environ['OMP_NUM_THREADS']}"
)

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others are on the same GPU
os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(os.environ.get("BENCH_DEVICE", ""), "cpu")

import jax
import jax.numpy as jnp
from problems import Problem

jax.config.update("jax_default_matmul_precision", "highest")  # float32, as everybody's products
Step = Callable[[], Any]
wait = jax.block_until_ready
ON_GPU = os.environ["JAX_PLATFORMS"] == "cuda"
Arrays = dict[str, Any]
LossOf = Callable[[Arrays, Arrays, Any], Any]


def drop(x: Any, rate: float, key: Any, shape: Any = None) -> Any:
    """Inverted dropout with a mask of `shape`, or of x's."""
    if not rate:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape if shape is None else shape)
    return jnp.where(keep, x / (1 - rate), 0)


def run(function: Callable[..., Any], state: Any, *rest: Any) -> Step:
    """Calls of a step that returns (new state, result), with a new key each time."""
    keys, held = jax.random.split(jax.random.key(0), 4096), [state, 0]
    compiled = jax.jit(function, donate_argnums=0)

    def step() -> Any:
        held[0], found = compiled(held[0], keys[held[1] % 4096], *rest)
        held[1] += 1
        return found if ON_GPU else jax.block_until_ready(found)

    return step


def arrays(p: Problem) -> tuple[Arrays, Arrays]:
    return (
        {k: jnp.asarray(v) for k, v in p.weights.items()},
        {k: jnp.asarray(v) for k, v in p.data.items()},
    )


def sgd(p: Problem, loss_of: LossOf, clip: float | None = None, report: float = 1.0) -> Step:
    w, d = arrays(p)
    lr = p.settings.lr

    def step(w: Arrays, key: Any, d: Arrays) -> Any:
        loss, g = jax.value_and_grad(loss_of)(w, d, key)
        scale = 1.0
        if clip is not None:
            norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in g.values()))
            scale = jnp.minimum(1.0, clip / norm)
        return {k: w[k] - lr * scale * g[k] for k in w}, loss * report

    return run(step, w, d)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """A loss for each row; logits in two axes are what XLA multiplies quickest."""
    own = jnp.take_along_axis(logits, labels.reshape(-1, 1), -1)[:, 0]
    return jax.nn.logsumexp(logits, -1) - own


def hidden(w: Arrays, x: Any, c: Any, layers: int, keys: Any) -> Any:
    for i in range(layers):
        x = drop(jax.nn.relu(x @ w[f"W{i}"] + w[f"b{i}"]), c.rate_hid, keys[i])
    return x


def mlp(p: Problem) -> Step:
    w, d = arrays(p)
    c = p.settings

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        first, *keys = jax.random.split(key, 3)
        h = hidden(w, drop(d["x"], c.rate_in, first), c, 2, keys)
        return cross_entropy(h @ w["W2"] + w["b2"], d["y"]).mean()

    def step(state: Any, key: Any, d: Arrays) -> Any:
        w, v = state
        loss, g = jax.value_and_grad(loss_of)(w, d, key)
        v = {k: c.momentum * v[k] + g[k] for k in v}
        return ({k: w[k] - c.lr * (g[k] + c.momentum * v[k]) for k in w}, v), loss

    return run(step, (w, jax.tree.map(jnp.zeros_like, w)), d)


def blobs(p: Problem) -> Step:
    w, d = arrays(p)
    c = p.settings

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        h = hidden(w, d["x"], c, c.layers, jax.random.split(key, c.layers))
        z = (h @ w[f"W{c.layers}"] + w[f"b{c.layers}"])[:, 0]
        return (jax.nn.softplus(z) - z * d["y"]).mean()

    def step(state: Any, key: Any, d: Arrays) -> Any:
        w, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(w, d, key)
        t = t + 1
        m = {k: c.beta1 * m[k] + (1 - c.beta1) * g[k] for k in w}
        v = {k: c.beta2 * v[k] + (1 - c.beta2) * g[k] ** 2 for k in w}
        a, b = 1 - c.beta1**t, 1 - c.beta2**t
        w = {k: w[k] - c.lr * (m[k] / a) / (jnp.sqrt(v[k] / b) + c.eps) for k in w}
        return (w, m, v, t), loss

    zeros = [jax.tree.map(jnp.zeros_like, w) for _ in range(2)]
    return run(step, (w, *zeros, jnp.zeros(())), d)


def mc(p: Problem) -> Step:
    c = p.settings

    def step(w: Arrays, key: Any, x: Any) -> Any:
        first, *keys = jax.random.split(key, 3)
        x = drop(jnp.broadcast_to(x, (c.samples, *x.shape)), c.rate_in, first)
        found = jax.nn.softmax(hidden(w, x, c, 2, keys) @ w["W2"] + w["b2"])
        return w, (found.mean(0), found.var(0))

    w, d = arrays(p)
    return run(step, w, d["x"])


def rnn(p: Problem) -> Step:
    c = p.settings

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        def cell(h: Any, given: Any) -> Any:
            h = jnp.tanh(given[0] + h @ w["Wh"]) * given[1]
            return h, h

        xw = w["E"][d["x"]] @ w["Wx"] + w["b"]
        start = jnp.zeros((c.batch, c.hidden))
        noise = drop(jnp.ones(xw.shape), c.rate_hid, key)  # all at once is quicker than by step
        _, states = jax.lax.scan(cell, start, (xw, noise))
        logits = states.reshape(-1, c.hidden) @ w["Wo"] + w["bo"]
        return cross_entropy(logits, d["y"]).mean()

    return sgd(p, loss_of)


def lstm(p: Problem, variational: bool = False) -> Step:
    c = p.settings
    shape = (c.batch, c.hidden)

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        keys = iter(jax.random.split(key, 2 * c.layers + 1))
        shared = shape if variational else None  # a mask for all of time
        h = w["E"][d["x"]]
        for layer in range(c.layers):
            xw = drop(h, c.rate_hid, next(keys), shared) @ w[f"Wx{layer}"] + w[f"b{layer}"]
            noise = drop(jnp.ones(shape), c.rate_hid if variational else 0, next(keys))

            def cell(state: Any, xw: Any, wh: Any = w[f"Wh{layer}"], noise: Any = noise) -> Any:
                h, cell = state
                i, f, g, o = jnp.split(xw + (h * noise) @ wh, 4, 1)
                cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(cell)
                return (h, cell), h

            _, h = jax.lax.scan(cell, (jnp.zeros(shape), jnp.zeros(shape)), xw)
        h = drop(h, c.rate_hid, next(keys), shared).reshape(-1, c.hidden)
        logits = h @ w["Wo"] + w["bo"]
        return cross_entropy(logits, d["y"]).sum() / c.batch

    return sgd(p, loss_of, c.clip, 1 / c.T)


def lstm_var(p: Problem) -> Step:
    return lstm(p, variational=True)


def layer_norm(x: Any, g: Any, h: Any, eps: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps) * g + h


def attention(p: Problem) -> Step:
    c = p.settings

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        keys = jax.random.split(key, 4)
        x = d["x"]
        y = layer_norm(x, w["g1"], w["h1"], c.eps)
        qkv = (y @ w["Wqkv"] + w["bqkv"]).reshape(c.batch, c.T, 3, c.heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = (q * (c.d // c.heads) ** -0.5) @ k.swapaxes(-1, -2)
        mixed = drop(jax.nn.softmax(scores), c.rate_hid, keys[0]) @ v
        mixed = mixed.swapaxes(1, 2).reshape(x.shape)
        x = x + drop(mixed @ w["Wp"] + w["bp"], c.rate_hid, keys[1])
        y = layer_norm(x, w["g2"], w["h2"], c.eps)
        inner = jax.nn.gelu(y @ w["W1"] + w["b1"], approximate=False)
        inner = drop(inner, c.rate_hid, keys[2])
        x = x + drop(inner @ w["W2"] + w["b2"], c.rate_hid, keys[3])
        return ((x - d["t"]) ** 2).mean()

    return sgd(p, loss_of)


def gradient(p: Problem, loss_of: LossOf) -> Step:
    """(loss, gradient by x); the step has no state."""
    _, d = arrays(p)
    both = jax.value_and_grad(lambda x, d, key: loss_of({"x": x}, d, key))
    return run(lambda state, key, d: (state, both(d["x"], d, key)), jnp.zeros(()), d)


def drop_bw(p: Problem) -> Step:
    c = p.settings
    return gradient(
        p,
        lambda w, d, key: (drop(jax.nn.relu(w["x"] * c.a + c.b), c.rate_hid, key) * d["c"]).sum(),
    )


def chain(p: Problem) -> Step:
    c = p.settings

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        x = w["x"]
        return (jnp.tanh(x * c.w + c.b) * jax.nn.sigmoid(x) + jnp.exp(-x * x)).mean()

    return gradient(p, loss_of)


def softmax_ce(p: Problem) -> Step:
    return gradient(p, lambda w, d, key: cross_entropy(w["x"], d["y"]).mean())


def deep(p: Problem) -> Step:
    links = p.data["c"].tolist()

    def loss_of(w: Arrays, d: Arrays, key: Any) -> Any:
        x = w["x"]
        for i, k in enumerate(links):
            x = jnp.tanh(x + k) if i % 2 == 0 else x * k
        return x.sum()

    return gradient(p, loss_of)


def tiny(p: Problem) -> Step:
    w, d = arrays(p)
    f = jax.jit(lambda x: jnp.tanh(w["w"] * x + w["b"]).sum())
    return lambda: f(d["x"]).block_until_ready()


def tiny_grad(p: Problem) -> Step:
    w, d = arrays(p)
    f = jax.jit(jax.grad(lambda w, b, x: jnp.tanh(w * x + b).sum(), (0, 1)))
    return lambda: jax.block_until_ready(f(w["w"], w["b"], d["x"]))


MODELS: dict[str, Callable[[Problem], Step]] = {
    f.__name__: f
    for f in (
        mlp, blobs, mc, rnn, lstm, lstm_var, attention, drop_bw, chain, softmax_ce, deep, tiny,
        tiny_grad,
    )
}  # fmt: skip
