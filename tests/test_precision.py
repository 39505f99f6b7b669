"""Mixed precision and loss scaling, against NumPy by hand, on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn, optim
from graphdrop.bodies import inner_nodes
from graphdrop.errors import ArgumentError, DTypeError, ShapeError
from graphdrop.ops.leaf import Shared
from graphdrop.precision import PRODUCTS

from . import cudashim

cudashim.register()

HALF = np.float16
BACKENDS = ["numpy", "llvm", pytest.param(cudashim.NAME, marks=cudashim.needs_compiler)]


def products(*outputs: gd.Node) -> list[gd.Node]:
    return [n for n in inner_nodes(gd.graph.toposort(outputs)) if n.op in PRODUCTS]


def of(shape: Sequence[int], seed: int = 0, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, scale, shape).astype("float32")


class TestPolicy:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_product_is_numpys_of_float16(self, backend: str) -> None:
        """Rounded operands, sums in float32, one rounding of the result."""
        x, w = gd.matrix("x", shape=("n", 700)), gd.matrix("w", shape=(700, "m"))
        f = gd.function([x, w], gd.mixed_precision(x @ w), backend=backend)
        a, b = of((3, 700)), of((700, 5), 1)
        expected = (a.astype(HALF).astype("f8") @ b.astype(HALF).astype("f8")).astype(HALF)
        result = f(a, b)
        assert result.dtype == np.float32
        assert (result == result.astype(HALF)).all()
        np.testing.assert_allclose(result, expected.astype("f4"), rtol=2**-10)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_awkward_sizes(self, backend: str) -> None:
        x, w = gd.tensor3("x"), gd.tensor3("w")
        f = gd.function([x, w], gd.mixed_precision(x @ w), backend=backend)
        for n, k, m in [(0, 3, 2), (3, 0, 2), (1, 1, 1), (5, 7, 0), (3, 17, 33)]:
            a, b = of((2, n, k)), of((2, k, m), 1)
            expected = (a.astype(HALF).astype("f8") @ b.astype(HALF).astype("f8")).astype(HALF)
            got = f(a, np.asfortranarray(b))
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected.astype("f4"), rtol=2**-10, atol=1e-6)

    def test_structure_dtype_and_shape_stay(self) -> None:
        x = gd.matrix("x", shape=("n", 4))
        y = x @ gd.shared(of((4, 4)), "w")
        found = gd.mixed_precision({"a": [y, y + 1], "b": x})
        assert found["b"] is x
        assert [n.type for n in found["a"]] == [y.type, y.type]

    def test_every_float32_product_and_no_other(self) -> None:
        """In loops and branches too; twice is once."""
        x, wide = gd.matrix("x", shape=("t", 4)), gd.dmatrix("d", shape=(4, 4))
        w, yes = gd.shared(of((4, 4)), "w"), gd.flag("yes")
        image = gd.tensor4("i", shape=(1, 2, 5, 5))
        kernel = gd.shared(of((3, 2, 3, 3)), "k")
        h, hs = gd.scan(lambda h, e: (gd.tanh(e + h @ w),) * 2, x, init=gd.zeros((4,)))
        out = gd.cond(yes, lambda: hs @ w, lambda: hs) + h
        outs = [out.sum(), gd.conv2d(image, kernel).sum()]
        outs = [*outs, *gd.grad(outs[0] + outs[1], [w, kernel])]
        halved = gd.mixed_precision(outs)
        assert products(*outs)
        assert all(n.dtype == np.float32 for n in products(*outs))
        assert len(products(*halved)) >= 7
        assert all(n.dtype == HALF and n.inputs[0].dtype == HALF for n in products(*halved))
        assert gd.mixed_precision(halved) == halved
        doubled = wide @ wide
        assert gd.mixed_precision(doubled) is doubled

    def test_what_is_built_afterwards_is_not_touched(self) -> None:
        x, w = gd.matrix("x", shape=("n", 4)), gd.shared(of((4, 4)), "w")
        out = gd.mixed_precision(gd.relu(x @ w)) @ w
        assert [n.dtype for n in products(out)] == [HALF, np.float32]

    def test_values_between_products_are_stored_as_float16(self) -> None:
        """One kernel from a product to the next; what it computes in float32 stays in registers."""
        x, w = gd.matrix("x", shape=("n", 64)), gd.shared(of((64, 64)), "w")
        h = gd.dropout(gd.relu(x @ w), 0.5, gd.RandomStream(1))
        f = gd.function([x], gd.mixed_precision(h @ w), backend="numpy")
        names = [n.op.name for n in gd.graph.toposort(f.graph.outputs)]
        assert names.count("cast") == 5  # both weights are one; in, out, and between

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_gradients(self, backend: str) -> None:
        """Near those of float32, and products of float16 all through."""
        x, y = gd.matrix("x", shape=("n", 6)), gd.ivector("y", shape=("n",))
        params = [gd.shared(of((6, 9)), "W"), gd.shared(of((9,)), "b"), gd.shared(of((9, 4)), "V")]
        h = gd.dropout(gd.tanh(x @ params[0] + params[1]), 0.5, gd.RandomStream(1))
        loss = nn.softmax_cross_entropy(h @ params[2], y).mean()
        halved = gd.mixed_precision(loss)
        pair = [gd.grad(loss, params), gd.grad(halved, params)]
        assert all(n.dtype == HALF for n in products(*pair[1]))
        f = gd.function([x, y], pair, backend=backend)
        right, found = f(of((8, 6)), np.arange(8, dtype="i4") % 4)
        for a, b in zip(right, found, strict=True):
            np.testing.assert_allclose(b, a, atol=4e-3 * np.abs(a).max())

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_weights_gradient_in_a_loop_is_one_product_after_it(self, backend: str) -> None:
        x, w = gd.tensor3("x", shape=("t", "b", 4)), gd.shared(of((4, 4)), "w")
        _, hs = gd.scan(
            lambda h, e: (gd.tanh(e + h @ w),) * 2, x, init=gd.zeros((x.shape[1], 4))
        )  # fmt: skip
        loss = gd.square(hs).mean()
        g = gd.grad(gd.mixed_precision(loss), w)
        f = gd.function([x], [g, gd.grad(loss, w)], backend=backend)
        assert "product_after_loop" in [fired.rule for fired in f.trace]
        found, right = f(of((5, 3, 4)))
        np.testing.assert_allclose(found, right, atol=4e-3 * np.abs(right).max())

    def test_mistakes(self) -> None:
        with pytest.raises(gd.GraphdropError, match="mixed_precision"):
            gd.mixed_precision("loss")


def trained(
    backend: str, grads: str, steps: int = 8, **options: Any
) -> tuple[list[np.ndarray[Any, Any]], dict[str, Shared], Any]:
    """A linear model's parameters after some steps, the updated values by name, the step."""
    x = gd.matrix("x", shape=("n", 3))
    w, b = gd.shared(of((3, 2)), "w"), gd.shared(np.zeros(2, "f4"), "b")
    loss = gd.square(x @ w + b).mean()
    if grads == "scaled":
        updates = optim.loss_scaling(
            loss, [w, b], lambda g: optim.adam(g, [w, b], lr=0.05), **options
        )
    else:
        updates = optim.adam(loss, [w, b], lr=0.05)
    step = gd.function([x], loss, updates=updates, backend=backend)
    for i in range(steps):
        step(of((4, 3), i))
    return [w.get_value(), b.get_value()], {v.name: v for v, _ in updates}, step


class TestLossScaling:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_power_of_two_changes_nothing(self, backend: str) -> None:
        for plain, scaled in zip(
            trained(backend, "plain")[0], trained(backend, "scaled")[0], strict=True
        ):
            np.testing.assert_array_equal(scaled, plain)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("bad", [np.inf, np.nan])
    def test_a_step_that_overflows_changes_the_scale_alone(self, backend: str, bad: float) -> None:
        _, state, step = trained(backend, "scaled", initial=1024.0)
        before = {name: v.get_value() for name, v in state.items()}
        array = of((4, 3))
        array[1, 2] = bad
        step(array)
        for name, value in before.items():
            if name == "LossScale.scale":
                assert (value, state[name].get_value()) == (1024, 512)
            elif name == "LossScale.steps":
                assert (value, state[name].get_value()) == (8, 0)
            else:
                np.testing.assert_array_equal(state[name].get_value(), value)
        step(of((4, 3)))
        assert state["Adam.step"].get_value() == before["Adam.step"] + 1

    def test_the_scale_grows_after_an_interval(self) -> None:
        _, state, step = trained("numpy", "scaled", 5, initial=8.0, interval=3, growth=4.0)
        assert (state["LossScale.scale"].get_value(), state["LossScale.steps"].get_value()) == (
            32, 2,
        )  # fmt: skip
        step(of((4, 3)))
        assert (state["LossScale.scale"].get_value(), state["LossScale.steps"].get_value()) == (
            128, 0,
        )  # fmt: skip

    def test_the_scale_stays_within_its_limits(self) -> None:
        _, state, step = trained("numpy", "scaled", 3, initial=2.0**23, interval=1)
        assert state["LossScale.scale"].get_value() == 2.0**24
        for _ in range(30):
            step(np.full((4, 3), np.nan, "f4"))
        assert state["LossScale.scale"].get_value() == 1

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_gradients_too_small_for_float16_come_through(self, backend: str) -> None:
        """The gradient of a product is 1e-9, below the least float16."""
        x, w = gd.matrix("x", shape=(1, 1)), gd.shared(np.ones((1, 1), "f4"), "w")
        loss = gd.mixed_precision((x @ w).sum()) * 1e-9
        scaled = optim.loss_scaling(loss, [w], lambda g: optim.sgd(g, [w], lr=1e9))
        lost = gd.function([x], gd.grad(loss, w), backend=backend)
        assert lost(np.ones((1, 1), "f4")) == 0
        gd.function([x], updates=scaled, backend=backend)(np.ones((1, 1), "f4"))
        np.testing.assert_allclose(w.get_value(), 0, atol=1e-3)

    def test_parameters_without_elements_and_of_float16(self) -> None:
        w, e = gd.shared(np.ones(2, HALF), "w"), gd.shared(np.zeros((0,), "f4"), "e")
        loss = gd.square(w).sum() + e.sum()
        updates = optim.loss_scaling(loss, [w, e], lambda g: optim.sgd(g, [w, e], lr=0.25), 256.0)
        gd.function([], updates=updates, backend="numpy")()
        np.testing.assert_array_equal(w.get_value(), np.full(2, 0.5, HALF))

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"initial": 0.5}, "between 1 and"), ({"initial": np.nan}, "between 1 and"),
            ({"growth": 0.5}, "growth"), ({"backoff": 0}, "backoff"), ({"backoff": 2}, "backoff"),
            ({"initial": "8"}, "between 1 and"), ({"growth": None}, "growth"),
            ({"interval": 0}, "interval"), ({"interval": 2.5}, "interval"),
        ],
    )  # fmt: skip
    def test_mistakes(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(ArgumentError, match=match):
            trained("numpy", "scaled", 0, **options)

    def test_updates_in_the_place_of_an_optimizer(self) -> None:
        w = gd.shared(np.ones(3, "f4"), "w")
        updates: Any = optim.sgd(w.sum(), [w], 0.1)
        with pytest.raises(ArgumentError, match="lambda grads"):
            optim.loss_scaling(w.sum(), [w], updates)

    def test_a_loss_is_a_scalar_and_parameters_are_shared_floats(self) -> None:
        w = gd.shared(np.ones(3, "f4"), "w")
        with pytest.raises(ShapeError, match="a loss is a scalar"):
            optim.loss_scaling(w * 2, [w], lambda g: optim.sgd(g, [w], 0.1))
        n = gd.shared(np.int64(3), "n")
        with pytest.raises(DTypeError, match="not a float"):
            optim.loss_scaling(w.sum(), [n], lambda g: [])


def test_training_in_mixed_precision_comes_as_far() -> None:
    """A network with dropout learns two rings as well as in float32."""
    rng = np.random.default_rng(0)
    angle, ring = rng.uniform(0, 7, 400), np.arange(400) % 2
    points = ((1 + ring) * np.stack([np.cos(angle), np.sin(angle)])).T.astype("f4")
    reached = []
    for half in (False, True):
        x, y = gd.matrix("x", shape=("n", 2)), gd.ivector("y", shape=("n",))
        shapes = [(2, 32), (32,), (32, 2)]
        params = [gd.shared(of(s, i, 0.5), f"p{i}") for i, s in enumerate(shapes)]
        h = gd.relu(x @ params[0] + params[1])
        h = gd.dropout(h, 0.2, gd.RandomStream(3))
        loss = nn.softmax_cross_entropy(h @ params[2], y).mean()
        loss = gd.mixed_precision(loss) if half else loss
        updates = optim.loss_scaling(loss, params, lambda g, p=params: optim.adam(g, p, lr=0.02))
        step = gd.function([x, y], loss, updates=updates, backend="llvm")
        losses = [float(step(points, ring.astype("i4"))) for _ in range(200)]
        reached.append(np.mean(losses[-20:]))
    assert reached[0] < 0.25
    assert abs(reached[1] - reached[0]) < 0.02, reached
