"""Assertions that are checked when a function runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, DTypeError
from ..graph import Node
from ..op import as_node, op
from ..types import TensorType
from .elementwise import cast
from .reduce import all as all_of


@op(view=True)
def assert_(x: TensorType, condition: TensorType, *, message: str) -> TensorType:
    """x itself, once every element of `condition` is found true; else CheckError(message).

    Checked at each call that computes x through this node; use the result in place of x.
    """
    if not condition.is_bool or condition.ndim:
        raise DTypeError(f"needs a bool scalar as condition, got {condition}")
    return x


@assert_.prepare
def _(x: Any, condition: Any, message: str = "the assertion failed") -> Any:
    if not isinstance(message, str):
        raise ArgumentError(f"the message must be a string, got {message!r}")
    return [as_node(x), all_of(cast(condition, bool))], {"message": message}


@assert_.vjp
def _(g: Node, y: Node, x: Node, condition: Node, *, message: str) -> Sequence[Node | None]:
    return g, None
