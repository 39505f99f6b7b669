"""Draws.  Each owns a site; its words are a pure function of (seed, site, call, step, example).

All draws take, after operands of their own, `training` (while false the draw is at rest: nothing is
drawn and its value is the one its docstring says), `key` (the stream's seed and the call's number),
`step` (0, or inside a scan 1 + the index) and `example` (0, or 1 + ids, one for every row).
`site` and `name` say which draw it is.  The words are defined in `graphdrop/random.py`; here, lane
is the element's own unsigned integer among them, in C order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, RandomError, ShapeError
from ..graph import Node
from ..op import Op, op
from ..types import Shape, Size, TensorType, unify

STEPS = 65536  # thresholds are in 1/65536
MOST_CLASSES = 2**24 - 1  # of a categorical draw: their weights then add up to less than 2**64


@op
def random_key(*, stream: Any) -> TensorType:
    """The stream's seed and the number of this call: uint64[2]."""
    return TensorType(np.dtype(np.uint64), (2,))


@op
def threshold(rate: TensorType) -> TensorType:
    """T, the number of 1/65536 steps in a rate: rint(rate * 65536), 0 only for 0, all only for 1.

    A rate that is NaN or outside [0, 1] is an error at the call.
    """
    if rate.ndim or rate.dtype != np.float64:
        raise DTypeError(f"a rate must be a float64 scalar, got {rate}")
    return TensorType(np.dtype(np.int64), ())


def check_draw(
    training: TensorType, key: TensorType, step: TensorType, example: TensorType, shape: Shape
) -> None:
    """The operands that every draw has; `shape` is the draw's own."""
    if training.ndim or not training.is_bool:
        raise DTypeError(f"training must be a bool scalar, got {training}")
    if key.shape != (2,) or key.dtype != np.uint64:
        raise DTypeError(f"the key must be a stream's, got {key}")
    if step.ndim or not step.is_integer:
        raise DTypeError(f"the step must be an integer scalar, got {step}")
    if example.ndim > 1 or not example.is_integer:
        raise DTypeError(f"example ids must be an integer vector, got {example}")
    if example.ndim == 1:
        if not shape:
            raise ShapeError("a draw of a scalar cannot be keyed by example ids")
        unify(example.shape[0], shape[0], "the number of example ids and the first size")


def check_fits(what: str, operand: TensorType, shape: Shape) -> None:
    """An operand with one value for every element must broadcast to the draw's shape."""
    lead = len(shape) - operand.ndim
    if lead < 0:
        raise ShapeError(f"{what} {operand} has more axes than the shape {list(shape)}")
    for size, full in zip(operand.shape, shape[lead:], strict=True):
        if size != 1 and full == 1:
            raise ShapeError(f"{what} {operand} does not fit {list(shape)}, which would stretch")
        if size != 1:
            unify(size, full, f"{what} {operand} does not fit {list(shape)}: sizes")


# dropout --------------------------------------------------------------------------------------
@op
def dropout(
    x: TensorType, threshold: TensorType, training: TensorType, key: TensorType, step: TensorType,
    example: TensorType, *, site: int, name: str | None, shared: tuple[int, ...], scaled: bool,
) -> TensorType:  # fmt: skip
    """x where the 16-bit lane >= threshold, else 0; at rest x.

    Kept elements are multiplied by 65536 / (65536 - threshold) if `scaled`, rounded to x's dtype
    (for float16 the factor and the product are float32, and the product is rounded: the factor may
    be as large as 65536).  The mask has size 1 along the axes in `shared`.
    """
    if not x.is_float:
        raise DTypeError(f"dropout takes floats, got {x}")
    check_draw(training, key, step, example, noise_shape(x.shape, shared))
    return x


def noise_shape(shape: Shape, shared: tuple[int, ...]) -> Shape:
    """The shape of the mask of `dropout`."""
    return tuple(1 if i in shared else s for i, s in enumerate(shape))


@dropout.vjp
def _(g: Node, y: Node, x: Node, *draw: Node, **params: Any) -> Sequence[Node | None]:
    return dropout(g, *draw, **params), None, None, None, None, None


@op
def mask(
    threshold: TensorType, training: TensorType, key: TensorType, step: TensorType,
    example: TensorType, *, site: int, name: str | None, shape: Shape,
) -> TensorType:  # fmt: skip
    """True where the 16-bit lane >= threshold, the elements that dropout keeps; at rest all."""
    check_draw(training, key, step, example, shape)
    return TensorType(np.dtype(bool), shape)


# numbers --------------------------------------------------------------------------------------
@op
def uniform(
    training: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> TensorType:  # fmt: skip
    """Multiples of 2**-24 (2**-53 for float64, 2**-11 for float16) in [0, 1); at rest 0.

    The highest 24 (11) bits of a 32-bit lane, or the highest 53 of a 64-bit lane.
    """
    return _floats(dtype, training, key, step, example, shape)


@op
def normal(
    training: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> TensorType:  # fmt: skip
    """Standard normal numbers; at rest 0.

    Box and Muller (1958) on the halves of a 64-bit lane, in float64 and then rounded:
    sqrt(-2 * log((high + 0.5) * 2**-32)) * cos(2 * pi * (low * 2**-32)).
    The largest magnitude is 6.77.
    """
    return _floats(dtype, training, key, step, example, shape)


def _floats(dtype: np.dtype[Any], *draw: Any) -> TensorType:
    if dtype.kind != "f":
        raise DTypeError(f"this draw makes floats, not {dtype}")
    check_draw(*draw)
    return TensorType(dtype, draw[-1])


@op
def bernoulli(
    p: TensorType, training: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, shape: Shape,
) -> TensorType:  # fmt: skip
    """True where the 32-bit lane < rint(p * 2**32), that is with probability p; at rest False.

    A p that is NaN or outside [0, 1] is an error at the call.
    """
    if p.dtype != np.float64:
        raise DTypeError(f"probabilities must be float64, got {p}")
    check_fits("p", p, shape)
    check_draw(training, key, step, example, shape)
    return TensorType(np.dtype(bool), shape)


@op
def randint(
    low: TensorType, last: TensorType, training: TensorType, key: TensorType, step: TensorType,
    example: TensorType, *, site: int, name: str | None, shape: Shape, dtype: np.dtype[Any],
) -> TensorType:  # fmt: skip
    """Integers from low to last, both included; at rest low.

    low + the high 64 bits of the 128-bit product of a 64-bit lane and (last - low + 1); low + the
    lane itself where that range is all of 2**64.  An empty range, or one that `dtype` does not
    hold, is an error at the call.
    """
    if not (low.is_integer and last.is_integer) or dtype.kind not in "iu":
        raise DTypeError(f"bounds and result must be integers, got {low}, {last} and {dtype}")
    check_fits("low", low, shape)
    check_fits("high", last, shape)
    check_draw(training, key, step, example, shape)
    return TensorType(dtype, shape)


@op
def categorical(
    p: TensorType, training: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, shape: Shape,
) -> TensorType:  # fmt: skip
    """Class numbers, int64, with the probabilities p along p's last axis; at rest 0.

    In integers: class k has the weight w[k] = rint(p[k] * 2**40), W is their sum, r the high 64
    bits of the product of a 64-bit lane and W, and the class is the first whose running total of
    weights exceeds r.  So p need not add up to 1.  Probabilities that are NaN, outside [0, 1], or
    all without weight are an error at the call.
    """
    if p.dtype != np.float64:
        raise DTypeError(f"probabilities must be float64, got {p}")
    if not p.ndim:
        raise ShapeError("p needs an axis of classes, got a scalar")
    if isinstance(p.shape[-1], int) and not 1 <= p.shape[-1] <= MOST_CLASSES:
        raise RandomError(f"the number of classes must be in [1, 2**24), got {p.shape[-1]}")
    check_fits("p without its last axis", p.with_shape(p.shape[:-1]), shape)
    check_draw(training, key, step, example, shape)
    return TensorType(np.dtype(np.int64), shape)


@op
def permutation(
    training: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, length: Size,
) -> TensorType:  # fmt: skip
    """The numbers 0 ... length-1 in random order, int64: the stable argsort of 64-bit lanes.

    At rest in their own order.
    """
    if example.ndim:
        raise ShapeError("a permutation is one draw for all rows; it has no example ids")
    check_draw(training, key, step, example, (length,))
    return TensorType(np.dtype(np.int64), (length,))


def _without_gradient(found: Op) -> None:
    found.vjp(lambda g, y, *inputs, **params: (None,) * len(inputs))


for _op in (threshold, mask, uniform, normal, bernoulli, randint, categorical, permutation):
    _without_gradient(_op)
