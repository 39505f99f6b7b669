"""Sums that a loop carries and only adds to: taken out, and made at once after the loop.

The gradient of a scan carries the sum of the gradients of all that the step captured.  A weight's
gradient is then one product over all steps in place of many small ones, and the rows of a table
that a step looked up are added by one scatter, which `sparse.py` can make an update of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..graph import Node, toposort
from ..ops.elementwise import _cast, add, cast
from ..ops.index import _scatter_add
from ..ops.linalg import _matmul
from ..ops.reduce import sum as sum_of
from ..ops.shape import reshape, transpose
from ..rewrite import Fired, Trace, is_number
from ..scan import Step, open_body, run_step, scan_op, walk_of
from ..types import has_values
from .sparse import is_row_scatter

PHASE = "scan"


@dataclass(frozen=True)
class Term:
    """Something that every step adds to a carry.

    rule  what its removal is called
    rows  what is stacked over the steps
    put   (the carry, the stacked rows) -> the carry with all steps' terms
    """

    rule: str
    rows: tuple[Node, ...]
    put: Callable[[Node, Sequence[Node]], Node]


def sums_after_loop(node: Node, trace: Trace) -> dict[int, Node] | None:
    """The results of a scan whose sums are taken out of the loop; None if it has none."""
    if not any(n.op in _TERMS for n in toposort(node.params["body"].outputs)):
        return None
    step = open_body(node)
    carries, sequences = len(step.carries), len(step.elements)
    uses = Counter(step.results)
    uses.update(d for n in toposort(step.results) for d in n.dependencies)
    found = {k: terms for k in range(carries) if (terms := _terms(step, k, uses))}
    # a plain sum pays where its rows are stacked anyway
    stacked = {*step.results[carries:], *step.elements}
    stacked |= {r for terms in found.values() for t in terms if len(t.rows) > 1 for r in t.rows}
    for k, terms in list(found.items()):
        if any(len(t.rows) == 1 and t.rows[0] not in stacked for t in terms):
            del found[k]
    if not found:
        return None
    kept = [k for k in range(len(step.results)) if k not in found]
    first = [k for k in kept if k < carries]
    rows = dict.fromkeys(r for terms in found.values() for t in terms for r in t.rows)
    outer = dict(zip(step.elements, node.inputs[carries : carries + sequences], strict=True))
    outs = step.results[carries:]
    fresh = [r for r in rows if r not in outer and r not in outs]
    made = run_step(
        Step(
            step.index,
            [step.carries[k] for k in first],
            step.elements,
            [*(step.results[k] for k in kept), *fresh],
        ),
        [node.inputs[k] for k in first],
        list(outer.values()),
        walk_of(node),
    )
    results = dict(zip(kept, made, strict=False))
    outer |= dict(zip(fresh, made[len(kept) :], strict=True))
    outer |= {n: results[carries + i] for i, n in enumerate(outs)}
    for k, terms in found.items():
        results[k] = node.inputs[k]
        for t in terms:
            results[k] = t.put(results[k], [outer[r] for r in t.rows])
            trace.append(Fired(PHASE, t.rule, node, results[k], node.origin))
    return results


def _terms(step: Step, k: int, uses: Counter[Node]) -> list[Term]:
    """What a step adds to carry k, if it does nothing else with it; else []."""
    carry, result = step.carries[k], step.results[k]
    oldest = min(n.serial for n in (step.index, *step.carries, *step.elements))
    terms, todo, carried = [], [result], 0
    while todo:
        node = todo.pop()
        if uses[node] > 1:
            return []
        if node is carry:
            carried += 1
        elif node.op is add and all(i.shape == carry.shape for i in node.inputs):
            todo += node.inputs
        else:
            term = _TERMS[node.op](node) if node.op in _TERMS else None
            # sizes that are values may be others in every step
            if term is None or any(_from_loop(r, oldest) or has_values(r.shape) for r in term.rows):
                return []
            terms.append(term)
            if node.op is _scatter_add and not is_number(node.inputs[0], 0):
                todo.append(node.inputs[0])
    return terms[::-1] if carried == 1 else []


def _from_loop(row: Node, oldest: int) -> bool:
    """Whether rows are made by a loop inside, a block of a checkpointed scan: to stack these for
    all blocks would take the memory that checkpointing saves.
    """
    inside = toposort([row], stop=lambda n: n.serial <= oldest)
    return any(n.op is scan_op for n in inside)


# --------------------------------------------------------------------------------------------
# kinds of terms


def _scattered(node: Node) -> Term | None:
    if not is_row_scatter(node):
        return None
    params = dict(node.params)
    return Term(
        "rows_after_loop", node.inputs[1:],
        lambda total, rows: _scatter_add.make((total, *rows), params),
    )  # fmt: skip


def _product(node: Node) -> Term | None:
    """a' b of matrices, a' often being the transpose of the rows a; rounded or not."""
    product = node.inputs[0] if node.op is _cast else node
    if product.op is not _matmul or product.ndim != 2:
        return None
    left, right = product.inputs
    flipped = left.op is transpose
    rows = (left.inputs[0] if flipped else left, right)

    def put(total: Node, stacked: Sequence[Node]) -> Node:
        a, b = stacked
        many = b.shape[0] * b.shape[1]
        right = reshape(b, (many, b.shape[2]))
        if flipped:
            left = transpose(reshape(a, (many, a.shape[2])))
        else:
            left = reshape(transpose(a, (1, 0, 2)), (a.shape[1], many))
        return total + cast(_matmul.make((left, right)), node.dtype)

    return Term("product_after_loop", rows, put)


def _reduced(node: Node) -> Term | None:
    axes = (0, *(a + 1 for a in node.params["axis"]))
    return Term(
        "sum_after_loop", node.inputs,
        lambda total, rows: total + reshape(sum_of(rows[0], axis=axes), total.shape),
    )  # fmt: skip


_TERMS: dict[object, Callable[[Node], Term | None]] = {
    _scatter_add: _scattered,
    _matmul: _product,
    _cast: _product,
    sum_of: _reduced,
}
