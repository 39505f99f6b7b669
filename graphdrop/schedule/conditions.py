"""What must hold for the sizes of a call: the oracle notices when it computes, others before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import GraphdropError, OutOfRangeError, ShapeError
from ..graph import Node
from ..op import explain
from ..ops import reduce
from ..ops.brackets import NO_AXIS
from ..ops.index import _set_subtensor, _subtensor
from ..types import Atom, Size, evaluate, num_elements
from .program import Kernel, Loop, Program, touched


@dataclass(frozen=True)
class Condition:
    """Something that a node needs.

    loops  the numbers of steps of the loops around it: without one nothing is computed
    wrong  sizes -> None, or what is wrong with them
    """

    node: Node
    loops: tuple[Size, ...]
    wrong: Callable[[Mapping[Atom, int]], GraphdropError | None]


def conditions(program: Program, loops: tuple[Size, ...] = ()) -> Iterator[Condition]:
    """All conditions of a program, those of its loops too."""
    read = {b for step in program.steps for b, writes in touched(step) if not writes}
    read.update(program.outputs)
    for node in program.places:
        if node.op in (_subtensor, _set_subtensor):
            yield from _positions(node, loops)
    for step in program.steps:
        if isinstance(step, Loop):
            yield from conditions(step.body, (*loops, step.length))
        elif isinstance(step, Kernel):
            for node, place in step.reduced.items():
                if node.op in (reduce.max, reduce.min) and place.buffer in read:
                    yield _has_elements(node, loops)


def _has_elements(node: Node, loops: tuple[Size, ...]) -> Condition:
    """The largest and smallest elements that somebody reads: there must be some, and as in NumPy
    also where there is nothing beside the axes that they are looked for along.
    """
    shape = node.inputs[0].shape
    along = num_elements(tuple(shape[a] for a in node.params["axis"]))

    def wrong(env: Mapping[Atom, int]) -> GraphdropError | None:
        if evaluate(along, env):
            return None
        return ShapeError("no elements along the axes, and nothing has no largest or smallest")

    return Condition(node, loops, wrong)


def _positions(node: Node, loops: tuple[Size, ...]) -> Iterator[Condition]:
    """A position along an axis is inside it; those that are known have been checked."""
    sizes = iter(node.inputs[0].shape)
    for entry in node.params["index"]:
        size = 1 if entry in NO_AXIS else next(sizes)
        if isinstance(entry, (str, tuple)) or (isinstance(entry, int) and isinstance(size, int)):
            continue

        def wrong(
            env: Mapping[Atom, int], entry: Size = entry, size: Size = size
        ) -> GraphdropError | None:
            at, limit = evaluate(entry, env), evaluate(size, env)
            if 0 <= at < limit:
                return None
            return OutOfRangeError(f"position {at} is outside an axis of size {limit}")

        yield Condition(node, loops, wrong)


def check_conditions(found: Iterable[Condition], env: Mapping[Atom, int]) -> None:
    """Raise what is wrong with the sizes of a call, naming the user's line."""
    for condition in found:
        node = condition.node
        if all(evaluate(steps, env) > 0 for steps in condition.loops):
            error = condition.wrong(env)
            if error is not None:
                raise explain(node.op.name, error, node.inputs, node.origin)
