"""Convolution and pooling as slices, elementwise operations and one product.

A window's element (i, j) of all windows is one strided slice of the padded images: a view.  Pooling
combines the slices element by element, in one kernel; a convolution lays them side by side and
multiplies.  The gradient by the images is a convolution itself, of the gradient spread over the
places that windows had.  All for images and windows of known sizes: whether a window fits into
others only the oracle says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from ..graph import Node
from ..op import constant
from ..ops import conv, pool
from ..ops.conv import Padding, Pair
from ..ops.create import iota
from ..ops.elementwise import add, equal, greater_equal, isnan, less, logical_or, maximum, where
from ..ops.index import _set_subtensor, _subtensor
from ..ops.join import concatenate, flip
from ..ops.linalg import matmul
from ..ops.reduce import sum as sum_of
from ..ops.shape import broadcast_to, expand_dims, reshape, swapaxes, transpose
from ..types import Size

MOST = 64  # elements of a window that a kernel reads
NONE: Padding = ((0, 0), (0, 0))


def _is_known(kernel: Any, *images: Node) -> bool:
    sizes = [*kernel, *(s for x in images for s in x.shape[2:])]
    return all(isinstance(s, int) and s > 0 for s in sizes) and kernel[0] * kernel[1] <= MOST


def _placed(
    x: Node, size: tuple[Size, Size], at: Pair, step: Pair = (1, 1), fill: float = 0
) -> Node:
    """Images of `size` full of `fill`, with those of x from `at` on, their rows `step` apart."""
    if (*x.shape[2:],) == (*size,):
        return x
    index = [(0, 1, s) for s in x.shape[:2]]
    index += [(a, s, n) for a, s, n in zip(at, step, x.shape[2:], strict=True)]
    around = broadcast_to(constant(np.asarray(fill, x.dtype)), (*x.shape[:2], *size))
    return _set_subtensor.make((around, x), {"index": tuple(index)})


def _padded(x: Node, padding: Padding, fill: float = 0) -> Node:
    (top, bottom), (left, right) = padding
    size = (x.shape[2] + (top + bottom), x.shape[3] + (left + right))
    return _placed(x, size, (top, left), fill=fill)


def _slices(
    x: Node, out: tuple[Size, ...], kernel: Any, stride: Pair, dilation: Pair
) -> list[Node]:
    """Of padded images: for each element of a window, in C order, those of all windows."""
    (sh, sw), (dh, dw), (oh, ow) = stride, dilation, out
    whole = tuple((0, 1, s) for s in x.shape[:2])
    return [
        _subtensor.make((x,), {"index": (*whole, (i * dh, sh, oh), (j * dw, sw, ow))})
        for i, j in product(range(kernel[0]), range(kernel[1]))
    ]


# --------------------------------------------------------------------------------------------
# convolution


def _columns(slices: list[Node], groups: int) -> Node:
    """The windows side by side: (n, groups, c / groups * kh * kw, oh * ow)."""
    n, c, oh, ow = slices[0].shape
    beside = slices[0] if len(slices) == 1 else concatenate([expand_dims(s, 2) for s in slices], 2)
    return reshape(beside, (n, groups, c // groups * len(slices), oh * ow))


def _convolved(
    x: Node, w: Node, out: tuple[Size, ...], stride: Pair, dilation: Pair, groups: int
) -> Node:
    """Padded images and kernels (o, c / groups, kh, kw)."""
    o, _, *kernel = w.shape
    columns = _columns(_slices(x, out, kernel, stride, dilation), groups)
    kernels = reshape(w, (groups, o // groups, columns.shape[2]))
    return reshape(matmul(kernels, columns), (x.shape[0], o, *out))


def _conv2d(node: Node) -> Node:
    x, w = node.inputs
    if not (_is_known(w.shape[2:], x) and _is_plain(node)):
        return node
    stride, dilation, groups = (node.params[k] for k in ("stride", "dilation", "groups"))
    x = _padded(x, node.params["padding"])
    return _convolved(x, w, node.shape[2:], stride, dilation, groups)


def _is_plain(node: Node) -> bool:
    """Floats, and channels of known numbers."""
    channels = [n.shape[1] for n in (node, *node.inputs)]
    return node.dtype.kind == "f" and all(isinstance(s, int) and s > 0 for s in channels)


def _input_grad(node: Node) -> Node:
    """What a row of the gradient was multiplied with goes back by the same kernels, turned."""
    g, w = node.inputs
    stride, padding, dilation, groups = (
        node.params[k] for k in ("stride", "padding", "dilation", "groups")
    )
    if not (_is_known(w.shape[2:], g, node) and _is_plain(node)):
        return node
    o, c, kh, kw = w.shape
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
    if any(max(p) > r for p, r in zip(padding, reach, strict=True)):
        return node  # some windows see nothing but padding
    size = (node.shape[2] + reach[0], node.shape[3] + reach[1])
    at = (reach[0] - padding[0][0], reach[1] - padding[1][0])
    spread = _placed(g, size, at, stride)
    turned = reshape(w, (groups, o // groups, c, kh, kw))
    turned = flip(swapaxes(turned, 1, 2), (3, 4))
    turned = reshape(turned, (groups * c, o // groups, kh, kw))
    return _convolved(spread, turned, node.shape[2:], (1, 1), dilation, groups)


def _kernel_grad(node: Node) -> Node:
    x, g = node.inputs
    stride, dilation, groups = (node.params[k] for k in ("stride", "dilation", "groups"))
    if not (_is_known(node.params["size"], x, g) and _is_plain(node)):
        return node
    x = _padded(x, node.params["padding"])
    slices = _slices(x, g.shape[2:], node.params["size"], stride, dilation)
    n, o, oh, ow = g.shape
    left = reshape(g, (n, groups, o // groups, oh * ow))
    columns = _columns(slices, groups)
    each = matmul(left, transpose(columns, (0, 1, 3, 2)))
    return reshape(sum_of(each, axis=0), node.shape)


# --------------------------------------------------------------------------------------------
# pooling


def _pool(node: Node, fill: float) -> list[Node]:
    x = _padded(node.inputs[0], node.params["padding"], fill)
    params = (node.params[k] for k in ("kernel", "stride", "dilation"))
    return _slices(x, node.shape[2:], *params)


def _lowest(dtype: np.dtype[Any]) -> float:
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _known_pool(rule: Callable[[Node], Node]) -> Callable[[Node], Node]:
    def checked(node: Node) -> Node:
        known = _is_known(node.params["kernel"], *node.inputs, node)
        return rule(node) if known else node

    return checked


@_known_pool
def _max_pool2d(node: Node) -> Node:
    return reduce(maximum, _pool(node, _lowest(node.dtype)))


@_known_pool
def _sum_pool2d(node: Node) -> Node:
    return reduce(add, _pool(node, 0))


@_known_pool
def _sum_pool2d_grad(node: Node) -> Node:
    """The windows that an element is in are those that begin before it, up to their reach."""
    (g,), params = node.inputs, node.params
    kernel, dilation, padding = params["kernel"], params["dilation"], params["padding"]
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    if any(max(p) > r for p, r in zip(padding, reach, strict=True)):
        return node
    size = (node.shape[2] + reach[0], node.shape[3] + reach[1])
    at = (reach[0] - padding[0][0], reach[1] - padding[1][0])
    spread = _placed(g, size, at, params["stride"])
    return reduce(add, _slices(spread, node.shape[2:], kernel, (1, 1), dilation))


@_known_pool
def _max_pool2d_position(node: Node) -> Node:
    """The first element that is the largest, or a NaN: the last one asked; else -1."""
    x, whole = node.inputs[0], node.params["padding"] == NONE
    slices = _pool(node, _lowest(x.dtype))
    largest = reduce(maximum, slices)
    found = constant(np.int64(-1))
    for part, position, inside in reversed(list(zip(slices, *_positions(node), strict=True))):
        hit = equal(part, largest)
        hit = logical_or(hit, isnan(part)) if x.dtype.kind == "f" else hit
        found = where(hit if whole else hit & inside, position, found)
    return broadcast_to(found, node.shape)


def _positions(node: Node) -> Iterator[list[Node]]:
    """For each element of a window: where it is in the image, and whether it is in it."""
    (_, _, height, width), (_, _, oh, ow) = node.inputs[0].shape, node.shape
    (sh, sw), (dh, dw), ((top, _), (left, _)) = (
        node.params[k] for k in ("stride", "dilation", "padding")
    )
    rows = reshape(iota.make((), {"size": oh}) * sh - top, (oh, 1))
    columns = iota.make((), {"size": ow}) * sw - left
    kernel = node.params["kernel"]
    at = [(rows + i * dh, columns + j * dw) for i in range(kernel[0]) for j in range(kernel[1])]
    yield [r * width + c for r, c in at]
    yield [
        greater_equal(r, 0) & less(r, height) & greater_equal(c, 0) & less(c, width) for r, c in at
    ]


RULES = {
    conv.conv2d: _conv2d, conv.conv2d_input_grad: _input_grad,
    conv.conv2d_kernel_grad: _kernel_grad, pool.max_pool2d: _max_pool2d,
    pool.max_pool2d_position: _max_pool2d_position, pool.sum_pool2d: _sum_pool2d,
    pool.sum_pool2d_grad: _sum_pool2d_grad,
}  # fmt: skip
