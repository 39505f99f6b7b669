"""graphdrop against its peers on the same work, in one run.

    python benchmarks/bench.py                      # all workloads, whatever peers are installed
    python benchmarks/bench.py --workloads mlp,lstm --frameworks graphdrop,torch --seconds 2
    python benchmarks/bench.py --device gpu         # on the cupy backend, data and results there

Every framework has a process of its own, which builds a workload, takes the first step and waits.
Then they are measured by turns (ABCABC...): the figure is the median of all steps of all rounds,
the ratio is to the fastest peer.  `first` is the time from building to the end of the first step,
`again` the same in another process, which finds what graphdrop has kept on disk (the median of
three), `memory` the peak beyond what importing took.  The floor is what graphdrop's own program
would need at this machine's ceilings: its products at the rate of a large one, or the bytes of its
kernels at the rate of a copy, whichever is longer.

On a GPU some 20 ms of steps are timed together, from the first launch to the last result.

`--check` runs three steps without dropout instead: all must report the same losses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from problems import WORKLOADS
from tqdm import tqdm

HERE = Path(__file__).parent
FRAMEWORKS = ("graphdrop", "numpy", "torch", "torch_compile", "jax")
PACKAGES = {"torch_compile": "torch"}  # of frameworks that are not called like them
ON_CPU = ("graphdrop", "numpy", "torch", "jax")
ON_GPU = ("graphdrop", "torch", "torch_compile", "jax")
AGAIN = 3  # processes that find what another one kept
GPU_WORKLOADS = ("drop_bw", "softmax_ce", "mlp", "lstm", "lstm_var", "attention", "blobs")


class Stopped(SystemExit):
    """A framework's process ended before it answered; what it printed stands above."""


class Worker:
    """One framework on one workload, in a process of its own; see `worker.py`."""

    def __init__(
        self, framework: str, workload: str, arguments: argparse.Namespace,
        rate: float | None = None, cache: str = "off",
    ) -> None:  # fmt: skip
        """`cache` is where graphdrop keeps code; without one the first step is the first ever."""
        self.framework, self.workload = framework, workload
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        chosen = "" if rate is None else str(rate)
        backend = {"GRAPHDROP_BACKEND": "cupy"} if arguments.device == "gpu" else {}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", framework, workload, chosen],
            env={
                **backend, **os.environ, **dict.fromkeys(names, str(arguments.threads)),
                "GRAPHDROP_CACHE": cache, "BENCH_DEVICE": arguments.device,
            },
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.about = self._answer()
        self.seconds: list[float] = []

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise Stopped(
                f"{self.framework} stopped at {self.workload} with status {status}"
                + (", killed, which is what happens when memory runs out" if status == -9 else "")
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def measure(self, seconds: float) -> None:
        self.seconds += self.ask(seconds=seconds)["seconds"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measured(workload: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each framework that has the workload, the fastest first."""
    workers = []
    for framework in arguments.frameworks:
        try:
            worker = Worker(framework, workload, arguments)
        except Stopped as reason:
            if framework == "graphdrop":
                raise
            tqdm.write(f"{reason}; it is left out there")
            continue
        if worker.about.get("missing"):
            worker.close()
        else:
            workers.append(worker)
    for _ in range(arguments.rounds):
        for worker in workers:
            worker.measure(arguments.seconds)
    rows = [
        {"workload": workload, "framework": w.framework, "seconds": float(np.median(w.seconds)),
         **w.about}
        for w in workers
    ]  # fmt: skip
    for row, worker in zip(rows, workers, strict=True):
        if worker.framework == "graphdrop":
            row |= worker.ask(floor=True)
        worker.close()
        if worker.framework == "graphdrop":
            row["again"] = again(workload, arguments)
    best = min((r["seconds"] for r in rows if r["framework"] != "graphdrop"), default=None)
    for row in rows:
        row["ratio"] = row["seconds"] / best if best else float("nan")
    return sorted(rows, key=lambda r: r["seconds"])


def again(workload: str, arguments: argparse.Namespace) -> float:
    """Seconds from building to the end of the first step, of a process that is not the first."""
    found = []
    with TemporaryDirectory() as cache:
        for _ in range(1 + AGAIN):
            worker = Worker("graphdrop", workload, arguments, cache=cache)
            found.append(worker.about["first"])
            worker.close()
    return float(np.median(found[1:]))


def checked(workload: str, arguments: argparse.Namespace) -> str:
    """The losses of three steps without dropout, which must agree."""
    losses: dict[str, list[float]] = {}
    for framework in arguments.frameworks:
        worker = Worker(framework, workload, arguments, 0.0)
        if not worker.about.get("missing"):
            losses[framework] = worker.ask(steps=3)["values"]
        worker.close()
    (_, first), *others = losses.items()
    for name, found in others:
        if not np.allclose(found, first, rtol=2e-3, atol=1e-5):
            raise SystemExit(f"{workload}: {losses} differ, so {name} does not do the same work")
    return f"{workload:10}  {', '.join(losses)} agree: {', '.join(f'{x:.6g}' for x in first)}"


def text_of(rows: list[dict[str, Any]]) -> str:
    floor = next((r["floor"] for r in rows if r.get("floor")), None)
    head = rows[0]["workload"] + (f"   floor {time_of(floor)}" if floor else "")
    lines = [head, "                 step      ratio     first     again      memory"]
    lines += [
        f"  {r['framework']:13}{time_of(r['seconds']):>9}{r['ratio']:9.2f}{r['first']:9.2f} s"
        + (f"{r['again']:8.3f} s" if "again" in r else f"{'-':>10}")
        + ("" if r["memory"] is None else f"{r['memory'] / 1e6:9.0f} MB")
        for r in rows
    ]
    return "\n".join(lines)


def time_of(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Bars: each framework's time against the fastest peer's; shorter is faster."""
    import matplotlib.pyplot as plt

    workloads = list(dict.fromkeys(r["workload"] for r in rows))
    frameworks = [f for f in FRAMEWORKS if any(r["framework"] == f for r in rows)]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(workloads) + 1.2), layout="constrained")
    height = 0.8 / len(frameworks)
    colours = dict(
        zip(FRAMEWORKS, ("#c03a2b", "#9aa5b1", "#5b8db8", "#34587a", "#8fbf8f"), strict=True)
    )
    for k, framework in enumerate(frameworks):
        found = {r["workload"]: r["ratio"] for r in rows if r["framework"] == framework}
        places = [i + k * height - 0.4 for i, w in enumerate(workloads) if w in found]
        ratios = [found[w] for w in workloads if w in found]
        axes.barh(places, ratios, height, align="edge", label=framework, color=colours[framework])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(workloads)), workloads)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("time of a step, as a multiple of the fastest peer's (log scale)")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--workloads", default="")
    parser.add_argument("--frameworks", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="that all compute the same")
    parser.add_argument("--out", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    usual = (GPU_WORKLOADS, ON_GPU) if arguments.device == "gpu" else (WORKLOADS, ON_CPU)
    workloads = arguments.workloads.split(",") if arguments.workloads else usual[0]
    wanted = arguments.frameworks.split(",") if arguments.frameworks else usual[1]
    arguments.frameworks = [f for f in wanted if find_spec(PACKAGES.get(f, f)) is not None]
    for missing in set(wanted) - set(arguments.frameworks):
        print(f"{missing} is not installed and left out")
    rows: list[dict[str, Any]] = []
    for workload in (progress := tqdm(workloads)):
        progress.set_description(workload)
        if arguments.check:
            tqdm.write(checked(workload, arguments))
            continue
        found = measured(workload, arguments)
        tqdm.write(text_of(found))
        rows += found
    if rows:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "bench.json").write_text(json.dumps(rows, indent=1))
        picture = arguments.out / "bench.png"
        where = "" if arguments.device == "gpu" else f", {arguments.threads} threads"
        draw(rows, picture, f"{rows[0]['machine']}{where}, float32")
        print(f"{picture} and {picture.with_suffix('.json')} are written")


if __name__ == "__main__":
    main()
