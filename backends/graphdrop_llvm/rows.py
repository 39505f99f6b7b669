"""Rows at positions that are data: fetched, added to, or only looked at to see that there are such.

A position that is none is no reason to stop native code: it is passed over, and told to the caller,
who lets the oracle say what is wrong.
"""

from __future__ import annotations

from graphdrop.ops.index import _gather, _scatter_add
from graphdrop.ops.losses import checked_labels
from graphdrop.ops.sort import last_equal
from graphdrop.schedule import Place, Rows
from graphdrop.types import Size, num_elements

from .flow import Function
from .lanes import memory_type
from .module import Code, Module

BLOCK = 1024  # numbers of a row that one unit adds to
LANES = 16

# an odd number of 64 bits near 2**64 over the golden ratio: products' high bits spread well
# (Knuth, "The Art of Computer Programming" 3, section 6.4)
SPREAD = -7046029254386353131


def units(step: Rows) -> Size:
    """What threads share: positions, or blocks of columns, each of which has all its additions."""
    if step.node.op is _scatter_add:
        return (_width(step) + (BLOCK - 1)) // BLOCK
    if step.node.op is last_equal:
        return 1
    return num_elements(step.ids.shape)


def print_rows(step: Rows, module: Module) -> tuple[str, list[tuple[int, Size]]]:
    """The name of the function and its buffers; one place more has the address of what is told."""
    code = Code(module, own=True)
    ids = _base(code, step.ids)
    array = _base(code, step.array) if step.array is not None else ""
    rows = _base(code, step.rows) if step.rows is not None else ""
    if step.node.op is last_equal:
        for text in ("declare ptr @calloc(i64, i64)", "declare void @free(ptr)",
                     "declare i64 @llvm.ctlz.i64(i64, i1)", _last_equal()):  # fmt: skip
            module.needs[text] = None
        count = code.size(num_elements(step.ids.shape))
        code.do(f"call void @gd_last_equal(ptr {ids}, ptr {rows}, i64 {count})")
        code.do("ret void")
        return module.step([*code.entry(), *code.lines]), code.places
    wrong = code.once(f"getelementptr ptr, ptr %t, i64 {len(code.places)}")
    wrong = code.once(f"load ptr, ptr {wrong}")
    if step.node.op is _scatter_add:
        with code.loop("%first", "%last") as unit:
            start = code.mul(unit, BLOCK)
            count = code.smaller(BLOCK, code.number("sub", code.size(_width(step)), start))
            with code.loop(0, code.size(num_elements(step.ids.shape))) as i:
                _add(
                    code, step, _position(code, step, ids, i, wrong), i, (array, rows, start, count)
                )
    else:
        with code.loop("%first", "%last") as i:
            at, is_there = _position(code, step, ids, i, wrong)
            if step.node.op is _gather:
                with code.when(is_there):
                    _fetch(code, step, array, rows, at, i)
    code.do("ret void")
    return module.step([*code.entry(), *code.lines]), code.places


def _last_equal() -> str:
    """last[i] = the greatest j for which x[j] = x[i], by a table of open addresses whose entries
    are 0, or one more than a position; it has at least twice as many as there are values.
    """
    f = Function("define internal void @gd_last_equal(ptr %x, ptr %last, i64 %n)")
    zeros = f.emit(f"call i64 @llvm.ctlz.i64(i64 {f.emit('or i64 %n, 1')}, i1 true)")
    bits = f.number("sub", 65, zeros)
    entries = f.number("shl", 1, bits)
    table = f.emit(f"call ptr @calloc(i64 {entries}, i64 8)")
    slot = f.slot("i64")
    with f.loop(0, "%n") as i:
        value = f.load("i64", f.at("i64", "%x", i))
        home = f.number("lshr", f.mul(value, SPREAD), f.number("sub", 64, bits))
        f.store("i64", home, slot)
        f.do("br label %probe")
        f.label("probe")
        at = f.load("i64", slot)
        entry = f.at("i64", table, at)
        held = f.load("i64", entry)
        f.do(f"br i1 {f.holds('eq', held, 0)}, label %put, label %compare")
        f.label("compare")
        other = f.load("i64", f.at("i64", "%x", f.number("sub", held, 1)))
        beside = f.number("and", f.add(at, 1), f.number("sub", entries, 1))
        f.store("i64", beside, slot)
        f.do(f"br i1 {f.holds('eq', other, value)}, label %put, label %probe")
        f.label("put")
        f.store("i64", f.add(i, 1), entry)
        f.store("i64", at, f.at("i64", "%last", i))
    with f.loop(0, "%n") as i:
        place = f.at("i64", "%last", i)
        held = f.load("i64", f.at("i64", table, f.load("i64", place)))
        f.store("i64", f.number("sub", held, 1), place)
    f.do(f"call void @free(ptr {table})")
    return f.text()


def _width(step: Rows) -> Size:
    assert step.array is not None
    return num_elements(step.array.shape[1:])


def _base(code: Code, place: Place) -> str:
    return code.place(place)


def _position(code: Code, step: Rows, ids: str, i: str, wrong: str) -> tuple[str, str]:
    """The position that number i gives, counted from the end if below 0, and whether it is one."""
    dtype = step.ids.buffer.dtype
    kind = memory_type(dtype)
    at = code.load(kind, code.at(kind, ids, i))
    if kind != "i64":
        at = code.emit(f"{'sext' if dtype.kind == 'i' else 'zext'} {kind} {at} to i64")
    limit = code.size(step.limit)
    if step.node.op is not checked_labels and dtype.kind == "i":
        from_end = code.choose(code.holds("slt", at, 0), "i64", limit, 0)
        at = code.number("add", at, from_end)
    is_there = code.holds("ult", at, limit)
    fine = is_there
    if step.node.op is checked_labels and step.node.params["ignore"] is not None:
        ignored = code.holds("eq", at, int(step.node.params["ignore"]))
        fine = code.emit(f"or i1 {is_there}, {ignored}")
    with code.when(code.emit(f"xor i1 {fine}, true")):
        code.store("i64", "1", wrong)
    return at, is_there


def _fetch(code: Code, step: Rows, array: str, rows: str, at: str, i: str) -> None:
    assert step.array is not None
    dtype, width = step.array.buffer.dtype, code.size(_width(step))
    kind = memory_type(dtype)
    source = code.at(kind, array, code.mul(at, code.size(step.array.strides[0])))
    if width == "1":
        code.store(kind, code.load(kind, source), code.at(kind, rows, i))
        return
    code.module.needs["declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"] = None
    to = code.at(kind, rows, code.mul(i, width))
    size = code.mul(width, dtype.itemsize)
    code.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {size}, i1 false)")


def _add(
    code: Code, step: Rows, position: tuple[str, str], i: str, where: tuple[str, str, str, str]
) -> None:
    """A part of row number i added to its place."""
    assert step.array is not None
    (at, is_there), (array, rows, start, count) = position, where
    dtype, width = step.array.buffer.dtype, code.size(_width(step))
    kind, how = memory_type(dtype), "fadd" if dtype.kind == "f" else "add"
    stride = code.size(step.array.strides[0])
    with code.when(is_there):
        to = code.at(kind, array, code.add(code.mul(at, stride), start))
        source = code.at(kind, rows, code.add(code.mul(i, width), start))
        whole = code.number("and", count, -LANES)
        for lanes, first, end in ((LANES, "0", whole), (1, whole, count)):
            several = kind if lanes == 1 else f"<{lanes} x {kind}>"
            with code.loop(first, end, lanes) as j:
                place = code.at(kind, to, j)
                old = code.load(several, place, dtype.itemsize)
                new = code.load(several, code.at(kind, source, j), dtype.itemsize)
                total = code.emit(f"{how} {several} {old}, {new}")
                code.store(several, total, place, dtype.itemsize)
