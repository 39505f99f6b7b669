"""The executable of the cupy backend: kernels, products and copies in order, on one stream."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphdrop.backend import Executable, Graph, get_backend
from graphdrop.errors import BackendError
from graphdrop.graph import Node
from graphdrop.op import constant_value
from graphdrop.op import size as size_op
from graphdrop.ops import create
from graphdrop.ops.linalg import _matmul
from graphdrop.schedule import (
    Buffer,
    Kernel,
    Layout,
    Loop,
    Outside,
    Place,
    Product,
    Program,
    Rows,
    Step,
    check_filled,
    check_layout,
    closed,
    draws_bits,
    fetches_rows,
    layout,
    lower,
    moved,
    must_have_elements,
    operations,
    schedule,
    title,
)
from graphdrop.schedule.memory import ALIGN
from graphdrop.types import Atom, TupleType, evaluate, num_elements

from . import scalars
from .device import Device
from .launches import launches_of
from .plans import launch
from .plans import scalars as as_arguments
from .printer import HOW, Printed, Printer
from .results import Results
from .rows import print_rows

PLANS_KEPT = 64  # for the last so many sets of sizes
GRAPHS_KEPT = 8  # of one frame
SHORT = 1 << 30  # elements; positions among fewer are ints


def prints(node: Node) -> str | None:
    """What the backend makes of a node; see `schedule`."""
    if isinstance(node.type, TupleType):
        return None
    if scalars.prints(node) or node.op in (create.iota, size_op) or draws_bits(node):
        return "loop"
    if node.op in HOW and node.dtype.kind != "b":
        return "reduce"
    if fetches_rows(node):
        return "rows"
    return "product" if node.op is _matmul and node.dtype.kind == "f" else None


class Texts:
    """The kernels of a program, each text once."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def name(self, text: str) -> str:
        return self.names.setdefault(text, f"gd_{len(self.names)}")

    def text(self) -> str:
        return "\n\n".join(t.replace("@", name, 1) for t, name in self.names.items())


@dataclass
class _Printed:
    """A step as kernels: what is printed, and their names, those of joins too."""

    step: Step
    kernels: list[tuple[Printed, str, list[str]]]


class CupyProgram:
    """An executable graph; see `graphdrop.backend.Executable`."""

    def __init__(self, graph: Graph, device: Device) -> None:
        self.graph, self.device = graph, device
        self.program = schedule(graph, prints, lower)
        self.texts = Texts()
        self.printed: dict[Step, _Printed] = {}
        self.outside: dict[Step, Executable] = {}
        self._print(self.program)
        self.text = self.texts.text()
        self.filled = list(must_have_elements(self.program))
        self.looks = any(isinstance(s, Rows) for s in _all_steps(self.program))
        self._modules: dict[str, Callable[[str], Any]] = {}
        self._constants: dict[Node, Any] = {}
        self._plans: OrderedDict[tuple[int, ...], Plan] = OrderedDict()

    def _print(self, program: Program) -> None:
        for step in program.steps:
            if isinstance(step, Kernel):
                found = [Printer(k).print() for k in launches_of(step)]
                self.printed[step] = self._named(step, found)
            elif isinstance(step, Rows):
                self.printed[step] = self._named(step, [print_rows(step)])
            elif isinstance(step, Loop):
                self._print(step.body)
            elif isinstance(step, Outside):
                self.outside[step] = get_backend("numpy").compile(closed(step, program.atoms))

    def _named(self, step: Step, found: list[Printed]) -> _Printed:
        name = self.texts.name
        return _Printed(step, [(p, name(p.text), [name(j.text) for j in p.joins]) for p in found])

    def kernel(self, name: str, index: str) -> Any:
        """A compiled kernel; all of them are compiled with the first."""
        if index not in self._modules:
            self._modules[index] = self.device.kernels(self.text, index)
        return self._modules[index](name)

    def constant(self, node: Node) -> Any:
        """A constant's array on the device."""
        if node not in self._constants:
            self._constants[node] = self.device.put(constant_value(node))
        return self._constants[node]

    # ---- running
    def _plan(self, sizes: tuple[int, ...]) -> Plan:
        plan = self._plans.get(sizes)
        if plan is None:
            plan = self._plans[sizes] = Plan(self, sizes)
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        return self._run(arrays, sizes, None)

    def observe(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[..., None]
    ) -> list[Any]:
        """As `run`, waiting for every step."""
        return self._run(arrays, sizes, seen)

    def _run(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[..., None] | None
    ) -> list[Any]:
        plan, device = self._plan(sizes), self.device
        frame = plan.frame()
        given = [
            frame.placed(b, a) for b, a in zip(self.program.inputs, arrays, strict=True)
        ]  # fmt: skip
        outputs = [b for b in self.program.outputs if b.role == "output"]
        frame.begin(self.program.inputs, given)
        frame.begin(outputs, [results.new() for results in plan.results])
        if seen is None:
            frame.go()
        else:
            for act in frame.acts:
                device.wait()
                start = time.perf_counter()
                act.run(frame)
                device.wait()
                act.tell(seen, time.perf_counter() - start, plan.env)
        wrong = self.looks and frame.told()
        found = [frame.array(b.number) for b in self.program.outputs]
        frame.forget()
        plan.frames.append(frame)
        if wrong:
            get_backend("numpy").compile(self.graph).run([device.get(a) for a in given], sizes)
            raise BackendError("positions were wrong here, and right on the numpy backend")
        return found

    def shortcut(self, arrays: list[Any], shared: Any, sizes: tuple[int, ...]) -> None:
        """There is none; see `Executable.shortcut`."""

    def listing(self, what: str) -> str:
        """See `Executable.listing`."""
        if what == "source":
            return self.text
        if what == "assembly":
            raise BackendError("machine code is made by the driver; source() shows the kernels")
        lines = [self.program.text()]
        for plan in list(self._plans.values())[-1:]:
            lines.append(f"memory of the last call: {plan.layout.size:,} bytes of scratch")
            lines += [f"calls are not replayed: {f.never}" for f in plan.frames[:1] if f.never]
        return "\n".join(lines)


def _all_steps(program: Program) -> list[Step]:
    inner = [s for loop in program.loops for s in _all_steps(loop.body)]
    return [*program.steps, *inner]


class Plan:
    """What the sizes of a call fix: the values of all sizes, and where scratch lies."""

    def __init__(self, program: CupyProgram, sizes: tuple[int, ...]) -> None:
        self.program, self.sizes = program, sizes
        self.env: dict[Atom, int] = dict(zip(program.graph.atoms, sizes, strict=True))
        check_filled(program.filled, self.env)
        self.layout = layout(program.program, self.env)
        check_layout(program.program, self.layout, self.env)
        self.index = self._index(program.program)
        self.results = [
            Results(program.device, self.shape(b.node), b.dtype)
            for b in program.program.outputs if b.role == "output"
        ]  # fmt: skip
        self.frames: list[Frame] = []

    def _index(self, program: Program) -> str:
        """The type of positions: an int where the largest array and domain allow it."""
        steps = _all_steps(program)
        domains = [num_elements(s.domain) for s in steps if isinstance(s, Kernel)]
        loops = [loop.body for loop in steps if isinstance(loop, Loop)]
        buffers = [b.elements for p in (program, *loops) for b in p.buffers if not _valued(b.node)]
        most = max((evaluate(n, self.env) for n in (*domains, *buffers)), default=0)
        return "int" if most < SHORT else "long long"

    def shape(self, node: Node) -> tuple[int, ...]:
        return tuple(max(evaluate(s, self.env), 0) for s in node.shape)

    def frame(self) -> Frame:
        """A frame that no other call uses."""
        try:
            return self.frames.pop()
        except IndexError:
            return Frame(self)


def _valued(node: Node) -> bool:
    """Whether a size of the node is a value of the graph, unknown before the call."""
    from graphdrop.types import atoms_of

    return any(a.kind == "value" for a in atoms_of(node.shape))


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
        self.acts = self._acts(plan.program.program, plan.layout, 0)
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
        except self.device.errors as error:
            self.never = f"the driver does not record them: {error}"
            return None

    def _acts(self, program: Program, memory: Layout, start: int) -> list[Act]:
        first = len(self.table)
        self.table += [None] * len(program.buffers)
        for number, offset in memory.offsets.items():
            self.table[first + number] = self.arena.data + (start + offset)
        for b in program.buffers:
            if b.role == "constant":
                array = self.constants[first + b.number] = self.plan.program.constant(b.node)
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
        """Let go of the arrays of a call."""
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
        pointer = self.table[first + place.buffer.number]
        return pointer + offset if offset else pointer

    def view(self, place: Place, first: int, env: dict[Atom, int] | None = None) -> Any:
        """A place as an array."""
        env, dtype = env or self.plan.env, place.buffer.dtype
        shape = [max(evaluate(s, env), 0) for s in place.shape]
        strides = [evaluate(s, env) * dtype.itemsize for s in place.strides]
        offset = evaluate(place.offset, env) * dtype.itemsize
        pointer = self.table[first + place.buffer.number] + offset
        return self.device.view(pointer, shape, strides, dtype)


@dataclass(frozen=True)
class _Traffic:
    """What the profiler is told of a step, whose values it does not see."""

    nbytes: int
    operations: int


class Act:
    """A step with the sizes of a call."""

    step: Step

    def run(self, frame: Frame) -> None:
        raise NotImplementedError

    def tell(self, seen: Callable[..., None], seconds: float, env: dict[Atom, int]) -> None:
        node, what = title(self.step)
        seen(node, _Traffic(evaluate(moved(self.step), env), evaluate(operations(self.step), env)),
             seconds, what)  # fmt: skip


class KernelsAct(Act):
    """Kernels of our own."""

    def __init__(self, frame: Frame, step: Step, first: int) -> None:
        self.step = step
        plan, program = frame.plan, frame.plan.program
        self.calls: list[Callable[[Frame], None]] = []
        for printed, name, joins in program.printed[step].kernels:
            self._add(frame, printed, program.kernel(name, plan.index), first, joins)

    def _add(
        self, frame: Frame, printed: Printed, function: Any, first: int, joins: list[str]
    ) -> None:  # fmt: skip
        plan = frame.plan
        how = launch(printed, plan.env)
        if how.is_empty:
            return
        numbers = [first + b.number for b in printed.buffers]
        sizes = [evaluate(s, plan.env) for s in printed.sizes]
        offsets, top = [], 0
        for join in printed.joins:
            offsets.append(top)
            top += -(-how.parts * join.itemsize // ALIGN) * ALIGN
        frame.room_for_parts(top)
        if printed.joins:
            sizes += [how.chunks, how.chunk]
        rest = as_arguments(sizes, plan.index)
        told = isinstance(self.step, Rows)

        def call(frame: Frame) -> None:
            given = [frame.table[n].ptr for n in numbers]
            if told:
                given.append(frame.wrong.data.ptr)
            given += [frame.parts.data.ptr + o for o in offsets]
            function(how.grid, how.block, (*given, *rest))

        self.calls.append(call)
        if how.parts:
            self._join(frame, printed, how, first, joins, offsets)

    def _join(
        self, frame: Frame, printed: Printed, how: Any, first: int, joins: list[str],
        offsets: list[int],
    ) -> None:  # fmt: skip
        plan = frame.plan
        grid, block = how.join()
        rest = as_arguments([how.outs, how.chunks], plan.index)
        for join, name, offset in zip(printed.joins, joins, offsets, strict=True):
            function = plan.program.kernel(name, plan.index)
            number = first + join.buffer.number

            def call(
                frame: Frame, function: Any = function, number: int = number, offset: int = offset
            ) -> None:
                given = (frame.table[number].ptr, frame.parts.data.ptr + offset)
                function(grid, block, (*given, *rest))

            self.calls.append(call)

    def run(self, frame: Frame) -> None:
        for call in self.calls:
            call(frame)


class ProductAct(Act):
    """A product by the device's library."""

    def __init__(self, frame: Frame, step: Product, first: int) -> None:
        self.step, self.product, self.first = step, step, first

    def run(self, frame: Frame) -> None:
        places = (self.product.left, self.product.right, self.product.out)
        frame.device.matmul(*(frame.view(p, self.first) for p in places))


class OutsideAct(Act):
    """A step of the numpy backend: operands go to the host, and results come back."""

    def __init__(self, frame: Frame, step: Outside, first: int) -> None:
        self.step, self.outside, self.first = step, step, first
        self.executable = frame.plan.program.outside[step]

    def run(self, frame: Frame) -> None:
        plan, device = frame.plan, frame.device
        env, operands = dict(plan.env), {}
        # scalars first: sizes of the others may be their values
        for node, place in sorted(self.outside.operands, key=lambda operand: operand[0].ndim):
            operands[node] = device.get(self._operand(frame, place, env))
            if node.value_atom is not None:
                env[node.value_atom] = int(operands[node])
        results = self.executable.run([operands[n] for n, _ in self.outside.operands], plan.sizes)
        wanted = [b for b in self.outside.results if b is not None]
        frame.begin(wanted, [device.put(r) for r in results], self.first)

    def _operand(self, frame: Frame, place: Place, env: dict[Atom, int]) -> Any:
        buffer = place.buffer
        if buffer.role == "foreign" and place.shape == buffer.node.shape and place.is_whole:
            return frame.array(self.first + buffer.number)  # also where its sizes are values
        return frame.view(place, self.first, env)


class LoopAct(Act):
    """A scan: its body's steps again and again, each time with other addresses."""

    def __init__(self, frame: Frame, loop: Loop, first: int, memory: Layout, start: int) -> None:
        self.step, self.loop, self.first = loop, loop, first
        self.region = len(frame.table)
        self.acts = frame._acts(loop.body, memory, start)
        env = frame.plan.env
        self.length = evaluate(loop.length, env)
        self.positions = frame.device.put(np.arange(max(self.length, 0), dtype=np.int64))
        self.rows = [evaluate(p.strides[0], env) * p.buffer.dtype.itemsize for p in loop.sequences]
        self.outs = [
            evaluate(num_elements(b.node.shape[1:]), env) * b.dtype.itemsize for b in loop.outs
        ]

    def run(self, frame: Frame) -> None:
        loop, table, at = self.loop, frame.table, self.region
        ends = [tuple(table[self.first + b.number] for b in pair) for pair in loop.carries]
        carry = [frame.pointer(p, self.first) for p in loop.first]
        if self.length == 0:
            self._hand_on(frame, ends, carry)
            return
        inputs = [at + b.number for b in loop.body.inputs]
        results = [at + b.number for b in loop.body.outputs]
        count, rows = len(carry), len(loop.sequences)
        for number, place in zip(inputs[1 + count + rows :], loop.captured, strict=True):
            table[number] = frame.pointer(place, self.first)
        sequences = [frame.pointer(p, self.first) for p in loop.sequences]
        outs = [table[self.first + b.number] for b in loop.outs]
        for t in range(self.length):
            left = self.length - 1 - t
            row = left if loop.reverse else t
            table[inputs[0]] = self.positions.data + 8 * row
            # the last step writes where the carry ends, the one before it to the spare memory
            new = [pair[left % 2] for pair in ends]
            for k in range(count):
                table[inputs[1 + k]], table[results[k]] = carry[k], new[k]
            for k in range(rows):
                table[inputs[1 + count + k]] = sequences[k] + self.rows[k] * row
            for k, nbytes in enumerate(self.outs):
                table[results[count + k]] = outs[k] + nbytes * row
            for act in self.acts:
                act.run(frame)
            carry = new

    def _hand_on(self, frame: Frame, ends: Sequence[Any], carry: Sequence[Any]) -> None:
        """No step at all: the first carries are the last."""
        for (buffer, _), (end, _), start in zip(self.loop.carries, ends, carry, strict=True):
            count = evaluate(buffer.elements, frame.plan.env)
            frame.device.copy(end, start, count * buffer.dtype.itemsize)
