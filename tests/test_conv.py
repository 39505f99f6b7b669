"""Convolution and pooling: what single rows of the op table cannot say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.ops.conv import conv2d_input_grad, conv2d_kernel_grad


def network(x: Any, w: Any) -> Any:
    h = gd.max_pool2d(gd.conv2d(x, w, padding=(1, 0), stride=(1, 2)), 2, stride=1, padding=1)
    return gd.avg_pool2d(h, (2, 3), stride=2, padding=1, count_include_pad=False)


def test_one_function_for_all_batches_and_image_sizes() -> None:
    x = gd.tensor("x", "float64", ("n", 2, "h", "w"))
    w = gd.tensor("w", "float64", (3, 2, 2, 3))
    cost = gd.square(network(x, w)).sum()
    once = gd.function([x, w], [cost, *gd.grad(cost, [x, w])], backend="numpy")
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=w.shape)
    for shape in [(2, 2, 6, 9), (1, 2, 5, 8), (0, 2, 7, 9), (3, 2, 4, 7)]:
        images = rng.normal(size=shape)
        fixed = gd.tensor("fixed", "float64", shape)
        (known,) = gd.substitute.substitute([cost], {x: fixed})
        compiled = gd.function([fixed, w], [known, *gd.grad(known, [fixed, w])], backend="numpy")
        for a, b in zip(once(images, kernels), compiled(images, kernels), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_sizes_of_the_result_are_expressions_of_those_of_the_images() -> None:
    x = gd.tensor4("x", shape=("n", 3, "h", "w"))
    w = gd.tensor4("w", shape=(4, 3, 3, 3))
    n, _, h, width = x.shape
    assert gd.conv2d(x, w).shape == (n, 4, h - 2, width - 2)
    assert gd.conv2d(x, w, padding="same").shape == (n, 4, h, width)
    assert gd.conv2d(x, w, padding="same", dilation=3).shape == (n, 4, h, width)
    assert gd.max_pool2d(x, 2).shape == (n, 3, (h - 2) // 2 + 1, (width - 2) // 2 + 1)


def test_scipy_correlates_the_same() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(7, 9)), rng.normal(size=(3, 2))
    x, w = gd.dtensor4("x"), gd.dtensor4("w")
    compiled = gd.function([x, w], gd.conv2d(x, w), backend="numpy")
    result = compiled(image[None, None], kernel[None, None])[0, 0]
    np.testing.assert_allclose(result, scipy.signal.correlate2d(image, kernel, "valid"))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.data())
def test_the_three_operations_are_one_trilinear_form(data: Any) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.integers(low, high)), data.draw(st.integers(low, high))

    groups, kernel = data.draw(st.integers(1, 2)), pair(1, 3)
    params = {
        "stride": pair(1, 3), "padding": (pair(0, 2), pair(0, 2)), "dilation": pair(1, 2),
        "groups": groups,
    }  # fmt: skip
    size = tuple(s + (k - 1) * 2 for s, k in zip(pair(1, 4), kernel, strict=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    xs = rng.normal(size=(2, 2 * groups, *size))
    ws = rng.normal(size=(3 * groups, 2, *kernel))
    x, w = gd.tensor("x", "float64", xs.shape), gd.tensor("w", "float64", ws.shape)
    y = gd.conv2d(x, w, **params)
    g = gd.tensor("g", "float64", y.shape)
    forms = [
        (y * g).sum(),
        (conv2d_input_grad(g, w, size=size, **params) * x).sum(),
        (conv2d_kernel_grad(x, g, size=kernel, **params) * w).sum(),
    ]
    compiled = gd.function([x, w, g], forms, backend="numpy")
    values = compiled(xs, ws, rng.normal(size=y.shape))
    np.testing.assert_allclose(values, values[0], rtol=1e-9, atol=1e-9)


def test_the_gradient_of_a_maximum_goes_to_the_first_of_equals() -> None:
    x = gd.dtensor4("x", shape=(1, 1, 3, 4))
    gradient = gd.grad(gd.max_pool2d(x, (2, 3), stride=1).sum(), x)
    found = gd.function([x], gradient, backend="numpy")(np.ones(x.shape))
    np.testing.assert_array_equal(found[0, 0], [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_the_gradient_of_a_maximum_never_goes_to_the_padding() -> None:
    x = gd.dtensor4("x", shape=(2, 1, 2, 2))
    gradient = gd.grad(gd.max_pool2d(x, 2, padding=1).sum(), x)
    found = gd.function([x], gradient, backend="numpy")(np.full(x.shape, -np.inf))
    np.testing.assert_array_equal(found, np.ones(x.shape))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda x, w: gd.conv2d(x, w), "does not fit"),
        (lambda x, w: gd.max_pool2d(x, 3) + w.sum(), "does not fit"),
        (lambda x, w: gd.avg_pool2d(x, 3) + w.sum(), "does not fit"),
    ],
)
def test_images_too_small_at_the_call(build: Any, match: str) -> None:
    x, w = gd.dtensor4("x"), gd.dtensor4("w", shape=(1, 1, 3, 3))
    compiled = gd.function([x, w], build(x, w), backend="numpy")
    with pytest.raises(gd.errors.ShapeError, match=match) as caught:
        compiled(np.ones((1, 1, 2, 5)), np.ones((1, 1, 3, 3)))
    assert "test_conv.py" in str(caught.value)


def test_channels_that_do_not_fit_at_the_call() -> None:
    x, w = gd.dtensor4("x"), gd.dtensor4("w")
    compiled = gd.function([x, w], gd.conv2d(x, w, groups=2), backend="numpy")
    assert compiled(np.ones((1, 4, 3, 3)), np.ones((2, 2, 2, 2))).shape == (1, 2, 2, 2)
    with pytest.raises(gd.errors.ShapeError, match=r"test_conv\.py"):
        compiled(np.ones((1, 4, 3, 3)), np.ones((2, 3, 2, 2)))


def test_a_small_network_learns() -> None:
    # the position of a bright bar: horizontal or vertical
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.3, (40, 1, 6, 6)).astype("f4")
    labels = np.arange(40) % 2
    images[labels == 0, 0, 2, :] += 1
    images[labels == 1, 0, :, 3] += 1
    x, y = gd.tensor4("x", shape=("n", 1, 6, 6)), gd.ivector("y", shape=("n",))
    kernels = gd.shared(rng.normal(0, 0.3, (4, 1, 3, 3)).astype("f4"), "kernels")
    weights = gd.shared(rng.normal(0, 0.3, (4, 2)).astype("f4"), "weights")
    h = gd.relu(gd.conv2d(x, kernels, padding="same"))
    logits = gd.max_pool2d(h, 2).mean(axis=(2, 3)) @ weights
    rows = gd.arange(x.shape[0])
    loss = -gd.log_softmax(logits)[rows, y].mean()
    gradients = gd.grad(loss, [kernels, weights])
    steps = [(p, p - 0.5 * g) for p, g in zip([kernels, weights], gradients, strict=True)]
    train = gd.function([x, y], loss, updates=steps, backend="numpy")
    losses = [float(train(images, labels.astype("i4"))) for _ in range(100)]
    assert losses[-1] < 0.1 < 0.5 < losses[0]
