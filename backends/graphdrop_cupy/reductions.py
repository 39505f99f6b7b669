"""How reductions combine what they have, and how the parts of one are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.ops import reduce
from graphdrop.schedule import Buffer

from .scalars import MEMORY, VALUES, literal, stored

HOW = {
    reduce.sum: "Sum", reduce.prod: "Product", reduce.max: "Max", reduce.row_max: "Max",
    reduce.min: "Min",
}  # fmt: skip
NEUTRAL = {reduce.sum: 0, reduce.prod: 1}


def accumulator(node: Node) -> np.dtype[Any]:
    """What a reduction is computed in: sums and products of floats in float64, and threads hand on
    no less than 32 bits.
    """
    if node.op in NEUTRAL and node.dtype.kind == "f":
        return np.dtype(np.float64)
    if node.dtype == np.float16:
        return np.dtype(np.float32)
    return np.dtype(np.int32) if node.dtype.itemsize < 4 else node.dtype


def identity(node: Node) -> str:
    """What changes nothing in a reduction."""
    dtype = accumulator(node)
    if node.op in NEUTRAL:
        return literal(dtype, NEUTRAL[node.op])
    largest = HOW[node.op] == "Max"
    if dtype.kind == "f":
        return literal(dtype, -np.inf if largest else np.inf)
    info = np.iinfo(dtype)
    return literal(dtype, info.min if largest else info.max)


@dataclass(frozen=True)
class Join:
    """How parts become results: `text` as in `Printed`, of (results, parts, outs, chunks)."""

    text: str
    buffer: Buffer
    itemsize: int


def join(node: Node, result: Buffer) -> Join:
    """The kernel that joins the parts of a reduction; its results lie in C order."""
    part, kind = VALUES[accumulator(node).name], MEMORY[node.dtype.name]
    value = stored(node.dtype, f"({VALUES[node.dtype.name]})total")
    text = f"""extern "C" __global__ void @({kind} *__restrict__ results, \
const {part} *__restrict__ parts, const INDEX outs, const INDEX chunks) {{
  for (INDEX i = blockIdx.x; i < outs; i += gridDim.x) {{
    const {part} total = gd_join<{HOW[node.op]}>(parts, outs, chunks, i, {identity(node)});
    if (threadIdx.x == 0) results[i] = {value};
  }}
}}"""
    return Join(text, result, accumulator(node).itemsize)
