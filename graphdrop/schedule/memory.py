"""Where scratch buffers lie in one arena: those that are never needed at the same time share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..types import Atom, Size, evaluate
from .program import Buffer, Kernel, Program, touched
from .walk import stages_of

ALIGN = 64  # bytes, a cache line and the widest vector
END = 1 << 62  # bytes, more than there are


@dataclass(frozen=True)
class Layout:
    """Where scratch buffers are in an arena.

    offsets  in bytes, by number
    own      bytes that they take
    loops    the layouts of the bodies of loops, in order; they take turns in what follows `own`
    """

    offsets: dict[int, int]
    own: int
    loops: tuple[Layout, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.own + max((inner.size for inner in self.loops), default=0)


def lifetimes(program: Program) -> dict[Buffer, tuple[int, int]]:
    """For every scratch buffer, the first and the last step that touches it."""
    found: dict[Buffer, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        for buffer, _ in touched(step):
            if buffer.role == "scratch":
                found[buffer] = (found.get(buffer, (number, 0))[0], number)
    return found


def replaces(kernel: Kernel, new: Buffer, old: Buffer) -> bool:
    """Whether a kernel can write one buffer over another that it reads: each element where it has
    just read the same one, which it does not need again.
    """
    writes = {n: p for n, p in kernel.writes.items() if p.buffer is new}
    reads = {n: p for n, p in kernel.reads.items() if p.buffer is old}
    reduced = {p.buffer for p in kernel.reduced.values()}
    if len(writes) != 1 or not reads or new in reduced or new.dtype != old.dtype:
        return False
    ((written, place),) = writes.items()
    if not place.is_whole or not all(p.is_whole for p in reads.values()):
        return False
    if any((p.shape, p.strides) != (place.shape, place.strides) for p in reads.values()):
        return False
    if not kernel.rows:
        return True
    stages = stages_of(kernel)
    after = next(i for i, stage in enumerate(stages) if written in stage.writes) + 1
    return not any(n in reads for stage in stages[after:] for n in stage.reads)


def in_place(
    program: Program, may: Callable[[Kernel, Buffer, Buffer], bool] = replaces
) -> dict[Buffer, Buffer]:
    """The scratch buffers that kernels write over others, and which these are."""
    lives = lifetimes(program)
    found: dict[Buffer, Buffer] = {}
    for number, step in enumerate(program.steps):
        if not isinstance(step, Kernel):
            continue
        free = {b for b, _ in touched(step) if b in lives and lives[b][1] == number}
        for new in [p.buffer for p in step.writes.values()]:
            if new not in lives or lives[new][0] != number:
                continue
            old = next((p.buffer for p in step.reads.values()
                        if p.buffer in free and may(step, new, p.buffer)), None)  # fmt: skip
            if old is not None:
                found[new] = old
                free.remove(old)
    return found


@dataclass(frozen=True)
class Piece:
    """Memory that one buffer takes, or several in turns, each written over the one before it.

    buffers      their numbers
    first, last  the steps between which it is in use, these two with it
    size         in bytes
    """

    buffers: list[int]
    first: int
    last: int
    size: Size


@dataclass(frozen=True)
class Demand:
    """What a program asks of memory, whatever the sizes.

    first   how many buffers come before its own, in a program with all the bodies in it
    after   how many there are up to the last of its own loops
    pieces  of scratch
    loops   what the bodies of loops ask, in order
    """

    first: int
    after: int
    pieces: list[Piece]
    loops: list[Demand]

    @property
    def is_fixed(self) -> bool:
        """Whether all sizes are known, so that there is one layout."""
        own = all(isinstance(piece.size, int) for piece in self.pieces)
        return own and all(inner.is_fixed for inner in self.loops)


def demand(
    program: Program, may: Callable[[Kernel, Buffer, Buffer], bool] = replaces, first: int = 0
) -> Demand:
    """What a program asks, where `may` says which buffers can be written over which."""
    lives, over = lifetimes(program), in_place(program, may)
    following = {old: new for new, old in over.items()}
    pieces = []
    for buffer, (start, _) in lives.items():
        if buffer not in over:
            taken = [buffer]
            while taken[-1] in following:
                taken.append(following[taken[-1]])
            size = buffer.elements * buffer.dtype.itemsize
            pieces.append(Piece([b.number for b in taken], start, lives[taken[-1]][1], size))
    after, loops = first + len(program.buffers), []
    for loop in program.loops:
        loops.append(demand(loop.body, may, after))
        after = loops[-1].after
    return Demand(first, after, pieces, loops)


def layout(asked: Demand, env: Mapping[Atom, int]) -> Layout:
    """Offsets for the sizes of one call: the largest pieces first, each in the first gap that is
    free as long as it is in use, so that little ones fill what large ones leave.  (Pisarchyk and
    Lee, "Efficient memory management for deep neural net inference", 2020, "greedy by size".)

    MemoryError for sizes that no machine has.
    """
    sizes = [max(-(-evaluate(p.size, env) // ALIGN) * ALIGN, ALIGN) for p in asked.pieces]
    if sum(sizes) >= END:
        raise MemoryError(f"a call with these sizes needs {sum(sizes):.1e} bytes of scratch")
    offsets: dict[int, int] = {}
    # what is placed, by begins: begin, end, first and last step; two are there always, at the ends
    placed = np.zeros((4, len(sizes) + 2), np.int64)
    placed[:, 1] = END, END, 0, END
    placed[3, 0] = END
    for count, number in enumerate(sorted(range(len(sizes)), key=lambda i: -sizes[i]), 2):
        piece, nbytes = asked.pieces[number], sizes[number]
        begins, ends, first, last = placed[:, :count]
        beside = (first <= piece.last) & (last >= piece.first)
        reached = np.maximum.accumulate(ends[beside])[:-1]
        start = int(reached[np.argmax(begins[beside][1:] - reached >= nbytes)])
        at = int(np.searchsorted(begins, start, "right"))
        placed[:, at + 1 : count + 1] = placed[:, at:count]
        placed[:, at] = start, start + nbytes, piece.first, piece.last
        offsets.update(dict.fromkeys(piece.buffers, start))
    top = int(placed[1, :-1].max())
    return Layout(offsets, top, tuple(layout(inner, env) for inner in asked.loops))
