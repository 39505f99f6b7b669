"""Products of a matrix and a vector: a vector would leave most of a tile unused."""

from __future__ import annotations

from .flow import Function
from .tiles import SHORT, Tiles, splat

ROWS_AT_ONCE = 8  # of a matrix that a row is multiplied with
CHAINS = 4  # of additions of a sum that one thread has in the air


def dots(tiles: Tiles) -> str:
    """c[i] = the sum of a[i, p] b[p]: rows of a are %ra apart, all else lies side by side."""
    kind, lanes, size = tiles.kind, tiles.lanes, tiles.size
    vector, short = f"<{lanes} x {kind}>", SHORT[kind]
    f = Function(
        "define internal void @dots(ptr %a, i64 %ra, ptr %b, ptr %c, i64 %m, i64 %k) noinline"
    )
    totals = [f.slot(vector) for _ in range(CHAINS)]
    rest = f.slot(kind)

    def multiply(several: str, suffix: str, slot: str, x: str, y: str) -> None:
        given = [f.load(several, at, size) for at in (x, y)] + [f.load(several, slot)]
        operands = ", ".join(f"{several} {g}" for g in given)
        f.store(several, f.emit(f"call {several} @llvm.fmuladd.{suffix}({operands})"), slot)

    with f.loop(0, "%m") as i:
        row = f.at(kind, "%a", f.mul(i, "%ra"))
        for slot in totals:
            f.store(vector, "zeroinitializer", slot)
        f.store(kind, "0.0", rest)
        start = "0"
        for slots in (totals, totals[:1]):
            step = lanes * len(slots)
            left = f.number("sub", "%k", start)
            end = f.add(start, f.mul(f.number("sdiv", left, step), step))
            with f.loop(start, end, step) as p:
                for q, slot in enumerate(slots):
                    at = f.add(p, q * lanes)
                    multiply(
                        vector, f"v{lanes}{short}", slot, f.at(kind, row, at), f.at(kind, "%b", at)
                    )
            start = end
        with f.loop(start, "%k") as p:
            multiply(kind, short, rest, f.at(kind, row, p), f.at(kind, "%b", p))
        total = f.load(vector, totals[0])
        for slot in totals[1:]:
            total = f.emit(f"fadd {vector} {total}, {f.load(vector, slot)}")
        total = f.emit(
            f"call reassoc {kind} @llvm.vector.reduce.fadd.v{lanes}{short}({kind} "
            f"{f.load(kind, rest)}, {vector} {total})"
        )
        f.store(kind, total, f.at(kind, "%c", i))
    return f.text()


def sums(tiles: Tiles) -> str:
    """c[j] = the sum of x[p] b[p, j]: numbers of x are %sx apart, rows of b %rb; c is dense.

    A few rows of b are read side by side, and what they add is held in c, which the caches hold.
    """
    kind, size = tiles.kind, tiles.size
    f = Function(
        "define internal void @sums(ptr %x, i64 %sx, ptr %b, i64 %rb, ptr %c, i64 %n, i64 %k) "
        "noinline"
    )
    with f.loop(0, "%n") as j:
        f.store(kind, "0.0", f.at(kind, "%c", j))
    whole = f.mul(f.number("sdiv", "%k", ROWS_AT_ONCE), ROWS_AT_ONCE)
    for first, end, count in (("0", whole, ROWS_AT_ONCE), (whole, "%k", 1)):
        with f.loop(first, end, count) as p:
            factors, rows = [], []
            for r in range(count):
                at = f.add(p, r)
                factors.append(f.load(kind, f.at(kind, "%x", f.mul(at, "%sx"))))
                rows.append(f.at(kind, "%b", f.mul(at, "%rb")))
            start = "0"
            for lanes in (tiles.lanes, 1):
                several = kind if lanes == 1 else f"<{lanes} x {kind}>"
                suffix = SHORT[kind] if lanes == 1 else f"v{lanes}{SHORT[kind]}"
                stop = f.mul(f.number("sdiv", "%n", lanes), lanes)
                spread = [x if lanes == 1 else splat(f, kind, lanes, x) for x in factors]
                with f.loop(start, stop, lanes) as j:
                    to = f.at(kind, "%c", j)
                    total = f.load(several, to, size)
                    for x, row in zip(spread, rows, strict=True):
                        y = f.load(several, f.at(kind, row, j), size)
                        total = f.emit(
                            f"call {several} @llvm.fmuladd.{suffix}({several} {x}, {several} {y}, "
                            f"{several} {total})"
                        )
                    f.store(several, total, to, size)
                start = stop
    return f.text()
