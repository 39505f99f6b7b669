"""What is rewritten for this backend alone, after what is rewritten for all that print kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphdrop import schedule
from graphdrop.graph import Node
from graphdrop.ops.elementwise import cast
from graphdrop.ops.linalg import _matmul
from graphdrop.ops.shape import transpose

from .reductions import PRINTED


def lower(outputs: Sequence[Node]) -> list[Node]:
    """The same graph in operations that are printed."""
    return schedule.lower(schedule.lower(outputs), RULES)


def _by_float32(node: Node) -> Node:
    """A product or a reduction of float16 as one of float32, rounded: sums are float32 anyway."""
    if node.dtype != np.float16:
        return node
    wide = tuple(_wide(n) for n in node.inputs)
    return cast(node.op.make(wide, dict(node.params)), node.dtype)


def _wide(node: Node) -> Node:
    """As float32; products read a transpose where it lies, so that it is cast lying there."""
    if node.op is transpose:
        return transpose.make((_wide(node.inputs[0]),), dict(node.params))
    return cast(node, np.float32)


RULES = dict.fromkeys((_matmul, *PRINTED), _by_float32)
