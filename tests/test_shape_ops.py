"""Shapes, creators, joins and assertions beyond the op table: symbolic and data-dependent sizes."""

# ruff: noqa: PT009 (gd.assert_ is no unittest method)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import ArgumentError, CheckError, DTypeError, OutOfRangeError, ShapeError
from graphdrop.testing import check_grad

Array = np.ndarray[Any, Any]


def f32(*shape: int) -> Array:
    return np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def same(got: Any, wanted: Any) -> None:
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(g, w, strict=True)


# ---- sizes ----
def test_sizes_that_are_known_stay_known() -> None:
    x = gd.tensor3("x", shape=("batch", 3, 4))
    n = x.shape[0]
    assert gd.concatenate([x, x]).shape == (n * 2, 3, 4)
    assert gd.concatenate([x, x], -1).shape == (n, 3, 8)
    assert gd.stack([x, x], 1).shape == (n, 2, 3, 4)
    assert [p.shape for p in gd.split(x, 2, 2)] == [(n, 3, 2)] * 2
    assert gd.pad(x, ((1, 2), (0, 0), (3, 3))).shape == (n + 3, 3, 10)
    assert gd.flip(x).shape == gd.roll(x, 1, 0).shape == (n, 3, 4)
    assert gd.tile(x, (2, 1, 1)).shape == gd.repeat(x, 2, 0).shape == (n * 2, 3, 4)
    assert x.flatten(2).shape == (n, 12)
    assert x.ravel().shape == (n * 12,)
    assert gd.moveaxis(x, 0, -1).shape == x.swapaxes(0, 2).swapaxes(0, 1).shape == (3, 4, n)
    assert gd.zeros_like(x).shape == gd.tril(x).shape == x.shape
    assert gd.arange(n).shape == (n,)
    assert gd.eye(n, 2).shape == (n, 2)
    assert gd.linspace(0, 1, n).shape == (n,)
    assert gd.one_hot(gd.arange(n), 5).shape == (n, 5)
    assert gd.diag(gd.arange(n)).shape == (n, n)


def test_gradients_have_the_sizes_of_their_nodes() -> None:
    x = gd.matrix("x", shape=("n", 3))
    y = gd.matrix("y", shape=("m", 3))
    cost = (gd.concatenate([x, y, x[1:]]) ** 2).sum() + gd.pad(x, 1, "reflect").sum()
    gx, gy = gd.grad(cost, [x, y])
    assert (gx.shape, gy.shape) == (x.shape, y.shape)


def test_one_compile_serves_every_size() -> None:
    x = gd.matrix("x")
    n, m = x.shape
    f = gd.function(
        [x],
        [
            gd.zeros((n, 2)), gd.full(m, 7, "int32"), gd.eye(n, m, 1), gd.arange(n, n + m),
            gd.arange(n, 0, -1), gd.pad(x, (m, 1), "edge"), gd.tile(x, (n, 1)),
            gd.repeat(x, m, 0), gd.roll(x, n), gd.roll(x, -m, 0), gd.reshape(x, (m, -1)),
            *gd.array_split(x, 2), gd.diag(x, -1), gd.linspace(0.0, 1.0, m),
        ],
    )  # fmt: skip
    for shape in [(1, 1), (2, 5), (5, 2), (3, 3)]:
        a = f32(*shape)
        rows, columns = shape
        wanted = [
            np.zeros((rows, 2), "f4"), np.full(columns, 7, "i4"), np.eye(rows, columns, 1, "f4"),
            np.arange(rows, rows + columns), np.arange(rows, 0, -1),
            np.pad(a, (columns, 1), "edge"), np.tile(a, (rows, 1)), np.repeat(a, columns, 0),
            np.roll(a, rows), np.roll(a, -columns, 0), a.reshape(columns, -1),
            *np.array_split(a, 2), np.diag(a, -1),
        ]  # fmt: skip
        got = f(a)
        same(got[:-1], wanted)
        np.testing.assert_allclose(got[-1], np.linspace(0, 1, columns), rtol=1e-6)


def test_sizes_from_values() -> None:
    n, k = gd.lscalar("n"), gd.iscalar("k")
    f = gd.function([n, k], (gd.zeros((n, 2)), gd.eye(k), gd.arange(k, n), gd.arange(n, k, -2)))
    for a, b in [(3, 2), (0, 1), (2, 7)]:
        wanted = (np.zeros((a, 2), "f4"), np.eye(b, dtype="f4"), np.arange(b, a))
        same(f(a, b), (*wanted, np.arange(a, b, -2)))


def test_negative_sizes_from_values() -> None:
    n = gd.lscalar("n")
    f = gd.function([n], gd.zeros((n, 2)))
    with pytest.raises(ShapeError, match=r"negative(?s:.*)built at .*test_shape_ops\.py"):
        f(-1)


def test_a_size_in_givens_reaches_what_is_made_of_it() -> None:
    x = gd.vector("x", shape=("n",))
    f = gd.function([], gd.arange(x.shape[0]) + gd.zeros(x.shape, "int64"), givens={x: f32(3)})
    np.testing.assert_array_equal(f(), [0, 1, 2])


def test_run_time_sizes_that_do_not_fit() -> None:
    x, y = gd.matrix("x"), gd.matrix("y")
    f = gd.function([x, y], gd.concatenate([x, y]))
    assert f(f32(2, 3), f32(1, 3)).shape == (3, 3)
    with pytest.raises(ShapeError, match=r"concatenate(?s:.*)test_shape_ops\.py"):
        f(f32(2, 3), f32(2, 4))
    halves = gd.function([x], gd.split(x, 2))
    assert [h.shape for h in halves(f32(4, 1))] == [(2, 1), (2, 1)]
    with pytest.raises(ShapeError, match=r"test_shape_ops\.py"):
        halves(f32(3, 1))
    best = gd.function([x], gd.top_k(x, 3))
    with pytest.raises(ShapeError, match=r"test_shape_ops\.py"):
        best(f32(2, 2))


def test_padding_an_axis_that_turns_out_empty() -> None:
    x = gd.vector("x")
    f = gd.function([x], gd.pad(x, 1, "reflect"))
    np.testing.assert_array_equal(f(f32(1)), [1, 1, 1])
    with pytest.raises(OutOfRangeError, match="built at"):
        f(f32(0))


# ---- repeat with counts ----
class TestRepeatCounts:
    def test_size_known_at_run_time_only(self) -> None:
        x, counts = gd.matrix("x"), gd.ivector("counts")
        y = gd.repeat(x, counts, 0)
        f = gd.function([x, counts], (y, y.shape[0]))
        for c in ([1, 0, 3], [0, 0, 0], [2, 2, 2]):
            got, size = f(f32(3, 2), np.array(c, np.int32))
            np.testing.assert_array_equal(got, np.repeat(f32(3, 2), c, 0), strict=True)
            assert size == sum(c)

    def test_negative_and_wrong_number(self) -> None:
        x, counts = gd.vector("x"), gd.ivector("counts")
        f = gd.function([x, counts], gd.repeat(x, counts))
        with pytest.raises(CheckError, match="cannot be negative"):
            f(f32(2), np.array([1, -1], np.int32))
        with pytest.raises(ShapeError):
            f(f32(2), np.array([1, 1, 1], np.int32))

    def test_known_counts_have_a_known_size(self) -> None:
        assert gd.repeat(gd.matrix("x", shape=(3, 2)), [1, 0, 4], 0).shape == (5, 2)

    def test_gradient(self) -> None:
        check_grad(lambda x: gd.repeat(x * x, [2, 0, 1], 0), [np.array([1.0, 2.0, 3.0])])


# ---- assert_ ----
class TestAssert:
    def test_message_origin_and_recovery(self) -> None:
        x = gd.vector("x")
        y = gd.assert_(x, x > 0, "x must be positive").sum()
        f = gd.function([x], y)
        assert f(f32(3)) == 6
        with pytest.raises(CheckError, match=r"x must be positive\n.*test_shape_ops\.py:\d+"):
            f(-f32(3))
        assert f(f32(2)) == 3

    @pytest.mark.parametrize("optimize", [True, False])
    def test_survives_rewrites_as_long_as_it_is_used(self, optimize: bool) -> None:
        x, y = gd.vector("x"), gd.scalar("y")
        checked = gd.assert_(x, gd.less(y, 1), "y must be below 1")
        uses = [
            (checked * 1).reshape(-1),
            gd.neg(-checked),
            checked.T.T,
            checked + 0,
            checked[::-1],
        ]
        for use in uses:
            f = gd.function([x, y], use, optimize=optimize)
            assert f(f32(2), 0.5).shape == (2,)
            with pytest.raises(CheckError, match="below 1"):
                f(f32(2), 1.5)

    def test_one_failure_among_many(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], gd.assert_(x, x < 6, "too large"))
        with pytest.raises(AssertionError, match="too large"):
            f(f32(2, 3))

    def test_gradient_passes(self) -> None:
        x = gd.vector("x")
        g = gd.grad((gd.assert_(x, x > 0, "no") ** 2).sum(), x)
        np.testing.assert_array_equal(gd.function([x], g)(f32(2)), [2, 4])

    def test_constants(self) -> None:
        x = gd.vector("x")
        assert gd.function([x], gd.assert_(x, True))(f32(1)) == 1
        with pytest.raises(CheckError, match="the assertion failed"):
            gd.function([x], gd.assert_(x, False))(f32(1))


# ---- creators ----
class TestCreators:
    def test_dtypes(self) -> None:
        x = gd.tensor("x", "float64", (2,))
        assert gd.zeros(2).dtype == gd.ones((2, 3)).dtype == gd.eye(2).dtype == np.float32
        assert gd.full(2, 1).dtype == gd.arange(3).dtype == np.int64
        assert gd.full(2, 1.0).dtype == gd.arange(3.0).dtype == np.float32
        assert gd.full(2, 1, "uint8").dtype == np.uint8
        assert gd.zeros_like(x).dtype == gd.linspace(x[0], x[1]).dtype == np.float64
        assert gd.ones_like(x, "int8").dtype == np.int8
        assert gd.linspace(0, 1, 3).dtype == gd.one_hot([0], 2).dtype == np.float32

    def test_a_value_that_does_not_fit(self) -> None:
        with pytest.raises(DTypeError):
            gd.full(2, 300, "uint8")

    def test_outputs_are_writable_arrays_of_their_own(self) -> None:
        f = gd.function([], (gd.zeros((2, 3)), gd.ones(2), gd.arange(3)))
        for array in f():
            assert array.flags.writeable
            assert 0 not in array.strides
            array += 1
        same(f(), (np.zeros((2, 3), "f4"), np.ones(2, "f4"), np.arange(3)))

    def test_linspace_reaches_its_end_and_differentiates(self) -> None:
        ends = [np.array(0.1), np.array(0.7)]
        check_grad(lambda a, b: gd.linspace(a, b * b, 5) ** 2, ends)
        a, b = gd.dscalar("a"), gd.dscalar("b")
        assert gd.function([a, b], gd.linspace(a, b, 7))(0.1, 0.7)[-1] == 0.7

    def test_one_hot_of_a_missing_id_is_zero(self) -> None:
        ids = gd.ivector("ids")
        got = gd.function([ids], gd.one_hot(ids, 3))(np.array([-1, 2, 3], np.int32))
        np.testing.assert_array_equal(got, [[0, 0, 0], [0, 0, 1], [0, 0, 0]])

    def test_triangles_do_not_leak(self) -> None:
        x = gd.constant(np.array([[1, np.nan], [np.inf, 2]], "f4"))
        low, up = gd.function([], (gd.tril(x), gd.triu(x)))()
        np.testing.assert_array_equal(low, [[1, 0], [np.inf, 2]])
        np.testing.assert_array_equal(up, [[1, np.nan], [0, 2]])


# ---- joins ----
def test_split_and_concatenate_are_inverse() -> None:
    x = gd.matrix("x")
    f = gd.function([x], [gd.concatenate(gd.array_split(x, k), 0) for k in (1, 2, 3, 7)])
    for rows in range(6):
        for got in f(f32(rows, 2)):
            np.testing.assert_array_equal(got, f32(rows, 2))


def test_concatenate_promotes_as_numpy() -> None:
    a, b = gd.ivector("a"), gd.vector("b")
    assert gd.concatenate([a, b]).dtype == np.float64
    assert gd.concatenate([b, [1, 2]]).dtype == np.float64
    assert gd.stack([b[0], 1.5]).dtype == np.float32


def test_roll_of_nothing() -> None:
    x, shift = gd.vector("x"), gd.lscalar("shift")
    f = gd.function([x, shift], (gd.roll(x, 3), gd.roll(x, shift)))
    same(f(f32(0), 2), (f32(0), f32(0)))


def test_bounds_of_sections() -> None:
    with pytest.raises(ArgumentError, match="positive"):
        gd.array_split(gd.vector("x"), 0)
    x = gd.vector("x", shape=(5,))
    assert [p.shape for p in gd.split(x, [2, -1])] == [(2,), (2,), (1,)]


def test_jacobian_stacks_rows() -> None:
    x = gd.tensor("x", "float64", (3,))
    j = gd.jacobian(gd.roll(x * x, 1), x)
    wanted = np.roll(np.diag([2.0, 4.0, 6.0]), 1, 0)
    np.testing.assert_array_equal(gd.function([x], j)(np.array([1.0, 2, 3])), wanted)
