"""Rows looked up in a loop: their gradients are added to the table once, after the loop.

The gradient of a scan carries the sum of the gradients of what the step captured.  For a table of
which a step takes rows this adds a whole table a step; here the rows of all steps are stacked and
put by one `scatter_add`, which `sparse.py` can then make an update of rows.
"""

from __future__ import annotations

from collections import Counter

from ..graph import Node, toposort
from ..op import get
from ..ops.elementwise import add
from ..ops.index import _scatter_add
from ..rewrite import Fired, Trace, is_number
from ..scan import Step, open_body, run_step, scan_op, walk_of
from .sparse import is_row_scatter

PHASE = "scan"


def rows_after_loop(node: Node, trace: Trace) -> dict[int, Node] | None:
    """The results of a scan whose sums of rows are taken out of the loop; None if it has none."""
    if not any(n.op is _scatter_add for n in toposort(node.params["body"].outputs)):
        return None
    step = open_body(node)
    carries, sequences = len(step.carries), len(step.elements)
    uses = Counter(step.results)
    uses.update(d for n in toposort(step.results) for d in n.dependencies)
    found = {k: terms for k in range(carries) if (terms := _terms(step, k, uses))}
    if not found:
        return None
    kept = [k for k in range(len(step.results)) if k not in found]
    first = [k for k in kept if k < carries]
    rows = [n for terms in found.values() for t in terms for n in t.inputs[1:]]
    made = run_step(
        Step(
            step.index,
            [step.carries[k] for k in first],
            step.elements,
            [*(step.results[k] for k in kept), *rows],
        ),
        [node.inputs[k] for k in first],
        list(node.inputs[carries : carries + sequences]),
        walk_of(node),
    )
    results = dict(zip(kept, made, strict=False))
    stacked = iter(made[len(kept) :])
    for k, terms in found.items():
        results[k] = node.inputs[k]
        for t in terms:
            operands = (results[k], next(stacked), next(stacked))
            results[k] = _scatter_add.make(operands, dict(t.params))
        trace.append(Fired(PHASE, "rows_after_loop", node, results[k], node.origin))
    return results


def _terms(step: Step, k: int, uses: Counter[Node]) -> list[Node]:
    """The scatters that a step adds to carry k, if it does nothing else with it; else []."""
    carry, result = step.carries[k], step.results[k]
    terms, todo, carried = [], [result], 0
    while todo:
        node = todo.pop()
        if uses[node] > 1:
            return []
        if node is carry:
            carried += 1
        elif node.op is add and all(i.shape == carry.shape for i in node.inputs):
            todo += node.inputs
        elif node.op is _scatter_add and is_row_scatter(node) and not _is_stacked(node.inputs[1]):
            terms.append(node)
            if not is_number(node.inputs[0], 0):
                todo.append(node.inputs[0])
        else:
            return []
    return terms[::-1] if carried == 1 else []


def _is_stacked(rows: Node) -> bool:
    """Whether rows are those of a loop inside, a block of a checkpointed scan: to stack these for
    all blocks would take the memory that checkpointing saves.
    """
    return rows.op is get and rows.inputs[0].op is scan_op
