"""A kernel of a program as launches: each has the reductions along one set of axes, or none.

Threads that share a result have to meet, so a launch can add up along its own axes only.  What a
launch has written, later ones read instead of computing it again.
"""

from __future__ import annotations

from dataclasses import replace

from graphdrop.graph import Node
from graphdrop.schedule import Buffer, Kernel, replaces


def launches_of(kernel: Kernel) -> list[Kernel]:
    """Kernels that together do what `kernel` does, in their order."""
    by_axes: dict[tuple[int, ...], list[Node]] = {}
    for node in kernel.reduced:
        by_axes.setdefault(tuple(sorted(node.params["axis"])), []).append(node)
    if len(by_axes) < 2:
        return [kernel]
    # rows that are walked several times come first, and with them all that is written
    last = (len(kernel.domain) - 1,)
    first = last if kernel.rows else next(iter(by_axes))
    found = [_part(kernel, by_axes.pop(first), list(kernel.writes))]
    known = {**found[0].writes, **found[0].reduced}
    spread = {operand: known[root] for operand, root in kernel.rows.items()}
    for nodes in by_axes.values():
        part = replace(kernel, reads={**kernel.reads, **spread, **found[0].writes}, rows={})
        found.append(_part(part, nodes, []))
    return found


def replaces_before(kernel: Kernel, new: Buffer, old: Buffer) -> bool:
    """Whether a kernel can write one buffer over another: no later launch reads that."""
    later = launches_of(kernel)[1:]
    read = {p.buffer for launch in later for p in launch.reads.values()}
    return old not in read and replaces(kernel, new, old)


def _part(kernel: Kernel, reduced: list[Node], writes: list[Node]) -> Kernel:
    """The kernel with some of its results, and what they need and cannot read."""
    needed = {*reduced, *writes}
    for node in reversed(kernel.nodes):
        if node in needed and node not in kernel.reads:
            needed.update(node.dependencies)
            needed.update(kernel.rows[d] for d in node.dependencies if d in kernel.rows)
    made = [n for n in kernel.nodes if n in needed and n not in kernel.reads]
    return replace(
        kernel,
        nodes=tuple(made),
        reads={n: p for n, p in kernel.reads.items() if n in needed},
        writes={n: kernel.writes[n] for n in writes},
        reduced={n: kernel.reduced[n] for n in made if n in kernel.reduced},
        rows={d: r for d, r in kernel.rows.items() if d in needed},
    )
