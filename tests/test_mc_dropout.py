"""Monte-Carlo dropout against every sample computed in NumPy with its masks by the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn
from graphdrop.errors import ArgumentError, DTypeError, GraphdropError

from . import philox

Array = np.ndarray[Any, Any]
SEED, SAMPLES = 9, 7


def keep(name: str, rate: float, shape: tuple[int, ...], call: int, step: int) -> Array:
    return philox.mask(rate, shape, SEED, philox.site_of(name), call, step=step)


def network() -> tuple[gd.Node, tuple[gd.Node, gd.Node], list[Array]]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((3, 16), (16, 2))]
    a, b = (gd.shared(w, n) for w, n in zip(arrays, "ab", strict=True))
    x = gd.dmatrix("x", shape=("batch", 3))
    return x, (a, b), arrays


@pytest.mark.parametrize("optimize", [True, False])
def test_equals_the_samples_one_by_one(optimize: bool) -> None:
    stream, training, rate = gd.RandomStream(SEED), gd.flag("training"), gd.dscalar("rate")
    x, (a, b), arrays = network()
    h = gd.dropout(gd.tanh(x @ a), rate, stream, training, name="h")
    y = h @ b
    mean, variance = nn.mc_dropout({"y": y, "norm": [(y * y).sum()]}, samples=SAMPLES)
    f = gd.function(
        [x, training, rate], [mean["y"], variance["y"], mean["norm"][0]], optimize=optimize
    )
    rng = np.random.default_rng(1)
    for call, batch in enumerate((4, 1, 0)):
        xs = rng.normal(size=(batch, 3))
        rest = np.tanh(xs @ arrays[0])
        shape = rest.shape
        found = f(xs, True, 0.3)
        rows = [
            philox.dropped(rest, keep("h", 0.3, shape, call, 1 + i), 0.3) @ arrays[1]
            for i in range(SAMPLES)
        ]
        np.testing.assert_allclose(found[0], np.mean(rows, axis=0), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found[1], np.var(rows, axis=0), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found[2], np.mean([(r * r).sum() for r in rows]), atol=1e-10)
        masks = f.mask("h", call=call, rate=0.3)
        assert masks.shape == (SAMPLES, *shape)
        np.testing.assert_array_equal(masks[3], keep("h", 0.3, shape, call, 4))
    assert stream.calls == 3
    still = f(xs := rng.normal(size=(4, 3)), False, 0.3)
    np.testing.assert_allclose(still[0], np.tanh(xs @ arrays[0]) @ arrays[1], rtol=1e-14)
    assert not still[1].any()
    assert stream.calls == 3


def test_what_does_not_draw_is_computed_once() -> None:
    stream = gd.RandomStream(SEED)
    x, (a, b), _ = network()
    mean, _ = nn.mc_dropout(gd.dropout(gd.tanh(x @ a), 0.5, stream) @ b, samples=5)
    f = gd.function([x], mean)
    outside = [n.op.name for n in gd.graph.toposort(f.graph.outputs)]
    assert outside.count("tanh") == 1
    assert outside.count("dropout") == 0


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_around_a_recurrent_layer(checkpoint: int | None) -> None:
    """Steps are counted row by row: sample i, time t has step 1 + i * T + t."""
    stream = gd.RandomStream(SEED)
    x = gd.dmatrix("x", shape=("time", 4))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.dropout(gd.tanh(h + row), 0.4, stream, name="h")
        return h, h

    first = gd.dropout(x, 0.25, stream, name="x")
    h, o = gd.scan(step, first, gd.zeros((4,), "float64"), checkpoint=checkpoint)
    mean, variance = nn.mc_dropout((h, o), samples=SAMPLES)
    f = gd.function([x], [*mean, *variance])
    for call, time in enumerate((5, 1, 3)):
        xs = np.random.default_rng(1).normal(size=(time, 4))
        states = []
        for i in range(SAMPLES):
            rows = philox.dropped(xs, keep("x", 0.25, xs.shape, call, 1 + i), 0.25)
            state, outs = np.zeros(4), []
            for t, row in enumerate(rows):
                mask = keep("h", 0.4, (4,), call, 1 + i * time + t)
                state = philox.dropped(np.tanh(state + row), mask, 0.4)
                outs.append(state)
            states.append(outs)
        found = f(xs)
        np.testing.assert_allclose(found[1], np.mean(states, axis=0), atol=1e-12)
        np.testing.assert_allclose(found[3], np.var(states, axis=0), atol=1e-12)
        np.testing.assert_allclose(found[0], found[1][-1], atol=1e-15)
        assert f.mask("h", call=call).shape[0] == SAMPLES


def test_inside_a_scan_and_around_a_branch() -> None:
    stream, p = gd.RandomStream(SEED), gd.flag("p")
    x = gd.dmatrix("x", shape=("time", 8))

    def row_mean(row: gd.Node) -> gd.Node:
        y = gd.cond(p, lambda: gd.dropout(row, 0.5, stream, name="row"), lambda: row)
        return nn.mc_dropout(y, samples=SAMPLES)[0]

    f = gd.function([p, x], gd.map(row_mean, x))
    xs = np.random.default_rng(1).normal(size=(3, 8))
    np.testing.assert_allclose(f(False, xs), xs, rtol=1e-14)
    assert stream.calls == 0
    wanted = [
        np.mean(
            [
                philox.dropped(row, keep("row", 0.5, (8,), 0, 1 + t * SAMPLES + i), 0.5)
                for i in range(SAMPLES)
            ],
            axis=0,
        )
        for t, row in enumerate(xs)
    ]
    np.testing.assert_allclose(f(True, xs), wanted, atol=1e-12)
    assert stream.calls == 1


def test_gradient_and_symbolic_samples() -> None:
    stream, n = gd.RandomStream(SEED), gd.lscalar("n")
    x = gd.dvector("x", shape=(6,))
    mean, variance = nn.mc_dropout(gd.square(gd.dropout(x, 0.5, stream, name="x")), samples=n)
    f = gd.function([x, n], [mean, gd.grad(mean.sum(), x), gd.grad(variance.sum(), x)])
    xs = np.linspace(1, 2, 6)
    for call, count in enumerate((1, 4)):
        scales = np.stack([keep("x", 0.5, (6,), call, 1 + i) * 2.0 for i in range(count)])
        found, slope, spread = f(xs, count)
        np.testing.assert_allclose(found, ((xs * scales) ** 2).mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(slope, (2 * xs * scales**2).mean(axis=0), atol=1e-12)
        squares = (scales**2).var(axis=0)
        np.testing.assert_allclose(spread, 4 * xs**3 * squares, atol=1e-11)


def test_two_streams_and_a_layer() -> None:
    one, two = gd.RandomStream(SEED), gd.RandomStream(SEED + 1)
    choice = nn.RecurrentDropout(one, state=0.3, inputs=0.2, variational=True)
    lstm = nn.LSTM(3, 4, 0, dropout=choice)
    x = gd.tensor3("x", shape=("time", "batch", 3))
    h, _ = lstm(x)
    mean, variance = nn.mc_dropout(gd.dropout(h, 0.5, two), samples=20)
    f = gd.function([x], [mean, variance])
    found = f(np.ones((5, 2, 3), "f4"))
    assert (one.calls, two.calls) == (1, 1)
    assert (found[1] > 0).all()
    with one.at(call=0), two.at(call=0):
        assert f(np.ones((5, 2, 3), "f4"))[0].tobytes() == found[0].tobytes()


BAD: dict[str, tuple[Any, type[GraphdropError], str]] = {
    "no draw": (lambda x, s: nn.mc_dropout(x * 2), ArgumentError, "nothing in the outputs draws"),
    "at rest": (
        lambda x, s: nn.mc_dropout(gd.dropout(x, 0.5, s, False)), ArgumentError, "training=True"
    ),
    "integers": (
        lambda x, s: nn.mc_dropout(gd.argmax(gd.dropout(x, 0.5, s))), DTypeError, "takes floats"
    ),
    "samples": (
        lambda x, s: nn.mc_dropout(gd.dropout(x, 0.5, s), samples=-1), GraphdropError, "-1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_mistakes(what: str) -> None:
    make, kind, words = BAD[what]
    with pytest.raises(kind, match=words):
        make(gd.vector("x"), gd.RandomStream(0))
