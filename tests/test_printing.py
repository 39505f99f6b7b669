"""dprint: the text of trees, their references, and that text never depends on the process."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import ArgumentError


def text(obj: object, what: str = "graph", *, origin: bool = False) -> str:
    found = gd.dprint(obj, what, file="str", origin=origin)
    assert found is not None
    return found


def lines(obj: object, what: str = "graph") -> list[str]:
    return text(obj, what).splitlines()


def test_a_small_network() -> None:
    x = gd.matrix("x", shape=("batch", 3))
    w = gd.shared(np.zeros((3, 2), "f4"), "W")
    stream = gd.RandomStream(7)
    h = gd.dropout(gd.tanh(x @ w), 0.25, stream, gd.flag(), axes=0, name="hidden")
    assert (
        text((h * h).sum(axis=1))
        == """\
sum float32[batch] axis=(1,)
└─ mul float32[batch, 2]
   ├─ dropout float32[batch, 2] 'hidden' rate=0.25 (16384/65536) stream(seed=7) shared=(0,) #1
   │  ├─ tanh float32[batch, 2]
   │  │  └─ matmul float32[batch, 2]
   │  │     ├─ x float32[batch, 3] input
   │  │     └─ W float32[3, 2] shared
   │  └─ training: training bool[] input
   └─ #1 dropout (above)
"""
    )


class TestDraws:
    def test_unnamed_sites_and_symbolic_rates(self) -> None:
        x, rate = gd.vector("x"), gd.dscalar("rate")
        y = gd.dropout(x, rate, gd.RandomStream(1), True)
        assert lines(y) == [
            "dropout float32[x.shape[0]] site 0 stream(seed=1)",
            "├─ x float32[x.shape[0]] input",
            "└─ threshold: threshold int64[]",
            "   └─ rate float64[] input",
        ]

    def test_classic_is_marked_unscaled(self) -> None:
        y = gd.dropout(gd.vector("x"), 0.5, gd.RandomStream(1), True, mode="classic")
        assert any("dropout" in line and "unscaled" in line for line in lines(y))

    def test_text_does_not_depend_on_calls_made(self) -> None:
        x, stream = gd.vector("x"), gd.RandomStream(1)
        y = gd.dropout(x, 0.5, stream, True)
        f = gd.function([x], y)
        before = text(f)
        f(np.ones(3, "f4"))
        assert text(f) == before


class TestReferences:
    def test_numbers_follow_the_text(self) -> None:
        x = gd.vector("x")
        a = gd.exp(x)
        b = a + 1
        assert lines([b * b, a]) == [
            "[0]",
            "  mul float32[x.shape[0]]",
            "  ├─ add float32[x.shape[0]] #1",
            "  │  ├─ exp float32[x.shape[0]] #2",
            "  │  │  └─ x float32[x.shape[0]] input",
            "  │  └─ 1.0 float32[]",
            "  └─ #1 add (above)",
            "[1]",
            "  #2 exp (above)",
        ]

    def test_leaves_of_one_name_are_told_apart(self) -> None:
        a, b, c = gd.scalar("x"), gd.scalar("x"), gd.scalar("y")
        found = lines(a * b - a * c)
        names = [line.split("─ ")[-1] for line in found if "input" in line]
        assert names == [
            "x float32[] input #1", "x float32[] input #2", "x float32[] input #1",
            "y float32[] input",
        ]  # fmt: skip

    def test_unnamed_leaves(self) -> None:
        assert lines(gd.scalar() + gd.scalar())[1:] == [
            "├─ unnamed input float32[] input #1",
            "└─ unnamed input float32[] input #2",
        ]

    @pytest.mark.slow
    def test_deep_graphs_stay_narrow_and_complete(self) -> None:
        x = gd.vector("x")
        y = x
        for _ in range(100_000):
            y = gd.tanh(y)
        found = lines(y)
        assert max(map(len, found)) < 250
        assert sum("tanh float32" in line for line in found) == 100_000
        # what is put off is printed exactly once
        put_off = [line.split("#")[1].split()[0] for line in found if "(below)" in line]
        heads = [line[1:-1] for line in found if line.startswith("#") and line.endswith(":")]
        assert put_off == heads

    def test_deep_and_shared(self) -> None:
        x = gd.vector("x")
        y = x
        for _ in range(300):
            y = gd.tanh(y) + y
        found = lines([y, y * 2])
        assert sum("tanh float32" in line for line in found) == 300
        assert sum("add float32" in line for line in found) == 300
        defined = [line.split(" #")[-1] for line in found if " #" in line and "float32" in line]
        assert len(set(defined)) == len(defined)


class TestFunctions:
    def function(self) -> gd.Function:
        x = gd.vector("x", shape=3)
        w = gd.shared(np.ones(3, "f4"), "w")
        loss = gd.log(gd.exp(x * w) * 1).sum()
        return gd.function([x], {"loss": loss, "more": [x]}, updates={w: w - gd.grad(loss, w)})

    def test_outputs_and_updates_are_named(self) -> None:
        heads = [line for line in lines(self.function()) if not line.startswith(" ")]
        assert heads == ["output['loss']", "output['more'][0]", "w <-"]

    def test_source_is_before_rewrites_and_trace_names_them(self) -> None:
        f = self.function()
        before, after = text(f, "source"), text(f)
        assert len(after.splitlines()) < len(before.splitlines())
        trace = lines(f, "trace")
        assert len(trace) == len(f.trace) > 0
        assert trace == [str(record) for record in f.trace]

    def test_a_function_without_rewrites_says_so(self) -> None:
        x = gd.vector("x")
        assert text(gd.function([x], gd.tanh(x)), "trace") == "no rewrites fired\n"

    def test_updates_only(self) -> None:
        w = gd.shared(np.ones(3, "f4"), "w")
        assert lines(gd.function([], updates={w: w * 2}))[0] == "w <-"


class TestText:
    def test_origin(self) -> None:
        y = gd.tanh(gd.vector("x"))
        first = text(y, origin=True).splitlines()[0]
        assert first.startswith("tanh ")
        assert f"{__file__}:" in first
        assert __file__ not in text(y)

    def test_user_names_stay_on_their_line(self) -> None:
        x = gd.scalar("a\nb\x1b[31m‮c")
        (line,) = lines(x)
        assert line == "a\\nb\\x1b[31m\\u202ec float32[] input"
        stream = gd.RandomStream(0)
        assert len(lines(gd.dropout(gd.vector("x"), 0.5, stream, True, name="a\nb"))) == 2

    def test_no_addresses(self) -> None:
        x = gd.vector("x")
        y = gd.custom_gradient(gd.tanh(x), [x], lambda g, y, x: (g,))
        assert "rule=<lambda>" in text(y)
        assert "0x" not in text(y)

    def test_zero_params_are_shown(self) -> None:
        assert "axis=(0,)" in text(gd.vector("x").sum(axis=0))
        x = gd.matrix("x", shape=(2, 3))
        assert "axes=(1, 0)" in text(x.T)

    def test_constants(self) -> None:
        x = gd.vector("x", shape=2)
        found = lines(x * np.array([1, 2], "f4") + 0.1)
        assert "│  └─ constant float32[2]" in found
        assert found[-1] == "└─ 0.1 float32[]"

    def test_prints_to_standard_output_or_a_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        x = gd.scalar("x")
        file = io.StringIO()
        assert gd.dprint(x, file=file) is None
        assert gd.dprint(x) is None
        assert file.getvalue() == capsys.readouterr().out == "x float32[] input\n"

    def test_mistakes(self) -> None:
        x = gd.scalar("x")
        with pytest.raises(ArgumentError, match="'graph', 'source', 'trace'"):
            gd.dprint(x, what="everything")
        with pytest.raises(ArgumentError, match="takes nodes or a compiled function, got 3"):
            gd.dprint([x, 3])
        with pytest.raises(ArgumentError, match="only a compiled function has a trace"):
            gd.dprint(x, "trace")
        with pytest.raises(ArgumentError, match="file must be"):
            gd.dprint(x, file="out.txt")


PROGRAM = """
import numpy as np, graphdrop as gd
x, stream = gd.matrix("x", shape=("batch", 3)), gd.RandomStream(3)
w = gd.shared(np.ones((3, 2), "f4"), "w")
loss = (gd.dropout(gd.relu(x @ w), 0.5, stream, True) ** 2).mean()
step = gd.function([x], loss, updates={w: w - 0.1 * gd.grad(loss, w)})
for what in ("graph", "source", "trace"):
    gd.dprint(step, what)
"""


def test_the_same_text_in_every_process() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(texts) == 1


def test_bodies_of_loops_and_branches() -> None:
    """Below the tree, under the number of their node; slots are called what they stand for."""
    stream, p = gd.RandomStream(0), gd.flag("p")
    x, w = gd.matrix("x", shape=("time", 3)), gd.shared(np.eye(3, dtype="f4"), "W")

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.dropout(gd.tanh(h @ w + row), 0.5, stream, name="state")
        return h, h

    h, o = gd.scan(step, x, gd.zeros((3,)))
    text = gd.dprint(gd.cond(p, lambda: gd.exp(o).sum(), lambda: h.sum()), file="str")
    assert text is not None
    for words in (
        "scan (float32[3], float32[time, 3], float32[time, 3]) draws 'state'", "each step:",
        "carry 0 <-", "dropout float32[3] 'state' rate=0.5", "carry 0 float32[3]",
        "W float32[3, 3]", "element 0 float32[3]", "index int64[]", "if it holds:",
        "exp float32[time, 3]", "if it does not:",
    ):  # fmt: skip
        assert words in text, text
    assert "Body(" not in text
    nested = gd.map(lambda row: gd.map(lambda v: v * 2 + row.sum(), row), x)
    assert str(gd.dprint(nested, file="str")).count("each step:") == 2


class TestListings:
    """What a backend made of a graph."""

    @staticmethod
    def compiled(backend: str) -> gd.Function:
        x = gd.matrix("x", shape=("batch", 3))
        return gd.function([x], (gd.tanh(x) * 2) @ np.ones((3, 2), "f4"), backend=backend)

    @pytest.mark.parametrize("backend", ["numpy", "llvm"])
    def test_programs_tell_steps_and_lines(self, backend: str) -> None:
        text = gd.dprint(self.compiled(backend), "program", file="str")
        assert text is not None
        assert "tanh" in text
        assert "matmul" in text
        assert text.endswith("\n")

    def test_fused_kernels_tell_bytes(self) -> None:
        f = self.compiled("llvm")
        f(np.ones((4, 3), "f4"))
        text = gd.dprint(f, "program", file="str")
        assert text is not None
        assert "kernel over [batch, 3]: tanh mul" in text
        assert "24*batch + 4 bytes" in text
        assert "memory of the last call: 64 bytes of scratch" in text

    def test_code(self) -> None:
        assert "def run(a, f):" in self.compiled("numpy").source()
        assert "define internal void @step0" in self.compiled("llvm").source()
        assert "ret" in self.compiled("llvm").assembly()
        with pytest.raises(gd.GraphdropError, match="no machine code of its own"):
            self.compiled("numpy").assembly()

    def test_only_functions_have_programs(self) -> None:
        with pytest.raises(gd.GraphdropError, match="only a compiled function has a program"):
            gd.dprint(gd.vector("x"), "program")
