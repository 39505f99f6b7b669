"""Pooling of images (batch, channels, height, width) over windows.

A sum over windows and its transpose are each other's gradient; the gradient of a maximum goes to
the position where it was found, which is an integer result of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, constant, op
from ..types import Size, TensorType, num_elements, unify
from .conv import Padding, Pair, as_padding, pair, window_count
from .create import iota, zeros
from .elementwise import cast, greater_equal, maximum, where
from .gather import scatter_add
from .shape import broadcast_to, reshape


def _pooled(
    x: TensorType, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> TensorType:
    if x.ndim != 4:
        raise ShapeError(f"needs images (n, c, h, w), got {x}")
    if x.is_bool:
        raise DTypeError("does not take bools; cast them first")
    found = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    return x.with_shape((*x.shape[:2], *(window_count(*axis) for axis in found)))


def _windows(
    kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> dict[str, Any]:
    """Canonical params; windows do not overlap unless a stride says so."""
    size = pair(kernel, "kernel", 1)
    around = as_padding(padding)
    if any(2 * max(p) > k for p, k in zip(around, size, strict=True)):
        raise ArgumentError(
            f"padding {padding} is more than half of the kernel {kernel}: a window would be empty"
        )
    return {
        "kernel": size,
        "stride": size if stride is None else pair(stride, "stride", 1),
        "padding": around,
        "dilation": pair(dilation, "dilation", 1),
    }


# maximum --------------------------------------------------------------------------------------
@op
def max_pool2d(
    x: TensorType, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> TensorType:
    """The largest element in each window of the images; NaN if one is NaN.

    kernel    size of a window: an int, or (height, width)
    stride    distance of windows, by default their size
    padding   elements around the images that are never the largest, at most half a window
    dilation  distance of a window's elements
    The gradient goes to the first of equals, in C order.
    """
    return _pooled(x, kernel, stride, padding, dilation)


@op
def max_pool2d_position(
    x: TensorType, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> TensorType:
    """Where `max_pool2d` finds its results: row * width + column in the image, int64.

    -1 where a window has nothing but padding, between its elements the image.
    """
    return _pooled(x, kernel, stride, padding, dilation).with_dtype(np.int64)


@max_pool2d.prepare
@max_pool2d_position.prepare
def _(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> tuple[list[Node], dict[str, Any]]:
    return [as_node(x)], _windows(kernel, stride, padding, dilation)


@max_pool2d.vjp
def _(g: Node, y: Node, x: Node, **params: Any) -> Sequence[Node | None]:
    images, area = x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]
    first = reshape(iota.make((), {"size": images}), (*x.shape[:2], 1, 1)) * area
    position = max_pool2d_position.make((x,), params)
    if params["padding"] != ((0, 0), (0, 0)) and params["dilation"] != (1, 1):
        g = where(greater_equal(position, 0), g, 0)  # an image may be between a window's elements
        position = maximum(position, 0)
    places = reshape(first + position, (num_elements(g.shape),))
    flat = scatter_add(zeros((images * area,), g.dtype), places, reshape(g, places.shape))
    return (reshape(flat, x.shape),)


@max_pool2d_position.vjp
def _(g: Node, y: Node, x: Node, **params: Any) -> Sequence[Node | None]:
    return (None,)


# sum and mean ---------------------------------------------------------------------------------
@op
def sum_pool2d(
    x: TensorType, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> TensorType:
    """The sum over each window of the images, in their dtype."""
    return _pooled(x, kernel, stride, padding, dilation)


@op
def sum_pool2d_grad(
    g: TensorType, *, size: tuple[Size, Size], kernel: Pair, stride: Pair, padding: Padding,
    dilation: Pair,
) -> TensorType:  # fmt: skip
    """For every element of images of `size` (h, w), the sum of g over the windows that have it."""
    x = g.with_shape((*g.shape[:2], *size))
    for a, b in zip(g.shape, _pooled(x, kernel, stride, padding, dilation).shape, strict=True):
        unify(a, b, f"sizes of {g} and of the windows of {x}:")
    return x


@sum_pool2d.prepare
def _(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> tuple[list[Node], dict[str, Any]]:
    return [as_node(x)], _windows(kernel, stride, padding, dilation)


@sum_pool2d.vjp
def _(g: Node, y: Node, x: Node, **params: Any) -> Sequence[Node | None]:
    return (sum_pool2d_grad.make((g,), {"size": x.shape[2:], **params}),)


@sum_pool2d_grad.vjp
def _(
    g: Node, y: Node, x: Node, *, size: tuple[Size, Size], **params: Any
) -> Sequence[Node | None]:
    return (sum_pool2d.make((g,), params),)


@composed
def avg_pool2d(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True
) -> Node:
    """The mean of each window of the images (n, c, h, w); integers give float64.

    kernel, stride, padding  as for `max_pool2d`; the padding is zeros
    count_include_pad        whether padding counts in the number that a sum is divided by
    """
    node = as_node(x)
    node = node if node.tensor_type.is_float else cast(node, np.float64)
    total = sum_pool2d(node, kernel, stride, padding)
    if count_include_pad:
        high, wide = pair(kernel, "kernel", 1)
        return total / (high * wide)
    ones = broadcast_to(constant(np.ones((), node.dtype)), (1, 1, *node.shape[2:]))
    return total / sum_pool2d(ones, kernel, stride, padding)
