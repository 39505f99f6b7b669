"""All that is asked of CuPy, or of a module that stands in for it.

A place in memory is a memory pointer: `pointer + bytes` is another, `pointer.ptr` its address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from graphdrop import disk

from .products import WORKSPACE, Products

# fused multiply-add would round once where every other backend rounds twice
OPTIONS = ("--std=c++17", "-fmad=false")


@cache
def prelude() -> str:
    """What precedes every kernel."""
    return files(__package__).joinpath("prelude.cu").read_text(encoding="utf-8")


class Device:
    """A GPU by way of an array module.

    xp       cupy
    library  gives cuBLAS's functions, see `products`
    """

    def __init__(self, xp: Any, library: Callable[[], Any]) -> None:
        self.xp, self._library = xp, cache(library)
        self._products: dict[tuple[int, int], Products] = {}
        self._recording = threading.local()  # `place`: where what is recorded will run

    def place(self) -> tuple[int, int]:
        """Which device and stream is meant now: what runs on one stream runs in order."""
        cuda = self.xp.cuda
        return cuda.runtime.getDevice(), cuda.get_current_stream().ptr

    def check(self) -> None:
        """Raise what the compiler, the driver or cuBLAS say if they are not all there."""
        self._library()
        number = self.empty((1,), np.int32)
        one = 'extern "C" __global__ void gd_0(int *p) { p[0] = 1; }'
        self.kernels(one, "int")("gd_0")((1, 1, 1), (1, 1, 1), (number.data.ptr,))
        self.wait()

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
        array = np.asarray(array, order="C")
        target.set(array)
        # pinned memory is read when the device comes to it, and the caller may change it before
        if array.size and self.xp.cuda.pinned_memory.is_memory_pinned(array.ctypes.data):
            self.wait()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.xp.empty(shape, dtype)

    def view(self, pointer: Any, shape: Sequence[int], strides: Sequence[int], dtype: Any) -> Any:
        """An array on memory that is there; strides are in bytes."""
        return self.xp.ndarray(tuple(shape), dtype, memptr=pointer, strides=tuple(strides))

    def at(self, pointer: Any, nbytes: int) -> Any:
        """A place so many bytes further on; an array of no elements has but one."""
        return pointer + nbytes if nbytes and pointer.ptr else pointer

    def matmul(self, left: Any, right: Any, out: Any) -> None:
        if not out.size:
            return
        if left.shape[-1] == 0:
            out.fill(0)
            return
        place = getattr(self._recording, "place", None) or self.place()
        if place not in self._products:
            memory = self.empty((WORKSPACE,), np.uint8)
            self._products[place] = Products(self._library(), memory, self.xp.ascontiguousarray)
        self._products[place].multiply(self.place()[1], left, right, out)

    def copy(self, target: Any, source: Any, nbytes: int) -> None:
        """Memory to memory, both pointers here."""
        if nbytes:
            target.copy_from_device_async(source, nbytes)

    # ---- programs
    def kernels(self, text: str, index: str) -> Callable[[str], Any]:
        """The compiled kernels of a text by name; `index` is the type of positions.

        CuPy's RawModule would set numbers below the smallest normal ones to 0 (-ftz=true).
        """
        cuda = self.xp.cuda
        code = f"{prelude()}\n{text}"
        options = (*OPTIONS, f"-DINDEX={index}")
        version, device = cuda.nvrtc.getVersion(), cuda.Device().compute_capability
        name = disk.key("cuda", code, *options, str(version), device)
        binary = disk.load(name)
        if binary is None:
            binary, _ = cuda.compiler.compile_using_nvrtc(code, options)
            disk.keep(name, binary)
        module = cuda.function.Module()
        module.load(binary)
        function: Callable[[str], Any] = module.get_function
        return function

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What work asks of the device, to be asked again in one go: a CUDA graph.

        All that it uses must be in its place still, and compiled.
        """
        cuda = self.xp.cuda
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self._recording.place = self.place()
        try:
            with cuda.using_allocator(pool.malloc), stream:  # temporaries are the graph's alone
                stream.begin_capture()
                try:
                    work()
                finally:
                    graph = stream.end_capture()
        finally:
            self._recording.place = None

        def replay(graph: Any = graph, memory: Any = pool) -> None:
            graph.launch()

        return replay

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self.xp.cuda.get_current_stream().synchronize()
