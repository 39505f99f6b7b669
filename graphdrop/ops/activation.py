"""Activations composed of elementwise operations (relu, sigmoid, softplus are operations)."""

from __future__ import annotations

import math
from typing import Any

from ..graph import Node
from ..op import as_node
from .elementwise import erf, expm1, greater, sigmoid, tanh, where


def leaky_relu(x: Any, slope: float = 0.01) -> Node:
    """x where positive, slope * x elsewhere."""
    return where(greater(x, 0), x, x * slope)


def elu(x: Any, alpha: float = 1.0) -> Node:
    """x where positive, alpha * (exp(x) - 1) elsewhere (Clevert et al. 2015)."""
    positive = greater(x, 0)
    # nothing overflows in the branch not taken
    return where(positive, x, alpha * expm1(where(positive, 0, x)))


def selu(x: Any) -> Node:
    """The self-normalizing ELU (Klambauer et al. 2017)."""
    return elu(x, 1.6732632423543772) * 1.0507009873554805


def silu(x: Any) -> Node:
    """x * sigmoid(x), also called swish."""
    return as_node(x) * sigmoid(x)


def gelu(x: Any, approximate: bool = False) -> Node:
    """x * Phi(x) (Hendrycks and Gimpel 2016); `approximate` uses the published tanh form."""
    node = as_node(x)
    if approximate:
        cubic = node + 0.044715 * node * node * node
        return 0.5 * node * (1 + tanh(math.sqrt(2 / math.pi) * cubic))
    return 0.5 * node * (1 + erf(node * math.sqrt(0.5)))
