"""How reductions combine what they have: on lanes, and all lanes into one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphdrop.graph import Node
from graphdrop.ops import reduce

from .lanes import Lanes, literal, scalar_type

LARGEST = (reduce.max, reduce.row_max)
ARITHMETIC = {reduce.sum: "add", reduce.prod: "mul"}
NEUTRAL = {reduce.sum: 0, reduce.prod: 1}
PRINTED = (*ARITHMETIC, reduce.min, *LARGEST)


def wide(node: Node) -> np.dtype[Any]:
    """What the lanes of a reduction hold: sums and products of float32 are made in float64."""
    if node.op in ARITHMETIC and node.dtype == np.float32:
        return np.dtype(np.float64)
    return node.dtype


def identity(node: Node) -> float:
    """What changes nothing in a reduction."""
    if node.op in NEUTRAL:
        return NEUTRAL[node.op]
    info = np.finfo if node.dtype.kind == "f" else np.iinfo
    if node.op in LARGEST:
        return -np.inf if node.dtype.kind == "f" else info(node.dtype).min
    return np.inf if node.dtype.kind == "f" else info(node.dtype).max


def combine(b: Lanes, node: Node, dtype: np.dtype[Any], x: str, y: str) -> str:
    """Two results of a reduction as one."""
    kind = scalar_type(dtype)
    if node.op in ARITHMETIC:
        return b.binary(("f" if dtype.kind == "f" else "") + ARITHMETIC[node.op], kind, x, y)
    name = "max" if node.op in LARGEST else "min"
    if dtype.kind == "f":  # a NaN wins; x, which is waited for, passes two instructions only
        better = "ogt" if node.op in LARGEST else "olt"
        best = b.select(b.binary(f"fcmp {better}", kind, y, x), kind, y, x)
        return b.select(b.binary("fcmp uno", kind, y, y), kind, y, best)
    return b.intrinsic(("s" if dtype.kind == "i" else "u") + name, kind, x, y)


def horizontal(one: Lanes, node: Node, dtype: np.dtype[Any], width: int, total: str) -> str:
    """All lanes of a vector combined."""
    kind = scalar_type(dtype)
    short = {"float": "f32", "double": "f64", "half": "f16"}.get(kind, kind)
    whole = f"<{width} x {kind}>"
    floats = node.dtype.kind == "f"
    if node.op in ARITHMETIC:
        word = ARITHMETIC[node.op]
        if not floats:
            return one.call(f"llvm.vector.reduce.{word}.v{width}{short}", kind, (whole, total))
        start = literal(dtype, NEUTRAL[node.op] or -0.0)
        name = f"llvm.vector.reduce.f{word}.v{width}{short}"
        one.needs[f"declare {kind} @{name}({kind}, {whole})"] = None
        # in any order: the lanes are sums of every 16th element already
        return one.emit(f"call reassoc {kind} @{name}({kind} {start}, {whole} {total})")
    name = "max" if node.op in LARGEST else "min"
    if not floats:
        word = ("s" if node.dtype.kind == "i" else "u") + name
        return one.call(f"llvm.vector.reduce.{word}.v{width}{short}", kind, (whole, total))
    word = f"llvm.vector.reduce.f{name}.v{width}{short}"
    one.needs[f"declare {kind} @{word}({whole})"] = None
    best = one.emit(f"call nnan {kind} @{word}({whole} {total})")
    bad = one.emit(f"fcmp uno {whole} {total}, zeroinitializer")
    bad = one.call(f"llvm.vector.reduce.or.v{width}i1", "i1", (f"<{width} x i1>", bad))
    return one.select(bad, kind, literal(dtype, np.nan), best)


def join_function(node: Node, needs: dict[str, str | None]) -> str:
    """The function name(results, parts, number of results, number of parts) that joins the parts of
    a reduction in their order, as many for each result.
    """
    dtype = wide(node)
    kind, held = scalar_type(dtype), scalar_type(node.dtype)
    name = f"gd_join_{node.op.name}_{node.dtype.name}"
    if name not in needs:
        one = Lanes(1, needs, itertools.count())
        total = combine(one, node, dtype, "%so.far", "%part")
        out = total if held == kind else "%narrow"
        narrow = "" if held == kind else f"  %narrow = fptrunc {kind} %so.far to {held}\n"
        body = "\n".join(one.lines)
        needs[name] = f"""define internal void @{name}(ptr %r, ptr %p, i64 %n, i64 %all) {{
entry:
  %some = call i64 @llvm.smax.i64(i64 %n, i64 1)
  %each = udiv i64 %all, %some
  br label %results
results:
  %i = phi i64 [ 0, %entry ], [ %i.next, %end ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %begin, label %done
begin:
  %first = mul i64 %i, %each
  br label %parts
parts:
  %j = phi i64 [ 0, %begin ], [ %j.next, %add ]
  %so.far = phi {kind} [ {literal(dtype, identity(node))}, %begin ], [ {total}, %add ]
  %left = icmp slt i64 %j, %each
  br i1 %left, label %add, label %end
add:
  %at = add i64 %first, %j
  %a = getelementptr {kind}, ptr %p, i64 %at
  %part = load {kind}, ptr %a
{body}
  %j.next = add i64 %j, 1
  br label %parts
end:
{narrow}  %o = getelementptr {held}, ptr %r, i64 %i
  store {held} {"%so.far" if held == kind else out}, ptr %o
  %i.next = add i64 %i, 1
  br label %results
done:
  ret void
}}"""
    return name


def join_blocks(node: Node, needs: dict[str, str | None]) -> str:
    """The function name(results, blocks, number of results, number of blocks) that adds up, for
    each result, what every block has for it.
    """
    name = f"gd_join_blocks_{node.op.name}_{node.dtype.name}"
    if name not in needs:
        numbers = itertools.count()
        vector, rest = (
            _join_loop(node, Lanes(width, needs, numbers), tag, end)
            for width, tag, end in ((16, "vectors", "rest"), (1, "ones", "done"))
        )
        needs[name] = f"""define internal void @{name}(ptr %r, ptr %p, i64 %n, i64 %all) {{
entry:
  %whole = and i64 %n, -16
  br label %vectors
{vector}
rest:
  br label %ones
{rest}
done:
  ret void
}}"""
    return name


def _join_loop(node: Node, b: Lanes, tag: str, end: str) -> str:
    """The results in steps of the lanes, from where the loop before has ended."""
    kind, whole = scalar_type(node.dtype), b.of(node.dtype)
    align = node.dtype.itemsize
    start, before, stop = ("0", "entry", "%whole") if tag == "vectors" else ("%whole", "rest", "%n")
    total = combine(b, node, node.dtype, f"%{tag}.so.far", f"%{tag}.part")
    body = "\n".join(b.lines)
    neutral = b.constant(node.dtype, identity(node))
    return f"""{tag}:
  %{tag}.i = phi i64 [ {start}, %{before} ], [ %{tag}.i.next, %{tag}.store ]
  %{tag}.more = icmp slt i64 %{tag}.i, {stop}
  br i1 %{tag}.more, label %{tag}.blocks, label %{end}
{tag}.blocks:
  %{tag}.j = phi i64 [ 0, %{tag} ], [ %{tag}.j.next, %{tag}.block ]
  %{tag}.so.far = phi {whole} [ {neutral}, %{tag} ], [ {total}, %{tag}.block ]
  %{tag}.left = icmp slt i64 %{tag}.j, %all
  br i1 %{tag}.left, label %{tag}.block, label %{tag}.store
{tag}.block:
  %{tag}.row = mul i64 %{tag}.j, %n
  %{tag}.at = add i64 %{tag}.row, %{tag}.i
  %{tag}.a = getelementptr {kind}, ptr %p, i64 %{tag}.at
  %{tag}.part = load {whole}, ptr %{tag}.a, align {align}
{body}
  %{tag}.j.next = add i64 %{tag}.j, 1
  br label %{tag}.blocks
{tag}.store:
  %{tag}.o = getelementptr {kind}, ptr %r, i64 %{tag}.i
  store {whole} %{tag}.so.far, ptr %{tag}.o, align {align}
  %{tag}.i.next = add i64 %{tag}.i, {b.width}
  br label %{tag}"""
