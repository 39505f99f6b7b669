"""Learning-rate schedules: functions of a step counter.

A schedule maps the number of updates made so far (an int64 scalar node: 0 in the first update) to
the learning rate, a float64 scalar node.  Give it to an optimizer as `lr=`: the optimizer keeps the
counter and advances it.  With a counter of your own, `schedule(counter)` is the rate as a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ..errors import positive
from ..graph import Node
from ..op import composed
from ..ops.elementwise import cast, cos, floordiv, minimum, pow
from .scalars import Scalar, as_scalar, check_scalar

Schedule: TypeAlias = Callable[[Node], Node]


@composed
def constant(lr: Scalar) -> Schedule:
    """`lr` at every step."""
    rate = _rate(lr)
    return lambda step: rate


@composed
def step_decay(lr: Scalar, every: int, factor: Scalar = 0.1) -> Schedule:
    """`lr`, multiplied by `factor` every `every` steps."""
    rate, factor, every = _rate(lr), check_scalar("factor", factor), positive(every, "every")
    return lambda step: rate * pow(_float64(factor), floordiv(step, every))


@composed
def exponential_decay(lr: Scalar, factor: Scalar) -> Schedule:
    """`lr` times `factor` to the power of the step."""
    rate, factor = _rate(lr), check_scalar("factor", factor)
    return lambda step: rate * pow(_float64(factor), step)


@composed
def polynomial_decay(lr: Scalar, steps: int, end: Scalar = 0.0, power: Scalar = 1.0) -> Schedule:
    """From `lr` to `end` within `steps` along (1 - t/steps)**power, then `end`.

    Power 1 is a straight line.
    """
    rate, last = _rate(lr), _rate(end)
    power = check_scalar("power", power)
    steps = positive(steps, "steps")
    return lambda step: last + (rate - last) * pow(1.0 - _progress(step, steps), _float64(power))


@composed
def cosine_decay(lr: Scalar, steps: int, end: Scalar = 0.0) -> Schedule:
    """From `lr` to `end` within `steps` along half a cosine (Loshchilov and Hutter 2017)."""
    rate, last, steps = _rate(lr), _rate(end), positive(steps, "steps")
    return lambda step: last + (rate - last) * 0.5 * (1.0 + cos(math.pi * _progress(step, steps)))


@composed
def warmup(lr: Scalar | Schedule, steps: int) -> Schedule:
    """`lr` (a number, node or schedule) times (t + 1)/steps for the first `steps` updates.

    The schedule inside sees the same step, so that a decay over N steps still ends at N.
    """
    schedule = lr if callable(lr) else constant(lr)
    steps = positive(steps, "steps")
    return lambda step: schedule(step) * _progress(step + 1, steps)


def _progress(step: Node, steps: int) -> Node:
    """The share of `steps` that is over, from 0 to 1."""
    return minimum(cast(step, np.float64) / steps, 1.0)


def _float64(value: Scalar) -> Node:
    return as_scalar(value, np.float64)


def _rate(lr: Scalar) -> Node:
    return _float64(check_scalar("lr", lr))
