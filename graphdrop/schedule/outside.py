"""A step that a backend does not print, as a graph of its own for a backend that computes it."""

from __future__ import annotations

from ..backend import Graph
from ..graph import Node
from ..op import get
from ..substitute import map_sizes, slot, substitute
from ..types import Atom, Size, TupleType, value_dim
from .program import Outside


def closed(step: Outside, atoms: tuple[Atom, ...]) -> Graph:
    """The graph of the step alone, its operands as inputs, in their order."""
    slots: dict[Node, Node] = {}
    sizes: dict[Atom, Size] = {}
    # sizes that are values of operands are values of their slots: scalars come first
    for i, (n, _) in sorted(enumerate(step.operands), key=lambda item: item[1][0].ndim):
        slots[n] = slot(i, n.type.with_shape(map_sizes(n.shape, sizes)))
        if n.value_atom is not None:
            sizes[n.value_atom] = value_dim(slots[n])
    (node,) = substitute([step.node], slots)
    outputs: tuple[Node, ...] = (node,)
    if isinstance(node.type, TupleType):
        outputs = tuple(
            get.make((node,), {"index": i}) for i, b in enumerate(step.results) if b is not None
        )
    return Graph(tuple(slots[n] for n, _ in step.operands), outputs, atoms)
