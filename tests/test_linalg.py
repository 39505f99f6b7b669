"""Products, einsum and decompositions: what single rows of the op table cannot say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.graph import toposort
from graphdrop.ops.linalg import _matmul
from graphdrop.testing import check_grad


def products(*outputs: Any) -> list[Any]:
    """The matrix products in a graph."""
    return [n for n in toposort(outputs) if n.op is _matmul]


def test_a_batch_times_one_matrix_is_one_product() -> None:
    x = gd.tensor3("x", shape=("batch", "time", 3))
    w = gd.matrix("w", shape=(3, 4))
    y = x @ w
    assert y.shape == (*x.shape[:2], 4)
    found = products(y, gd.grad((y * y).sum(), w))
    assert len(found) == 2
    assert all(n.ndim == 2 for n in found)


def test_one_function_for_all_sizes() -> None:
    x = gd.tensor("x", "float64", ("b", "t", 3))
    w = gd.tensor("w", "float64", (3, "k"))
    y = gd.einsum("bti,ik->btk", x, w)
    scores = gd.einsum("btk,bsk->bts", y, y)
    cost = (scores * scores).sum() + gd.tensordot(y, w, (2, 1)).sum() + gd.trace(w)
    compiled = gd.function([x, w], [cost, *gd.grad(cost, [x, w])], backend="numpy")
    rng = np.random.default_rng(0)
    for b, t, k in [(2, 3, 4), (1, 5, 2), (0, 2, 3), (4, 1, 1)]:
        xs, ws = rng.normal(size=(b, t, 3)), rng.normal(size=(3, k))
        value, gx, gw = compiled(xs, ws)
        ys = xs @ ws
        expected = np.square(ys @ ys.swapaxes(1, 2)).sum() + np.tensordot(ys, ws, (2, 1)).sum()
        np.testing.assert_allclose(value, expected + np.trace(ws), rtol=1e-12)
        assert gx.shape == xs.shape
        assert gw.shape == ws.shape


def test_each_size_is_checked_at_the_call_not_only_their_product() -> None:
    a, b = gd.dmatrix("a"), gd.dmatrix("b")
    for y in (gd.tensordot(a, b), gd.einsum("ij,ij->", a, b), gd.einsum("ij,ij->ij", a, b)):
        for optimize in (True, False):
            compiled = gd.function([a, b], y, backend="numpy", optimize=optimize)
            compiled(np.ones((2, 3)), np.ones((2, 3)))
            with pytest.raises(gd.errors.ShapeError, match=r"test_linalg\.py"):
                compiled(np.ones((2, 3)), np.ones((3, 2)))
    square = gd.function([a], gd.einsum("ii->", a), backend="numpy")
    with pytest.raises(gd.errors.ShapeError, match=r"test_linalg\.py"):
        square(np.ones((2, 3)))


def test_specified_sizes_are_known_and_checked() -> None:
    x = gd.specify_shape(gd.dmatrix("x"), (None, 3))
    assert x.shape[1] == 3
    compiled = gd.function([x.inputs[0]], x * 2, backend="numpy")
    assert compiled(np.ones((2, 3))).shape == (2, 3)
    with pytest.raises(gd.errors.ShapeError, match="equal"):
        compiled(np.ones((2, 4)))


def test_mixed_dtypes_promote() -> None:
    a, b = gd.imatrix("a", shape=(2, 3)), gd.matrix("b", shape=(3, 4))
    assert (a @ b).dtype == np.float64
    assert gd.einsum("ij,jk", a, b).dtype == np.float64
    assert gd.solve(gd.matrix("m"), gd.ivector("v")).dtype == np.float64


@st.composite
def summations(draw: Any) -> tuple[str, list[tuple[int, ...]]]:
    """Subscripts and the operands' shapes."""
    sizes = {label: draw(st.integers(1, 3)) for label in "abcd"}
    terms = draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    result = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
    text = ",".join(terms) + (f"->{''.join(result)}" if draw(st.booleans()) else "")
    return text, [tuple(sizes[label] for label in term) for term in terms]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(summations(), st.integers(0, 2**32 - 1))
def test_einsum_is_numpys(case: tuple[str, list[tuple[int, ...]]], seed: int) -> None:
    text, shapes = case
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=s) for s in shapes]
    nodes = [gd.tensor(f"x{i}", "float64", s) for i, s in enumerate(shapes)]
    result = gd.function(nodes, gd.einsum(text, *nodes), backend="numpy")(*arrays)
    np.testing.assert_allclose(result, np.einsum(text, *arrays), rtol=1e-12, atol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(summations(), st.integers(0, 2**32 - 1))
def test_einsum_differentiates(case: tuple[str, list[tuple[int, ...]]], seed: int) -> None:
    text, shapes = case
    rng = np.random.default_rng(seed)
    check_grad(lambda *xs: gd.einsum(text, *xs), [rng.normal(size=s) for s in shapes])


@pytest.mark.parametrize(
    ("build", "value", "match"),
    [
        (gd.inv, np.zeros((2, 2)), "a matrix is singular"),
        (lambda a: gd.solve(a, a), np.ones((2, 2)), "a matrix is singular"),
        (gd.cholesky, -np.eye(2), "not positive definite"),
    ],
)
def test_matrices_without_a_result_are_errors_that_name_the_line(
    build: Any, value: Any, match: str
) -> None:
    a = gd.dmatrix("a")
    compiled = gd.function([a], build(a), backend="numpy")
    with pytest.raises(gd.errors.LinAlgError, match=match) as caught:
        compiled(value)
    assert isinstance(caught.value, np.linalg.LinAlgError)
    assert "test_linalg.py" in str(caught.value)


def test_a_determinant_of_zero_has_a_gradient() -> None:
    a = gd.dmatrix("a")
    gradient = gd.grad(gd.det(a), a)
    value = np.array([[1.0, 2.0], [2.0, 4.0]])
    found = gd.function([a], gradient, backend="numpy")(value)
    np.testing.assert_allclose(found, [[4, -2], [-2, 1]], atol=1e-12)
    second = gd.function([a], gd.grad(gradient[0, 0], a), backend="numpy")
    with pytest.raises(gd.errors.LinAlgError, match="singular"):
        second(value)


def test_nan_passes_through_decompositions() -> None:
    a = gd.dmatrix("a")
    sign, logarithm = gd.slogdet(a)
    compiled = gd.function([a], [gd.inv(a), gd.det(a), gd.cholesky(a), logarithm], backend="numpy")
    assert all(np.isnan(r).any() for r in compiled(np.full((2, 2), np.nan)))
    assert gd.grad(logarithm, a).shape == a.shape
    with pytest.raises(gd.errors.DisconnectedError):
        gd.grad(sign, a)


def test_the_likelihood_of_a_normal_distribution_differentiates() -> None:
    rng = np.random.default_rng(0)

    def likelihood(a: Any, x: Any) -> Any:
        covariance = a @ a.T + 2 * np.eye(3)
        factor = gd.cholesky(covariance)
        z = gd.solve(factor, x)
        return -0.5 * (z * z).sum() - gd.log(gd.diagonal(factor)).sum() + gd.slogdet(covariance)[1]

    check_grad(likelihood, [rng.normal(size=(3, 3)), rng.normal(size=3)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_det_returns_whatever_the_matrix(dtype: str) -> None:
    """LAPACK's svd, which it is made with, hangs on some infinite and some huge matrices."""
    x = gd.tensor("x", dtype, ("n", 3, 3))
    f = gd.function([x], gd.grad(gd.det(x).sum(), x), backend="numpy")
    top = np.finfo(dtype).max
    plain = np.arange(9).reshape(3, 3) + np.eye(3)
    odd = np.array([plain] * 6, dtype)
    for matrix, number in zip(odd[1:], [np.nan, np.inf, -np.inf, top, -top], strict=True):
        matrix[0, 1] = matrix[1, 2] = number
    found = f(odd)
    expected = np.linalg.det(plain) * np.linalg.inv(plain).T
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    assert np.isnan(found[1:4]).all()
    assert found.dtype == dtype
    assert not np.isfinite(found[4:]).all()  # products of two such numbers
    np.testing.assert_allclose(f(odd[:1] / 2**60)[0] * 2.0**120, found[0], rtol=1e-4)
    assert f(np.zeros((0, 3, 3), dtype)).shape == (0, 3, 3)
