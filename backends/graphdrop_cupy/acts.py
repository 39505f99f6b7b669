"""Steps with the sizes of a call: each asks the device for what it is, given where things lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphdrop.schedule import (
    Layout,
    Loop,
    Outside,
    Place,
    Product,
    Rows,
    Step,
    cost,
    operands,
    title,
)
from graphdrop.schedule.memory import ALIGN
from graphdrop.types import Atom, evaluate, num_elements

from .geometry import Launch, as_arguments, launch
from .printer import Printed

if TYPE_CHECKING:
    from .plans import Frame


class Act:
    """A step with the sizes of a call."""

    step: Step

    def run(self, frame: Frame) -> None:
        raise NotImplementedError

    def tell(self, seen: Callable[..., None], seconds: float, env: dict[Atom, int]) -> None:
        node, what = title(self.step)
        seen(node, cost(self.step, env), seconds, what)


class KernelsAct(Act):
    """Kernels of our own."""

    def __init__(self, frame: Frame, step: Step, first: int) -> None:
        self.step = step
        plan, program = frame.plan, frame.plan.program
        self.calls: list[Callable[[Frame], None]] = []
        for printed, name, joins in program.printed[step].kernels:
            self._add(frame, printed, program.kernel(name, plan.index, plan.gpu), first, joins)

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
        self, frame: Frame, printed: Printed, how: Launch, first: int, joins: list[str],
        offsets: list[int],
    ) -> None:  # fmt: skip
        plan = frame.plan
        grid, block = how.join()
        rest = as_arguments([how.outs, how.chunks], plan.index)
        for join, name, offset in zip(printed.joins, joins, offsets, strict=True):
            function = plan.program.kernel(name, plan.index, plan.gpu)
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
        given = operands(
            self.outside, plan.env, lambda place, env: device.get(self._operand(frame, place, env))
        )
        results = self.executable.run(given, plan.sizes)
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
        self.acts = frame.acts_of(loop.body, memory, start)
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
        at_row = frame.device.at
        for t in range(self.length):
            left = self.length - 1 - t
            row = left if loop.reverse else t
            table[inputs[0]] = self.positions.data + 8 * row
            # the last step writes where the carry ends, the one before it to the spare memory
            new = [pair[left % 2] for pair in ends]
            for k in range(count):
                table[inputs[1 + k]], table[results[k]] = carry[k], new[k]
            for k in range(rows):
                table[inputs[1 + count + k]] = at_row(sequences[k], self.rows[k] * row)
            for k, nbytes in enumerate(self.outs):
                table[results[count + k]] = at_row(outs[k], nbytes * row)
            for act in self.acts:
                act.run(frame)
            carry = new

    def _hand_on(self, frame: Frame, ends: Sequence[Any], carry: Sequence[Any]) -> None:
        """No step at all: the first carries are the last."""
        for (buffer, _), (end, _), start in zip(self.loop.carries, ends, carry, strict=True):
            count = evaluate(buffer.elements, frame.plan.env)
            frame.device.copy(end, start, count * buffer.dtype.itemsize)
