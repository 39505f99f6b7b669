"""What the llvm backend keeps on disk: machine code, and programs that need no graph to run."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop import disk, nn, optim, tree
from graphdrop.bodies import inner_nodes
from graphdrop.errors import InputError, OutOfRangeError, ShapeError
from graphdrop.graph import Node, toposort
from graphdrop.op import constant_value
from graphdrop.ops.leaf import Shared
from graphdrop.testing import runner
from graphdrop_llvm import engine, keep
from tests.test_rewrite_random_graphs import (
    EXACTLY,
    ROUGHLY,
    SETTINGS,
    build,
    outputs_of,
    programs,
    results,
)

ROWS = 3000  # of tables; in small ones nobody looks for the rows that are used
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of these tests' own, which begins empty."""
    found = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHDROP_CACHE", str(found))
        disk.directory.cache_clear()
        yield found
    disk.directory.cache_clear()


def function(*args: Any, **kwargs: Any) -> gd.Function:
    return gd.function(*args, **kwargs, backend="llvm", on_unused_input="ignore")


def is_kept(f: gd.Function) -> bool:
    """Whether a function runs what an earlier one has kept."""
    return not f.executable.is_fresh  # type: ignore[attr-defined]


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(tree.flatten(found)[0], tree.flatten(expected)[0], strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


# ---- a program that was kept is the same program


def dense(width: int = 30) -> tuple[gd.Function, list[Any]]:
    """Sizes that the call fixes, a dropout, an optimizer with a state."""
    x, y = gd.matrix("x", shape=("n", 20)), gd.lvector("y", shape=("n",))
    training, rng = gd.flag(), np.random.default_rng(0)
    w = [gd.shared(rng.normal(size=s).astype("f") / 5) for s in ((20, width), (width,), (width, 5))]
    h = gd.dropout(gd.tanh(x @ w[0] + w[1]), 0.3, gd.RandomStream(4), training)
    loss = nn.softmax_cross_entropy(h @ w[2] + np.linspace(0, 1, 5), y).mean()
    step = function([x, y, training], {"loss": loss, "h": [h]}, optim.adam(loss, w, lr=0.01))
    return step, [rng.normal(size=(7, 20)).astype("f"), rng.integers(0, 5, 7), True]


def looped(width: int = 6) -> tuple[gd.Function, list[Any]]:
    """A loop and its gradient, draws in it, and rows that are written in place."""
    ids, x = gd.lmatrix("ids", shape=("time", "batch")), gd.matrix("x", shape=("batch", width))
    rng = np.random.default_rng(1)
    table, w = (gd.shared(rng.normal(size=(n, width)).astype("f") / 3) for n in (ROWS, width))
    stream = gd.RandomStream(9)

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        new = gd.dropout(gd.tanh(table[row] + h @ w), 0.2, stream)
        return new, new

    _, hs = gd.scan(step, ids, x)
    loss = gd.square(hs).mean()
    f = function([ids, x], [loss, hs[-1]], optim.sgd(loss, [table, w], lr=0.5))
    return f, [rng.integers(0, ROWS, (5, 3)), rng.normal(size=(3, width)).astype("f")]


def clipped(width: int = 8) -> tuple[gd.Function, list[Any]]:
    """A gradient's norm is limited, so that rows come with whether they are sound."""
    ids, rng = gd.lvector("ids"), np.random.default_rng(2)
    table = gd.shared(rng.normal(size=(ROWS, width)).astype("f"))
    loss = gd.square(table[ids]).sum()
    (g,) = optim.clip_by_global_norm(gd.grad(loss, [table]), 1.0)
    f = function([ids], loss, optim.sgd([g], [table], lr=0.1))
    return f, [np.array([3, 5, 3, ROWS - 1])]


def unsure(size: int = 40_000) -> tuple[gd.Function, list[Any]]:
    """An update whose shape only the call knows, sums in parts, and a large constant."""
    x, w = gd.vector("x"), gd.shared(np.zeros(size, "f"))
    weights = np.arange(size, dtype="f")
    f = function([x], [w.sum(), (w * weights).max()], [(w, x * 2)])
    return f, [np.linspace(0, 1, size, dtype="f")]


MODELS: dict[str, Callable[..., tuple[gd.Function, list[Any]]]] = {
    m.__name__: m for m in (dense, looped, clipped, unsure)
}  # fmt: skip
KINDS = {"dense": "whole", "looped": "rows", "clipped": "sound rows", "unsure": "unsure"}


def trained(f: gd.Function, arguments: list[Any]) -> list[Any]:
    """What three steps give, and all shared values after them."""
    return [[f(*arguments) for _ in range(3)], [s.get_value() for s in f.shared]]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bytes(name: str) -> None:
    (first, arguments), (second, _) = MODELS[name](), MODELS[name]()
    assert (is_kept(first), is_kept(second)) == (False, True)
    assert KINDS[name] in second.commit.kinds.values()
    assert [*second.commit.kinds.values()] == [*first.commit.kinds.values()]
    assert_same(trained(second, arguments), trained(first, arguments))


@pytest.mark.parametrize("name", MODELS)
def test_who_looks_inside_sees_what_a_fresh_one_shows(name: str) -> None:
    (first, arguments), (second, _) = MODELS[name](), MODELS[name]()
    for f in (first, second):
        f(*arguments)
    assert is_kept(second)
    for what in ("program", "source", "graph", "trace"):
        assert gd.dprint(second, what, file="str") == gd.dprint(first, what, file="str")
    assert second.source() == first.source()
    assert second.assembly() == first.assembly()
    steps = [
        [(t.node.op.name, t.what) for t in f.profile(*arguments).steps] for f in (first, second)
    ]
    assert steps[0] == steps[1]


def test_the_same_recipe() -> None:
    """All of it: what is missing need not show in results."""
    x, y = gd.matrix("x", shape=("n", "k")), gd.matrix("y", shape=("m", "k"))
    w = gd.shared(np.ones(7, "f"))
    h = gd.tanh(x @ y.T) @ y
    looped = gd.scan(lambda c, r: (gd.tanh(c * r), c + r), x, y[3])
    outputs = [
        h,
        h[: x.shape[0] // 2].max(axis=0),
        x[1:-1, ::2] * 2,
        (w * [1, 2, 3, 4, 5, 6, 7]).sum(),
    ]
    for nodes in (outputs, [*looped], [gd.exp(x)]):
        first, second = (function([x, y], nodes).executable for _ in range(2))
        assert not second.is_fresh  # type: ignore[attr-defined]
        recipes = [vars(e.recipe).copy() for e in (first, second)]  # type: ignore[attr-defined]
        for (n, a), (m, b) in zip(*(r.pop("constants").items() for r in recipes), strict=True):
            assert n == m
            assert_same(a, b)
        in_turns = [p for p in recipes[0]["demand"].pieces if len(p.buffers) > 1]
        assert in_turns or nodes is not outputs
        for name in recipes[0]:
            assert recipes[0][name] == recipes[1][name], name


def test_what_is_not_optimized_is_another_program() -> None:
    x = gd.vector("x")
    made = [function([x], gd.log(gd.exp(x)), optimize=o) for o in (True, False, True, False)]
    assert [is_kept(f) for f in made] == [False, False, True, True]
    assert made[2].executable.program.text() != made[3].executable.program.text()  # type: ignore[attr-defined]


def test_whatever_is_made_belongs_to_a_line_of_the_users() -> None:
    """Also if it is made when somebody looks inside, from a line that only looks."""
    for _ in range(2):
        made = [looped(7)[0], dense(17)[0]]
        x = gd.vector("x")
        made.append(function([x], gd.grad(gd.logsumexp(gd.pad(x, 2)).sum(), x)))
        for f in made:
            program = f.executable.program  # type: ignore[attr-defined]
            bodies = [program, *(loop.body for loop in program.loops)]
            nodes = {n for p in bodies for n in (*p.places, *(b.node for b in p.buffers))}
            nodes.update(inner_nodes(toposort(f.graph.outputs)))
            # one node serves whoever builds it, and has the line of the first, also of another test
            origins = {n.origin for n in nodes if n.origin and constant_value(n) is None}
            looking = sys._getframe().f_lineno - 6
            assert [o for o in origins if Path(__file__).parent not in Path(o[0]).parents] == []
            assert (__file__, looking) not in origins
    assert is_kept(made[0])


@contextmanager
def keeping_nothing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep, "SOURCE", "")
        yield


@settings(SETTINGS, max_examples=60)
@given(programs, st.sampled_from([1, 4]), st.booleans())
def test_random_graphs_twice(program: Any, size: int, training: bool) -> None:
    g = build(program, EXACTLY + ROUGHLY, size)
    nodes = outputs_of(g)
    with keeping_nothing():
        fresh = function(g.inputs, nodes)
    first, second = (function(g.inputs, nodes) for _ in range(2))
    assert is_kept(second) == fresh.executable.program.is_printed  # type: ignore[attr-defined]
    expected = results(fresh, g, training)
    assert_same(results(first, g, training), expected)
    assert_same(results(second, g, training), expected)


def test_the_op_table_twice() -> None:
    """What is kept is what has no step outside; of operations that are printed, nearly all."""
    count = 0
    for case in runner.cases():
        arrays = next(iter(runner.samples(case, case.dtypes[-1])))
        made = []
        for _ in range(2):
            x = runner.inputs_for(arrays, case.symbolic)
            made.append(function(x, tree.flatten(case.build(*x))[0]))
        first, second = made
        if is_kept(second):
            count += 1
            assert_same(second(*arrays), first(*arrays))
        else:
            assert not first.executable.program.is_printed, case.name  # type: ignore[attr-defined]
    print(f"{count} of {len(runner.cases())} cases are kept")
    assert count > 200


def test_other_sizes_and_threads() -> None:
    (first, _), (second, _) = dense(31), dense(31)
    rng = np.random.default_rng(3)
    for n in (1, 64, 3, 0):
        arguments = [rng.normal(size=(n, 20)).astype("f"), rng.integers(0, 5, n), True]
        assert_same(second(*arguments), first(*arguments))
    x = gd.matrix("x")
    f, g = (function([x], gd.softmax(x @ x.T).sum(axis=0)) for _ in range(2))
    values = rng.normal(size=(300, 50)).astype("f")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: g(values), range(4)))
    assert is_kept(g)
    assert_same(found, [f(values)] * 4)


def test_errors_name_the_users_line() -> None:
    x, ids, n = gd.matrix("x"), gd.lvector("ids"), gd.matrix("n", shape=("a", "b"))
    cases: list[tuple[Callable[[], Node], list[Node], list[Any], type[Exception], str]] = [
        (lambda: x[5] + 1, [x], [np.ones((3, 2), "f")], OutOfRangeError, "position 5 is outside"),
        (lambda: x.max(axis=0) * 2, [x], [np.ones((0, 2), "f")], ShapeError, "no elements"),
        (lambda: x[ids] * 3, [x, ids], [np.ones((3, 2), "f"), np.array([3])], OutOfRangeError, "3"),
        (lambda: n + n.T, [n], [np.ones((3, 2), "f")], ShapeError, "to be equal"),
        (lambda: x @ x, [x], [np.ones((3, 2), "f")], ShapeError, "to be equal"),
    ]
    for make, inputs, arguments, error, text in cases:
        said = []
        for _ in range(2):
            f = function(inputs, make())
            with pytest.raises(error, match=text) as caught:
                f(*arguments)
            said.append(str(caught.value))
        assert is_kept(f)
        assert said[0] == said[1]
        assert "test_kept.py" in said[0]


# ---- another process, and the files


def test_a_gradient_of_the_users_own_is_kept() -> None:
    x = gd.vector("x")
    made = [gd.grad(gd.clip_gradient(gd.exp(x) * x, -1, 1).sum(), x) for _ in range(2)]
    assert is_kept([function([x], y) for y in made][1])


PROGRAM = """
import numpy as np, graphdrop as gd
from graphdrop import optim
import sys
for k in range(int(sys.argv[1])):
    gd.matrix(f"another{k}") + k
x = gd.matrix("x", shape=("batch", "width")); w = gd.shared(np.ones((3, 4), np.float32))
stream = gd.RandomStream(3)
y = gd.tanh(gd.dropout(x @ w, 0.5, stream))[: x.shape[0] // 2]
loss = gd.square(y).mean()
f = gd.function([x], [loss, y], optim.adam(loss, [w]), backend="llvm")
print(not f.executable.is_fresh, [a.tobytes().hex() for a in f(np.ones((5, 3), np.float32))])
"""


def python(*args: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *args], capture_output=True, text=True,
        check=False, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_finds_it(tmp_path: Path) -> None:
    place = {"GRAPHDROP_CACHE": str(tmp_path)}
    first = python("0", **place, PYTHONHASHSEED="1")
    second = python("7", **place, PYTHONHASHSEED="2")
    assert (first.split()[0], second.split()[0]) == ("False", "True")
    assert first.split()[1:] == second.split()[1:]
    assert python("0", GRAPHDROP_CACHE="off").split() == ["False", *first.split()[1:]]


def simple(number: float) -> gd.Function:
    x = gd.vector("x")
    return function([x], gd.exp(x) * number)


def values(f: gd.Function) -> list[float]:
    return [float(v) for v in f(np.zeros(3, "f"))]


def test_without_its_machine_code_a_program_is_made_again(folder: Path) -> None:
    before = set(folder.iterdir())
    simple(2.5)
    files = set(folder.iterdir()) - before
    assert len(files) == 2
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.unlink()
    f = simple(2.5)
    assert not is_kept(f)
    assert values(f) == [2.5] * 3
    assert is_kept(simple(2.5))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b""]
)
def test_a_damaged_file_is_thrown_away(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    before = set(folder.iterdir())
    number = 3.5 + len(damage(bytes(100)))
    simple(number)
    for path in set(folder.iterdir()) - before:
        path.write_bytes(damage(path.read_bytes()))
    f = simple(number)
    assert not is_kept(f)
    assert values(f) == [number] * 3
    assert is_kept(simple(number))


def test_other_source_means_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    simple(4.5)
    assert is_kept(simple(4.5))
    monkeypatch.setattr(keep, "SOURCE", "edited")
    assert not is_kept(simple(4.5))
    assert is_kept(simple(4.5))
    monkeypatch.setattr(keep, "SOURCE", "")  # it cannot be told
    assert not is_kept(simple(4.5))
    assert not is_kept(simple(4.5))


def test_the_source_is_that_of_every_file() -> None:
    said = keep.SOURCE
    for file in ("rules/simplify.py", "graph.py", "kernel.py"):
        assert f"{os.sep}{file}".replace("/", os.sep) in said


def test_a_text_of_our_own_is_printed_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Its name stands for it, until the source is another or the code is gone."""
    printed = 0

    def text() -> str:
        nonlocal printed
        printed += 1
        return "define i64 @forty_two() {\n  ret i64 42\n}"

    def answer() -> int:
        found = engine.own_module("an answer", text, {})
        address = found.get_function_address("forty_two")
        return int(ctypes.CFUNCTYPE(ctypes.c_int64)(address)())

    assert [answer(), answer(), printed] == [42, 42, 1]
    monkeypatch.setattr(engine, "SOURCE", "edited")
    assert [answer(), answer(), printed] == [42, 42, 2]
    (folder / f"{engine.code_name(text())}.o").unlink()
    assert [answer(), answer(), printed] == [42, 42, 4]
    monkeypatch.setattr(engine, "SOURCE", "")  # it cannot be told
    assert [answer(), answer(), printed] == [42, 42, 6]


def test_many_threads_compile_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: values(simple(5.5)), range(8)))
    assert found == [[5.5] * 3] * 8


def test_many_processes_keep_at_once(tmp_path: Path) -> None:
    """Each finds whole files or none; afterwards the program is there."""
    place = {"GRAPHDROP_CACHE": str(tmp_path)}
    with ThreadPoolExecutor(4) as pool:
        found = [said.split() for said in pool.map(lambda _: python("0", **place), range(4))]
    assert all(said[1:] == found[0][1:] for said in found)
    assert python("0", **place).split() == ["True", *found[0][1:]]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_a_directory_that_others_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    with monkeypatch.context() as patch:
        patch.setenv("GRAPHDROP_CACHE", str(tmp_path))
        disk.directory.cache_clear()
        with pytest.warns(UserWarning, match="others may write"):
            assert values(simple(6.5)) == [6.5] * 3
        assert not list(tmp_path.iterdir())
        assert not is_kept(simple(6.5))
    disk.directory.cache_clear()


def test_a_full_cache_loses_its_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("GRAPHDROP_CACHE", str(tmp_path))
        patch.setattr(disk, "LARGEST", 3000)
        disk.directory.cache_clear()
        disk._make_room.cache_clear()
        for i in range(5):
            disk.keep(f"f{i}", bytes(1000))
            (path,) = tmp_path.glob(f"f{i}.*")
            os.utime(path, (i, i))
        disk._make_room.cache_clear()
        disk.keep("new", bytes(10))
        left = sorted(p.stem for p in tmp_path.iterdir())
        assert left == ["f3", "f4", "new"]
    disk.directory.cache_clear()
    disk._make_room.cache_clear()


def test_inputs_are_checked_as_ever() -> None:
    x = gd.matrix("x", shape=("n", 3))
    f, g = (function([x], x.sum(axis=0)) for _ in range(2))
    assert is_kept(g)
    for h in (f, g):
        with pytest.raises(InputError, match="axes"):
            h(np.ones(3, "f"))
        with pytest.raises(ShapeError, match="size 3"):
            h(np.ones((3, 2), "f"))


def test_shared_values_are_read_where_they_are() -> None:
    found = []
    for value in (1.0, 7.0):
        w: Shared = gd.shared(np.full(4, value, "f"))
        f = function([], w * 2)
        found.append([float(f()[0]) for _ in range(3)])
        w.set_value(np.full(4, value + 1, "f"))
        found[-1].append(float(f()[0]))
    assert found == [[2, 2, 2, 4], [14, 14, 14, 16]]


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A disk without room: nothing is kept, and nothing is left half-way either."""
    script = (
        "import resource, signal, graphdrop as gd\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "x = gd.vector('x')\n"
        "print(gd.function([x], gd.tanh(x) * 0, backend='llvm')([1.0, 2.0]))\n"
    )
    old = tmp_path / f"abandoned{disk.PART}"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    env = os.environ | {"GRAPHDROP_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "[0. 0.]\n", done.stderr
    assert not [p for p in tmp_path.iterdir() if p.suffix == disk.PART]
