"""What is rewritten for this backend alone, before a program is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphdrop.graph import Node, origin_scope, toposort
from graphdrop.op import constant, constant_value
from graphdrop.ops import random as draws
from graphdrop.ops.elementwise import cast, logical_and, where
from graphdrop.random import kept_scale
from graphdrop.substitute import rebuild


def lower(outputs: Sequence[Node]) -> list[Node]:
    """The same graph, in which a mask that several dropouts use is drawn once.

    Forward and backward apply one mask; drawing it takes longer than keeping it a while.
    """
    order = toposort(outputs)
    if not any(node.op is draws.dropout for node in order):
        return list(outputs)
    done: dict[Node, Node] = {}
    for node in order:
        new = rebuild(node, done, {})
        with origin_scope(node.origin):
            if new.op is draws.dropout:
                new = _mask_apart(new)
            elif new.op is where:
                new = _choose_once(new)
        done[node] = new
    return [done[node] for node in outputs]


def _mask_apart(node: Node) -> Node:
    """A dropout that is known to be training at a known rate as its mask, a product, a choice."""
    x, threshold, training, *draw = node.inputs
    steps, on = constant_value(threshold), constant_value(training)
    if steps is None or not on or int(steps) == draws.STEPS:
        return node
    shape = draws.noise_shape(x.shape, node.params["shared"])
    names = {k: node.params[k] for k in ("site", "name")}
    keep = draws.mask.make((threshold, training, *draw), {**names, "shape": shape})
    if node.params["scaled"]:
        wide = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype
        scale = constant(np.asarray(kept_scale(int(steps)), wide))
        x = cast(cast(x, wide) * scale, x.dtype)
    return where(keep, x, constant(np.zeros((), x.dtype)))


def _choose_once(node: Node) -> Node:
    """where(a, where(b, x, 0), 0) as where(a and b, x, 0): what a dropped relu's gradient is."""
    a, inner, other = node.inputs
    if inner.op is where and inner.inputs[2] is other and inner.inputs[0].type == a.type:
        return where(logical_and(a, inner.inputs[0]), inner.inputs[1], other)
    return node
