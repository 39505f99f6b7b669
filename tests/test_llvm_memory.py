"""What a training step needs, against what its program says: in a process of its own, on Linux."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphdrop as gd

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak can be measured on Linux only"
)
PROGRAM = """
import re, sys
import numpy as np, graphdrop as gd
from graphdrop import nn, optim

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

rate, rows, wide = float(sys.argv[1]), 6000, 1500
rng, stream = np.random.default_rng(0), gd.RandomStream(0)
x, y = gd.tensor("x", shape=("n", 64)), gd.tensor("y", "int64", ("n",))
h, weights = x, []
for a, b in ((64, wide), (wide, wide), (wide, 10)):
    weights.append(gd.shared((rng.normal(size=(a, b)) / a**0.5).astype("f4")))
    h = h @ weights[-1]
    if b == wide:
        h = gd.tanh(h)
        h = gd.dropout(h, rate, stream) if rate else h
loss = nn.softmax_cross_entropy(h, y).mean()
step = gd.function([x, y], loss, updates=optim.sgd(loss, weights, lr=0.1), backend="llvm")
data = rng.normal(size=(rows, 64)).astype("f4"), rng.integers(0, 10, rows)
step(data[0][:8], data[1][:8])
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
step(*data)
print(memory("VmHWM") - before)
print(gd.dprint(step, "program", "str").splitlines()[-1])
"""


def peak_and_plan(rate: float) -> tuple[int, int]:
    """Bytes that a step needed, and that its program says it needs."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(rate)], capture_output=True, text=True, check=True
    )
    peak, line = found.stdout.splitlines()
    scratch, results = re.findall(r"([\d,]+) bytes", line)
    return int(peak), int(scratch.replace(",", "")) + int(results.replace(",", ""))


def test_a_step_needs_what_its_program_says_and_masks_need_nothing() -> None:
    (peak, plan), (_, without) = peak_and_plan(0.5), peak_and_plan(0)
    assert plan > 50e6
    assert peak <= 1.15 * plan
    assert plan == without


def test_sizes_that_no_machine_has_are_an_error_of_the_call() -> None:
    """Also where all of them are known when the program is compiled."""
    x = gd.matrix("x", shape=(1 << 40, 1 << 21))
    w = gd.matrix("w", shape=(1 << 21, 1 << 21))
    f = gd.function([x, w], gd.tanh(x @ w).sum(), backend="llvm")
    asked = f.executable.recipe.demand  # type: ignore[attr-defined]
    assert asked.is_fixed
    assert f.executable.recipe.layout is None  # type: ignore[attr-defined]
    with pytest.raises(MemoryError, match="bytes of scratch"):
        f.executable.run([], ())
