"""A scan against the same steps written out, with dropout inside against its masks by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd

FEATURES, HIDDEN = 3, 4
RNG = np.random.default_rng(0)
W0, U0 = RNG.normal(size=(HIDDEN, HIDDEN)) * 0.5, RNG.normal(size=(FEATURES, HIDDEN))


def gradients(loss: gd.Node, wrt: list[gd.Node]) -> list[gd.Node]:
    """First gradients, and those of the sum of their squares."""
    first = gd.grad(loss, wrt, disconnected="zero")
    squares = [(g * g).sum() for g in first]
    total = squares[0]
    for s in squares[1:]:
        total = total + s
    return [*first, *gd.grad(total, wrt, disconnected="zero")]


@pytest.mark.parametrize("options", [{}, {"checkpoint": 3}], ids=["plain", "checkpoint"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_equals_its_steps_written_out(length: int, reverse: bool, options: Any) -> None:
    w, u = gd.shared(W0, "W"), gd.shared(U0, "U")

    def step(h: gd.Node, x: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.tanh(h @ w + x @ (u * 2))
        return h, (h * h).sum()

    x, h0 = gd.dmatrix("x", shape=("time", FEATURES)), gd.dvector("h", shape=(HIDDEN,))
    h, o = gd.scan(step, x, h0, reverse=reverse, **options)
    loss = h.sum() + (o * o).sum()
    looped = gd.function([x, h0], [loss, *gradients(loss, [w, u, x, h0])])

    rows = [gd.dvector(f"x{t}", shape=(FEATURES,)) for t in range(length)]
    carry, total = h0, gd.constant(0.0, "float64")
    for row in reversed(rows) if reverse else rows:
        carry, out = step(carry, row)
        total = total + out * out
    loss = carry.sum() + total
    written = gd.function(
        [*rows, h0], [loss, *gradients(loss, [w, u, *rows, h0])], on_unused_input="ignore"
    )

    xs, hs = RNG.normal(size=(length, FEATURES)), RNG.normal(size=HIDDEN)
    found, plain = looped(xs, hs), written(*xs, hs)
    stacked = [plain[0]]
    for part in (plain[1 : 4 + length], plain[4 + length :]):
        stacked += [*part[:2], np.reshape(part[2 : 2 + length], (length, FEATURES)), part[-1]]
    for got, want in zip(found, stacked, strict=True):
        np.testing.assert_allclose(
            got, want, rtol=1e-10, atol=1e-12 * (1 + np.abs(want).max(initial=0))
        )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gradient_through_a_drawing_scan(reverse: bool, training: bool) -> None:
    """Theano#1654 and pytensor#555: masks in the step, a run-time flag and a run-time rate."""
    time, batch = 5, 2
    w, stream = gd.shared(W0, "W"), gd.RandomStream(7)
    flag, rate = gd.flag("training"), gd.dscalar("rate")
    x = gd.dtensor3("x", shape=("time", "batch", HIDDEN))
    h0 = gd.dmatrix("h", shape=("batch", HIDDEN))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.dropout(gd.tanh(h @ w + row), rate, stream, flag, name="state")
        return h, h.sum()

    h, o = gd.scan(step, x, h0, reverse=reverse)
    loss = h.sum() + (o * o).sum()
    f = gd.function([x, h0, flag, rate], [loss, *gradients(loss, [w, h0])])
    xs, hs = RNG.normal(size=(time, batch, HIDDEN)), RNG.normal(size=(batch, HIDDEN))
    f(xs, hs, True, 0.5)
    found = f(xs, hs, training, 0.3)
    assert stream.calls == 1 + training  # flags off: nothing drawn, nothing advanced

    masks = f.mask("state", call=1, rate=0.3)
    site = stream_site("state")
    for t in range(time):  # section 4: step is 1 + the index into the sequences
        words = np.random.Philox(key=np.array([7, site], np.uint64), counter=[0, 1, 1 + t, 0])
        lanes = words.random_raw(batch * HIDDEN // 4).view("<u2").reshape(batch, HIDDEN)
        np.testing.assert_array_equal(masks[t], lanes >= round(0.3 * 65536))

    carry, total = h0, gd.constant(0.0, "float64")
    for t in reversed(range(time)) if reverse else range(time):
        carry = gd.tanh(carry @ w + xs[t])
        if training:
            carry = gd.dropout(carry, 0.3, stream, mask=masks[t])
        total = total + carry.sum() * carry.sum()
    loss = carry.sum() + total
    plain = gd.function([h0], [loss, *gradients(loss, [w, h0])])(hs)
    for got, want in zip(found, plain, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12 * np.abs(want).max())


def stream_site(name: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def test_masks_differ_from_step_to_step_and_call_to_call() -> None:
    """PyTensor repeats them silently when updates are lost; there are none to lose here."""
    stream = gd.RandomStream(0)
    x = gd.matrix("x", shape=("time", 64))
    _, o = gd.scan(lambda c, row: (c, gd.dropout(row, 0.5, stream)), x, gd.constant(0.0))
    f = gd.function([x], o)
    first, second = f(np.ones((3, 64), "f4")), f(np.ones((3, 64), "f4"))
    rows = {row.tobytes() for row in np.concatenate([first, second])}
    assert len(rows) == 6


def test_nested_scans_count_steps_row_by_row() -> None:
    stream = gd.RandomStream(1)
    x = gd.dmatrix("x", shape=("outer", "inner"))

    def outer(total: gd.Node, row: gd.Node) -> tuple[gd.Node, None]:
        return gd.reduce(lambda c, e: c + gd.dropout(e, 0.5, stream, name="in"), row, total), None

    total, _ = gd.scan(outer, x, gd.constant(0.0, "float64"))
    f = gd.function([x], [total, gd.grad(total, x)])
    xs = np.arange(1, 7.0).reshape(2, 3)
    value, slope = f(xs)
    kept = f.mask("in", call=0)
    for step in range(6):
        raw = np.random.Philox(
            key=np.array([1, stream_site("in")], np.uint64), counter=[0, 0, 1 + step, 0]
        ).random_raw(1)
        assert kept.reshape(-1)[step] == (raw.view("<u2")[0] >= 32768)
    np.testing.assert_array_equal(slope, kept * 2.0)
    assert value == (xs * kept * 2).sum()


def test_sizes_made_known_by_givens() -> None:
    """Theano#3437: a symbolic size inside the step."""
    x = gd.dmatrix("x", shape=("time", "width"))
    h, _ = gd.scan(lambda c, r: (c + r * r.shape[0], None), x, gd.zeros(("width",), "float64"))
    xs = np.arange(6.0).reshape(3, 2)
    expected = xs.sum(0) * 2
    np.testing.assert_array_equal(gd.function([x], h)(xs), expected)
    np.testing.assert_array_equal(gd.function([], h, givens={x: xs})(), expected)


def test_until_holds_the_carry() -> None:
    x = gd.vector("x", shape=("time",))
    total, o = gd.scan(lambda c, e: (c + e, c + e, c + e > 4), x, gd.constant(0.0), until=True)
    value, outs = gd.function([x], [total, o])(np.array([1, 2, 3, 4], "f4"))
    assert value == 6
    assert outs.tolist() == [1, 3, 6, 0]


@pytest.mark.parametrize("options", [{}, {"checkpoint": 2}, {"until": True}], ids=str)
def test_derivatives_along_a_direction(options: Any) -> None:
    """What a derivative does not read is not in it: only the gradient's gradient reads both."""
    x, w = gd.dvector("x", shape=3), gd.dmatrix("w", shape=("time", 3))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, ...]:
        h = gd.cond(gd.greater(row.sum(), 0), lambda: gd.tanh(h * row + x), lambda: h + x)
        return (h, h * h, gd.greater(h.sum(), 9)) if options.get("until") else (h, h * h)

    end, outs = gd.scan(step, w, x, **options)
    moved = gd.jvp([end, outs], [x, w], [gd.cos(x), gd.sin(w)])
    f = gd.function([x, w], [end, outs, *moved])
    start, rows, small = RNG.normal(size=3), RNG.normal(size=(5, 3)), 1e-6
    ways = np.cos(start), np.sin(rows)
    ahead, back = (f(start + s * ways[0], rows + s * ways[1]) for s in (small, -small))
    for a, b, found in zip(ahead[:2], back[:2], f(start, rows)[2:], strict=True):
        np.testing.assert_allclose(found, (a - b) / (2 * small), rtol=1e-6, atol=1e-7)


def test_truncated_gradient_reaches_the_last_steps_only() -> None:
    x = gd.dvector("x", shape=("time",))
    total, _ = gd.scan(lambda c, e: (c * 0.5 + e, None), x, gd.constant(0.0, "float64"), truncate=2)
    slope = gd.function([x], gd.grad(total, x))(np.ones(5))
    assert slope.tolist() == [0, 0, 0, 0.5, 1]
