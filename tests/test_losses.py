"""Losses against formulas and PyTorch, far from zero, at awkward shapes, and every mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import graphdrop as gd
from graphdrop import nn
from graphdrop.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from graphdrop.testing.gradients import check_grad

Array = np.ndarray[Any, Any]


def compute(node: Any) -> Any:
    return gd.function([], node, backend="numpy")()


def value_and_grad(loss: Callable[..., gd.Node], x: Array, *rest: Any) -> tuple[Array, Array]:
    """The loss of x, and the gradient of its sum by x."""
    v = gd.tensor("x", x.dtype, x.shape)
    y = loss(v, *rest)
    value, slope = gd.function([v], [y, gd.grad(y.sum(), v)], backend="numpy")(x)
    return value, slope


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def probabilities(*shape: int, seed: int = 0) -> Array:
    return scipy.special.softmax(random(*shape, seed=seed), axis=-1)


# --------------------------------------------------------------------------------------------
# softmax cross entropy

LABELS = np.array([2, 0, 3, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_integer_and_soft_labels_agree(smoothing: float) -> None:
    x = random(4, 5)
    hot = np.eye(5)[LABELS]
    hard = value_and_grad(
        lambda v: nn.softmax_cross_entropy(v, LABELS, label_smoothing=smoothing), x
    )
    soft = value_and_grad(lambda v: nn.softmax_cross_entropy(v, hot, label_smoothing=smoothing), x)
    target = hot * (1 - smoothing) + smoothing / 5
    np.testing.assert_allclose(hard[0], -(target * scipy.special.log_softmax(x, -1)).sum(-1))
    np.testing.assert_allclose(hard[1], scipy.special.softmax(x, -1) - target, atol=1e-15)
    for a, b in zip(hard, soft, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["integer", "ignored", "soft"])
def test_softmax_cross_entropy_equals_pytorch(kind: str, smoothing: float) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = random(4, 5)
    labels = {
        "integer": LABELS,
        "ignored": np.array([2, -1, -1, 1]),
        "soft": probabilities(4, 5, seed=1),
    }[kind]
    t = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        t, torch.tensor(labels), ignore_index=-1, reduction="none", label_smoothing=smoothing
    )
    expected.sum().backward()
    ignore = -1 if kind == "ignored" else None
    value, slope = value_and_grad(
        lambda v: nn.softmax_cross_entropy(
            v, labels, ignore_index=ignore, label_smoothing=smoothing
        ),
        x,
    )
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(slope, t.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_large_logits_neither_overflow_nor_lose_their_gradient() -> None:
    x = np.array([[1e4, 0, -1e4], [-1e30, 1e30, 0]], np.float32)
    value, slope = value_and_grad(lambda v: nn.softmax_cross_entropy(v, np.array([2, 1])), x)
    np.testing.assert_array_equal(value, np.array([2e4, 0], np.float32))
    np.testing.assert_array_equal(slope, [[1, 0, -1], [0, 0, 0]])


def test_an_ignored_row_leaks_nothing() -> None:
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]])
    labels = np.array([-100, -100, 1])
    for smoothing in (0.0, 0.1):
        value, slope = value_and_grad(
            lambda v, s=smoothing: nn.softmax_cross_entropy(
                v, labels, ignore_index=-100, label_smoothing=s
            ),
            x,
        )
        np.testing.assert_array_equal(value[:2], [0, 0])
        np.testing.assert_array_equal(slope[:2], np.zeros((2, 2)))
        np.testing.assert_allclose(value[2], np.log(2))


def test_label_dtypes_and_axes() -> None:
    x = random(2, 3, 4)
    labels = np.arange(6).reshape(2, 3) % 4
    expected = compute(nn.softmax_cross_entropy(x, labels))
    assert expected.shape == (2, 3)
    for dtype in (np.int8, np.uint8, np.int32, np.uint64):
        got = compute(nn.softmax_cross_entropy(x, labels.astype(dtype)))
        np.testing.assert_array_equal(got, expected)
    one = compute(nn.softmax_cross_entropy(x[0, 0], labels[0, 0]))
    np.testing.assert_allclose(one, expected[0, 0])


def test_unknown_batch_sizes_and_none_at_all() -> None:
    x, y = gd.matrix("x", shape=("batch", 3)), gd.ivector("y", shape=("batch",))
    loss = nn.softmax_cross_entropy(x, y)
    f = gd.function([x, y], [loss, gd.grad(loss.sum(), x)], backend="numpy")
    for n in (0, 1, 5):
        value, slope = f(np.ones((n, 3), "f4"), np.zeros(n, "i4"))
        np.testing.assert_allclose(value, np.full(n, np.log(3)), rtol=1e-6)
        assert slope.shape == (n, 3)
    with pytest.raises(ShapeError, match="batch"):
        f(np.ones((2, 3), "f4"), np.zeros(3, "i4"))


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_is_an_error(label: int) -> None:
    x, y = gd.matrix("x", shape=(None, 3)), gd.ivector("y")
    f = gd.function([x, y], nn.softmax_cross_entropy(x, y), backend="numpy")
    with pytest.raises(OutOfRangeError, match=f"label {label} is not one of 3 classes"):
        f(np.ones((2, 3), "f4"), np.array([0, label], "i4"))


def test_soft_labels_have_gradients_too() -> None:
    check_grad(nn.softmax_cross_entropy, [random(3, 4), probabilities(3, 4, seed=1)])
    check_grad(
        lambda x: nn.softmax_cross_entropy(x, LABELS, label_smoothing=0.1), [random(4, 5)], order=3
    )


# --------------------------------------------------------------------------------------------
# the others


def test_sigmoid_cross_entropy_is_accurate_at_both_ends() -> None:
    x = np.array([-1e4, -40, -1, 0, 1, 40, 1e4], np.float64)
    for t in (0.0, 1.0):
        value, slope = value_and_grad(nn.sigmoid_cross_entropy, x, np.full(7, t))
        np.testing.assert_allclose(value, np.logaddexp(0, x if t == 0 else -x), rtol=1e-14)
        np.testing.assert_allclose(slope, scipy.special.expit(x) - t, rtol=1e-12)


def test_targets_may_be_integers_or_bools() -> None:
    x = random(4).astype(np.float32)
    expected = compute(nn.sigmoid_cross_entropy(x, np.array([0, 1, 1, 0], np.float32)))
    for dtype in (bool, np.int64, np.uint8):
        got = compute(nn.binary_cross_entropy(x, np.array([0, 1, 1, 0], dtype)))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


def test_losses_by_formula() -> None:
    x, t = random(3, 4), random(3, 4, seed=1)
    d = x - t
    np.testing.assert_allclose(compute(nn.mse(x, t)), d**2)
    np.testing.assert_allclose(compute(nn.mae(x, t)), abs(d))
    for delta in (0.3, 1.0, 10.0):
        got = compute(nn.huber(x, t, delta))
        np.testing.assert_allclose(got, scipy.special.huber(delta, d), rtol=1e-12)
    sides = np.sign(t)
    np.testing.assert_allclose(compute(nn.hinge(x, sides)), np.maximum(0, 1 - sides * x))
    np.testing.assert_allclose(compute(nn.hinge(x, sides, 0.2)), np.maximum(0, 0.2 - sides * x))


@pytest.mark.parametrize("loss", [nn.mse, nn.huber, nn.sigmoid_cross_entropy])
def test_gradients_of_smooth_losses(loss: Any) -> None:
    check_grad(loss, [random(3, 4) * 2, random(3, 4, seed=1)], order=2)


@pytest.mark.parametrize("loss", [nn.mae, nn.hinge])
def test_gradients_of_losses_with_kinks(loss: Any) -> None:
    check_grad(loss, [random(3, 4), np.sign(random(3, 4, seed=1))], order=2)


def test_huber_is_smooth_at_zero() -> None:
    x = gd.dscalar("x")
    first = gd.grad(nn.huber(x, 0.0), x)
    f = gd.function([x], [first, gd.grad(first, x)], backend="numpy")
    assert [float(v) for v in f(0.0)] == [0, 1]
    assert [float(v) for v in f(np.inf)] == [1, 0]


def test_a_number_is_the_target_of_all() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        got = compute(nn.mse(np.ones((2, 3), dtype), 0.5))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.full((2, 3), 0.25))


def test_kl_divergence() -> None:
    p, q = probabilities(3, 4), probabilities(3, 4, seed=1)
    p[0] = [0, 0.5, 0.5, 0]
    expected = scipy.special.rel_entr(p, q).sum(-1)
    np.testing.assert_allclose(compute(nn.kl_divergence(p, q)), expected)
    np.testing.assert_allclose(compute(nn.kl_divergence(p.T, q.T, axis=0)), expected)
    assert (compute(nn.kl_divergence(p, p)) == 0).all()
    _, slope = value_and_grad(lambda v: nn.kl_divergence(gd.constant(p), v), q)
    np.testing.assert_allclose(slope, -p / q)
    _, slope = value_and_grad(lambda v: nn.kl_divergence(v, gd.constant(q)), p)
    assert np.isfinite(slope).all()
    q[0] = [0.5, 0.5, 0, 0]
    assert compute(nn.kl_divergence(p, q))[0] == np.inf


def test_kl_divergence_of_logits() -> None:
    x, y = random(3, 4), random(3, 4, seed=1)
    p, q = scipy.special.softmax(x, -1), scipy.special.softmax(y, -1)
    got = compute(nn.kl_divergence(x, y, logits=True))
    np.testing.assert_allclose(got, scipy.special.rel_entr(p, q).sum(-1), rtol=1e-12)
    check_grad(lambda a, b: nn.kl_divergence(a, b, logits=True), [x, y])
    far = np.array([[0.0, -1000.0]])
    np.testing.assert_allclose(compute(nn.kl_divergence(-far, far, logits=True)), [1000])


def test_accuracy() -> None:
    scores = np.array([[1, 3, 2], [5, 1, 0], [0, 0, 1]], np.float32)
    got = compute(nn.accuracy(scores, np.array([1, 1, 2])))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [1, 0, 1])


# --------------------------------------------------------------------------------------------
# mistakes

X = gd.matrix("x", shape=(3, 4))

MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bool labels": (
        lambda: nn.softmax_cross_entropy(X, gd.tensor("b", bool, (3,))),
        DTypeError,
        "labels must be integer classes",
    ),
    "integer labels of a soft shape": (
        lambda: nn.softmax_cross_entropy(X, gd.imatrix("t")),
        ShapeError,
        "needs integer labels with 1 axes.*squeeze",
    ),
    "float labels of a hard shape": (
        lambda: nn.softmax_cross_entropy(X, gd.vector("t")),
        ShapeError,
        "soft labels.*equal shapes",
    ),
    "too many labels": (
        lambda: nn.softmax_cross_entropy(X, gd.ivector("t", shape=(5,))),
        ShapeError,
        "axis 0 of scores and labels.*3 and 5",
    ),
    "too many classes": (
        lambda: nn.softmax_cross_entropy(X, gd.matrix("t", shape=(3, 5))),
        ShapeError,
        "axis 1 of logits and soft labels.*4 and 5",
    ),
    "integer logits": (
        lambda: nn.softmax_cross_entropy(gd.imatrix("x"), gd.ivector("t")),
        DTypeError,
        "logits must be floats",
    ),
    "scalar logits": (
        lambda: nn.softmax_cross_entropy(gd.scalar("x"), 1),
        ShapeError,
        "last axis",
    ),
    "smoothing": (
        lambda: nn.softmax_cross_entropy(X, gd.ivector("t"), label_smoothing=1.5),
        ArgumentError,
        "label_smoothing",
    ),
    "ignored soft labels": (
        lambda: nn.softmax_cross_entropy(X, X, ignore_index=0),
        ArgumentError,
        "ignore_index is for integer labels",
    ),
    "ignored float": (
        lambda: nn.softmax_cross_entropy(X, gd.ivector("t"), ignore_index=0.5),  # type: ignore[arg-type]
        ArgumentError,
        "ignore_index must be an integer",
    ),
    "column against row": (
        lambda: nn.mse(gd.matrix("x", shape=("n", 1)), gd.vector("t", shape=("n",))),
        ShapeError,
        "equal shapes",
    ),
    "column against matrix": (
        lambda: nn.mae(gd.matrix("x", shape=(3, 1)), X),
        ShapeError,
        "axis 1 of predictions and targets.*1 and 4",
    ),
    "integer predictions": (lambda: nn.mse(gd.ivector("x"), 1.0), DTypeError, "must be floats"),
    "delta": (lambda: nn.huber(X, 0.0, delta=0.0), ArgumentError, "delta must be positive"),
    "integer distribution": (
        lambda: nn.kl_divergence(gd.imatrix("p"), X),
        DTypeError,
        "p must be floats",
    ),
    "float classes": (lambda: nn.accuracy(X, gd.vector("t")), DTypeError, "integer classes"),
}


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
@pytest.mark.parametrize("ignore", [None, 2])
@pytest.mark.parametrize("rows", [1, 3])
def test_labels_whose_number_only_the_call_knows(
    rows: int, ignore: int | None, backend: str
) -> None:
    """A known batch of one: no size of the labels may take its place, and stretch it."""
    x, labels = gd.tensor("x", "float64", (rows, 8)), gd.lvector("labels")
    centred = x - x.mean(axis=-1, keepdims=True)
    loss = nn.softmax_cross_entropy(centred, labels, ignore_index=ignore).sum()
    f = gd.function([x, labels], [loss, gd.grad(loss, x)], backend=backend)
    values = np.linspace(-1, 2, rows * 8).reshape(rows, 8)
    chances = scipy.special.softmax(values, axis=-1)
    found, slope = f(values, np.arange(rows))
    counted = [i for i in range(rows) if i != ignore]
    np.testing.assert_allclose(found, -sum(np.log(chances[i, i]) for i in counted))
    right = np.where(np.isin(np.arange(rows), counted)[:, None], chances - np.eye(rows, 8), 0)
    np.testing.assert_allclose(slope, right, atol=1e-15)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str) -> None:
    build, error, match = MISTAKES[name]
    with pytest.raises(error, match=match) as raised:
        build()
    assert "test_losses.py" in str(raised.value)
