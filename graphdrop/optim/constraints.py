"""Constraints and penalties: norms of gradients and of weights, weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..graph import Node
from ..op import as_node, composed
from ..ops.elementwise import cast, maximum, sqrt, square
from ..ops.leaf import Shared
from ..ops.reduce import sum
from ..types import normalize_axes, promote
from .scalars import Scalar, as_scalar, check_scalar

Updates: TypeAlias = "list[tuple[Shared, Node]]"


def accurate(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype for sums of squares and optimizer state: float16 overflows at 65504."""
    return promote(dtype, np.float32)


@composed
def weight_decay(grads: Sequence[Node], params: Sequence[Node], rate: Scalar) -> list[Node]:
    """The gradients with `rate` times the parameter added: those of the loss + rate/2 |W|**2.

    For plain L2 regularization.  `adamw` decays apart from the gradient.
    """
    rate = check_scalar("rate", rate)
    if len(grads) != len(params):
        raise ArgumentError(f"{len(grads)} gradients for {len(params)} parameters")
    return [g + as_scalar(rate, p.dtype) * p for g, p in zip(grads, params, strict=True)]


@composed
def global_norm(grads: Sequence[Node]) -> Node:
    """The Euclidean norm of all gradients taken as one vector; at least float32."""
    if not grads:
        raise ArgumentError("the norm of no gradients")
    dtype = accurate(promote(*(g.dtype for g in grads)))
    total = sum(square(cast(grads[0], dtype)))
    for g in grads[1:]:
        total = total + sum(square(cast(g, dtype)))
    return sqrt(total)


@composed
def clip_by_global_norm(grads: Sequence[Node], max_norm: Scalar) -> list[Node]:
    """The gradients, scaled down together where their `global_norm` exceeds `max_norm`.

    Pascanu et al. 2013.  Gradients within the limit stay as they are, to the bit.
    """
    norm = global_norm(grads)
    scale = _limit_scale(norm, max_norm)
    return [g * cast(scale, g.dtype) for g in grads]


@composed
def constrain_norm(weight: Node, max_norm: Scalar, axis: int | Sequence[int] | None = None) -> Node:
    """`weight` with each vector along `axis` scaled down to a norm of at most `max_norm`.

    axis  None: a unit's incoming weights: axis 0 of a matrix (inputs, units), all but the first
          axis of filters (out, in, height, width)
    """
    weight = as_node(weight)
    if axis is not None:
        axes = normalize_axes(axis, weight.ndim)
    elif weight.ndim < 2:
        raise ShapeError(f"the incoming weights of {weight!r} are not along an axis; give axis=")
    else:
        axes = (0,) if weight.ndim == 2 else tuple(range(1, weight.ndim))
    wide = cast(weight, accurate(weight.dtype))
    scale = _limit_scale(sqrt(sum(square(wide), axis=axes, keepdims=True)), max_norm)
    return weight * cast(scale, weight.dtype)


@composed
def max_norm(
    updates: Sequence[tuple[Shared, Any]] | Mapping[Shared, Any],
    weights: Sequence[Shared],
    max_norm: Scalar,
    axis: int | Sequence[int] | None = None,
) -> Updates:
    """The updates, with every vector of incoming weights limited after its update.

    The companion of dropout in Srivastava et al. 2014 (section 5.1; limits of 3 to 4 are usual).
    `weights` are those to constrain, `axis` is that of `constrain_norm`.
    """
    pairs = list(updates.items() if isinstance(updates, Mapping) else updates)
    chosen = list(weights) if isinstance(weights, (list, tuple)) else [weights]
    updated = {old for old, _ in pairs}
    for weight in chosen:
        if weight not in updated:
            raise ArgumentError(f"{weight!r} is not among the updates, so it has no new norm")
    return [
        (old, constrain_norm(new, max_norm, axis) if old in chosen else new) for old, new in pairs
    ]


def _limit_scale(norm: Node, limit: Scalar) -> Node:
    """1 where the norm is within the limit (exactly), limit / norm elsewhere."""
    limit = check_scalar("max_norm", limit)
    if limit == 0:
        raise ArgumentError("max_norm must be positive, got 0")
    bound = as_scalar(limit, norm.dtype)
    return bound / maximum(norm, bound)
