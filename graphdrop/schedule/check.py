"""What must hold of every program, whoever made it: checked each time before one is printed.

A violation is a mistake of graphdrop's, so the message is for its developers.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Mapping
from itertools import chain

from ..errors import ScheduleError
from ..graph import Node
from ..ops.index import _scatter_add, _set_subtensor
from ..ops.join import concatenate
from ..types import Atom, evaluate
from .memory import Layout, lifetimes, replaces
from .program import Buffer, Kernel, Loop, Pack, Place, Product, Program, Rows, Step, touched


def check(program: Program) -> None:
    """Buffers are written before they are read, once, and with what belongs there; draws are those
    of the graph, each under its own node.
    """
    ready = {b for b in program.buffers if b.role in ("input", "constant")}
    for number, step in enumerate(program.steps):
        reads = {b for b, writes in touched(step) if not writes}
        written = {b for b, writes in touched(step) if writes}
        if early := reads - ready:
            raise ScheduleError(f"step {number} reads {early} before any step wrote to it")
        if both := reads & written:
            raise ScheduleError(f"step {number} reads and writes {both}")
        for buffer in written & ready:
            # an array may be changed in parts once it is there
            if buffer.node.op not in (_set_subtensor, concatenate, _scatter_add):
                raise ScheduleError(f"step {number} writes to {buffer!r}, which is in use")
        ready |= written
        _check_values(number, step)
        if isinstance(step, Loop):
            check(step.body)
    if missing := set(program.outputs) - ready:
        raise ScheduleError(f"no step writes to the outputs {missing}")


def _check_values(number: int, step: Step) -> None:
    """Whether what a step computes goes where it belongs."""
    if isinstance(step, Kernel):
        for node, place in chain(step.writes.items(), step.reduced.items()):
            if node in step.nodes and place.buffer.node is not node:
                raise ScheduleError(f"step {number} writes {node!r} where {place.buffer.node!r} is")
        known: set[Node] = {*step.reads, *step.rows}
        for node in step.nodes:
            if missing := [d for d in node.dependencies if d not in known]:
                raise ScheduleError(f"step {number} computes {node!r} without {missing}")
            known.add(node)
    elif isinstance(step, (Product, Rows)):
        written = [b for b, writes in touched(step) if writes]
        if any(b.node is not step.node for b in written):
            raise ScheduleError(f"step {number} writes {step.node!r} elsewhere")
    if isinstance(step, Product) and step.packed is not None:
        _check_packed(number, step.packed, step.node.inputs[1])
    if isinstance(step, Loop):
        given = step.body.inputs[len(step.body.inputs) - len(step.captured) :]
        for inner, place in zip(given, step.captured, strict=True):
            if inner.room is not None:
                _check_packed(number, place.buffer, inner.node)


def _check_packed(number: int, buffer: Buffer, node: Node) -> None:
    """Whether what is in a buffer was laid out of a node."""
    if buffer.room is None or buffer.node is not node:
        raise ScheduleError(f"step {number} takes {buffer!r} for {node!r} packed")


def check_layout(program: Program, memory: Layout, env: Mapping[Atom, int]) -> None:
    """For the sizes of a call: no two buffers in use share memory, and every place is inside its
    buffer.
    """
    begins: dict[int, list[Buffer]] = {}
    ends: dict[int, list[Buffer]] = {}
    for buffer, (first, last) in lifetimes(program).items():
        begins.setdefault(first, []).append(buffer)
        ends.setdefault(last, []).append(buffer)
    live: list[_Span] = []  # in order, as none share memory
    spans: dict[Buffer, _Span] = {}
    inside: set[Hashable] = set()  # kinds of places that have been looked at
    for number, step in enumerate(program.steps):
        for buffer in begins.get(number, ()):
            span = spans[buffer] = _span(buffer, memory, env)
            at = bisect.bisect(live, span)
            for other in live[max(at - 1, 0) : at + 1]:
                if span[0] < other[1] and other[0] < span[1]:
                    old = next(b for b in spans if b.number == other[2])
                    last = old in ends.get(number, ()) and span[:2] == other[:2]
                    if not (last and isinstance(step, Kernel) and replaces(step, buffer, old)):
                        raise ScheduleError(f"{buffer!r} and {old!r} share memory at step {number}")
                    live.remove(other)
            bisect.insort(live, span)
        for place in _places(step, env):
            kind = (place.shape, place.strides, place.offset, place.buffer.elements)
            if kind not in inside:
                _check_inside(number, place, env)
                inside.add(kind)
        for buffer in ends.get(number, ()):
            if spans[buffer] in live:  # unless another one has its place
                live.remove(spans[buffer])
    for loop, inner in zip(program.loops, memory.loops, strict=True):
        if evaluate(loop.length, env) > 0:  # else nothing in it is reached
            check_layout(loop.body, inner, env)


_Span = tuple[int, int, int]  # the first byte, the one after the last, and the buffer's number


def _span(buffer: Buffer, memory: Layout, env: Mapping[Atom, int]) -> _Span:
    start = memory.offsets[buffer.number]
    nbytes = max(evaluate(buffer.elements, env), 0) * buffer.dtype.itemsize
    return start, start + nbytes, buffer.number


def _places(step: Step, env: Mapping[Atom, int]) -> list[Place]:
    if isinstance(step, Kernel):
        return [*step.reads.values(), *step.writes.values(), *step.reduced.values()]
    if isinstance(step, Product):
        return [step.left, step.right, step.out]
    if isinstance(step, Pack):
        return [] if any(evaluate(steps, env) <= 0 for steps in step.loops) else [step.source]
    if isinstance(step, Rows):
        return [p for p in (step.ids, step.array, step.rows) if p is not None]
    if isinstance(step, Loop):
        return [*step.first, *step.sequences, *step.captured]
    return []


def _check_inside(number: int, place: Place, env: Mapping[Atom, int]) -> None:
    shape = [evaluate(s, env) for s in place.shape]
    if min(shape, default=1) <= 0:
        return
    strides = [evaluate(s, env) for s in place.strides]
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    start = evaluate(place.offset, env)
    low = start + sum(r for r in reach if r < 0)
    high = start + sum(r for r in reach if r > 0)
    size = evaluate(place.buffer.elements, env)
    if low < 0 or high >= size:
        raise ScheduleError(f"step {number} reaches {low} to {high} of {size} in {place.buffer!r}")
