"""Branches: only one is computed, gradients go through it, and its draws count only if taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import CheckError, DTypeError, GraphdropError, RandomError, ShapeError

from . import philox

SEED = 5


def guarded(x: gd.Node) -> gd.Node:
    """x, and an error if it is computed."""
    return gd.assert_(x, gd.constant(False) & (x.sum() < np.inf), "was computed")  # noqa: PT009


def test_only_the_branch_taken_is_computed() -> None:
    p, x = gd.flag("p"), gd.vector("x")
    f = gd.function([p, x], gd.cond(p, lambda: x * 2, lambda: guarded(x)))
    g = gd.function([p, x], gd.cond(p, lambda: guarded(x), lambda: x + 1))
    ones = np.ones(3, "f4")
    np.testing.assert_array_equal(f(True, ones), [2, 2, 2])
    np.testing.assert_array_equal(g(False, ones), [2, 2, 2])
    for h, value in ((f, False), (g, True)):
        with pytest.raises(CheckError, match="was computed") as caught:
            h(value, ones)
        assert "test_cond.py" in str(caught.value)


def test_what_a_branch_builds_is_its_own() -> None:
    """Also where the same node happens to live outside; what it only uses is computed anyway."""
    p, x = gd.flag("p"), gd.vector("x")
    alive = guarded(x)
    lazy = gd.function([p, x], gd.cond(p, lambda: guarded(x), lambda: x))
    eager = gd.function([p, x], gd.cond(p, lambda: alive, lambda: x))
    lazy(False, np.ones(3, "f4"))
    with pytest.raises(CheckError, match="was computed"):
        eager(False, np.ones(3, "f4"))
    inner = gd.cond(p, lambda: gd.cond(x.sum() > 0, lambda: guarded(x), lambda: x), lambda: x)
    gd.function([p, x], inner)(False, np.ones(3, "f4"))


@pytest.mark.parametrize("value", [True, False])
def test_structures_numbers_and_operands(value: bool) -> None:
    p, x = gd.flag("p"), gd.vector("x", shape=("n",))
    made = gd.cond(
        p,
        lambda a: {"first": a * 2, "rest": (1, [a.sum()])},
        lambda a: {"first": a, "rest": (a.max(), [0.0])},
        x,
    )
    assert set(made) == {"first", "rest"}
    f = gd.function([p, x], made)
    for n in (1, 4):
        xs = np.arange(n, dtype="f4") - 1
        found = f(value, xs)
        wanted = (xs * 2, 1, xs.sum()) if value else (xs, xs.max(), 0)
        for got, want in zip(
            (found["first"], found["rest"][0], found["rest"][1][0]), wanted, strict=True
        ):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == np.float32


@pytest.mark.parametrize("value", [True, False])
def test_gradients_to_second_order(value: bool) -> None:
    """Against the branch alone; a value that the branch does not use has gradient 0."""
    p, x, y = gd.flag("p"), gd.dvector("x"), gd.dvector("y")
    w = gd.shared(np.array([0.5, -1.0, 2.0]), "w")
    branches = (lambda: gd.sin(x * w).sum() * y.sum(), lambda: (x**3).sum() + gd.exp(w).sum())

    def everything(loss: gd.Node) -> list[gd.Node]:
        first = gd.grad(loss, [x, y, w], disconnected="zero")
        total = gd.stack([(g * g).sum() for g in first]).sum()
        return [loss, *first, *gd.grad(total, [x, y, w], disconnected="zero")]

    f = gd.function([p, x, y], everything(gd.cond(p, *branches)))
    g = gd.function(
        [x, y], everything(branches[0 if value else 1]()),
        on_unused_input="ignore",
    )  # fmt: skip
    xs, ys = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2])
    for got, want in zip(f(value, xs, ys), g(xs, ys), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_a_draw_counts_if_its_branch_is_taken() -> None:
    stream, p = gd.RandomStream(SEED), gd.iscalar("p")
    x = gd.vector("x", shape=(64,))
    y = gd.cond(
        p > 0,
        lambda: gd.dropout(x, 0.5, stream, name="yes"),
        lambda: gd.cond(p < 0, lambda: gd.dropout(x, 0.25, stream, name="no"), lambda: x),
    )
    f = gd.function([p, x], [y, gd.grad(y.sum(), x)])
    ones = np.ones(64, "f4")
    calls = 0
    for value in (0, 1, 0, -1, 1):
        found, grad = f(value, ones)
        if value == 0:
            assert stream.calls == calls
            assert found.tobytes() == ones.tobytes()
            continue
        name, rate = ("yes", 0.5) if value > 0 else ("no", 0.25)
        keep = philox.mask(rate, (64,), SEED, philox.site_of(name), calls)
        np.testing.assert_array_equal(found, philox.dropped(ones, keep, rate))
        np.testing.assert_array_equal(grad, found)
        np.testing.assert_array_equal(f.mask(name, call=calls), keep)
        calls += 1
        assert (stream.calls, f.call) == (calls, calls - 1)


@pytest.mark.parametrize("value", [True, False])
def test_a_known_predicate_leaves_its_branch(value: bool) -> None:
    p, x = gd.flag("p"), gd.vector("x")
    stream = gd.RandomStream(SEED)
    y = gd.cond(p, lambda: gd.dropout(x, 0.5, stream), lambda: x * 3)
    f = gd.function([x], y, givens={p: value})
    ops = {n.op.name for n in gd.graph.toposort(f.graph.outputs)}
    assert "cond" not in ops
    assert ("dropout" in ops) is value
    assert any(fired.rule == "known_branch" for fired in f.trace), str(f.trace)
    f(np.ones(3, "f4"))
    assert stream.calls == value


def test_in_a_loop_and_around_one() -> None:
    x, p = gd.dvector("x", shape=("time",)), gd.flag("p")

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.cond(row > 0, lambda: h * row, lambda: h - row)
        return h, h

    def loop() -> gd.Node:
        return gd.scan(step, x, gd.constant(1.0, "float64"))[1]

    y = gd.cond(p, loop, lambda: x * 0)
    f = gd.function([p, x], [y, gd.grad(y.sum(), x)])
    for xs in (np.array([2.0, -1.0, 3.0, -2.0]), np.zeros(0), np.array([-1.5])):
        h, wanted = 1.0, []
        for row in xs:
            h = h * row if row > 0 else h - row
            wanted.append(h)
        np.testing.assert_allclose(f(True, xs)[0], np.array(wanted), rtol=1e-14)
        np.testing.assert_array_equal(f(False, xs)[0], np.zeros(len(xs)))
        for i in range(len(xs)):
            nudge = np.zeros(len(xs))
            nudge[i] = 1e-6
            slope = (f(True, xs + nudge)[0].sum() - f(True, xs - nudge)[0].sum()) / 2e-6
            np.testing.assert_allclose(f(True, xs)[1][i], slope, rtol=1e-8)


def test_a_draw_in_a_loop_in_a_branch() -> None:
    stream, p = gd.RandomStream(SEED), gd.flag("p")
    x = gd.matrix("x", shape=("time", 16))
    y = gd.cond(p, lambda: gd.map(lambda r: gd.dropout(r, 0.5, stream, name="r"), x), lambda: x)
    f = gd.function([p, x], y)
    ones = np.ones((3, 16), "f4")
    f(False, ones)
    found = f(True, ones)
    assert stream.calls == 1
    for t in range(3):
        keep = philox.mask(0.5, (16,), SEED, philox.site_of("r"), 0, step=1 + t)
        np.testing.assert_array_equal(found[t] != 0, keep)


def test_a_draw_under_a_predicate_of_the_loop() -> None:
    stream, x = gd.RandomStream(SEED), gd.vector("x")
    y = gd.map(lambda r: gd.cond(r > 0, lambda: gd.dropout(r, 0.5, stream), lambda: r), x)
    with pytest.raises(RandomError, match="predicate changes within a scan") as caught:
        gd.function([x], y)
    assert "test_cond.py" in str(caught.value)


def test_sizes_that_are_values() -> None:
    """A size that is a value must be known outside: both branches have one shape."""
    p, x, n = gd.flag("p"), gd.vector("x"), gd.lscalar("n")
    ids = gd.cast(gd.arange(n), "float32")
    y = gd.cond(p, lambda: ids * x.sum(), lambda: gd.zeros_like(ids))
    f = gd.function([p, x, n], y)
    np.testing.assert_array_equal(f(True, np.ones(2, "f4"), 3), [0, 2, 4])
    np.testing.assert_array_equal(f(False, np.ones(2, "f4"), 2), [0, 0])
    with pytest.raises(ShapeError, match="compute it outside"):
        gd.cond(p, lambda: gd.arange(n), lambda: gd.arange(n + 1))


def test_rewriting_changes_nothing() -> None:
    p, x = gd.flag("p"), gd.dmatrix("x", shape=("n", 3))
    y = gd.cond(p, lambda: gd.log(gd.exp(x)) * 1 + 0, lambda: gd.log(1 + gd.exp(x)))
    loss = (y * y).sum()
    xs = np.random.default_rng(0).normal(size=(4, 3))
    f, g = (gd.function([p, x], [y, gd.grad(loss, x)], optimize=o) for o in (True, False))
    for value in (True, False):
        for a, b in zip(f(value, xs), g(value, xs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


BAD: dict[str, tuple[Any, type[GraphdropError], str]] = {
    "no bool": (lambda x: gd.cond(x.sum(), lambda: x, lambda: x), DTypeError, "bool scalar"),
    "no scalar": (lambda x: gd.cond(x > 0, lambda: x, lambda: x), DTypeError, "bool scalar"),
    "nodes": (lambda x: gd.cond(x.sum() > 0, x, -x), GraphdropError, "write lambda"),
    "dtypes": (
        lambda x: gd.cond(x.sum() > 0, lambda: x, lambda: gd.cast(x, "float64")),
        DTypeError, "gd.cast",
    ),
    "ranks": (
        lambda x: gd.cond(x.sum() > 0, lambda: x, lambda: x.sum()), ShapeError, "gd.broadcast_to"
    ),
    "sizes": (
        lambda x: gd.cond(x.sum() > 0, lambda: gd.zeros(3), lambda: gd.zeros(4)),
        ShapeError, "different sizes",
    ),
    "structures": (
        lambda x: gd.cond(x.sum() > 0, lambda: x, lambda: (x, x)), GraphdropError, "one structure"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_mistakes(what: str) -> None:
    make, kind, words = BAD[what]
    with pytest.raises(kind, match=words) as caught:
        make(gd.vector("x"))
    assert "test_cond.py" in str(caught.value)


def test_sizes_checked_at_the_call() -> None:
    p, x, y = gd.flag("p"), gd.vector("x", shape=("a",)), gd.vector("y", shape=("b",))
    f = gd.function([p, x, y], gd.cond(p, lambda: x, lambda: y))
    np.testing.assert_array_equal(f(True, np.ones(2, "f4"), np.zeros(2, "f4")), [1, 1])
    with pytest.raises(ShapeError, match="a = 2 and b = 3"):
        f(True, np.ones(2, "f4"), np.zeros(3, "f4"))
