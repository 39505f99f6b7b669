"""Loops of equal length that do not need each other, as one loop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from ..graph import Node, toposort
from ..op import get
from ..rewrite import Fired, Trace
from ..scan import Step, open_body, run_step, scan_op, walk_of
from ..substitute import substitute

PHASE = "scan"


def merge_scans(outputs: list[Node], trace: Trace) -> list[Node]:
    """`outputs` with pairs of scans over the same steps in the same direction made one."""
    while (pair := _independent_pair(outputs)) is not None:
        merged = _merged(*pair)
        trace.append(Fired(PHASE, "merged_scans", pair[1], merged[0].inputs[0], pair[1].origin))
        old = [n for n in toposort(outputs) if n.op is get and n.inputs[0] in pair]
        begin = {pair[0]: 0, pair[1]: len(pair[0].type.items)}
        replaced = {n: merged[begin[n.inputs[0]] + n.params["index"]] for n in old}
        outputs = substitute(outputs, replaced)
    return outputs


def _independent_pair(outputs: Sequence[Node]) -> tuple[Node, Node] | None:
    order = toposort(outputs)
    scans = [n for n in order if n.op is scan_op]
    if len(scans) < 2:
        return None
    above: dict[Node, set[Node]] = {}  # the scans that a node needs
    for node in order:
        needs = set[Node]().union(*(above[d] for d in node.dependencies))
        above[node] = needs | {node} if node.op is scan_op else needs
    for a, b in combinations(scans, 2):
        if walk_of(a) == walk_of(b) and a not in above[b] and b not in above[a]:
            return a, b
    return None


def _merged(a: Node, b: Node) -> list[Node]:
    """The results of a, then those of b, from one loop."""
    one, two = open_body(a), open_body(b)
    results = substitute(two.results, {two.index: one.index})
    na, nb = len(one.carries), len(two.carries)
    step = Step(
        one.index, [*one.carries, *two.carries], [*one.elements, *two.elements],
        [*one.results[:na], *results[:nb], *one.results[na:], *results[nb:]],
    )  # fmt: skip
    init = [*a.inputs[:na], *b.inputs[:nb]]
    rows = [*a.inputs[na : na + len(one.elements)], *b.inputs[nb : nb + len(two.elements)]]
    made = run_step(step, init, rows, walk_of(a))
    outs = na + nb + len(one.results) - na
    return [*made[:na], *made[na + nb : outs], *made[na : na + nb], *made[outs:]]
