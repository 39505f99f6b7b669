"""The benchmark harness: it runs, agrees and draws; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_frameworks_compute_the_same() -> None:
    text = run("--check", "--workloads", "tiny_grad,deep,mlp", "--frameworks", "graphdrop,numpy")
    assert text.count("graphdrop, numpy agree") == 3


def test_graphdrop_has_every_workload() -> None:
    code = "import problems, with_graphdrop as g; assert set(g.MODELS) == set(problems.WORKLOADS)"
    subprocess.run([sys.executable, "-c", code], cwd=HARNESS, check=True)
