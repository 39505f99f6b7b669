"""Sorting beyond the op table: stability, unknown sizes, gradients at order 2 and after ties."""

from __future__ import annotations

import numpy as np

import graphdrop as gd
from graphdrop.testing import check_grad


def test_ties_stay_in_order() -> None:
    x = gd.vector("x")
    f = gd.function([x], (x.argsort(), x.argsort(descending=True), gd.top_k(x, 3)[1]))
    up, down, top = f(np.array([1, 2, 1, 2, 1], "f4"))
    np.testing.assert_array_equal(up, [0, 2, 4, 1, 3])
    np.testing.assert_array_equal(down, [1, 3, 0, 2, 4])
    np.testing.assert_array_equal(top, [1, 3, 0])


def test_nan_is_the_largest() -> None:
    x = gd.vector("x")
    f = gd.function([x], (x.sort(), x.sort(descending=True), *gd.top_k(x, 2)))
    up, down, values, ids = f(np.array([1, np.nan, np.inf, -np.inf], "f4"))
    np.testing.assert_array_equal(up, [-np.inf, 1, np.inf, np.nan])
    np.testing.assert_array_equal(down, [np.nan, np.inf, 1, -np.inf])
    np.testing.assert_array_equal(values, [np.nan, np.inf])
    np.testing.assert_array_equal(ids, [1, 2])


def test_gradient_goes_back_where_each_value_was() -> None:
    x = gd.vector("x")
    y = (x.sort() * gd.arange(1, 1 + x.shape[0], dtype="float32")).sum()
    f = gd.function([x], gd.grad(y, x))
    np.testing.assert_array_equal(f(np.array([3, 1, 2, 1], "f4")), [4, 1, 3, 2])


def test_second_order() -> None:
    a = np.array([[0.3, -1.2, 2.0], [1.5, 0.2, -0.4]])
    check_grad(lambda x: gd.sort(x * x * x, 0) * gd.sort(x, 1, descending=True), [a])
    check_grad(lambda x: gd.top_k(x**3, 2)[0] * x[:, :2], [a])


def test_k_may_be_a_size() -> None:
    x, y = gd.vector("x"), gd.vector("y", shape=("k",))
    values, ids = gd.top_k(x, y.shape[0])
    assert values.shape == ids.shape == y.shape
    f = gd.function([x, y], (values + y, ids))
    got, places = f(np.array([5, 9, 7], "f4"), np.zeros(2, "f4"))
    np.testing.assert_array_equal(got, [9, 7])
    np.testing.assert_array_equal(places, [1, 2])


def test_searchsorted_counts_smaller_elements() -> None:
    x, v = gd.dvector("x"), gd.dscalar("v")
    f = gd.function([x, v], (gd.searchsorted(x, v), x.searchsorted(v, "right")))
    low, high = f(np.array([1.0, 2.0, 2.0, 3.0]), 2.0)
    assert (low, high) == (1, 3)
    assert low.dtype == np.int64
    assert low.shape == ()
