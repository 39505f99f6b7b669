"""The executable of the llvm backend: native segments, and steps of the numpy backend between."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from graphdrop.backend import Executable, Graph, get_backend
from graphdrop.errors import BackendError, GraphdropError
from graphdrop.graph import Node, current_origin, origin_scope
from graphdrop.kept import Once, Recent
from graphdrop.op import size as size_op
from graphdrop.ops import create
from graphdrop.ops.leaf import Shared
from graphdrop.ops.linalg import _matmul
from graphdrop.ops.sort import last_equal
from graphdrop.schedule import (
    Buffer,
    Outside,
    Place,
    Program,
    Step,
    closed,
    cost,
    demand,
    draws_bits,
    draws_numbers,
    fetches_rows,
    operands,
    packed,
    schedule,
    title,
)
from graphdrop.types import Atom, TupleType, evaluate

from . import blas, gemm, philox, products
from .engine import assembly, compiled, linked
from .entry import take_in_python
from .lower import lower
from .module import Module
from .plans import Frame, Plan
from .recipe import Recipe, recipe_of
from .reductions import PRINTED
from .runtime import runtime
from .scalars import PRINTERS
from .segments import Segments
from .shortcut import make_shortcut

PLANS_KEPT = 64  # for the last so many sets of sizes
_TAKE = ctypes.PYFUNCTYPE(
    ctypes.c_int64, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def prints(node: Node) -> str | None:
    """What the backend makes of a node; see `schedule`."""
    if isinstance(node.type, TupleType):
        return None
    if node.op in PRINTERS or node.op in (create.iota, size_op):
        return "loop"
    if draws_bits(node) or draws_numbers(node):
        return "loop"
    if node.op in PRINTED and node.dtype.kind != "b":
        return "reduce"
    if fetches_rows(node) or node.op is last_equal:
        return "rows"
    return "product" if node.op is _matmul and products.supports(node) else None


@dataclass
class _Native:
    """Printed steps that run in one call; `step` is the only one where they are told apart."""

    name: str
    entry: Callable[[Any, Any], None]
    step: Step | None


@dataclass
class _Foreign:
    """A step of the numpy backend."""

    step: Outside
    executable: Executable


@dataclass(frozen=True)
class _Printed:
    """A graph as text: what the program is made of, and what people ask to see."""

    graph: Graph
    program: Program
    text: str
    steps: dict[str, Step]
    recipe: Recipe

    @classmethod
    def of(cls, graph: Graph, split: bool) -> _Printed:
        program, module = packed(schedule(graph, prints, lower), products.room), Module()
        printed = Segments(program, module, demand(program), split=split)
        text = module.text()
        calls = [name for name in KNOWN if f"@{name}(" in text]
        recipe = recipe_of(program, module, printed, calls)
        return cls(graph, program, text, printed.steps, recipe)


# functions that programs may call, and what finds one's address
KNOWN: dict[str, Callable[[str], int]] = {
    **dict.fromkeys(products.ROUTINES.values(), blas.address),
    **dict.fromkeys(gemm.NAMES, gemm.address),
    **dict.fromkeys(philox.FUNCTIONS, philox.address),
}


def addresses(calls: Sequence[str]) -> dict[str, int]:
    """Where functions that a program calls are, and those that many call."""
    return {name: KNOWN[name](name) for name in calls} | runtime().symbols


def _compiled(text: str, calls: Sequence[str]) -> Any:
    """The machine code of a program; what it calls is made meanwhile, if no process has before."""
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(addresses, calls)
        code = compiled(text)
    return linked(code, found.result())


class LlvmProgram:
    """An executable graph; see `graphdrop.backend.Executable`.

    graph   makes what is compiled
    split   whether every step runs in a call of its own, for the profiler
    kept    the recipe and the machine code that an earlier process has kept: the graph is made only
            if somebody wants to look inside, or is to be told what is wrong
    """

    def __init__(
        self, graph: Callable[[], Graph], *, split: bool = False,
        kept: tuple[Recipe, Any] | None = None,
    ) -> None:  # fmt: skip
        self._make, self.split, self.is_fresh = graph, split, kept is None
        self._origin = current_origin()
        if kept is None:
            printed = self._printed
            kept = printed.recipe, _compiled(printed.text, printed.recipe.calls)
        self.recipe, self.engine = kept
        slots = [*self.recipe.inputs, *[r.number for r in self.recipe.results]]
        self.order = {number: i for i, number in enumerate(slots)}
        self.slots = np.array(slots, np.int64)
        self._take = self._taker(len(slots))
        self.parts = [self._part(part) for part in self.recipe.parts]
        self._observed: LlvmProgram | None = None
        self._plans = Recent(partial(Plan, self), PLANS_KEPT)

    @cached_property
    def _printed(self) -> _Printed:
        with origin_scope(self._origin):
            return _Printed.of(self._make(), self.split)

    @property
    def graph(self) -> Graph:
        return self._printed.graph

    @property
    def program(self) -> Program:
        return self._printed.program

    def listing(self, what: str) -> str:
        """See `Executable.listing`."""
        if what == "source":
            return self._printed.text
        if what == "assembly":
            return assembly(self._printed.text)
        lines = [self.program.text()]
        if (plan := self._plans.latest) is not None:
            results = sum(r.nbytes for r in plan.outputs)
            lines.append(
                f"memory of the last call: {plan.layout.size:,} bytes of scratch, "
                f"{results:,} bytes of results"
            )
        return "\n".join(lines)

    def _taker(self, count: int) -> Callable[[list[Any], Any, Any], int]:
        address = runtime().take
        if address is None:
            return take_in_python
        native = _TAKE(address)
        slots, array_type = self.slots.ctypes.data, id(np.ndarray)

        def take(arrays: list[Any], frame: Frame, _: Any) -> int:
            found: int = native(arrays, frame.address, slots, count, array_type)
            return found

        return take

    def shortcut(
        self, arrays: list[Any], shared: Sequence[Any], sizes: tuple[int, ...]
    ) -> Callable[..., list[Any] | None] | None:
        """See `Executable.shortcut`: for programs that are native and brief."""
        plan = self._plans[sizes]
        if plan.shortcut is None and plan.is_brief:
            plan.shortcut = self._make_shortcut(arrays, shared, plan)
        return plan.shortcut

    def _make_shortcut(
        self, arrays: list[Any], shared: Sequence[Shared], plan: Plan
    ) -> Callable[..., list[Any] | None] | None:
        native, part = runtime().shortcut, self.parts[0]
        if native is None or len(self.parts) != 1 or isinstance(part, _Foreign):
            return None
        frame = plan.frame()  # from now on of the shortcut alone
        entry = self.engine.get_function_address(part.name)
        found, record = make_shortcut(
            native, arrays, shared, plan.outputs, self.slots.tolist(), entry, frame.address,
            plan.address,
        )  # fmt: skip
        record.keep += [self, plan, frame]
        return found

    def _part(self, part: str | Outside) -> _Native | _Foreign:
        if isinstance(part, Outside):
            return _Foreign(part, _by_the_oracle(part, self.recipe.atoms))
        step = self._printed.steps.get(part) if self.split else None
        return _Native(part, _ENTRY(self.engine.get_function_address(part)), step)

    # ---- running
    def run(self, arrays: list[Any], sizes: tuple[int, ...]) -> list[Any]:
        return self._run(arrays, sizes, None)

    def observe(
        self, arrays: list[Any], sizes: tuple[int, ...], seen: Callable[..., None]
    ) -> list[Any]:
        """As `run`, step by step: the program is compiled once more, with its steps apart."""
        if self.split:
            return self._run(arrays, sizes, seen)
        if self._observed is None:
            self._observed = type(self)(self._make, split=True)
        return self._observed.observe(arrays, sizes, seen)

    def _run(self, arrays: list[Any], sizes: tuple[int, ...], seen: Any) -> list[Any]:
        plan = self._plans[sizes]
        frame = plan.frame()
        outputs = [results.new() for results in plan.outputs]
        given = [*arrays, *outputs]
        while (wrong := self._take(given, frame, self.slots)) < len(given):
            # what is not plain memory in C order is copied
            given[wrong] = np.array(given[wrong], order="C", subok=False)
        made: dict[int, Any] = {}
        for part in self.parts:
            if frame.wrong[0]:
                break
            if isinstance(part, _Foreign):
                self._outside(part, frame, plan, made, given, seen)
            elif seen is None or part.step is None:
                part.entry(frame.address, plan.address)
            else:
                start = time.perf_counter()
                part.entry(frame.address, plan.address)
                seconds = time.perf_counter() - start
                node, what = title(part.step)
                seen(node, cost(part.step, plan.env), seconds, what)
        wrong, frame.wrong[0] = frame.wrong[0], 0
        plan.frames.append(frame)
        if wrong:
            self._let_the_oracle_say(arrays, sizes)
        found, handed = iter(outputs), Once(made)
        return [handed[r.number] if r.shape is None else next(found) for r in self.recipe.outputs]

    def _let_the_oracle_say(self, arrays: list[Any], sizes: tuple[int, ...]) -> None:
        """The error of a call in which positions were none."""
        get_backend("numpy").compile(self.graph).run(arrays, sizes)
        raise BackendError("positions were wrong here, and right on the numpy backend")

    def _outside(
        self, part: _Foreign, frame: Frame, plan: Plan, made: dict[int, Any], given: list[Any],
        seen: Any,
    ) -> None:  # fmt: skip
        step = part.step
        inputs = operands(
            step, plan.env, lambda place, env: self._operand(place, env, frame, plan, made, given)
        )
        start = time.perf_counter()
        results = part.executable.run(inputs, plan.sizes)
        if seen is not None:
            seconds = time.perf_counter() - start
            what = f"outside: {step.node.op.name}"
            seen(step.node, results[0] if results else None, seconds, what)
        wanted = [b for b in step.results if b is not None]
        for buffer, result in zip(wanted, results, strict=True):
            array = made[buffer.number] = np.ascontiguousarray(result).reshape(np.shape(result))
            frame.table[buffer.number] = array.ctypes.data

    def _operand(
        self, place: Place, env: dict[Atom, int], frame: Frame, plan: Plan,
        made: dict[int, Any], given: list[Any],
    ) -> Any:  # fmt: skip
        buffer = place.buffer
        if buffer.role == "foreign" and place.shape == buffer.node.shape and place.is_whole:
            return made[buffer.number]  # also where its sizes are values
        return _view(self._array(buffer, frame, plan, made, given), place, env)

    def _array(
        self, buffer: Buffer, frame: Frame, plan: Plan, made: dict[int, Any], given: list[Any]
    ) -> Any:
        """The memory of a buffer as a flat array."""
        if buffer.role == "scratch":
            start = plan.layout.offsets[buffer.number] + frame.begin
            count = evaluate(buffer.elements, plan.env)
            nbytes = count * buffer.dtype.itemsize
            return frame.arena[start : start + nbytes].view(buffer.dtype)
        if buffer.role == "constant":
            return self.recipe.constants[buffer.number].reshape(-1)
        if buffer.role == "foreign":
            return made[buffer.number].reshape(-1)
        return given[self.order[buffer.number]].reshape(-1)


class LlvmBody(LlvmProgram):
    """The body of a loop or a branch, which the numpy backend's loop runs step by step."""

    @property
    def aliased(self) -> list[bool]:
        return [False] * len(self.recipe.outputs)  # what a step gives is its own

    def runner(
        self, sizes: tuple[int, ...], seen: Callable[..., None] | None = None
    ) -> Callable[[list[Any]], list[Any]]:
        if seen is not None:
            return lambda arrays: self.observe(arrays, sizes, seen)
        return lambda arrays: self._run(arrays, sizes, None)

    def explained(self, error: GraphdropError) -> GraphdropError:
        return error  # steps outside explain their own


def _view(array: Any, place: Any, env: dict[Atom, int]) -> Any:
    """A place in an array's memory as an array."""
    strides = [evaluate(s, env) * array.itemsize for s in place.strides]
    shape = [max(evaluate(s, env), 0) for s in place.shape]
    flat = array.reshape(-1)[evaluate(place.offset, env) :]
    return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)


def _by_the_oracle(step: Outside, atoms: tuple[Atom, ...]) -> Executable:
    """The step compiled by the numpy backend; loops in it have native bodies."""
    return get_backend("numpy").compile(
        closed(step, atoms), bodies=lambda graph: LlvmBody(lambda: graph)
    )
