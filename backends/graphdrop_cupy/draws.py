"""Draws of numbers as expressions: each element takes its lane of the draw's words.

Masks, of which a warp draws 512 bits at once, are in `printer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphdrop.graph import Node
from graphdrop.ops import random as draws
from graphdrop.replay import operand

from .scalars import VALUES, converted

FLOATS = {
    "float16": "(float)({lane32} >> 21) * 0x1p-11f",
    "float32": "(float)({lane32} >> 8) * 0x1p-24f",
    "float64": "(double)({lane64} >> 11) * 0x1p-53",
}


def number(node: Node, names: Mapping[Node, str], at: str) -> str:
    """The value of the element at a position of the draw; `names` are the values of operands."""
    training, key, step, example = (
        names[operand(node, n)] for n in ("training", "key", "step", "example")
    )
    given = f"({key}, {node.params['site']}ull, {step}, {example}, {at})"
    lane32, lane64 = f"gd_lane32{given}", f"gd_lane64{given}"
    kind = VALUES[node.dtype.name]
    if node.op is draws.uniform:
        drawn = FLOATS[node.dtype.name].format(lane32=lane32, lane64=lane64)
        return f"{training} ? {drawn} : ({kind})0"
    if node.op is draws.normal:
        drawn = converted(np.dtype(np.float64), node.dtype, f"gd_normal({lane64})")
        return f"{training} ? {drawn} : ({kind})0"
    if node.op is draws.bernoulli:
        return f"{training} && {lane32} < (u64)rint({names[node.inputs[0]]} * 0x1p32)"
    low, last = (f"(u64)({names[n]})" for n in node.inputs[:2])
    return f"({kind})({training} ? gd_integer({low}, {last}, {lane64}) : {low})"
