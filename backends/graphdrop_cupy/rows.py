"""Rows at positions that are data, as CUDA kernels: fetched, added to, or only looked at.

A position that is none is passed over, and told to the host, who lets the oracle say what is wrong.
"""

from __future__ import annotations

from graphdrop.ops.index import _gather
from graphdrop.ops.losses import checked_labels
from graphdrop.schedule import Buffer, Rows
from graphdrop.types import Size, floordiv, num_elements

from .geometry import THREADS
from .printer import Printed
from .scalars import MEMORY

SIZES = """const INDEX count, const INDEX width, const INDEX limit, const INDEX apart,
    const INDEX ids0, const INDEX array0, const INDEX rows0"""

FETCH = """extern "C" __global__ void @(const {ids} *__restrict__ ids,
    const {kind} *__restrict__ array, {kind} *__restrict__ rows, long long *wrong, {sizes}) {{
  for (INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x; i < count * width;
       i += (INDEX)gridDim.x * blockDim.x) {{
    const long long at = gd_position(ids[ids0 + i / width], (long long)limit);
    if (at < 0) *wrong = 1;
    else rows[rows0 + i] = array[array0 + (INDEX)at * apart + i % width];
  }}
}}"""

CHECK = """extern "C" __global__ void @(const {ids} *__restrict__ ids, long long *wrong,
    const INDEX count, const INDEX limit, const INDEX ids0) {{
  for (INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x; i < count;
       i += (INDEX)gridDim.x * blockDim.x) {{
    const {ids} at = ids[ids0 + i];
    if ((at < 0 || (u64)at >= (u64)limit){ignored}) *wrong = 1;
  }}
}}"""

# Blocks share the columns and, by the remainder of their numbers, the rows that are added to.  Each
# takes the positions in their order, as many at a time as it has threads: those of one row are
# linked, and added by whoever has the first.
ADD = """extern "C" __global__ void @(const {ids} *__restrict__ ids, {kind} *array,
    const {kind} *__restrict__ rows, long long *wrong, {sizes}) {{
  __shared__ long long at[{threads}];
  __shared__ int next[{threads}], begins[{threads}];
  const int t = threadIdx.x;
  const INDEX tiles = (width + {columns} - 1) / {columns};
  for (INDEX u = blockIdx.x; u < tiles * {groups}; u += gridDim.x) {{
    const INDEX tile = u % tiles * {columns}, group = u / tiles;
    const int columns = min(width - tile, (INDEX){columns});
    for (INDEX start = 0; start < count; start += {threads}) {{
      long long mine = -1;
      if (start + t < count) {{
        mine = gd_position(ids[ids0 + start + t], (long long)limit);
        if (mine < 0) *wrong = 1;
        else if (mine % {groups} != group) mine = -1;
      }}
      __syncthreads();
      at[t] = mine;
      next[t] = -1;
      __syncthreads();
      int before = mine < 0 ? -1 : t - 1;
      while (before >= 0 && at[before] != mine) before--;
      begins[t] = mine >= 0 && before < 0;
      if (before >= 0) next[before] = t;
      __syncthreads();
      for (int k = t; k < {threads} * columns; k += {threads}) {{
        const int first = k / columns;
        if (!begins[first]) continue;
        const INDEX j = tile + k % columns, place = array0 + (INDEX)at[first] * apart + j;
        {kind} sum = array[place];
        for (int q = first; q >= 0; q = next[q]) sum = {add};
        array[place] = sum;
      }}
    }}
  }}
}}"""
COLUMNS, GROUPS = 32, 64


def print_rows(step: Rows) -> Printed:
    """A step of rows; the address of what is told follows those of the buffers."""
    ids = MEMORY[step.ids.buffer.dtype.name]
    count = num_elements(step.ids.shape)
    if step.array is None or step.rows is None:
        ignore = step.node.params["ignore"] if step.node.op is checked_labels else None
        ignored = "" if ignore is None else f" && (long long)at != {int(ignore)}ll"
        sizes: list[Size] = [count, step.limit, step.ids.offset]
        text = CHECK.format(ids=ids, ignored=ignored)
        return Printed(text, [step.ids.buffer], sizes, "elements", count, 1, False)
    width = num_elements(step.array.shape[1:])
    sizes = [
        count, width, step.limit, step.array.strides[0], step.ids.offset, step.array.offset,
        step.rows.offset,
    ]  # fmt: skip
    buffers: list[Buffer] = [p.buffer for p in (step.ids, step.array, step.rows)]
    kind = MEMORY[step.array.buffer.dtype.name]
    if step.node.op is _gather:
        text = FETCH.format(ids=ids, kind=kind, sizes=SIZES)
        return Printed(text, buffers, sizes, "elements", count * width, 1, False)
    new = "rows[rows0 + (start + q) * width + j]"
    add = f"sum + {new}" if kind in ("float", "double") else f"gd_add(sum, {new})"
    text = ADD.format(
        ids=ids, kind=kind, add=add, sizes=SIZES, threads=THREADS, columns=COLUMNS, groups=GROUPS
    )
    blocks = floordiv(width + (COLUMNS - 1), COLUMNS) * GROUPS
    return Printed(text, buffers, sizes, "blocks", blocks, 1, False)
