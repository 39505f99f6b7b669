"""A module like cupy, of which there is as much as the backend uses, on a machine with no GPU.

Device memory is memory that only kernels and this module may touch: arrays do not become NumPy's
unless they are asked to, new memory holds no zeros, and a kernel's first launches run three times,
the threads in another order each time, with equal results.
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from .compiler import Library

ORDERS = (0, 1, 12345)
THOROUGH = 4  # launches of a kernel in all orders; later ones are in the first alone
POISON = 0xFF
_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]


class Memory:
    """An allocation."""

    starts: list[int] = []  # noqa: RUF012
    alive: dict[int, weakref.ref[Memory]] = {}  # noqa: RUF012

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.ptr: int = 0
        if not nbytes:
            return  # as CuPy, which asks the driver for nothing
        self.ptr = _libc.malloc(nbytes)
        ctypes.memset(self.ptr, POISON, nbytes)
        bisect.insort(self.starts, self.ptr)
        self.alive[self.ptr] = weakref.ref(self)
        weakref.finalize(self, self._free, self.ptr)

    @classmethod
    def _free(cls, start: int) -> None:
        cls.starts.remove(start)
        del cls.alive[start]
        _libc.free(start)

    @classmethod
    def at(cls, address: int) -> Memory:
        """The allocation that an address is in, or at the end of."""
        starts = cls.starts.copy()  # other threads come and go
        place = bisect.bisect_right(starts, address) - 1
        kept = cls.alive.get(starts[place]) if place >= 0 else None
        found = None if kept is None else kept()
        if found is None or address > found.ptr + found.nbytes:
            raise TypeError(f"{address:#x} is no address of the device's")
        return found


class MemoryPointer:
    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self.offset = mem, offset

    @property
    def ptr(self) -> int:
        return self.mem.ptr + self.offset

    def __add__(self, nbytes: int) -> MemoryPointer:
        assert self.ptr or nbytes == 0, "an array of no elements has no address"
        return MemoryPointer(self.mem, self.offset + int(nbytes))

    def copy_from_device_async(self, source: MemoryPointer, nbytes: int) -> None:
        for p in (self, source):
            assert p.offset + nbytes <= p.mem.nbytes, "a copy beyond the end"
        do(lambda: ctypes.memmove(self.ptr, source.ptr, nbytes))


class ndarray:
    """An array of the device."""

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None,
        strides: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype = np.dtype(dtype)
        dense = np.empty(self.shape, self.dtype).strides if strides is None else tuple(strides)
        self.strides = dense
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        self.data = MemoryPointer(Memory(size), 0) if memptr is None else memptr

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def _host(self) -> Any:
        """The same memory as NumPy sees it; nobody else's business."""
        mem = self.data.mem
        if not self.size:
            return np.empty(self.shape, self.dtype)
        raw = (ctypes.c_char * mem.nbytes).from_address(mem.ptr)
        return np.ndarray(self.shape, self.dtype, raw, self.data.offset, self.strides)

    def get(self) -> Any:
        _not_while_capturing("a copy to the host")
        return np.array(self._host())

    def set(self, array: Any) -> None:
        _not_while_capturing("a copy from the host")
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (self.shape, self.dtype)
        self._host()[...] = array

    def copy(self) -> ndarray:
        return ascontiguousarray(self)

    def fill(self, value: Any) -> None:
        do(lambda: self._host().__setitem__(..., value))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False),
            "version": 3, "strides": self.strides,
        }  # fmt: skip

    def __bool__(self) -> bool:
        return bool(self._host())

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an array of the device does not become NumPy's; use .get()")


def empty(shape: Any, dtype: Any = float) -> ndarray:
    return ndarray(shape, dtype)


def asarray(value: Any, dtype: Any = None, order: str = "K") -> ndarray:
    if isinstance(value, ndarray):
        assert dtype is None or value.dtype == dtype
        if order != "C" or value._host().flags.c_contiguous:
            return value
        value = value._host()
    _not_while_capturing("a copy from the host")
    host = np.asarray(value, dtype, order="C")
    found = ndarray(host.shape, host.dtype)
    found._host()[...] = host
    return found


def ascontiguousarray(array: ndarray) -> ndarray:
    _only_ours(array)
    found = ndarray(array.shape, array.dtype)
    do(lambda: found._host().__setitem__(..., array._host()))
    return found


def _only_ours(*arrays: Any) -> None:
    for array in arrays:
        if not isinstance(array, ndarray):
            raise TypeError(f"{type(array)} is no array of the device")


class Module:
    """Kernels; what is compiled is kept in `compiled`, for those who compile it in other ways."""

    compiled: list[tuple[str, tuple[str, ...]]] = []  # noqa: RUF012

    def load(self, binary: bytes) -> None:
        code, *options = binary.decode().split("\0")
        self.compiled.append((code, tuple(options)))
        defined = [o for o in options if o.startswith("-D")]
        self.library = Library(code, defined)
        (self.index,) = [o.partition("INDEX=")[2] for o in defined]

    def get_function(self, name: str) -> Kernel:
        return Kernel(self.library, name, self.library.parameters[name], self.index)


def compile_using_nvrtc(code: str, options: tuple[str, ...]) -> tuple[bytes, None]:
    """The text itself: it is compiled when it is loaded."""
    assert type(options) is tuple
    return "\0".join([code, *options]).encode(), None


def module_of(code: str, options: tuple[str, ...]) -> Module:
    """Kernels for tests of the shim itself."""
    found = Module()
    found.load(compile_using_nvrtc(code, options)[0])
    return found


class Kernel:
    def __init__(self, library: Library, name: str, parameters: list[str], index: str) -> None:
        self.library, self.name, self.parameters, self.index = library, name, parameters, index

    def __call__(self, grid: Sequence[int], block: Sequence[int], given: Sequence[Any]) -> None:
        assert len(given) == len(self.parameters), f"{self.name} takes {self.parameters}"
        written: dict[int, Memory] = {}
        arguments: list[Any] = []
        for parameter, value in zip(self.parameters, given, strict=True):
            if "*" in parameter:
                assert type(value) is int, f"{self.name}: {parameter} got {value!r}"
                if value:
                    memory = Memory.at(value)
                    if not parameter.startswith("const"):
                        written[memory.ptr] = memory
                arguments.append(ctypes.c_void_p(value))
            else:
                kind = np.int32 if self.index == "int" else np.int64
                assert type(value) is kind, f"{self.name}: {parameter} got {type(value)}"
                arguments.append((ctypes.c_int if kind is np.int32 else ctypes.c_longlong)(value))
        do(lambda: self._run(grid, block, arguments, written))

    def _run(
        self, grid: Sequence[int], block: Sequence[int], arguments: list[Any],
        written: dict[int, Memory],
    ) -> None:  # fmt: skip
        """In every order of threads."""
        launched = self.library.launched[self.name] = self.library.launched[self.name] + 1
        if launched > THOROUGH:
            self.library.launch(self.name, grid, block, arguments, ORDERS[0])
            return
        before, first = _contents(written.values()), None
        for order in ORDERS:
            for start, content in before.items():
                ctypes.memmove(start, content, len(content))
            self.library.launch(self.name, grid, block, arguments, order)
            first = first or _contents(written.values())
            if any(_libc.memcmp(start, c, len(c)) for start, c in first.items()):
                raise RuntimeError(f"{self.name}: what it makes depends on the order of threads")


def _contents(memories: Iterable[Memory]) -> dict[int, bytes]:
    """Copies of some memory, by its address."""
    return {m.ptr: ctypes.string_at(m.ptr, m.nbytes) for m in memories}


# ---- streams.  All is done at once, but for what is captured: that is done at every launch
class _Captured(threading.local):
    """What the stream of this thread is to do later."""

    work: list[Callable[[], None]] | None = None
    stream: Stream | None = None


_captured = _Captured()
_one_at_a_time = threading.Lock()  # of kernels, as there is one device


def do(work: Callable[[], None]) -> None:
    if _captured.work is None:
        with _one_at_a_time:
            work()
    else:
        _captured.work.append(work)


def _not_while_capturing(what: str) -> None:
    if _captured.work is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what}")


class CUDARuntimeError(RuntimeError):
    """What CuPy raises when the driver refuses."""


class CompileException(Exception):
    """What CuPy raises when NVRTC refuses."""


class Stream:
    """The default stream is number 0."""

    numbers = itertools.count(1)

    def __init__(self, non_blocking: bool = False, ptr: int | None = None) -> None:
        self.non_blocking = non_blocking
        self.ptr = next(self.numbers) if ptr is None else ptr

    def __enter__(self) -> Stream:
        self.before, _captured.stream = get_current_stream(), self
        return self

    def __exit__(self, *error: Any) -> None:
        _captured.stream = self.before

    def synchronize(self) -> None:
        _not_while_capturing("a stream that is captured cannot be waited for")

    def begin_capture(self) -> None:
        _not_while_capturing("a capture in a capture")
        assert self.non_blocking, "the default stream cannot be captured"
        _captured.work = []

    def end_capture(self) -> Graph:
        assert _captured.work is not None
        found, _captured.work = Graph(_captured.work), None
        return found


def get_current_stream() -> Stream:
    return _captured.stream or DEFAULT


DEFAULT = Stream(ptr=0)


class Graph:
    launches = 0  # of all graphs

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def launch(self) -> None:
        type(self).launches += 1
        with _one_at_a_time:
            for work in self.work:
                work()


class MemoryPool:
    def malloc(self, nbytes: int) -> MemoryPointer:
        return MemoryPointer(Memory(nbytes), 0)


def _using_allocator(malloc: Any) -> Any:
    return nullcontext()


cuda = types.SimpleNamespace(
    get_current_stream=get_current_stream, Stream=Stream, MemoryPool=MemoryPool,
    using_allocator=_using_allocator,
    runtime=types.SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDevice=lambda: 0),
    Device=lambda: types.SimpleNamespace(compute_capability="80"),
    nvrtc=types.SimpleNamespace(getVersion=lambda: (0, 0)),
    compiler=types.SimpleNamespace(
        compile_using_nvrtc=compile_using_nvrtc, CompileException=CompileException
    ),
    function=types.SimpleNamespace(Module=Module),
    pinned_memory=types.SimpleNamespace(is_memory_pinned=lambda address: False),
)  # fmt: skip
