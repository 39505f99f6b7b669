"""Two-dimensional convolution, of images in the layout (batch, channels, height, width).

The three operations are the derivatives of one trilinear form, sum(conv2d(x, w) * g), by g, x and
w: each one's gradient is made of the other two, which closes every order of differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import op, promoted
from ..types import Size, TensorType, floordiv, unify
from .elementwise import coerce

Pair: TypeAlias = "tuple[int, int]"  # of height and width
Padding: TypeAlias = "tuple[Pair, Pair]"  # (above, below), (left, right)


# --------------------------------------------------------------------------------------------
# windows, for pooling too


def window_count(size: Size, kernel: Size, stride: int, padding: Pair, dilation: int) -> Size:
    """How many windows fit along an axis; ShapeError if none does."""
    if kernel == 0:
        raise ShapeError("a window of size 0 has no elements")
    free = size + (padding[0] + padding[1]) - (kernel - 1) * dilation - 1
    if isinstance(free, int) and free < 0:
        raise ShapeError(
            f"a window of {(kernel - 1) * dilation + 1} does not fit into a size of {size} with "
            f"padding {padding[0]} and {padding[1]}"
        )
    return floordiv(free, stride) + 1


def pair(value: Any, name: str, least: int) -> Pair:
    """(height, width) from one integer or two, each at least `least`."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(_is_int(v) and v >= least for v in both):
        raise ArgumentError(f"{name} is an int >= {least}, or a pair of them, got {value!r}")
    return int(both[0]), int(both[1])


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def as_padding(value: Any) -> Padding:
    """((above, below), (left, right)) from an int, (height, width), or two pairs."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and not all(map(_is_int, value)):
        high, wide = value
        return pair(high, "padding", 0), pair(wide, "padding", 0)
    high, wide = pair(value, "padding", 0)
    return (high, high), (wide, wide)


def _padding_of_conv(value: Any, kernel: Sequence[Size], stride: Pair, dilation: Pair) -> Padding:
    if value == "valid":
        return (0, 0), (0, 0)
    if value != "same":
        if isinstance(value, str):
            raise ArgumentError(f"padding is 'same', 'valid' or numbers, got {value!r}")
        return as_padding(value)
    if stride != (1, 1):
        raise ArgumentError(f"padding='same' needs stride 1, got {stride}; give numbers")
    if not all(isinstance(k, int) for k in kernel):
        raise ArgumentError(f"padding='same' needs a known kernel, got sizes {list(kernel)}")
    total = [d * (int(k) - 1) for k, d in zip(kernel, dilation, strict=True)]  # type: ignore[arg-type]
    high, wide = ((t // 2, t - t // 2) for t in total)
    return high, wide


# --------------------------------------------------------------------------------------------
# the three operations


@op
def conv2d(
    x: TensorType, w: TensorType, *, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> TensorType:
    """Cross-correlation of images x (n, c, h, w) with kernels w (o, c / groups, kh, kw).

    stride    an int, or (vertical, horizontal)
    padding   zeros around the images: an int, (vertical, horizontal), ((above, below),
              (left, right)), 'valid' (none), or 'same' (as many as keep the size; stride 1 only,
              the odd one below and to the right)
    dilation  distance of the kernel's elements: an int, or (vertical, horizontal)
    groups    how many independent convolutions the channels are divided into
    """
    _check(x, w, "needs images (n, c, h, w) and kernels (o, c / groups, kh, kw)")
    _check_groups(groups, x.shape[1], w.shape[0])
    unify(w.shape[1] * groups, x.shape[1], f"channels of {w} in {groups} group(s) and of {x}:")
    return x.with_shape(
        (x.shape[0], w.shape[0], *_outputs(x, w.shape[2:], stride, padding, dilation))
    )


def _check(a: TensorType, b: TensorType, what: str) -> None:
    if a.dtype != b.dtype or a.is_bool:
        raise DTypeError(f"needs two operands of one dtype other than bool, got {a} and {b}")
    if a.ndim != 4 or b.ndim != 4:
        raise ShapeError(f"{what}, got {a} and {b}")


def _check_groups(groups: int, *channels: Size) -> None:
    for size in channels:
        if isinstance(size, int) and size % groups:
            raise ShapeError(f"{size} channels cannot be divided into {groups} groups")


def _outputs(
    x: TensorType, kernel: Sequence[Size], stride: Pair, padding: Padding, dilation: Pair
) -> list[Size]:
    return [
        window_count(size, k, s, p, d)
        for size, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]


@op
def conv2d_input_grad(
    g: TensorType, w: TensorType, *, size: tuple[Size, Size], stride: Pair, padding: Padding,
    dilation: Pair, groups: int,
) -> TensorType:  # fmt: skip
    """The gradient of conv2d by its images, which have `size` (h, w): a transposed convolution."""
    _check(g, w, "needs a gradient (n, o, h, w) and kernels (o, c / groups, kh, kw)")
    unify(g.shape[1], w.shape[0], f"channels of {g} and kernels of {w}:")
    x = g.with_shape((g.shape[0], w.shape[1] * groups, *size))
    for a, b in zip(g.shape[2:], _outputs(x, w.shape[2:], stride, padding, dilation), strict=True):
        unify(a, b, f"sizes of {g} and of the convolution of {x}:")
    return x


@op
def conv2d_kernel_grad(
    x: TensorType, g: TensorType, *, size: tuple[Size, Size], stride: Pair, padding: Padding,
    dilation: Pair, groups: int,
) -> TensorType:  # fmt: skip
    """The gradient of conv2d by its kernels, which have `size` (kh, kw)."""
    _check(x, g, "needs images (n, c, h, w) and a gradient (n, o, h, w)")
    unify(x.shape[0], g.shape[0], "batch sizes")
    for a, b in zip(g.shape[2:], _outputs(x, size, stride, padding, dilation), strict=True):
        unify(a, b, f"sizes of {g} and of the convolution of {x}:")
    return x.with_shape((g.shape[1], floordiv(x.shape[1], groups), *size))


@conv2d.prepare
def _(
    x: Any, w: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[list[Node], dict[str, Any]]:
    x, w = coerce((x, w), promoted(x, w))
    if x.ndim != 4 or w.ndim != 4:
        raise ShapeError("needs images (n, c, h, w) and kernels (o, c / groups, kh, kw)")
    if not _is_int(groups) or groups < 1:
        raise ArgumentError(f"groups is an int >= 1, got {groups!r}")
    steps, spread = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    return [x, w], {
        "stride": steps,
        "padding": _padding_of_conv(padding, w.shape[2:], steps, spread),
        "dilation": spread,
        "groups": int(groups),
    }


def _input_grad(g: Node, w: Node, x: Node, params: dict[str, Any]) -> Node:
    return conv2d_input_grad.make((g, w), {"size": x.shape[2:], **params})


def _kernel_grad(x: Node, g: Node, w: Node, params: dict[str, Any]) -> Node:
    return conv2d_kernel_grad.make((x, g), {"size": w.shape[2:], **params})


@conv2d.vjp
def _(g: Node, y: Node, x: Node, w: Node, **params: Any) -> Sequence[Node | None]:
    return _input_grad(g, w, x, params), _kernel_grad(x, g, w, params)


@conv2d_input_grad.vjp
def _(
    g: Node, y: Node, out: Node, w: Node, *, size: tuple[Size, Size], **params: Any
) -> Sequence[Node | None]:
    # `out` stands for the result of the convolution, `g` for its images
    return conv2d.make((g, w), params), _kernel_grad(g, out, w, params)


@conv2d_kernel_grad.vjp
def _(
    g: Node, y: Node, x: Node, out: Node, *, size: tuple[Size, Size], **params: Any
) -> Sequence[Node | None]:
    return _input_grad(out, g, x, params), conv2d.make((x, g), params)
