"""What a node can be to a backend that prints kernels, where that is the same for all of them."""

from __future__ import annotations

import numpy as np

from ..graph import Node
from ..op import constant_value
from ..ops import random as draws
from ..ops.gather import row_index
from ..ops.index import _gather, _scatter_add
from ..ops.losses import checked_labels

ADDED = ("float32", "float64", "int32", "int64")


def fetches_rows(node: Node) -> bool:
    """Whether a node is a step of rows: whole ones along the first axis."""
    if node.op is checked_labels:
        return True
    if node.op not in (_gather, _scatter_add) or node.params["index"] != row_index(
        node.inputs[0].shape
    ):
        return False
    x, *values, ids = node.inputs
    fits = all(v.shape == (*ids.shape, *x.shape[1:]) for v in values)
    return node.op is _gather or (node.dtype.name in ADDED and fits)


def draws_numbers(node: Node) -> bool:
    """Whether a node is a draw of numbers with which nothing can be wrong at the call."""
    numbers = (draws.uniform, draws.normal, draws.bernoulli, draws.randint)
    if node.op not in numbers or not _counts_evenly(node):
        return False
    if node.op is draws.bernoulli:
        p = constant_value(node.inputs[0])
        return p is not None and bool(((p >= 0) & (p <= 1)).all())
    if node.op is draws.randint:
        low, last = (constant_value(n) for n in node.inputs[:2])
        info = np.iinfo(node.dtype)
        if low is None or last is None:
            return False
        return bool(((low >= info.min) & (low <= last) & (last <= info.max)).all())
    return True


def draws_bits(node: Node) -> bool:
    """Whether a node is a dropout or a mask whose elements each have a bit of their own."""
    masks = (draws.dropout, draws.mask)
    return node.op in masks and _counts_evenly(node) and not node.params.get("shared")


def draws_by_row(node: Node) -> bool:
    """Whether every row of a draw has its own id, and counts its own elements."""
    return node.inputs[-1].ndim == 1


def _counts_evenly(node: Node) -> bool:
    """Whether elements that follow on one another do so in the draw's words: those of all, or those
    of a row, which are more than one as far as is known.
    """
    if draws_by_row(node):
        return any(s != 1 for s in node.shape[1:])
    return constant_value(node.inputs[-1]) is not None
