"""Softmax and its logarithm: operations of their own, so that a backend makes one row kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DTypeError
from ..graph import Node
from ..op import op, promoted
from ..types import TensorType, normalize_axis
from .elementwise import cast, exp, float_of
from .reduce import sum


@op
def softmax(x: TensorType, *, axis: int) -> TensorType:
    """exp(x) / sum(exp(x)) along one axis (the last by default), without overflow.

    NaN where all elements are -inf.
    """
    return _float(x)


@softmax.vjp
def _(g: Node, y: Node, x: Node, *, axis: int) -> Sequence[Node | None]:
    return (y * (g - sum(g * y, axis=axis, keepdims=True)),)


@op
def log_softmax(x: TensorType, *, axis: int) -> TensorType:
    """x - logsumexp(x) along one axis (the last by default)."""
    return _float(x)


@log_softmax.vjp
def _(g: Node, y: Node, x: Node, *, axis: int) -> Sequence[Node | None]:
    return (g - exp(y) * sum(g, axis=axis, keepdims=True),)


def _float(x: TensorType) -> TensorType:
    if not x.is_float:
        raise DTypeError(f"needs floats, got {x}")
    return x


@softmax.prepare
@log_softmax.prepare
def _prepare(x: Any, axis: int = -1) -> tuple[list[Node], dict[str, Any]]:
    node = cast(x, float_of(promoted(x)))
    return [node], {"axis": normalize_axis(axis, node.ndim)}
