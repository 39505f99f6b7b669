"""Where scratch buffers lie in one arena: those that are never needed at the same time share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..types import Atom, Size, evaluate
from .program import Buffer, Kernel, Program, touched
from .walk import stages_of

ALIGN = 64  # bytes, a cache line and the widest vector


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
class Demand:
    """What a program asks of memory, whatever the sizes.

    first   how many buffers come before its own, in a program with all the bodies in it
    after   how many there are up to the last of its own loops
    begins  for every step, the scratch buffers that it touches first, and their bytes
    ends    for every step, the buffers whose memory is free after it
    over    a buffer -> the one whose memory it takes, as its kernel reads that for the last time
    loops   what the bodies of loops ask, in order
    """

    first: int
    after: int
    begins: list[list[tuple[int, Size]]]
    ends: list[list[int]]
    over: dict[int, int]
    loops: list[Demand]


def demand(
    program: Program, may: Callable[[Kernel, Buffer, Buffer], bool] = replaces, first: int = 0
) -> Demand:
    """What a program asks, where `may` says which buffers can be written over which."""
    begins: list[list[tuple[int, Size]]] = [[] for _ in program.steps]
    ends: list[list[int]] = [[] for _ in program.steps]
    over = in_place(program, may)
    passed_on = set(over.values())
    for buffer, (start, last) in lifetimes(program).items():
        begins[start].append((buffer.number, buffer.elements * buffer.dtype.itemsize))
        if buffer not in passed_on:
            ends[last].append(buffer.number)
    after, loops = first + len(program.buffers), []
    for loop in program.loops:
        loops.append(demand(loop.body, may, after))
        after = loops[-1].after
    numbers = {new.number: old.number for new, old in over.items()}
    return Demand(first, after, begins, ends, numbers, loops)


def layout(asked: Demand, env: Mapping[Atom, int]) -> Layout:
    """Offsets for the sizes of one call: a buffer that takes no other's place has the tightest gap
    that is free.
    """
    offsets: dict[int, int] = {}
    sizes: dict[int, int] = {}
    gaps: list[tuple[int, int]] = []  # (offset, bytes) that are free, in order
    top = 0
    for begins, ends in zip(asked.begins, asked.ends, strict=True):
        for number, size in begins:
            if number in asked.over:
                old = asked.over[number]
                offsets[number], sizes[number] = offsets[old], sizes[old]
                continue
            nbytes = max(-(-evaluate(size, env) // ALIGN) * ALIGN, ALIGN)
            fitting = [g for g in gaps if g[1] >= nbytes]
            if fitting:
                gap = min(fitting, key=lambda g: g[1])
                gaps.remove(gap)
                offsets[number] = gap[0]
                if gap[1] > nbytes:
                    gaps.append((gap[0] + nbytes, gap[1] - nbytes))
            else:
                # grow the arena from its last gap, if that reaches the end
                last_gap = max(gaps, default=(0, 0))
                start = last_gap[0] if last_gap[1] and sum(last_gap) == top else top
                if start != top:
                    gaps.remove(last_gap)
                offsets[number] = start
                top = start + nbytes
            sizes[number] = nbytes
        for number in ends:
            gaps = _joined([*gaps, (offsets[number], sizes[number])])
    return Layout(offsets, top, tuple(layout(inner, env) for inner in asked.loops))


def _joined(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gaps in order, neighbours made one."""
    found: list[tuple[int, int]] = []
    for offset, size in sorted(gaps):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + size)
        else:
            found.append((offset, size))
    return found
