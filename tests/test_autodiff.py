"""Gradients: the options of grad, the products and matrices of derivatives, and the mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import (
    ArgumentError,
    CheckError,
    DisconnectedError,
    GradientError,
)
from graphdrop.graph import leaves, toposort
from graphdrop.op import OPS, op, split
from graphdrop.testing import check_grad
from graphdrop.types import TensorType, TupleType

X = np.array([0.3, -1.2, 2.5])
M = np.array([[0.5, -0.2, 1.0], [0.1, 0.7, -0.4]])


def value(node: Any, *pairs: tuple[Any, Any]) -> Any:
    """What nodes are, given input nodes and their arrays."""
    inputs, arrays = [a for a, _ in pairs], [b for _, b in pairs]
    return gd.function(inputs, node, backend="numpy", on_unused_input="ignore")(*arrays)


# ---- grad
def test_grad_of_one_node_and_of_a_list() -> None:
    x, w = gd.dvector("x", shape=3), gd.dmatrix("w", shape=(2, 3))
    cost = gd.sum(gd.tanh(w @ x))
    dx = gd.grad(cost, x)
    both = gd.grad(cost, [x, w])
    assert isinstance(both, list)
    assert both[0] is dx, "gradients are interned like everything else"
    slope = 1 - np.tanh(M @ X) ** 2
    found = value(both, (x, X), (w, M))
    np.testing.assert_allclose(found[0], M.T @ slope, rtol=1e-12)
    np.testing.assert_allclose(found[1], np.outer(slope, X), rtol=1e-12)


def test_grad_by_an_intermediate_node() -> None:
    x = gd.dvector("x", shape=3)
    h = x * 2
    g = gd.grad(gd.sum(h * h), [h, x])
    found = value(g, (x, X))
    np.testing.assert_allclose(found[0], 4 * X)
    np.testing.assert_allclose(found[1], 8 * X)


def test_grad_of_the_cost_itself_is_one() -> None:
    x = gd.dscalar("x")
    assert value(gd.grad(x, x), (x, 3.0)) == 1


def test_a_node_used_twice_gets_the_sum() -> None:
    x = gd.dscalar("x")
    assert value(gd.grad(x * x + x * 3, x), (x, 2.0)) == 7


def test_third_order() -> None:
    x = gd.dscalar("x")
    y = gd.exp(x * x)
    for _ in range(3):
        y = gd.grad(y, x)
    v = 0.7
    expected = (8 * v**3 + 12 * v) * np.exp(v * v)
    np.testing.assert_allclose(value(y, (x, v)), expected, rtol=1e-12)


def test_float16_gradients_are_float16() -> None:
    x = gd.tensor("x", "float16", 3)
    g = gd.grad(gd.sum(gd.sigmoid(x) * 2.5), x)
    assert g.dtype == np.float16
    assert value(g, (x, X.astype(np.float16))).dtype == np.float16


def test_a_gradient_crosses_dtypes() -> None:
    x = gd.vector("x", shape=3)
    g = gd.grad(gd.sum(gd.cast(x, "float64") ** 2), x)
    assert g.dtype == np.float32
    np.testing.assert_allclose(value(g, (x, X.astype("f4"))), 2 * X, rtol=1e-6)


def test_known_grads_start_where_no_cost_is() -> None:
    x = gd.dvector("x", shape=3)
    y = gd.sin(x)
    g = gd.grad(None, x, known_grads={y: np.array([1.0, 2.0, 3.0])})
    np.testing.assert_allclose(value(g, (x, X)), np.cos(X) * [1, 2, 3])


def test_known_grads_replace_what_flows_in() -> None:
    x = gd.dscalar("x")
    y = x * x
    g = gd.grad(gd.exp(y), [x, y], known_grads={y: 10.0})
    assert [float(v) for v in value(g, (x, 3.0))] == [60.0, 10.0]


def test_known_grads_may_be_nodes_and_differentiable() -> None:
    x, k = gd.dscalar("x"), gd.dscalar("k")
    g = gd.grad(None, x, known_grads={x * x: k * k})
    assert value(gd.grad(g, k), (x, 3.0), (k, 5.0)) == 2 * 5 * 2 * 3


def test_consider_constant_stops_the_flow() -> None:
    x = gd.dscalar("x")
    y = gd.exp(x)
    g = gd.grad(x * y, x, consider_constant=[y])
    np.testing.assert_allclose(value(g, (x, 0.5)), np.exp(0.5))
    assert gd.grad(x * y, x, consider_constant=y) is g, "one node will do"


def test_stop_gradient() -> None:
    x = gd.dscalar("x")
    y = gd.stop_gradient(gd.exp(x))
    np.testing.assert_allclose(value([y, gd.grad(x * y, x)], (x, 0.5)), np.exp([0.5, 0.5]))


def test_disconnected_raises_by_default() -> None:
    x, z = gd.dscalar("x"), gd.dscalar("z")
    with pytest.raises(DisconnectedError, match=r"does not depend on .*'z'.*test_autodiff\.py:\d+"):
        gd.grad(x * 2, [x, z])


def test_disconnected_zero_and_warn() -> None:
    x, z = gd.dscalar("x"), gd.dvector("z", shape=("n",))
    g = gd.grad(x * 2, [x, z], disconnected="zero")
    np.testing.assert_array_equal(value(g[1], (x, 0.0), (z, np.ones(4))), np.zeros(4))
    with pytest.warns(UserWarning, match="does not depend"):
        gd.grad(x * 2, z, disconnected="warn")
    with pytest.raises(ArgumentError, match="'raise', 'zero' or 'warn'"):
        gd.grad(x * 2, z, disconnected="ignore")


def test_flow_through_an_integer_is_no_connection() -> None:
    x = gd.dscalar("x")
    with pytest.raises(DisconnectedError, match="in a differentiable way"):
        gd.grad(gd.cast(gd.cast(x, "int32"), "float64") * 2, x)


def test_gradient_of_a_non_scalar() -> None:
    x = gd.dvector("x")
    with pytest.raises(GradientError, match=r"must be a scalar.*test_autodiff\.py:\d+.*\.sum\(\)"):
        gd.grad(x * 2, x)


def test_gradient_by_an_integer() -> None:
    i = gd.iscalar("i")
    with pytest.raises(GradientError, match="not a float; cast it"):
        gd.grad(gd.cast(i, "float32") * 2, i)


def test_gradient_of_an_integer() -> None:
    x = gd.iscalar("x")
    with pytest.raises(GradientError, match="the cost must be a float"):
        gd.grad(x * 2, gd.dscalar("y"))


def test_gradient_by_a_value() -> None:
    with pytest.raises(ArgumentError, match="must be nodes"):
        gd.grad(gd.dscalar("x"), 3.0)


def test_nothing_to_start_from() -> None:
    with pytest.raises(ArgumentError, match="a cost, or known_grads"):
        gd.grad(None, gd.dscalar("x"))


@pytest.mark.parametrize("g", [np.ones(4), np.ones((3, 1)), 1.0])
def test_known_gradient_of_another_shape(g: Any) -> None:
    x = gd.dvector("x", shape=3)
    with pytest.raises(GradientError, match="must have the shape of the node"):
        gd.grad(None, x, known_grads={x * 2: g})


def test_sizes_of_known_gradients_are_checked_at_the_call() -> None:
    x, k = gd.dvector("x"), gd.dvector("k")
    g = gd.grad(None, x, known_grads={gd.sin(x): k})
    f = gd.function([x, k], g, backend="numpy")
    np.testing.assert_allclose(f(X, np.ones(3)), np.cos(X))
    with pytest.raises(gd.GraphdropError, match="3"):
        f(X, np.ones(4))


def test_an_op_without_a_gradient() -> None:
    @op(name="test_gradientless")
    def gradientless(x: TensorType) -> TensorType:
        """Nothing."""
        return x

    try:
        x = gd.dscalar("x")
        with pytest.raises(
            GradientError, match=r"test_gradientless has no gradient \(built at .*:"
        ):
            gd.grad(gradientless(x), x)
    finally:
        del OPS["test_gradientless"]


def test_gradients_carry_the_users_line() -> None:
    x = gd.dvector("x", shape=3)
    y = gd.sum(gd.tanh(x))
    g = gd.grad(y, x)
    origins = {n.origin for n in toposort([g]) if n.op.name not in ("input", "constant")}
    assert {o[0] for o in origins if o} == {__file__}
    assert (__file__, y.origin[1] if y.origin else 0) in origins


# ---- several results
def test_an_op_with_several_results() -> None:
    """Each result has a gradient of its own; one that is not used gets none."""

    @op(name="test_sin_and_cos")
    def sin_and_cos(x: TensorType) -> TupleType:
        """Sine and cosine."""
        return TupleType((x, x))

    @sin_and_cos.vjp
    def _(g: Any, y: Any, x: Any) -> Any:
        parts = [d * s for d, s in zip(g, (y[1], -y[0]), strict=True) if d is not None]
        return (parts[0] if len(parts) == 1 else parts[0] + parts[1],)

    from graphdrop_numpy.rules import RULES

    RULES[sin_and_cos] = lambda x: (np.sin(x), np.cos(x))
    try:
        x = gd.dscalar("x")
        s, c = split(sin_and_cos(x))
        v = 0.4
        np.testing.assert_allclose(value(gd.grad(s * c, x), (x, v)), np.cos(2 * v))
        np.testing.assert_allclose(value(gd.grad(c, x), (x, v)), -np.sin(v))
        np.testing.assert_allclose(value(gd.grad(gd.grad(s, x), x), (x, v)), -np.sin(v))
        with pytest.raises(ArgumentError, match="nodes of one array"):
            gd.grad(s, sin_and_cos(x))
    finally:
        del RULES[sin_and_cos], OPS["test_sin_and_cos"]


# ---- products and matrices
def test_vjp_of_several_outputs() -> None:
    x = gd.dvector("x", shape=3)
    w = gd.dmatrix("w", shape=(2, 3))
    g = gd.vjp([w @ x, gd.sin(x)], [x, w], [np.array([1.0, 2.0]), np.ones(3)])
    found = value(g, (x, X), (w, M))
    np.testing.assert_allclose(found[0], M.T @ [1, 2] + np.cos(X))
    np.testing.assert_allclose(found[1], np.outer([1, 2], X))


def test_vjp_of_one_output_takes_a_list_as_a_vector() -> None:
    x = gd.dvector("x", shape=3)
    np.testing.assert_allclose(value(gd.vjp(x * x, x, [1.0, 2.0, 3.0]), (x, X)), 2 * X * [1, 2, 3])


def test_vjp_of_one_output_given_twice() -> None:
    x = gd.dscalar("x")
    assert value(gd.vjp([x * 2, x * 2], x, [1.0, 10.0]), (x, 0.0)) == 22


def test_vjp_mistakes() -> None:
    x = gd.dvector("x", shape=3)
    with pytest.raises(ArgumentError, match="2 outputs but 1 cotangents"):
        gd.vjp([x, x * 2], x, [np.ones(3)])
    with pytest.raises(GradientError, match=r"the cotangent of .* has the shape \[4\]"):
        gd.vjp(x * 2, x, np.ones(4))
    with pytest.raises(GradientError, match="is not a float"):
        gd.vjp(gd.cast(x, "int32"), x, np.ones(3))


def test_jvp_equals_the_jacobian_times_the_tangent() -> None:
    x, w = gd.dvector("x", shape=3), gd.dmatrix("w", shape=(2, 3))
    y = gd.tanh(w @ x)
    dx, dw = np.array([1.0, -2.0, 0.5]), np.array([[1.0, 0, 2], [-1, 1, 0.3]])
    moved = gd.jvp(y, [x, w], [dx, dw])
    by_x, by_w = gd.jacobian(y, [x, w])
    found = value([moved, by_x, by_w], (x, X), (w, M))
    assert found[1].shape == (2, 3)
    assert found[2].shape == (2, 2, 3)
    expected = found[1] @ dx + np.tensordot(found[2], dw, 2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_jvp_of_several_outputs_and_of_an_unconnected_one() -> None:
    x, z = gd.dvector("x", shape=("n",)), gd.dscalar("z")
    found = gd.jvp([gd.sin(x), z * 2, x], x, gd.cos(x))
    a, b, c = value(found, (x, X), (z, 1.0))
    np.testing.assert_allclose(a, np.cos(X) ** 2)
    np.testing.assert_allclose(b, 0)
    np.testing.assert_allclose(c, np.cos(X))


def test_jvp_leaves_no_dummies_behind() -> None:
    x = gd.dvector("x", shape=3)
    assert {n.name for n in leaves([gd.jvp(gd.exp(x) / (x * x + 1), x, x)])} <= {"x", None}


def test_jvp_mistakes() -> None:
    x = gd.dvector("x", shape=3)
    with pytest.raises(ArgumentError, match="1 nodes but 2 tangents"):
        gd.jvp(x * 2, [x], [x, x])
    with pytest.raises(GradientError, match="the tangent of"):
        gd.jvp(x * 2, x, np.ones(2))
    with pytest.raises(GradientError, match="linear in what comes in"):
        gd.jvp(gd.clip_gradient(x, -1, 1) * 2, x, x)


def test_jacobian_shapes() -> None:
    x = gd.dmatrix("x", shape=(2, 3))
    y = gd.sum(x * x, axis=0)
    j = gd.jacobian(y, x)
    assert j.shape == (3, 2, 3)
    found = value(j, (x, M))
    expected = np.zeros((3, 2, 3))
    for k in range(3):
        expected[k, :, k] = 2 * M[:, k]
    np.testing.assert_allclose(found, expected)


def test_jacobian_of_a_scalar_is_the_gradient() -> None:
    x = gd.dvector("x", shape=("n",))
    np.testing.assert_allclose(value(gd.jacobian(gd.sum(gd.exp(x)), x), (x, X)), np.exp(X))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_jacobian_without_elements(shape: tuple[int, ...]) -> None:
    x = gd.tensor("x", "float64", shape)
    j = gd.jacobian(x * 2, x)
    assert value(j, (x, np.zeros(shape))).shape == shape * 2


def test_jacobian_by_what_the_output_does_not_depend_on() -> None:
    x, z = gd.dvector("x", shape=3), gd.dvector("z", shape=2)
    found = value(gd.jacobian(x * 2, [x, z]), (x, X), (z, np.ones(2)))
    np.testing.assert_array_equal(found[0], 2 * np.eye(3))
    np.testing.assert_array_equal(found[1], np.zeros((3, 2)))
    with pytest.raises(DisconnectedError):
        gd.jacobian(x * 2, z, disconnected="raise")


@pytest.mark.parametrize("size", [0, 1, 3])
def test_jacobian_and_hessian_of_sizes_that_the_call_knows(size: int) -> None:
    x, w = gd.dvector("x"), gd.dmatrix("w")
    _, hs = gd.scan(lambda h, row: (gd.tanh(h * row + x),) * 2, w, x)
    outputs = [hs @ x, hs * gd.dropout(x, 0.5, gd.RandomStream(1)), x[x > 0]]
    rng = np.random.default_rng(size)
    given = [(x, rng.normal(size=size)), (w, rng.normal(size=(2, size)))]
    for y in outputs:
        jacobians = gd.jacobian(y, [x, w])
        moved = gd.jvp(y, [x, w], [gd.cos(x), gd.sin(w)])
        by_x, by_w, expected = value([*jacobians, moved], *given)
        assert by_x.shape == (*expected.shape, size)
        assert by_w.shape == (*expected.shape, 2, size)
        found = by_x @ np.cos(given[0][1]) + np.tensordot(by_w, np.sin(given[1][1]), 2)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    cost = gd.square(hs).sum()
    h, turned = gd.hessian(cost, x), gd.hessian(cost, x).T
    found, other, by_jvp = value(
        [h @ gd.sin(x), turned @ gd.sin(x), gd.jvp(gd.grad(cost, x), x, gd.sin(x))], *given
    )
    np.testing.assert_allclose(found, other, rtol=1e-10)
    np.testing.assert_allclose(found, by_jvp, rtol=1e-10)


def test_jacobian_mistakes() -> None:
    y = gd.dvector("y", shape=3)
    with pytest.raises(GradientError, match="is not a float"):
        gd.jacobian(gd.cast(y, "int8"), y)


def test_hessian() -> None:
    x = gd.dvector("x", shape=3)
    a = np.array([[2.0, 1, 0], [1, 3, -1], [0, -1, 4]])
    h = gd.hessian(gd.sum(x * (a @ x)) / 2 + gd.sum(gd.exp(x)), x)
    np.testing.assert_allclose(value(h, (x, X)), a + np.diag(np.exp(X)), rtol=1e-12)


def test_hessian_of_several_and_of_linear_costs() -> None:
    x, w = gd.dvector("x", shape=3), gd.dmatrix("w", shape=(2, 3))
    hx, hw = gd.hessian(gd.sum(x**3) + gd.sum(w), [x, w])
    found = value([hx, hw], (x, X), (w, M))
    np.testing.assert_allclose(found[0], np.diag(6 * X))
    np.testing.assert_array_equal(found[1], np.zeros((2, 3, 2, 3)))


# ---- custom gradients
def test_custom_gradient_and_its_gradient() -> None:
    x = gd.dvector("x", shape=3)
    y = gd.custom_gradient(gd.round(x), [x], lambda g, y, x: (g * x * x,))
    g = gd.grad(gd.sum(y), x)
    found = value([y, g, gd.grad(gd.sum(g), x)], (x, X))
    np.testing.assert_array_equal(found[0], np.round(X))
    np.testing.assert_allclose(found[1], X * X)
    np.testing.assert_allclose(found[2], 2 * X)


def test_custom_gradient_of_none_and_of_another_shape() -> None:
    x, z = gd.dvector("x", shape=3), gd.dvector("z", shape=3)
    y = gd.custom_gradient(x * z, [x, z], lambda g, y, x, z: (g, None))
    with pytest.raises(DisconnectedError):
        gd.grad(gd.sum(y), [x, z])
    wrong = gd.custom_gradient(x * 2, [x], lambda g, y, x: (gd.sum(g),))
    with pytest.raises(GradientError, match=r"override_gradient gives for .*shape \[\]"):
        gd.grad(gd.sum(wrong), x)
    short = gd.custom_gradient(x * z, [x, z], lambda g, y, x, z: (g,))
    with pytest.raises(GradientError, match="gave 1 values for 2 inputs"):
        gd.grad(gd.sum(short), x)


def test_clip_gradient() -> None:
    x = gd.dvector("x", shape=3)
    y = gd.clip_gradient(x, -0.5, 1.0)
    found = value([y, gd.grad(gd.sum(y * [3.0, -3.0, 0.2]), x)], (x, X))
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_allclose(found[1], [1.0, -0.5, 0.2])


# ---- long graphs
def test_a_long_chain_is_differentiated_to_second_order() -> None:
    x = gd.dscalar("x")
    y = x
    for _ in range(3000):
        y = y * 0.999 + 1e-4 * y * y
    g = gd.grad(y, x)
    h = gd.grad(g, x)
    found = value([y, g, h], (x, 1.0))
    f, d, s = 1.0, 1.0, 0.0
    for _ in range(3000):
        f, d, s = (
            f * 0.999 + 1e-4 * f * f,
            (0.999 + 2e-4 * f) * d,
            (0.999 + 2e-4 * f) * s + 2e-4 * d * d,
        )
    np.testing.assert_allclose(found, [f, d, s], rtol=1e-9)


# ---- check_grad itself
def test_check_grad_finds_a_wrong_gradient() -> None:
    def wrong(x: Any) -> Any:
        return gd.custom_gradient(gd.sin(x), [x], lambda g, y, x: (g * gd.cos(x) * 1.001,))

    with pytest.raises(CheckError, match=r"the gradient by input 0 .*wrong at 3 element"):
        check_grad(wrong, [X])


def test_check_grad_finds_a_wrong_second_derivative() -> None:
    def wrong(x: Any) -> Any:
        return gd.custom_gradient(
            gd.sin(x), [x], lambda g, y, x: (g * gd.stop_gradient(gd.cos(x)),)
        )

    check_grad(wrong, [X], order=1)
    with pytest.raises(CheckError, match="the second derivative by input 0"):
        check_grad(wrong, [X])


def test_check_grad_finds_a_nan() -> None:
    with pytest.raises(CheckError, match="nan"):
        check_grad(lambda x: gd.sqrt(x - x), [X])


def test_check_grad_of_a_node_integers_and_structures() -> None:
    x, i = gd.dvector("x", shape=("n",)), gd.ivector("i", shape=("n",))
    check_grad(gd.exp(x) * i, {x: X, i: np.array([1, 2, 3])}, order=3)
    check_grad(lambda x, i: {"a": [x * i, gd.sum(x * x)]}, [X, np.array([1, 2, 3])])


def test_check_grad_with_dropout_repeats_the_mask() -> None:
    stream = gd.RandomStream(seed=3)
    check_grad(lambda x: gd.dropout(gd.tanh(x), 0.5, stream) * x, [np.linspace(-2, 2, 30)])
    assert stream.calls == 0


def test_check_grad_mistakes() -> None:
    x = gd.vector("x", shape=3)
    with pytest.raises(ArgumentError, match="need float64"):
        check_grad(gd.exp(x), {x: X})
    with pytest.raises(ArgumentError, match=r"takes \{input node: array\}"):
        check_grad(gd.exp(x), [X])
    with pytest.raises(ArgumentError, match="an input of floats"):
        check_grad(gd.exp, [np.arange(3)])
    with pytest.raises(ArgumentError, match="an output of floats"):
        check_grad(gd.isnan, [X])
