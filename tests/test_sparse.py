"""Updates of few rows of a table: the same values as dense, and the other rows left alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop import optim
from graphdrop.function import Function
from graphdrop.graph import Node, toposort
from graphdrop.ops.leaf import Shared

ROWS = 3000
Updates = list[tuple[Shared, Node]]
Optimizer = Callable[..., Updates]


def table(dtype: str = "float32", shape: tuple[int, ...] = (ROWS, 4), name: str = "E") -> Shared:
    return gd.shared(np.random.default_rng(5).standard_normal(shape).astype(dtype), name)


def wide_nodes(step: Function, rows: int = ROWS) -> list[Node]:
    """What is computed with a row for every row of the table."""
    assert step.executable is not None
    outputs = [*step.graph.outputs[: len(step.graph.outputs) - len(step.updated)]]
    order = toposort([*outputs, *step.compilation.computed().outputs])
    return [
        n
        for n in order
        if not isinstance(n, Shared)
        and isinstance(n.type, gd.types.TensorType)
        and n.ndim
        and n.shape[0] == rows
    ]


def rules(step: Function) -> list[str]:
    return [record.rule for record in step.trace if record.phase == "sparse"]


class Model:
    """A loss of looked-up rows, one step of an optimizer, and all that it updates."""

    def __init__(
        self, optimizer: Optimizer, optimize: bool, *, dtype: str = "float32", pad: bool = False,
        twice: bool = False, clip: float | None = None, limit: float | None = None,
        tied: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        self.E = E = table(dtype)
        ids, other = gd.imatrix("ids", shape=("b", "t")), gd.imatrix("other", shape=("b", "t"))
        h = E[ids]
        if pad:
            h = gd.where(gd.not_equal(ids, 0)[:, :, None], h, 0)
        loss = (h * h * h).sum()
        if twice:
            loss = loss + (E[other] * 3).sum()
        if tied:
            loss = loss + (h @ gd.transpose(E)).mean()
        grads = gd.grad(loss, [E])
        if clip is not None:
            grads = optim.clip_by_global_norm(grads, clip)
        if limit is not None:
            grads = [gd.clip(g, -limit, limit) for g in grads]
        updates = optimizer(grads, [E], **options)
        self.state = [s for s, _ in updates]
        self.step = gd.function(
            [ids, other], loss, updates=updates, optimize=optimize, on_unused_input="ignore"
        )

    def run(self, steps: int = 3) -> list[np.ndarray[Any, Any]]:
        rng = np.random.default_rng(7)
        for _ in range(steps):
            ids = rng.integers(-ROWS, ROWS, (3, 5)).astype(np.int32)
            ids[1, :3] = 0  # twice and more
            self.step(ids, rng.integers(0, 10, (3, 5)).astype(np.int32))
        return [s.get_value() for s in self.state]


SPARSE: list[tuple[Optimizer, dict[str, Any]]] = [
    (optimizer, options)
    for optimizer in (optim.sgd, optim.adagrad)
    for options in (
        {}, {"pad": True}, {"twice": True}, {"dtype": "float16"}, {"dtype": "float64"},
        {"limit": 0.5}, {"lr": optim.exponential_decay(0.1, 0.9)},
        {"pad": True, "twice": True, "dtype": "float16"},
    )
]  # fmt: skip
DENSE: list[tuple[Optimizer, dict[str, Any]]] = [
    (optim.momentum, {}), (optim.nesterov, {}), (optim.adam, {}), (optim.adamw, {}),
    (optim.adadelta, {}), (optim.sgd, {"weight_decay": 0.1}),
    (optim.adagrad, {"weight_decay": 0.1}), (optim.adagrad, {"eps": 0.0}),
    (optim.sgd, {"tied": True}),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "options"), SPARSE)
def test_the_same_bytes_as_dense(optimizer: Optimizer, options: dict[str, Any]) -> None:
    options = {"lr": 0.1, **options}
    sparse, dense = Model(optimizer, True, **options), Model(optimizer, False, **options)
    for a, b in zip(sparse.run(), dense.run(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert set(rules(sparse.step)) == {"update_of_rows"}
    assert wide_nodes(sparse.step) == []
    assert rules(dense.step) == []
    assert not dense.step.commit.by_rows
    assert wide_nodes(dense.step)


@pytest.mark.parametrize("optimizer", [optim.sgd, optim.adagrad])
@pytest.mark.parametrize("twice", [False, True])
def test_clipped_by_the_norm_of_the_rows(optimizer: Optimizer, twice: bool) -> None:
    options: dict[str, Any] = {"lr": 0.1, "clip": 1.0, "twice": twice, "dtype": "float64"}
    sparse, dense = Model(optimizer, True, **options), Model(optimizer, False, **options)
    for a, b in zip(sparse.run(), dense.run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
    assert set(rules(sparse.step)) == {"update_of_rows", "sum_of_rows"}
    assert wide_nodes(sparse.step) == []


@pytest.mark.parametrize(("optimizer", "options"), DENSE)
def test_what_changes_all_rows_stays_dense(optimizer: Optimizer, options: dict[str, Any]) -> None:
    options = {"lr": 0.1, **options}
    made, dense = Model(optimizer, True, **options), Model(optimizer, False, **options)
    assert made.E not in made.step.commit.by_rows
    for a, b in zip(made.run(), dense.run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rows_change_although_the_state_of_all_does() -> None:
    """RMSprop's average decays everywhere, but a row without a gradient makes no step."""
    made, dense = Model(optim.rmsprop, True, lr=0.1), Model(optim.rmsprop, False, lr=0.1)
    for a, b in zip(made.run(), dense.run(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert list(made.step.commit.by_rows) == [made.E]


@pytest.mark.parametrize("factor", [np.inf, np.nan])
def test_a_factor_known_not_to_be_finite_stays_dense(factor: float) -> None:
    E, v = table(), gd.ivector("v")
    (g,) = gd.grad(E[v].sum(), [E])
    step = gd.function([v], updates=[(E, E - g * np.float32(factor))])
    assert not step.commit.by_rows
    step(np.array([1], np.int32))
    assert np.isnan(E.get_value()[2:]).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0, -0.1])
@pytest.mark.parametrize("optimizer", [optim.sgd, optim.adagrad])
def test_a_rate_known_at_the_call(optimizer: Optimizer, value: float) -> None:
    """0 times a rate that is not finite is NaN, in every row."""
    found = []
    for optimize in (True, False):
        rate = gd.shared(np.float32(value), "lr")
        model = Model(optimizer, optimize, lr=rate)
        found.append(model.run(1))
        assert np.isfinite(found[-1][-1]).any() == np.isfinite(value)
        assert bool(model.step.commit.by_rows) == optimize
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0, -0.0, 2.0, 1e-44])
def test_a_divisor_known_at_the_call(value: float) -> None:
    """As of a scaled loss: 0 / 0 is NaN, 0 / inf is 0."""
    found = []
    for optimize in (True, False):
        E, v, scale = table(), gd.ivector("v"), gd.scalar("scale")
        (g,) = gd.grad((E[v] ** 2).sum(), [E])
        updates = optim.sgd([g / scale], [E], lr=0.1)
        step = gd.function([v, scale], updates=updates, optimize=optimize)
        step(np.array([1, 2], np.int32), np.float32(value))
        assert bool(step.commit.by_rows) == optimize
        found.append(E.get_value())
    np.testing.assert_array_equal(*found)


def test_an_infinite_gradient_under_clipping() -> None:
    for optimize in (True, False):
        model = Model(optim.sgd, optimize, lr=0.1, clip=1.0)
        model.E.set_value(np.full((ROWS, 4), 1e30, np.float32))
        (E,) = model.run(1)
        # an infinite norm scales by 0: 0 in the rows not used, NaN where it meets infinity
        assert np.isnan(E).any(axis=1).sum() == len(np.unique(np.flatnonzero(np.isnan(E[:, 0]))))
        assert 0 < np.isnan(E).any(axis=1).sum() <= 15


@given(
    st.lists(st.integers(-ROWS, ROWS - 1), max_size=12),
    st.sampled_from(["float16", "float32", "float64"]),
    st.sampled_from(["int8", "int16", "int32", "int64", "uint16"]),
)
def test_any_ids(ids: list[int], dtype: str, kind: str) -> None:
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    given_ids = np.array([i for i in ids if low <= i <= high], kind)
    found = []
    for optimize in (True, False):
        E, v = table(dtype), gd.tensor("v", kind, (None,))
        loss = gd.sin(E[v]).sum()
        updates = optim.adagrad(loss, [E], lr=0.1)
        gd.function([v], updates=updates, optimize=optimize)(given_ids)
        found.append([s.get_value().tobytes() for s, _ in updates])
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1), (ROWS, 2, 3), (ROWS, 0), (ROWS, ROWS)])
@pytest.mark.parametrize("ids", [3, [3], [], [[5, -1], [3, 5]]])
def test_ranks_and_sizes(shape: tuple[int, ...], ids: Any) -> None:
    place = np.asarray(ids, np.int64)
    found = []
    for optimize in (True, False):
        E, v = table(shape=shape), gd.tensor("v", "int64", (None,) * place.ndim)
        step = gd.function(
            [v], updates=optim.sgd((E[v] ** 2).sum(), [E], lr=0.1), optimize=optimize
        )
        step(place)
        assert bool(step.commit.by_rows) == optimize
        found.append(E.get_value().tobytes())
    assert found[0] == found[1]


def test_as_many_ids_as_rows() -> None:
    """Sizes that happen to be equal at the call are not mixed up."""
    ids = np.random.default_rng(0).integers(0, ROWS, ROWS).astype(np.int32)
    found = []
    for optimize in (True, False):
        E, v = table(), gd.ivector("v")
        gd.function([v], updates=optim.sgd(gd.exp(E[v]).sum(), [E], 0.1), optimize=optimize)(ids)
        found.append(E.get_value().tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(("rows", "ids", "sparse"), [
    (100, None, False), (1024, None, True), (100, 50, True), (100, 51, False), (2, 1, True),
    (1, 0, False), (1, None, False), (1024, 600, False),
])  # fmt: skip
def test_only_where_few_rows_are_used(rows: int, ids: int | None, sparse: bool) -> None:
    E, v = table(shape=(rows, 3)), gd.ivector("v", shape=(ids,))
    step = gd.function([v], updates=optim.sgd((E[v] ** 2).sum(), [E], 0.1))
    assert bool(step.commit.by_rows) == sparse
    step(np.zeros(ids or 0, np.int32))


def test_other_rows_are_not_touched_copied_or_allocated() -> None:
    rows, width, used = 200_000, 64, 512
    E = gd.shared(np.zeros((rows, width), np.float32), "E")
    v, x = gd.ivector("v", shape=("n",)), gd.matrix("x", shape=("n", width))
    loss = (E[v] * x).sum()
    rng = np.random.default_rng(0)
    for optimizer in (optim.sgd, optim.adagrad):
        updates = optimizer(loss, [E], lr=0.1)
        step = gd.function([v, x], loss, updates=updates)
        ids = rng.permutation(rows)[:used].astype(np.int32)
        values = rng.standard_normal((used, width)).astype(np.float32)
        step(ids, values)
        arrays = [s.array for s, _ in updates]
        others = np.ones(rows, bool)
        others[ids] = False
        before = E.get_value()
        tracemalloc.start()
        step(ids, values)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # a dozen arrays of the rows used, of 51 MB that the table has
        assert peak < 12 * values.nbytes
        assert all(s.array is a for (s, _), a in zip(updates, arrays, strict=True))
        assert (E.get_value()[others] == before[others]).all()
        assert (E.get_value()[ids] != before[ids]).any(axis=1).all()
        assert step.commit.copies == 0


# --------------------------------------------------------------------------------------------
# written by hand


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_increments_of_rows(dtype: str) -> None:
    """Theano's (E, inc_subtensor(E[ids], ...))."""
    found = []
    for optimize in (True, False):
        E, v = gd.shared(np.arange(ROWS * 2).reshape(ROWS, 2).astype(dtype), "E"), gd.ivector("v")
        step = gd.function([v], updates=[(E, E[v].inc(3))], optimize=optimize)
        step(np.array([4, 4, -1, 0], np.int32))
        assert bool(step.commit.by_rows) == optimize
        found.append(E.get_value())
    np.testing.assert_array_equal(*found)
    assert found[0][4].tolist() == [14, 15]


def test_rows_replaced_among_tables_see_the_old_values() -> None:
    A, B = table(name="A"), table(name="B")
    a, b = A.get_value(), B.get_value() + 1
    B.set_value(b)
    v = gd.ivector("v")
    swap = gd.function([v], updates=[(A, A[v].set(B[v])), (B, B[v].set(A[v]))])
    swap(np.array([1, -1], np.int32))
    assert list(swap.commit.by_rows) == [A, B]
    for new, old, other in ((A, a, b), (B, b, a)):
        assert (new.get_value()[[1, -1]] == other[[1, -1]]).all()
        assert (new.get_value()[2:-1] == old[2:-1]).all()


def test_an_update_by_the_table_of_another() -> None:
    A, B, v = table(name="A"), table(name="B"), gd.ivector("v")
    before = B.get_value()
    step = gd.function([v], updates=[(A, B[v].set(0)), (B, B + 1)])
    step(np.array([1], np.int32))
    assert not step.commit.by_rows
    assert (A.get_value()[2:] == before[2:]).all()
    assert (A.get_value()[1] == 0).all()


def test_sums_that_a_user_asks_for() -> None:
    E, v = table("float64"), gd.ivector("v")
    (g,) = gd.grad((E[v] ** 2).sum(), [E])
    outputs = [g.sum(axis=0), (g * g).sum(axis=0, keepdims=True), g.sum(axis=1), (g + 1).sum()]
    step = gd.function([v], outputs, updates=[(E, E - 0.1 * g)])
    plain = gd.function([v], outputs, optimize=False)
    ids = np.array([3, 3, 7], np.int32)
    for a, b in zip(plain(ids), step(ids), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    assert rules(step) == ["update_of_rows", "sum_of_rows", "sum_of_rows"]


# --------------------------------------------------------------------------------------------
# what one sees


def test_the_trace_and_the_graph_show_it() -> None:
    model = Model(optim.sgd, True, lr=0.1)
    (line,) = (str(r) for r in model.step.trace if r.phase == "sparse")
    assert line.startswith("sparse     update_of_rows")
    assert "sub(E, mul(" in line
    assert "->  scatter_set(E, sub(reshape(gather(E, " in line
    text = gd.dprint(model.step, file="str")
    assert text is not None
    assert "E <-\n  scatter_set float32[3000, 4]" in text
