"""What is built and dropped is freed, and what fails leaves nothing behind."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import graph, optim, random, types
from graphdrop.errors import GraphdropError


def plain(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    return gd.function([x], [(x * 2).sum(), gd.grad(gd.tanh(x).sum(), x)])


def drawing(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    return gd.function([x], gd.dropout(x, 0.5, stream))


def custom_gradient(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    y = gd.tanh(x)
    # the rule refers to the node that it is a rule of
    y = gd.custom_gradient(y, [x], lambda g, *_: (g * y,))
    return gd.function([x], gd.grad(y.sum(), x))


def sized_by_values(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    y = x[x > 0]
    return gd.function([x], [y, gd.grad(gd.square(y).sum(), x)])


def training(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    w = gd.shared(np.ones((4, 3), "f4"))
    loss = gd.square(gd.dropout(x @ w, 0.5, stream)).mean()
    return gd.function([x], loss, updates=optim.adam(loss, [w]))


def scanning(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    w = gd.shared(np.ones((4, 4), "f4"))
    last, _ = gd.scan(
        lambda h, e: (gd.dropout(gd.tanh(e + h @ w), 0.5, stream), h),
        sequences=x, init=gd.zeros((4,)),
    )  # fmt: skip
    return gd.function([x], [last, gd.grad(last.sum(), w)])


def forward_mode(x: gd.Node, stream: gd.RandomStream) -> gd.Function:
    return gd.function([x], gd.jvp(gd.sin(x).sum(), x, gd.ones_like(x)))


BUILDERS = [
    plain, drawing, custom_gradient, sized_by_values, training, scanning, forward_mode
]  # fmt: skip


def alive() -> tuple[int, int]:
    """How many nodes and sizes are interned."""
    while gc.collect():  # nodes sized by values are freed only after what was made of them
        pass
    return len(graph._interned), len(types._atoms)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda b: b.__name__)
def test_functions_in_a_loop_are_freed(build: Callable[..., gd.Function]) -> None:
    def once() -> None:
        f = build(gd.matrix("x", shape=("batch", 4)), gd.RandomStream(1))
        f(np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4))

    once()  # what is made on first use stays
    before = alive()
    for _ in range(3):
        once()
    assert alive() == before


# --------------------------------------------------------------------------------------------
# contexts

CONTEXTS: list[ContextVar[Any]] = [
    graph._forced_origin, types._checks, random.current_step, random._replayed,
]  # fmt: skip


def build_a_bad_sum() -> None:
    gd.vector("x", shape=(3,)) + gd.vector("y", shape=(4,))


def differentiate_what_has_no_gradient() -> None:
    x = gd.vector("x", shape=(3,))
    y = gd.custom_gradient(gd.tanh(x), [x], lambda g, *_: (g[:2],))
    gd.grad(y.sum(), x)


def fail_inside_a_scan() -> None:
    x = gd.matrix("x", shape=(3, 4))
    stream = gd.RandomStream(0)
    gd.scan(lambda h, e: gd.dropout(h, 2.0, stream) + e, sequences=x, init=gd.zeros((4,)))


def fail_inside_a_replay() -> None:
    x, stream = gd.vector("x", shape=(3,)), gd.RandomStream(0)
    f = gd.function([x], gd.dropout(x, 0.5, stream))
    with stream.at(call=3), stream.at(call=5):
        f(np.ones(4, "f4"))


@pytest.mark.parametrize(
    "fail",
    [build_a_bad_sum, differentiate_what_has_no_gradient, fail_inside_a_scan, fail_inside_a_replay],
    ids=lambda f: f.__name__,
)
def test_a_failure_leaves_no_context_set(fail: Callable[[], None]) -> None:
    before = [c.get() for c in CONTEXTS]
    with pytest.raises(GraphdropError):
        fail()
    assert [c.get() for c in CONTEXTS] == before


def test_a_failed_call_holds_no_lock_and_takes_no_update() -> None:
    x, w = gd.vector("x"), gd.shared(np.zeros(3, "f4"), "w")
    f = gd.function([x], None, updates={w: w + gd.assert_(x, gd.all(x > 0), "positive")})  # noqa: PT009
    with pytest.raises(GraphdropError, match="positive"):
        f(np.array([1, -1, 1], "f4"))
    assert w.lock.acquire(blocking=False)
    w.lock.release()
    f(np.ones(3, "f4"))
    assert w.get_value().tolist() == [1, 1, 1]
