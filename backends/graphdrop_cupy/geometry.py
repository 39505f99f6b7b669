"""How a kernel is launched for the sizes of a call: blocks, threads, chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphdrop.types import Atom, evaluate

from .printer import Printed

THREADS = 256
BLOCKS = 4096  # at most; threads then take several elements
SMALL = 1 << 20  # elements; fewer are spread over more blocks


@dataclass(frozen=True)
class Launch:
    """Blocks and threads, and into how many chunks reductions are cut; all depends on sizes alone,
    so that sums are the same on every device.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    chunks: int
    chunk: int
    outs: int

    @property
    def is_empty(self) -> bool:
        return self.outs == 0

    @property
    def parts(self) -> int:
        """How many parts of results there are, none where results need no joining."""
        return self.outs * self.chunks if self.chunks > 1 else 0

    def join(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Blocks and threads of what joins the parts."""
        threads = 32
        while threads < THREADS and threads < self.chunks:
            threads *= 2
        return (min(self.outs, BLOCKS), 1, 1), (threads, 1, 1)


def launch(printed: Printed, env: Mapping[Atom, int]) -> Launch:
    """How a kernel is launched for the sizes of a call."""
    outs, length = evaluate(printed.outs, env), evaluate(printed.length, env)
    return {"elements": _elements, "blocks": _blocks, "rows": _rows, "columns": _columns}[
        printed.kind
    ](printed, max(outs, 0), max(length, 0))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _elements(printed: Printed, outs: int, length: int) -> Launch:
    each = 16 if printed.draws else 1
    threads = 64 if printed.draws and outs < SMALL else THREADS
    blocks = min(_ceil(outs, threads * each), BLOCKS)
    return Launch((max(blocks, 1), 1, 1), (threads, 1, 1), 1, length, outs)


def _blocks(printed: Printed, outs: int, length: int) -> Launch:
    return Launch((max(min(outs, BLOCKS), 1), 1, 1), (THREADS, 1, 1), 1, length, outs)


def _rows(printed: Printed, outs: int, length: int) -> Launch:
    chunks = 1
    if printed.joins and outs < THREADS and length > 8192:
        chunks = max(min(_ceil(length, 4096), _ceil(1024, max(outs, 1))), 1)
    chunk = _ceil(length, chunks)
    chunks = max(_ceil(length, chunk), 1) if chunk else 1
    each = 16 if printed.draws else 4
    threads = 32
    while threads < 2 * THREADS and threads * each < chunk:
        threads *= 2
    rows = max(THREADS // threads, 1)
    blocks = min(_ceil(outs * chunks, rows), BLOCKS)
    return Launch((max(blocks, 1), 1, 1), (threads, rows, 1), chunks, chunk, outs)


def _columns(printed: Printed, outs: int, length: int) -> Launch:
    tiles, chunks = max(_ceil(outs, 32), 1), 1
    if tiles < 128:
        chunks = max(min(_ceil(length, 64), _ceil(256, tiles)), 1)
    chunk = _ceil(length, chunks)
    chunks = max(_ceil(length, chunk), 1) if chunk else 1
    blocks = min(tiles * chunks, BLOCKS)
    return Launch((blocks, 1, 1), (32, 8, 1), chunks, chunk, outs)


def as_arguments(values: list[int], index: str) -> list[Any]:
    """Sizes as arguments of a kernel."""
    kind = np.int32 if index == "int" else np.int64
    return [kind(v) for v in values]
