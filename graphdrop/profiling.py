"""How long the steps of a call took, and how far that is from what the machine can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .graph import Node, format_origin

# numbers of an array that no cache holds, rows and columns of a product that keeps all busy
HOST, DEVICE = (1 << 23, 768), (1 << 27, 8192)
SECONDS = 0.3  # for each measurement
CALLS, PATIENCE = 3, 1.0  # of one profile, and seconds after which there are no more
HEADINGS = ("microseconds", "share", "GB/s", "GFLOP/s", "of max", " operation")


@dataclass(frozen=True)
class Took:
    """One step: its node, what it is in a few words, and what it cost."""

    node: Node
    what: str
    nbytes: int
    operations: int
    seconds: float


def quickest(observed: Callable[[], list[Took]]) -> list[Took]:
    """The steps of the quickest of a few calls."""
    calls: list[list[Took]] = []
    end = time.perf_counter() + PATIENCE
    while not calls or (len(calls) < CALLS and time.perf_counter() < end):
        calls.append(observed())
    return min(calls, key=_seconds)


def _seconds(steps: Sequence[Took]) -> float:
    return sum(s.seconds for s in steps)


class Profile:
    """Time, bytes and arithmetic of every step of one call.

    Printed, the slowest comes first, and "of max" says how much it is of what the machine can do:
    of its bandwidth or its arithmetic, whichever is nearer.  Those are measured by the first print.
    """

    def __init__(self, steps: Sequence[Took], most: Callable[[], Ceilings]) -> None:
        self.steps, self.most = steps, most
        self.rows = [
            {"op": s.what, "type": str(s.node.type), "seconds": s.seconds, "bytes": s.nbytes,
             "operations": s.operations, "origin": format_origin(s.node.origin)}
            for s in steps
        ]  # fmt: skip

    @property
    def seconds(self) -> float:
        return _seconds(self.steps)

    def __str__(self) -> str:
        most, total = self.most(), self.seconds or 1.0
        lines = [
            f"{total * 1e6:.1f} microseconds in all; this machine: {most}",
            "{:>12} {:>6} {:>7} {:>8} {:>6} {}".format(*HEADINGS),
        ]
        for s in sorted(self.steps, key=lambda s: -s.seconds):
            speed, rate = (n / (s.seconds or 1.0) for n in (s.nbytes, s.operations))
            near = max(speed / most.bandwidth, rate / most.rate)
            lines.append(
                f"{s.seconds * 1e6:12.1f} {s.seconds / total:6.1%} {speed / 1e9:7.1f} "
                f"{rate / 1e9:8.1f} {near:6.0%}  {s.what} {s.node.type}  "
                f"{format_origin(s.node.origin)}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Ceilings:
    """Bytes copied, and floating-point operations of a product, a second, in float32."""

    bandwidth: float
    rate: float

    @classmethod
    def measured(
        cls, long: int, copy: Callable[[], Profile], wide: int, product: Callable[[], Profile]
    ) -> Ceilings:
        """What profiled calls that copy `long` numbers and multiply `wide` rows come to."""
        return cls(8 * long / _quickest(copy), 2 * wide**3 / _quickest(product))

    def __str__(self) -> str:
        rate = f"{self.rate / 1e9:.0f} GFLOP/s multiplied"
        return f"{self.bandwidth / 1e9:.1f} GB/s copied and {rate}"


def _quickest(profiled: Callable[[], Profile]) -> float:
    """Seconds of the quickest call's steps: no array on its way to or from a device."""
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while not found or time.perf_counter() < end:
        found.append(profiled().seconds)
    return min(found)
