"""One framework on one workload: builds it, takes the first step, then does what it is asked.

    worker.py FRAMEWORK WORKLOAD [RATE]

One line of JSON about itself, then one for each line of JSON it is given: {"seconds": s} measures
steps for so long, {"steps": n} gives the losses of n steps, {"floor": true} the floor of a step of
graphdrop's.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from problems import problem

ON_GPU = os.environ.get("BENCH_DEVICE") == "gpu"


def peak() -> int:
    """Bytes of memory at most so far, or since `forget_peak`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let the peak be what is in use now: making the data took more than what it takes to hold."""
    with suppress(OSError):  # systems other than Linux remember
        Path("/proc/self/clear_refs").write_text("5")


def steps_for(
    step: Callable[[], Any], seconds: float, wait: Callable[[Any], Any] | None = None
) -> list[float]:
    """Seconds of one step, several times; steps too short for the clock are timed together.

    wait  for devices that compute while the host goes on: waits for a result
    """
    start, at_least = time.perf_counter(), 2e-4 if wait is None else 2e-2
    result = step()
    if wait is not None:
        wait(result)
    together = max(1, int(at_least / max(time.perf_counter() - start, 1e-9)))
    found: list[float] = []
    while time.perf_counter() - start < seconds or len(found) < 3:
        begin = time.perf_counter()
        for _ in range(together):
            result = step()
        if wait is not None:
            wait(result)
        found.append((time.perf_counter() - begin) / together)
    return found


def loss_of(result: Any) -> float:
    """The first of the results, or its length if it is no number."""
    while isinstance(result, (list, tuple)):
        result = result[0]
    for fetch in ("detach", "cpu", "get"):  # PyTorch's arrays, and those of a device
        result = getattr(result, fetch, lambda known=result: known)()
    array = np.asarray(result, np.float64)
    return float(np.linalg.norm(array)) if array.ndim else float(array)


def machine() -> str:
    if ON_GPU:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        with suppress(OSError):
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    try:
        with open("/proc/cpuinfo") as file:
            names = [x.split(":")[1].strip() for x in file if x.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def floor(compiled: Any) -> float | None:
    """Seconds that the program's products and kernels would take at the machine's ceilings; None
    if there is no program to tell.
    """
    if not hasattr(getattr(compiled, "executable", None), "program"):
        return None
    from graphdrop.function import ceilings
    from graphdrop.schedule import Kernel, Loop, Product, moved, operations
    from graphdrop.threads import get_num_threads
    from graphdrop.types import evaluate

    def work(program: Any, times: int) -> tuple[float, float]:
        flops, nbytes = 0.0, 0.0
        for s in program.steps:
            if isinstance(s, Loop):
                inner = work(s.body, times * evaluate(s.length, {}))
                flops, nbytes = flops + inner[0], nbytes + inner[1]
            elif isinstance(s, Product):
                flops += evaluate(operations(s), {}) * times
            elif isinstance(s, Kernel):
                nbytes += evaluate(moved(s), {}) * times
        return flops, nbytes

    flops, nbytes = work(compiled.executable.program, 1)
    most = ceilings(compiled.backend, get_num_threads())
    return max(flops / most.rate, nbytes / most.bandwidth)


def main() -> None:
    framework, name, *rate = sys.argv[1:]
    p = problem(name, float(rate[0]) if rate and rate[0] else None)
    module = import_module(f"with_{framework}")
    models, wait = module.MODELS, module.wait if ON_GPU else None
    if name not in models:
        print(json.dumps({"missing": True}), flush=True)
        return
    forget_peak()
    before, start = peak(), time.perf_counter()
    step = models[name](p)
    values = [loss_of(step())]
    about: dict[str, Any] = {"first": time.perf_counter() - start, "machine": machine()}
    step()
    about["memory"] = None if ON_GPU else peak() - before
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        if "seconds" in question:
            answer = {"seconds": steps_for(step, question["seconds"], wait)}
        elif "floor" in question:
            answer = {"floor": floor(getattr(step, "function", None))}
        else:
            values.append(loss_of(step()))  # after the second step, whose loss was not looked at
            answer = {"values": values}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
