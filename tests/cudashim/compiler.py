"""Kernels as shared libraries: CUDA C compiled by g++ with `cudashim.h`, and launched."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILT = HERE.parent.parent / ".pytest_cache" / "cudashim"
FLAGS = ("-std=gnu++17", "-O0", "-w", "-fPIC", "-shared", "-ffp-contract=off", "-fuse-ld=gold",
         *os.environ.get("CUDASHIM_FLAGS", "").split())  # fmt: skip
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)')
MEETS = re.compile(r"__sync|__shfl|gd_in_|gd_join")
WRONG = {
    1: "not all threads of a block reach a barrier", 2: "not all threads of a warp reach a shuffle",
    3: "no block has so many threads",
}  # fmt: skip

SHARED = """
extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char *shim_shared_begin() { return __start_shared_memory; }
extern "C" char *shim_shared_end() { return __stop_shared_memory; }
"""


def build(source: str, *flags: str) -> Path:
    """The library of some C++, compiled where nobody has yet."""
    headers = (HERE / "cudashim.h").read_text()
    key = hashlib.sha256("\0".join([source, headers, *FLAGS, *flags]).encode()).hexdigest()[:24]
    BUILT.mkdir(parents=True, exist_ok=True)
    path = BUILT / f"{key}.so"
    if not path.exists():
        handle, aside = tempfile.mkstemp(dir=BUILT, suffix=".so")
        os.close(handle)
        command = ["g++", "-x", "c++", *FLAGS, f"-I{HERE}", *flags, "-", "-o", aside]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"g++ says\n{done.stderr}\nof\n{source}")
        os.replace(aside, path)
    return path


@cache
def threads() -> ctypes.CDLL:
    """What runs threads; kernels' libraries look for it among all that is loaded."""
    return ctypes.CDLL(str(build((HERE / "threads.cpp").read_text())), ctypes.RTLD_GLOBAL)


def _trampoline(name: str, parameters: list[str]) -> str:
    """A function of the addresses of a kernel's arguments."""
    kinds = [p.rsplit(" ", 1)[0] + ("*" if "*" in p.rsplit(" ", 1)[1] else "") for p in parameters]
    kinds = [k.replace("__restrict__", "").replace("*", "").strip() + ("*" if "*" in p else "")
             for k, p in zip(kinds, parameters, strict=True)]  # fmt: skip
    given = ", ".join(f"*({k}*)a[{i}]" for i, k in enumerate(kinds))
    return f'extern "C" void shim_call_{name}(void **a) {{ {name}({given}); }}'


def keep_text(code: str, flags: Sequence[str]) -> None:
    """Leave the text of kernels for `tests.nvrtc`, which compiles them for GPUs."""
    text = "\n".join([f"// {' '.join(flags)}", code])
    path = BUILT / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.cu"
    if not path.exists():
        handle, aside = tempfile.mkstemp(dir=BUILT)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(aside, path)


class Library:
    """The kernels of one text.

    parameters  of each kernel, as they are written
    launched    how often each was
    """

    def __init__(self, code: str, flags: Sequence[str]) -> None:
        threads()
        self.launched: Counter[str] = Counter()
        found = KERNEL.findall(code)
        self.parameters = {name: [p.strip() for p in text.split(",")] for name, text in found}
        bodies = re.split(r'(?=extern\s+"C"\s+__global__)', code)[1:]
        self.meets = {KERNEL.match(b)[1]: bool(MEETS.search(b)) for b in bodies}  # type: ignore[index]
        calls = [_trampoline(name, given) for name, given in self.parameters.items()]
        source = "\n".join(['#include "cudashim.h"', "#line 1", code, SHARED, *calls])
        self.loaded = ctypes.CDLL(str(build(source, *flags)))
        keep_text(code, flags)
        for end in ("begin", "end"):
            getattr(self.loaded, f"shim_shared_{end}").restype = ctypes.c_void_p
        self.shared = self.loaded.shim_shared_begin() or 0
        self.shared_bytes = (self.loaded.shim_shared_end() or 0) - self.shared

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any],
        order: int,
    ) -> None:  # fmt: skip
        """Run a kernel; `arguments` are ctypes values."""
        three = ctypes.c_uint * 3
        table = (ctypes.c_void_p * len(arguments))(
            *[ctypes.cast(ctypes.pointer(a), ctypes.c_void_p) for a in arguments]
        )
        wrong = threads().shim_launch(
            getattr(self.loaded, f"shim_call_{name}"), table, three(*grid), three(*block),
            ctypes.c_void_p(self.shared), ctypes.c_ulong(self.shared_bytes), ctypes.c_uint(order),
            ctypes.c_int(self.meets[name]),
        )  # fmt: skip
        if wrong:
            raise RuntimeError(f"{name}: {WRONG[wrong]}")
