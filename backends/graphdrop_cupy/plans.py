"""What the sizes of a call fix: where everything lies, and what is done with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.kept import Spares
from graphdrop.schedule import (
    Buffer,
    Kernel,
    Layout,
    Loop,
    Outside,
    Place,
    Product,
    Program,
    Step,
    check_conditions,
    check_layout,
    layout,
)
from graphdrop.schedule.memory import ALIGN
from graphdrop.types import Atom, evaluate, has_values, num_elements

from .acts import Act, KernelsAct, LoopAct, OutsideAct, ProductAct

if TYPE_CHECKING:
    from .program import CupyProgram

GRAPHS_KEPT = 8  # of one frame
SPARES = 3  # arrays of one result
SHORT = 1 << 30  # elements; positions among fewer are ints


def all_steps(program: Program) -> list[Step]:
    inner = [s for loop in program.loops for s in all_steps(loop.body)]
    return [*program.steps, *inner]


class Plan:
    """What the sizes of a call fix: the values of all sizes, and where scratch lies.

    Each stream has plans of its own: memory is free for the next call when the host has asked for
    all that is to be done, which only the same stream does before the next.
    """

    def __init__(self, program: CupyProgram, key: tuple[tuple[int, ...], tuple[int, int]]) -> None:
        sizes, (self.gpu, _) = key
        self.program, self.sizes = program, sizes
        self.env: dict[Atom, int] = dict(zip(program.graph.atoms, sizes, strict=True))
        check_conditions(program.conditions, self.env)
        self.layout = layout(program.demand, self.env)
        check_layout(program.program, self.layout, self.env)
        self.index = self._index(program.program)
        # calls can be replayed only where arrays lie as before: old and new values take turns
        self._results = {
            b: Spares(partial(program.device.empty, self.shape(b.node), b.dtype), SPARES)
            for b in program.program.outputs if b.role == "output"
        }  # fmt: skip
        self.frames: list[Frame] = []

    def _index(self, program: Program) -> str:
        """The type of positions: an int where the largest array and domain allow it."""
        steps = all_steps(program)
        domains = [num_elements(s.domain) for s in steps if isinstance(s, Kernel)]
        loops = [loop.body for loop in steps if isinstance(loop, Loop)]
        buffers = [
            b.elements for p in (program, *loops) for b in p.buffers if not has_values(b.node.shape)
        ]
        most = max((evaluate(n, self.env) for n in (*domains, *buffers)), default=0)
        return "int" if most < SHORT else "long long"

    def shape(self, node: Node) -> tuple[int, ...]:
        return tuple(max(evaluate(s, self.env), 0) for s in node.shape)

    def results(self) -> tuple[list[Buffer], list[Any]]:
        """The buffers of results, and an array for each that nobody else has."""
        arrays = [spares.take() for spares in self._results.values()]
        for spares, array in zip(self._results.values(), arrays, strict=True):
            spares.keep(array)
        return list(self._results), arrays

    def frame(self) -> Frame:
        """A frame that no other call uses."""
        try:
            return self.frames.pop()
        except IndexError:
            return Frame(self)


class Frame:
    """The memory of one call at a time, and what it does with it.

    A call whose arrays lie where those of an earlier one did is replayed, which costs the host one
    launch.  Arrays from the host are put where they have always been; the arrays of shared values
    take turns with those of their new ones, and so do the graphs that are replayed.

    table   for every buffer a pointer, those of the bodies of loops behind the program's own
    arrays  what the call was given and makes, by the number of its buffer
    acts    the steps
    never   why calls cannot be replayed, or ""
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, plan.program.device
        self.table: list[Any] = []
        self.arrays: dict[int, Any] = {}
        self.constants: dict[int, Any] = {}
        self.arena = self.device.empty((plan.layout.size + ALIGN,), np.uint8)
        self.wrong = self.device.put(np.zeros(1, np.int64))
        self.parts: Any = None
        self._most_parts = 0
        self.acts = self.acts_of(plan.program.program, plan.layout, 0)
        self.parts = self.device.empty((self._most_parts + ALIGN,), np.uint8)
        self.never = "steps outside" if plan.program.outside else ""
        self._staged: dict[int, Any] = {}
        self._met: OrderedDict[tuple[int, ...], Callable[[], None] | None] = OrderedDict()

    def placed(self, buffer: Buffer, array: Any) -> Any:
        """An argument on the device: where it is, or the values of the host's."""
        if self.device.holds(array):
            return self.device.put(array)
        array = np.asarray(array)
        staged = self._staged.get(buffer.number)
        if staged is None:
            staged = self._staged[buffer.number] = self.device.empty(array.shape, array.dtype)
        self.device.write(staged, array)
        return staged

    def go(self) -> None:
        """All steps, one after the other, or replayed."""
        program = self.plan.program.program
        where = tuple(self.table[b.number].ptr for b in (*program.inputs, *program.outputs)
                      if b.role in ("input", "output"))  # fmt: skip
        replay = self._met.get(where)
        if replay is None and where in self._met and not self.never:
            replay = self._met[where] = self._recorded()
        if replay is not None:
            replay()
            return
        self._steps()
        if not self.never:
            self._met[where] = None
            while len(self._met) > GRAPHS_KEPT:
                self._met.popitem(last=False)

    def _steps(self) -> None:
        for act in self.acts:
            act.run(self)

    def _recorded(self) -> Callable[[], None] | None:
        try:
            return self.device.record(self._steps)
        # the driver's, cuBLAS's or for want of memory; what else is wrong shows again
        except (RuntimeError, MemoryError) as error:
            self.never = f"the driver does not record them: {error}"
            return None

    def acts_of(self, program: Program, memory: Layout, start: int) -> list[Act]:
        """The steps of a program, whose buffers come next in the table."""
        first = len(self.table)
        self.table += [None] * len(program.buffers)
        for number, offset in memory.offsets.items():
            self.table[first + number] = self.arena.data + (start + offset)
        for b in program.buffers:
            if b.role == "constant":
                array = self.constants[first + b.number] = self.plan.program.constant(
                    b.node, self.plan.gpu
                )
                self.table[first + b.number] = array.data
        inner = iter(memory.loops)
        found: list[Act] = []
        for step in program.steps:
            if isinstance(step, Loop):
                found.append(LoopAct(self, step, first, next(inner), start + memory.own))
            elif isinstance(step, Product):
                found.append(ProductAct(self, step, first))
            elif isinstance(step, Outside):
                found.append(OutsideAct(self, step, first))
            else:
                found.append(KernelsAct(self, step, first))
        return found

    def room_for_parts(self, nbytes: int) -> None:
        self._most_parts = max(self._most_parts, nbytes)

    def begin(self, buffers: Sequence[Buffer], arrays: Sequence[Any], first: int = 0) -> None:
        """Where the arrays of a call are."""
        for buffer, array in zip(buffers, arrays, strict=True):
            self.arrays[first + buffer.number] = array
            self.table[first + buffer.number] = array.data

    def forget(self) -> None:
        """Let go of the arrays of a call, and of where they are."""
        for number in self.arrays:
            self.table[number] = None
        self.arrays.clear()

    def told(self) -> bool:
        """Whether a step has met a position that is none."""
        if not int(self.device.get(self.wrong)[0]):
            return False
        self.wrong.fill(0)
        return True

    def array(self, number: int) -> Any:
        return self.arrays[number]

    def pointer(self, place: Place, first: int) -> Any:
        """The address of a place's first element."""
        offset = evaluate(place.offset, self.plan.env) * place.buffer.dtype.itemsize
        return self.device.at(self.table[first + place.buffer.number], offset)

    def view(self, place: Place, first: int, env: dict[Atom, int] | None = None) -> Any:
        """A place as an array."""
        env, dtype = env or self.plan.env, place.buffer.dtype
        shape = [max(evaluate(s, env), 0) for s in place.shape]
        strides = [evaluate(s, env) * dtype.itemsize for s in place.strides]
        offset = evaluate(place.offset, env) * dtype.itemsize
        pointer = self.device.at(self.table[first + place.buffer.number], offset)
        return self.device.view(pointer, shape, strides, dtype)
