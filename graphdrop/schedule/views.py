"""Views: operations that give memory another shape and compute nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..graph import Node
from ..ops import index as indexing
from ..ops import leaf, shape
from ..ops.elementwise import stop_gradient
from ..types import Shape, Size, floordiv, num_elements
from .program import Place, contiguous


def view_of(node: Node, source: Place) -> Place | None:
    """Where the result of a view is, given its operand's place; None if it must be copied."""
    rule = _VIEWS.get(node.op)
    return None if rule is None else rule(node, source)


def is_view(node: Node) -> bool:
    """Whether the node may be a view of its first operand."""
    return node.op in _VIEWS


def _same(node: Node, source: Place) -> Place:
    return replace(source, shape=node.shape)


def _transpose(node: Node, source: Place) -> Place:
    strides = tuple(source.strides[a] for a in node.params["axes"])
    return replace(source, shape=node.shape, strides=strides)


def _broadcast(node: Node, source: Place) -> Place:
    return replace(source, shape=node.shape, strides=stretched(source, node.shape))


def stretched(source: Place, domain: Shape) -> Shape:
    """The strides of a place along the axes of a domain that it broadcasts to."""
    lead = len(domain) - len(source.shape)
    found: list[Size] = [0] * lead
    for stride, size in zip(source.strides, source.shape, strict=True):
        found.append(0 if size == 1 else stride)
    return tuple(found)


def _subtensor(node: Node, source: Place) -> Place:
    return part_of(source, node.params["index"], node.shape)


def part_of(source: Place, index: tuple[Any, ...], shape: Shape) -> Place:
    """Where the elements are that positions and slices take from a place."""
    strides: list[Size] = []
    offset, axis = source.offset, 0
    for entry in index:
        if entry == "new":
            strides.append(0)
            continue
        stride = source.strides[axis]
        axis += 1
        if isinstance(entry, tuple):
            start, step, _ = entry
            offset = offset + start * stride
            strides.append(stride * step)
        else:
            offset = offset + entry * stride
    return replace(source, shape=shape, strides=tuple(strides), offset=offset)


def _reshape(node: Node, source: Place) -> Place | None:
    strides = reshaped(source.shape, source.strides, node.shape)
    return None if strides is None else replace(source, shape=node.shape, strides=strides)


def reshaped(old: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides of the same elements, in C order, under another shape; None if there are none.

    Axes are taken in groups of equal products, as they come; a group of old axes must be evenly
    spaced.
    """
    rest = [(s, t) for s, t in zip(old, strides, strict=True) if s != 1]
    found: list[Size] = []
    i, sizes = 0, list(new)
    while i < len(sizes):
        if sizes[i] == 1:
            found.append(0)
            i += 1
            continue
        if not rest:
            return None
        size, step = rest.pop(0)
        group = [sizes[i]]
        i += 1
        # take from either side until both products agree
        while (product := num_elements(tuple(group))) != size:
            if rest and _divides(product, size):
                more, finer = rest.pop(0)
                if step != finer * more:
                    return None
                size, step = size * more, finer
            elif i < len(sizes):
                group.append(sizes[i])
                i += 1
            elif rest:
                more, finer = rest.pop(0)
                if step != finer * more:
                    return None
                size, step = size * more, finer
            else:
                return None
        found += [step * s for s in contiguous(tuple(group))]
    return tuple(found) if not rest else None


def _divides(whole: Size, part: Size) -> bool:
    """Whether `whole` is seen to be a multiple of `part`, and larger."""
    return whole != part and part != 0 and floordiv(whole, part) * part == whole


_VIEWS: dict[Any, Callable[[Node, Place], Place | None]] = {
    shape.transpose: _transpose,
    shape.reshape: _reshape,
    shape.broadcast_to: _broadcast,
    shape.specify_shape: _same,
    stop_gradient: _same,
    leaf.override_gradient: _same,
    indexing._subtensor: _subtensor,
}
