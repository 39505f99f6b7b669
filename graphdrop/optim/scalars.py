"""Hyperparameters: numbers checked when the graph is built, or nodes read at every step."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError
from ..graph import Node
from ..op import constant
from ..ops.elementwise import cast

# a number, or a scalar node (a shared value, an input, something computed)
Scalar: TypeAlias = "float | Node"


def check_scalar(name: str, value: Any, low: float = 0.0, high: float = float("inf")) -> Scalar:
    """`value` as a float in [low, high), or the scalar node it is; ArgumentError otherwise."""
    if isinstance(value, Node):
        if value.ndim or value.tensor_type.is_bool:
            raise ArgumentError(f"{name} must be a number or a scalar node, got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"{name} must be a number or a scalar node, got {value!r}")
    if not low <= float(value) < high:
        upper = "" if high == float("inf") else f" and less than {high:g}"
        raise ArgumentError(f"{name} must be at least {low:g}{upper}, got {value}")
    return float(value)


def as_scalar(value: Scalar, dtype: Any) -> Node:
    """The node of a hyperparameter, in the dtype of the arrays that it multiplies."""
    return cast(value, dtype) if isinstance(value, Node) else constant(value, dtype)
