"""The native way into small programs: what it takes, what it leaves to Python."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import leases
from graphdrop.errors import InputError, ShapeError
from graphdrop_llvm.runtime import runtime


def made(outputs: Any = None) -> gd.Function:
    x, w = gd.matrix("x"), gd.vector("w")
    y = gd.tanh(x) * w
    f = gd.function([x, w], y if outputs is None else outputs(y, x), backend="llvm")
    a, b = arguments()
    for _ in range(2):  # the shortcut is for shapes that come again
        f(a, b)
    if runtime().shortcut is None:
        pytest.skip("this interpreter's objects lie otherwise in memory")
    assert f._shortcut is not None
    return f


def arguments(rows: int = 2) -> tuple[Any, Any]:
    x = np.linspace(-2, 2, rows * 5).reshape(rows, 5)
    return x.astype(np.float32), np.arange(1, 6).astype(np.float32)


def right(a: Any, b: Any) -> Any:
    return np.tanh(np.asarray(a)) * np.asarray(b)


def test_results_are_new_arrays_each_time() -> None:
    f, (a, b) = made(), arguments()
    first = f(a, b)
    kept = first.copy()
    second = f(-a, b)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, right(-a, b), rtol=1e-6)
    assert first.flags.owndata
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: (a[:1], b),
        lambda a, b: (a[:0], b),
        lambda a, b: (np.asfortranarray(a), b),
        lambda a, b: (np.repeat(a, 2, 1)[:, ::2], b),
        lambda a, b: (a.tolist(), b),
        lambda a, b: (a.astype(np.float16), b),
        lambda a, b: (a.view(np.recarray), b),
        lambda a, b: (a, b.astype(">f4")),
    ],
    ids=["shorter", "empty", "Fortran", "strided", "list", "float16", "subclass", "big-endian"],
)
def test_whatever_is_unusual_goes_through_python(change: Any) -> None:
    f, (a, b) = made(), arguments()
    other = change(a, b)
    for given in (other, (a, b), other, other, (a, b)):
        np.testing.assert_allclose(f(*given), right(*given), rtol=2e-3)


def test_mistakes_have_the_same_messages() -> None:
    f, (a, b) = made(), arguments()
    with pytest.raises(InputError, match="called without <input 'w'"):
        f(a)
    with pytest.raises(ShapeError, match="to be equal"):
        f(a, b[:3])
    with pytest.raises(InputError, match="float64 values"):
        f(a, b.astype(np.float64))
    np.testing.assert_allclose(f(a, w=b), right(a, b), rtol=1e-6)


@pytest.mark.parametrize(
    "structure",
    [lambda y, x: [y, x + 1], lambda y, x: (y, x + 1), lambda y, x: {"y": y, "z": [x + 1, None]}],
    ids=["list", "tuple", "nested"],
)
def test_structures_come_back(structure: Any) -> None:
    f, (a, b) = made(structure), arguments()
    found = f(a, b)
    parts = list(found.values()) if isinstance(found, dict) else found
    assert isinstance(found, (list, tuple, dict))
    np.testing.assert_allclose(parts[0], right(a, b), rtol=1e-6)
    second = parts[1][0] if isinstance(found, dict) else parts[1]
    np.testing.assert_array_equal(second, a + 1)


def test_threads_share_it() -> None:
    f, (a, b) = made(), arguments()
    wrong: list[int] = []

    def work(k: int) -> None:
        mine = (a * k).astype(np.float32)
        expected = f.executable.run(*f.binder.bind((mine, b), {}, "f"))[0]
        wrong.extend(i for i in range(3000) if (f(mine, b) != expected).any())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_it_holds_no_references_too_many() -> None:
    f, (a, b) = made(), arguments()
    counted = [a, b, np.dtype(np.float32)]
    f(a, b)
    gc.collect()
    before = [sys.getrefcount(o) for o in counted]
    for _ in range(1000):
        f(a, b)
    for _ in range(1000):
        f(a[:1], b)  # declined
    after = [sys.getrefcount(o) for o in counted]
    assert max(abs(p - q) for p, q in zip(before, after, strict=True)) <= 10


def test_shared_values_are_those_of_the_moment() -> None:
    w = gd.shared(np.arange(5, dtype=np.float32), "w")
    x = gd.vector("x")
    f = gd.function([x], x * w, backend="llvm")
    step = gd.function([], updates={w: w + 1}, backend="llvm")
    a = np.ones(5, np.float32)
    for k in range(5):
        np.testing.assert_array_equal(f(a), np.arange(5) + k)
        step()
    assert f._shortcut is not None
    w.set_value(np.full(5, 7, np.float32))
    np.testing.assert_array_equal(f(a), np.full(5, 7))


def test_no_half_of_an_update_is_seen() -> None:
    """Two values that change together: their difference is always 0."""
    a, b = (gd.shared(np.zeros(4, np.float32), n) for n in "ab")
    step = gd.function([], updates={a: a + 1, b: b + 1}, backend="llvm")
    difference = gd.function([], gd.abs(a - b).max(), backend="llvm")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            step()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert {float(difference()) for _ in range(20000)} == {0.0}
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


def test_while_values_are_replaced_it_is_not_taken() -> None:
    w = gd.shared(np.ones(5, np.float32), "w")
    f = gd.function([], w * 2, backend="llvm")
    for _ in range(3):
        f()
    assert f._shortcut is not None
    with leases.writing():
        assert f._shortcut() is None
    assert f._shortcut() is not None


def test_functions_with_state_do_not_take_it() -> None:
    w = gd.shared(np.ones(5, np.float32), "w")
    x = gd.vector("x")
    f = gd.function([x], x * w, updates={w: w + 1}, backend="llvm")
    a = np.ones(5, np.float32)
    assert [float(f(a)[0]) for _ in range(4)] == [1, 2, 3, 4]
    assert f._shortcut is None


def test_the_collector_may_call_the_same_function() -> None:
    """A new list may start it; whatever finalizers do then comes before the arguments are read."""
    x = gd.vector("x")
    f = gd.function([x], [x * 2], backend="llvm")
    ones, fives = (np.full(4, v, "f4") for v in (1, 5))
    f(ones), f(ones)

    class Caller:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            f(fives)

    kept: list[Any] = []
    for i in range(20_000):
        Caller()
        (found,) = f(ones)
        assert found[0] == 2
        kept.extend([] for _ in range(i % 7 + 1))  # so that no list is at hand


def test_the_collector_may_replace_a_shared_value() -> None:
    w = gd.shared(np.ones(400, "f4"))
    f = gd.function([], [w * 2], backend="llvm")
    f(), f()
    kept: list[Any] = []

    class Replacer:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            w.set_value(np.ones(400, "f4"))
            kept.append([np.full(400, 1234, "f4") for _ in range(3)])

    for i in range(20_000):
        Replacer()
        assert f()[0][0] == 2
        kept.extend([] for _ in range(i * i % 11))


def test_the_sizes_of_the_last_call() -> None:
    x = gd.vector("x", shape=("n",))
    f = gd.function([x], x * 2, backend="llvm")
    for n in (4, 4, 4, 7, 4, 7, 7, 7, 4):
        f(np.ones(n, "f4"))
        assert {str(a): size for a, size in f.sizes.items()} == {"n": n}
