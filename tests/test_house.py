"""The house: who may import whom, and what `import graphdrop` costs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "graphdrop"
BACKENDS = ROOT / "backends"

# From the ground up.  A module imports from floors below its own, never from its own or above;
# imports for the type checker only are free.
FLOORS: tuple[set[str], ...] = (
    {"disk", "errors", "leases", "tree"},
    {"types", "threads", "arrays", "kept"},
    {"graph", "pattern", "plain"},
    {"op"},
    {"substitute", "backend", "binding"},
    {"ops"},
    {"random", "bodies"},
    {"autodiff", "dropout", "fingerprint"},
    {"scan", "cond"},
    {"commit", "derivatives", "rewrite", "nn", "optim", "replay"},
    {"profiling", "rules", "schedule"},
    {"compilation", "precision"},
    {"function"},
    {"printing", "serialize"},
    {"testing", "train", "viz"},
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}

# what modules may need that is not in the standard library, and only inside functions but NumPy
LIBRARIES = {"numpy", "scipy", "safetensors", "tqdm", "matplotlib", "networkx", "torch"}
HEAVY = {"cupy", "llvmlite", "matplotlib", "networkx"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(full name of what is imported, whether inside a function), but for type checking."""
    package = path.relative_to(ROOT if path.is_relative_to(CORE) else BACKENDS).parts[:-1]

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, inside)
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield ".".join(base if node.module else [*base, alias.name]), inside
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def owner(path: Path) -> str:
    """The module or folder of graphdrop that a file belongs to."""
    return path.relative_to(CORE).with_suffix("").parts[0]


def test_every_module_has_a_floor() -> None:
    found = {owner(p) for p in modules(CORE)} - {"__init__"}
    assert found == set(FLOOR), "FLOORS must list every module, and only those"


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(CORE)))
def test_imports_go_down(path: Path) -> None:
    name = owner(path)
    if name == "__init__":
        return
    for full, _ in imports(path):
        parts = full.split(".")
        if parts[0] == "graphdrop" and len(parts) > 1 and parts[1] != name:
            assert FLOOR[parts[1]] < FLOOR[name], f"{name} imports {parts[1]}"


def rooms() -> dict[str, set[str]]:
    """The table of docs/architecture.md: every room, and all that it may import."""
    found: dict[str, set[str]] = {}
    rows = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("|---|---|---|")[1]
    for row in rows.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) == 3:
            below = {name.strip() for name in cells[2].split(",") if name.strip()}
            below |= {deeper for name in below for deeper in found.get(name, ())}
            found |= {
                room.removesuffix(".py"): below for room in re.findall(r"`([\w./]+?)/?`", cells[0])
            }
    return found


def test_the_documented_rooms_are_all_there_are() -> None:
    backends = {f"backends/{p.name}" for p in BACKENDS.iterdir() if (p / "__init__.py").exists()}
    assert set(rooms()) == set(FLOOR) | backends, "docs/architecture.md lists every module"


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_rooms_stand_on_what_the_documents_say(name: str) -> None:
    paths = [p for p in modules(CORE) if owner(p) == name]
    used = {
        full.split(".")[1] for p in paths for full, _ in imports(p) if full.startswith("graphdrop.")
    }
    assert used - {name} <= rooms()[name]


def test_the_check_sees_imports() -> None:
    found = dict(imports(CORE / "printing.py"))
    assert found["graphdrop.function"] is False
    assert "graphdrop.ops.leaf" in found
    # the type checker's imports of the layers above do not count
    assert not any(name.startswith("graphdrop.ops") for name, _ in imports(CORE / "graph.py"))
    assert ("networkx", True) in set(imports(CORE / "viz" / "export.py"))


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(CORE)))
def test_the_core_needs_numpy_only(path: Path) -> None:
    for full, inside in imports(path):
        top = full.split(".")[0]
        assert not top.startswith("graphdrop_"), "the core never imports a backend"
        if top == "graphdrop" or top in sys.stdlib_module_names:
            continue
        assert top in LIBRARIES, f"{top} is not a dependency"
        # `testing` holds tables for tests, which `import graphdrop` does not load
        if top != "numpy" and owner(path) != "testing":
            assert inside, f"{top} must be imported where it is used"


@pytest.mark.parametrize("path", modules(BACKENDS), ids=lambda p: str(p.relative_to(BACKENDS)))
def test_backends_do_not_know_each_other(path: Path) -> None:
    own = path.relative_to(BACKENDS).parts[0]
    for full, _ in imports(path):
        top = full.split(".")[0]
        assert top == own or not top.startswith("graphdrop_")


def python(program: str, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environment
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = set(python("import graphdrop, sys; print(*sys.modules)").split())
    assert "graphdrop.viz" in loaded
    assert "graphdrop.testing" not in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}
    assert not {name for name in loaded if name.startswith("graphdrop_")}


def test_pictures_of_text_load_nothing_heavy(tmp_path: Path) -> None:
    program = f"""
import sys, graphdrop as gd
for suffix in ("svg", "html"):
    gd.viz.draw(gd.scalar("x") * 2, {str(tmp_path)!r} + "/g." + suffix)
print(*sys.modules)
"""
    loaded = {name.split(".")[0] for name in python(program).split()}
    assert not loaded & HEAVY


def test_import_is_fast(tmp_path: Path) -> None:
    """Once compiled, at most 0.25 s more than NumPy's own import."""
    program = """
import time, numpy
start = time.process_time()
import graphdrop
print(time.process_time() - start)
"""
    # processor time, and the least of several: other work on the machine only adds
    cache = str(tmp_path)  # where the first run leaves the bytecode of all modules
    assert min(float(python(program, PYTHONPYCACHEPREFIX=cache)) for _ in range(5)) < 0.25
