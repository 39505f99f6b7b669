"""What it takes to run a program besides its machine code, and that as bytes.

No node of the graph is in it, so that a process can begin with what an earlier one has kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphdrop.op import constant_value
from graphdrop.plain import from_plain, plain
from graphdrop.schedule import (
    Demand,
    Kernel,
    Layout,
    Need,
    Outside,
    Piece,
    Product,
    Program,
    conditions,
    layout,
    moved,
)
from graphdrop.types import Atom, Shape, Size, atom_size

from .module import Module
from .segments import Segments

LARGEST = 16 << 20  # bytes of the constants of a recipe that is kept

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Result:
    """An output: the number of its buffer, and its shape if native code writes it."""

    number: int
    dtype: np.dtype[Any]
    shape: Shape | None


@dataclass(frozen=True)
class Recipe:
    """How a program is run.  Buffers are numbered, those of loops' bodies behind the others.

    atoms      the sizes that a call fixes
    parts      the names of functions to be called, and steps outside between them
    calls      functions of other modules that the code calls
    inputs     numbers of the buffers of the graph's inputs
    outputs    its results
    sizes      the sizes that the code looks up in a table
    constants  number of a buffer -> what is in it
    demand     what memory is needed
    layout     where scratch lies, if that is the same for all sizes
    moved      bytes read and written, where all is done in kernels and products; else None
    needs      what must hold for the sizes of a call
    """

    atoms: tuple[Atom, ...]
    parts: Sequence[str | Outside]
    calls: Sequence[str]
    inputs: Sequence[int]
    outputs: Sequence[Result]
    sizes: Sequence[Size]
    constants: Mapping[int, Array]
    demand: Demand
    layout: Layout | None
    moved: Size | None
    needs: Sequence[Need]

    @property
    def results(self) -> list[Result]:
        """The outputs that native code writes."""
        return [r for r in self.outputs if r.shape is not None]


def recipe_of(program: Program, module: Module, printed: Segments, calls: Sequence[str]) -> Recipe:
    """How to run a program that has been printed."""
    outputs = [
        Result(b.number, b.dtype, b.node.shape if b.role == "output" else None)
        for b in program.outputs
    ]
    return Recipe(
        program.atoms, printed.parts, calls, [b.number for b in program.inputs], outputs,
        tuple(module.sizes), _constants(program, printed.asked), printed.asked,
        _layout(printed.asked), _moved(program),
        [need for _, need in conditions(program)],
    )  # fmt: skip


def _layout(asked: Demand) -> Layout | None:
    if not asked.is_fixed:
        return None
    try:
        return layout(asked, {})
    except MemoryError:
        return None  # which a call is to say


def _constants(program: Program, asked: Demand) -> dict[int, Array]:
    found = {
        asked.first + b.number: np.ascontiguousarray(constant_value(b.node))
        for b in program.buffers
        if b.role == "constant"
    }
    for loop, inner in zip(program.loops, asked.loops, strict=True):
        found |= _constants(loop.body, inner)
    return found


def _moved(program: Program) -> Size | None:
    if not all(isinstance(s, (Kernel, Product)) for s in program.steps):
        return None
    total: Size = 0
    for step in program.steps:
        total = total + moved(step)
    return total


# --------------------------------------------------------------------------------------------
# as bytes: a line of JSON, then the constants one behind the other


def to_bytes(recipe: Recipe) -> bytes | None:
    """The recipe for another process; None if it has steps outside, or is too large."""
    native = not any(isinstance(part, Outside) for part in recipe.parts)
    if not native or sum(a.nbytes for a in recipe.constants.values()) > LARGEST:
        return None
    head = json.dumps(_said(recipe), separators=(",", ":")).encode()
    return b"".join([head, b"\n", *[a.tobytes() for a in recipe.constants.values()]])


def _said(recipe: Recipe) -> Any:
    """All but the constants' bytes, in what JSON has; an atom is its number."""
    number = {atom: i for i, atom in enumerate(recipe.atoms)}

    def size(value: Size | None) -> Any:
        return None if value is None else plain(value, number.__getitem__)

    def sizes(values: Sequence[Size]) -> Any:
        return [size(v) for v in values]

    def asks(asked: Demand) -> Any:
        pieces = [[p.buffers, p.first, p.last, size(p.size)] for p in asked.pieces]
        return [asked.first, asked.after, pieces, [asks(inner) for inner in asked.loops]]

    def lies(memory: Layout) -> Any:
        return [list(memory.offsets.items()), memory.own, [lies(inner) for inner in memory.loops]]

    return {
        "parts": recipe.parts, "calls": recipe.calls, "inputs": recipe.inputs,
        "outputs": [[r.number, r.dtype.name, sizes(r.shape or ())] for r in recipe.outputs],
        "sizes": sizes(recipe.sizes), "demand": asks(recipe.demand),
        "layout": recipe.layout and lies(recipe.layout), "moved": size(recipe.moved),
        "constants": [[n, a.dtype.name, a.shape] for n, a in recipe.constants.items()],
        "needs": [[sizes(n.loops), size(n.limit), size(n.at)] for n in recipe.needs],
    }  # fmt: skip


def from_bytes(data: bytes, atoms: tuple[Atom, ...]) -> Recipe:
    """The recipe that `to_bytes` has written, for the same graph with atoms of its own."""
    head, _, rest = data.partition(b"\n")
    said = json.loads(head)
    dims = [atom_size(a) for a in atoms]

    def size(value: Any) -> Any:
        return None if value is None else from_plain(value, dims.__getitem__)

    def sizes(values: Any) -> tuple[Size, ...]:
        return tuple([size(v) for v in values])

    def asked(values: Any) -> Demand:
        first, after, pieces, loops = values
        found = [Piece(buffers, begin, end, size(nbytes)) for buffers, begin, end, nbytes in pieces]
        return Demand(first, after, found, [asked(inner) for inner in loops])

    def layout_of(values: Any) -> Layout:
        offsets, own, loops = values
        return Layout(dict(offsets), own, tuple([layout_of(inner) for inner in loops]))

    constants, start = {}, 0
    for number, kind, shape in said["constants"]:
        dtype = np.dtype(kind)
        count = math.prod(shape)
        constants[number] = np.frombuffer(rest, dtype, count, start).reshape(shape).copy()
        start += count * dtype.itemsize
    return Recipe(
        atoms, said["parts"], said["calls"], said["inputs"],
        [Result(n, np.dtype(kind), sizes(shape)) for n, kind, shape in said["outputs"]],
        sizes(said["sizes"]), constants, asked(said["demand"]),
        said["layout"] and layout_of(said["layout"]), size(said["moved"]),
        [Need(sizes(loops), size(limit), size(at)) for loops, limit, at in said["needs"]],
    )  # fmt: skip
