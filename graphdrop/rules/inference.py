"""Draws that are decided: training flags and rates that have become constants.

Which calls advance a stream is settled before rewrites (`replay.py`), so a draw may go without
changing any call's number.
"""

from __future__ import annotations

from ..graph import Node
from ..ops.elementwise import where
from ..ops.random import STEPS, dropout, mask, normal, uniform
from ..pattern import var
from ..rewrite import Rule, full, is_number, rule, scalar

x, flag = var("x"), var("flag")
threshold = var("threshold")


@rule(dropout(x, threshold, False, ...), dropout(x, 0, ...))
def dropout_of_nothing(x: Node) -> Node:
    """Dropout is the identity outside training and at rate 0."""
    return x


@rule(dropout(x, STEPS, flag, ...))
def dropout_of_everything(node: Node, x: Node, flag: Node) -> Node:
    """At rate 1 all elements are 0 while training; nothing need be drawn."""
    return where(flag, scalar(0, x), x)


@rule(mask(0, flag, ...), mask(threshold, False, ...))
def mask_of_nothing(node: Node) -> Node:
    return full(True, node)


@rule(mask(threshold, True, ...))
def mask_of_everything(node: Node, threshold: Node) -> Node | None:
    return full(False, node) if is_number(threshold, STEPS) else None


@rule(uniform(flag, ...), normal(flag, ...))
def number_at_rest(node: Node, flag: Node) -> Node | None:
    """A draw whose flag is off is 0."""
    return full(0, node) if is_number(flag, False) else None


INFERENCE: tuple[Rule, ...] = (
    dropout_of_nothing, dropout_of_everything, mask_of_nothing, mask_of_everything,
    number_at_rest,
)  # fmt: skip
