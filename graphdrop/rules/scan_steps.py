"""What a loop need not do step by step: parts that are the same in every step, copies, work on the
sequences alone, and loops of one step or none.

Each function gives new results of a scan by their old numbers, or None where it finds nothing.
Draws keep their steps, so no mask changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..bodies import is_constant
from ..graph import Node, toposort
from ..op import constant
from ..ops.create import zeros
from ..ops.leaf import tensor
from ..ops.linalg import _matmul
from ..ops.shape import broadcast_to, expand_dims, reshape
from ..rewrite import Fired, Trace
from ..scan import Step, open_body, run_step, scan_op, walk_of
from ..substitute import Body, substitute

PHASE = "scan"
Results = dict[int, Node] | None


def _parts(node: Node) -> tuple[list[Node], list[Node]]:
    """The first carries and the sequences of a scan."""
    carries, sequences = node.params["carries"], node.params["sequences"]
    return list(node.inputs[:carries]), list(node.inputs[carries : carries + sequences])


def _done(rule: str, node: Node, results: dict[int, Node], trace: Trace) -> dict[int, Node]:
    after = next(iter(results.values()), node)
    trace.append(Fired(PHASE, rule, node, after, node.origin))
    return results


def known_length(node: Node, trace: Trace) -> Results:
    """A loop of one step as that step, and of no step as what it starts with."""
    length = node.params["length"]
    if not isinstance(length, int) or length not in (0, 1):
        return None
    init, sequences = _parts(node)
    count = len(init)
    if length == 0:
        outs = [zeros(t.shape, t.dtype) for t in node.type.items[count:]]
        return _done("no_steps", node, dict(enumerate([*init, *outs])), trace)
    step = open_body(node)
    given = dict(zip(step.carries, init, strict=True))
    given |= {e: s[0] for e, s in zip(step.elements, sequences, strict=True)}
    given[step.index] = constant(0, "int64")
    made = substitute(step.results, given)
    results = [*made[:count], *(expand_dims(o, 0) for o in made[count:])]
    return _done("one_step", node, dict(enumerate(results)), trace)


def same_in_every_step(node: Node, trace: Trace) -> Results:
    """What a step computes of captured values alone is computed before the loop."""
    body: Body = node.params["body"]
    first = 1 + node.params["carries"] + node.params["sequences"]
    varying = set(body.inputs[:first])
    found = False
    for n in toposort(body.outputs):
        if any(d in varying for d in n.dependencies):
            varying.add(n)
        elif n.inputs and not is_constant(n):
            found = True
    if not found:
        return None
    init, sequences = _parts(node)
    made = run_step(open_body(node), init, sequences, walk_of(node))
    return _done("same_in_every_step", node, dict(enumerate(made)), trace)


def copies(node: Node, trace: Trace) -> Results:
    """Carries that never change, sequences and outs given twice, outs that are the same in all
    steps: none of them is walked."""
    init, sequences = _parts(node)
    step = open_body(node)
    places: dict[Node, Node] = {}
    for carry, new, start in zip(step.carries, step.results, init, strict=False):
        if new is carry:
            places[carry] = start
    firsts: dict[Node, Node] = {}
    for element, sequence in zip(step.elements, sequences, strict=True):
        if firsts.setdefault(sequence, element) is not element:
            places[element] = firsts[sequence]
    results = substitute(step.results, places)
    oldest = min(n.serial for n in (step.index, *step.carries, *step.elements))
    inner = {step.index, *step.carries, *step.elements}
    for n in toposort(results, stop=lambda n: n.serial <= oldest):
        if not inner.isdisjoint(n.dependencies):
            inner.add(n)
    count, walk = len(init), walk_of(node)
    carried = [i for i in range(count) if step.carries[i] not in places]
    elements = [i for i in range(len(sequences)) if step.elements[i] not in places]
    outs: dict[Node, int] = {}
    still: dict[int, Node] = {}
    for i in range(count, len(results)):
        if results[i] in inner:
            outs.setdefault(results[i], i)
        else:
            still[i] = broadcast_to(results[i], (walk.length, *results[i].shape))
    if not places and not still and len(outs) == len(results) - count:
        return None
    kept = [*carried, *outs.values()]
    made = run_step(
        Step(
            step.index, [step.carries[i] for i in carried], [step.elements[i] for i in elements],
            [results[i] for i in kept],
        ),
        [init[i] for i in carried], [sequences[i] for i in elements], walk,
    )  # fmt: skip
    found = {i: init[i] for i in range(count) if i not in carried}
    found |= dict(zip(kept, made, strict=True)) | still
    for i in range(count, len(results)):
        found.setdefault(i, found[outs[results[i]]] if results[i] in outs else still[i])
    return _done("copies_in_scan", node, found, trace)


def products_before_loop(node: Node, trace: Trace) -> Results:
    """Products of elements with captured weights, made for the whole sequences at once.

    What stands between the elements and the product comes along, and what uses the product, as far
    as it is elementwise: nothing else of it is left in the loop.
    """
    order = toposort(node.params["body"].outputs)
    # blocks of a checkpointed scan: products of all of them would take the memory that it saves
    blocks = any(n.op is scan_op and n.params["counted"] is None for n in order)
    if blocks or not any(n.op is _matmul for n in order):
        return None
    init, sequences = _parts(node)
    step = open_body(node)
    lifted = _Lifted(step, sequences)
    order = toposort(step.results, stop=lambda n: n.serial <= lifted.oldest)
    wide = [n for n in order if lifted.of(n) is not None]
    products = {n for n in wide if n.op is _matmul}
    for n in wide:  # and what is made of them
        if not products.isdisjoint(n.inputs):
            products.add(n)
    used_outside = set(step.results)
    for n in order:
        if n not in products:
            used_outside.update(n.inputs)
    roots = [n for n in order if n in products and n in used_outside]
    if not roots:
        return None
    rows = [tensor("element", n.dtype, n.shape) for n in roots]
    places = dict(zip(roots, rows, strict=True))
    more = [lifted.of(n) for n in roots]
    results = substitute(step.results, places)
    wider = replace(step, elements=[*step.elements, *rows], results=results)
    made = run_step(wider, init, [*sequences, *(m for m in more if m is not None)], walk_of(node))
    return _done("product_before_loop", node, dict(enumerate(made)), trace)


class _Lifted:
    """Values of a step for all steps at once, with a leading axis of time."""

    def __init__(self, step: Step, sequences: Sequence[Node]) -> None:
        self.inner = {step.index, *step.carries, *step.elements}
        self.oldest = min(n.serial for n in self.inner)
        self.found: dict[Node, Node | None] = dict(zip(step.elements, sequences, strict=True))
        self.varying = set(self.inner)
        for n in toposort(step.results, stop=lambda n: n.serial <= self.oldest):
            if not self.varying.isdisjoint(n.dependencies):
                self.varying.add(n)
                self.found[n] = self._lift(n)

    def of(self, node: Node) -> Node | None:
        """The value for all steps; None if it cannot be had before the loop."""
        return self.found.get(node)

    def _lift(self, node: Node) -> Node | None:
        inside = [i for i in node.inputs if i in self.varying]
        given = [self.found.get(i) for i in inside]
        if None in given or any(d not in node.inputs for d in node.dependencies):
            return None
        wide = dict(zip(inside, given, strict=True))
        if node.op.elementwise:
            operands = tuple(
                self._aligned(i, wide[i], node) if i in wide else i for i in node.inputs
            )
            return node.op.make(operands, dict(node.params))
        if node.op is reshape:
            source = wide[node.inputs[0]]
            assert source is not None
            return reshape(source, (source.shape[0], *node.shape))
        if node.op is _matmul and node.inputs[1] not in wide and node.inputs[1].ndim == 2:
            rows = wide[node.inputs[0]]
            assert rows is not None
            if rows.ndim != 3:
                return None
            time, batch, size = rows.shape
            flat = _matmul.make((reshape(rows, (time * batch, size)), node.inputs[1]))
            return reshape(flat, (time, *node.shape))
        return None

    def _aligned(self, row: Node, wide: Node | None, node: Node) -> Node:
        """All rows of an operand, with axes of size 1 where it broadcasts against others."""
        assert wide is not None
        missing = node.ndim - row.ndim
        if not missing:
            return wide
        return reshape(wide, (wide.shape[0], *(1,) * missing, *row.shape))
