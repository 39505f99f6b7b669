"""What the rows of rewrite rules are written in: inputs, draws and the row itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphdrop as gd
from graphdrop.graph import Node
from graphdrop.op import constant
from graphdrop.ops import random as draws
from graphdrop.ops.elementwise import exp
from graphdrop.ops.index import _set_subtensor

x = gd.tensor("x", "float64", (3, 4))
y = gd.tensor("y", "float64", (3, 4))
z = gd.tensor("z", "float64", (3, 4))
row = gd.tensor("row", "float64", (4,))
s = gd.tensor("s", "float64", ())
h = gd.tensor("h", "float16", (3, 4))
f = gd.tensor("f", "float32", (3, 4))
i = gd.tensor("i", "int64", (3, 4))
j = gd.tensor("j", "int64", (3, 4))
small = gd.tensor("small", "int8", (3, 4))
u = gd.tensor("u", "uint8", (3, 4))
b = gd.tensor("b", "bool", (3, 4))
c = gd.tensor("c", "bool", (3, 4))
flag = gd.flag("flag")
named = gd.tensor("named", "float64", ("n", 4))
other = gd.tensor("other", "float64", ("m", 4))
ids = gd.tensor("ids", "int64", (5,))
stream = gd.RandomStream(7)
zero, one = constant(np.int64(0)), constant(np.float64(1))


def drawn(threshold: int, training: Any = flag) -> Node:
    node: Node = draws.dropout(
        x, np.int64(threshold), training, stream.key, zero, zero,
        site=0, name=None, shared=(), scaled=True,
    )  # fmt: skip
    return node


def masked(threshold: int, training: Any) -> Node:
    node: Node = draws.mask(
        np.int64(threshold), training, stream.key, zero, zero, site=1, name=None, shape=(3, 4)
    )
    return node


def numbers(op: Any, training: Any) -> Node:
    node: Node = op(
        training, stream.key, zero, zero, site=2, name=None, shape=(3, 4), dtype=np.dtype("f4")
    )
    return node


def spread(value: Any, dtype: str = "float64", shape: Any = (3, 4)) -> Node:
    return gd.broadcast_to(constant(np.asarray(value, dtype)), shape)


def sum_exp(x: Node = x, keepdims: bool = True) -> Node:
    return exp(x).sum(axis=1, keepdims=keepdims)


def top(x: Node = x) -> Node:
    return x.max(axis=1, keepdims=True)


def put(position: int, value: Node, base: float | Node = 0.0) -> Node:
    """A row in an array, which is one number everywhere unless it is given."""
    part, array = x[position], base if isinstance(base, Node) else spread(base)
    return _set_subtensor.make((array, value), dict(part.params))


@dataclass
class Row:
    """A rule, pairs of (before, after it alone ran), and nodes on which it must not fire."""

    rule: str
    pairs: list[tuple[Node, Node]]
    never: list[Node] = field(default_factory=list)
