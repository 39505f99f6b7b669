"""What the README and the documents say is so: their code runs, what they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, formula = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said: dict[str, Any] = {}
    exec(compile(model, "README.md", "exec"), said)
    assert said["step"].call == 0  # replayed: nothing advanced
    assert said["predict"](said["X"]).shape == (32,)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "graph.svg"}
    draw = said["step"].draws[0]
    shape = said["mask"].shape
    numbers = {
        "np": np, "call": 0, "seed": said["stream"].seed,
        "site": draw.node.params["site"], "rate": 0.5,
        "shape": shape, "size": said["mask"].size, "n_words": -(-said["mask"].size // 4),
    }  # fmt: skip
    exec(compile(formula, "README.md", "exec"), numbers)
    assert shape == (32, 256)
    np.testing.assert_array_equal(numbers["kept"], said["mask"])


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


def test_every_promise_names_tests_that_exist() -> None:
    promises = re.split(
        r"\n\d\. ", README.split("## Promises, each with a test")[1].split("\n## ")[0]
    )
    assert len(promises) == 1 + 9
    for promise in promises[1:]:
        named = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", promise)
        assert named, f"no test is named by: {promise}"
        for path, name in named:
            assert not name or name in names_in(ROOT / path), f"{path} has no {name}"


def test_every_example_is_listed() -> None:
    scripts = {f"examples/{p.name}" for p in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"`(examples/\w+\.py)`", README)) == scripts


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_file_names_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [m for m in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in m]
    files = re.findall(r"`((?:tests|docs|examples|benchmarks|graphdrop|backends)/[\w./]+)`", text)
    for target in links:
        assert (path.parent / target).exists(), f"a link to {target}"
    for target in files:
        assert (ROOT / target).exists() or (ROOT / "backends" / target).exists(), target
