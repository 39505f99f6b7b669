"""Recurrent layers against loops in NumPy, with every kind of dropout replayed by the formula.

Gradients are compared with complex steps: Im f(x + i h d) / h is the derivative of a NumPy loop
along d to the last digit (Squire and Trapp 1998).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn
from graphdrop.errors import ArgumentError, DTypeError, GraphdropError, RandomError, ShapeError

from . import philox

Array = np.ndarray[Any, Any]
KINDS = ("RNN", "LSTM", "GRU")
N_IN, UNITS, SEED = 5, 3, 11


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Replay:
    """The masks of one call, by section 4."""

    def __init__(self, rates: dict[str, Any], call: int, variational: bool, size: int) -> None:
        self.rates, self.call, self.variational, self.size = rates, call, variational, size

    def keep(self, name: str, rate: float, shape: tuple[int, ...], t: int) -> Array:
        """A mask of step t, or of all steps."""
        step = 0 if self.variational else 1 + t
        return philox.mask(rate, shape, SEED, philox.site_of(name), self.call, step=step)

    def drop(self, x: Array, which: str, label: str, t: int) -> Array:
        rate = self.rates.get(which, 0.0)
        if rate == 0:
            return x
        return philox.dropped(x, self.keep(f"d.{which}{label}", rate, x.shape, t), rate)

    def drop_all(self, x: Array, which: str) -> Array:
        """A whole sequence: one draw, outside the loop."""
        rate = self.rates.get(which, 0.0)
        if rate == 0:
            return x
        shape = (1, *x.shape[1:]) if self.variational else x.shape
        keep = philox.mask(rate, shape, SEED, philox.site_of(f"d.{which}"), self.call)
        return philox.dropped(x, keep, rate)

    def zone(self, new: Array, old: Array, part: str, label: str, t: int) -> Array:
        rates = self.rates.get("zoneout", 0.0)
        rate = rates["hc".index(part)] if isinstance(rates, tuple) else rates
        if rate == 0:
            return new
        keep = self.keep(f"d.zoneout_{part}{label}", rate, new.shape, t)
        return np.where(keep, new, old)


def one_step(
    kind: str, x: Array, state: tuple[Array, ...], u: Array, extra: Array | None,
    masks: Replay | None, label: str, t: int,
) -> tuple[Array, ...]:  # fmt: skip
    """A step as in the docstrings of the layers."""

    def drop(value: Array) -> Array:
        return value if masks is None else masks.drop(value, "update", label, t)

    def zone(new: Array, old: Array, part: str) -> Array:
        return new if masks is None else masks.zone(new, old, part, label, t)

    if kind == "RNN":
        return (zone(np.tanh(x + u), state[0], "h"),)
    if kind == "GRU":
        (xr, xz, xn), (ur, uz, un) = np.split(x, 3, axis=1), np.split(u, 3, axis=1)
        z = sigmoid(xz + uz)
        new = drop(np.tanh(xn + sigmoid(xr + ur) * (un + extra)))
        return (zone((1 - z) * new + z * state[0], state[0], "h"),)
    h, c = state
    i, f, g, o = np.split(x + u, 4, axis=1)
    if extra is not None:
        i, f = i + extra[0] * c, f + extra[1] * c
    memory = sigmoid(f) * c + sigmoid(i) * drop(np.tanh(g))
    o = o if extra is None else o + extra[2] * memory
    memory = zone(memory, c, "c")
    return zone(sigmoid(o) * np.tanh(memory), h, "h"), memory


def run(
    kind: str, x: Array, weights: list[list[list[Array]]], masks: Replay | None = None,
    valid: Array | None = None,
) -> tuple[Array, list[Any]]:  # fmt: skip
    """Stacked layers in one or two directions, as a loop."""
    last = []
    for layer, pair in enumerate(weights):
        if masks is not None:
            between = "between" + (str(layer) if len(weights) > 2 else "")
            x = masks.drop_all(x, between if layer else "inputs")
        outs = []
        for d, (w, u, b, *extra) in enumerate(pair):
            label = (f".{layer}" if len(weights) > 1 else "") + (".back" if d else "")
            rate = 0.0 if masks is None else masks.rates.get("weights", 0.0)
            if masks is not None and rate:
                site = philox.site_of("d.weights" + label)
                keep = philox.mask(rate, u.shape, SEED, site, masks.call)
                u = philox.dropped(u, keep, rate)
            zero = np.zeros((x.shape[1], u.shape[0]), np.result_type(x, w))
            state = (zero,) * (2 if kind == "LSTM" else 1)
            hs = np.zeros((len(x), *zero.shape), zero.dtype)
            for t in range(len(x))[:: -1 if d else 1]:
                h = state[0] if masks is None else masks.drop(state[0], "state", label, t)
                new = one_step(
                    kind, x[t] @ w + b, state, h @ u, extra[0] if extra else None, masks, label, t
                )
                if valid is not None:
                    new = tuple(
                        np.where(valid[t][:, None], n, o) for n, o in zip(new, state, strict=True)
                    )
                state = new
                hs[t] = state[0] if valid is None else np.where(valid[t][:, None], state[0], 0)
            outs.append(hs)
            last.append(state)
        x = np.concatenate(outs, axis=2)
    return (x if masks is None else masks.drop_all(x, "outputs")), last


def build(
    kind: str, dropout: nn.RecurrentDropout | None = None, **options: Any
) -> tuple[Any, list[list[list[Array]]]]:
    """A layer in float64 with all its parameters random, and these as arrays."""
    rng = np.random.default_rng(5)
    layer = getattr(nn, kind)(N_IN, UNITS, rng, dtype="float64", dropout=dropout, **options)
    for p in layer.params:
        p.set_value(rng.standard_normal(p.get_value().shape))
    return layer, values(layer)


def values(layer: Any) -> list[list[list[Array]]]:
    return [[[p.get_value() for p in w.params] for w in pair] for pair in layer.weights]


def compare(
    layer: Any, expected: Callable[[Array, list[Any]], Array], x: Array, mask: Array | None = None
) -> None:
    """Outputs, and their gradients by x and by every parameter along random directions."""
    node = gd.tensor("x", "float64", ("time", "batch", N_IN))
    valid = gd.tensor("valid", bool, ("time", "batch"))
    out, _ = layer(node) if mask is None else layer(node, mask=valid)
    rng = np.random.default_rng(9)
    weights = rng.standard_normal(expected(x, values(layer)).shape)
    loss = (out * weights).sum()
    inputs = [node] if mask is None else [node, valid]
    f = gd.function(inputs, [out, *gd.grad(loss, [node, *layer.params])])
    found, *grads = f(*([x] if mask is None else [x, mask]))
    np.testing.assert_allclose(found, expected(x, values(layer)), rtol=0, atol=1e-10)

    arrays = [x, *(p.get_value() for p in layer.params)]
    for i, grad in enumerate(grads):
        along = rng.standard_normal(grad.shape)
        moved = [a.astype(complex) for a in arrays]
        moved[i] = moved[i] + 1e-30j * along
        rest = iter(moved[1:])
        parameters = [[[next(rest) for _ in w.params] for w in pair] for pair in layer.weights]
        slope = (expected(moved[0], parameters) * weights).sum().imag / 1e-30
        np.testing.assert_allclose((grad * along).sum(), slope, rtol=1e-10, atol=1e-10)


SHAPES = [(7, 4), (1, 2), (2, 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"layers": 2}, {"layers": 3, "bidirectional": True}])
def test_a_layer_is_its_loop(kind: str, options: dict[str, Any]) -> None:
    layer, _ = build(kind, **options)
    for shape in SHAPES:
        x = np.random.default_rng(1).standard_normal((*shape, N_IN))
        compare(layer, lambda x, w: run(kind, x, w)[0], x)


def test_peepholes() -> None:
    layer, _ = build("LSTM", peepholes=True)
    assert [p.name for p in layer.params] == ["lstm.W", "lstm.U", "lstm.b", "lstm.P"]
    x = np.random.default_rng(1).standard_normal((6, 4, N_IN))
    compare(layer, lambda x, w: run("LSTM", x, w)[0], x)


@pytest.mark.parametrize("kind", KINDS)
def test_padding(kind: str) -> None:
    """Rows of a batch have their own lengths; padding changes nothing and gives zeros."""
    layer, weights = build(kind, layers=2, bidirectional=True)
    x = np.random.default_rng(1).standard_normal((6, 4, N_IN))
    valid = np.arange(6)[:, None] < np.array([6, 3, 1, 0])
    compare(layer, lambda x, w: run(kind, x, w, valid=valid)[0], x, valid)
    found = run(kind, x, weights, valid=valid)[0]
    alone = run(kind, x[:3, 1:2], weights)[0]
    np.testing.assert_allclose(found[:3, 1:2], alone, atol=1e-12)
    assert not found[3:, 1].any()


CHOICES: list[dict[str, Any]] = [
    {"inputs": 0.4},
    {"outputs": 0.4},
    {"inputs": 0.2, "between": 0.4, "outputs": 0.3},
    {"state": 0.4},
    {"update": 0.4},
    {"zoneout": 0.3},
    {"weights": 0.4},
    {"inputs": 0.3, "state": 0.25, "update": 0.2, "zoneout": 0.1, "weights": 0.3, "outputs": 0.5},
    {"state": 1.0},
    {"zoneout": 1.0},
]


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rates", CHOICES, ids=lambda r: "-".join(r))
def test_dropout_is_the_formula(kind: str, rates: dict[str, Any], variational: bool) -> None:
    rates = {k: v for k, v in rates.items() if kind != "RNN" or k != "update"}
    stream = gd.RandomStream(SEED)
    choice = nn.RecurrentDropout(stream, **rates, variational=variational, name="d")
    options = {"layers": 2} if "between" in rates else {"bidirectional": "state" in rates}
    layer, _ = build(kind, choice, **options)
    x = np.random.default_rng(1).standard_normal((5, 4, N_IN))
    masks = Replay(rates, 0, variational, len(x))
    compare(layer, lambda x, w: run(kind, x, w, masks)[0], x)
    assert stream.calls == (1 if rates else 0)


def test_zoneout_of_h_and_c() -> None:
    stream = gd.RandomStream(SEED)
    layer, _ = build("LSTM", nn.RecurrentDropout(stream, zoneout=(0.2, 0.5), name="d"))
    x = np.random.default_rng(1).standard_normal((5, 4, N_IN))
    masks = Replay({"zoneout": (0.2, 0.5)}, 0, False, len(x))
    compare(layer, lambda x, w: run("LSTM", x, w, masks)[0], x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variational", [False, True])
def test_flag_off_is_the_layer_without_dropout(kind: str, variational: bool) -> None:
    """P4: byte for byte, and nothing advances."""
    stream, training = gd.RandomStream(SEED), gd.flag("training")
    rates = {"inputs": 0.4, "between": 0.3, "outputs": 0.5, "state": 0.4, "weights": 0.2}
    choice = nn.RecurrentDropout(stream, training, **rates, variational=variational)
    dropped, _ = build(kind, choice, layers=2)
    plain, _ = build(kind, layers=2)
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    f = gd.function([x, training], dropped(x)[0])
    g = gd.function([x], plain(x)[0])
    given = np.random.default_rng(1).standard_normal((5, 4, N_IN))
    assert f(given, False).tobytes() == g(given).tobytes()
    assert stream.calls == 0
    assert f(given, True).tobytes() != g(given).tobytes()
    assert stream.calls == 1


def test_zoneout_at_rest_is_the_expectation() -> None:
    stream, training = gd.RandomStream(SEED), gd.flag("training")
    layer, weights = build("RNN", nn.RecurrentDropout(stream, training, zoneout=0.25))
    w, u, b = weights[0][0]
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    given, h = np.random.default_rng(1).standard_normal((3, 2, N_IN)), np.zeros((2, UNITS))
    for row in given:
        h = 0.25 * h + 0.75 * np.tanh(row @ w + b + h @ u)
    found = gd.function([x, training], layer(x)[0])(given, False)
    np.testing.assert_allclose(found[-1], h, atol=1e-12)


def test_rates_at_run_time_and_masks_by_name() -> None:
    stream, training, rate = gd.RandomStream(SEED), gd.flag("training"), gd.scalar("rate")
    layer, weights = build("GRU", nn.RecurrentDropout(stream, training, state=rate, name="d"))
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    f = gd.function([x, training, rate], layer(x)[0])
    given = np.random.default_rng(1).standard_normal((5, 4, N_IN))
    for call, value in enumerate((0.5, 0.125)):
        expected = run("GRU", given, weights, Replay({"state": value}, call, False, 5))[0]
        np.testing.assert_allclose(f(given, True, value), expected, atol=1e-10)
        mask = f.mask("d.state", call=call, rate=value)
        assert mask.shape == (5, 4, UNITS)
        one = philox.mask(value, (4, UNITS), SEED, philox.site_of("d.state"), call, step=3)
        assert (mask[2] == one).all()
    again = run("GRU", given, weights, Replay({"state": 0.5}, 0, False, 5))[0]
    with stream.at(call=0):
        np.testing.assert_allclose(f(given, True, 0.5), again, atol=1e-10)


@pytest.mark.parametrize("variational", [False, True])
def test_masks_by_example(variational: bool) -> None:
    """A row's masks follow its id, not its place in the batch."""
    stream, ids = gd.RandomStream(SEED), gd.lvector("ids", shape=("batch",))
    choice = nn.RecurrentDropout(
        stream, inputs=0.4, state=0.4, zoneout=0.2, example=ids, variational=variational
    )
    layer, _ = build("LSTM", choice)
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    f = gd.function([x, ids], layer(x)[0])
    given = np.random.default_rng(1).standard_normal((5, 4, N_IN))
    order = np.array([2, 0, 3, 1])
    with stream.at(call=0):
        a = f(given, np.array([7, 5, 9, 2]))
        b = f(given[:, order], np.array([7, 5, 9, 2])[order])
        c = f(given, np.array([7, 5, 9, 3]))
    np.testing.assert_array_equal(a[:, order], b)
    np.testing.assert_array_equal(a[:, :3], c[:, :3])
    assert (a[:, 3] != c[:, 3]).any()


def test_embedding_rows_with_a_layer() -> None:
    """Gal and Ghahramani's network: words, inputs and state, each with one mask a sequence."""
    stream, rng = gd.RandomStream(SEED), np.random.default_rng(0)
    table = nn.Embedding(10, N_IN, rng, dtype="float64", name="table")
    choice = nn.RecurrentDropout(stream, inputs=0.3, state=0.3, variational=True, name="d")
    layer, weights = build("LSTM", choice)
    ids = gd.lmatrix("ids", shape=("time", "batch"))
    rows = nn.embedding_dropout(table.E, 0.4, stream, name="words")
    h, _ = layer(gd.take(rows, ids, axis=0))
    given = np.random.default_rng(1).integers(0, 10, (6, 4))
    found = gd.function([ids], h)(given)
    keep = philox.mask(0.4, (10, 1), SEED, philox.site_of("words"), 0)
    dropped = philox.dropped(table.E.get_value(), keep, 0.4)
    masks = Replay({"inputs": 0.3, "state": 0.3}, 0, True, 6)
    np.testing.assert_allclose(found, run("LSTM", dropped[given], weights, masks)[0], atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_goes_on(kind: str) -> None:
    layer, weights = build(kind, layers=2)
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    y = gd.tensor("y", "float64", ("more", "batch", N_IN))
    first, state = layer(x)
    second, last = layer(y, state)
    f = gd.function([x, y], [gd.concatenate([first, second]), last])
    given = np.random.default_rng(1).standard_normal((7, 4, N_IN))
    whole, states = run(kind, given, weights)
    for cut in (0, 1, 4, 7):
        found, after = f(given[:cut], given[cut:])
        np.testing.assert_allclose(found, whole, atol=1e-12)
        parts = [p if isinstance(p, tuple) else (p,) for p in after]
        for ours, theirs in zip(parts, states, strict=True):
            np.testing.assert_allclose(np.stack(ours), np.stack(theirs), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_at_a_time(kind: str) -> None:
    stream = gd.RandomStream(SEED)
    layer, weights = build(kind, nn.RecurrentDropout(stream, inputs=0.5, state=0.5), layers=2)
    x = gd.tensor("x", "float64", ("batch", N_IN))
    zero = gd.zeros((x.shape[0], UNITS), "float64")
    start = [(zero, zero)] * 2 if kind == "LSTM" else [zero] * 2
    h, state = layer.step(x)
    also, state = layer.step(x, state)
    f = gd.function([x], [h, also, layer.step(x, start)[0]])
    given = np.random.default_rng(1).standard_normal((4, N_IN))
    whole, _ = run(kind, np.stack([given, given]), weights)
    one, two, from_zero = f(given)
    np.testing.assert_allclose([one, two], whole, atol=1e-12)
    assert one.tobytes() == from_zero.tobytes()
    assert stream.calls == 0


def test_no_steps() -> None:
    layer, _ = build("LSTM", bidirectional=True)
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    h, ((forward, _), _) = layer(x)
    loss = h.sum() + forward.sum()
    f = gd.function([x], [h, forward, *gd.grad(loss, layer.params)])
    h_value, state, *grads = f(np.zeros((0, 3, N_IN)))
    assert h_value.shape == (0, 3, 2 * UNITS)
    assert not state.any()
    assert not any(g.any() for g in grads)


def test_truncated_and_checkpointed() -> None:
    layer, _ = build("GRU", nn.RecurrentDropout(gd.RandomStream(SEED), state=0.4, name="d"))
    other, _ = build("GRU", nn.RecurrentDropout(gd.RandomStream(SEED), state=0.4, name="d"))
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    given = np.random.default_rng(1).standard_normal((7, 4, N_IN))
    plain = layer(x)[0]
    checked = other(x, checkpoint=3)[0]
    a = gd.function([x], [plain, *gd.grad((plain**2).sum(), layer.params)])(given)
    b = gd.function([x], [checked, *gd.grad((checked**2).sum(), other.params)])(given)
    assert a[0].tobytes() == b[0].tobytes()
    for ours, theirs in zip(a[1:], b[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    third, _ = build("GRU")
    _, last = third(x, truncate=2)
    grad = gd.function([x], gd.grad(last.sum(), x))(given)
    assert not grad[:5].any()
    assert grad[5:].all()


def test_initial_values() -> None:
    layer = nn.LSTM(4, 6, 0, name="m", layers=2)
    assert [p.name for p in layer.params] == [
        "m.0.W", "m.0.U", "m.0.b", "m.1.W", "m.1.U", "m.1.b",
    ]  # fmt: skip
    assert layer.params == nn.params(layer)
    u, b = layer.weights[0][0].U.get_value(), layer.weights[0][0].b.get_value()
    assert u.dtype == np.float32
    for block in np.split(u, 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-6)
    np.testing.assert_array_equal(b.reshape(4, 6)[1], 1)
    assert not b.reshape(4, 6)[[0, 2, 3]].any()


BAD: dict[str, tuple[Callable[[], Any], type[GraphdropError], str]] = {
    "units": (lambda: nn.RNN(3, 0, 0), ArgumentError, "units must be a positive integer"),
    "nonlinearity": (lambda: nn.RNN(3, 2, 0, nonlinearity="sin"), ArgumentError, "'tanh' or"),
    "dropout": (lambda: nn.RNN(3, 2, 0, dropout=0.5), ArgumentError, "an nn.RecurrentDropout"),
    "update": (
        lambda: nn.RNN(3, 2, 0, dropout=nn.RecurrentDropout(gd.RandomStream(0), update=0.5)),
        ArgumentError, "for LSTM and GRU",
    ),
    "zoneout": (
        lambda: nn.GRU(3, 2, 0, dropout=nn.RecurrentDropout(gd.RandomStream(0), zoneout=(0, 1))),
        ArgumentError, "zoneout is one rate",
    ),
    "rate": (
        lambda: nn.RecurrentDropout(gd.RandomStream(0), state=1.5), RandomError, "between 0 and 1"
    ),
    "stream": (lambda: nn.RecurrentDropout(3), ArgumentError, "RandomStream"),  # type: ignore[arg-type]
    "axes": (lambda: nn.RNN(3, 2, 0)(gd.matrix("x")), ShapeError, "(time, batch, n_in)"),
    "size": (
        lambda: nn.RNN(3, 2, 0)(gd.tensor3("x", shape=("t", "b", 4))), ShapeError, "4 and 3"
    ),
    "dtype": (lambda: nn.RNN(3, 2, 0)(gd.dtensor3("x")), DTypeError, "gd.cast"),
    "mask": (
        lambda: nn.RNN(3, 2, 0)(gd.tensor3("x", shape=("t", "b", 3)), mask=gd.matrix("m")),
        DTypeError, "bools of shape",
    ),
    "state": (
        lambda: nn.LSTM(3, 2, 0)(gd.tensor3("x", shape=("t", "b", 3)), gd.matrix("h")),
        ArgumentError, "another structure",
    ),
    "both ways": (
        lambda: nn.RNN(3, 2, 0, bidirectional=True).step(gd.matrix("x", shape=("b", 3))),
        ArgumentError, "whole sequence",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_mistakes(what: str) -> None:
    make, kind, words = BAD[what]
    with pytest.raises(kind, match=re.escape(words)):
        make()


def test_one_program_for_all_sizes() -> None:
    """Nothing is compiled again when batch or length changes."""
    layer, weights = build("LSTM")
    x = gd.tensor("x", "float64", ("time", "batch", N_IN))
    h, _ = layer(x)
    grads = gd.grad(h.sum(), layer.params)
    updates = [(p, p - 0.0 * g) for p, g in zip(layer.params, grads, strict=True)]
    f = gd.function([x], h, updates=updates)
    program = f.executable
    for shape in ((3, 2), (8, 1), (0, 4), (1, 5), (3, 2)):
        given = np.random.default_rng(1).standard_normal((*shape, N_IN))
        np.testing.assert_allclose(f(given), run("LSTM", given, weights)[0], atol=1e-12)
    assert f.executable is program
