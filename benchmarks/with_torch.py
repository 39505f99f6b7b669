"""The workloads in PyTorch, eager or (`with_torch_compile.py`) compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from problems import Problem

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.set_default_device(os.environ.get("BENCH_DEVICE", "cpu").replace("gpu", "cuda"))
Step = Callable[[], Any]


def prepared(forward: Callable[..., Any]) -> Callable[..., Any]:
    """What is done to a forward pass before it runs: here, nothing."""
    return forward


def wait(result: Any) -> None:
    """Until a step's result is there."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def tensors(p: Problem) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights, with gradients, and data."""
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in p.weights.items()}
    return weights, {k: torch.tensor(v) for k, v in p.data.items()}


def training(
    loss_of: Callable[[], Any], optimizer: Any, clip: tuple[Any, float] | None = None
) -> Step:
    forward = prepared(loss_of)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(*clip)
        optimizer.step()
        return loss.detach()

    return step


def hidden(w: dict[str, Any], x: Any, c: Any, layers: int) -> Any:
    for i in range(layers):
        x = F.dropout(torch.relu(torch.addmm(w[f"b{i}"], x, w[f"W{i}"])), c.rate_hid)
    return x


def mlp(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    def loss() -> Any:
        h = hidden(w, F.dropout(d["x"], c.rate_in), c, 2)
        return F.cross_entropy(torch.addmm(w["b2"], h, w["W2"]), d["y"])

    how = {"lr": c.lr, "momentum": c.momentum, "nesterov": True}
    return training(loss, torch.optim.SGD(w.values(), **how))


def blobs(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    def loss() -> Any:
        h = hidden(w, d["x"], c, c.layers)
        logits = torch.addmm(w[f"b{c.layers}"], h, w[f"W{c.layers}"])
        return F.binary_cross_entropy_with_logits(logits[:, 0], d["y"])

    return training(loss, torch.optim.Adam(w.values(), c.lr, (c.beta1, c.beta2), c.eps))


def mc(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    @torch.no_grad()
    @prepared
    def step() -> Any:
        x = d["x"].expand(c.samples, -1, -1).reshape(-1, c.n_in)
        h = hidden(w, F.dropout(x, c.rate_in), c, 2)
        found = torch.softmax(torch.addmm(w["b2"], h, w["W2"]), -1).view(c.samples, c.batch, -1)
        return found.mean(0), found.var(0, correction=0)

    return step


def rnn(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    def loss() -> Any:
        xw = w["E"][d["x"]] @ w["Wx"] + w["b"]
        h, states = torch.zeros(c.batch, c.hidden), []
        for t in range(c.T):
            h = F.dropout(torch.tanh(torch.addmm(xw[t], h, w["Wh"])), c.rate_hid)
            states.append(h)
        logits = torch.stack(states) @ w["Wo"] + w["bo"]
        return F.cross_entropy(logits.flatten(0, 1), d["y"].flatten())

    return training(loss, torch.optim.SGD(w.values(), c.lr))


def _language_model(
    p: Problem, layers: Callable[..., Any], parameters: Any, w: Any, d: Any
) -> Step:
    c = p.settings

    def loss() -> Any:
        logits = layers(w["E"][d["x"]]) @ w["Wo"] + w["bo"]
        losses = F.cross_entropy(logits.flatten(0, 1), d["y"].flatten(), reduction="sum")
        return losses / c.batch

    step = training(loss, torch.optim.SGD(parameters, c.lr), (parameters, c.clip))
    return lambda: step() / c.T


def lstm(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings
    net = torch.nn.LSTM(c.hidden, c.hidden, c.layers, dropout=c.rate_hid)
    with torch.no_grad():
        for layer in range(c.layers):
            getattr(net, f"weight_ih_l{layer}").copy_(w[f"Wx{layer}"].T)
            getattr(net, f"weight_hh_l{layer}").copy_(w[f"Wh{layer}"].T)
            getattr(net, f"bias_ih_l{layer}").zero_()
            getattr(net, f"bias_hh_l{layer}").zero_().requires_grad_(False)
    trained = [w["E"], w["Wo"], w["bo"], *(q for q in net.parameters() if q.requires_grad)]
    return _language_model(
        p, lambda x: F.dropout(net(F.dropout(x, c.rate_hid))[0], c.rate_hid), trained, w, d
    )


def lstm_var(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    def noise() -> Any:
        return F.dropout(torch.ones(c.batch, c.hidden), c.rate_hid)

    def layers(h: Any) -> Any:
        for layer in range(c.layers):
            xw = (h * noise()) @ w[f"Wx{layer}"] + w[f"b{layer}"]
            state, cell, states, mask = *torch.zeros(2, c.batch, c.hidden), [], noise()
            for t in range(c.T):
                gates = torch.addmm(xw[t], state * mask, w[f"Wh{layer}"])
                i, f, g, o = gates.chunk(4, 1)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                state = torch.sigmoid(o) * torch.tanh(cell)
                states.append(state)
            h = torch.stack(states)
        return h * noise()

    return _language_model(p, layers, list(w.values()), w, d)


def attention(p: Problem) -> Step:
    w, d = tensors(p)
    c = p.settings

    def loss() -> Any:
        x = d["x"]
        y = F.layer_norm(x, (c.d,), w["g1"], w["h1"], c.eps)
        qkv = (y @ w["Wqkv"] + w["bqkv"]).view(c.batch, c.T, 3, c.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv, dropout_p=c.rate_hid)
        mixed = mixed.transpose(1, 2).reshape(c.batch, c.T, c.d)
        x = x + F.dropout(mixed @ w["Wp"] + w["bp"], c.rate_hid)
        y = F.layer_norm(x, (c.d,), w["g2"], w["h2"], c.eps)
        inner = F.dropout(F.gelu(y @ w["W1"] + w["b1"]), c.rate_hid)
        x = x + F.dropout(inner @ w["W2"] + w["b2"], c.rate_hid)
        return F.mse_loss(x, d["t"])

    return training(loss, torch.optim.SGD(w.values(), c.lr))


def gradient(p: Problem, loss_of: Callable[[Any, dict[str, Any]], Any]) -> Step:
    d = tensors(p)[1]
    x = d["x"].requires_grad_()
    forward = prepared(loss_of)

    def step() -> Any:
        x.grad = None
        loss = forward(x, d)
        loss.backward()
        return loss.detach(), x.grad

    return step


def drop_bw(p: Problem) -> Step:
    c = p.settings
    return gradient(
        p, lambda x, d: (F.dropout(torch.relu(x * c.a + c.b), c.rate_hid) * d["c"]).sum()
    )


def chain(p: Problem) -> Step:
    c = p.settings
    return gradient(
        p, lambda x, d: (torch.tanh(x * c.w + c.b) * torch.sigmoid(x) + torch.exp(-x * x)).mean()
    )


def softmax_ce(p: Problem) -> Step:
    return gradient(p, lambda x, d: F.cross_entropy(x, d["y"]))


def deep(p: Problem) -> Step:
    links = p.data["c"].tolist()

    def loss(x: Any, d: dict[str, Any]) -> Any:
        for i, k in enumerate(links):
            x = torch.tanh(x + k) if i % 2 == 0 else x * k
        return x.sum()

    return gradient(p, loss)


def tiny(p: Problem) -> Step:
    w, d = tensors(p)
    x = d["x"]

    @torch.no_grad()
    def step() -> Any:
        return torch.tanh(w["w"] * x + w["b"]).sum()

    return step


def tiny_grad(p: Problem) -> Step:
    w, d = tensors(p)
    x = d["x"]
    return lambda: torch.autograd.grad(torch.tanh(w["w"] * x + w["b"]).sum(), (w["w"], w["b"]))


MODELS: dict[str, Callable[[Problem], Step]] = {
    f.__name__: f
    for f in (
        mlp, blobs, mc, rnn, lstm, lstm_var, attention, drop_bw, chain, softmax_ce, deep, tiny,
        tiny_grad,
    )
}  # fmt: skip
