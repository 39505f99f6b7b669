"""Optimizers against PyTorch and by hand, schedules, constraints, and every mistake."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import optim
from graphdrop.errors import ArgumentError, DTypeError, GradientError, ShapeError
from graphdrop.ops.leaf import Shared

Build = Callable[[gd.Node, list[Shared]], Any]


def problem(dtype: str = "float64") -> tuple[gd.Node, gd.Node, list[Shared]]:
    """An input, a loss with gradients of different sizes, and its parameters W and b."""
    rng = np.random.default_rng(0)
    w, b = shared_values(rng, dtype)
    x = gd.tensor("x", dtype, ("batch", 3))
    y = gd.tanh(x @ w + b)
    return x, (y * y * y).mean() + 0.1 * (w * w).sum(), [w, b]


def shared_values(rng: np.random.Generator, dtype: str) -> tuple[Shared, Shared]:
    w = gd.shared(rng.normal(size=(3, 4)).astype(dtype), "W")
    return w, gd.shared(rng.normal(size=4).astype(dtype), "b")


def batches(dtype: str, count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(5, 3)).astype(dtype) for _ in range(count)]


def run(build: Build, steps: int = 50, dtype: str = "float64") -> list[np.ndarray[Any, Any]]:
    """The parameters after some steps."""
    x, loss, params = problem(dtype)
    step = gd.function([x], loss, updates=build(loss, params), backend="numpy")
    for batch in batches(dtype, steps):
        step(batch)
    return [p.get_value() for p in params]


def state(updates: Any) -> dict[str, Shared]:
    return {variable.name: variable for variable, _ in updates}


# --------------------------------------------------------------------------------------------
# the same as PyTorch

PAIRS: dict[str, tuple[Build, str, dict[str, Any]]] = {
    "sgd": (lambda f, p: optim.sgd(f, p, 0.1), "SGD", {"lr": 0.1}),
    "sgd decay": (
        lambda f, p: optim.sgd(f, p, 0.1, weight_decay=0.02),
        "SGD",
        {"lr": 0.1, "weight_decay": 0.02},
    ),
    "momentum": (
        lambda f, p: optim.momentum(f, p, 0.1, 0.8),
        "SGD",
        {"lr": 0.1, "momentum": 0.8},
    ),
    "nesterov": (
        lambda f, p: optim.nesterov(f, p, 0.1, 0.8),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "adagrad": (lambda f, p: optim.adagrad(f, p, 0.05), "Adagrad", {"lr": 0.05}),
    "adadelta": (
        lambda f, p: optim.adadelta(f, p, 0.7, rho=0.95),
        "Adadelta",
        {"lr": 0.7, "rho": 0.95},
    ),
    "rmsprop": (lambda f, p: optim.rmsprop(f, p, 0.02), "RMSprop", {"lr": 0.02}),
    "rmsprop centered": (
        lambda f, p: optim.rmsprop(f, p, 0.02, centered=True, momentum=0.5),
        "RMSprop",
        {"lr": 0.02, "centered": True, "momentum": 0.5},
    ),
    "adam": (lambda f, p: optim.adam(f, p, 0.03), "Adam", {"lr": 0.03}),
    "adam betas": (
        lambda f, p: optim.adam(f, p, 0.03, 0.7, 0.9, 1e-3, weight_decay=0.1),
        "Adam",
        {"lr": 0.03, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "amsgrad": (
        lambda f, p: optim.adam(f, p, 0.03, beta2=0.9, amsgrad=True),
        "Adam",
        {"lr": 0.03, "betas": (0.9, 0.9), "amsgrad": True},
    ),
    "adamw": (
        lambda f, p: optim.adamw(f, p, 0.03, weight_decay=0.2),
        "AdamW",
        {"lr": 0.03, "weight_decay": 0.2},
    ),
    "adamw amsgrad": (
        lambda f, p: optim.adamw(f, p, 0.03, amsgrad=True),
        "AdamW",
        {"lr": 0.03, "amsgrad": True},
    ),
}


def torch_run(name: str, options: dict[str, Any], schedule: Any = None) -> list[Any]:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    _, _, params = problem()
    w, b = (torch.nn.Parameter(torch.tensor(p.get_value())) for p in params)
    optimizer = getattr(torch.optim, name)([w, b], **options)
    scheduler = schedule(torch.optim.lr_scheduler, optimizer) if schedule else None
    for batch in batches("float64", 50):
        optimizer.zero_grad()
        y = torch.tanh(torch.tensor(batch) @ w + b)
        ((y**3).mean() + 0.1 * (w * w).sum()).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [w.detach().numpy(), b.detach().numpy()]


@pytest.mark.parametrize("name", PAIRS)
def test_fifty_steps_equal_pytorch(name: str) -> None:
    build, kind, options = PAIRS[name]
    for ours, theirs in zip(run(build), torch_run(kind, options), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_float32_follows_float64(name: str) -> None:
    build = PAIRS[name][0]
    for narrow, wide in zip(run(build, dtype="float32"), run(build), strict=True):
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=2e-3, atol=2e-4)


SCHEDULES: dict[str, tuple[Any, Any]] = {
    "step": (
        optim.step_decay(0.1, 7, 0.5),
        lambda s, o: s.StepLR(o, 7, 0.5),
    ),
    "exponential": (
        optim.exponential_decay(0.1, 0.9),
        lambda s, o: s.ExponentialLR(o, 0.9),
    ),
    "cosine": (
        optim.cosine_decay(0.1, 60, 0.01),
        lambda s, o: s.CosineAnnealingLR(o, 60, 0.01),
    ),
    "polynomial": (
        optim.polynomial_decay(0.1, 30, power=2),
        lambda s, o: s.PolynomialLR(o, 30, 2.0),
    ),
    "linear": (
        optim.polynomial_decay(0.1, 30, end=0.02),
        lambda s, o: s.LinearLR(o, 1.0, 0.2, 30),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_equals_pytorch(name: str) -> None:
    ours, theirs = SCHEDULES[name]
    expected = torch_run("SGD", {"lr": 0.1, "momentum": 0.9}, theirs)
    got = run(lambda f, p: optim.sgd(f, p, ours, 0.9))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


# --------------------------------------------------------------------------------------------
# schedules


def rates(schedule: optim.schedules.Schedule, count: int) -> list[float]:
    step = gd.lscalar("step")
    rate = gd.function([step], schedule(step), backend="numpy", on_unused_input="ignore")
    return [float(rate(i)) for i in range(count)]


def test_schedules_by_formula() -> None:
    assert rates(optim.constant(0.5), 3) == [0.5, 0.5, 0.5]
    assert rates(optim.step_decay(1.0, 2, 0.5), 5) == [1.0, 1.0, 0.5, 0.5, 0.25]
    np.testing.assert_allclose(rates(optim.exponential_decay(2.0, 0.5), 3), [2, 1, 0.5])
    np.testing.assert_allclose(rates(optim.polynomial_decay(1.0, 4), 6), [1, 0.75, 0.5, 0.25, 0, 0])
    cosine = [0.5 * (1 + math.cos(math.pi * min(t / 4, 1))) for t in range(6)]
    np.testing.assert_allclose(rates(optim.cosine_decay(1.0, 4), 6), cosine, atol=1e-16)


def test_warmup_rises_to_the_schedule_inside() -> None:
    np.testing.assert_allclose(rates(optim.warmup(1.0, 4), 6), [0.25, 0.5, 0.75, 1, 1, 1])
    plain = rates(optim.cosine_decay(1.0, 10), 10)
    warm = rates(optim.warmup(optim.cosine_decay(1.0, 10), 3), 10)
    np.testing.assert_allclose(warm[3:], plain[3:])
    np.testing.assert_allclose(warm[:3], np.multiply(plain[:3], [1 / 3, 2 / 3, 1]))


def test_a_schedule_counts_its_own_steps() -> None:
    x, loss, params = problem()
    updates = optim.sgd(loss, params, optim.exponential_decay(0.1, 0.5))
    counter = state(updates)["SGD.step"]
    step = gd.function([x], loss, updates=updates, backend="numpy")
    for batch in batches("float64", 3):
        step(batch)
    assert counter.get_value() == 3
    assert counter.dtype == np.int64


def test_adam_with_a_schedule_has_one_counter() -> None:
    _, loss, params = problem()
    updates = optim.adam(loss, params, optim.cosine_decay(0.1, 10))
    assert [v.name for v, _ in updates].count("Adam.step") == 1
    constant = run(lambda f, p: optim.adam(f, p, 0.03), 5)
    scheduled = run(lambda f, p: optim.adam(f, p, optim.constant(0.03)), 5)
    for a, b in zip(constant, scheduled, strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------------------------------
# what an optimizer takes and gives


def test_the_learning_rate_may_be_shared_or_an_input() -> None:
    x, loss, params = problem("float32")
    before = params[0].get_value()
    lr = gd.shared(0.0, "lr")
    step = gd.function([x], loss, updates=optim.adam(loss, params, lr), backend="numpy")
    batch = batches("float32", 1)[0]
    step(batch)
    np.testing.assert_array_equal(params[0].get_value(), before)
    lr.set_value(0.1)
    step(batch)
    assert not np.array_equal(params[0].get_value(), before)
    rate = gd.dscalar("rate")
    step = gd.function([x, rate], loss, updates=optim.sgd(loss, params, rate), backend="numpy")
    before = params[0].get_value()
    step(batch, 0.0)
    np.testing.assert_array_equal(params[0].get_value(), before)


def test_momentum_may_be_shared() -> None:
    mu = gd.shared(0.8, "mu", "float64")
    for a, b in zip(
        run(lambda f, p: optim.nesterov(f, p, 0.1, mu), 5),
        run(lambda f, p: optim.nesterov(f, p, 0.1, 0.8), 5),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_gradients_instead_of_a_loss() -> None:
    given = run(lambda f, p: optim.adam(gd.grad(f, p), p, 0.1), 3)
    for a, b in zip(given, run(lambda f, p: optim.adam(f, p, 0.1), 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_is_named_after_its_parameter() -> None:
    _, loss, params = problem()
    names = set(state(optim.adam(loss, params, amsgrad=True)))
    expected = {f"Adam.{s}.{p}" for s in ("m", "v", "vmax") for p in "Wb"}
    assert names == expected | {"Adam.step", "W", "b"}
    assert set(state(optim.sgd(loss, params, 0.1))) == {"W", "b"}
    assert "SGD.velocity.W" in state(optim.momentum(loss, params, 0.1))


def test_float16_parameters_keep_float32_state() -> None:
    """eps = 1e-8 is 0 in float16: with float16 state a zero gradient would give 0 / 0."""
    w = gd.shared(np.ones(3, np.float16), "w")
    loss = (w * np.array([0, 1, 1], np.float16)).sum()
    for build in (optim.adam, optim.adamw, optim.rmsprop, optim.adagrad, optim.adadelta):
        updates = build(loss, [w])  # type: ignore[operator]
        step = gd.function([], loss, updates=updates, backend="numpy")
        for _ in range(3):
            step()
        assert w.get_value().dtype == np.float16
        assert np.isfinite(w.get_value()).all()
        kept = [v.dtype for v, _ in updates if v is not w and v.ndim]
        assert kept
        assert set(kept) == {np.dtype(np.float32)}


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_small_parameters(shape: tuple[int, ...]) -> None:
    w = gd.shared(np.ones(shape, np.float32), "w")
    loss = (w * w).sum()
    step = gd.function([], loss, updates=optim.adam(loss, [w], 0.1), backend="numpy")
    step()
    np.testing.assert_allclose(w.get_value(), np.full(shape, 0.9, np.float32), rtol=1e-6)


def test_a_zero_gradient_moves_nothing() -> None:
    """What dropout switches off stays bit for bit."""
    value = np.array([0.3, -0.7, 1e-30], np.float32)
    for name in ("sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam"):
        w = gd.shared(value, "w")
        loss = (w * 0.0).sum()
        step = gd.function([], loss, updates=getattr(optim, name)(loss, [w], 0.1), backend="numpy")
        for _ in range(10):
            step()
        assert w.get_value().tobytes() == value.tobytes(), name


def test_adam_takes_about_ten_passes_over_a_parameter() -> None:
    w = gd.shared(np.ones((64, 64), np.float32), "W")
    g = gd.matrix("g", shape=(64, 64))
    step = gd.function([g], updates=optim.adam([g], [w]), backend="numpy")
    order = gd.graph.toposort(step.graph.outputs)
    assert sum(node.shape == (64, 64) and bool(node.inputs) for node in order) <= 12


# --------------------------------------------------------------------------------------------
# constraints


def compute(nodes: Any) -> Any:
    return gd.function([], nodes, backend="numpy")()


def test_global_norm_clipping() -> None:
    grads = [gd.constant(np.array([3.0, 0.0])), gd.constant(np.array([[4.0]]))]
    assert compute(optim.global_norm(grads)) == 5
    clipped = compute(optim.clip_by_global_norm(grads, 2.5))
    np.testing.assert_allclose(clipped[0], [1.5, 0])
    np.testing.assert_allclose(clipped[1], [[2]])
    for kept, g in zip(compute(optim.clip_by_global_norm(grads, 5.5)), grads, strict=True):
        assert kept.tobytes() == compute(g).tobytes()


def test_a_norm_of_float16_does_not_overflow() -> None:
    grads = [gd.constant(np.full(4, 300, np.float16))]
    assert compute(optim.global_norm(grads)) == 600
    clipped = compute(optim.clip_by_global_norm(grads, 60.0))[0]
    assert clipped.dtype == np.float16
    np.testing.assert_allclose(clipped, 30, rtol=1e-3)


def test_max_norm_limits_incoming_weights_only() -> None:
    x, loss, (w, b) = problem()
    updates = optim.max_norm(optim.adam(loss, [w, b], 0.1), [w], 0.5)
    step = gd.function([x], loss, updates=updates, backend="numpy")
    before = b.get_value()
    for batch in batches("float64", 20):
        step(batch)
        assert (np.linalg.norm(w.get_value(), axis=0) <= 0.5 * (1 + 1e-12)).all()
    assert np.linalg.norm(b.get_value()) > 0.5
    assert not np.array_equal(b.get_value(), before)


def test_max_norm_leaves_short_vectors_bit_for_bit() -> None:
    w = np.array([[3.0, 0.1, 0.0], [4.0, 0.2, 0.0]], np.float32)
    limited = compute(optim.constrain_norm(gd.constant(w), 1.0))
    np.testing.assert_allclose(limited[:, 0], [0.6, 0.8], rtol=1e-6)
    assert limited[:, 1:].tobytes() == w[:, 1:].tobytes()


def test_max_norm_axes() -> None:
    rng = np.random.default_rng(0)
    filters = rng.normal(size=(2, 3, 4, 5))
    limited = compute(optim.constrain_norm(gd.constant(filters), 0.1))
    np.testing.assert_allclose(np.sqrt((limited**2).sum(axis=(1, 2, 3))), 0.1)
    limited = compute(optim.constrain_norm(gd.constant(filters), 0.1, axis=-1))
    np.testing.assert_allclose(np.linalg.norm(limited, axis=-1), 0.1)


def test_max_norm_takes_a_dict() -> None:
    w = gd.shared(np.full((2, 1), 3.0), "w")
    gd.function([], updates=optim.max_norm({w: w * 2}, [w], 1.0), backend="numpy")()
    np.testing.assert_allclose(w.get_value(), [[0.5**0.5]] * 2)


def test_weight_decay_adds_the_gradient_of_half_the_square() -> None:
    _, _, params = problem()
    loss = sum((p * p).sum() for p in params)
    decayed = optim.weight_decay(gd.grad(loss, params), params, 0.3)
    expected = gd.grad(loss + 0.5 * 0.3 * loss, params)
    for a, b in zip(compute(decayed), compute(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


# --------------------------------------------------------------------------------------------
# mistakes


def mistake(build: Build) -> Callable[[], Any]:
    return lambda: build(*problem()[1:])


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no parameters": (mistake(lambda f, p: optim.sgd(f, [], 0.1)), ArgumentError, "no parameters"),
    "twice": (mistake(lambda f, p: optim.sgd(f, [*p, p[0]], 0.1)), ArgumentError, "twice"),
    "integer": (
        mistake(lambda f, p: optim.sgd(f, [gd.shared(np.arange(3), "ids")], 0.1)),
        DTypeError,
        "'ids' int64.*not a float",
    ),
    "not shared": (
        mistake(lambda f, p: optim.sgd(f, [gd.vector("v")], 0.1)),
        ArgumentError,
        "gd.shared",
    ),
    "negative lr": (mistake(lambda f, p: optim.adam(f, p, -0.1)), ArgumentError, "lr.*-0.1"),
    "lr nan": (mistake(lambda f, p: optim.adam(f, p, math.nan)), ArgumentError, "lr.*nan"),
    "lr text": (mistake(lambda f, p: optim.sgd(f, p, "0.1")), ArgumentError, "lr must be"),  # type: ignore[arg-type]
    "lr vector": (
        mistake(lambda f, p: optim.sgd(f, p, gd.vector("v"))),
        ArgumentError,
        "lr must be a number or a scalar",
    ),
    "schedule": (
        mistake(lambda f, p: optim.sgd(f, p, lambda step: 0.1)),  # type: ignore[arg-type, return-value]
        ArgumentError,
        "schedule returns",
    ),
    "beta1": (mistake(lambda f, p: optim.adam(f, p, beta1=1.0)), ArgumentError, "beta1.*less than"),
    "beta2": (mistake(lambda f, p: optim.adamw(f, p, beta2=-0.1)), ArgumentError, "beta2"),
    "eps": (mistake(lambda f, p: optim.adam(f, p, eps=-1.0)), ArgumentError, "eps"),
    "rho": (mistake(lambda f, p: optim.rmsprop(f, p, rho=1.5)), ArgumentError, "rho"),
    "momentum": (mistake(lambda f, p: optim.momentum(f, p, 0.1, 1.0)), ArgumentError, "momentum"),
    "decay": (
        mistake(lambda f, p: optim.sgd(f, p, 0.1, weight_decay=-1.0)),
        ArgumentError,
        "weight_decay",
    ),
    "nesterov": (
        mistake(lambda f, p: optim.sgd(f, p, 0.1, nesterov=True)),
        ArgumentError,
        "needs momentum",
    ),
    "too few gradients": (
        mistake(lambda f, p: optim.sgd(gd.grad(f, p[:1]), p, 0.1)),
        ArgumentError,
        "1 gradients for 2",
    ),
    "rank": (
        mistake(lambda f, p: optim.sgd(gd.grad(f, p)[::-1], p, 0.1)),
        ShapeError,
        "shapes must be equal",
    ),
    "size": (
        mistake(lambda f, p: optim.sgd([gd.constant(np.ones((3, 5)))], p[:1], 0.1)),
        ShapeError,
        "4 and 5 differ",
    ),
    "vector loss": (
        mistake(lambda f, p: optim.sgd(p[0] * 2, p, 0.1)),
        GradientError,
        "must be a scalar",
    ),
    "not updated": (
        mistake(lambda f, p: optim.max_norm(optim.sgd(f, p[1:], 0.1), [p[0]], 1.0)),
        ArgumentError,
        "'W'.*not among the updates",
    ),
    "norm of a vector": (
        mistake(lambda f, p: optim.max_norm(optim.sgd(f, p, 0.1), p, 1.0)),
        ShapeError,
        "give axis=",
    ),
    "max_norm 0": (
        mistake(lambda f, p: optim.clip_by_global_norm(gd.grad(f, p), 0.0)),
        ArgumentError,
        "positive",
    ),
    "no gradients": (lambda: optim.global_norm([]), ArgumentError, "no gradients"),
    "every": (lambda: optim.step_decay(0.1, 0), ArgumentError, "every"),
    "steps": (lambda: optim.cosine_decay(0.1, 2.5), ArgumentError, "steps"),  # type: ignore[arg-type]
    "schedule lr": (lambda: optim.exponential_decay(-1.0, 0.5), ArgumentError, "lr"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name: str) -> None:
    build, error, match = MISTAKES[name]
    with pytest.raises(error, match=match) as raised:
        build()
    assert "test_optim.py" in str(raised.value)
