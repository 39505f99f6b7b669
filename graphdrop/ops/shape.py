"""Operations that change shape and leave values alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..graph import Node
from ..op import as_node, composed, op
from ..types import (
    Shape,
    Size,
    TensorType,
    broadcast_sizes,
    floordiv,
    normalize_axes,
    normalize_axis,
    num_elements,
    unify,
)
from .leaf import as_shape


@op(view=True)
def reshape(x: TensorType, *, shape: Shape) -> TensorType:
    """The same elements in C order under another shape; one size may be -1."""
    try:
        unify(num_elements(x.shape), num_elements(shape))
    except ShapeError:
        raise ShapeError(
            f"{x} has {num_elements(x.shape)} elements, shape {list(shape)} has "
            f"{num_elements(shape)}"
        ) from None
    return x.with_shape(shape)


@reshape.prepare
def _(x: Any, *shape: Any) -> tuple[list[Node], dict[str, Any]]:
    node = as_node(x)
    sizes = shape[0] if len(shape) == 1 else shape
    return [node], {"shape": _fill_minus_one(node.shape, sizes)}


def _fill_minus_one(old: Shape, sizes: Any) -> Shape:
    wanted = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes]
    free = [i for i, s in enumerate(wanted) if isinstance(s, (int, np.integer)) and s == -1]
    if len(free) > 1:
        raise ShapeError(f"only one size may be -1, got {wanted}")
    if not free:
        return as_shape(wanted)
    wanted[free[0]] = 1
    known = num_elements(as_shape(wanted))
    if known == 0:
        raise ShapeError(f"-1 is ambiguous beside a size of 0 in {sizes}")
    total = num_elements(old)
    if isinstance(total, int) and isinstance(known, int) and total % known:
        raise ShapeError(f"{total} elements do not divide by the {known} of {list(sizes)}")
    wanted[free[0]] = floordiv(total, known)
    return as_shape(wanted)


@reshape.vjp
def _(g: Node, y: Node, x: Node, *, shape: Shape) -> Sequence[Node | None]:
    return (reshape(g, x.shape),)


@op(view=True)
def transpose(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    """Axes in another order, reversed by default; axis i of the result is axes[i] of x."""
    return x.with_shape([x.shape[a] for a in axes])


@transpose.prepare
def _(x: Any, *axes: Any) -> tuple[list[Node], dict[str, Any]]:
    node = as_node(x)
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
    if order is None:
        return [node], {"axes": tuple(reversed(range(node.ndim)))}
    found = tuple(normalize_axis(a, node.ndim) for a in order)
    if sorted(found) != list(range(node.ndim)):
        raise ShapeError(f"axes {tuple(order)} are not an order of {node.ndim} axes")
    return [node], {"axes": found}


@transpose.vjp
def _(g: Node, y: Node, x: Node, *, axes: tuple[int, ...]) -> Sequence[Node | None]:
    return (transpose(g, tuple(axes.index(i) for i in range(len(axes)))),)


@op(view=True)
def broadcast_to(x: TensorType, *, shape: Shape) -> TensorType:
    """x stretched to a shape along new leading axes and axes of size 1."""
    if len(shape) < x.ndim:
        raise ShapeError(f"{x} has more axes than shape {list(shape)}")
    lead = len(shape) - x.ndim
    for axis, size in enumerate(x.shape):
        if broadcast_sizes(size, shape[lead + axis]) != shape[lead + axis] and size == 1:
            raise ShapeError(f"{x} does not broadcast to {list(shape)}")
    return x.with_shape(shape)


@broadcast_to.prepare
def _(x: Any, shape: Any) -> tuple[list[Node], dict[str, Any]]:
    return [as_node(x)], {"shape": as_shape(shape)}


@op(view=True)
def specify_shape(x: TensorType, *, shape: Shape) -> TensorType:
    """x, whose sizes must be these: an error now if they cannot be, at the call if they are not.

    A size None is left as it is.
    """
    if len(shape) != x.ndim:
        raise ShapeError(f"{x} does not have the {len(shape)} axes of {list(shape)}")
    for axis, (size, wanted) in enumerate(zip(x.shape, shape, strict=True)):
        unify(size, wanted, f"axis {axis} of {x}: sizes")
    return x.with_shape(shape)


@specify_shape.prepare
def _(x: Any, shape: Any) -> tuple[list[Node], dict[str, Any]]:
    node, sizes = as_node(x), list(shape) if isinstance(shape, (tuple, list)) else [shape]
    if len(sizes) == node.ndim:
        sizes = [s if w is None else w for w, s in zip(sizes, node.shape, strict=True)]
    return [node], {"shape": as_shape(sizes)}


@specify_shape.vjp
def _(g: Node, y: Node, x: Node, *, shape: Shape) -> Sequence[Node | None]:
    return (g,)


# composed of the above ------------------------------------------------------------------------
@composed
def expand_dims(x: Any, axis: int | Sequence[int]) -> Node:
    """x with axes of size 1 inserted, at positions counted in the result."""
    node = as_node(x)
    axes = [axis] if isinstance(axis, int) else list(axis)
    new = normalize_axes(axes, node.ndim + len(axes))
    old = iter(node.shape)
    return reshape(node, tuple(1 if i in new else next(old) for i in range(node.ndim + len(new))))


@composed
def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Node:
    """x without axes of size 1: the given ones, or all that are known to be 1."""
    node = as_node(x)
    if axis is None:
        axes: tuple[int, ...] = tuple(i for i, s in enumerate(node.shape) if s == 1)
    else:
        axes = normalize_axes(axis, node.ndim)
        for a in axes:
            unify(node.shape[a], 1, f"squeezed axis {a} of {node!r}: sizes")
    kept: list[Size] = [s for i, s in enumerate(node.shape) if i not in axes]
    return reshape(node, tuple(kept))


def ravel(x: Any) -> Node:
    """x as a vector, in C order."""
    return reshape(x, (-1,))


@composed
def flatten(x: Any, ndim: int = 1) -> Node:
    """x with its last axes merged so that `ndim` remain: a vector by default (Theano's flatten)."""
    node = as_node(x)
    if not isinstance(ndim, int) or not 1 <= ndim <= max(node.ndim, 1):
        raise ShapeError(f"{node.type} cannot be flattened to {ndim!r} axes")
    kept = node.shape[: ndim - 1]
    return reshape(node, (*kept, num_elements(node.shape[ndim - 1 :])))


@composed
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Node:
    """x with the source axes moved to the destination places; the others keep their order."""
    node = as_node(x)
    old, new = (
        [normalize_axis(a, node.ndim) for a in (axes if isinstance(axes, Iterable) else [axes])]
        for axes in (source, destination)
    )
    if len(old) != len(new) or len(set(old)) != len(old) or len(set(new)) != len(new):
        raise ShapeError(f"axes {source} and {destination} must be as many, and each named once")
    order = [a for a in range(node.ndim) if a not in old]
    for place, axis in sorted(zip(new, old, strict=True)):
        order.insert(place, axis)
    return transpose(node, order)


@composed
def swapaxes(x: Any, axis1: int, axis2: int) -> Node:
    """x with two axes exchanged."""
    node = as_node(x)
    a, b = normalize_axis(axis1, node.ndim), normalize_axis(axis2, node.ndim)
    order = list(range(node.ndim))
    order[a], order[b] = b, a
    return transpose(node, order)


def swap_last(x: Node) -> Node:
    """The transpose of a matrix, or of every matrix of a batch."""
    order = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return transpose(x, order)
