"""What is rewritten for this backend alone, before a program is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphdrop.graph import Node, origin_scope, toposort
from graphdrop.op import constant
from graphdrop.ops import random as draws
from graphdrop.ops.elementwise import cast, maximum, where
from graphdrop.substitute import rebuild


def lower(outputs: Sequence[Node]) -> list[Node]:
    """The same graph, in which a mask that elements share is drawn once, before it is used."""
    order = toposort(outputs)
    if not any(node.op is draws.dropout and node.params["shared"] for node in order):
        return list(outputs)
    done: dict[Node, Node] = {}
    for node in order:
        new = rebuild(node, done, {})
        if new.op is draws.dropout and new.params["shared"]:
            with origin_scope(node.origin):
                new = _mask_apart(new)
        done[node] = new
    return [done[node] for node in outputs]


def _mask_apart(node: Node) -> Node:
    """A dropout as its mask, a product and a choice."""
    x, threshold, training, *draw = node.inputs
    shape = draws.noise_shape(x.shape, node.params["shared"])
    names = {k: node.params[k] for k in ("site", "name")}
    keep = draws.mask.make((threshold, training, *draw), {**names, "shape": shape})
    if node.params["scaled"]:
        # where all are dropped the factor does not matter
        kept = maximum(draws.STEPS - cast(threshold, "float64"), 1.0)
        wide = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype
        factor = where(training, draws.STEPS / kept, 1.0)
        x = cast(cast(x, wide) * cast(factor, wide), x.dtype)
    return where(keep, x, constant(np.zeros((), x.dtype)))
