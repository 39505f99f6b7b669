"""Rows looked up in the step of a scan: one scatter after the loop, and an update of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import optim
from graphdrop.function import Function
from graphdrop.graph import Node, toposort
from graphdrop.ops.gather import scatter_add
from graphdrop.ops.leaf import Shared
from graphdrop.scan import scan_op
from graphdrop.types import TensorType

ROWS = 2000


def table(seed: int) -> Shared:
    return gd.shared(np.random.default_rng(seed).standard_normal((ROWS, 4)), f"E{seed}")


def loop(
    optimizer: Callable[..., Any], optimize: bool, twice: bool = False, drop: bool = False,
    **how: Any,
) -> tuple[Function, list[Shared]]:  # fmt: skip
    """A step of training a small recurrent network; what it updates."""
    E, F = table(0), table(1)
    ids = gd.imatrix("ids", shape=("time", "batch"))
    stream = gd.RandomStream(3)

    def step(h: Node, i: Node) -> tuple[Node, Node]:
        x = E[i] + E[i + 1] * F[i] if twice else E[i]
        if drop:
            x = gd.dropout(x, 0.5, stream, True, name="drop")
        h = gd.tanh(h + x)
        return h, h

    h, hs = gd.scan(step, ids, gd.zeros((ids.shape[1], 4), "float64"), **how)
    loss = (h**2).sum() + hs.sum()
    updates = optimizer(loss, [E, F] if twice else [E], lr=0.1)
    return gd.function([ids], loss, updates=updates, optimize=optimize), [s for s, _ in updates]


def wide_in_loops(step: Function) -> list[Node]:
    """What the steps of loops compute with a row for every row of a table."""
    scans = [n for n in toposort(step.compilation.computed().outputs) if n.op is scan_op]
    inside = [n for s in scans for n in toposort(s.params["body"].outputs) if n.inputs]
    return [n for n in inside if isinstance(n.type, TensorType) and n.shape[:1] == (ROWS,)]


def batches() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    made = [rng.integers(0, ROWS - 1, (t, 3)).astype(np.int32) for t in (7, 0, 1, 9)]
    for ids in made:
        ids[:, 0] = 5  # in every step
    return made


@pytest.mark.parametrize("optimizer", [optim.sgd, optim.adagrad])
@pytest.mark.parametrize(
    "how", [{}, {"twice": True}, {"drop": True}, {"reverse": True}, {"truncate": 4}]
)
def test_updates_of_rows_looked_up_in_a_loop(
    optimizer: Callable[..., Any], how: dict[str, Any]
) -> None:
    (sparse, a), (dense, b) = loop(optimizer, True, **how), loop(optimizer, False, **how)
    for ids in batches():
        assert sparse(ids) == pytest.approx(dense(ids), rel=1e-12)
    assert sparse.call == dense.call
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x.get_value(), y.get_value(), rtol=1e-12, atol=1e-12)
    assert {"rows_after_loop", "update_of_rows"} <= {r.rule for r in sparse.trace}
    assert set(a) == set(sparse.commit.by_rows)
    assert wide_in_loops(sparse) == []
    assert wide_in_loops(dense)


def test_checkpointed_blocks_carry_the_table() -> None:
    """Rows stacked for all steps would take the memory that checkpointing saves."""
    (made, a), (dense, b) = loop(optim.sgd, True, checkpoint=3), loop(optim.sgd, False)
    for ids in batches():
        made(ids)
        dense(ids)
    np.testing.assert_allclose(a[0].get_value(), b[0].get_value(), rtol=1e-12, atol=1e-12)
    assert not made.commit.by_rows


def counting(step: Callable[[Node, Node], tuple[Node, Any]]) -> tuple[Function, list[Any]]:
    """A loop over a histogram: compiled, and its results without and with rewrites."""
    ids = gd.ivector("ids")
    outputs = list(gd.scan(step, ids, gd.zeros(5, "int64")))
    outputs = [o for o in outputs if o is not None]
    plain, made = (gd.function([ids], outputs, optimize=o) for o in (False, True))
    given = np.array([3, 1, 3, 0], np.int32)
    return made, [plain(given), made(given)]


def test_a_histogram_counted_in_a_loop() -> None:
    made, (before, after) = counting(lambda h, i: (scatter_add(h, i, 1), None))
    assert [r.rule for r in made.trace].count("rows_after_loop") == 1
    assert after[0].tolist() == before[0].tolist() == [1, 1, 0, 2, 0]


@pytest.mark.parametrize("step", [
    lambda h, i: (scatter_add(h, i, 1), h),  # what is counted so far is an out
    lambda h, i: (scatter_add(h, i, h[i]), None),
    lambda h, i: (scatter_add(h * 2, i, 1), None),
    lambda h, i: (scatter_add(h + h, i, 1), None),
    lambda h, i: (scatter_add(gd.zeros(5, "int64"), i, 1), None),
    lambda h, i: (scatter_add(gd.ones(5, "int64"), i, 1) + h, None),
], ids=["out", "read", "scaled", "doubled", "dropped", "base"])  # fmt: skip
def test_a_sum_that_the_loop_needs_stays(step: Any) -> None:
    made, (before, after) = counting(step)
    assert "rows_after_loop" not in {r.rule for r in made.trace}
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
