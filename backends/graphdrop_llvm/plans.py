"""What a call needs besides machine code: the values of sizes, memory for scratch, addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphdrop.op import constant_value
from graphdrop.schedule import (
    Kernel,
    Layout,
    Product,
    Program,
    check_conditions,
    check_layout,
    layout,
    moved,
)
from graphdrop.schedule.memory import ALIGN
from graphdrop.types import Atom, evaluate

from .results import Results
from .segments import table_size

if TYPE_CHECKING:
    from .program import LlvmProgram

BRIEF = 1 << 17  # bytes moved in some ten microseconds


class Frame:
    """The memory of one call at a time: an arena, and the addresses of all buffers."""

    def __init__(self, program: LlvmProgram, plan: Plan) -> None:
        self.arena = np.empty(plan.layout.size + ALIGN, np.uint8)
        start = self.arena.ctypes.data
        self.begin = -start % ALIGN
        self.table = np.zeros(table_size(program.program) + 1, np.uintp)
        self.wrong = np.zeros(1, np.int64)  # what steps of rows tell
        self.table[-1] = self.wrong.ctypes.data
        self.address = self.table.ctypes.data
        self._fill(program.program, plan.layout, 0, start + self.begin)
        for number, array in program.constants.items():
            self.table[number] = array.ctypes.data

    def _fill(self, program: Program, memory: Layout, first: int, start: int) -> None:
        """The addresses of scratch, for the bodies of loops too."""
        for number, offset in memory.offsets.items():
            self.table[first + number] = start + offset
        first += len(program.buffers)
        for loop, inner in zip(program.loops, memory.loops, strict=True):
            self._fill(loop.body, inner, first, start + memory.own)
            first += table_size(loop.body)


def constants_of(program: Program, first: int = 0) -> dict[int, Any]:
    """Place in the table -> the array of a constant, for the bodies of loops too."""
    found = {
        first + b.number: np.ascontiguousarray(constant_value(b.node))
        for b in program.buffers
        if b.role == "constant"
    }
    first += len(program.buffers)
    for loop in program.loops:
        found |= constants_of(loop.body, first)
        first += table_size(loop.body)
    return found


class Plan:
    """What the sizes of a call fix: the values of all sizes, shapes, and where scratch lies."""

    def __init__(self, program: LlvmProgram, sizes: tuple[int, ...]) -> None:
        self.program, self.sizes = program, sizes
        self.env = dict(zip(program.graph.atoms, sizes, strict=True))
        check_conditions(program.conditions, self.env)
        known = [evaluate(s, self.env) for s in program.module.sizes]
        self.table = np.array(known or [0], np.int64)
        self.address = self.table.ctypes.data
        self.layout = layout(program.program, self.env)
        check_layout(program.program, self.layout, self.env)
        self.outputs = [
            Results(tuple(max(evaluate(s, self.env), 0) for s in b.node.shape), b.dtype)
            for b in program.program.outputs if b.role == "output"
        ]  # fmt: skip
        self.frames: list[Frame] = []
        self.is_brief = _is_brief(program.program, self.env)
        self.shortcut: Callable[..., list[Any] | None] | None = None

    def frame(self) -> Frame:
        """A frame that no other call uses."""
        try:
            return self.frames.pop()
        except IndexError:
            return Frame(self.program, self)


def _is_brief(program: Program, env: dict[Atom, int]) -> bool:
    """Whether a call is over before another thread would miss the interpreter's lock."""
    if not all(isinstance(s, (Kernel, Product)) for s in program.steps):
        return False
    return sum(evaluate(moved(s), env) for s in program.steps) <= BRIEF
