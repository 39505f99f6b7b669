"""Putting new values of shared variables in place, by rows: failed calls, and other readers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import leases, optim
from graphdrop.errors import CheckError, GraphdropError, OutOfRangeError, ShapeError
from graphdrop.ops.gather import scatter_add
from graphdrop.ops.leaf import Shared

ROWS = 3000


def table(name: str = "E") -> Shared:
    return gd.shared(np.random.default_rng(5).standard_normal((ROWS, 4)).astype(np.float32), name)


@pytest.mark.parametrize("bad", [ROWS, -ROWS - 1])
@pytest.mark.parametrize("kind", ["sgd", "set", "inc"])
def test_ids_out_of_range_change_nothing(bad: int, kind: str) -> None:
    E, v, x = table(), gd.ivector("v"), gd.matrix("x", shape=(None, 4))
    new = {
        "sgd": E - 0.1 * scatter_add(gd.zeros_like(E), v, x), "set": E[v].set(x), "inc": E[v].inc(x)
    }[kind]  # fmt: skip
    other = gd.shared(np.float32(1), "other")
    step = gd.function([v, x], updates=[(other, other + 1), (E, new)])
    assert step.commit.by_rows
    before = E.get_value()
    with pytest.raises(OutOfRangeError, match=r"test_commit\.py:\d+"):
        step(np.array([1, bad, 2], np.int32), np.ones((3, 4), np.float32))
    assert (E.get_value() == before).all()
    assert other.get_value() == 1


def test_a_failing_call_changes_nothing() -> None:
    E, v, x = table(), gd.ivector("v"), gd.vector("x")
    checked = gd.assert_(v, gd.all(gd.greater(x, 0)))  # noqa: PT009
    w = gd.shared(np.zeros(3, np.float32), "w")
    before = E.get_value()
    failing = gd.function([v, x], gd.sum(checked), updates=optim.sgd(gd.exp(E[v]).sum(), [E], 0.1))
    misfit = gd.function([v, x], updates=[(E, E[v].set(0)), (w, x)])
    for step, values, error in (
        (failing, [-1], CheckError),
        (misfit, [1, 2], ShapeError),
    ):
        assert step.commit.by_rows
        with pytest.raises(error):
            step(np.array([1], np.int32), np.array(values, np.float32))
        assert (E.get_value() == before).all()
    misfit(np.array([1], np.int32), np.ones(3, np.float32))  # and the locks are free
    assert (E.get_value()[1] == 0).all()


# --------------------------------------------------------------------------------------------
# other readers


def test_a_reader_keeps_what_it_reads() -> None:
    E, v = table(), gd.ivector("v")
    step = gd.function([v], updates=[(E, E[v].set(0))])
    with leases.reading((E,)) as (array,):
        before = array.copy()
        step(np.array([5], np.int32))
        assert (array == before).all()
        assert E.array is not array
        assert step.commit.copies == 1
        step(np.array([6], np.int32))  # nobody reads the copy, but it is E that is leased
    copies, current = step.commit.copies, E.array
    step(np.array([7], np.int32))
    assert E.array is current
    assert step.commit.copies == copies
    assert (E.get_value()[5:8] == 0).all()
    assert (E.get_value()[8:] == before[8:]).all()


def test_readers_of_other_variables_are_in_nobodys_way() -> None:
    E, F, v = table(), table("F"), gd.ivector("v")
    step = gd.function([v], updates=[(E, E[v].set(0))])
    with leases.reading((F,)):
        step(np.array([5], np.int32))
    assert step.commit.copies == 0


def test_calls_give_their_leases_back() -> None:
    E, v = table(), gd.ivector("v")
    read = gd.function([v], E[v].sum())
    step = gd.function([v], updates=[(E, E[v].set(0))])
    read(np.array([1], np.int32))
    read.profile(np.array([1], np.int32))
    with pytest.raises(GraphdropError):
        read(np.array([ROWS], np.int32))
    with pytest.raises(GraphdropError):
        step(np.array([ROWS], np.int32))
    step(np.array([5], np.int32))
    assert step.commit.copies == 0


def test_threads_see_whole_updates() -> None:
    """Rows far apart are always set to one value; a reader that sees two has seen half a write."""
    rows = 20_000
    E = gd.shared(np.zeros((rows, 16), np.float32), "E")
    places = np.linspace(0, rows - 1, 512).astype(np.int64)
    v = gd.lvector("v")
    step = gd.function([v], updates=[(E, E[v].set(E[v] + 1))])
    whole = gd.function([], [E[places].min(), E[places].max(), E.sum()])
    seen: list[tuple[float, ...]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            low, high, total = whole()
            seen.append((low, high, total / (places.size * 16)))
            value = E.get_value()[places]
            seen.append((value.min(), value.max(), value.min()))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    writers = [threading.Thread(target=lambda: [step(places) for _ in range(30)]) for _ in range(2)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert seen
    assert all(low == high == mean for low, high, mean in seen)
    assert (E.get_value()[places] == 60).all()  # none is lost


def test_values_set_between_calls_stay() -> None:
    E, v = table(), gd.ivector("v")
    step = gd.function([v], updates=[(E, E[v].set(0))])
    step(np.array([1], np.int32))
    mine = np.ones((ROWS, 4), np.float32)
    E.set_value(mine)
    step(np.array([2], np.int32))
    assert E.get_value().sum() == (ROWS - 1) * 4
    assert (mine == 1).all()
