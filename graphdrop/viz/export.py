"""A graph as a networkx.DiGraph."""

from __future__ import annotations

from typing import Any

from .. import printing
from ..errors import DependencyError
from ..graph import Node, format_origin, toposort


def to_networkx(obj: Any, *, what: str = "graph", forward: Any = None) -> Any:
    """The graph as a networkx.DiGraph, with an edge from every operand to its user.

    Takes `obj`, `what` and `forward` as `draw` does, and keeps every node.  The DiGraph's nodes are
    graphdrop's own, so `networkx.ancestors(g, loss)` works; their attributes are plain values:

    op, title, kind, part   `kind` is input, shared, constant, stream, dropout, random or op;
                            `part` is forward or gradient
    type, dtype, origin     texts; dtype is left out for an op with several results
    details                 the params, as `dprint` shows them
    site, draw, rate        of draws: the site's number (as text: GraphML has no 64-bit unsigned
                            integers), its name if it has one, the dropout rate if it is constant
    output, updates         of what was asked for: its label; the shared value that it updates

    Edges have `operand`, the operand's name, and `position`; "0,1" where a node is used twice.
    Before writing a file, `networkx.convert_node_labels_to_integers(g)` makes plain labels.
    """
    try:
        import networkx
    except ImportError:
        raise DependencyError(
            "to_networkx needs networkx; install it with: pip install 'graphdrop[viz]'"
        ) from None
    from .picture import forward_part, part_of  # only now, so that `import graphdrop` stays fast

    roots = printing.roots_of(obj, what)
    part = forward_part(roots, forward)
    order = toposort(r.node for r in roots)
    graph = networkx.DiGraph()
    for node in order:
        graph.add_node(node, **_attributes(node), part=part_of(node, part))
        for operand, (names, positions) in _edges(node).items():
            graph.add_edge(operand, node, operand=",".join(names), position=",".join(positions))
    for root in roots:
        if root.updated is None:
            graph.nodes[root.node]["output"] = root.label or "output"
        else:
            graph.nodes[root.node]["updates"] = printing.title(root.updated)
    return graph


def _attributes(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {
        "op": node.op.name,
        "title": printing.title(node),
        "kind": printing.kind_of(node),
        "type": str(node.type),
        "origin": printing.shown(format_origin(node.origin)),
        "details": " ".join(printing.details(node)),
    }
    if hasattr(node.type, "dtype"):
        found["dtype"] = node.dtype.name
    if printing.is_draw(node):
        found["site"] = str(node.params["site"])
        if node.params["name"]:
            found["draw"] = printing.shown(node.params["name"])
        rate = printing.rate_of(node) if "threshold" in node.op.operand_names else None
        if rate is not None:
            found["rate"] = rate
    return found


def _edges(node: Node) -> dict[Node, tuple[list[str], list[str]]]:
    """Operands with the names and positions they have, in order."""
    names = list(node.op.operand_names)
    if node.op.variadic:
        rest = names.pop()
        names += [f"{rest}[{i}]" for i in range(len(node.inputs) - len(names))]
    found: dict[Node, tuple[list[str], list[str]]] = {}
    for position, (name, operand) in enumerate(zip(names, node.inputs, strict=True)):
        entry = found.setdefault(operand, ([], []))
        entry[0].append(name)
        entry[1].append(str(position))
    for source in node.size_inputs:
        entry = found.setdefault(source, ([], []))
        entry[0].append("size")
        entry[1].append("size")
    return found
