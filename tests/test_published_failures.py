"""Failures that users of other compilers reported, each impossible here, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn, optim

from . import philox

SEED = 5


def test_theano_3437_symbolic_shape_in_scan() -> None:
    """A draw in a scan whose shape is symbolic: Theano lost the stream's update there."""
    stream = gd.RandomStream(SEED)
    x = gd.matrix("x", shape=("time", "batch"))

    def step(total: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        noise = stream.uniform((x.shape[1],), name="noise")
        return total + noise.sum(), row + noise

    _, o = gd.scan(step, x, gd.constant(0.0))
    f = gd.function([x], o)
    for call, (time, batch) in enumerate([(3, 4), (5, 2), (3, 4)]):
        site = philox.site_of("noise")
        wanted = [
            (philox.lanes(np.uint32, (batch,), SEED, site, call, step=1 + t) >> 8) * 2.0**-24
            for t in range(time)
        ]
        np.testing.assert_array_equal(f(np.zeros((time, batch), "f4")), np.array(wanted, "f4"))


def test_theano_1654_pytensor_555_gradient_through_a_drawing_scan() -> None:
    """Both raise NullTypeGradError; the gradient here sees the masks of the forward pass."""
    stream = gd.RandomStream(SEED)
    w, x = gd.shared(np.full((3, 3), 0.2), "W"), gd.dmatrix("x", shape=("time", 3))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, None]:
        return gd.dropout(h, 0.5, stream, name="h") @ w + row, None

    h, _ = gd.scan(step, x, gd.zeros((3,), "float64"))
    f = gd.function([x], [h.sum(), gd.grad(h.sum(), w)])
    xs = np.random.default_rng(0).normal(size=(6, 3))
    value, grad = f(xs)
    masks = f.mask("h", call=0) * 2.0

    def by_hand(weights: Any) -> Any:
        state = np.zeros(3, weights.dtype)
        for t, row in enumerate(xs):
            state = (state * masks[t]) @ weights + row
        return state.sum()

    np.testing.assert_allclose(value, by_hand(w.get_value()), rtol=1e-13)
    for i in np.ndindex(3, 3):
        moved = w.get_value().astype(complex)
        moved[i] += 1e-30j
        np.testing.assert_allclose(grad[i], by_hand(moved).imag / 1e-30, rtol=1e-12, atol=1e-14)


def test_aesara_579_updates_forgotten() -> None:
    """A scan's updates had to be passed on by hand; nobody can forget what there is not."""
    stream = gd.RandomStream(SEED)
    x = gd.matrix("x", shape=("time", 8))
    made = gd.scan(lambda c, row: (c, gd.dropout(row, 0.5, stream)), x, gd.constant(0.0))
    assert len(made) == 2  # no dictionary of updates
    f = gd.function([x], made[1])
    ones = np.ones((4, 8), "f4")
    assert f(ones).tobytes() != f(ones).tobytes()
    assert (stream.calls, f.call) == (2, 1)


@pytest.mark.parametrize("inside", [True, False], ids=["in a scan", "outside"])
def test_pytensor_same_masks_on_every_call(inside: bool) -> None:
    """A stream that was not updated drew one mask for ever, and nothing said so."""
    stream = gd.RandomStream(SEED)
    x = gd.matrix("x", shape=("time", 64))
    drop = (
        gd.scan(lambda c, row: (c, gd.dropout(row, 0.5, stream)), x, gd.constant(0.0))[1]
        if inside
        else gd.dropout(x, 0.5, stream)
    )
    w = gd.shared(np.zeros((), "f4"), "w")
    f = gd.function([x], drop)
    g = gd.function([x], drop, updates=[(w, drop.sum())])
    found = [h(np.ones((3, 64), "f4")) for h in (f, g, f, g, f)]
    rows = {row.tobytes() for mask in found for row in mask}
    assert len(rows) == 15, "a mask came twice"


@pytest.mark.parametrize("kind", ["flag", "cond", "scan"])
def test_ifelse_train_0_advances_nothing(kind: str) -> None:
    """`ifelse(train, dropped, x)` drew, and moved the stream on, with train=0 as well."""
    stream, train = gd.RandomStream(SEED), gd.flag("train")
    x = gd.matrix("x", shape=("rows", 6))
    if kind == "flag":
        y = gd.dropout(x, 0.5, stream, train)
    elif kind == "cond":
        y = gd.cond(train, lambda: gd.dropout(x, 0.5, stream), lambda: x)
    else:
        y = gd.map(lambda row: gd.dropout(row, 0.5, stream, train), x)
    f = gd.function([x, train], y)
    xs = np.random.default_rng(0).normal(size=(5, 6)).astype("f4")
    assert f(xs, False).tobytes() == xs.tobytes()
    assert (stream.calls, f.call) == (0, None)
    first = f(xs, True)
    assert f(xs, False).tobytes() == xs.tobytes()
    assert (stream.calls, f.call) == (1, 0)
    with stream.at(call=0):
        assert f(xs, True).tobytes() == first.tobytes()


def test_theano_3276_no_iterations() -> None:
    stream = gd.RandomStream(SEED)
    x, h0 = gd.dmatrix("x", shape=("time", 3)), gd.dvector("h", shape=(3,))
    w = gd.shared(np.eye(3), "W")

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.dropout(h, 0.5, stream) @ w + row
        return h, h * 2

    h, o = gd.scan(step, x, h0)
    loss = (h * h).sum() + o.sum()
    f = gd.function([x, h0], [h, o, *gd.grad(loss, [w, h0, x])])
    start = np.array([1.0, 2.0, 3.0])
    last, outs, gw, gh, gx = f(np.zeros((0, 3)), start)
    np.testing.assert_array_equal(last, start)
    assert (outs.shape, gx.shape) == ((0, 3), (0, 3))
    np.testing.assert_array_equal(gw, np.zeros((3, 3)))
    np.testing.assert_array_equal(gh, 2 * start)


def test_theano_2619_two_chained_scans() -> None:
    """The outs of one scan are the sequences of another; gradients run through both."""
    stream = gd.RandomStream(SEED)
    x, w = gd.dmatrix("x", shape=("time", 3)), gd.shared(np.full((3, 3), 0.3), "W")

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.tanh(h @ w + gd.dropout(row, 0.25, stream))
        return h, h

    zero = gd.zeros((3,), "float64")
    _, first = gd.scan(step, x, zero)
    _, second = gd.scan(step, first, zero, reverse=True)
    gx = gd.grad((second * second).sum(), [x, w])
    f = gd.function([x], [(second * second).sum(), *gx])
    xs = np.random.default_rng(0).normal(size=(5, 3))
    value, gx, gw = f(xs)
    for wrt, grad, nudge in (
        (xs, gx, lambda d: f(xs + d)[0]),
        (w.get_value(), gw, lambda d: moved(w, d, lambda: f(xs)[0])),
    ):
        along = np.random.default_rng(1).normal(size=wrt.shape)
        with stream.at(call=0):
            slope = (nudge(1e-6 * along) - nudge(-1e-6 * along)) / 2e-6
        np.testing.assert_allclose((grad * along).sum(), slope, rtol=1e-7)
    assert np.isfinite(value)


def moved(variable: Any, by: Any, compute: Any) -> Any:
    """What is computed while a shared value is moved."""
    before = variable.get_value()
    variable.set_value(before + by)
    try:
        return compute()
    finally:
        variable.set_value(before)


def test_theano_4652_truncated_gradient() -> None:
    """The gradient reaches the last steps and no others, masks included."""
    stream = gd.RandomStream(SEED)
    x = gd.dmatrix("x", shape=("time", 16))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, None]:
        return h + gd.dropout(row, 0.5, stream, name="row"), None

    h, _ = gd.scan(step, x, gd.zeros((16,), "float64"), truncate=3)
    f = gd.function([x], gd.grad(h.sum(), x))
    grad = f(np.ones((8, 16)))
    wanted = f.mask("row", call=0) * 2.0
    wanted[:5] = 0
    np.testing.assert_array_equal(grad, wanted)


def test_pytorch_198333_neighbouring_channels_do_not_share_a_mask() -> None:
    stream = gd.RandomStream(SEED)
    x = gd.tensor4("x", shape=("batch", 8, 4, 4))
    y = gd.dropout(x.reshape(x.shape[0] * 8, 16), 0.5, stream).reshape(x.shape)
    found = gd.function([x], y)(np.ones((3, 8, 4, 4), "f4"))
    assert len({c.tobytes() for c in found.reshape(24, 16)}) == 24


def test_pytorch_190758_recomputation_sees_the_same_mask() -> None:
    """Checkpointing runs steps again in the backward pass, with their masks."""
    stream = gd.RandomStream(SEED)
    w, x = gd.shared(np.eye(4), "W"), gd.dmatrix("x", shape=("time", 4))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, None]:
        return gd.dropout(h @ w + row, 0.5, stream, name="h"), None

    h, _ = gd.scan(step, x, gd.ones((4,), "float64"), checkpoint=3)
    f = gd.function([x], gd.grad(h.sum(), w))
    xs = np.random.default_rng(0).normal(size=(7, 4))
    grad = f(xs)
    scales = f.mask("h", call=0).reshape(7, 4) * 2.0
    states, state = [], np.ones(4)
    for t in range(7):
        states.append(state)
        state = (state + xs[t]) * scales[t]
    g, wanted = np.ones(4), np.zeros((4, 4))
    for t in reversed(range(7)):
        g = g * scales[t]
        wanted += np.outer(states[t], g)
    np.testing.assert_allclose(grad, wanted, rtol=1e-13, atol=1e-13)


def test_pytorch_192635_two_dropouts_do_not_swap_masks() -> None:
    stream = gd.RandomStream(SEED)
    x = gd.vector("x", shape=(64,))
    a, b = (gd.dropout(x, 0.5, stream, name=n) for n in "ab")
    for outputs in ([a, b], [b, a]):
        found = gd.function([x], outputs)(np.ones(64, "f4"))
        call = stream.calls - 1
        for node, name in zip(found, "ab" if outputs[0] is a else "ba", strict=True):
            keep = philox.mask(0.5, (64,), SEED, philox.site_of(name), call)
            np.testing.assert_array_equal(node != 0, keep)


def test_tvm_7530_dropout_of_a_constant_is_not_folded() -> None:
    stream = gd.RandomStream(SEED)
    f = gd.function([], gd.dropout(np.ones(64, "f4"), 0.5, stream))
    assert f().tobytes() != f().tobytes()


def test_onnxruntime_3047_two_draws_are_not_merged() -> None:
    stream = gd.RandomStream(SEED)
    x = gd.vector("x", shape=(64,))
    f = gd.function([x], gd.dropout(x, 0.5, stream) - gd.dropout(x, 0.5, stream))
    assert f(np.ones(64, "f4")).any()


def test_one_compiled_step_serves_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX and torch.compile compile again for a new batch size or length; here a counter says."""
    from graphdrop_numpy.program import NumpyProgram

    made: list[Any] = []
    original = NumpyProgram.__init__

    def counted(self: Any, *args: Any, **options: Any) -> None:
        made.append(self)
        original(self, *args, **options)

    monkeypatch.setattr(NumpyProgram, "__init__", counted)
    rng, stream = np.random.default_rng(0), gd.RandomStream(SEED)
    embedding = nn.Embedding(20, 6, rng)
    choice = nn.RecurrentDropout(stream, inputs=0.5, state=0.3, outputs=0.5)
    lstm, out = nn.LSTM(6, 8, rng, layers=2, dropout=choice), nn.Dense(8, 20, rng)
    words = gd.imatrix("words", shape=("batch", "length"))
    h, _ = lstm(embedding(words[:, :-1].T))
    loss = nn.softmax_cross_entropy(out(h), words[:, 1:].T).mean()
    params = nn.params(embedding, lstm, out)
    step = gd.function([words], loss, updates=optim.adam(loss, params), backend="numpy")
    before, losses = len(made), []
    assert before > 0
    for batch, length in ((4, 9), (1, 2), (7, 30), (4, 9), (2, 17)):
        losses.append(float(step(rng.integers(0, 20, (batch, length)).astype("i4"))))
    assert len(made) == before, "something was compiled again"
    assert np.isfinite(losses).all()
