"""The benchmark harness: it runs, agrees and draws; its figures are nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from . import cudashim

HARNESS = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: str) -> str:
    found = subprocess.run(
        [sys.executable, HARNESS / "bench.py", *arguments], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_table_a_file_and_a_chart(tmp_path: Path) -> None:
    short = ("--seconds", "0.05", "--rounds", "2", "--out", str(tmp_path))
    text = run("--workloads", "tiny,blobs", "--frameworks", "graphdrop,numpy,nobody", *short)
    assert "nobody is not installed and left out" in text
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [(r["workload"], r["framework"]) for r in rows if r["framework"] == "numpy"] == [
        ("tiny", "numpy")  # blobs is not written in NumPy
    ]
    assert all(r["seconds"] > 0 and r["first"] > 0 for r in rows)
    assert all((r.get("again", 0) > 0) == (r["framework"] == "graphdrop") for r in rows)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_stops_is_left_out(tmp_path: Path) -> None:
    short = ("--seconds", "0.05", "--rounds", "1", "--out", str(tmp_path))
    text = run("--workloads", "tiny", "--frameworks", "json,graphdrop", *short)
    assert "json stopped at tiny with status 1; it is left out there" in text
    assert [r["framework"] for r in json.loads((tmp_path / "bench.json").read_text())] == [
        "graphdrop"
    ]


def test_frameworks_compute_the_same() -> None:
    text = run("--check", "--workloads", "tiny_grad,deep,mlp", "--frameworks", "graphdrop,numpy")
    assert text.count("graphdrop, numpy agree") == 3


@cudashim.needs_compiler
def test_a_worker_on_a_device() -> None:
    """Data and results stay there; what is timed ends with a result on the host."""
    environment = {**os.environ, "BENCH_DEVICE": "gpu", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-m", "tests.cudashim", HARNESS / "worker.py", "graphdrop", "tiny_grad"],
        input='{"seconds": 0.05}\n{"steps": 1}\n', capture_output=True, text=True, check=False,
        env=environment, cwd=HARNESS.parent,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    about, timed, values = map(json.loads, found.stdout.splitlines())
    assert about["first"] > 0
    assert about["memory"] is None  # the host's says nothing
    assert min(timed["seconds"]) > 0
    assert values["values"][0] == values["values"][1]


def test_graphdrop_has_every_workload() -> None:
    code = "import problems, with_graphdrop as g; assert set(g.MODELS) == set(problems.WORKLOADS)"
    subprocess.run([sys.executable, "-c", code], cwd=HARNESS, check=True)
