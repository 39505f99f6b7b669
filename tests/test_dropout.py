"""Dropout and its family: section 4 of the design to the bit, gradients, flags, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import GraphdropError, InputError, RandomError, ShapeError
from graphdrop.nn.dropout import (
    SELU_FLOOR,
    alpha_dropout,
    dropconnect,
    embedding_dropout,
    gaussian_dropout,
    spatial_dropout,
)
from graphdrop.random import RandomStream, threshold_of

from . import philox

FLOATS = ["float16", "float32", "float64"]
SEED = 0xFEDC_BA98_7654_3210
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (4, 3, 11)]
FAMILY = [gd.dropout, dropconnect, alpha_dropout, gaussian_dropout, embedding_dropout]


def data(shape: tuple[int, ...], dtype: Any = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(1, 1, shape).astype(dtype)


def build(shape: Any = (3, 5), rate: Any = 0.5, dtype: str = "float32", **options: Any) -> Any:
    """(x, stream, dropout of x)."""
    x, stream = gd.tensor("x", dtype, shape), RandomStream(SEED)
    return x, stream, gd.dropout(x, rate, stream, **options)


class TestBits:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_the_formula(self, shape: tuple[int, ...], dtype: str) -> None:
        x, _, y = build(shape, 0.3, dtype, name="hidden")
        f, value = gd.function([x], y), data(shape, dtype)
        for call in range(3):
            keep = philox.mask(0.3, shape, SEED, philox.site_of("hidden"), call)
            found = f(value)
            assert found.dtype == dtype
            assert found.shape == shape
            assert found.tobytes() == philox.dropped(value, keep, 0.3).tobytes()

    @pytest.mark.parametrize(("rate", "t"), [
        (0.0, 0), (1e-12, 1), (2.0**-17, 1), (1 / 65536, 1), (0.1, 6554), (0.5, 32768),
        (1 - 1e-12, 65535), (1.0, 65536), (np.float32(0.1), 6554), (1.5 / 65536, 2),
    ])  # fmt: skip
    def test_thresholds(self, rate: float, t: int) -> None:
        assert threshold_of(rate) == t
        n = 200_000
        x, stream, _ = build((n,))
        symbolic = gd.dscalar("rate")
        value = np.ones(n, "f4")
        f = gd.function([x], gd.dropout(x, rate, stream, name="a"))
        g = gd.function([x, symbolic], gd.dropout(x, symbolic, stream, name="b"))
        keep = [philox.lanes(np.uint16, (n,), SEED, philox.site_of(c), 0) >= t for c in "ab"]
        with stream.at(call=0):
            found = [f(value), g(value, float(rate))]
        for y, k in zip(found, keep, strict=True):
            assert ((y != 0) == k).all()
            assert set(np.unique(y)) <= {0, np.float32(65536 / (65536 - t) if t < 65536 else 0)}

    @pytest.mark.parametrize(("axes", "noise_shape", "drawn"), [
        (1, (2, 1, 4), (2, 1, 4)), ((0, -1), (1, 3, 1), (1, 3, 1)), ((), (2, 3, 4), (2, 3, 4)),
        ((0, 1, 2), (1, 1, 1), (1, 1, 1)),
    ])  # fmt: skip
    def test_shared_axes(self, axes: Any, noise_shape: Any, drawn: tuple[int, ...]) -> None:
        value = data((2, 3, 4))
        keep = philox.mask(0.5, drawn, SEED, 0, 0)
        for options in ({"axes": axes}, {"noise_shape": noise_shape}):
            x, _, y = build((2, 3, 4), **options)
            assert (gd.function([x], y)(value) == philox.dropped(value, keep, 0.5)).all()

    def test_example_ids(self) -> None:
        x, ids = gd.matrix("x", shape=("batch", 6)), gd.ivector("ids", shape=("batch",))
        stream = RandomStream(SEED)
        f = gd.function([x, ids], gd.dropout(x, 0.5, stream, example=ids, name="d"))
        for call, rows in enumerate([[5, 0, 2**31 - 1], [0, 5], [7], []]):
            value = data((len(rows), 6))
            mask = np.array(
                [philox.mask(0.5, (6,), SEED, philox.site_of("d"), call, example=1 + i)
                 for i in rows], bool,
            ).reshape(len(rows), 6)  # fmt: skip
            found = f(value, np.array(rows, np.int32))
            assert (found == philox.dropped(value, mask, 0.5)).all()
            ids_given = np.array(rows, np.int64)
            assert (f.mask("d", call=call, example=ids_given) == mask).all()
        with pytest.raises(RandomError, match=r"example ids[^$]*test_dropout\.py"):
            f(data((2, 6)), [3, -1])

    def test_example_ids_above_2_to_63(self) -> None:
        ids = gd.tensor("ids", "uint64", ("batch",))
        x = gd.matrix("x", shape=("batch", 6))
        f = gd.function([x, ids], gd.dropout(x, 0.5, RandomStream(1), example=ids))
        found = f(np.ones((1, 6), "f4"), np.array([2**64 - 2], np.uint64))
        assert ((found[0] > 0) == philox.mask(0.5, (6,), 1, 0, 0, example=2**64 - 1)).all()

    def test_not_contiguous(self) -> None:
        x, _, y = build((3, 5))
        f, value = gd.function([x], y), data((5, 6))[:, ::2].T
        keep = philox.mask(0.5, (3, 5), SEED, 0, 0)
        assert (f(value) == philox.dropped(value, keep, 0.5)).all()


class TestRates:
    def test_zero_is_the_identity_and_draws_nothing(self) -> None:
        x, stream, y = build(rate=0.0)
        assert y is x
        assert stream.site() == 1  # its site is taken nevertheless

    def test_one_gives_zeros_with_zero_gradient(self) -> None:
        value = np.array([1, -np.inf, np.nan, 0, -3], "f4")
        rate = gd.scalar("rate")
        for r, inputs, extra in ((1.0, [], []), (rate, [rate], [1.0])):
            x, _, y = build((5,), r)
            f = gd.function([x, *inputs], [y, gd.grad((y * y).sum(), x)])
            for result in f(value, *extra):
                assert result.tobytes() == np.zeros(5, "f4").tobytes()

    @pytest.mark.parametrize("rate", [-1e-9, 1.0000001, np.nan, np.inf, -np.inf])
    def test_invalid(self, rate: float) -> None:
        with pytest.raises(RandomError, match=r"dropout\(.*between 0 and 1.*[^$]*test_dropout"):
            build(rate=rate)
        symbolic = gd.dscalar("rate")
        x, _, y = build(rate=symbolic)
        f = gd.function([x, symbolic], y)
        with pytest.raises(RandomError, match=r"between 0 and 1.*[^$]*test_dropout\.py"):
            f(data((3, 5)), rate)

    def test_one_function_serves_every_rate(self) -> None:
        rate = gd.scalar("rate")
        x, stream, y = build(rate=rate, name="d")
        f, value = gd.function([x, rate], y), data((3, 5))
        for call, r in enumerate([0.25, 0.0, 0.9, 1.0]):
            keep = philox.mask(r, (3, 5), SEED, philox.site_of("d"), call)
            assert (f(value, r) == philox.dropped(value, keep, r)).all()
            assert (f.mask("d", call=call, rate=r) == keep).all()
        assert stream.calls == 4

    def test_float16_near_one_does_not_overflow(self) -> None:
        x, _, y = build((500_000,), 1 - 1e-9, "float16")
        kept = np.flatnonzero(philox.mask(1 - 1e-9, (500_000,), SEED, 0, 0))
        value = np.full(500_000, 2.0**-10, "f2")
        value[kept[0]] = 0
        found = gd.function([x], y)(value)
        assert found[kept].tolist() == [0.0] + [64.0] * (len(kept) - 1)
        assert len(kept) > 1


class TestSelection:
    """What is dropped leaks nothing."""

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, -0.0])
    def test_special_values(self, dtype: str, special: float) -> None:
        x, _, y = build((64,), 0.5, dtype)
        keep = philox.mask(0.5, (64,), SEED, 0, 0)
        value = np.full(64, special, dtype)
        found, g = gd.function([x], [y, gd.grad(y.sum(), x)])(value)
        assert found[~keep].tobytes() == np.zeros((~keep).sum(), dtype).tobytes()
        assert found[keep].tobytes() == value[keep].tobytes()
        assert g.tobytes() == np.where(keep, 2, 0).astype(dtype).tobytes()

    def test_an_infinite_gradient(self) -> None:
        x, _, y = build((64,), 0.5)
        keep = philox.mask(0.5, (64,), SEED, 0, 0)
        cost = (y * np.float32(np.inf)).sum()
        g = gd.function([x], gd.grad(cost, x), on_unused_input="ignore")(np.ones(64, "f4"))
        assert (g == np.where(keep, np.inf, 0)).all()

    def test_a_given_mask(self) -> None:
        x, m, t = gd.vector("x", shape=(4,)), gd.tensor("m", bool, (4,)), gd.flag()
        y = gd.dropout(x, 0.75, RandomStream(0), t, mask=m)
        f = gd.function([x, m, t], [y, gd.grad(y.sum(), x)])
        value, keep = np.array([1, np.inf, np.nan, -0.0], "f4"), [True, False, False, True]
        found, g = f(value, keep, True)
        assert found.tobytes() == np.array([4, 0, 0, -0.0], "f4").tobytes()
        assert g.tolist() == [4, 0, 0, 4]
        found, g = f(value, keep, False)
        assert found.tobytes() == value.tobytes()
        assert g.tolist() == [1, 1, 1, 1]
        whole = gd.dropout(x, 1.0, RandomStream(0), mask=[True] * 4)
        assert gd.function([x], whole)(value).tobytes() == np.zeros(4, "f4").tobytes()


class TestModes:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_classic(self, dtype: str) -> None:
        t = gd.flag()
        x, stream, y = build((3, 5), 0.3, dtype, mode="classic", training=t)
        f, value = gd.function([x, t], y), data((3, 5), dtype)
        keep = philox.mask(0.3, (3, 5), SEED, 0, 0)
        assert (f(value, True) == np.where(keep, value, 0)).all()
        assert (f(value, False) == value * value.dtype.type(1 - 0.3)).all()
        assert stream.calls == 1
        for flag, right in (
            (True, np.where(keep, value, 0)),
            (False, value * value.dtype.type(0.7)),
        ):
            x, _, y = build((3, 5), 0.3, dtype, mode="classic", training=flag)
            assert (gd.function([x], y)(value) == right).all()

    @pytest.mark.parametrize("mode", ["classic", "inverted"])
    def test_expectations_agree(self, mode: str) -> None:
        t = gd.flag()
        x, _, y = build((2000, 5), 0.25, mode=mode, training=t)
        f, value = gd.function([x, t], y), np.tile(data((5,)), (2000, 1))
        mean = np.mean([f(value, True).mean(0) for _ in range(20)], axis=0)
        np.testing.assert_allclose(mean, f(value, False)[0], atol=0.02)

    def test_flag_of_every_kind(self) -> None:
        t, epoch = gd.flag(), gd.iscalar("epoch")
        value = data((3, 5))
        x, stream, y = build(training=t)
        f = gd.function([x, t], y)
        assert f(value, False).tobytes() == value.tobytes()
        assert stream.calls == 0
        assert (f(value, True) == 0).any()
        x, stream, y = build(training=gd.logical_and(t, epoch >= 3))
        f = gd.function([x, t, epoch], y)
        for on, e, drawn in ((True, 2, 0), (False, 9, 0), (True, 3, 1), (True, 2, 1)):
            assert (f(value, on, e).tobytes() == value.tobytes()) == (not on or e < 3)
            assert stream.calls == drawn
        x, stream, y = build(training=False)
        assert y is x
        assert stream.site() == 1


class TestGradients:
    def test_zero_exactly_where_dropped(self) -> None:
        x, _, y = build((4, 30), 0.4, name="d")
        f = gd.function([x], [y, gd.grad(gd.tanh(y).sum(), x)])
        found, g = f(data((4, 30)))
        keep = f.mask("d", call=0)
        assert ((found != 0) == keep).all()
        assert ((g != 0) == keep).all()

    def test_weights_of_dropped_units_get_exactly_zero(self) -> None:
        x = gd.matrix("x", shape=("batch", 3))
        w1, w2 = gd.shared(data((3, 8)), "w1"), gd.shared(data((8, 2), seed=1), "w2")
        stream = RandomStream(3)
        # one mask for the whole batch, so that a unit is either there or not
        h = gd.dropout(gd.tanh(x @ w1), 0.5, stream, axes=0, name="h")
        loss = gd.square(h @ w2).mean()
        f = gd.function([x], [loss, *gd.grad(loss, [w1, w2])])
        for call in range(5):
            _, g1, g2 = f(data((6, 3), seed=call))
            keep = f.mask("h", call=call)[0]
            assert (g1[:, ~keep] == 0).all()
            assert (g2[~keep] == 0).all()
            assert (g1[:, keep] != 0).all()
            assert (g2[keep] != 0).all()

    def test_higher_orders_see_one_mask(self) -> None:
        x, _, y = build((9,), 0.5, "float64", name="d")
        scaled = y * x
        nodes = [(scaled * y).sum()]
        for _ in range(3):
            nodes.append(gd.grad(nodes[-1], x).sum())
        f = gd.function([x], nodes[1:])
        value = data((9,), "float64")
        found = f(value)
        kept = value[f.mask("d", call=0)]  # the cost is the sum of 4 x**3 over what is kept
        for result, right in zip(found, [12 * kept**2, 24 * kept, 24 + 0 * kept], strict=True):
            np.testing.assert_allclose(result, right.sum(), rtol=1e-12)

    def test_jvp_and_hessian(self) -> None:
        x, _, y = build((5,), 0.5, "float64", name="d")
        f = gd.function([x], [gd.jvp(y, x, gd.constant(np.ones(5))), gd.hessian((y**3).sum(), x)])
        value = data((5,), "float64")
        tangent, hessian = f(value)
        keep = f.mask("d", call=0)
        assert (tangent == 2 * keep).all()
        np.testing.assert_allclose(hessian, np.diag(48 * value * keep), rtol=1e-12)


def family_member(fn: Any, x: Any, rate: Any, stream: RandomStream, training: Any = True) -> Any:
    return fn(x, rate, stream, training)


class TestFamily:
    @pytest.mark.parametrize("fn", [*FAMILY, spatial_dropout], ids=lambda f: f.__name__)
    def test_off_is_the_operand_to_the_bit(self, fn: Any) -> None:
        x, t, w = gd.matrix("x", shape=(4, 3)), gd.flag(), gd.vector("w", shape=(3,))
        stream = RandomStream(1)
        rate = gd.scalar("rate")
        value = np.array(
            [[0.0, -0.0, 1], [np.inf, -np.inf, np.nan], [1e-42, -3, 7], [2, 3, 4]], "f4"
        )
        weights = np.array([-0.0, 2, np.nan], "f4")
        for r, inputs, extra in ((0.3, [], []), (rate, [rate], [0.3])):
            y = fn(x, r, stream, t)
            f = gd.function([x, t, w, *inputs], [y, gd.grad((y * w).sum(), x)])
            found, g = f(value, False, weights, *extra)
            assert found.tobytes() == value.tobytes()
            assert g.tobytes() == np.tile(weights, (4, 1)).tobytes()
            assert stream.calls == 0
        assert fn(x, 0.3, stream, False) is x
        assert fn(x, 0.0, stream, t) is x

    @pytest.mark.parametrize("fn", [*FAMILY, spatial_dropout], ids=lambda f: f.__name__)
    def test_rate_one_gives_zeros(self, fn: Any) -> None:
        x, rate = gd.matrix("x", shape=(4, 3)), gd.scalar("rate")
        value = data((4, 3))
        value[0] = np.inf
        for r, inputs, extra in ((1.0, [], []), (rate, [rate], [1.0])):
            y = fn(x, r, RandomStream(1))
            f = gd.function([x, *inputs], [y, gd.grad(y.sum(), x)])
            for result in f(value, *extra):
                assert (result == 0).all()
            for wrong in (1.5, np.nan):
                with pytest.raises(RandomError, match="between 0 and 1"):
                    fn(x, wrong, RandomStream(1)) if not inputs else f(value, wrong)

    def test_dropconnect_and_embeddings(self) -> None:
        w = gd.matrix("w", shape=(6, 4))
        value = data((6, 4))
        found = gd.function([w], dropconnect(w, 0.5, RandomStream(1)))(value)
        assert (found == philox.dropped(value, philox.mask(0.5, (6, 4), 1, 0, 0), 0.5)).all()
        found = gd.function([w], embedding_dropout(w, 0.5, RandomStream(1)))(value)
        assert (found == philox.dropped(value, philox.mask(0.5, (6, 1), 1, 0, 0), 0.5)).all()

    @pytest.mark.parametrize(
        ("axis", "drawn"), [(1, (2, 5, 1, 1)), (-1, (2, 1, 1, 3)), (2, (2, 1, 4, 1))]
    )
    def test_channels(self, axis: int, drawn: tuple[int, ...]) -> None:
        x, value = gd.tensor4("x", shape=(2, 5, 4, 3)), data((2, 5, 4, 3))
        y = spatial_dropout(x, 0.5, RandomStream(1), channel_axis=axis)
        keep = philox.mask(0.5, drawn, 1, 0, 0)
        assert (gd.function([x], y)(value) == philox.dropped(value, keep, 0.5)).all()
        with pytest.raises(ShapeError, match="not the first"):
            spatial_dropout(x, 0.5, RandomStream(1), channel_axis=0)

    @pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
    def test_alpha_keeps_mean_and_variance(self, rate: float) -> None:
        x = gd.dvector("x", shape=(100_000,))
        y = gd.function([x], alpha_dropout(x, rate, RandomStream(1)))
        value = np.random.default_rng(1).normal(size=100_000)
        found = y(value)
        assert abs(found.mean()) < 0.02
        assert abs(found.var() - 1) < 0.03
        keep = philox.mask(rate, value.shape, 1, 0, 0)
        q = 1 - philox.threshold(rate) / 65536
        a = (q + SELU_FLOOR**2 * q * (1 - q)) ** -0.5
        b = -a * (1 - q) * SELU_FLOOR
        np.testing.assert_allclose(found, np.where(keep, value, SELU_FLOOR) * a + b, rtol=1e-12)

    @pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
    def test_gaussian_noise(self, rate: float) -> None:
        x = gd.dvector("x", shape=(100_000,))
        f = gd.function([x], gaussian_dropout(x, rate, RandomStream(1)))
        found = f(np.full(100_000, 3.0)) / 3
        deviation = np.sqrt(rate / (1 - rate))
        assert abs(found.mean() - 1) < 0.015 * deviation
        assert abs(found.std() / deviation - 1) < 0.01

    def test_masks_of_alpha_dropout_can_be_seen(self) -> None:
        x = gd.vector("x", shape=("n",))
        f = gd.function([x], alpha_dropout(x, 0.5, RandomStream(1), name="a"))
        f(np.zeros(9, "f4"))
        keep = philox.mask(0.5, (9,), 1, philox.site_of("a"), 0)
        assert (f.mask("a", call=0) == keep).all()


class TestMasks:
    def make(self, **options: Any) -> Any:
        x = gd.matrix("x", shape=("batch", 5))
        stream = RandomStream(SEED)
        y = gd.dropout(x, 0.5, stream, name="hidden")
        z = gd.dropout(y, 0.25, stream, axes=0)
        return stream, gd.function([x], [z, gd.grad(z.sum(), x)], **options)

    def test_any_call_at_any_size(self) -> None:
        _, step = self.make()
        with pytest.raises(RandomError, match=r"batch=32"):
            step.mask("hidden", call=0)
        site = philox.site_of("hidden")
        right = philox.mask(0.5, (7, 5), SEED, site, 17)
        assert (step.mask("hidden", call=17, batch=7) == right).all()
        step(data((3, 5)))
        assert (step.mask("hidden", call=0) == philox.mask(0.5, (3, 5), SEED, site, 0)).all()
        assert (step.mask(0, call=9) == philox.mask(0.25, (1, 5), SEED, 0, 9)).all()
        assert (step.mask("hidden", call=17, rate=0.5, batch=7) == right).all()

    @pytest.mark.parametrize(("args", "match"), [
        ({"name": "x"}, "no mask 'x'; it draws"), ({"name": 5}, "no mask 5"),
        ({"time": 3}, "no size called time"), ({"rate": 0.75}, "rate of 'hidden' is 0.5"),
        ({"example": [1, 2, 3]}, "not keyed by ids"), ({"call": -1}, "call number"),
        ({"call": None}, "call number"), ({"rate": 2.0}, "between 0 and 1"),
    ])  # fmt: skip
    def test_mistakes(self, args: dict[str, Any], match: str) -> None:
        _, step = self.make()
        step(data((3, 5)))
        with pytest.raises(RandomError, match=match):
            step.mask(**{"name": "hidden", "call": 0, **args})

    def test_two_streams_with_one_name(self) -> None:
        x = gd.vector("x", shape=(3,))
        a, b = RandomStream(1), RandomStream(2)
        y = gd.dropout(gd.dropout(x, 0.5, a, name="d"), 0.5, b, name="d")
        with pytest.raises(RandomError, match="2 streams"):
            gd.function([x], y).mask("d", call=0)

    def test_missing_rate_and_ids(self) -> None:
        x, rate = gd.matrix("x", shape=("batch", 5)), gd.scalar("rate")
        ids = gd.lvector("ids", shape=("batch",))
        y = gd.dropout(x, rate, RandomStream(1), example=ids, name="d")
        f = gd.function([x, rate, ids], y)
        f(data((3, 5)), 0.5, [1, 2, 3])
        for options, match in [
            ({"example": [1, 2, 3]}, "give rate="), ({"rate": 0.5}, "give example="),
            ({"rate": 0.5, "example": [1, 2]}, "takes 3 integer ids"),
            ({"rate": 0.5, "example": [1.0, 2.0, 3.0]}, "takes 3 integer ids"),
        ]:  # fmt: skip
            with pytest.raises(RandomError, match=match):
                f.mask("d", call=0, **options)

    def test_size_mistakes_at_the_call(self) -> None:
        _, step = self.make()
        with pytest.raises(GraphdropError):
            step(data((3, 4)))
        x, ids = gd.matrix("x", shape=("batch", 5)), gd.lvector("ids", shape=("rows",))
        f = gd.function([x, ids], gd.dropout(x, 0.5, RandomStream(1), example=ids))
        with pytest.raises(ShapeError, match=r"rows = 2|batch = 3"):
            f(data((3, 5)), [1, 2])
        with pytest.raises(InputError):
            f(data((3, 5)))
