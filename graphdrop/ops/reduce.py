"""Reductions over any axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import Node
from ..op import Op, VjpRule, as_node, composed, promoted
from ..types import (
    Shape,
    Size,
    TensorType,
    max_size,
    normalize_axes,
    normalize_axis,
    num_elements,
)
from .elementwise import (
    abs,
    cast,
    equal,
    exp,
    float_of,
    pow,
    same,
    sqrt,
    square,
    stop_gradient,
    to_bool,
    where,
)
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
    name: str,
    *,
    vjp: VjpRule | None = None,
    operands: DTypeRule = same,
    result: DTypeRule = same,
    empty: bool = True,
    doc: str = "",
) -> Op:
    """Declare a reduction with params `axis` (sorted tuple) and `keepdims`.

    `vjp(g, y, x)` sees g and y with the reduced axes kept as size 1.  `operands` maps the dtype to
    the one the operand is cast to; `empty` says whether nothing has a reduced value.
    """

    def rule(x: TensorType, *, axis: tuple[int, ...], keepdims: bool) -> TensorType:
        shape = kept_shape(x.shape, axis, keepdims)
        if not empty and num_elements(x.shape) == 0 and num_elements(shape) != 0:
            raise ShapeError(f"{x} has no elements along axis {axis}, and nothing has no {name}")
        return TensorType(result(x.dtype), shape)

    def prepare(
        x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False
    ) -> tuple[list[Node], dict[str, Any]]:
        node = cast(x, operands(promoted(x)))
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
prod: Op = reduction(
    "prod",
    result=sum_of,
    doc="The product; 1 if empty.  The gradient is exact where factors are 0.",
)  # its gradient is in cumulative.py
max: Op = reduction(
    "max",
    vjp=_extreme_vjp,
    empty=False,
    doc="The largest; NaN if one is.  Ties share the gradient equally.",
)
min: Op = reduction(
    "min",
    vjp=_extreme_vjp,
    empty=False,
    doc="The smallest; NaN if one is.  Ties share the gradient equally.",
)
row_max: Op = reduction(
    "row_max", doc="The largest number; the least that there is, -infinity for floats, if empty."
)
any: Op = reduction("any", result=to_bool, vjp=lambda g, y, x: (None,), doc="Whether one is true.")
all: Op = reduction(
    "all", result=to_bool, vjp=lambda g, y, x: (None,), doc="Whether none is false."
)
logsumexp: Op = reduction(
    "logsumexp",
    operands=float_of,
    vjp=lambda g, y, x: (g * exp(x - where(equal(y, -np.inf), 0, y)),),
    doc="log(sum(exp(x))) without overflow; -inf, with gradient 0, where all are -inf or none is.",
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


def _accurate(x: Any) -> tuple[Node, np.dtype[Any]]:
    """x in the dtype in which NumPy averages it, and the dtype of the average."""
    node = as_node(x)
    if not node.tensor_type.is_float:
        return cast(node, np.float64), np.dtype(np.float64)
    # a sum of float16 overflows at 65504
    return (cast(node, np.float32) if node.dtype == np.float16 else node), node.dtype


@composed
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Node:
    """The mean; integers give float64, NaN if empty, as in NumPy."""
    node, dtype = _accurate(x)
    return cast(sum(node, axis=axis, keepdims=keepdims) / count(node, axis), dtype)


@composed
def var(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Node:
    """The sum of squared distances from the mean over count - ddof; integers give float64."""
    if isinstance(ddof, bool) or not isinstance(ddof, (int, np.integer)):
        raise ArgumentError(f"ddof must be an int, got {ddof!r}")
    node, dtype = _accurate(x)
    total = sum(square(node - mean(node, axis, True)), axis=axis, keepdims=keepdims)
    return cast(total / max_size(count(node, axis) - int(ddof), 0), dtype)


@composed
def std(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Node:
    """The square root of `var`; where that is 0, so is the gradient."""
    node, dtype = _accurate(x)
    return cast(_sqrt(var(node, axis, ddof, keepdims)), dtype)


def _sqrt(x: Node) -> Node:
    """sqrt(x) with gradient 0, not infinity, at 0."""
    zero = equal(x, 0)
    return where(zero, 0, sqrt(where(zero, 1, x)))


# positions ------------------------------------------------------------------------------------
def _position(name: str, what: str) -> Op:
    """Declare argmax or argmin."""

    def rule(x: TensorType, *, axis: int | None, keepdims: bool) -> TensorType:
        axes = normalize_axes(axis, x.ndim)
        if any_empty(x.shape, axes):
            raise ShapeError(f"{x} has no elements along axis {axis}, so there is no {what}")
        return TensorType(np.dtype(np.int64), kept_shape(x.shape, axes, keepdims))

    def prepare(
        x: Any, axis: int | None = None, keepdims: bool = False
    ) -> tuple[list[Node], dict[str, Any]]:
        node = as_node(x)
        found = None if axis is None else normalize_axis(axis, node.ndim)
        return [node], {"axis": found, "keepdims": bool(keepdims)}

    rule.__doc__ = (
        f"The position of the {what}, the first of equals; of the first NaN if there is one.\n\n"
        f"Over one axis, or over all elements in C order (axis=None)."
    )
    made = Op(name, rule)
    made.prepare(prepare)
    made.vjp(lambda g, y, x, *, axis, keepdims: (None,))
    return made


def any_empty(shape: Shape, axes: Sequence[int]) -> bool:
    """Whether one of these axes is known to have size 0."""
    return 0 in [shape[a] for a in axes]


argmax: Op = _position("argmax", "largest")
argmin: Op = _position("argmin", "smallest")


# norms ----------------------------------------------------------------------------------------
@composed
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Node:
    """The norm of vectors or matrices, as numpy.linalg.norm; integers give float64.

    ord   None: root of the sum of squares, over any axes.  Of vectors (one axis): a number p gives
          sum(|x|**p)**(1/p), inf the largest |x|, -inf the smallest, 0 how many are not 0.
          Of matrices (two axes): 'fro', 1 (largest column sum of |x|), inf (largest row sum),
          -1 and -inf (smallest).
    axis  one axis, a pair (rows, columns), or None: all (given ord, x must have one or two axes)

    Where the norm is 0, so is the gradient.
    """
    node = as_node(x)
    node = node if node.tensor_type.is_float else cast(node, np.float64)
    if ord is None:
        return _sqrt(sum(square(node), axis=axis, keepdims=keepdims))
    axes = range(node.ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = [normalize_axis(a, node.ndim) for a in axes]
    if len(axes) == 1:
        return _vector_norm(node, ord, axes[0], keepdims)
    if len(axes) == 2 and axes[0] != axes[1]:
        return _matrix_norm(node, ord, (axes[0], axes[1]), keepdims)
    raise ArgumentError(f"norm with ord={ord!r} needs one axis or two, got axis={axis} of {node!r}")


def _vector_norm(x: Node, ord: Any, axis: int, keepdims: bool) -> Node:
    if isinstance(ord, bool) or not isinstance(ord, (int, float, np.number)):
        raise ArgumentError(f"the ord of a vector norm is a number, got {ord!r}")
    size, p = abs(x), float(ord)
    if p == np.inf:
        return max(size, axis=axis, keepdims=keepdims)
    if p == -np.inf:
        return min(size, axis=axis, keepdims=keepdims)
    if p == 0:
        return cast(sum(cast(size, bool), axis=axis, keepdims=keepdims), x.dtype)
    if p == 1:
        return sum(size, axis=axis, keepdims=keepdims)
    if p == 2:
        return _sqrt(sum(square(x), axis=axis, keepdims=keepdims))
    if np.isnan(p):
        raise ArgumentError("the ord of a norm cannot be NaN")
    total = sum(pow(size, p), axis=axis, keepdims=keepdims)
    zero = equal(total, 0)
    return where(zero, pow(stop_gradient(total), 1 / p), pow(where(zero, 1, total), 1 / p))


def _matrix_norm(x: Node, ord: Any, axes: tuple[int, int], keepdims: bool) -> Node:
    if ord == "fro":
        return _sqrt(sum(square(x), axis=axes, keepdims=keepdims))
    rows, columns = axes
    along = {1: rows, -1: rows, np.inf: columns, -np.inf: columns}
    inner = along.get(ord) if isinstance(ord, (int, float)) else None
    if inner is None:
        raise ArgumentError(
            f"the ord of a matrix norm is 'fro', 1, -1, inf or -inf, got {ord!r}; norms of "
            f"singular values are not available, nor is one of matrices as vectors: flatten them"
        )
    totals = sum(abs(x), axis=inner, keepdims=True)
    largest = (max if ord > 0 else min)(totals, axis=axes, keepdims=True)
    return largest if keepdims else reshape(largest, kept_shape(x.shape, axes, False))
