"""Values that a loop's gradient needs and that the loop itself has computed: kept, row by row.

The gradient of a scan computes each step again from the saved states.  What takes longer to compute
than to read, products and functions, is taken from the loop instead, as one more out of it.  Draws
and arithmetic are done again: masks take no memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from ..graph import Node, toposort
from ..op import get
from ..ops import elementwise as e
from ..ops.leaf import tensor
from ..ops.linalg import _matmul
from ..ops.reduce import logsumexp
from ..ops.softmax import log_softmax, softmax
from ..rewrite import Fired, Trace, rounds
from ..scan import Step, open_body, run_step, scan_op, varying_in, walk_of
from ..substitute import substitute
from ..types import TensorType, has_values, num_elements, substitute_size

PHASE = "scan"
COSTLY = frozenset({
    _matmul, softmax, log_softmax, logsumexp, e.exp, e.expm1, e.log, e.log1p, e.log2, e.log10,
    e.logaddexp, e.pow, e.sin, e.cos, e.tan, e.arcsin, e.arccos, e.arctan, e.arctan2, e.sinh,
    e.cosh, e.tanh, e.arcsinh, e.arccosh, e.arctanh, e.erf, e.lgamma, e.sigmoid, e.softplus,
})  # fmt: skip
MOST = 8  # times the numbers of a state and an element that are kept of a step
TYPICAL = 64  # a size that is not known


@dataclass(frozen=True)
class _Pair:
    """A loop, one over its states the other way, their opened steps, and what both compute: the
    second's nodes -> the first's.
    """

    forward: Node
    backward: Node
    one: Step
    two: Step
    kept: dict[Node, Node]


def keep_for_gradients(outputs: list[Node], trace: Trace) -> list[Node]:
    """`outputs` with what loops the other way compute again taken from the loops before them."""
    for _ in rounds(trace):
        pair = _first(outputs)
        if pair is None:
            break
        outputs = _with_kept(outputs, pair)
        node = pair.backward
        trace.append(Fired(PHASE, "kept_for_gradient", node, node, node.origin))
    return outputs


def _first(outputs: Sequence[Node]) -> _Pair | None:
    scans = [n for n in toposort(outputs) if n.op is scan_op]
    for forward, backward in permutations(scans, 2):
        there, back = walk_of(forward), walk_of(backward)
        if back == replace(there, reverse=not there.reverse):
            pair = _pair(forward, backward)
            # a loop that stands on the other can give it nothing
            if pair.kept and backward not in toposort([forward]):
                return pair
    return None


def _pair(forward: Node, backward: Node) -> _Pair:
    one, two = open_body(forward), open_body(backward)
    first, count = len(one.carries), len(two.carries)
    places: dict[Node, Node] = {two.index: one.index}
    rows = dict(zip(forward.inputs[first:], one.elements, strict=False))
    for element, sequence in zip(two.elements, backward.inputs[count:], strict=False):
        if sequence in rows:
            places[element] = rows[sequence]
        elif sequence.op is get and sequence.inputs[0] is forward:
            result = one.results[sequence.params["index"]]
            if result in one.carries:  # the state before the step
                places[element] = result
    order = [n for n in varying_in(two) if isinstance(n.type, TensorType)]
    there = varying_in(one)
    images = zip(order, substitute(order, places), strict=True)
    same = {n: image for n, image in images if image in there}
    kept = {n: same[n] for n in _costly(two, order, same)}
    given = [*one.carries, *one.elements]
    return _Pair(forward, backward, one, two, kept if _is_little(kept, given) else {})


def _costly(step: Step, order: Sequence[Node], same: Collection[Node]) -> list[Node]:
    """What is to be read: products and functions that the rest of a step is made from."""
    wanted = [n for n in step.results if n in same]
    wanted += [d for n in order if n not in same for d in n.dependencies if d in same]
    found, met = [], set(wanted)
    while wanted:
        node = wanted.pop()
        if node.op in COSTLY and not has_values(node.shape):
            found.append(node)
            continue
        more = [d for d in node.dependencies if d in same and d not in met]
        met.update(more)
        wanted += more
    return found


def _is_little(kept: Collection[Node], given: Sequence[Node]) -> bool:
    return _amount(kept) <= MOST * _amount(given)


def _amount(nodes: Iterable[Node]) -> int:
    """About how many numbers they have."""
    total = 0
    for node in nodes:
        size = substitute_size(num_elements(node.shape), lambda _: TYPICAL)
        assert isinstance(size, int)
        total += size
    return total


def _with_kept(outputs: list[Node], pair: _Pair) -> list[Node]:
    one, two, forward, backward = pair.one, pair.two, pair.forward, pair.backward
    results = list(dict.fromkeys([*one.outs, *pair.kept.values()]))
    first, count = len(one.carries), len(two.carries)
    rows = forward.inputs[first : first + len(one.elements)]
    made = run_step(
        replace(one, results=[*one.results[:first], *results]), forward.inputs[:first], rows,
        walk_of(forward),
    )  # fmt: skip
    stacked = dict(zip(results, made[first:], strict=True))
    after = {_result(forward, i): n for i, n in enumerate(made[:first])}
    after |= {_result(forward, first + i): stacked[n] for i, n in enumerate(one.outs)}
    elements = {n: tensor("kept", n.dtype, n.shape) for n in pair.kept}
    step = replace(
        two, elements=[*two.elements, *elements.values()],
        results=substitute(two.results, {**after, **elements}),
    )  # fmt: skip
    given = substitute(backward.inputs[: count + len(two.elements)], after)
    walked = [*given[count:], *(stacked[n] for n in pair.kept.values())]
    back = run_step(step, given[:count], walked, walk_of(backward))
    after |= {_result(backward, i): n for i, n in enumerate(back)}
    return substitute(outputs, after)


def _result(node: Node, index: int) -> Node:
    return get.make((node,), {"index": index})
