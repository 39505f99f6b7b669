"""The llvm backend's `Backend` value."""

from __future__ import annotations

from graphdrop.arrays import to_host
from graphdrop.backend import Backend, Graph, Store

from .keep import keep, revive
from .program import LlvmProgram
from .scalars import PRINTERS


def compile(graph: Graph) -> LlvmProgram:
    """The executable of a graph."""
    return LlvmProgram(lambda: graph)


BACKEND = Backend(
    name="llvm",
    rules=PRINTERS,
    compile=compile,
    to_device=to_host,
    to_host=to_host,
    store=Store(keep, revive),
)
