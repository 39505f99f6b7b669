"""Draws.  Each owns a site; its words are a pure function of (seed, site, call, step, example).

All draws take `key` (the stream's seed and the call's number), `step` (0, or inside a scan 1 + the
index) and `example` (0, or 1 + ids, one for every row).  The values are defined in `random.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..graph import Node
from ..op import op
from ..types import Shape, TensorType, unify

STEPS = 65536  # thresholds are in 1/65536


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


@threshold.vjp
def _(g: Node, y: Node, rate: Node) -> Sequence[Node | None]:
    return (None,)


def check_draw(key: TensorType, step: TensorType, example: TensorType, shape: Shape) -> None:
    """The operands that every draw has; `shape` is the draw's own."""
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


@op
def dropout(
    x: TensorType, threshold: TensorType, training: TensorType, key: TensorType, step: TensorType,
    example: TensorType, *, site: int, name: str | None, shared: tuple[int, ...], scaled: bool,
) -> TensorType:  # fmt: skip
    """While training, x where the draw's 16-bit lane >= threshold, else 0; otherwise x.

    Kept elements are multiplied by 65536 / (65536 - threshold) if `scaled`.  The mask has size 1
    along the axes in `shared`.
    """
    if not x.is_float:
        raise DTypeError(f"dropout takes floats, got {x}")
    check_draw(key, step, example, noise_shape(x.shape, shared))
    return x


def noise_shape(shape: Shape, shared: tuple[int, ...]) -> Shape:
    """The shape of the mask of `dropout`."""
    return tuple(1 if i in shared else s for i, s in enumerate(shape))


@dropout.vjp
def _(g: Node, y: Node, x: Node, *draw: Node, **params: Any) -> Sequence[Node | None]:
    return dropout(g, *draw, **params), None, None, None, None, None


@op
def mask(
    threshold: TensorType, key: TensorType, step: TensorType, example: TensorType,
    *, site: int, name: str | None, shape: Shape,
) -> TensorType:  # fmt: skip
    """True where the draw's 16-bit lane >= threshold: the elements that dropout keeps."""
    check_draw(key, step, example, shape)
    return TensorType(np.dtype(bool), shape)


@mask.vjp
def _(g: Node, y: Node, *draw: Node, **params: Any) -> Sequence[Node | None]:
    return (None,) * 4
