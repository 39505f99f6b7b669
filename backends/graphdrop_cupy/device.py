"""All that is asked of CuPy, or of a module that stands in for it.

A place in memory is a memory pointer: `pointer + bytes` is another, `pointer.ptr` its address.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

# fused multiply-add would round once where every other backend rounds twice
OPTIONS = ("--std=c++17", "-fmad=false")


@cache
def prelude() -> str:
    """What precedes every kernel."""
    return files(__package__).joinpath("prelude.cu").read_text(encoding="utf-8")


class Device:
    """A GPU by way of an array module.

    xp  cupy
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    # ---- arrays
    def put(self, array: Any) -> Any:
        """An array of this device in C order; one that is here already is not copied."""
        return self.xp.asarray(array, order="C")

    def get(self, array: Any) -> Any:
        """A NumPy array with the same values."""
        return array.get() if self.holds(array) else np.asarray(array)

    def holds(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray)

    def write(self, target: Any, array: Any) -> None:
        """A NumPy array's values into an array that is there."""
        target.set(np.asarray(array, order="C"))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.xp.empty(shape, dtype)

    def view(self, pointer: Any, shape: Sequence[int], strides: Sequence[int], dtype: Any) -> Any:
        """An array on memory that is there; strides are in bytes."""
        return self.xp.ndarray(tuple(shape), dtype, memptr=pointer, strides=tuple(strides))

    def matmul(self, left: Any, right: Any, out: Any) -> None:
        if left.shape[-1] == 0:
            out.fill(0)
        elif out.size:
            self.xp.matmul(left, right, out=out)

    def copy(self, target: Any, source: Any, nbytes: int) -> None:
        """Memory to memory, both pointers here."""
        if nbytes:
            target.copy_from_device_async(source, nbytes)

    # ---- programs
    def kernels(self, text: str, index: str) -> Callable[[str], Any]:
        """The compiled kernels of a text by name; `index` is the type of positions."""
        code = f"{prelude()}\n{text}"
        options = (*OPTIONS, f"-DINDEX={index}")
        function: Callable[[str], Any] = self.xp.RawModule(code=code, options=options).get_function
        return function

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What work asks of the device, to be asked again in one go: a CUDA graph.

        All that it uses must be in its place still, and compiled.
        """
        cuda = self.xp.cuda
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        with cuda.using_allocator(pool.malloc), stream:  # temporaries are the graph's alone
            stream.begin_capture()
            try:
                work()
            finally:
                graph = stream.end_capture()

        def replay(graph: Any = graph, memory: Any = pool) -> None:
            graph.launch()

        return replay

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self.xp.cuda.get_current_stream().synchronize()
