"""Monte-Carlo dropout: what a network says over many masks, as its mean and variance.

The part of the graph that depends on draws becomes the step of a scan over samples, so one call of
a compiled function draws all of them; what does not depend on draws is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .. import tree
from ..bodies import inner_nodes, open_slots
from ..cond import close_branches, cond_op
from ..errors import ArgumentError, DTypeError
from ..graph import Node, origin_scope, toposort
from ..op import as_node, composed, get
from ..ops.create import zeros_like
from ..ops.elementwise import cast
from ..ops.leaf import as_size
from ..random import current_step
from ..scan import open_body, run_step, scan, scan_op, walk_of
from ..substitute import rebuild
from ..types import Atom, Size


@composed
def mc_dropout(outputs: Any, samples: Any = 50) -> tuple[Any, Any]:
    """Mean and variance of `outputs` over masks drawn afresh (Gal and Ghahramani 2016).

    outputs  float nodes, nested in any way, that draw: of dropout with training on
    samples  how many, an int or a symbolic size; the variance is the mean squared deviation from
             the mean (divided by `samples`)

    Memory does not grow with the number of samples (Welford 1962).  A draw of sample i takes step
    1 + i; one inside a scan over T steps, i * T more than its own.  With a run-time flag that is
    off nothing is drawn, and the variance is 0.
    """
    nodes, structure = tree.flatten(outputs)
    nodes = [as_node(n) for n in nodes]
    for node in nodes:
        if not node.tensor_type.is_float:
            raise DTypeError(f"takes floats, which have a mean, got {node!r}")
    if not any(_draws(n) for n in inner_nodes(toposort(nodes))):
        raise ArgumentError(
            "nothing in the outputs draws, so all samples would be equal; build them with "
            "gd.dropout and training=True, or a run-time flag"
        )
    length, outer = as_size(samples), current_step.get()

    def step(carry: Any, _: None) -> tuple[Any, None]:
        here = current_step.get()
        assert here is not None, "a scan says which step it is"
        made = _Redrawn(here, 1 if outer is None else outer).of(nodes)
        count, means, squares = carry
        count = count + 1
        off = [x - m for x, m in zip(made, means, strict=True)]
        means = [m + d / cast(count, m.dtype) for m, d in zip(means, off, strict=True)]
        squares = [s + d * (x - m) for s, d, x, m in zip(squares, off, made, means, strict=True)]
        return (count, means, squares), None

    zeros = [zeros_like(n) for n in nodes]
    (_, means, squares), _ = scan(step, init=(as_node(0), zeros, zeros), length=length)
    divisor = as_node(length)
    found = [s / cast(divisor, s.dtype) for s in squares]
    return tree.unflatten(structure, means), tree.unflatten(structure, found)


def _draws(node: Node) -> bool:
    return "key" in node.op.operand_names


class _Redrawn:
    """A graph in which every draw belongs to another step.

    here   the step of draws outside all scans; what was it is `outer`
    """

    def __init__(self, here: Node, outer: Any) -> None:
        self.here, self.shift = here, here - outer

    def of(self, nodes: Sequence[Node]) -> list[Node]:
        return self._walk(nodes, None, lambda n: False)

    def _walk(
        self, outputs: Sequence[Node], counted: Any, is_outer: Callable[[Node], bool]
    ) -> list[Node]:
        """`outputs` with their draws moved; `counted` is how many steps the scans around them have.

        is_outer  what is computed outside of these, where it was moved already
        """
        done: dict[Node, Node] = {}
        results: dict[Node, list[Node]] = {}
        sizes: dict[Atom, Size] = {}
        for node in toposort(outputs, stop=is_outer):
            if is_outer(node):
                done[node] = node
            elif node.op is get and node.inputs[0] in results:
                done[node] = results[node.inputs[0]][node.params["index"]]
            else:
                with origin_scope(node.origin):
                    new = done[node] = rebuild(node, done, sizes)
                    if _draws(node):
                        done[node] = self._moved(new, counted)
                    elif node.op in _PARTS and any(map(_draws, inner_nodes([node]))):
                        results[node] = _PARTS[node.op](self, new, counted)
        return [done[n] for n in outputs]

    def _moved(self, draw: Node, counted: Any) -> Node:
        place = draw.op.operand_names.index("step")
        old = draw.inputs[place]
        new = self.here if counted is None else old + self.shift * counted
        return draw.op.make((*draw.inputs[:place], new, *draw.inputs[place + 1 :]), {**draw.params})

    def _scan(self, node: Node, counted: Any) -> list[Node]:
        step, walk = open_body(node), walk_of(node)
        first = node.params["carries"] + node.params["sequences"]
        outside = set(node.inputs[first:])
        inside = 1 if counted is None else counted
        if walk.counted is not None:
            inside = inside * as_node(walk.counted)
        results = self._walk(step.results, inside, outside.__contains__)
        given = node.inputs[:first]
        init, rows = given[: node.params["carries"]], given[node.params["carries"] :]
        return run_step(replace(step, results=results), init, rows, walk)

    def _cond(self, node: Node, counted: Any) -> list[Node]:
        predicate, *captured = node.inputs
        outside = {*captured, self.here, self.shift, *([counted] if counted is not None else [])}
        bodies = (node.params["then"], node.params["otherwise"])
        then, otherwise = (
            self._walk(open_slots(body, captured)[1], counted, outside.__contains__)
            for body in bodies
        )
        return close_branches(predicate, then, otherwise, lambda n: n in outside or not n.inputs)


_PARTS = {scan_op: _Redrawn._scan, cond_op: _Redrawn._cond}
