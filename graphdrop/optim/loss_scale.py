"""Loss scaling: gradients that float16 can hold, and steps without those that it could not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..autodiff import grad
from ..errors import ArgumentError, ShapeError
from ..graph import Node
from ..op import as_node, composed
from ..ops.elementwise import abs, cast, clip, equal, isfinite, logical_and, where
from ..ops.leaf import Shared, shared
from ..ops.reduce import max
from .constraints import Updates, accurate
from .optimizers import _check_params

LEAST, MOST = 1.0, 2.0**24


@composed
def loss_scaling(
    loss: Node,
    params: Sequence[Shared],
    optimizer: Callable[[list[Node]], Sequence[tuple[Shared, Node]] | Mapping[Shared, Node]],
    initial: float = 2.0**16,
    growth: float = 2.0,
    backoff: float = 0.5,
    interval: int = 2000,
) -> Updates:
    """The updates of an optimizer whose gradients come from `loss` times a scale that adapts.

    loss       the scalar to minimize, say of `gd.mixed_precision`
    optimizer  from gradients, float32 and no longer scaled, to updates:
               `lambda grads: optim.adam(grads, params, lr=1e-3)`
    initial    the first scale; a power of 2 makes scaling exact
    growth     after `interval` steps in a row with finite gradients the scale is multiplied by this
    backoff    and by this after one without, which changes nothing else: neither parameters nor the
               optimizer's own state

    State: "LossScale.scale", float32, between 1 and 2**24; "LossScale.steps", the finite ones since
    it last changed.  Both are the first updates of the list.  The rule is that of PyTorch's
    GradScaler and of Micikevicius et al. 2018.
    """
    params, loss = _check_params(params), as_node(loss)
    _check_factors(initial, growth, backoff, interval)
    if not callable(optimizer):
        raise ArgumentError(
            f"the optimizer is a function from gradients to updates, such as "
            f"`lambda grads: optim.adam(grads, params)`, got {type(optimizer).__name__}"
        )
    if loss.ndim:
        raise ShapeError(f"a loss is a scalar, got {loss!r}; take its mean or sum")
    scale = shared(np.float32(initial), "LossScale.scale")
    steps = shared(np.int64(0), "LossScale.steps")
    scaled = cast(loss, accurate(loss.dtype)) * scale
    grads = [cast(g, accurate(g.dtype)) for g in grad(scaled, params)]
    finite = as_node(True)
    for g in grads:
        if g.size != 0:
            finite = logical_and(finite, isfinite(max(abs(g))))
    # all that follows waits for `finite`, so that a parameter and its state are updated in one pass
    found = optimizer([where(finite, g, 0) / cast(scale, g.dtype) for g in grads])
    pairs = list(found.items() if isinstance(found, Mapping) else found)
    full = equal(steps + 1, interval)
    factor = where(finite, where(full, np.float32(growth), np.float32(1)), np.float32(backoff))
    return [
        (scale, clip(scale * factor, np.float32(LEAST), np.float32(MOST))),
        (steps, where(logical_and(finite, ~full), steps + 1, 0)),
        *((old, where(finite, new, old)) for old, new in pairs),
    ]


def _check_factors(initial: Any, growth: Any, backoff: Any, interval: Any) -> None:
    if not (_is_number(initial) and LEAST <= initial <= MOST):
        raise ArgumentError(f"the initial scale is between 1 and 2**24, got {initial!r}")
    both = _is_number(growth) and _is_number(backoff)
    if not (both and growth >= 1 and 0 < backoff <= 1):
        raise ArgumentError(
            f"growth is at least 1 and backoff between 0 and 1, got {growth!r} and {backoff!r}"
        )
    if isinstance(interval, bool) or not isinstance(interval, (int, np.integer)) or interval < 1:
        raise ArgumentError(f"interval is a number of steps, at least 1, got {interval!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))
