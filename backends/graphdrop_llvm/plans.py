"""What a call needs besides machine code: the values of sizes, memory for scratch, addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphdrop.schedule import Demand, Layout, check_conditions, check_layout, conditions, layout
from graphdrop.schedule.memory import ALIGN
from graphdrop.types import evaluate

from .recipe import Recipe
from .results import Results

if TYPE_CHECKING:
    from .program import LlvmProgram

BRIEF = 1 << 17  # bytes moved in some ten microseconds


class Frame:
    """The memory of one call at a time: an arena, and the addresses of all buffers."""

    def __init__(self, recipe: Recipe, plan: Plan) -> None:
        self.arena = np.empty(plan.layout.size + ALIGN, np.uint8)
        start = self.arena.ctypes.data
        self.begin = -start % ALIGN
        self.table = np.zeros(recipe.demand.after + 1, np.uintp)
        self.wrong = np.zeros(1, np.int64)  # what steps of rows tell
        self.table[-1] = self.wrong.ctypes.data
        self.address = self.table.ctypes.data
        self._fill(recipe.demand, plan.layout, start + self.begin)
        for number, array in recipe.constants.items():
            self.table[number] = array.ctypes.data

    def _fill(self, asked: Demand, memory: Layout, start: int) -> None:
        """The addresses of scratch, for the bodies of loops too."""
        for number, offset in memory.offsets.items():
            self.table[asked.first + number] = start + offset
        for loop, inner in zip(asked.loops, memory.loops, strict=True):
            self._fill(loop, inner, start + memory.own)


class Plan:
    """What the sizes of a call fix: the values of all sizes, shapes, and where scratch lies."""

    def __init__(self, program: LlvmProgram, sizes: tuple[int, ...]) -> None:
        recipe = self.recipe = program.recipe
        self.sizes = sizes
        self.env = dict(zip(recipe.atoms, sizes, strict=True))
        if any(need.wrong(self.env) for need in recipe.needs):
            check_conditions(conditions(program.program), self.env)
        self.layout = recipe.layout or layout(recipe.demand, self.env)
        known = [evaluate(s, self.env) for s in recipe.sizes]
        self.table = np.array(known or [0], np.int64)
        self.address = self.table.ctypes.data
        if program.is_fresh:
            check_layout(program.program, self.layout, self.env)
        self.outputs = [
            Results(tuple(max(evaluate(s, self.env), 0) for s in r.shape or ()), r.dtype)
            for r in recipe.results
        ]
        self.frames: list[Frame] = []
        # whether a call is over before another thread would miss the interpreter's lock
        self.is_brief = recipe.moved is not None and evaluate(recipe.moved, self.env) <= BRIEF
        self.shortcut: Callable[..., list[Any] | None] | None = None

    def frame(self) -> Frame:
        """A frame that no other call uses."""
        try:
            return self.frames.pop()
        except IndexError:
            return Frame(self.recipe, self)
