"""Reductions, norms, softmax and running products: what single rows of the op table cannot say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.ops.cumulative import linear_recurrence
from graphdrop.testing import check_grad


def run(node: Any, **inputs: Any) -> Any:
    """The value of a node whose inputs have these names."""
    leaves = {n.name: n for n in gd.graph.leaves([node]) if n.name in inputs}
    compiled = gd.function(list(leaves.values()), node, backend="numpy")
    return compiled(**inputs)


def test_methods_are_the_functions() -> None:
    x = gd.matrix("x")
    assert x.prod(1) is gd.prod(x, 1)
    assert x.var(0, 1, True) is gd.var(x, axis=0, ddof=1, keepdims=True)
    assert x.std(-1) is gd.std(x, 1)
    assert x.argmax(0) is gd.argmax(x, axis=-2)
    assert x.argmin() is gd.argmin(x)
    assert x.cumsum(1) is gd.cumsum(x, -1)
    assert x.cumprod() is gd.cumprod(x)


def test_one_function_for_all_sizes() -> None:
    x = gd.tensor("x", "float64", ("n", None))
    cost = (
        gd.prod(x, axis=1).sum() + gd.var(x, ddof=1) + gd.std(x, axis=0).sum()
        + gd.logsumexp(x) + gd.norm(x) + (gd.softmax(x, 0) * gd.cumprod(x, 1)).sum()
        + (gd.log_softmax(x) * gd.cumsum(x, 0)).sum() + gd.mean(x)
    )  # fmt: skip
    once = gd.function([x], [cost, gd.grad(cost, x)], backend="numpy")
    rng = np.random.default_rng(0)
    for shape in [(3, 4), (5, 2), (2, 1)]:
        value = rng.normal(size=shape)
        fixed = gd.tensor("fixed", "float64", shape)
        (known,) = gd.substitute.substitute([cost], {x: fixed})
        given = gd.function([fixed], [known, gd.grad(known, fixed)], backend="numpy")
        for a, b in zip(once(value), given(value), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_gradient_of_a_product_is_exact_at_zeros() -> None:
    x = gd.dvector("x")
    gradient = gd.grad(gd.prod(x), x)
    np.testing.assert_array_equal(run(gradient, x=np.array([2.0, 0.0, 3.0])), [0, 6, 0])
    np.testing.assert_array_equal(run(gradient, x=np.array([0.0, 0.0, 3.0])), [0, 0, 0])
    np.testing.assert_array_equal(run(gradient, x=np.array([5.0])), [1])
    # d2 / dx0 dx1 of x0 * x1 * x2 is x2, whatever x0 and x1
    second = gd.grad(gradient[0], x)
    np.testing.assert_array_equal(run(second, x=np.array([0.0, 0.0, 3.0])), [0, 3, 0])


def test_products_to_third_order_with_zeros() -> None:
    check_grad(gd.prod, [np.array([1.5, 0.0, -2.0, 0.0])], order=3)
    check_grad(lambda x: gd.cumprod(x, 0), [np.array([0.0, 2.0, 0.0, -1.0])], order=3)


def test_a_recurrence_starts_from_nothing_even_times_infinity() -> None:
    x = gd.dvector("x")
    z = linear_recurrence(x, x, axis=0, reverse=False)
    np.testing.assert_array_equal(run(z, x=np.array([np.inf, 2.0, 3.0])), [0, np.inf, np.inf])


def test_logsumexp_of_nothing_finite_has_no_nan_gradient() -> None:
    x = gd.dmatrix("x")
    y = gd.logsumexp(x, axis=1)
    gradient = gd.grad(gd.where(gd.isinf(y), 0, y).sum(), x)
    value = np.array([[-np.inf, -np.inf], [-np.inf, 1.0]])
    np.testing.assert_array_equal(run(gradient, x=value), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(run(gd.grad(y.sum(), x), x=value), [[0, 0], [0, 1]])
    second = gd.grad(gd.grad(y.sum(), x).sum(), x)
    np.testing.assert_array_equal(run(second, x=value), np.zeros((2, 2)))


@pytest.mark.parametrize("build", [gd.norm, gd.std, lambda x: gd.norm(x, 3), lambda x: x.std()])
def test_a_root_of_zero_has_gradient_zero(build: Any) -> None:
    x = gd.dvector("x")
    assert run(gd.grad(build(x), x), x=np.zeros(3)).tolist() == [0, 0, 0]


def test_ties_share_the_gradient() -> None:
    x = gd.dmatrix("x")
    value = np.array([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    shares = run(gd.grad(gd.max(x, axis=1).sum(), x), x=value)
    np.testing.assert_allclose(shares, [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])


def test_empty_means_are_nan_and_variances_of_too_few_too() -> None:
    x = gd.dvector("x")
    assert np.isnan(run(gd.mean(x), x=np.zeros(0)))
    assert np.isnan(run(gd.var(x), x=np.zeros(0)))
    assert np.isnan(run(gd.var(x, ddof=1), x=np.ones(1)))
    assert np.isnan(run(gd.var(x, ddof=3), x=np.ones(1)))  # as NumPy, not a negative count


def test_softmax_of_nothing_finite_is_nan() -> None:
    x = gd.dvector("x")
    assert np.isnan(run(gd.softmax(x), x=np.full(2, -np.inf))).all()


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("build", [gd.max, gd.min, gd.argmax, gd.argmin])
def test_extremes_of_nothing_at_the_call_name_the_line(build: Any, backend: str) -> None:
    x, y = gd.dvector("x"), gd.dmatrix("y")
    whole, columns = (gd.function([n], build(n, axis=0), backend=backend) for n in (x, y))
    assert columns(np.zeros((3, 0))).shape == (0,)
    for compiled, shape in ((whole, (0,)), (columns, (0, 3)), (columns, (0, 0))):
        with pytest.raises(gd.errors.ShapeError, match=r"empty|zero-size|no elements") as caught:
            compiled(np.zeros(shape))
        assert "test_reduce.py" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda x: gd.norm(x, "nuc"), "matrix norm is 'fro'"),
        (lambda x: gd.norm(x, 2), "singular values"),
        (lambda x: gd.norm(x, "fro", axis=1), "vector norm is a number"),
        (lambda x: gd.norm(x, float("nan"), axis=1), "cannot be NaN"),
        (lambda x: gd.norm(gd.tensor3("t"), 1), "one axis or two"),
        (lambda x: gd.var(x, ddof=0.5), "ddof must be an int"),
    ],
)
def test_mistakes(build: Any, match: str) -> None:
    with pytest.raises(gd.errors.ArgumentError, match=match) as caught:
        build(gd.matrix("x"))
    assert "test_reduce.py" in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sets(st.integers(0, 2)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_gradients_of_reductions_over_any_axes(
    shape: list[int], axes: set[int], keepdims: bool, seed: int
) -> None:
    chosen = tuple(a for a in axes if a < len(shape))
    x = np.random.default_rng(seed).normal(size=shape)
    for build in (gd.prod, gd.logsumexp, gd.mean, gd.max):
        check_grad(lambda n, b=build: b(n, axis=chosen, keepdims=keepdims), [x])
