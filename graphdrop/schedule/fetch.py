"""Elements at positions that are data, along any axes, as rows along the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Node
from ..op import constant
from ..ops.brackets import NO_AXIS, Index
from ..ops.create import iota
from ..ops.elementwise import cast, greater_equal, less, where
from ..ops.gather import row_index
from ..ops.index import _gather, _scatter_add, _subtensor
from ..ops.shape import reshape
from ..types import Size, broadcast_shapes, has_values, num_elements
from .kinds import ADDED, fetches_rows
from .program import contiguous


def rows_fetched(node: Node) -> Node:
    """A gather as one of whole rows: what follows the last axis that is indexed."""
    x, *ids = node.inputs
    index: Index = node.params["index"]
    if fetches_rows(node) or not _can_be(node):
        return node
    sizes = _sizes(x, index)
    basic = tuple((0, 1, s) if e == "ids" else e for e, s in zip(index, sizes, strict=True))
    x = _subtensor.make((x,), {"index": basic})
    rows = _as_rows(x, index)
    return _gather.make((rows, _positions(x, ids, index)), {"index": row_index(rows.shape)})


def rows_added(node: Node) -> Node:
    """A scatter_add as one of whole rows, unless it is about a part of an axis."""
    x, value, *ids = node.inputs
    index: Index = node.params["index"]
    sizes = _sizes(x, index)
    whole = all(e in ("ids", (0, 1, s)) for e, s in zip(index, sizes, strict=True))
    if not whole or node.dtype.name not in ADDED or fetches_rows(node) or not _can_be(node):
        return node
    rows = _as_rows(x, index)
    given = (rows, value, _positions(x, ids, index))
    return reshape(_scatter_add.make(given, {"index": row_index(rows.shape)}), node.shape)


def _as_rows(x: Node, index: Index) -> Node:
    """The axes up to the last that is indexed made one."""
    end = _indexed(index)[-1] + 1
    return reshape(x, (num_elements(x.shape[:end]), *x.shape[end:]))


def _indexed(index: Index) -> list[int]:
    return [a for a, entry in enumerate(index) if entry == "ids"]


def _positions(x: Node, ids: Sequence[Node], index: Index) -> Node:
    """Where the rows of `_as_rows` are that an index of x means.

    A position among rows adds up those along all axes before; where one of these is none, so is
    the sum, and the oracle says what is wrong.
    """
    at = _indexed(index)
    lead = x.shape[: at[-1] + 1]
    place = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    others = [a for a in range(len(lead)) if a not in at]
    axes = len(broadcast_shapes(*(i.shape for i in ids)))
    total, valid = constant(np.int64(0)), constant(True)
    for a, (size, stride) in enumerate(zip(lead, contiguous(lead), strict=True)):
        if a in others:
            k = others.index(a)
            after = len(others) - 1 - k + (axes if k < place else 0)
            position = reshape(iota.make((), {"size": size}), (size, *[1] * after))
        else:
            found = cast(ids[at.index(a)], np.int64)
            found = reshape(found, (*found.shape, *[1] * (len(others) - place)))
            position = where(less(found, 0), found + size, found)
            valid = valid & greater_equal(position, 0) & less(position, size)
        total = total + position * stride
    return where(valid, total, num_elements(lead))


def _can_be(node: Node) -> bool:
    """Whether sizes are known before the call, and positions are integers that int64 holds."""
    shapes: list[Size] = [s for n in (node, *node.inputs) for s in n.shape]
    if has_values(shapes) or node.size_inputs:
        return False
    wide = any(i.dtype == np.uint64 for i in node.inputs[1:])
    index: Index = node.params["index"]
    return not wide and all(e in ("ids", "new") or isinstance(e, tuple) for e in index)


def _sizes(x: Node, index: Index) -> Sequence[Size]:
    """The size that each entry is about; 1 for those about no axis."""
    sizes = iter(x.shape)
    return [1 if entry in NO_AXIS else next(sizes) for entry in index]
