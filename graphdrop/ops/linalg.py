"""Products of matrices, and what is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, op, promoted
from ..types import TensorType, broadcast_shapes, unify
from .elementwise import coerce
from .reduce import sum_to
from .shape import reshape, swap_last


@op(name="matmul")
def _matmul(a: TensorType, b: TensorType) -> TensorType:
    """Matrix product of (..., n, k) and (..., k, m); leading axes broadcast."""
    if a.ndim < 2 or b.ndim < 2 or a.dtype != b.dtype:
        raise ShapeError(f"needs two operands of one dtype with at least 2 axes, got {a} and {b}")
    if a.is_bool:
        raise DTypeError("does not take bools; cast them first")
    unify(a.shape[-1], b.shape[-2], "inner sizes")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.with_shape((*batch, a.shape[-2], b.shape[-1]))


@_matmul.vjp
def _(g: Node, y: Node, a: Node, b: Node) -> Sequence[Node | None]:
    return sum_to(matmul(g, swap_last(b)), a.shape), sum_to(matmul(swap_last(a), g), b.shape)


def matmul(a: Any, b: Any) -> Node:
    """NumPy's `a @ b`: (..., n, k) with (..., k, m); a 1-d operand is a row or a column."""
    a, b = as_node(a), as_node(b)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul does not take scalars ({a!r}, {b!r}); use *")
    left, right = coerce((a, b), promoted(a, b))
    if a.ndim == 1:
        left = reshape(left, (1, a.shape[0]))
    if b.ndim == 1:
        right = reshape(right, (b.shape[0], 1))
    y: Node = _matmul(left, right)
    shape = list(y.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return y if len(shape) == y.ndim else reshape(y, tuple(shape))
