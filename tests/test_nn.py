"""Initial values, layers and normalization: statistics, formulas, PyTorch, and every mistake."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn, optim
from graphdrop.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from graphdrop.testing.gradients import check_grad

Array = np.ndarray[Any, Any]
RANDOM: list[Any] = [
    nn.uniform, nn.normal, nn.truncated_normal, nn.glorot_uniform, nn.glorot_normal,
    nn.he_uniform, nn.he_normal, nn.lecun_uniform, nn.lecun_normal, nn.orthogonal,
]  # fmt: skip
PLAIN: list[Any] = [nn.zeros, nn.ones, nn.constant, nn.identity]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def compute(node: Any) -> Any:
    return gd.function([], node, backend="numpy")()


# --------------------------------------------------------------------------------------------
# initializers


@pytest.mark.parametrize("init", RANDOM + PLAIN, ids=lambda i: i.__name__)
def test_shape_dtype_and_seed(init: Any) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        assert init(np.random.default_rng(0), (3, 4), dtype=dtype).dtype == dtype
    w = init(0, (3, 4))
    assert w.dtype == np.float32
    assert w.shape == (3, 4)
    np.testing.assert_array_equal(w, init(np.random.default_rng(0), (3, 4)))
    if init in RANDOM:
        assert not np.array_equal(w, init(1, (3, 4)))
        rng = np.random.default_rng(0)
        assert not np.array_equal(init(rng, (3, 4)), init(rng, (3, 4)))


@pytest.mark.parametrize("init", [*RANDOM, nn.zeros], ids=lambda i: i.__name__)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 3, 4, 5)])
def test_awkward_shapes(init: Any, shape: tuple[int, ...]) -> None:
    assert init(0, shape).shape == shape


VARIANCES: list[tuple[Any, float, float]] = [
    (nn.glorot_uniform, 2 / 500, 2 / ((200 + 300) * 6)),
    (nn.glorot_normal, 2 / 500, 2 / ((200 + 300) * 6)),
    (partial(nn.glorot_normal, gain=3.0), 9 * 2 / 500, 9 * 2 / ((200 + 300) * 6)),
    (nn.he_uniform, 2 / 200, 2 / (300 * 6)),
    (nn.he_normal, 2 / 200, 2 / (300 * 6)),
    (partial(nn.he_normal, slope=2.0), 2 / (5 * 200), 2 / (5 * 300 * 6)),
    (nn.lecun_uniform, 1 / 200, 1 / (300 * 6)),
    (nn.lecun_normal, 1 / 200, 1 / (300 * 6)),
]


@pytest.mark.parametrize(("init", "dense", "conv"), VARIANCES)
def test_variances(init: Any, dense: float, conv: float) -> None:
    for shape, variance in (((200, 300), dense), ((200, 300, 2, 3), conv)):
        w = init(0, shape, dtype=np.float64)
        assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
        assert w.var() == pytest.approx(variance, rel=0.03)


def test_uniform_ones_are_bounded() -> None:
    bound = math.sqrt(6 / 500)
    w = nn.glorot_uniform(0, (200, 300), dtype=np.float64)
    assert abs(w).max() <= bound
    assert abs(w).max() > 0.99 * bound


def test_truncated_normal_is_cut_and_not_clipped() -> None:
    w = nn.truncated_normal(0, (200, 300), std=0.5, mean=1.0, dtype=np.float64)
    assert abs(w - 1).max() <= 1
    assert w.std() == pytest.approx(0.5 * 0.8796, rel=0.02)
    assert np.unique(w).size == w.size


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 2, 3, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = nn.orthogonal(0, shape, gain=2.0, dtype=np.float64).reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(min(w.shape)), atol=1e-12)


def test_plain_ones() -> None:
    np.testing.assert_array_equal(nn.identity(0, (2, 3), 2.0), [[2, 0, 0], [0, 2, 0]])
    np.testing.assert_array_equal(nn.constant(0, 2, 0.5), [0.5, 0.5])
    assert nn.fans((3, 4)) == (3, 4)
    assert nn.fans((8, 4, 3, 5)) == (60, 120)


# --------------------------------------------------------------------------------------------
# layers


def test_dense_equals_numpy_for_any_leading_axes() -> None:
    layer = nn.Dense(3, 4, 0, dtype="float64")
    layer.b.set_value(random(4))  # type: ignore[union-attr]
    w, b = (p.get_value() for p in layer.params)
    for shape in ((3,), (2, 3), (2, 5, 3), (0, 3), (2, 0, 3)):
        x = random(*shape)
        np.testing.assert_allclose(compute(layer(x)), x @ w + b, rtol=1e-12)
    x = gd.tensor("x", "float64", ("batch", "time", 3))
    y = gd.function([x], [layer(x), gd.grad(layer(x).sum(), layer.W)], backend="numpy")
    value, slope = y(random(2, 5, 3))
    np.testing.assert_allclose(value, random(2, 5, 3) @ w + b)
    np.testing.assert_allclose(slope, np.repeat(random(2, 5, 3).sum((0, 1))[:, None], 4, 1))


def test_dense_without_bias_and_with_another_init() -> None:
    layer = nn.Dense(3, 3, 0, init=partial(nn.identity, gain=2.0), bias=False, name="twice")
    assert [p.name for p in layer.params] == ["twice.W"]
    np.testing.assert_array_equal(compute(layer(np.ones((1, 3), "f4"))), [[2, 2, 2]])


def test_params_are_listed_once() -> None:
    rng = np.random.default_rng(0)
    a, b = nn.Dense(2, 3, rng, name="a"), nn.Dense(3, 3, rng, name="b")
    extra = gd.shared(1.0, "extra")
    found = nn.params(a, [b, a], {"more": extra}, extra)
    assert [p.name for p in found] == ["a.W", "a.b", "b.W", "b.b", "extra"]
    assert not np.array_equal(a.W.get_value()[:2, :3], b.W.get_value()[:2, :3])


def test_embedding_picks_rows_and_padding_gets_no_gradient() -> None:
    layer = nn.Embedding(5, 3, 0, padding_id=0, dtype="float64")
    table = layer.E.get_value()
    ids = gd.imatrix("ids", shape=("batch", None))
    rows = layer(ids)
    f = gd.function([ids], [rows, gd.grad((rows * rows).sum(), layer.E)], backend="numpy")
    chosen = np.array([[0, 2], [2, 4]], "i4")
    value, slope = f(chosen)
    np.testing.assert_array_equal(value, np.where(chosen[..., None] == 0, 0, table[chosen]))
    np.testing.assert_allclose(slope, table * 2 * np.array([0, 0, 2, 0, 1])[:, None])
    assert f(np.zeros((0, 2), "i4"))[0].shape == (0, 2, 3)
    with pytest.raises(OutOfRangeError):
        f(np.array([[5]], "i4"))


def test_convolution_equals_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    options: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": (1, 2), "groups": 2}
    layer = nn.Conv2D(4, 6, (3, 2), 0, dtype="float64", **options)
    layer.b.set_value(random(6))  # type: ignore[union-attr]
    w, b = (torch.tensor(p.get_value()) for p in layer.params)
    assert tuple(w.shape) == (6, 2, 3, 2)
    x = random(2, 4, 7, 8)
    expected = torch.nn.functional.conv2d(torch.tensor(x), w, b, **options)
    np.testing.assert_allclose(compute(layer(x)), expected.numpy(), rtol=1e-12)


def test_a_network_learns_xor() -> None:
    rng = np.random.default_rng(0)
    hidden, out = nn.Dense(2, 8, rng, name="hidden"), nn.Dense(8, 2, rng, name="out")
    x, y = gd.matrix("x", shape=("batch", 2)), gd.ivector("y", shape=("batch",))
    logits = out(gd.tanh(hidden(x)))
    loss = nn.softmax_cross_entropy(logits, y).mean()
    updates = optim.adam(loss, nn.params(hidden, out), 0.05)
    step = gd.function([x, y], [loss, nn.accuracy(logits, y).mean()], updates, backend="numpy")
    data = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "f4"), np.array([0, 1, 1, 0], "i4")
    for _ in range(200):
        last, right = step(*data)
    assert last < 0.05
    assert right == 1


# --------------------------------------------------------------------------------------------
# normalization


def test_layer_norm_equals_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = random(2, 3, 4, 5)
    for sizes in ((5,), (4, 5)):
        layer = nn.LayerNorm(sizes, dtype="float64")
        for p, seed in zip(layer.params, (1, 2), strict=True):
            p.set_value(random(*sizes, seed=seed))
        t = torch.tensor(x, requires_grad=True)
        gamma, beta = (torch.tensor(p.get_value(), requires_grad=True) for p in layer.params)
        expected = torch.nn.functional.layer_norm(t, sizes, gamma, beta)
        (expected**2).sum().backward()
        v = gd.tensor("x", "float64", ("a", "b", *sizes) if len(sizes) == 2 else ("a", "b", 4, 5))
        y = layer(v)
        slopes = gd.grad((y * y).sum(), [v, *layer.params])
        found = gd.function([v], [y, *slopes], backend="numpy")(x)
        right = [expected.detach(), t.grad, gamma.grad, beta.grad]
        for a, b in zip(found, right, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-12)


def test_layer_norm_gradients_to_second_order() -> None:
    check_grad(nn.layer_norm, [random(2, 3), random(3, seed=1), random(3, seed=2)])


def test_layer_norm_of_one_value_is_beta() -> None:
    y = nn.layer_norm(random(3, 1), np.ones(1), np.full(1, 0.5))
    np.testing.assert_array_equal(compute(y), np.full((3, 1), 0.5))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2, 5)])
def test_batch_norm_equals_pytorch(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    layer = nn.BatchNorm(3, dtype="float64")
    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    theirs = kind(3, dtype=torch.float64)
    for ours, other, seed in zip(layer.params, (theirs.weight, theirs.bias), (1, 2), strict=True):
        ours.set_value(random(3, seed=seed))
        other.data = torch.tensor(random(3, seed=seed))
    x, training = gd.tensor("x", "float64", (None, *shape[1:])), gd.flag("training")
    y, statistics = layer(x, training)
    slopes = gd.grad((y * y * y).sum(), [x, *layer.params])
    f = gd.function([x, training], [y, *slopes], updates=statistics, backend="numpy")
    for step in range(4):
        data = random(*shape, seed=10 + step) * 2 + 1
        theirs.train(step < 3)
        theirs.zero_grad()
        t = torch.tensor(data, requires_grad=True)
        expected = theirs(t)
        (expected**3).sum().backward()
        right = [expected.detach(), t.grad, theirs.weight.grad, theirs.bias.grad]
        for a, b in zip(f(data, step < 3), right, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(layer.mean.get_value(), theirs.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.var.get_value(), theirs.running_var.numpy(), rtol=1e-12)


def test_a_static_flag_equals_one_at_run_time() -> None:
    layer = nn.BatchNorm(3)
    layer.mean.set_value(random(3).astype("f4"))
    layer.var.set_value(random(3).astype("f4") ** 2)
    x, training = gd.matrix("x", shape=(None, 3)), gd.flag("training")
    run_time = gd.function([x, training], layer(x, training)[0], backend="numpy")
    data = random(5, 3).astype("f4")
    for flag in (True, False):
        static = gd.function([x], layer(x, flag)[0], backend="numpy")
        given = gd.function([x], layer(x, training)[0], givens={training: flag}, backend="numpy")
        assert static(data).tobytes() == run_time(data, flag).tobytes()
        assert given(data).tobytes() == run_time(data, flag).tobytes()
    assert layer(x, False)[1] == []


def test_evaluation_leaves_the_statistics_alone() -> None:
    layer = nn.BatchNorm(3)
    x, training = gd.matrix("x", shape=(None, 3)), gd.flag("training")
    y, statistics = layer(x, training)
    f = gd.function([x, training], y, updates=statistics, backend="numpy")
    f(random(4, 3).astype("f4"), True)
    before = layer.mean.get_value().tobytes(), layer.var.get_value().tobytes()
    f(np.full((4, 3), np.nan, "f4"), False)
    assert (layer.mean.get_value().tobytes(), layer.var.get_value().tobytes()) == before


def test_batches_of_one_and_of_none() -> None:
    layer = nn.BatchNorm(3)
    layer.beta.set_value(np.array([1, 2, 3], "f4"))
    x, training = gd.matrix("x", shape=(None, 3)), gd.flag("training")
    y, statistics = layer(x, training)
    slope = gd.grad((y * y).sum(), x)
    f = gd.function([x, training], [y, slope], updates=statistics, backend="numpy")
    value, gradient = f(np.full((1, 3), 5, "f4"), True)
    np.testing.assert_array_equal(value, [[1, 2, 3]])
    np.testing.assert_array_equal(gradient, np.zeros((1, 3)))
    np.testing.assert_allclose(layer.mean.get_value(), np.full(3, 0.5))
    np.testing.assert_allclose(layer.var.get_value(), np.full(3, 0.9), rtol=1e-6)
    before = layer.mean.get_value().tobytes(), layer.var.get_value().tobytes()
    assert f(np.zeros((0, 3), "f4"), True)[0].shape == (0, 3)
    assert (layer.mean.get_value().tobytes(), layer.var.get_value().tobytes()) == before


def test_batch_norm_with_channels_last() -> None:
    first, last = nn.BatchNorm(3, dtype="float64"), nn.BatchNorm(3, axis=-1, dtype="float64")
    x = random(2, 3, 4, 5)
    a = compute(first(x, True)[0])
    b = compute(last(np.moveaxis(x, 1, -1), True)[0])
    np.testing.assert_allclose(np.moveaxis(b, -1, 1), a, rtol=1e-12)


# --------------------------------------------------------------------------------------------
# mistakes

X = gd.matrix("x", shape=(3, 4))

MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no seed": (lambda: nn.normal(None, (2, 3)), ArgumentError, "default_rng"),  # type: ignore[arg-type]
    "a stream": (
        lambda: nn.normal(gd.RandomStream(0), 3),  # type: ignore[arg-type]
        ArgumentError,
        "must be a NumPy generator",
    ),
    "integer weights": (lambda: nn.zeros(0, 3, dtype=int), DTypeError, "weights are floats"),
    "negative size": (lambda: nn.zeros(0, (-1, 3)), ShapeError, "known integers"),
    "symbolic size": (lambda: nn.zeros(0, ("n", 3)), ShapeError, "known integers"),  # type: ignore[arg-type]
    "fans of a vector": (lambda: nn.glorot_uniform(0, 3), ShapeError, "no inputs and outputs"),
    "negative std": (lambda: nn.normal(0, 3, -1.0), ArgumentError, "negative"),
    "bounds": (lambda: nn.uniform(0, 3, 1.0, 0.0), ArgumentError, "low must not exceed"),
    "orthogonal vector": (lambda: nn.orthogonal(0, 3), ShapeError, "two axes"),
    "identity of filters": (lambda: nn.identity(0, (2, 2, 2)), ShapeError, "two axes"),
    "dense size": (lambda: nn.Dense(5, 2, 0)(X), ShapeError, "4 and 5 differ"),
    "dense scalar": (lambda: nn.Dense(5, 2, 0)(gd.scalar()), ShapeError, "at least one axis"),
    "embedding of floats": (lambda: nn.Embedding(5, 2, 0)(X), DTypeError, "integer ids"),
    "padding": (lambda: nn.Embedding(5, 2, 0, padding_id=5), ArgumentError, "padding_id"),
    "groups": (lambda: nn.Conv2D(3, 4, 3, 0, groups=2), ArgumentError, "divide by 2"),
    "kernels": (lambda: nn.Conv2D(3, 0, 3, 0), ArgumentError, "n_out must be a positive integer"),
    "params": (lambda: nn.params(3), ArgumentError, "3 has no params"),
    "norm of integers": (lambda: nn.layer_norm(gd.imatrix()), DTypeError, "takes floats"),
    "norm axes": (lambda: nn.layer_norm(X, axes=0), ArgumentError, "must be the last"),
    "gamma": (lambda: nn.LayerNorm(3)(X), ShapeError, "gamma does not fit.*3 and 4"),
    "channels": (lambda: nn.BatchNorm(3)(X, True), ShapeError, "channels.*4 and 3"),
    "training": (lambda: nn.BatchNorm(4)(X, 1.0), ArgumentError, "training must be a bool"),
    "batch norm momentum": (lambda: nn.BatchNorm(4, momentum=2), ArgumentError, "momentum"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str) -> None:
    build, error, match = MISTAKES[name]
    with pytest.raises(error, match=match):
        build()


def test_nn_and_optim_import_nothing_heavy() -> None:
    code = (
        "import sys; from graphdrop import nn, optim; "
        "print([m for m in ('scipy', 'torch', 'matplotlib', 'networkx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
