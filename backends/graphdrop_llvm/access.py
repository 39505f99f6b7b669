"""Loads and stores of a few elements at once, wherever they lie.

base  the address of element 0
kind  what an element is in memory
j     the number of the first element
step  how far elements are apart, as a register or a literal
mask  which of them there are; None for all
"""

from __future__ import annotations

from .engine import VERSION
from .lanes import Lanes

ALIGNMENTS = {"i8": 1, "i16": 2, "half": 2, "i32": 4, "float": 4}  # of what is not 8 bytes wide


def _pointers(b: Lanes, base: str, kind: str, j: str, step: str) -> tuple[str, bool]:
    """The address of the elements from j on, or one for each if they are not neighbours."""
    if step == "1" or b.width == 1:
        place = j if step == "1" else _times(b, j, step)
        if place == "0":
            return base, True
        return b.emit(f"getelementptr {kind}, ptr {base}, i64 {place}"), True
    every, steps = (
        b.splat("i64", v) if v.startswith("%") else b.repeat("i64", v) for v in (j, step)
    )
    index = b.binary("mul", "i64", b.binary("add", "i64", every, b.positions()), steps)
    return b.emit(f"getelementptr {kind}, ptr {base}, {b.type('i64')} {index}"), False


def _times(b: Lanes, j: str, step: str) -> str:
    return "0" if "0" in (j, step) else b.emit(f"mul i64 {j}, {step}")


def _masked(b: Lanes, name: str, kind: str, together: bool) -> tuple[str, str]:
    """LLVM's function of that name, and the type of its pointers."""
    short = {"float": "f32", "double": "f64", "half": "f16"}.get(kind, kind)
    suffix = f"v{b.width}{short}." + ("p0" if together else f"v{b.width}p0")
    return f"llvm.masked.{name}.{suffix}", "ptr" if together else b.type("ptr")


def _alignment(kind: str) -> list[tuple[str, str]]:
    """The operand by which masked accesses are told of alignment; LLVM 22 did away with it."""
    return [] if VERSION >= (22,) else [("i32", str(ALIGNMENTS.get(kind, 8)))]


def fetch(b: Lanes, base: str, kind: str, j: str, step: str, mask: str | None) -> str:
    """The elements; 0 where the mask has none."""
    pointer, together = _pointers(b, base, kind, j, step)
    whole = b.type(kind)
    if together and mask is None:
        return b.emit(f"load {whole}, ptr {pointer}, align {ALIGNMENTS.get(kind, 8)}")
    name, p = _masked(b, "load" if together else "gather", kind, together)
    held = (b.type("i1"), mask or b.repeat("i1", "true"))
    return b.call(name, whole, (p, pointer), *_alignment(kind), held, (whole, "zeroinitializer"))


def put(b: Lanes, base: str, kind: str, value: str, j: str, step: str, mask: str | None) -> None:
    """Store the elements."""
    pointer, together = _pointers(b, base, kind, j, step)
    whole = b.type(kind)
    if together and mask is None:
        b.do(f"store {whole} {value}, ptr {pointer}, align {ALIGNMENTS.get(kind, 8)}")
        return
    name, p = _masked(b, "store" if together else "scatter", kind, together)
    held = (b.type("i1"), mask or b.repeat("i1", "true"))
    given = [(whole, value), (p, pointer), *_alignment(kind), held]
    b.needs[f"declare void @{name}({', '.join(t for t, _ in given)})"] = None
    b.do(f"call void @{name}({', '.join(f'{t} {v}' for t, v in given)})")


def stream(b: Lanes, around: str, base: str, kind: str, value: str, j: str) -> None:
    """A store around the caches if `around` is true."""
    pointer, _ = _pointers(b, base, kind, j, "1")
    tag = b.fresh("stream")[1:]
    b.do(f"br i1 {around}, label %{tag}.around, label %{tag}.through")
    b.label(f"{tag}.around")
    b.do(f"store {b.type(kind)} {value}, ptr {pointer}, align 64, !nontemporal !0")
    b.do(f"br label %{tag}.after")
    b.label(f"{tag}.through")
    b.do(f"store {b.type(kind)} {value}, ptr {pointer}, align {ALIGNMENTS.get(kind, 8)}")
    b.do(f"br label %{tag}.after")
    b.label(f"{tag}.after")
