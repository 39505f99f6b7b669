"""Dropout's family: each a few lines over the draws of `graphdrop.random`.

All take what `gd.dropout` takes: a rate in [0, 1] (a number or a symbolic scalar), a stream, a
training flag, and a name that fixes the draw's site.  While not training they give back their
operand byte for byte and draw nothing.  Rate 1 gives zeros, with zero gradient.
"""

from __future__ import annotations

from typing import Any

from ..dropout import dropout, float_node, rate_node, rate_threshold, rests
from ..errors import ShapeError
from ..graph import Node
from ..op import composed
from ..ops import random as draws
from ..ops.elementwise import cast, less, logical_not, logical_or, sqrt, where
from ..random import RandomStream, training_flag
from ..types import normalize_axis

# what selu tends to for large negative inputs: -scale * alpha
SELU_FLOOR = -1.0507009873554805 * 1.6732632423543772


@composed
def dropconnect(
    weights: Any, rate: Any, stream: RandomStream, training: Any = True, *,
    name: str | None = None,
) -> Node:  # fmt: skip
    """Weights with a random share `rate` of them set to 0, the others scaled up (Wan et al. 2013).

    weights  of any shape; one mask for all rows of a batch that is multiplied by them
    """
    return dropout(weights, rate, stream, training, name=name)


@composed
def spatial_dropout(
    x: Any, rate: Any, stream: RandomStream, training: Any = True, *,
    channel_axis: int = 1, name: str | None = None, example: Any = None,
) -> Node:  # fmt: skip
    """Whole channels of every example dropped (Tompson et al. 2015); also called channel dropout.

    x             (batch, channels, ...) with any number of places after it, or as `channel_axis`
                  says; (batch, time, channels) takes channel_axis=-1
    """
    x = float_node(x)
    channel = normalize_axis(channel_axis, x.ndim)
    if x.ndim < 2 or channel == 0:
        raise ShapeError(f"needs a batch axis, and a channel axis that is not the first; got {x!r}")
    places = [a for a in range(1, x.ndim) if a != channel]
    return dropout(x, rate, stream, training, axes=places, name=name, example=example)


@composed
def embedding_dropout(
    weights: Any, rate: Any, stream: RandomStream, training: Any = True, *,
    name: str | None = None,
) -> Node:  # fmt: skip
    """An embedding matrix (words, size) with whole words dropped (Gal and Ghahramani 2016).

    A dropped word is gone wherever its id stands in the batch: look the ids up in the result.
    """
    weights = float_node(weights)
    if weights.ndim < 2:
        raise ShapeError(f"needs a matrix with a row for every word, got {weights!r}")
    return dropout(weights, rate, stream, training, axes=range(1, weights.ndim), name=name)


@composed
def alpha_dropout(
    x: Any, rate: Any, stream: RandomStream, training: Any = True, *,
    name: str | None = None, example: Any = None,
) -> Node:  # fmt: skip
    """Dropout for selu networks: keeps mean 0 and variance 1 (Klambauer et al. 2017).

    Dropped elements become f = -1.758..., the value selu tends to, and everything is mapped by
    a * x + b with q = 1 - rate, a = (q + f**2 * q * (1 - q)) ** -0.5 and b = -a * (1 - q) * f.
    """
    node, flag, threshold = float_node(x), training_flag(training), rate_threshold(rate)
    if rests(stream, threshold, flag, name):
        return node
    keep = stream.draw(
        draws.mask, threshold, training=flag, name=name, example=example, shape=node.shape
    )
    q = (draws.STEPS - threshold) / draws.STEPS
    some = less(threshold, draws.STEPS)
    spread = where(some, q + SELU_FLOOR**2 * q * (1 - q), 1.0)
    a = where(some, 1.0 / sqrt(spread), 0.0)
    b = a * (q - 1) * SELU_FLOOR
    # at rest x * 1 + -0.0, which is x to the bit, and so is the gradient
    factor, shift = (cast(where(flag, v, r), node.dtype) for v, r in ((a, 1.0), (b, -0.0)))
    y: Node = where(keep, node, SELU_FLOOR) * factor + shift
    return y


@composed
def gaussian_dropout(
    x: Any, rate: Any, stream: RandomStream, training: Any = True, *,
    name: str | None = None, example: Any = None,
) -> Node:  # fmt: skip
    """x times normal noise of mean 1 and standard deviation sqrt(rate / (1 - rate)).

    The noise has the mean and the variance of inverted dropout (Srivastava et al. 2014, section
    10); its limit at rate 1 is taken to be dropout's, zeros.
    """
    node, flag, threshold = float_node(x), training_flag(training), rate_threshold(rate)
    if rests(stream, threshold, flag, name):
        return node
    noise = stream.draw(
        draws.normal, training=flag, name=name, example=example, shape=node.shape, dtype=node.dtype
    )
    some, r = less(threshold, draws.STEPS), rate_node(rate)
    deviation = sqrt(r / where(some, 1.0 - r, 1.0))
    factor = where(flag, 1.0 + noise * cast(deviation, node.dtype), 1.0)
    y: Node = where(logical_or(logical_not(flag), some), node * factor, 0.0)
    return y
