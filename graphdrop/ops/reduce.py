"""Reductions over any axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Node
from ..op import Op, VjpRule, as_node
from ..types import Shape, Size, TensorType, normalize_axes, num_elements
from .elementwise import cast, equal, same, to_bool
from .shape import broadcast_to, reshape

DTypeRule = Callable[[np.dtype[Any]], np.dtype[Any]]


def sum_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which NumPy adds up: small integers in 64 bits."""
    if dtype.kind in "bi":
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if dtype.kind == "u" else dtype


def kept_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """What reducing over `axes` leaves of a shape."""
    if keepdims:
        return tuple(1 if i in axes else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axes)


def restore_axes(g: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduced value with its axes back as size 1, to broadcast against the operand."""
    return reshape(g, kept_shape(shape, axes, True))


def reduction(
    name: str, *, vjp: VjpRule | None = None, result: DTypeRule = same, doc: str = ""
) -> Op:
    """Declare a reduction with params `axis` (sorted tuple) and `keepdims`.

    `vjp(g, y, x)` sees g and y with the reduced axes kept as size 1.
    """

    def rule(x: TensorType, *, axis: tuple[int, ...], keepdims: bool) -> TensorType:
        return TensorType(result(x.dtype), kept_shape(x.shape, axis, keepdims))

    def prepare(
        x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False
    ) -> tuple[list[Node], dict[str, Any]]:
        node = as_node(x)
        return [node], {"axis": normalize_axes(axis, node.ndim), "keepdims": bool(keepdims)}

    def kept_vjp(
        g: Node, y: Node, x: Node, *, axis: tuple[int, ...], keepdims: bool
    ) -> Sequence[Node | None]:
        assert vjp is not None
        return vjp(restore_axes(g, x.shape, axis), restore_axes(y, x.shape, axis), x)

    rule.__doc__ = doc
    made = Op(name, rule)
    made.prepare(prepare)
    if vjp is not None:
        made.vjp(kept_vjp)
    return made


def _extreme_vjp(g: Node, y: Node, x: Node) -> Sequence[Node | None]:
    # ties share the gradient equally, which keeps the sum of the weights 1
    hit = cast(equal(x, y), x.dtype)
    axes = tuple(i for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b)
    return (g * hit / sum(hit, axis=axes, keepdims=True),)


sum: Op = reduction(
    "sum",
    result=sum_of,
    vjp=lambda g, y, x: (broadcast_to(g, x.shape),),
    doc="The sum; 0 if empty.",
)
max: Op = reduction("max", vjp=_extreme_vjp, doc="The largest; ties share the gradient equally.")
min: Op = reduction("min", vjp=_extreme_vjp, doc="The smallest; ties share the gradient equally.")
any: Op = reduction("any", result=to_bool, vjp=lambda g, y, x: (None,), doc="Whether one is true.")
all: Op = reduction(
    "all", result=to_bool, vjp=lambda g, y, x: (None,), doc="Whether none is false."
)


def sum_to(x: Node, shape: Shape) -> Node:
    """x summed over the axes along which `shape` was broadcast to x's shape."""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes: list[int] = list(range(lead))
    for i, size in enumerate(shape):
        if size == 1 and x.shape[lead + i] != 1:
            axes.append(lead + i)
    return reshape(sum(x, axis=axes), shape) if axes else reshape(x, shape)


@broadcast_to.vjp
def _(g: Node, y: Node, x: Node, *, shape: Shape) -> Sequence[Node | None]:
    return (sum_to(g, x.shape),)


def count(x: Node, axis: Any) -> Size:
    """How many elements one reduced value comes from."""
    axes = normalize_axes(axis, x.ndim)
    return num_elements(tuple(x.shape[a] for a in axes))


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Node:
    """The mean; integers give float64, as in NumPy."""
    node = as_node(x)
    node = node if node.tensor_type.is_float else cast(node, np.float64)
    return sum(node, axis=axis, keepdims=keepdims) / count(node, axis)
