"""Loops: `scan` carries state through the steps of sequences, and is differentiable.

The step is traced once into a closed `Body`; whatever it uses from outside is captured, so nothing
is threaded by hand.  What does not depend on the loop is computed once, outside it.  The gradient
of a scan is another scan, the other way over the saved states, which computes each step again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import tree
from .autodiff import backpropagate
from .errors import ArgumentError, DTypeError, ShapeError
from .graph import Node, toposort
from .op import as_node, composed, constant, constant_value, op, split
from .ops.create import arange, zeros_like
from .ops.elementwise import cast, logical_or, stop_gradient, where
from .ops.join import concatenate
from .ops.leaf import as_size, tensor
from .ops.shape import reshape
from .random import current_step
from .substitute import Body, slot, substitute
from .types import Size, TensorType, TupleType, max_size, unify


@op(name="scan")
def scan_op(
    *inputs: TensorType, body: Body, carries: int, sequences: int, length: Size, reverse: bool
) -> TupleType:
    """(first carries, sequences, captured) -> (final carries, stacked outs).

    The body maps (index, carries, elements, captured) to (carries, outs).  Row t of a stacked out
    belongs to row t of the sequences, also when they are walked in reverse.
    """
    outs = (n.tensor_type for n in body.outputs[carries:])
    stacked = (t.with_shape((length, *t.shape)) for t in outs)
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


def run_step(
    step: Step, init: Sequence[Node], sequences: Sequence[Node], length: Size, reverse: bool
) -> list[Node]:
    """Close a traced step over what it captures, and scan it: final carries, then stacked outs."""
    inner = [step.index, *step.carries, *step.elements]
    captured = _captured(step.results, inner)
    places = {p: slot(i, p.tensor_type) for i, p in enumerate((*inner, *captured))}
    body = Body(tuple(places.values()), tuple(substitute(step.results, places)))
    params = {
        "body": body, "carries": len(step.carries), "sequences": len(step.elements),
        "length": length, "reverse": reverse,
    }  # fmt: skip
    return list(split(scan_op.make((*init, *sequences, *captured), params)))


def open_body(node: Node) -> Step:
    """The step of a scan with fresh placeholders, captured values being the outer nodes again."""
    body: Body = node.params["body"]
    carries, sequences = node.params["carries"], node.params["sequences"]
    fresh = [tensor(None, s.dtype, s.shape) for s in body.inputs[: 1 + carries + sequences]]
    places = [*fresh, *node.inputs[carries + sequences :]]
    results = substitute(body.outputs, dict(zip(body.inputs, places, strict=True)))
    return Step(fresh[0], fresh[1 : 1 + carries], fresh[1 + carries :], results)


def _captured(results: Sequence[Node], inner: Sequence[Node]) -> list[Node]:
    """The outermost nodes that do not depend on the loop; constants stay in the body."""
    varying = set(inner)
    order = toposort(results)
    for node in order:
        if not varying.isdisjoint(node.dependencies):
            varying.add(node)
    used = [d for n in order if n in varying and n not in inner for d in n.dependencies]
    outer = (n for n in (*used, *results) if n not in varying and constant_value(n) is None)
    return list(dict.fromkeys(outer))


def inner_nodes(order: Sequence[Node]) -> list[Node]:
    """The nodes of a graph and of all bodies in it, nested ones too."""
    found = list(order)
    for node in found:
        for value in node.params.values():
            if isinstance(value, Body):
                found.extend(toposort(value.outputs))
    return found


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
    for name, value in (("truncate", truncate), ("checkpoint", checkpoint)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ArgumentError(f"{name} must be a positive int, got {value!r}")
    if truncate is None and checkpoint is None:
        return run_step(step, inits, seqs, length, reverse)
    # the parts count on: the position becomes a sequence of its own
    counted = replace(
        step, index=tensor("part", np.int64, ()), elements=[step.index, *step.elements]
    )
    rows = [arange(as_node(length)), *seqs]
    if truncate is None:
        assert checkpoint is not None
        return _run_checkpointed(counted, inits, rows, length, reverse, checkpoint)
    early = max_size(length - truncate, 0)
    parts = (
        [(0, early), (early, length)]
        if not reverse
        else [(length - early, length), (0, length - early)]
    )

    def run(carry: list[Node], start: Size, stop: Size) -> list[Node]:
        part = [r[start:stop] for r in rows]
        if checkpoint is None:
            return run_step(counted, carry, part, stop - start, reverse)
        return _run_checkpointed(counted, carry, part, stop - start, reverse, checkpoint)

    first = [stop_gradient(r) for r in run(inits, *parts[0])]
    second = run(first[: len(inits)], *parts[1])
    return _joined(first, second, len(inits), reverse)


def _joined(first: list[Node], second: list[Node], carries: int, reverse: bool) -> list[Node]:
    """The results of two parts run one after the other as those of one scan."""
    pairs = zip(first[carries:], second[carries:], strict=True)
    outs = [concatenate([b, a] if reverse else [a, b]) for a, b in pairs]
    return [*second[:carries], *outs]


def _run_checkpointed(
    step: Step, inits: list[Node], rows: list[Node], length: Size, reverse: bool, every: int
) -> list[Node]:
    """A scan over blocks of steps, each a scan, and one over what is left.

    The gradient of the outer scan keeps the state before each block and runs the block again.
    """
    blocks = length // every
    whole = blocks * every
    carries = [tensor("carry", c.dtype, c.shape) for c in step.carries]
    block = [tensor("block", r.dtype, (every, *r.shape[1:])) for r in rows]
    inner = run_step(step, carries, block, every, reverse)
    count = len(carries)
    outer = Step(tensor("block", np.int64, ()), carries, block, [*inner, *carries])
    # rows that do not fill a block come last, in the order of the walk
    start = length - whole if reverse else 0
    blocked = [reshape(r[start : start + whole], (blocks, every, *r.shape[1:])) for r in rows]
    first = run_step(outer, inits, blocked, blocks, reverse)[: len(inner)]
    first[count:] = [reshape(o, (whole, *o.shape[2:])) for o in first[count:]]
    rest = [r[:start] if reverse else r[whole:] for r in rows]
    second = run_step(step, first[:count], rest, length - whole, reverse)
    return _joined(first, second, count, reverse)


# --------------------------------------------------------------------------------------------
# gradient


@scan_op.vjp
def _(
    gs: Sequence[Node | None], ys: Sequence[Node], *inputs: Node,
    body: Body, carries: int, sequences: int, length: Size, reverse: bool,
) -> Sequence[Node | None]:  # fmt: skip
    """A scan the other way: it carries the gradient of the carry, and sums for captured values."""
    index = tensor("index", np.int64, ())
    inner = [tensor(None, s.dtype, s.shape) for s in body.inputs[1:]]
    again = substitute(body.outputs, dict(zip(body.inputs, (index, *inner), strict=True)))
    states, elements, captured = _cut(inner, carries, sequences)
    g_outs = [(o, g) for o, g in zip(again[carries:], gs[carries:], strict=True) if g is not None]
    rows = [tensor("g_out", g.dtype, g.shape[1:]) for _, g in g_outs]
    floats = [i for i in range(carries) if states[i].tensor_type.is_float]
    g_states = [tensor("g_carry", states[i].dtype, states[i].shape) for i in floats]

    seeds: dict[Node, Node] = {}
    ends = [again[i] for i in floats] + [o for o, _ in g_outs]
    for node, g in zip(ends, [*g_states, *rows], strict=True):
        seeds[node] = seeds[node] + g if node in seeds else g
    wrt = [n for n in inner if n.tensor_type.is_float]
    found = dict(zip(wrt, backpropagate(seeds, wrt), strict=True))

    summed = [(k, d) for k, n in enumerate(captured) if (d := found.get(n)) is not None]
    sums = [tensor("sum", d.dtype, d.shape) for _, d in summed]
    stacked = [(k, d) for k, n in enumerate(elements) if (d := found.get(n)) is not None]
    new = [zeros_like(states[i]) if (d := found[states[i]]) is None else d for i in floats]
    new += [s + d for s, (_, d) in zip(sums, summed, strict=True)]
    carry = [*g_states, *sums]
    outer = inputs[carries + sequences :]
    # what was captured is captured again; the carry is an out, as in every scan
    results = substitute(
        [*new, *(d for _, d in stacked), *carry], dict(zip(captured, outer, strict=True))
    )
    step = Step(index, carry, [*states, *elements, *rows], results)

    given = [gs[i] for i in floats]
    first = [zeros_like(ys[i]) if g is None else g for i, g in zip(floats, given, strict=True)]
    first += [zeros_like(outer[k]) for k, _ in summed]
    history = [ys[body.outputs.index(s, carries)] for s in body.inputs[1 : 1 + carries]]
    walked = [*history, *inputs[carries : carries + sequences], *(g for _, g in g_outs)]
    made = iter(run_step(step, first, walked, length, not reverse))
    grads: list[Node | None] = [None] * len(inputs)
    for i in floats:
        grads[i] = next(made)
    for k, _ in summed:
        grads[carries + sequences + k] = next(made)
    for k, _ in stacked:
        grads[carries + k] = next(made)
    return grads


def _cut(nodes: list[Node], first: int, second: int) -> tuple[list[Node], list[Node], list[Node]]:
    return nodes[:first], nodes[first : first + second], nodes[first + second :]
