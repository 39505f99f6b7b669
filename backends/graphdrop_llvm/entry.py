"""How Python gets into a program: arrays' addresses are read by native code.

`take` reads the addresses of a list of arrays.  It knows where CPython (with its global lock) and
NumPy keep them; on another interpreter `addresses` reads them in Python instead.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

# offsets in bytes
LIST_ITEMS = 24  # PyListObject.ob_item
TYPE = 8  # PyObject.ob_type
DATA, FLAGS = 16, 64  # PyArrayObject.data, .flags
DENSE = 0x1 | 0x100  # NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED

TAKE = f"""define i64 @gd_take(ptr %list, ptr %table, ptr %slots, i64 %n, ptr %type) {{
entry:
  %items.at = getelementptr i8, ptr %list, i64 {LIST_ITEMS}
  %items = load ptr, ptr %items.at
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %next, %good ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %all
one:
  %item.at = getelementptr ptr, ptr %items, i64 %i
  %item = load ptr, ptr %item.at
  %type.at = getelementptr i8, ptr %item, i64 {TYPE}
  %found = load ptr, ptr %type.at
  %array = icmp eq ptr %found, %type
  br i1 %array, label %flags, label %all
flags:
  %flags.at = getelementptr i8, ptr %item, i64 {FLAGS}
  %bits = load i32, ptr %flags.at
  %dense = and i32 %bits, {DENSE}
  %ok = icmp eq i32 %dense, {DENSE}
  br i1 %ok, label %good, label %all
good:
  %data.at = getelementptr i8, ptr %item, i64 {DATA}
  %data = load ptr, ptr %data.at
  %slot.at = getelementptr i64, ptr %slots, i64 %i
  %slot = load i64, ptr %slot.at
  %to = getelementptr ptr, ptr %table, i64 %slot
  store ptr %data, ptr %to
  %next = add i64 %i, 1
  br label %check
all:
  ret i64 %i
}}"""


def knows_layout() -> bool:
    """Whether objects lie in memory as `take` expects; found out on an array."""
    if sys.implementation.name != "cpython" or "free-threading" in sys.version:
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    listed = [array]

    def word(address: int) -> int:
        return ctypes.c_uint64.from_address(address).value

    item = word(word(id(listed) + LIST_ITEMS))
    dense = ctypes.c_int32.from_address(id(array) + FLAGS).value & DENSE
    columns = array[:, ::2]
    strided = ctypes.c_int32.from_address(id(columns) + FLAGS).value & 1
    return (
        item == id(array)
        and word(id(array) + TYPE) == id(np.ndarray)
        and word(id(array) + DATA) == array.ctypes.data
        and dense == DENSE
        and strided == 0
    )


def take_in_python(arrays: list[Any], frame: Any, slots: np.ndarray[Any, Any]) -> int:
    """What native `gd_take` does: the number of arrays whose addresses could be taken."""
    for i, (array, number) in enumerate(zip(arrays, slots.tolist(), strict=True)):
        if type(array) is not np.ndarray or not (array.flags.c_contiguous and array.flags.aligned):
            return i
        frame.table[number] = array.ctypes.data
    return len(arrays)
