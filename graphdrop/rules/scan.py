"""Loops: what a scan computes and nobody uses goes; its body is rewritten like any graph.

What does not depend on the loop is taken out when a body is closed (`scan.run_step`), so a body
that is opened here and closed again loses what rewrites have made independent of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from ..graph import Node, origin_scope, toposort
from ..op import get
from ..rewrite import Fired, Trace, rounds
from ..scan import Step, open_body, run_step, scan_op, walk_of
from ..substitute import Body, rebuild
from ..types import Atom, Size
from .scan_kept import keep_for_gradients
from .scan_merge import merge_scans
from .scan_steps import copies, known_length, products_before_loop, same_in_every_step
from .scan_sums import sums_after_loop

PHASE = "scan"
Optimize = Callable[[Iterable[Node]], tuple[list[Node], Trace]]


# in this order, again and again until none finds anything
CHANGES: tuple[Callable[[Node, Trace], dict[int, Node] | None], ...] = (
    known_length, same_in_every_step, copies, products_before_loop, sums_after_loop,
)  # fmt: skip


def optimize_scans(
    outputs: list[Node], trace: Trace, optimize: Optimize
) -> tuple[list[Node], Trace]:
    """`outputs` with every scan's body rewritten by `optimize`, and what need not be in it out."""
    if not any(n.op is scan_op for n in toposort(outputs)):
        return outputs, trace
    outputs = _without_unused(outputs, trace)
    outputs = better_bodies(outputs, trace, optimize)
    outputs = keep_for_gradients(outputs, trace)
    for _ in rounds(trace):
        fired = len(trace)
        for change in CHANGES:
            outputs = _until_settled(outputs, lambda node, c=change: c(node, trace), trace)  # type: ignore[misc]
        outputs = merge_scans(_without_unused(outputs, trace), trace)
        if fired == len(trace):
            break
    return outputs, trace


def better_bodies(outputs: list[Node], trace: Trace, optimize: Optimize) -> list[Node]:
    """`outputs` with every scan's body rewritten by `optimize`."""
    best: set[Body] = set()
    return _until_settled(
        outputs, lambda node: _with_better_body(node, trace, optimize, best), trace
    )


def _without_unused(outputs: list[Node], trace: Trace) -> list[Node]:
    # a scan that loses a part may have been the only user of a part of another
    while True:
        used = _used_results(outputs)
        pruned = _each_scan(outputs, partial(_pruned, used=used, trace=trace))
        if pruned == outputs:
            return outputs
        outputs = pruned


def _until_settled(
    outputs: list[Node], change: Callable[[Node], dict[int, Node] | None], trace: Trace
) -> list[Node]:
    """A change made in every scan; what stands on a changed one has its turn in the next pass."""
    for _ in rounds(trace):
        before, outputs = outputs, _each_scan(outputs, change)
        if outputs == before:
            break
    return outputs


def _each_scan(outputs: list[Node], change: Callable[[Node], dict[int, Node] | None]) -> list[Node]:
    """The graph with the results of scans replaced: `change` gives new results by old index."""
    done: dict[Node, Node] = {}  # what has changed
    results: dict[Node, dict[int, Node]] = {}
    sizes: dict[Atom, Size] = {}
    for node in toposort(outputs):
        if node.op is get and node.inputs[0] in results:
            done[node] = results[node.inputs[0]][node.params["index"]]
            continue
        same = done.keys().isdisjoint(node.dependencies)
        new = node if same else rebuild(node, done, sizes)
        if new is not node:
            done[node] = new
        elif node.op is scan_op:
            with origin_scope(node.origin):
                found = change(node)
            if found is not None:
                results[node] = found
    return [done.get(n, n) for n in outputs]


def _used_results(outputs: Sequence[Node]) -> dict[Node, set[int]]:
    used: dict[Node, set[int]] = {}
    for node in toposort(outputs):
        if node.op is scan_op:
            used[node] = set()
        elif node.op is get and node.inputs[0].op is scan_op:
            used[node.inputs[0]].add(node.params["index"])
    return used


def _pruned(node: Node, *, used: dict[Node, set[int]], trace: Trace) -> dict[int, Node] | None:
    """The used results of a scan that computes nothing else; None if it computes nothing else."""
    body: Body = node.params["body"]
    nc, ns = node.params["carries"], node.params["sequences"]
    outs = [i for i in range(nc, len(body.outputs)) if i in used[node]]
    carries = {i for i in range(nc) if i in used[node]}
    while True:  # a carry is needed if what is needed reads it
        read = set(toposort([body.outputs[i] for i in (*sorted(carries), *outs)]))
        more = {i for i in range(nc) if body.inputs[1 + i] in read} | carries
        if more == carries:
            break
        carries = more
    kept = sorted(carries)
    elements = [i for i in range(ns) if body.inputs[1 + nc + i] in read]
    captured = [s for s in body.inputs[1 + nc + ns :] if s in read]
    if len(kept) + len(elements) + len(captured) + 1 == len(body.inputs) and len(outs) == (
        len(body.outputs) - nc
    ):
        return None
    step = open_body(node)
    smaller = Step(
        step.index,
        [step.carries[i] for i in kept],
        [step.elements[i] for i in elements],
        [step.results[i] for i in (*kept, *outs)],
    )
    init = [node.inputs[i] for i in kept]
    sequences = [node.inputs[nc + i] for i in elements]
    results = run_step(smaller, init, sequences, walk_of(node))
    trace.append(Fired(PHASE, "unused_in_scan", node, results[0].inputs[0], node.origin))
    return dict(zip((*kept, *outs), results, strict=True))


def _with_better_body(
    node: Node, trace: Trace, optimize: Optimize, best: set[Body]
) -> dict[int, Node] | None:
    """The scan with its body rewritten; `best` are those that need not be looked at again."""
    body: Body = node.params["body"]
    if body in best:
        return None
    better, fired = optimize(body.outputs)
    best.add(replace(body, outputs=tuple(better)))
    trace.extend(fired)
    if tuple(better) == body.outputs:
        return None
    params = {**node.params, "body": Body(body.inputs, tuple(better))}
    new = scan_op.make(node.inputs, params)
    return {i: get.make((new,), {"index": i}) for i in range(len(better))}
