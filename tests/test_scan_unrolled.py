"""A scan is the graph one would write out by hand: its values and masks to the bit, its gradients.

Every way to run a loop is a row of WAYS; each is compared with the same steps written one after
the other, whose masks come from section 4's formula and not from graphdrop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd

from . import philox

Array = np.ndarray[Any, Any]
SEED, UNITS, RATE = 2**63 + 11, 4, 0.3
Step = Callable[[gd.Node, gd.Node], tuple[gd.Node, gd.Node]]


def nested(step: Step, x: gd.Node, h: gd.Node, reverse: bool = False) -> Any:
    """A scan over blocks of 3 rows, and in it one over the rows of a block."""
    blocks = x.reshape(x.shape[0] // 3, 3, x.shape[1], UNITS)
    last, o = gd.scan(
        lambda h, block: gd.scan(step, block, h, reverse=reverse), blocks, h, reverse=reverse
    )
    return last, o.reshape(x.shape[0], x.shape[1], UNITS)


# name: the loop, whether it goes backward, how many steps the gradient reaches
WAYS: dict[str, tuple[Callable[[Step, gd.Node, gd.Node], Any], bool, int | None]] = {
    "plain": (lambda f, x, h: gd.scan(f, x, h), False, None),
    "reversed": (lambda f, x, h: gd.scan(f, x, h, reverse=True), True, None),
    "truncated": (lambda f, x, h: gd.scan(f, x, h, truncate=3), False, 3),
    "truncated reversed": (lambda f, x, h: gd.scan(f, x, h, reverse=True, truncate=2), True, 2),
    "checkpoint 1": (lambda f, x, h: gd.scan(f, x, h, checkpoint=1), False, None),
    "checkpoint 4": (lambda f, x, h: gd.scan(f, x, h, checkpoint=4), False, None),
    "checkpoint 17": (lambda f, x, h: gd.scan(f, x, h, checkpoint=17), False, None),
    "checkpoint 5 reversed": (
        lambda f, x, h: gd.scan(f, x, h, reverse=True, checkpoint=5), True, None
    ),
    "both": (lambda f, x, h: gd.scan(f, x, h, truncate=5, checkpoint=2), False, 5),
    "nested": (nested, False, None),
    "nested reversed": (lambda f, x, h: nested(f, x, h, reverse=True), True, None),
}  # fmt: skip


def written_out(
    rows: list[gd.Node], h: gd.Node, w: gd.Node, masks: list[Array] | None, stream: Any,
    reverse: bool, reach: int | None,
) -> tuple[gd.Node, gd.Node]:  # fmt: skip
    """The last state and all of them, step by step."""
    outs: dict[int, gd.Node] = {}
    order = list(range(len(rows)))[:: -1 if reverse else 1]
    for done, t in enumerate(order):
        if reach is not None and 0 < done == len(rows) - reach:
            h, outs = gd.stop_gradient(h), {k: gd.stop_gradient(o) for k, o in outs.items()}
        if masks is not None:
            h = gd.dropout(h, RATE, stream, mask=masks[t])
        h = gd.tanh(h @ w + rows[t])
        outs[t] = h
    if not rows:
        return h, gd.zeros((0, *h.shape), "float64")
    return h, gd.stack([outs[t] for t in sorted(outs)])


def all_of(h: gd.Node, o: gd.Node, wrt: list[gd.Node]) -> list[gd.Node]:
    """State, outs, loss, gradients, and gradients of the sum of their squares."""
    loss = (h * 0.5).sum() + (o * gd.sin(o)).sum()
    first = gd.grad(loss, wrt, disconnected="zero")
    squares = gd.stack([(g * g).sum() for g in first]).sum()
    return [h, o, loss, *first, *gd.grad(squares, wrt, disconnected="zero")]


@pytest.mark.parametrize("training", [True, False], ids=["training", "at rest"])
@pytest.mark.parametrize("way", WAYS)
def test_is_its_steps_written_out(way: str, training: bool) -> None:
    """One function, symbolic in batch and length, against one written out for each length."""
    loop, reverse, reach = WAYS[way]
    rng = np.random.default_rng(3)
    stream, flag, rate = gd.RandomStream(SEED), gd.flag("training"), gd.dscalar("rate")
    w = gd.shared(rng.normal(size=(UNITS, UNITS)) * 0.6, "W")
    x = gd.dtensor3("x", shape=("time", "batch", UNITS))
    h0 = gd.dmatrix("h", shape=("batch", UNITS))

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.tanh(gd.dropout(h, rate, stream, flag, name="state") @ w + row)
        return h, h

    looped = gd.function([x, h0, flag, rate], all_of(*loop(step, x, h0), [w, h0, x]))
    calls = 0
    for length in (0, 1, 2, 17) if "nested" not in way else (0, 3, 6, 18):
        for batch in (1, 3) if length < 3 else (2,):
            xs, hs = rng.normal(size=(length, batch, UNITS)), rng.normal(size=(batch, UNITS))
            found = looped(xs, hs, training, RATE)
            masks = None
            if training:
                assert looped.call == calls
                masks = [
                    philox.mask(
                        RATE, (batch, UNITS), SEED, philox.site_of("state"), calls, step=1 + t
                    )
                    for t in range(length)
                ]
                ours = looped.mask("state", call=calls, rate=RATE)
                wanted = np.array(masks, bool).reshape(length, batch, UNITS)
                np.testing.assert_array_equal(ours.reshape(wanted.shape), wanted)
            calls += training
            fixed = gd.dtensor3("x", shape=(length, "batch", UNITS))
            h, o = written_out(
                [fixed[t] for t in range(length)], h0, w, masks, stream, reverse, reach
            )
            plain = gd.function(
                [fixed, h0], all_of(h, o, [w, h0, fixed]), on_unused_input="ignore"
            )(xs, hs)
            for got, want in zip(found[:2], plain[:2], strict=True):
                assert got.tobytes() == want.tobytes(), f"{way}, {length} steps of {batch}"
            for got, want in zip(found[2:], plain[2:], strict=True):
                scale = 1 + np.abs(want).max(initial=0)
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * scale)
    assert stream.calls == calls


@pytest.mark.parametrize("way", WAYS)
def test_rewriting_changes_no_bit_of_a_mask(way: str) -> None:
    loop, _, _ = WAYS[way]
    x = gd.dtensor3("x", shape=("time", "batch", UNITS))
    h0 = gd.dmatrix("h", shape=("batch", UNITS))
    xs, hs = np.ones((6, 2, UNITS)), np.zeros((2, UNITS))
    found = []
    for optimize in (True, False):
        stream = gd.RandomStream(SEED)

        def step(h: gd.Node, row: gd.Node, stream: Any = stream) -> tuple[gd.Node, gd.Node]:
            kept = gd.dropout(row, RATE, stream, name="row")
            return h * 0 + kept, gd.dropout(kept + h * 0, 0.5, stream, name="again")

        h, o = loop(step, x, h0)
        wrt = gd.grad((o * o).sum() + h.sum(), x)
        f = gd.function([x, h0], [h, o, wrt], optimize=optimize)
        f(xs, hs)
        found.append([*f(xs, hs), f.mask("row", call=1), f.mask("again", call=1)])
        assert (f.call, stream.calls) == (1, 2)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()
