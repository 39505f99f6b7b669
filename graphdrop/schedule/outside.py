"""A step that a backend does not print, as a graph of its own for a backend that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..backend import Graph
from ..graph import Node
from ..op import get
from ..ops.leaf import tensor
from ..substitute import map_sizes, substitute
from ..types import Atom, Size, TupleType, value_dim
from .program import Outside, Place


def closed(step: Outside, atoms: tuple[Atom, ...]) -> Graph:
    """The graph of the step alone, its operands as inputs, in their order.

    An input is called as its operand is, or as what computes that: messages show it.
    """
    places: dict[Node, Node] = {}
    sizes: dict[Atom, Size] = {}
    # sizes that are values of operands are values of their inputs: scalars come first
    for n, _ in sorted(step.operands, key=lambda operand: operand[0].ndim):
        places[n] = tensor(n.name or n.op.name, n.dtype, map_sizes(n.shape, sizes))
        if n.value_atom is not None:
            sizes[n.value_atom] = value_dim(places[n])
    (node,) = substitute([step.node], places)
    outputs: tuple[Node, ...] = (node,)
    if isinstance(node.type, TupleType):
        outputs = tuple(
            get.make((node,), {"index": i}) for i, b in enumerate(step.results) if b is not None
        )
    return Graph(tuple(places[n] for n, _ in step.operands), outputs, atoms)


def operands(
    step: Outside, env: Mapping[Atom, int], fetch: Callable[[Place, dict[Atom, int]], Any]
) -> list[Any]:
    """The arrays of the step's operands in their order, each fetched for the sizes of a call.

    Scalars come first: sizes of the others may be their values.
    """
    known, found = dict(env), {}
    for node, place in sorted(step.operands, key=lambda operand: operand[0].ndim):
        found[node] = fetch(place, known)
        if node.value_atom is not None:
            known[node.value_atom] = int(found[node])
    return [found[node] for node, _ in step.operands]
