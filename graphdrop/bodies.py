"""Closing a part of a graph over what it uses from outside: the steps of loops, and branches.

A closed `Body` knows nothing of the graph around it.  All that it needs comes in by a slot, also
the node whose value is a size; names of sizes mean the same inside and outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .errors import ShapeError
from .graph import Node, format_origin, toposort
from .op import constant_value
from .ops.leaf import tensor
from .ops.shape import broadcast_to
from .substitute import Body, map_sizes, size_of_value, slot, substitute
from .types import Atom, Shape, Size, atoms_of, value_dim

# (number of a body's input, the size outside that its value is)
Values: TypeAlias = "tuple[tuple[int, Size], ...]"


@dataclass(frozen=True)
class Closure:
    """A closed part of a graph.

    body      a function of the placeholders and of what is captured
    captured  nodes from outside, in the order of the body's last inputs
    values    sizes in the types of the body's inputs and outputs that are values of captured nodes
    """

    body: Body
    captured: tuple[Node, ...]
    values: Values


def close(
    placeholders: Sequence[Node], results: Sequence[Node], is_outer: Callable[[Node], bool]
) -> Closure:
    """`results` as a body of the placeholders and of the nodes at the border to the outside.

    is_outer  whether a node that is no placeholder is computed outside; its operands then are too.
              Constants go inside
    """
    inner = set(placeholders)

    def is_given(node: Node) -> bool:
        return is_outer(node) and not is_constant(node)

    order = toposort(results, stop=lambda n: n in inner or is_given(n))
    border = [n for n in order if n not in inner and is_given(n)]
    captured = dict.fromkeys(border)
    for node in (*placeholders, *border):
        captured.update(dict.fromkeys(s for s in _size_sources(node.shape) if s not in inner))
    nodes = [*placeholders, *captured]
    places: dict[Node, Node] = {}
    sizes: dict[Atom, Size] = {}
    for number, node in _size_sources_first(nodes):
        places[node] = slot(number, map_sizes(node.type, sizes))
        if node.value_atom is not None:
            sizes[node.value_atom] = value_dim(places[node])
    body = Body(tuple(places[n] for n in nodes), tuple(substitute(results, places, sizes)))
    named = {s for n in (*body.inputs, *body.outputs) for s in _size_sources(n.shape)}
    values = tuple(
        (i, size_of_value(n)) for i, n in enumerate(nodes) if n in captured and places[n] in named
    )
    return Closure(body, tuple(captured), values)


def is_constant(node: Node) -> bool:
    """Whether a node is a constant, or one number everywhere, which needs no memory."""
    if node.op is broadcast_to and not node.size_inputs:
        return constant_value(node.inputs[0]) is not None and not node.inputs[0].ndim
    return constant_value(node) is not None


def open_slots(body: Body, given: Sequence[Node | None]) -> tuple[list[Node], list[Node]]:
    """The given nodes in the places of slots (None: placeholders), and the outputs on them."""
    places: dict[Node, Node] = {}
    sizes: dict[Atom, Size] = {}
    for number, old in _size_sources_first(body.inputs):
        new = given[number]
        if new is None:
            new = tensor(None, old.dtype, map_sizes(old.shape, sizes))
        places[old] = new
        if old.value_atom is not None:
            sizes[old.value_atom] = size_of_value(new)
    return [places[s] for s in body.inputs], substitute(body.outputs, places, sizes)


def sizes_outside(body: Body, values: Values) -> dict[Atom, Size]:
    """What the sizes that are values of slots are outside."""
    found = {}
    for number, size in values:
        atom = body.inputs[number].value_atom
        assert atom is not None, "a slot whose value is a size has an atom"
        found[atom] = size
    return found


def outer_shape(node: Node, outside: Mapping[Atom, Size], what: str) -> Shape:
    """The shape of a body's result as it is outside; ShapeError if that depends on the inside."""
    for atom in atoms_of(node.shape):
        if atom.kind == "value" and atom not in outside:
            raise ShapeError(
                f"{what} {node.type} (built at {format_origin(node.origin)}) has a size that is "
                f"computed inside; compute it outside, or pad to a size known outside"
            )
    shape: Shape = map_sizes(node.shape, outside)
    return shape


def inner_nodes(order: Sequence[Node]) -> list[Node]:
    """The nodes of a graph and of all bodies in it, nested ones too."""
    found = list(order)
    for node in found:
        for value in node.params.values():
            if isinstance(value, Body):
                found.extend(toposort(value.outputs))
    return found


def _size_sources(shape: Shape) -> list[Node]:
    """The nodes whose values are sizes in a shape."""
    return [a.args[0] for a in atoms_of(shape) if a.kind == "value"]


def _size_sources_first(nodes: Sequence[Node]) -> list[tuple[int, Node]]:
    """Numbered nodes; those that may be sizes in the types of others come first."""
    return sorted(enumerate(nodes), key=lambda pair: pair[1].value_atom is None)
