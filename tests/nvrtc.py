"""Compile for GPUs every kernel that ran on the CPU: python -m tests.nvrtc

No GPU and no driver is needed, only NVIDIA's compiler: pip install -e '.[nvrtc]'.  What was run by
the tests of the cupy backend lies in the folder that `tests.cudashim` builds in.  Equal kernels are
compiled once, many at a time.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm import tqdm

from graphdrop_cupy.device import OPTIONS, prelude

from .cudashim.compiler import BUILT

GPUS = ("sm_80", "sm_90")
TOGETHER = 100  # kernels in one text
KERNEL = re.compile(r'(?=extern "C" __global__ void gd_\d+)')
SPILLS = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores", re.DOTALL)


def kernels() -> dict[str, list[str]]:
    """All kernels, by the type of positions; their names are @."""
    found: dict[str, dict[str, None]] = {}
    for path in BUILT.glob("*.cu"):
        head, _, code = path.read_text().partition("\n")
        index = head.partition("INDEX=")[2]
        for text in KERNEL.split(code)[1:]:
            plain = re.sub(r"void gd_\d+", "void @", text.strip(), count=1)
            found.setdefault(index, {})[plain] = None
    return {index: list(texts) for index, texts in found.items()}


def batches() -> Iterator[tuple[str, str, str]]:
    """(GPU, type of positions, text)."""
    for index, texts in kernels().items():
        for start in range(0, len(texts), TOGETHER):
            some = texts[start : start + TOGETHER]
            code = "\n\n".join(t.replace("@", f"gd_{i}", 1) for i, t in enumerate(some))
            for gpu in GPUS:
                yield gpu, index, code


def compiled(batch: tuple[str, str, str]) -> tuple[str, list[str]]:
    """What the compiler complains of, and the kernels whose values do not fit into registers."""
    from cuda.bindings import nvrtc

    gpu, index, code = batch
    source = f"{prelude()}\n{code}".encode()
    wanted = (*OPTIONS, f"-DINDEX={index}", f"--gpu-architecture={gpu}", "--ptxas-options=-v", "-w")
    options = [o.encode() for o in wanted]

    def must(result: Any) -> Any:
        error, *rest = result
        assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
        return rest[0] if rest else None

    program = must(nvrtc.nvrtcCreateProgram(source, b"kernels.cu", 0, [], []))
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = b" " * must(nvrtc.nvrtcGetProgramLogSize(program))
    must(nvrtc.nvrtcGetProgramLog(program, log))
    text = log.decode(errors="replace")
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return f"{gpu}: {text[:4000]}", []
    assert must(nvrtc.nvrtcGetCUBINSize(program)) > 0
    return "", [f"{gpu}: {name}" for name, spilled in SPILLS.findall(text) if int(spilled)]


def main() -> int:
    if importlib.util.find_spec("cuda") is None:
        print("SKIPPED: NVIDIA's compiler is not installed (pip install -e '.[nvrtc]'); "
              "no kernel was compiled for a GPU")  # fmt: skip
        return 0
    todo = list(batches())
    if not todo:
        print("there are no kernels; run the tests of the cupy backend first")
        return 1
    with ProcessPoolExecutor() as pool:
        done = list(tqdm(pool.map(compiled, todo), total=len(todo), unit="text"))
    errors = [error for error, _ in done if error]
    spilled = [name for _, names in done for name in names]
    count = sum(map(len, kernels().values()))
    print(*errors, *spilled, sep="\n")
    print(f"{count} kernels compiled for {' and '.join(GPUS)}: {len(errors)} texts with errors, "
          f"{len(spilled)} kernels spill registers")  # fmt: skip
    return 1 if errors or spilled else 0


if __name__ == "__main__":
    sys.exit(main())
