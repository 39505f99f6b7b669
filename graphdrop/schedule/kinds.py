"""What a node can be to a backend that prints kernels, where that is the same for all of them."""

from __future__ import annotations

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


def draws_bits(node: Node) -> bool:
    """Whether a node is a dropout or a mask whose elements each have a bit of their own, counted
    from the first element of all.
    """
    if node.op not in (draws.dropout, draws.mask):
        return False
    example = node.inputs[-1]  # 0, or ids for every row
    by_row = example.ndim > 0 or constant_value(example) is None
    return not by_row and not node.params.get("shared")
