"""Convolution and pooling of known sizes as slices and products, against the oracle."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

import graphdrop as gd
from graphdrop import nn
from graphdrop.errors import ShapeError

from . import cudashim

SHIM = cudashim.register()
BACKENDS = ["llvm", pytest.param(SHIM, marks=cudashim.needs_compiler)]
pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
side = st.tuples(st.integers(0, 2), st.integers(0, 2))


def agree(inputs: list[gd.Node], outputs: list[gd.Node], arrays: list[Any], backend: str) -> str:
    """The listing of the backend's program, whose results are the oracle's but for rounding."""
    f, oracle = (gd.function(inputs, outputs, backend=b) for b in (backend, "numpy"))
    for found, right in zip(f(*arrays), oracle(*arrays), strict=True):
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-11)
    return f.executable.listing("program")


def weighted(y: gd.Node) -> gd.Node:
    """A scalar whose gradient differs from element to element, as does that gradient's."""
    return (y * y * (gd.arange(y.size, dtype=y.dtype).reshape(y.shape) % 5 + 0.5)).sum()


def of(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)), kernel=pair, stride=pair, dilation=pair,
    padding=st.tuples(side, side), groups=st.integers(1, 2), channels=pair, batch=st.integers(1, 2),
)  # fmt: skip
def test_convolution(
    backend: str, size: Any, kernel: Any, stride: Any, dilation: Any, padding: Any, groups: int,
    channels: Any, batch: int,
) -> None:  # fmt: skip
    """Values, gradients by images and kernels, and the gradients of those."""
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    assume(all(s + sum(p) > r for s, p, r in zip(size, padding, reach, strict=True)))
    x = gd.tensor("x", "float64", (batch, channels[0] * groups, *size))
    w = gd.tensor("w", "float64", (channels[1] * groups, channels[0], *kernel))
    y = gd.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    first = gd.grad(weighted(y), [x, w])
    second = gd.grad(weighted(first[0]) + weighted(first[1]), [x, w])
    text = agree([x, w], [y, *first, *second], [of(*x.shape), of(*w.shape, seed=1)], backend)
    beyond = any(max(p) > r for p, r in zip(padding, reach, strict=True))
    assert beyond or "outside" not in text


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nan", [False, True])
@settings(max_examples=8)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)), kernel=pair, stride=pair, dilation=pair,
    around=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_pooling(
    backend: str, nan: bool, size: Any, kernel: Any, stride: Any, dilation: Any, around: Any
) -> None:
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple((a * (k // 2),) * 2 for a, k in zip(around, kernel, strict=True))
    assume(all(s + sum(p) > r for s, p, r in zip(size, padding, reach, strict=True)))
    x = gd.tensor("x", "float64", (2, 3, *size))
    how = {"kernel": kernel, "stride": stride, "padding": padding}
    largest, mean = gd.max_pool2d(x, **how, dilation=dilation), None
    array = of(*x.shape).round(1)  # some are equal
    # the square of -infinity has no slope
    outputs = [largest, gd.grad(weighted(gd.maximum(largest, -9)), x)]
    if nan:
        array[1, 2, size[0] // 2, 0] = np.nan
        array[0, 0] = -np.inf
        outputs = outputs[:1]
    else:
        mean = gd.avg_pool2d(x, **how)
        slope = gd.grad(weighted(mean), x)
        outputs += [mean, slope, gd.grad(weighted(slope), x)]
    assert "outside" not in agree([x], outputs, [array], backend)


@pytest.mark.parametrize("backend", ["numpy", *BACKENDS])
def test_an_image_between_the_elements_of_a_window(backend: str) -> None:
    """Nothing is the largest of padding alone, and nothing gets its gradient."""
    x = gd.tensor("x", "float64", (2, 1, 1, 3))
    y = gd.max_pool2d(x, (2, 1), 1, padding=(1, 0), dilation=(2, 1))
    f = gd.function([x], [y, gd.grad(y.sum(), x)], backend=backend)
    largest, slope = f(of(2, 1, 1, 3))
    assert (largest == -np.inf).all()
    assert (slope == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_of_images(backend: str) -> None:
    """Any batch; float32 and, for integers, the oracle's own rule."""
    x, y = gd.tensor4("x", shape=("batch", 1, 8, 8)), gd.ivector("y", shape=("batch",))
    w, v = gd.shared(of(4, 1, 3, 3).astype("f4"), "w"), gd.shared(of(64, 5).astype("f4"), "v")
    h = gd.max_pool2d(gd.relu(gd.conv2d(x, w, padding="same")), 2)
    stream = gd.RandomStream(3)
    h = gd.dropout(h, 0.5, stream, name="h")
    loss = nn.softmax_cross_entropy(h.reshape((x.shape[0], 64)) @ v, y).mean()
    outputs = [loss, h, *gd.grad(loss, [w, v])]
    f, oracle = (gd.function([x, y], outputs, backend=b) for b in (backend, "numpy"))
    assert "outside" not in f.executable.listing("program")
    for batch in (3, 1, 6, 0):
        arrays = of(batch, 1, 8, 8).astype("f4"), np.arange(batch, dtype="i4") % 5
        with stream.at(batch):
            found, right = f(*arrays), oracle(*arrays)
        if batch:
            for a, b in zip(found, right, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[1] == 0, right[1] == 0)
    n = gd.itensor4("n", shape=(1, 2, 4, 4))
    k = gd.constant(np.arange(12).reshape(1, 2, 3, 2).astype("i4"))
    g = gd.function([n], [gd.conv2d(n, k), gd.max_pool2d(n, 2)], backend=backend)
    array = np.arange(32).reshape(1, 2, 4, 4).astype("i4")
    right = gd.function([n], [gd.conv2d(n, k), gd.max_pool2d(n, 2)], backend="numpy")(array)
    for a, b in zip(g(array), right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_too_small_are_an_error_when_sizes_are_not_known(backend: str) -> None:
    x = gd.tensor4("x")
    f = gd.function([x], gd.max_pool2d(x, 3), backend=backend)
    np.testing.assert_array_equal(f(np.ones((1, 1, 3, 4), "f4")), np.ones((1, 1, 1, 1)))
    with pytest.raises(ShapeError):
        f(np.ones((1, 1, 2, 4), "f4"))
