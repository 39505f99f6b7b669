"""Every example runs with --quick, says what it found and leaves a picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
NEEDS = {"digits_mlp": "sklearn"}  # besides matplotlib


def run(script: Path, out: Path) -> str:
    """The example's output; its pictures are in `out`."""
    pytest.importorskip("matplotlib")
    if script.stem in NEEDS:
        pytest.importorskip(NEEDS[script.stem])
    done = subprocess.run(
        [sys.executable, script, "--quick", "--out", out],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_are_all_there() -> None:
    names = {"zero_out", "scale_up", "three_layer", "adaptive_l2"}
    assert names <= {e.stem for e in EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda e: e.stem)
def test_runs_prints_and_draws(script: Path, tmp_path: Path) -> None:
    text = run(script, tmp_path / "out")
    assert re.search(r"\d", text)
    pictures = list((tmp_path / "out").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000
        assert str(picture) in text
    check = CHECKS.get(script.stem)
    if check is not None:
        check(text)


def zero_out(text: str) -> None:
    assert "columns of W1 with all bits unchanged: [2]" in text
    assert re.search(r"rows of W2 with all bits unchanged: +\[2\]", text)


def scale_up(text: str) -> None:
    assert "exactly doubled: True" in text
    off = [float(x) for x in re.findall(r"\((\d+\.\d) standard errors\)", text)]
    assert len(off) == 2
    assert max(off) < 4


def three_layer(text: str) -> None:
    assert text.count("to the bit: True") == 2
    rows = re.findall(r"(linear|ReLU) +(\w+) +(\S+) ± (\S+) +(\S+)", text)
    assert len(rows) == 4
    for kind, _, mean, error, test in rows:
        if kind == "linear":  # then the expectation is exact; printed with 3 digits
            assert abs(float(mean) - float(test)) < 4 * float(error) + 0.002


def adaptive_l2(text: str) -> None:
    pattern = r"(all masks|sampled) +\( *[\d,]+\): loss (\S+), gradient (\S+)"
    errors = {name: (float(a), float(b)) for name, a, b in re.findall(pattern, text)}
    assert max(errors["all masks"]) < 1e-13
    assert max(errors["sampled"]) < 0.2


CHECKS = {
    "zero_out": zero_out,
    "scale_up": scale_up,
    "three_layer": three_layer,
    "adaptive_l2": adaptive_l2,
}
