"""Whole programs kept on disk: a process that builds a graph again neither rewrites nor prints it.

A file says which code it is about, what whoever kept it noted, and how the program is run.  It is
found by the name of the graph, and by all that decides what is made of a graph: our own source, the
library for products, and what machine code depends on.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from graphdrop import disk
from graphdrop.backend import Executable, Graph
from graphdrop.types import Atom

from . import blas
from .engine import code_name, kept_module, machine
from .program import LlvmProgram, addresses
from .recipe import from_bytes, to_bytes
from .source import SOURCE


def keep(name: str, executable: Executable, note: str) -> None:
    """Keep what was compiled of the graph called `name`, if another process could run it.

    note  a line, which `revive` returns
    """
    assert isinstance(executable, LlvmProgram)
    file, recipe = _file(name), to_bytes(executable.recipe)
    if file is not None and recipe is not None:
        head = f"{code_name(executable.listing('source'))}\n{note}\n"
        disk.keep(file, head.encode() + recipe)


def revive(
    name: str, atoms: tuple[Atom, ...], graph: Callable[[], Graph]
) -> tuple[Executable, str] | None:
    """What was compiled of a graph of this name, and the note; None if that is not kept.

    atoms  the graph's
    graph  makes it, if that is needed after all
    """
    file = _file(name)
    found = None if file is None else disk.load(file)
    if found is None:
        return None
    code, note, data = found.split(b"\n", 2)
    recipe = from_bytes(data, atoms)
    engine = kept_module(code.decode(), addresses(recipe.calls))
    if engine is None:
        return None
    return LlvmProgram(graph, kept=(recipe, engine)), note.decode()


def _file(graph: str) -> str | None:
    """What the file for a graph of this name is called."""
    if not SOURCE:
        return None
    return disk.key("program", graph, SOURCE, machine(), os.environ.get(blas.ENVIRONMENT, ""))
