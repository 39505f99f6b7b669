"""Products of matrices, and what is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, composed, op, promoted, split
from ..types import (
    Shape,
    TensorType,
    TupleType,
    broadcast_shapes,
    normalize_axis,
    num_elements,
    unify,
)
from .create import tril
from .elementwise import coerce, mul
from .gather import diagonal
from .reduce import sum, sum_to
from .shape import expand_dims, reshape, specify_shape, swap_last, transpose


@op(name="matmul")
def _matmul(a: TensorType, b: TensorType) -> TensorType:
    """Matrix product of (..., n, k) and (..., k, m); leading axes broadcast."""
    if a.ndim < 2 or b.ndim < 2 or a.dtype != b.dtype:
        raise ShapeError(f"needs two operands of one dtype with at least 2 axes, got {a} and {b}")
    unify(
        a.shape[-1],
        b.shape[-2],
        "columns of the left and rows of the right must agree: inner sizes",
    )
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.with_shape((*batch, a.shape[-2], b.shape[-1]))


@_matmul.vjp
def _(g: Node, y: Node, a: Node, b: Node) -> Sequence[Node | None]:
    return sum_to(matmul(g, swap_last(b)), a.shape), sum_to(matmul(swap_last(a), g), b.shape)


@composed
def matmul(a: Any, b: Any) -> Node:
    """NumPy's `a @ b`: (..., n, k) with (..., k, m); a 1-d operand is a row or a column."""
    a, b = as_node(a), as_node(b)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul does not take scalars ({a!r}, {b!r}); use *")
    left, right = coerce((a, b), promoted(a, b))
    if b.ndim == 1:
        right = reshape(right, (b.shape[0], 1))
    rows: Shape = a.shape[:-1] if a.ndim > 1 else ()
    if a.ndim == 1 or (a.ndim > 2 and right.ndim == 2):
        # a batch times one matrix is one product, and so are its gradients
        left = reshape(left, (num_elements(rows), a.shape[-1]))
    y: Node = _matmul(left, right)
    batch: Shape = right.shape[:-2] if a.ndim == 1 else y.shape[:-2] + y.shape[-2:-1]
    if a.ndim > 2 and right.ndim == 2:
        batch = rows
    columns: Shape = b.shape[-1:] if b.ndim > 1 else ()
    return reshape(y, (*batch, *columns)) if (*batch, *columns) != y.shape else y


@composed
def dot(a: Any, b: Any) -> Node:
    """NumPy's dot: over the last axis of a and the last but one (or only) axis of b."""
    a, b = as_node(a), as_node(b)
    if not a.ndim or not b.ndim:
        return mul(a, b)
    return tensordot(a, b, axes=((-1,), (-2 if b.ndim > 1 else -1,)))


@composed
def tensordot(a: Any, b: Any, axes: Any = 2) -> Node:
    """The sum of products over pairs of axes; what is left of a, then of b.

    axes  a number: the last ones of a with the first ones of b; or (axes of a, axes of b)
    """
    a, b = coerce((a, b), promoted(a, b))
    over_a, over_b = _paired_axes(a, b, axes)
    shape = list(b.shape)
    for i, j in zip(over_a, over_b, strict=True):
        shape[j] = unify(a.shape[i], b.shape[j], f"axis {i} of a and axis {j} of b: sizes")
    if tuple(shape) != b.shape:  # each must be checked at the call, not only their product
        b = specify_shape(b, tuple(shape))
    kept_a = [i for i in range(a.ndim) if i not in over_a]
    kept_b = [i for i in range(b.ndim) if i not in over_b]
    shape_a = tuple(a.shape[i] for i in kept_a)
    shape_b = tuple(b.shape[i] for i in kept_b)
    inner = num_elements(tuple(a.shape[i] for i in over_a))
    left = reshape(transpose(a, (*kept_a, *over_a)), (num_elements(shape_a), inner))
    right = reshape(transpose(b, (*over_b, *kept_b)), (inner, num_elements(shape_b)))
    return reshape(_matmul(left, right), shape_a + shape_b)


def _paired_axes(a: Node, b: Node, axes: Any) -> tuple[list[int], list[int]]:
    if isinstance(axes, (int, np.integer)) and not isinstance(axes, bool):
        count = int(axes)
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot over {count} axes of {a!r} and {b!r}, which have fewer")
        return list(range(a.ndim - count, a.ndim)), list(range(count))
    if not isinstance(axes, (tuple, list)) or len(axes) != 2:
        raise ArgumentError(f"axes is a number or a pair (axes of a, axes of b), got {axes!r}")
    over_a, over_b = (
        [
            normalize_axis(i, x.ndim)
            for i in (given if isinstance(given, (tuple, list)) else [given])
        ]
        for given, x in zip(axes, (a, b), strict=True)
    )
    if len(over_a) != len(over_b) or any(len(set(s)) != len(s) for s in (over_a, over_b)):
        raise ArgumentError(f"axes must pair distinct axes of a and of b, got {axes!r}")
    return over_a, over_b


@composed
def outer(a: Any, b: Any) -> Node:
    """The products of every element of a with every element of b; both are flattened."""
    a, b = as_node(a), as_node(b)
    return mul(reshape(a, (a.size, 1)), reshape(b, (1, b.size)))


@composed
def inner(a: Any, b: Any) -> Node:
    """The sum of products over the last axes."""
    a, b = as_node(a), as_node(b)
    return tensordot(a, b, axes=((-1,), (-1,))) if a.ndim and b.ndim else mul(a, b)


@composed
def vdot(a: Any, b: Any) -> Node:
    """The sum of products of all elements in C order, a scalar."""
    a, b = as_node(a), as_node(b)
    return matmul(reshape(a, (a.size,)), reshape(b, (b.size,)))


@composed
def kron(a: Any, b: Any) -> Node:
    """The Kronecker product: every element of a times all of b."""
    a, b = as_node(a), as_node(b)
    ndim = max(a.ndim, b.ndim)
    a, b = (reshape(x, (1,) * (ndim - x.ndim) + x.shape) for x in (a, b))
    spread = mul(
        expand_dims(a, [2 * i + 1 for i in range(ndim)]),
        expand_dims(b, [2 * i for i in range(ndim)]),
    )
    return reshape(spread, tuple(m * n for m, n in zip(a.shape, b.shape, strict=True)))


@composed
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The sum of the diagonal of the matrices in two axes."""
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


# decompositions: library calls ------------------------------------------------------------------
def _square(a: TensorType) -> None:
    if a.dtype not in (np.float32, np.float64):
        raise DTypeError(f"takes float32 or float64 (LAPACK has no others), got {a}; cast it first")
    if a.ndim < 2:
        raise ShapeError(f"takes matrices, got {a}")
    unify(a.shape[-2], a.shape[-1], f"{a} is not square: sizes")


def _lapack(*values: Any) -> list[Node]:
    dtype = promoted(*values)
    return coerce(values, dtype if dtype.kind == "f" else np.dtype(np.float64))


def _prepare(a: Any) -> tuple[list[Node], dict[str, Any]]:
    return _lapack(a), {}


@op(name="solve")
def _solve(a: TensorType, b: TensorType) -> TensorType:
    """The x of a @ x = b for square matrices a (..., n, n) and b (..., n, m)."""
    _square(a)
    if b.ndim < 2 or a.dtype != b.dtype:
        raise ShapeError(f"needs two operands of one dtype with at least 2 axes, got {a} and {b}")
    unify(a.shape[-1], b.shape[-2], "numbers of rows")
    return b.with_shape((*broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:]))


@_solve.vjp
def _(g: Node, y: Node, a: Node, b: Node) -> Sequence[Node | None]:
    gb = _solve(swap_last(a), g)
    return sum_to(-matmul(gb, swap_last(y)), a.shape), sum_to(gb, b.shape)


@composed
def solve(a: Any, b: Any) -> Node:
    """The x of a @ x = b, by LU: a (..., n, n); b (n,), or matrices (..., n, m).

    A singular matrix is a LinAlgError at the call.
    """
    left, right = _lapack(a, b)
    if right.ndim != 1:
        return _solve(left, right)
    y = _solve(left, reshape(right, (*right.shape, 1)))
    return reshape(y, y.shape[:-1])


@op
def inv(a: TensorType) -> TensorType:
    """The inverse of a matrix, or of each of a batch; LinAlgError at the call if one has none."""
    _square(a)
    return a


@inv.vjp
def _(g: Node, y: Node, a: Node) -> Sequence[Node | None]:
    t = swap_last(y)
    return (-matmul(matmul(t, g), t),)


@op
def det(a: TensorType) -> TensorType:
    """The determinant of a matrix, or of each of a batch.

    The gradient holds for singular matrices too; the second one does not (LinAlgError).
    """
    _square(a)
    return a.with_shape(a.shape[:-2])


@det.vjp
def _(g: Node, y: Node, a: Node) -> Sequence[Node | None]:
    return (_as_matrix(g) * cofactor(a),)


@op
def cofactor(a: TensorType) -> TensorType:
    """The cofactor matrix, d det(a) / da: det(a) * inv(a).T, but exists for singular a too."""
    _square(a)
    return a


@cofactor.vjp
def _(g: Node, y: Node, a: Node) -> Sequence[Node | None]:
    t = swap_last(inv(a))
    weight = sum(g * y, axis=(-2, -1), keepdims=True)
    return (weight * t - matmul(y, matmul(swap_last(g), t)),)


def _as_matrix(x: Node) -> Node:
    return expand_dims(x, (-2, -1))


@op(name="slogdet")
def _slogdet(a: TensorType) -> TupleType:
    """The sign of the determinant and the logarithm of its absolute value."""
    _square(a)
    kept = a.with_shape(a.shape[:-2])
    return TupleType((kept, kept))


@_slogdet.vjp
def _(g: Sequence[Node | None], y: Sequence[Node], a: Node) -> Sequence[Node | None]:
    return (None if g[1] is None else _as_matrix(g[1]) * swap_last(inv(a)),)


@composed
def slogdet(a: Any) -> tuple[Node, Node]:
    """(sign, log|det|) of a matrix, or of each of a batch: (0, -inf) if singular."""
    sign, logarithm = split(_slogdet(a))
    return sign, logarithm


@op
def cholesky(a: TensorType) -> TensorType:
    """The lower triangular L with a = L @ L.T, for symmetric positive definite matrices.

    Only the lower triangle of `a` is read; the gradient is symmetric.  A matrix that is not
    positive definite is a LinAlgError at the call.
    """
    _square(a)
    return a


@cholesky.vjp
def _(g: Node, y: Node, a: Node) -> Sequence[Node | None]:
    # Murray 2016, "Differentiation of the Cholesky decomposition", eq. 10
    t = swap_last(y)
    product = matmul(t, g)
    half = 0.5 * (tril(product) + tril(product, -1))
    inside = _solve(t, swap_last(_solve(t, swap_last(half))))
    return (0.5 * (inside + swap_last(inside)),)


for _op in (inv, det, cofactor, _slogdet, cholesky):
    _op.prepare(_prepare)
