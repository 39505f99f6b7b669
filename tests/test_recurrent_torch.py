"""Recurrent layers against PyTorch's, the weights copied over."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn

if importlib.util.find_spec("torch") is None:
    pytest.skip(
        "recurrent layers are not compared: PyTorch is not installed", allow_module_level=True
    )

import torch

Array = np.ndarray[Any, Any]
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
KINDS = [
    ("RNN", {"nonlinearity": "tanh"}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {}),
]  # fmt: skip


def copied(layer: Any, kind: str, options: dict[str, Any], dtype: str) -> Any:
    """PyTorch's layer with random weights, which `layer` gets too."""
    theirs = getattr(torch.nn, kind)(
        5, layer.units, num_layers=layer.layers, bidirectional=layer.directions == 2,
        dtype=getattr(torch, dtype), **options,
    )  # fmt: skip
    for i, pair in enumerate(layer.weights):
        for d, w in enumerate(pair):
            end = f"_l{i}" + ("_reverse" if d else "")
            named = {k: getattr(theirs, k + end) for k in ("weight_ih", "weight_hh", "bias_ih")}
            w.W.set_value(named["weight_ih"].detach().numpy().T)
            w.U.set_value(named["weight_hh"].detach().numpy().T)
            recurrent = getattr(theirs, "bias_hh" + end)
            with torch.no_grad():  # ours has one bias, and for GRU's last gate a second
                if kind == "GRU":
                    recurrent[: 2 * layer.units] = 0
                    w.extra.set_value(recurrent[2 * layer.units :].detach().numpy())
                else:
                    recurrent[:] = 0
            w.b.set_value(named["bias_ih"].detach().numpy())
    return theirs


def agree(ours: Array, theirs: Any, dtype: str) -> None:
    expected = theirs.detach().numpy()
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, False), (2, True)])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_outputs_states_and_gradients(
    kind: str, options: dict[str, Any], layers: int, bidirectional: bool, dtype: str
) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layer = getattr(nn, kind)(
        5, 7, rng, layers=layers, bidirectional=bidirectional, dtype=dtype, **options
    )
    theirs = copied(layer, kind, options, dtype)
    x = gd.tensor("x", dtype, ("time", "batch", 5))
    h, state = layer(x)
    last = gd.concatenate(gd.tree.flatten(state)[0], axis=-1)
    loss = (h * gd.sin(h)).sum() + (last * last).sum()
    f = gd.function([x], [h, last, *gd.grad(loss, [x, *layer.params])])
    for shape in ((7, 4), (1, 3)):
        given = rng.standard_normal((*shape, 5)).astype(dtype)
        out, end, gx, *grads = f(given)
        tx = torch.from_numpy(given).requires_grad_()
        theirs.zero_grad()
        th, tstate = theirs(tx)
        parts = tstate if kind == "LSTM" else (tstate,)
        # [part][layer * direction] -> for each layer and direction all parts
        tlast = torch.cat([p[i] for i in range(len(parts[0])) for p in parts], dim=-1)
        ((th * torch.sin(th)).sum() + (tlast * tlast).sum()).backward()
        for ours, other in ((out, th), (end, tlast), (gx, tx.grad)):
            agree(ours, other, dtype)
        found = iter(grads)
        for i, pair in enumerate(layer.weights):
            for d, w in enumerate(pair):
                end_name = f"_l{i}" + ("_reverse" if d else "")
                grad = {
                    k: getattr(theirs, k + end_name).grad
                    for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                }
                agree(next(found), grad["weight_ih"].T, dtype)
                agree(next(found), grad["weight_hh"].T, dtype)
                agree(next(found), grad["bias_ih"], dtype)
                if w.extra is not None:
                    agree(next(found), grad["bias_hh"][2 * layer.units :], dtype)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_padding_is_a_packed_sequence(kind: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layer = getattr(nn, kind)(5, 7, rng, layers=2, bidirectional=True, dtype="float64")
    theirs = copied(layer, kind, {}, "float64")
    lengths = [6, 4, 4, 1]
    x, valid = (
        gd.tensor("x", "float64", ("time", "batch", 5)),
        gd.tensor("v", bool, ("time", "batch")),
    )
    h, _ = layer(x, mask=valid)
    f = gd.function([x, valid], [h, *gd.grad((h * h).sum(), layer.params)])
    given = rng.standard_normal((6, 4, 5))
    out, *grads = f(given, np.arange(6)[:, None] < np.array(lengths))
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(given), lengths)
    th, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0])
    (th * th).sum().backward()
    agree(out, th, "float64")
    agree(grads[0], theirs.weight_ih_l0.grad.T, "float64")
