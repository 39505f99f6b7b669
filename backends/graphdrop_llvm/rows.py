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

from .lanes import memory_type
from .module import Code, Module

BLOCK = 1024  # numbers of a row that one unit adds to
LANES = 16

# The last position of every value, in a table of open addresses: 0, or one more than a position.
LAST_EQUAL = (
    "declare ptr @calloc(i64, i64)",
    "declare void @free(ptr)",
    "declare i64 @llvm.ctlz.i64(i64, i1)",
    """define internal void @gd_last_equal(ptr %x, ptr %last, i64 %n) {
entry:
  %most = or i64 %n, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %most, i1 true)
  %bits = sub i64 65, %zeros
  %slots = shl i64 1, %bits
  %mask = sub i64 %slots, 1
  %drop = sub i64 64, %bits
  %table = call ptr @calloc(i64 %slots, i64 8)
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %put ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %find, label %tell
find:
  %at = getelementptr i64, ptr %x, i64 %i
  %value = load i64, ptr %at
  %mixed = mul i64 %value, -7046029254386353131
  %home = lshr i64 %mixed, %drop
  br label %probe
probe:
  %slot = phi i64 [ %home, %find ], [ %beside, %other ]
  %entered = getelementptr i64, ptr %table, i64 %slot
  %held = load i64, ptr %entered
  %free = icmp eq i64 %held, 0
  br i1 %free, label %put, label %compare
compare:
  %before = sub i64 %held, 1
  %where = getelementptr i64, ptr %x, i64 %before
  %there = load i64, ptr %where
  %same = icmp eq i64 %there, %value
  br i1 %same, label %put, label %other
other:
  %after = add i64 %slot, 1
  %beside = and i64 %after, %mask
  br label %probe
put:
  %next = add i64 %i, 1
  store i64 %next, ptr %entered
  %mine = getelementptr i64, ptr %last, i64 %i
  store i64 %slot, ptr %mine
  br label %each
tell:
  %j = phi i64 [ 0, %each ], [ %following, %told ]
  %left = icmp slt i64 %j, %n
  br i1 %left, label %told, label %done
told:
  %place = getelementptr i64, ptr %last, i64 %j
  %its = load i64, ptr %place
  %address = getelementptr i64, ptr %table, i64 %its
  %one.more = load i64, ptr %address
  %position = sub i64 %one.more, 1
  store i64 %position, ptr %place
  %following = add i64 %j, 1
  br label %tell
done:
  call void @free(ptr %table)
  ret void
}""",
)


def units(step: Rows) -> Size:
    """What threads share: positions, or blocks of columns, each of which has all its additions."""
    if step.node.op is _scatter_add:
        return (_width(step) + (BLOCK - 1)) // BLOCK
    if step.node.op is last_equal:
        return 1
    return num_elements(step.ids.shape)


def print_rows(step: Rows, module: Module) -> tuple[str, list[int]]:
    """The name of the function and its buffers; one place more has the address of what is told."""
    code = Code(module, own=True)
    ids = _base(code, step.ids)
    array = _base(code, step.array) if step.array is not None else ""
    rows = _base(code, step.rows) if step.rows is not None else ""
    if step.node.op is last_equal:
        for text in LAST_EQUAL:
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


def _width(step: Rows) -> Size:
    assert step.array is not None
    return num_elements(step.array.shape[1:])


def _base(code: Code, place: Place) -> str:
    base = code.buffer(place.buffer.number)
    return code.at(memory_type(place.buffer.dtype), base, code.size(place.offset))


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
