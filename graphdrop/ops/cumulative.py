"""Running sums and products, and the gradient of products.

A product is differentiated without dividing by its factors, so that factors of 0 are exact at every
order.  What makes that possible in linear time is `linear_recurrence`, whose gradient is itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, op
from ..types import TensorType, normalize_axis, num_elements, unify
from .reduce import kept_shape, prod, restore_axes, sum_of
from .shape import reshape, transpose


def _prepare(x: Any, axis: int | None = None, **params: bool) -> tuple[list[Node], dict[str, Any]]:
    node = as_node(x)
    if axis is None:
        node, axis = reshape(node, (num_elements(node.shape),)), 0
    return [node], {
        "axis": normalize_axis(axis, node.ndim), **{k: bool(v) for k, v in params.items()}
    }  # fmt: skip


@op
def cumsum(x: TensorType, *, axis: int, reverse: bool = False) -> TensorType:
    """Running sums along an axis, from its end if `reverse`; axis=None flattens first."""
    return x.with_dtype(sum_of(x.dtype))


@cumsum.vjp
def _(g: Node, y: Node, x: Node, *, axis: int, reverse: bool) -> Sequence[Node | None]:
    return (cumsum(g, axis, reverse=not reverse),)


@op
def cumprod(
    x: TensorType, *, axis: int, exclusive: bool = False, reverse: bool = False
) -> TensorType:
    """Running products along an axis, from its end if `reverse`; axis=None flattens first.

    exclusive  each product leaves out its own element, so that the first is 1
    """
    return x.with_dtype(sum_of(x.dtype))


@cumprod.vjp
def _(
    g: Node, y: Node, x: Node, *, axis: int, exclusive: bool, reverse: bool
) -> Sequence[Node | None]:
    # d y[i] / d x[k] = (product before k) * (product after k up to i)
    before = y if exclusive else cumprod(x, axis, exclusive=True, reverse=reverse)
    after = linear_recurrence(x, g if exclusive else g * x, axis=axis, reverse=not reverse)
    return (before * (after if exclusive else g + after),)


cumsum.prepare(_prepare)
cumprod.prepare(_prepare)


@op
def linear_recurrence(a: TensorType, b: TensorType, *, axis: int, reverse: bool) -> TensorType:
    """z with z[0] = 0 and z[k + 1] = a[k] * z[k] + b[k] along an axis, or from its end.

    a and b have one shape.
    """
    if a.dtype != b.dtype or not a.is_float:
        raise DTypeError(f"needs floats of one dtype, got {a} and {b}")
    if a.ndim != b.ndim:
        raise ShapeError(f"needs operands of one shape, got {a} and {b}")
    return a.with_shape([unify(m, n) for m, n in zip(a.shape, b.shape, strict=True)])


@linear_recurrence.vjp
def _(g: Node, z: Node, a: Node, b: Node, *, axis: int, reverse: bool) -> Sequence[Node | None]:
    w = linear_recurrence(a, g, axis=axis, reverse=not reverse)
    return w * z, w


@prod.vjp
def _(g: Node, y: Node, x: Node, *, axis: tuple[int, ...], keepdims: bool) -> Sequence[Node | None]:
    kept = [i for i in range(x.ndim) if i not in axis]
    order = (*kept, *axis)
    moved = transpose(x, order)
    count = num_elements(tuple(x.shape[a] for a in axis))
    flat = reshape(moved, (*kept_shape(x.shape, axis, False), count))
    left = cumprod(flat, -1, exclusive=True)
    right = cumprod(flat, -1, exclusive=True, reverse=True)
    others = reshape(left * right, moved.shape)
    back = transpose(others, tuple(order.index(i) for i in range(x.ndim)))
    return (restore_axes(g, x.shape, axis) * back,)
