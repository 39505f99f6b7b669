"""What must hold for the sizes of a call: the oracle notices when it computes, others before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import GraphdropError, OutOfRangeError, ShapeError
from ..graph import Node
from ..op import explain
from ..ops import reduce
from ..ops.brackets import NO_AXIS
from ..ops.index import _set_subtensor, _subtensor
from ..types import Atom, Size, evaluate, has_values, num_elements
from .program import Kernel, Loop, Program, touched


@dataclass(frozen=True)
class Need:
    """What must hold for the sizes of a call.

    loops  the numbers of steps of the loops around it: without one nothing is computed
    limit  the size of an axis, or how many elements there are
    at     a position along the axis, which must be inside; None: there must be some elements
    """

    loops: tuple[Size, ...]
    limit: Size
    at: Size | None = None

    def wrong(self, env: Mapping[Atom, int]) -> GraphdropError | None:
        """What is wrong with some sizes, if anything is."""
        if any(evaluate(steps, env) <= 0 for steps in self.loops):
            return None
        limit = evaluate(self.limit, env)
        if self.at is None:
            if limit:
                return None
            return ShapeError("no elements along the axes, and nothing has no largest or smallest")
        at = evaluate(self.at, env)
        if 0 <= at < limit:
            return None
        return OutOfRangeError(f"position {at} is outside an axis of size {limit}")


def conditions(program: Program, loops: tuple[Size, ...] = ()) -> Iterator[tuple[Node, Need]]:
    """What the nodes of a program need, those of its loops too."""
    read = {b for step in program.steps for b, writes in touched(step) if not writes}
    read.update(program.outputs)
    for node in program.places:
        if node.op in (_subtensor, _set_subtensor):
            for position, size in _positions(node):
                yield node, Need(loops, size, position)
    for step in program.steps:
        if isinstance(step, Loop):
            yield from conditions(step.body, (*loops, step.length))
        elif isinstance(step, Kernel):
            for node, place in step.reduced.items():
                if node.op in (reduce.max, reduce.min) and place.buffer in read:
                    yield node, Need(loops, _along(node))


def _along(node: Node) -> Size:
    """How many elements there are along the axes that the largest or smallest is looked for along:
    as in NumPy it matters also where there is nothing beside them.
    """
    shape = node.inputs[0].shape
    return num_elements(tuple(shape[a] for a in node.params["axis"]))


def _positions(node: Node) -> Iterator[tuple[Size, Size]]:
    """The positions in an index, and the sizes of their axes.  Those that are known have been
    checked; where a size is a value of the graph the node is a step outside, which checks it.
    """
    sizes = iter(node.inputs[0].shape)
    for entry in node.params["index"]:
        size = 1 if entry in NO_AXIS else next(sizes)
        if isinstance(entry, (str, tuple)) or (isinstance(entry, int) and isinstance(size, int)):
            continue
        if not has_values([entry, size]):
            yield entry, size


def check_conditions(found: Iterable[tuple[Node, Need]], env: Mapping[Atom, int]) -> None:
    """Raise what is wrong with the sizes of a call, naming the user's line."""
    for node, need in found:
        error = need.wrong(env)
        if error is not None:
            raise explain(node.op.name, error, node.inputs, node.origin)
