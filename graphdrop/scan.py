"""Loops: `scan` carries state through the steps of sequences, and is differentiable.

The step is traced once into a closed `Body`; whatever it uses from outside is captured, so nothing
is threaded by hand.  What does not depend on the loop is computed once, outside it.  The gradient
of a scan is another scan, the other way over the saved states, which computes each step again (but
see `rules/scan_kept.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from . import tree
from .autodiff import backpropagate, depending
from .bodies import Values, close, open_slots, outer_shape, sizes_outside
from .errors import ArgumentError, DTypeError, ShapeError, positive
from .graph import Node, toposort
from .op import as_node, composed, constant, op, split
from .ops.create import arange, zeros_like
from .ops.elementwise import cast, equal, logical_or, stop_gradient, where
from .ops.join import concatenate
from .ops.leaf import as_size, tensor
from .ops.shape import reshape
from .random import current_step
from .substitute import Body, substitute
from .types import Dim, Size, TensorType, TupleType, max_size, unify


@op(name="scan")
def scan_op(
    *inputs: TensorType, body: Body, carries: int, sequences: int, length: Size, reverse: bool,
    values: Values = (), counted: Size | None = None,
) -> TupleType:  # fmt: skip
    """(first carries, sequences, captured) -> (final carries, stacked outs).

    The body maps (index, carries, elements, captured) to (carries, outs).  Row t of a stacked out
    belongs to row t of the sequences, also when they are walked in reverse.

    values   sizes in the body's types that are values of captured nodes, see `bodies.Closure`
    counted  the steps of the user's scan, of which this may be a part; None if the scan around it
             counts them.  Replay reads it: a mask has one row for every counted step
    """
    for s in inputs[carries : carries + sequences]:
        unify(s.shape[0], length, "sequences of one scan have one length: sizes")
    outside = sizes_outside(body, values)
    shapes = [outer_shape(n, outside, "the result of a step") for n in body.outputs]
    for carry, shape in zip(inputs[:carries], shapes, strict=False):
        for old, new in zip(carry.shape, shape, strict=True):
            unify(old, new, "the carry changes its sizes:")
    outs = zip(body.outputs[carries:], shapes[carries:], strict=True)
    stacked = (TensorType(n.dtype, (length, *shape)) for n, shape in outs)
    return TupleType((*inputs[:carries], *stacked))


@dataclass(frozen=True)
class Step:
    """A step that has been traced: placeholders, and what they give.

    index     int64 scalar, the position in the sequences
    carries   the state before the step
    elements  one row of every sequence
    results   the state after the step, then the outs
    """

    index: Node
    carries: list[Node]
    elements: list[Node]
    results: list[Node]

    @property
    def outs(self) -> list[Node]:
        return self.results[len(self.carries) :]


@dataclass(frozen=True)
class Walk:
    """How a scan goes.

    length   the number of steps
    reverse  from the last row to the first
    counted  see `scan_op`
    """

    length: Size
    reverse: bool
    counted: Size | None


def run_step(step: Step, init: Sequence[Node], sequences: Sequence[Node], walk: Walk) -> list[Node]:
    """Close a traced step over what it captures, and scan it: final carries, then stacked outs."""
    inner = [step.index, *step.carries, *step.elements]
    varying = varying_in(step)
    closed = close(inner, step.results, lambda n: n not in varying)
    params = {
        "body": closed.body, "values": closed.values, "carries": len(step.carries),
        "sequences": len(step.elements), **vars(walk),
    }  # fmt: skip
    return list(split(scan_op.make((*init, *sequences, *closed.captured), params)))


# many rewrites look at one loop
_opened: WeakKeyDictionary[Node, Step] = WeakKeyDictionary()


def open_body(node: Node) -> Step:
    """The step of a scan with placeholders of its own, captured values being the outer nodes."""
    found = _opened.get(node)
    if found is None:
        found = _opened[node] = _open(node)
    return found


def _open(node: Node) -> Step:
    first = node.params["carries"] + node.params["sequences"]
    given = [*[None] * (1 + first), *node.inputs[first:]]
    slots, results = open_slots(node.params["body"], given)
    carries, elements, _ = _cut(slots[1:], node.params["carries"], node.params["sequences"])
    return Step(slots[0], carries, elements, results)


def walk_of(node: Node) -> Walk:
    """How a scan goes."""
    return Walk(*(node.params[f.name] for f in fields(Walk)))


def varying_in(step: Step) -> dict[Node, None]:
    """The nodes that depend on the step's placeholders, those included, operands first."""
    placeholders = (step.index, *step.carries, *step.elements)
    oldest = min(p.serial for p in placeholders)
    varying = dict.fromkeys(placeholders)
    # what was built before the placeholders cannot depend on them
    for node in toposort(step.results, stop=lambda n: n.serial <= oldest):
        if any(d in varying for d in node.dependencies):
            varying[node] = None
    return varying


# --------------------------------------------------------------------------------------------
# for users


@composed
def scan(
    fn: Callable[[Any, Any], tuple[Any, ...]],
    sequences: Any = None,
    init: Any = None,
    length: Any = None,
    reverse: bool = False,
    *,
    until: bool = False,
    truncate: int | None = None,
    checkpoint: int | None = None,
) -> tuple[Any, Any]:
    """Run `carry, out = fn(carry, element)` over leading axes; -> (final carry, stacked outs).

    fn          the step; it may use any node from outside and draw from any stream
    sequences   a node of shape (time, ...), or several in lists, tuples and dicts; fn gets one row
                of each, or None
    init        the first carry, nested in any way; its dtypes and shapes stay
    length      the number of steps; needed only without sequences
    reverse     start at the last row; outs stay aligned with the sequences
    until       fn returns (carry, out, stop): after the first step whose `stop` holds, the carry
                stays as it is and outs are 0
    truncate    gradients flow through the last so many steps only (truncated back-propagation)
    checkpoint  keep every so many states for the gradient and recompute those between: memory for
                length / checkpoint + checkpoint states instead of length

    A draw inside takes step 1 + the position, so masks differ from step to step and the gradient
    sees the same ones.
    """
    seqs, seq_tree = tree.flatten(sequences)
    inits, carry_tree = tree.flatten(init)
    seqs, inits = [as_node(s) for s in seqs], [as_node(i) for i in inits]
    steps = _length(seqs, length)
    wrapped = _until(fn, carry_tree) if until else fn
    if until:
        inits, carry_tree = [*inits, constant(False)], (carry_tree, tree.LEAF)
    step, out_tree = _trace(wrapped, inits, carry_tree, seqs, seq_tree, steps)
    results = _run(step, inits, seqs, steps, reverse, truncate, checkpoint)
    count = len(inits)
    carry, outs = tree.unflatten(carry_tree, results[:count]), results[count:]
    return carry[0] if until else carry, tree.unflatten(out_tree, outs[: len(step.outs) - count])


def map(fn: Callable[[Any], Any], sequences: Any, *, reverse: bool = False) -> Any:
    """`fn` of every row of the sequences, stacked."""
    return scan(lambda carry, element: (None, fn(element)), sequences, reverse=reverse)[1]


def reduce(
    fn: Callable[[Any, Any], Any], sequences: Any, init: Any, *, reverse: bool = False
) -> Any:
    """fn(...fn(fn(init, row 0), row 1)..., last row)."""
    return scan(
        lambda carry, element: (fn(carry, element), None), sequences, init, reverse=reverse
    )[0]


def _length(seqs: Sequence[Node], length: Any) -> Size:
    sizes: list[Size] = [] if length is None else [as_size(length)]
    for s in seqs:
        if not s.ndim:
            raise ShapeError(f"a sequence needs a leading axis, got {s!r}")
        sizes.append(s.shape[0])
    if not sizes:
        raise ArgumentError("a scan without sequences needs a length")
    found = sizes[0]
    for size in sizes[1:]:
        found = unify(found, size, "sequences of one scan have one length: sizes")
    return found


@contextmanager
def _counting(index: Node, length: Size) -> Iterator[None]:
    """Draws made inside belong to step 1 + the row-major index over all enclosing scans."""
    outer = current_step.get()
    here = index if outer is None else (outer - 1) * as_node(length) + index
    token = current_step.set(here + 1)
    try:
        yield
    finally:
        current_step.reset(token)


def _trace(
    fn: Callable[[Any, Any], Any], inits: Sequence[Node], carry_tree: Any,
    seqs: Sequence[Node], seq_tree: Any, length: Size,
) -> tuple[Step, Any]:  # fmt: skip
    """The step as nodes, and the structure of its outs."""
    index = tensor("index", np.int64, ())
    carries = [tensor("carry", n.dtype, n.shape) for n in inits]
    elements = [tensor("element", s.dtype, s.shape[1:]) for s in seqs]
    with _counting(index, length):
        made = fn(tree.unflatten(carry_tree, carries), tree.unflatten(seq_tree, elements))
    if not isinstance(made, tuple) or len(made) != 2:
        raise ArgumentError(
            "a scan's step returns (carry, out), None for what it has not (and with until=True a "
            "third, the bool that stops)"
        )
    new, new_tree = tree.flatten(made[0])
    outs, out_tree = tree.flatten(made[1])
    if new_tree != carry_tree:
        raise ArgumentError("a scan's step must return a carry nested as init is")
    new = [_same_type(as_node(n), c) for n, c in zip(new, carries, strict=True)]
    # the carry before each step is an out too: the gradient reads it; unused outs are dropped
    return Step(index, carries, elements, [*new, *(as_node(o) for o in outs), *carries]), out_tree


def _same_type(new: Node, carry: Node) -> Node:
    if new.dtype != carry.dtype:
        raise DTypeError(
            f"the carry changes from {carry.type} to {new.type}; cast one with gd.cast"
        )
    if new.ndim != carry.ndim or any(
        isinstance(a - b, int) and a != b for a, b in zip(carry.shape, new.shape, strict=True)
    ):
        raise ShapeError(f"the carry changes from {carry.type} to {new.type}")
    return new


def _until(fn: Callable[[Any, Any], Any], carry_tree: Any) -> Callable[[Any, Any], Any]:
    """The step with a flag in its carry that holds everything still once it is set."""

    def step(carry: Any, element: Any) -> Any:
        state, done = carry
        made = fn(state, element)
        if not isinstance(made, tuple) or len(made) != 3:
            raise ArgumentError("with until=True a scan's step returns (carry, out, stop)")
        old, new = tree.flatten(state)[0], tree.flatten(made[0])[0]
        if len(old) != len(new):
            raise ArgumentError("a scan's step must return a carry nested as init is")
        held = [where(done, o, n) for o, n in zip(old, new, strict=True)]
        outs, out_tree = tree.flatten(made[1])
        kept = [where(done, constant(np.zeros((), as_node(o).dtype)), o) for o in outs]
        stopped = logical_or(done, cast(as_node(made[2]), bool))
        return (tree.unflatten(carry_tree, held), stopped), tree.unflatten(out_tree, kept)

    return step


# --------------------------------------------------------------------------------------------
# ways to run a step


def _run(
    step: Step, inits: list[Node], seqs: list[Node], length: Size, reverse: bool,
    truncate: int | None, checkpoint: int | None,
) -> list[Node]:  # fmt: skip
    truncate = None if truncate is None else positive(truncate, "truncate")
    checkpoint = None if checkpoint is None else positive(checkpoint, "checkpoint")
    whole = Walk(length, reverse, length)
    if truncate is None and checkpoint is None:
        return run_step(step, inits, seqs, whole)
    # the parts count on: the position becomes a sequence of its own
    part = replace(step, index=tensor("part", np.int64, ()), elements=[step.index, *step.elements])
    rows = [arange(as_node(length)), *seqs]
    if truncate is None:
        return _run_part(part, inits, rows, whole, checkpoint)
    early = max_size(length - truncate, 0)
    if early == 0:
        return _run_part(part, inits, rows, whole, checkpoint)
    start = length - early if reverse else early
    bounds = [(start, length), (0, start)] if reverse else [(0, start), (start, length)]

    def run(carry: list[Node], start: Size, stop: Size) -> list[Node]:
        walk = replace(whole, length=stop - start)
        return _run_part(part, carry, [r[start:stop] for r in rows], walk, checkpoint)

    first = [stop_gradient(r) for r in run(inits, *bounds[0])]
    # a sequence that turns out to be short enough is not truncated
    carry = first[: len(inits)]
    if isinstance(early, Dim):
        short = equal(early, 0)
        carry = [where(short, i, c) for i, c in zip(inits, carry, strict=True)]
    second = run(carry, *bounds[1])
    return _joined(first, second, len(inits), reverse)


def _joined(first: list[Node], second: list[Node], carries: int, reverse: bool) -> list[Node]:
    """The results of two parts run one after the other as those of one scan."""
    pairs = zip(first[carries:], second[carries:], strict=True)
    outs = [concatenate([b, a] if reverse else [a, b]) for a, b in pairs]
    return [*second[:carries], *outs]


def _run_part(
    step: Step, inits: list[Node], rows: list[Node], walk: Walk, every: int | None
) -> list[Node]:
    """A scan; if it is to be checkpointed, one over blocks of steps and one over what is left.

    A block is a scan too.  The gradient of the scan over blocks keeps the state before each one
    and runs the block again.
    """
    if every is None:
        return run_step(step, inits, rows, walk)
    blocks = walk.length // every
    full = blocks * every
    rest = walk.length - full
    carries = [tensor("carry", c.dtype, c.shape) for c in step.carries]
    block = [tensor("block", r.dtype, (every, *r.shape[1:])) for r in rows]
    inner = run_step(step, carries, block, Walk(every, walk.reverse, None))
    count = len(carries)
    outer = Step(tensor("block", np.int64, ()), carries, block, [*inner, *carries])
    # rows that do not fill a block come last, in the order of the walk
    start = rest if walk.reverse else 0
    blocked = [reshape(r[start : start + full], (blocks, every, *r.shape[1:])) for r in rows]
    first = run_step(outer, inits, blocked, replace(walk, length=blocks))[: len(inner)]
    first[count:] = [reshape(o, (full, *o.shape[2:])) for o in first[count:]]
    left = [r[:start] if walk.reverse else r[full:] for r in rows]
    second = run_step(step, first[:count], left, replace(walk, length=rest))
    return _joined(first, second, count, walk.reverse)


# --------------------------------------------------------------------------------------------
# gradient


@scan_op.selective_vjp
def _(
    gs: Sequence[Node | None], ys: Sequence[Node], *inputs: Node,
    body: Body, carries: int, sequences: int, length: Size, reverse: bool, values: Values,
    counted: Size | None, wanted: set[Node],
) -> Sequence[Node | None]:  # fmt: skip
    """A scan the other way: it carries the gradient of the carry, and sums for captured values."""
    outer = inputs[carries + sequences :]
    # captured sizes stay as they are; all else gets a placeholder to differentiate by
    fresh = 1 + carries + sequences
    pairs = zip(body.inputs[fresh:], outer, strict=True)
    sizes = [None if s.value_atom is None else n for s, n in pairs]
    (index, *inner), again = open_slots(body, [None] * fresh + sizes)
    states, elements, captured = _cut(inner, carries, sequences)
    g_outs = [(o, g) for o, g in zip(again[carries:], gs[carries:], strict=True) if g is not None]
    rows = [tensor("g_out", o.dtype, o.shape) for o, _ in g_outs]
    moving = _moving(inner, again[:carries], [n in wanted for n in inputs])
    floats = [i for i in range(carries) if states[i] in moving]
    g_states = [tensor("g_carry", states[i].dtype, states[i].shape) for i in floats]

    seeds: dict[Node, Node] = {}
    ends = [again[i] for i in floats] + [o for o, _ in g_outs]
    for node, g in zip(ends, [*g_states, *rows], strict=True):
        seeds[node] = seeds[node] + g if node in seeds else g
    wrt = [n for n in inner if n in moving]
    found = dict(zip(wrt, backpropagate(seeds, wrt), strict=True))

    summed = [(k, d) for k, n in enumerate(captured) if (d := found.get(n)) is not None]
    sums = [tensor("sum", d.dtype, d.shape) for _, d in summed]
    stacked = [(k, d) for k, n in enumerate(elements) if (d := found.get(n)) is not None]
    new = [zeros_like(states[i]) if (d := found[states[i]]) is None else d for i in floats]
    new += [s + d for s, (_, d) in zip(sums, summed, strict=True)]
    # what was captured is captured again; the carry is an out, as in every scan
    carry, places = [*g_states, *sums], dict(zip(captured, outer, strict=True))
    results = substitute([*new, *(d for _, d in stacked), *carry], places)

    given = [gs[i] for i in floats]
    first = [zeros_like(ys[i]) if g is None else g for i, g in zip(floats, given, strict=True)]
    first += [zeros_like(outer[k]) for k, _ in summed]
    history = [ys[body.outputs.index(s, carries)] for s in body.inputs[1 : 1 + carries]]
    walked = [*history, *inputs[carries : carries + sequences], *(g for _, g in g_outs)]
    order = set(toposort(results))
    read = {e: w for e, w in zip([*states, *elements, *rows], walked, strict=True) if e in order}
    step = Step(index, carry, [*read], results)
    made = iter(run_step(step, first, [*read.values()], Walk(length, not reverse, counted)))
    grads: list[Node | None] = [None] * len(inputs)
    for i in floats:
        grads[i] = next(made)
    for k, _ in summed:
        grads[carries + sequences + k] = next(made)
    for k, _ in stacked:
        grads[carries + k] = next(made)
    return grads


def _moving(inner: Sequence[Node], new: Sequence[Node], wanted: Sequence[bool]) -> set[Node]:
    """The floats among a step's states, elements and captured nodes that change with what a
    gradient is wanted by, in this step or by way of the steps before it.
    """
    order = toposort(new)
    found = {n for n, w in zip(inner, wanted, strict=True) if w}
    while True:
        reached = depending(order, found)
        more = {s for s, n in zip(inner, new, strict=False) if n in reached} - found
        if not more:
            return {n for n in found if n.tensor_type.is_float}
        found |= more


def _cut(nodes: list[Node], first: int, second: int) -> tuple[list[Node], list[Node], list[Node]]:
    return nodes[:first], nodes[first : first + second], nodes[first + second :]
