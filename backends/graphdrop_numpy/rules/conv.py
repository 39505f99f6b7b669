"""NumPy rules of `graphdrop.ops.conv` and `pool`."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from graphdrop.errors import ShapeError
from graphdrop.ops import conv as ops
from graphdrop.ops import pool
from graphdrop.ops.conv import Padding, Pair

from .rule import Array, Table


def padded(x: Array, padding: Padding, fill: float = 0) -> Array:
    if padding == ((0, 0), (0, 0)):
        return x
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """A view (n, c, oh, ow, kh, kw) of padded images (n, c, h, w)."""
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if any(e > size for e, size in zip(extent, x.shape[2:], strict=True)):
        raise ShapeError(f"a window of {extent} does not fit into padded images {x.shape[2:]}")
    view = sliding_window_view(x, extent, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def columns(x: Array, kernel: Pair, stride: Pair, dilation: Pair, groups: int) -> Array:
    """The windows of padded images as (n, groups, c / groups * kh * kw, oh * ow)."""
    view = windows(x, kernel, stride, dilation).transpose(0, 1, 4, 5, 2, 3)
    n, c, kh, kw, oh, ow = view.shape
    return view.reshape(n, groups, c // groups * kh * kw, oh * ow)


def spread(
    columns: Array, size: Pair, output: Pair, kernel: Pair, stride: Pair, padding: Padding,
    dilation: Pair,
) -> Array:  # fmt: skip
    """Windows (n, c, kh, kw, oh, ow) added up into images of `size`: the transpose of `windows`."""
    (top, bottom), (left, right) = padding
    height, width = size
    n, c = columns.shape[:2]
    x = np.zeros((n, c, height + top + bottom, width + left + right), columns.dtype)
    (oh, ow), (sh, sw), (dh, dw) = output, stride, dilation
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            cols = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            x[:, :, rows, cols] += columns[:, :, i, j]
    return x[:, :, top : top + height, left : left + width]


def conv2d(
    x: Array, w: Array, *, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    (n, _, height, width), (o, _, *kernel) = x.shape, w.shape
    found = zip((height, width), kernel, stride, padding, dilation, strict=True)
    output = [ops.window_count(*axis) for axis in found]
    cols = columns(padded(x, padding), w.shape[2:], stride, dilation, groups)
    y = w.reshape(groups, o // groups, cols.shape[2]) @ cols
    return y.reshape(n, o, *output)


def conv2d_input_grad(
    g: Array, w: Array, *, size: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    (n, o, oh, ow), (_, c, kh, kw) = g.shape, w.shape
    kernels = w.reshape(groups, o // groups, c * kh * kw).swapaxes(1, 2)
    cols = kernels @ g.reshape(n, groups, o // groups, oh * ow)
    cols = cols.reshape(n, groups * c, kh, kw, oh, ow)
    return spread(cols, size, (oh, ow), (kh, kw), stride, padding, dilation)


def conv2d_kernel_grad(
    x: Array, g: Array, *, size: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    n, o, oh, ow = g.shape
    c = x.shape[1] // groups
    cols = columns(padded(x, padding), size, stride, dilation, groups)
    # one product over batch and positions: (groups, o / groups, n * p) @ (groups, n * p, k)
    left = g.reshape(n, groups, o // groups, oh * ow).transpose(1, 2, 0, 3)
    right = cols.transpose(1, 0, 3, 2)
    flat = left.reshape(groups, o // groups, n * oh * ow) @ right.reshape(
        groups, n * oh * ow, cols.shape[2]
    )
    return flat.reshape(o, c, *size)


def max_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    found: Array = windows(padded(x, padding, lowest(x)), kernel, stride, dilation)
    largest: Array = np.max(found, axis=(-2, -1))
    return largest


def lowest(x: Array) -> float:
    return -np.inf if x.dtype.kind == "f" else int(np.iinfo(x.dtype).min)


def max_pool2d_position(
    x: Array, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Array:
    y = max_pool2d(x, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    found = windows(padded(x, padding), kernel, stride, dilation)
    inside = windows(padded(np.ones_like(x[:1, :1], bool), padding), kernel, stride, dilation)
    hit = ((found == y[..., None, None]) | (found != found)) & inside  # x != x where NaN
    hit = hit.reshape(*y.shape, kernel[0] * kernel[1])
    first = hit.argmax(axis=-1)
    i, j = np.divmod(first, kernel[1])
    rows = np.arange(y.shape[2])[:, None] * stride[0] - padding[0][0] + i * dilation[0]
    cols = np.arange(y.shape[3]) * stride[1] - padding[1][0] + j * dilation[1]
    position: Array = np.where(hit.any(axis=-1), rows * x.shape[3] + cols, -1)
    return position


def sum_pool2d(x: Array, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    found = windows(padded(x, padding), kernel, stride, dilation)
    return np.sum(found, axis=(-2, -1), dtype=x.dtype)


def sum_pool2d_grad(
    g: Array, *, size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Array:
    n, c, *output = g.shape
    cols = np.broadcast_to(g[:, :, None, None], (n, c, *kernel, *output))
    return spread(cols, size, g.shape[2:], kernel, stride, padding, dilation)


RULES: Table = {
    ops.conv2d: conv2d,
    ops.conv2d_input_grad: conv2d_input_grad,
    ops.conv2d_kernel_grad: conv2d_kernel_grad,
    pool.max_pool2d: max_pool2d,
    pool.max_pool2d_position: max_pool2d_position,
    pool.sum_pool2d: sum_pool2d,
    pool.sum_pool2d_grad: sum_pool2d_grad,
}
