"""A way into small programs that is native from the call on.

`gd_shortcut` is what Python calls: it makes arrays for the results, compares the arguments with
those of the call before, puts the addresses of all into the table, and runs the program, all in a
fraction of a microsecond.  To make an array or a list may start the collector, and with it other
Python code that calls the same function or replaces a shared value; so nothing is looked at before.
Whatever is not as the call before it declines by returning None; the way through Python then takes
over, with its checks and messages.

It holds the interpreter's lock throughout, so it is for small programs only; that is also why one
table of addresses serves all threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from graphdrop import leases
from graphdrop.kept import Single
from graphdrop.ops.leaf import Shared

from .entry import DATA, DENSE, FLAGS, LIST_ITEMS, TYPE

# offsets in bytes
DIMENSIONS, DESCR, NDIM = 32, 56, 24  # of PyArrayObject
NEW_ARRAY = 184  # PyArray_Empty in NumPy's table of functions
WORD = 8
# the record: words, then the arguments' and the results' rows
ARGUMENTS, READ, RESULTS, ENTRY, TABLE, SIZES, ARRAY_TYPE, CHANGING, FIRST_ROW = range(9)
# a row: the dtype, the slot in the table, how many axes, the address of their sizes, and for a
# shared value the place where its array is found
ROW = 5 * WORD

SHORTCUT = f"""
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyList_New(i64)
@_Py_NoneStruct = external global i8
@gd_new_array = global ptr null

define ptr @gd_shortcut(ptr %self, ptr %given, i64 %count) {{
entry:
  %record.at = getelementptr i8, ptr %self, i64 {DATA}
  %record = load ptr, ptr %record.at
  %arguments = load i64, ptr %record
  %enough = icmp eq i64 %count, %arguments
  br i1 %enough, label %start, label %decline
start:
  %read.at = getelementptr i64, ptr %record, i64 {READ}
  %read = load i64, ptr %read.at
  %table.at = getelementptr i64, ptr %record, i64 {TABLE}
  %table = load ptr, ptr %table.at
  %type.at = getelementptr i64, ptr %record, i64 {ARRAY_TYPE}
  %type = load ptr, ptr %type.at
  %rows = getelementptr i64, ptr %record, i64 {FIRST_ROW}
  %read.bytes = mul i64 %read, {ROW}
  %outs = getelementptr i8, ptr %rows, i64 %read.bytes
  %results.at = getelementptr i64, ptr %record, i64 {RESULTS}
  %results = load i64, ptr %results.at
  %list = call ptr @PyList_New(i64 %results)
  %no.list = icmp eq ptr %list, null
  br i1 %no.list, label %fail, label %list.made
list.made:
  %items.at = getelementptr i8, ptr %list, i64 {LIST_ITEMS}
  %items = load ptr, ptr %items.at
  %new = load ptr, ptr @gd_new_array
  br label %results.make
results.make:
  %k = phi i64 [ 0, %list.made ], [ %k.next, %keep ]
  %out = phi ptr [ %outs, %list.made ], [ %out.next, %keep ]
  %wants = icmp ult i64 %k, %results
  br i1 %wants, label %result, label %ready
result:
  %out.descr = load ptr, ptr %out
  %out.axes.at = getelementptr i64, ptr %out, i64 2
  %out.axes = load i64, ptr %out.axes.at
  %out.ndim = trunc i64 %out.axes to i32
  %out.dims.at = getelementptr i64, ptr %out, i64 3
  %out.dims = load ptr, ptr %out.dims.at
  call void @Py_IncRef(ptr %out.descr)
  %made = call ptr %new(i32 %out.ndim, ptr %out.dims, ptr %out.descr, i32 0)
  %not.made = icmp eq ptr %made, null
  br i1 %not.made, label %drop, label %keep
keep:
  %place = getelementptr ptr, ptr %items, i64 %k
  store ptr %made, ptr %place
  %k.next = add i64 %k, 1
  %out.next = getelementptr i8, ptr %out, i64 {ROW}
  br label %results.make

ready:
  %changing.at = getelementptr i64, ptr %record, i64 {CHANGING}
  %changing.place = load ptr, ptr %changing.at
  %changing = load i64, ptr %changing.place
  %still = icmp eq i64 %changing, 0
  br i1 %still, label %arguments.check, label %forget
arguments.check:
  %i = phi i64 [ 0, %ready ], [ %i.next, %fits ]
  %row = phi ptr [ %rows, %ready ], [ %row.next, %fits ]
  %more = icmp ult i64 %i, %read
  br i1 %more, label %argument, label %results.place
argument:
  %own = icmp ult i64 %i, %count
  %given.at = getelementptr ptr, ptr %given, i64 %i
  %held.at = getelementptr i64, ptr %row, i64 4
  %held = load ptr, ptr %held.at
  %item.at = select i1 %own, ptr %given.at, ptr %held
  %item = load ptr, ptr %item.at
  %found.at = getelementptr i8, ptr %item, i64 {TYPE}
  %found = load ptr, ptr %found.at
  %array = icmp eq ptr %found, %type
  br i1 %array, label %dtype, label %forget
dtype:
  %descr.at = getelementptr i8, ptr %item, i64 {DESCR}
  %descr = load ptr, ptr %descr.at
  %wanted = load ptr, ptr %row
  %same = icmp eq ptr %descr, %wanted
  %flags.at = getelementptr i8, ptr %item, i64 {FLAGS}
  %flags = load i32, ptr %flags.at
  %dense = and i32 %flags, {DENSE}
  %plain = icmp eq i32 %dense, {DENSE}
  %ndim.at = getelementptr i8, ptr %item, i64 {NDIM}
  %ndim.short = load i32, ptr %ndim.at
  %ndim = sext i32 %ndim.short to i64
  %axes.at = getelementptr i64, ptr %row, i64 2
  %axes = load i64, ptr %axes.at
  %as.many = icmp eq i64 %ndim, %axes
  %good.1 = and i1 %same, %plain
  %good = and i1 %good.1, %as.many
  br i1 %good, label %shape, label %forget
shape:
  %dims.at = getelementptr i8, ptr %item, i64 {DIMENSIONS}
  %dims = load ptr, ptr %dims.at
  %known.at = getelementptr i64, ptr %row, i64 3
  %known = load ptr, ptr %known.at
  br label %axis.check
axis.check:
  %a = phi i64 [ 0, %shape ], [ %a.next, %axis ]
  %left = icmp ult i64 %a, %axes
  br i1 %left, label %axis, label %fits
axis:
  %dim.at = getelementptr i64, ptr %dims, i64 %a
  %dim = load i64, ptr %dim.at
  %must.at = getelementptr i64, ptr %known, i64 %a
  %must = load i64, ptr %must.at
  %a.next = add i64 %a, 1
  %equal = icmp eq i64 %dim, %must
  br i1 %equal, label %axis.check, label %forget
fits:
  %data.at = getelementptr i8, ptr %item, i64 {DATA}
  %data = load ptr, ptr %data.at
  %slot.at = getelementptr i64, ptr %row, i64 1
  %slot = load i64, ptr %slot.at
  %to = getelementptr ptr, ptr %table, i64 %slot
  store ptr %data, ptr %to
  %i.next = add i64 %i, 1
  %row.next = getelementptr i8, ptr %row, i64 {ROW}
  br label %arguments.check

results.place:
  %p = phi i64 [ 0, %arguments.check ], [ %p.next, %placed ]
  %to.row = phi ptr [ %outs, %arguments.check ], [ %to.row.next, %placed ]
  %unplaced = icmp ult i64 %p, %results
  br i1 %unplaced, label %placed, label %run
placed:
  %one.at = getelementptr ptr, ptr %items, i64 %p
  %one = load ptr, ptr %one.at
  %one.data.at = getelementptr i8, ptr %one, i64 {DATA}
  %one.data = load ptr, ptr %one.data.at
  %to.slot.at = getelementptr i64, ptr %to.row, i64 1
  %to.slot = load i64, ptr %to.slot.at
  %to.place = getelementptr ptr, ptr %table, i64 %to.slot
  store ptr %one.data, ptr %to.place
  %p.next = add i64 %p, 1
  %to.row.next = getelementptr i8, ptr %to.row, i64 {ROW}
  br label %results.place
run:
  %entry.at = getelementptr i64, ptr %record, i64 {ENTRY}
  %program = load ptr, ptr %entry.at
  %sizes.at = getelementptr i64, ptr %record, i64 {SIZES}
  %sizes = load ptr, ptr %sizes.at
  call void %program(ptr %table, ptr %sizes)
  ret ptr %list
drop:
  call void @Py_DecRef(ptr %list)
  br label %fail
fail:
  ret ptr null
forget:
  call void @Py_DecRef(ptr %list)
  br label %decline
decline:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}}"""

METH_FASTCALL = 0x80


class _MethodDef(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("method", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]  # fmt: skip


def symbols() -> dict[str, int]:
    """Addresses of the interpreter's functions that `gd_shortcut` calls."""
    names = ("Py_IncRef", "Py_DecRef", "PyList_New")
    found = {
        n: ctypes.cast(getattr(ctypes.pythonapi, n), ctypes.c_void_p).value or 0 for n in names
    }
    return found | {"_Py_NoneStruct": id(None)}


def new_array() -> int:
    """The address of PyArray_Empty."""
    umath = import_module("numpy._core._multiarray_umath")  # publishes its C functions

    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(umath._ARRAY_API, None)
    return ctypes.c_uint64.from_address(table + NEW_ARRAY * WORD).value


@Single
def _method(native: int) -> _MethodDef:
    """What describes the function to the interpreter, which reads it as long as there is one."""
    return _MethodDef(b"shortcut", native, METH_FASTCALL, None)


class _Record(np.ndarray[Any, Any]):
    """What `gd_shortcut` compares with and calls; keeps alive whatever it points at."""

    keep: list[Any]


def _array_of(shared: Shared) -> int:
    """The address at which an object of the interpreter refers to its array."""
    places = range(id(shared), id(shared) + Shared.__basicsize__, WORD)
    wanted = id(shared.array)
    return next(p for p in places if ctypes.c_uint64.from_address(p).value == wanted)


def make_shortcut(
    native: int, arrays: Sequence[Any], shared: Sequence[Shared], results: Sequence[Any],
    slots: Sequence[int], entry: int, table: int, sizes: int,
) -> tuple[Callable[..., list[Any] | None], _Record]:  # fmt: skip
    """A function of arrays like `arrays` that makes arrays like `results`, and its record.

    native  the address of `gd_shortcut`
    shared  what has the last of `arrays` as its value
    slots   places in the table, of `arrays` and of the results
    entry   the program, a function of the addresses of its tables
    """
    count = len(arrays) - len(shared)
    changing = ctypes.addressof(leases.changing)
    words = [
        count, len(arrays), len(results), entry, table, sizes, id(np.ndarray), changing
    ]  # fmt: skip
    keep: list[Any] = [*shared]
    places = [0] * count + [_array_of(s) for s in shared] + [0] * len(results)
    for item, slot, place in zip((*arrays, *results), slots, places, strict=True):
        shape = np.array(item.shape or (0,), np.int64)
        keep += [shape, item.dtype]
        words += [id(item.dtype), slot, len(item.shape), shape.ctypes.data, place]
    record = np.array(words, np.uint64).view(_Record)
    record.keep = keep
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return make(ctypes.addressof(_method(native)), record, None), record
