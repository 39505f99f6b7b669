"""Elementwise operations where the table's samples do not go: kinks, poles, ties, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import DisconnectedError, InputError

INF, NAN = np.inf, np.nan


def slopes(fn: Callable[..., Any], *points: Any, order: int = 1) -> list[Any]:
    """d^order/dx^order of a function at points, by each of its operands in turn."""
    nodes = [gd.dscalar(f"x{i}") for i in range(len(points))]
    found = []
    for node in nodes:
        y = fn(*nodes)
        for _ in range(order):
            y = gd.grad(y, node, disconnected="zero")
        found.append(y)
    f = gd.function(nodes, found, backend="numpy", on_unused_input="ignore")
    return [float(v) for v in f(*(np.float64(p) for p in points))]


@pytest.mark.parametrize(
    ("fn", "point", "first", "second"),
    [
        (gd.abs, 0.0, 0, 0),
        (gd.relu, 0.0, 0, 0),
        (gd.sqrt, 0.0, INF, -INF),
        (gd.sign, 0.5, 0, 0),
        (gd.square, 0.0, 0, 2),
        (gd.softplus, 800.0, 1, 0),
        (gd.softplus, -800.0, 0, 0),
        (gd.sigmoid, 800.0, 0, 0),
        (gd.sigmoid, -800.0, 0, 0),
        (gd.tanh, 400.0, 0, 0),
        (gd.elu, 0.0, 1, 1),
        (gd.elu, 800.0, 1, 0),
        (gd.leaky_relu, 0.0, 0.01, 0),
        (gd.gelu, 0.0, 0.5, 2 / np.sqrt(2 * np.pi)),
        (gd.silu, 0.0, 0.5, 0.5),
        (gd.exp, -800.0, 0, 0),
        (gd.log1p, 0.0, 1, -1),
        (gd.expm1, 0.0, 1, 1),
        (lambda x: x**2, 0.0, 0, 2),
        (lambda x: x**2.0, -3.0, -6, 2),
        (lambda x: x**3, 0.0, 0, 0),
        (lambda x: x**1, 0.0, 1, 0),
        (lambda x: x**0, 0.0, 0, 0),
        (lambda x: x**0, 2.0, 0, 0),
        (lambda x: x**-1.0, 2.0, -0.25, 0.25),
        (lambda x: x**0.5, 4.0, 0.25, -1 / 32),
        (lambda x: x**0.5, 0.0, INF, -INF),
        (lambda x: 2.0**x, 0.0, np.log(2), np.log(2) ** 2),
        (lambda x: gd.clip(x, -1, 1), 0.5, 1, 0),
        (lambda x: gd.clip(x, -1, 1), 1.0, 1, 0),
        (lambda x: gd.clip(x, -1, 1), -1.0, 1, 0),
        (lambda x: gd.clip(x, -1, 1), 1.5, 0, 0),
        (lambda x: gd.where(x > 0, gd.log(gd.where(x > 0, x, 1.0)), 0.0), -2.0, 0, 0),
        (lambda x: gd.where(x > 0, gd.log(gd.where(x > 0, x, 1.0)), 0.0), 2.0, 0.5, -0.25),
        (lambda x: gd.round(x) * x, 2.4, 2, 0),
    ],
)
def test_slopes_at_special_points(fn: Any, point: float, first: float, second: float) -> None:
    np.testing.assert_allclose(slopes(fn, point), [first], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(slopes(fn, point, order=2), [second], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("fn", "points", "expected"),
    [
        (gd.maximum, (2.0, 2.0), (0.5, 0.5)),
        (gd.minimum, (2.0, 2.0), (0.5, 0.5)),
        (gd.maximum, (3.0, 2.0), (1, 0)),
        (gd.minimum, (3.0, 2.0), (0, 1)),
        (gd.maximum, (-INF, 2.0), (0, 1)),
        (gd.hypot, (0.0, 0.0), (0, 0)),
        (gd.hypot, (3.0, -4.0), (0.6, -0.8)),
        (gd.hypot, (1e200, 0.0), (1, 0)),
        (gd.logaddexp, (1.0, 1.0), (0.5, 0.5)),
        (gd.logaddexp, (1000.0, -1000.0), (1, 0)),
        (gd.logaddexp, (-INF, -INF), (0.5, 0.5)),
        (gd.logaddexp, (-INF, 0.0), (0, 1)),
        (gd.mod, (7.5, 2.0), (1, -3)),
        (gd.mod, (-7.5, 2.0), (1, 4)),
        (gd.pow, (0.0, 0.0), (0, 0)),
        (gd.pow, (0.0, 2.0), (0, 0)),
        (gd.pow, (0.0, 1.0), (1, 0)),
        (gd.pow, (2.0, 0.0), (0, np.log(2))),
        (gd.pow, (-2.0, 3.0), (12, NAN)),
        (gd.pow, (1.0, NAN), (NAN, 0)),
        (gd.div, (1.0, 2.0), (0.5, -0.25)),
        (lambda x, low: gd.clip(x, low), (0.0, 1.0), (0, 1)),
        (lambda x, low: gd.clip(x, low), (2.0, 1.0), (1, 0)),
        (lambda x, low: gd.clip(x, low), (1.0, 1.0), (1, 0)),
        (lambda x, high: gd.clip(x, None, high), (2.0, 1.0), (0, 1)),
    ],
)
def test_slopes_of_two_operands(fn: Any, points: Any, expected: Any) -> None:
    np.testing.assert_allclose(slopes(fn, *points), expected, rtol=1e-12)


def test_mixed_derivative_of_a_power_at_exponent_0() -> None:
    """d/db of b * a**(b-1) at b = 0 is 1/a."""
    a, b = gd.dscalar("a"), gd.dscalar("b")
    mixed = gd.grad(gd.grad(gd.pow(a, b), a), b)
    f = gd.function([a, b], mixed, backend="numpy")
    np.testing.assert_allclose(f(2.0, 0.0), 0.5)


def test_second_derivative_of_logaddexp_at_a_tie() -> None:
    np.testing.assert_allclose(slopes(gd.logaddexp, 1.0, 1.0, order=2), [0.25, 0.25])


def test_ties_between_broadcast_operands_add_up() -> None:
    x, y = gd.dvector("x", shape=3), gd.dscalar("y")
    g = gd.grad(gd.sum(gd.maximum(x, y)), [x, y])
    dx, dy = gd.function([x, y], g, backend="numpy")(np.array([1.0, 2.0, 3.0]), 2.0)
    np.testing.assert_allclose(dx, [0, 0.5, 1])
    np.testing.assert_allclose(dy, 1.5)


@pytest.mark.parametrize("fn", [gd.floor, gd.ceil, gd.trunc, gd.round, gd.sign, gd.isnan])
def test_steps_have_no_slope(fn: Any) -> None:
    x = gd.dscalar("x")
    with pytest.raises(DisconnectedError):
        gd.grad(gd.cast(fn(x), "float64"), x)


def test_nan_is_not_lost() -> None:
    x = gd.vector("x", shape=4)
    kept = [gd.relu(x), gd.maximum(x, 0), gd.minimum(x, 0), gd.clip(x, -1, 1), gd.elu(x),
            gd.leaky_relu(x), gd.softplus(x), gd.gelu(x), gd.sign(x), gd.abs(x)]  # fmt: skip
    f = gd.function([x], kept, backend="numpy")
    for node, y in zip(kept, f(np.array([NAN, 1, -1, NAN], "f4")), strict=True):
        np.testing.assert_array_equal(np.isnan(y), [True, False, False, True], err_msg=str(node))


def test_the_branch_not_taken_leaks_nothing() -> None:
    x = gd.dvector("x", shape=3)
    y = gd.where(x > 0, x, gd.constant(np.array([NAN, INF, -INF])))
    g = gd.grad(gd.sum(y), x)
    values = gd.function([x], [y, g], backend="numpy")(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(values, [[1, 2, 3], [1, 1, 1]])


def test_division_of_integers_is_float64() -> None:
    i = gd.ivector("i", shape=3)
    assert (i / 2).dtype == np.float64
    assert (i / i).dtype == np.float64
    assert gd.reciprocal(i).dtype == np.float64
    assert (i // 2).dtype == np.int32
    assert (1 / gd.tensor("b", bool)).dtype == np.float64


def test_bools_count_in_int8_as_in_numpy() -> None:
    b = gd.tensor("b", bool, 3)
    for node, right in (
        (b // b, np.floor_divide(np.True_, np.True_)),
        (b % b, np.mod(np.True_, np.True_)),
        (b**b, np.power(np.True_, np.True_)),
        (gd.square(b), np.square(np.True_)),
        (b + b, np.add(np.True_, np.True_)),
        (b * 2, np.True_ * 2),
    ):
        assert node.dtype == right.dtype


def test_cast_cuts_and_wraps_as_astype() -> None:
    x = np.array([-1.9, 0.0, 2.7, 255.0], "f4")
    node = gd.vector("x", shape=4)
    f = gd.function([node], [node.astype(d) for d in ("int8", "int64", "bool")], backend="numpy")
    small, wide, truth = f(x)
    np.testing.assert_array_equal(small[:3], [-1, 0, 2])
    np.testing.assert_array_equal(wide, [-1, 0, 2, 255])
    np.testing.assert_array_equal(truth, [True, False, True, True])
    assert gd.cast(node, np.float32) is node


def test_functions_take_scalars_and_arrays() -> None:
    for fn in (gd.exp, gd.relu, gd.gelu, gd.silu, gd.elu, gd.selu, gd.leaky_relu, gd.round):
        assert fn(1.5).dtype == np.float32
        assert fn(np.ones(3)).type == gd.constant(np.ones(3)).type
    assert gd.clip(np.arange(3.0), 0, 1).shape == (3,)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_integers_have_no_negative_powers(backend: str, dtype: str) -> None:
    x, n, k = gd.tensor("x", dtype, ("n",)), gd.lvector("n"), gd.lscalar("k")
    for made, good, bad in (
        (x**n, [2, 0], [2, -1]), (x**k, 3, -1), (gd.map(lambda e: e**k, x), 3, -1),
    ):  # fmt: skip
        power = n if isinstance(good, list) else k
        f = gd.function([x, power], made, backend=backend)
        np.testing.assert_array_equal(f(np.array([3, 2], dtype), good), np.array([3, 2]) ** good)
        with pytest.raises(InputError, match=r"(?s)no negative .*test_elementwise\.py"):
            f(np.array([3, 2], dtype), bad)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_one_power_for_all_is_the_same_power(backend: str) -> None:
    x = gd.dvector("x")
    given = np.array([-np.inf, -0.0, 0.25])
    f = gd.function([x], [x**0.5, x ** gd.full_like(x, 0.5)], backend=backend)
    for found in f(given):
        np.testing.assert_array_equal(found, [np.inf, 0, 0.5])
