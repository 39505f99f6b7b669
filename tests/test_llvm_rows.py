"""Rows at positions that are data, in native code: values, errors, loops and threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import OutOfRangeError
from graphdrop.ops.sort import last_equal
from graphdrop.threads import get_num_threads

SIZES = [(7, 5, (3, 4)), (1, 1, (2, 2)), (3, 0, (2, 2)), (4, 33, (0, 3)), (9, 2100, (5, 2))]


def positions(rng: np.random.Generator, rows: int, shape: tuple[int, ...], dtype: str) -> Any:
    return rng.integers(0 if dtype[0] == "u" else -rows, rows, shape).astype(dtype)


def is_native(f: gd.Function) -> bool:
    return "outside" not in f.executable.listing("program")


@pytest.mark.parametrize("ids", ["int64", "int8", "uint8", "uint64"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
def test_rows_are_fetched(dtype: str, ids: str) -> None:
    x, i = gd.tensor("x", dtype, (None, None)), gd.tensor("i", ids, (None, None))
    f = gd.function([x, i], x[i], backend="llvm")
    assert is_native(f)
    rng = np.random.default_rng(0)
    for rows, width, shape in SIZES:
        a = (rng.normal(size=(rows, width)) * 5).astype(dtype)
        at = positions(rng, rows, shape, ids)
        np.testing.assert_array_equal(f(a, at), a[at.astype(np.int64)])
        np.testing.assert_array_equal(f(a[::-1], at), a[::-1][at.astype(np.int64)])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_rows_are_added_in_order(dtype: str) -> None:
    x, i = gd.tensor("x", dtype, (None, None)), gd.tensor("i", "int64", (None, None))
    v = gd.tensor("v", dtype, (None, None, None))
    rng = np.random.default_rng(1)
    for rows, width, shape in SIZES:
        a, b = ((rng.normal(size=s) * 5).astype(dtype) for s in ((rows, width), (*shape, width)))
        at, found = positions(rng, rows, shape, "int64"), []
        for backend in ("numpy", "llvm"):
            f = gd.function([x, i, v], gd.inc_subtensor(x[i], v), backend=backend)
            found.append(f(a, at, b))
        np.testing.assert_array_equal(found[1], found[0])


AXES = [
    lambda x, i: x[:, i], lambda x, i: x[i, :, i], lambda x, i: x[:, :, i], lambda x, i: x[i, i],
    lambda x, i: x[1:, None, i, ::-1], lambda x, i: gd.take(x, i),
    lambda x, i: gd.take(x, i, axis=1),
]  # fmt: skip


@pytest.mark.parametrize("part", AXES)
def test_elements_along_any_axes(part: Any) -> None:
    """Fetched, replaced and added to, by a gradient too."""
    x, i = gd.tensor("x", "float32", (4, None, 4)), gd.tensor("i", "int64", (None, None))
    y = part(x, i)
    outputs = [y, gd.grad((y * y).sum(), x)]
    f, oracle = (gd.function([x, i], outputs, backend=b) for b in ("llvm", "numpy"))
    assert "outside: gather" not in f.executable.listing("program")
    rng = np.random.default_rng(5)
    for n, shape in ((4, (2, 3)), (5, (0, 1)), (6, (1, 7))):
        a, at = rng.normal(size=(4, n, 4)).astype("f4"), rng.integers(-4, 4, shape)
        for found, right in zip(f(a, at), oracle(a, at), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-6)
    with pytest.raises(OutOfRangeError, match="out of bounds"):
        f(a, np.array([[0, 999]]))


def test_gradients_of_parts_are_native() -> None:
    x, i = gd.matrix("x"), gd.lmatrix("i")
    g = gd.grad((gd.take_along_axis(x, i, 1) ** 2).sum() + x[:, i].sum(), x)
    assert is_native(gd.function([x, i], g, backend="llvm"))


@pytest.mark.parametrize("wrong", [[7], [-8, 0], [0, 1, 99]])
def test_a_position_that_is_none(wrong: list[int]) -> None:
    """The oracle's error, and nothing lost: neither the shared value nor the call's number."""
    x, i = gd.shared(np.ones((7, 3), np.float32), "x"), gd.vector("i", dtype="int64")
    messages = []
    for backend in ("numpy", "llvm"):
        f = gd.function([i], x[i].sum(), updates={x: x + 1}, backend=backend)
        before = x.get_value()
        with pytest.raises(OutOfRangeError, match="out of bounds") as caught:
            f(np.array(wrong))
        messages.append(str(caught.value))
        np.testing.assert_array_equal(x.get_value(), before)
        np.testing.assert_array_equal(f(np.array([0, 6])), before[[0, 6]].sum())
    assert messages[0].splitlines()[0] == messages[1].splitlines()[0]


def test_labels_that_are_none() -> None:
    x, y = gd.matrix("x"), gd.vector("y", dtype="int64")
    f = gd.function([x, y], gd.nn.softmax_cross_entropy(x, y, ignore_index=-1), backend="llvm")
    assert is_native(f)
    a = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    assert f(a, np.array([0, 4, -1, 2]))[2] == 0
    for wrong in (5, -2, 2**40):
        with pytest.raises(OutOfRangeError, match=f"the label {wrong} is not one of 5 classes"):
            f(a, np.array([0, 1, wrong, 2]))


@pytest.mark.parametrize("bad", [False, True])
def test_in_a_loop(bad: bool) -> None:
    table, ids = gd.matrix("table"), gd.tensor("ids", "int64", (None, None))
    h, _ = gd.scan(lambda h, i: (gd.tanh(h + table[i]), None), ids, gd.zeros((3, 4)))
    f = gd.function([table, ids], h, backend="llvm")
    assert is_native(f)
    a = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    at = np.array([[0, 5, 2], [1, 1, 1 + 9 * bad]])
    if bad:
        with pytest.raises(OutOfRangeError, match="out of bounds"):
            f(a, at)
    else:
        expected = gd.function([table, ids], h, backend="numpy")(a, at)
        np.testing.assert_allclose(f(a, at), expected, rtol=1e-6)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = get_num_threads()
    gd.set_num_threads(2)
    yield
    gd.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_large_ones_are_shared() -> None:
    x, i = gd.matrix("x"), gd.vector("i", dtype="int64")
    f = gd.function([x, i], [x[i], gd.grad((x[i] ** 2).sum(), x)], backend="llvm")
    rng = np.random.default_rng(4)
    a, at = rng.normal(size=(300, 2500)).astype(np.float32), rng.integers(0, 300, 400)
    expected = np.zeros_like(a)
    np.add.at(expected, at, 2 * a[at])
    rows, slope = f(a, at)
    np.testing.assert_array_equal(rows, a[at])
    np.testing.assert_array_equal(slope, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("size", [0, 1, 5, 31, 32, 33, 300, 2048, 5000])
def test_one_element_of_each_row_is_picked(size: int, dtype: str) -> None:
    """What is at a position, which may be none; what is not asked for may be infinite."""
    x, at = gd.tensor("x", dtype, (None, None)), gd.lvector("at")
    here = gd.equal(at[:, None], gd.arange(x.shape[1]))
    f = gd.function([x, at], gd.where(here, x, 0).sum(axis=1), backend="llvm")
    g = gd.function([x, at], [gd.where(here, x, 7), here.sum(axis=1)], backend="llvm")
    assert is_native(f)
    rows = [-(2**63), -257, -1, 0, size // 2, size - 1, size, 256, 2**32, 2**63 - 1]
    a = (np.random.default_rng(3).normal(size=(len(rows), size)) * 5).astype(dtype)
    if a.dtype.kind == "f" and size > 2:
        a[:, 1], a[:, 2] = np.inf, np.nan
    hit = np.array(rows)[:, None] == np.arange(size)
    with np.errstate(all="raise"):
        picked, (others, count) = f(a, np.array(rows)), g(a, np.array(rows))
    np.testing.assert_array_equal(picked, np.where(hit, a, 0).sum(axis=1).astype(picked.dtype))
    np.testing.assert_array_equal(others, np.where(hit, a, 7))
    np.testing.assert_array_equal(count, hit.sum(axis=1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 15, 33, 64, 2049])
def test_a_nan_anywhere_is_the_extreme(size: int, dtype: str) -> None:
    x = gd.tensor("x", dtype, (None, None))
    made = [x.max(axis=1), x.min(axis=1), x.max(axis=0), x.min(axis=0), x.max(), x.min()]
    f = gd.function([x], made, backend="llvm")
    a = np.random.default_rng(4).normal(size=(3, size)).astype(dtype)
    for place in sorted({0, size // 3, size - 1}):
        for value in (np.nan, np.inf, -np.inf):
            a[1, place] = value
            wanted = [a.max(1), a.min(1), a.max(0), a.min(0), a.max(), a.min()]
            for mine, right in zip(f(a), wanted, strict=True):
                np.testing.assert_array_equal(mine, right)
        a[1, place] = 0


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 5000])
def test_the_last_of_equal_rows_is_found(size: int) -> None:
    """Values that differ in a few bits only, or by multiples of a power of two, and any others."""
    x = gd.lvector("x")
    found = [gd.function([x], last_equal(x), backend=b) for b in ("numpy", "llvm")]
    assert is_native(found[1])
    rng = np.random.default_rng(6)
    few = rng.integers(-3, 3, size)
    for values in (few, few << 60, np.arange(size) << 32, rng.integers(-(2**63), 2**63, size)):
        right, mine = (f(values) for f in found)
        np.testing.assert_array_equal(mine, right)
