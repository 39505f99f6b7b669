"""Dropout, over the draws of `random.py`; the rest of its family is in `nn/dropout.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, DTypeError, RandomError, ShapeError
from .graph import Node
from .op import as_node, composed, constant, constant_value
from .ops import random as draws
from .ops.elementwise import cast, less, logical_and, logical_not, logical_or, maximum, where
from .ops.leaf import as_shape
from .random import RandomStream, known_flag, known_in, threshold_of, training_flag
from .types import Shape, normalize_axes


@composed
def dropout(
    x: Any,
    rate: Any,
    stream: RandomStream,
    training: Any = True,
    *,
    axes: int | Sequence[int] | None = None,
    noise_shape: Any = None,
    mode: str = "inverted",
    name: str | None = None,
    example: Any = None,
    mask: Any = None,
) -> Node:
    """`x` with a random share `rate` of its elements set to 0 while training (Srivastava 2014).

    rate         share dropped: a number in [0, 1] or a symbolic scalar; exactly
                 T = rint(rate * 65536) in 65536, but never none or all unless rate is 0 or 1
    training     a bool, or a symbolic flag; when false, x is returned as it is and nothing drawn
    axes         axes over which the mask is shared (drawn with size 1)
    noise_shape  instead of axes: the mask's shape, 1 where shared; None is x's own size
    mode         "inverted": kept elements are scaled by 65536 / (65536 - T), so that the
                 expectation is x; "classic": no scaling while training, x * (1 - rate) otherwise
    name         fixes the draw's site, and names it in `step.mask` and pictures
    example      integer ids, one for every row of x: the mask of a row depends on its id only
    mask         a bool mask (True keeps) to use instead of drawing one from the stream

    The gradient is the same dropout applied to the incoming gradient.
    """
    x, flag = float_node(x), training_flag(training)
    if mode not in ("inverted", "classic"):
        raise ArgumentError(f"mode must be 'inverted' or 'classic', got {mode!r}")
    threshold, scaled = rate_threshold(rate), mode == "inverted"
    if mask is not None:
        if axes is not None or noise_shape is not None or example is not None or name is not None:
            raise ArgumentError("mask= replaces the draw: no axes, noise_shape, example or name")
        dropped = _with_mask(x, threshold, flag, mask, scaled)
    else:
        shared = _shared_axes(x, axes, noise_shape)
        dropped = x
        if not rests(stream, threshold, flag, name):
            dropped = stream.draw(
                draws.dropout, x, threshold, training=flag, name=name, example=example,
                shared=shared, scaled=scaled,
            )  # fmt: skip
    if scaled or known_flag(flag) is True:
        return dropped
    resting = x * cast(1.0 - rate_node(rate), x.dtype)
    return resting if known_flag(flag) is False else where(flag, dropped, resting)


def float_node(x: Any) -> Node:
    """What is dropped from, a float node."""
    node = as_node(x)
    if not node.tensor_type.is_float:
        raise DTypeError(f"dropout takes floats, got {node!r}; cast it with gd.cast(x, 'float32')")
    return node


def rate_node(rate: Any) -> Node:
    """A rate as a float64 scalar node."""
    node = known_in(rate, np.float64)
    if node.ndim:
        raise RandomError(f"a rate must be a scalar, got {node!r}")
    return node


def rate_threshold(rate: Any) -> Node:
    """The threshold of a rate, checked now if it is known and at the call if it is symbolic."""
    node = rate_node(rate)
    known = constant_value(node)
    if known is not None:
        return constant(np.int64(threshold_of(float(known))))
    threshold: Node = draws.threshold(node)
    return threshold


def rests(stream: RandomStream, threshold: Node, flag: Node, name: str | None) -> bool:
    """Whether a draw is known to drop nothing, because of its rate or its training flag.

    Its site is taken nevertheless, so that changing a rate leaves the other draws alone.
    """
    if not isinstance(stream, RandomStream):
        raise ArgumentError(f"needs a gd.RandomStream to draw from, got {stream!r}")
    idle = constant_value(threshold) == 0 or known_flag(flag) is False
    if idle:
        stream.site(name)
    return idle


def _shared_axes(x: Node, axes: Any, noise_shape: Any) -> tuple[int, ...]:
    if axes is not None and noise_shape is not None:
        raise ArgumentError("give axes or noise_shape, not both")
    if axes is not None:
        return normalize_axes(axes, x.ndim)
    if noise_shape is None:
        return ()
    listed = list(noise_shape) if isinstance(noise_shape, (list, tuple)) else [noise_shape]
    if len(listed) == x.ndim:
        listed = [full if s is None else s for s, full in zip(listed, x.shape, strict=True)]
    sizes: Shape = as_shape(listed)
    if len(sizes) != x.ndim or any(
        size not in (1, full) for size, full in zip(sizes, x.shape, strict=True)
    ):
        raise ShapeError(
            f"noise_shape {noise_shape!r} does not fit {x!r}: every size is x's own, or 1 where "
            f"the mask is shared"
        )
    return tuple(i for i, size in enumerate(sizes) if size == 1)


def _with_mask(x: Node, threshold: Node, flag: Node, mask: Any, scaled: bool) -> Node:
    """Dropout by a given mask: x * scale where it holds, else 0; x while not training."""
    mask = cast(mask, bool)
    draws.check_fits("the mask", mask.tensor_type, x.shape)
    if known_flag(flag) is False:
        return x
    some = less(threshold, draws.STEPS)  # else nothing is kept, whatever the mask says
    keep = logical_or(logical_not(flag), logical_and(mask, some))
    if not scaled:
        return where(keep, x, 0)
    scale = draws.STEPS / maximum(draws.STEPS - threshold, 1)
    wide = np.float32 if x.dtype == np.float16 else x.dtype  # as the dropout op does
    factor = where(flag, cast(scale, wide), 1)
    return where(keep, cast(cast(x, wide) * factor, x.dtype), 0)
