"""The executable of the cupy backend: kernels, products and copies in order, on one stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphdrop.backend import Executable, Graph, get_backend
from graphdrop.errors import BackendError
from graphdrop.graph import Node
from graphdrop.kept import Once, Recent
from graphdrop.op import constant_value
from graphdrop.op import size as size_op
from graphdrop.ops import create
from graphdrop.ops.linalg import _matmul
from graphdrop.schedule import (
    Kernel,
    Loop,
    Outside,
    Program,
    Rows,
    Step,
    closed,
    conditions,
    demand,
    draws_bits,
    draws_numbers,
    fetches_rows,
    lower,
    schedule,
)
from graphdrop.types import TupleType

from . import scalars
from .device import Device
from .launches import launches_of, replaces_before
from .plans import Plan, all_steps
from .printer import Printed, Printer
from .reductions import HOW
from .rows import print_rows

PLANS_KEPT = 64  # for the last so many sets of sizes


def prints(node: Node) -> str | None:
    """What the backend makes of a node; see `schedule`."""
    if isinstance(node.type, TupleType):
        return None
    if scalars.prints(node) or node.op in (create.iota, size_op):
        return "loop"
    if draws_bits(node) or draws_numbers(node):
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
        self.conditions = list(conditions(self.program))
        self.demand = demand(self.program, replaces_before)
        self.looks = any(isinstance(s, Rows) for s in all_steps(self.program))
        self._modules: dict[tuple[str, int], Callable[[str], Any]] = {}
        self._constants: dict[tuple[Node, int], Any] = {}
        self._plans = Recent(partial(Plan, self), PLANS_KEPT)

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

    def kernel(self, name: str, index: str, gpu: int) -> Any:
        """A compiled kernel; all of them are compiled with the first."""
        if (index, gpu) not in self._modules:
            self._modules[index, gpu] = self.device.kernels(self.text, index)
        return self._modules[index, gpu](name)

    def constant(self, node: Node, gpu: int) -> Any:
        """A constant's array on the device."""
        if (node, gpu) not in self._constants:
            self._constants[node, gpu] = self.device.put(constant_value(node))
        return self._constants[node, gpu]

    # ---- running
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
        plan, device = self._plans[sizes, self.device.place()], self.device
        frame = plan.frame()
        given = [
            frame.placed(b, a) for b, a in zip(self.program.inputs, arrays, strict=True)
        ]  # fmt: skip
        frame.begin(self.program.inputs, given)
        frame.begin(*plan.results())
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
        handed = Once(frame.arrays)
        found = [handed[b.number] for b in self.program.outputs]
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
        if (plan := self._plans.latest) is not None:
            lines.append(f"memory of the last call: {plan.layout.size:,} bytes of scratch")
            lines += [f"calls are not replayed: {f.never}" for f in plan.frames[:1] if f.never]
        return "\n".join(lines)
