"""The llvm backend against the numpy backend: random graphs, draws, awkward operands, functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.graph import Node, toposort
from tests.test_rewrite_random_graphs import (
    EXACTLY,
    ROUGHLY,
    SETTINGS,
    Builder,
    build,
    outputs_of,
    programs,
    results,
)


def compiled(g: Builder, nodes: list[Node], backend: str, optimize: bool) -> gd.Function:
    return gd.function(
        g.inputs, nodes, backend=backend, optimize=optimize, on_unused_input="ignore"
    )


def divides_with_rounding(g: Builder, nodes: list[Node], training: bool) -> bool:
    """Whether the oracle divides by what is no power of two."""
    by = [n.inputs[1] for n in toposort(nodes) if n.op is gd.div]
    values = results(compiled(g, by, "numpy", False), g, training) if by else []
    return any((np.frexp(np.abs(v[np.isfinite(v) & (v != 0)]))[0] != 0.5).any() for v in values)


@SETTINGS
@given(programs, st.sampled_from([1, 4, 37]), st.booleans(), st.booleans())
def test_exact_graphs_have_equal_bits(
    program: Any, size: int, training: bool, optimize: bool
) -> None:
    g = build(program, EXACTLY, size)
    nodes = outputs_of(g)
    expected = results(compiled(g, nodes, "numpy", False), g, training)
    found = results(compiled(g, nodes, "llvm", optimize), g, training)
    # of a gradient that is shared in thirds the order of a sum shows
    exact = len(nodes) - len(g.leaves) if divides_with_rounding(g, nodes, training) else len(nodes)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == b.dtype
        if i < exact:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max(initial=1))


@SETTINGS
@given(programs, st.sampled_from([1, 4, 37]))
def test_graphs_with_gradients_agree(program: Any, size: int) -> None:
    g = build(program, EXACTLY + ROUGHLY, size)
    nodes = outputs_of(g)
    with np.errstate(all="ignore"):
        expected = results(compiled(g, nodes, "numpy", True), g, True)
        found = results(compiled(g, nodes, "llvm", True), g, True)
    scale = max((float(np.max(np.abs(e))) for e in expected if np.size(e)), default=1.0)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * max(scale, 1.0))


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-310, -1e-310, 5e-324, 1e308])

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], float]] = {
    "exp": (gd.exp, np.exp, 1.5), "expm1": (gd.expm1, np.expm1, 2),
    "log": (gd.log, np.log, 1.5), "log1p": (gd.log1p, np.log1p, 1.5),
    "log2": (gd.log2, np.log2, 2.5), "log10": (gd.log10, np.log10, 3.5),
    "tanh": (gd.tanh, np.tanh, 3), "sin": (gd.sin, np.sin, 2), "cos": (gd.cos, np.cos, 2),
    "sigmoid": (gd.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 3.5),
    "erf": (gd.erf, scipy.special.erf, 3.5),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_hold_what_they_promise(name: str, dtype: str) -> None:
    """The errors that `graphdrop_llvm.functions` states, and half an ulp of the reference."""
    build, reference, ulp = FUNCTIONS[name]
    rng = np.random.default_rng(3)
    if dtype == "float32":
        every = np.arange(0, 2**32, 2**15 + 1).astype(np.uint32).view(np.float32)
    else:
        every = rng.integers(0, 2**64, 2**17, np.uint64).view(np.float64)
    usual = [rng.uniform(-a, a, 2**15) for a in (1e-3, 1, 4, 100, 800)]
    with np.errstate(all="ignore"):
        x = np.concatenate([every, *usual, 1 + usual[0], SPECIAL]).astype(dtype)
        wide = np.float64 if dtype == "float32" or name == "erf" else np.longdouble
        exact = reference(x.astype(wide))
        right = exact.astype(dtype)
    v = gd.vector("v", dtype=dtype)
    found = gd.function([v], build(v), backend="llvm")(x)
    usual_ones = np.isfinite(right) & np.isfinite(found)
    np.testing.assert_array_equal(found[~usual_ones], right[~usual_ones])
    unit = np.spacing(np.abs(right[usual_ones])).astype(wide)
    off = np.abs(found[usual_ones].astype(wide) - exact[usual_ones]) / unit
    # where 1 + exp(-x) is rounded or infinite, the reference for sigmoid is no better
    assert np.max(off) <= ulp, (name, x[usual_ones][np.argmax(off)])


SIZES = [0, 1, 2, 15, 16, 17, 127, 128, 129, 2047, 2048, 2049, 4096, 5000, 70001]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_masks_are_equal_at_every_size(dtype: str) -> None:
    x, stream, training = gd.vector("x", dtype=dtype), gd.RandomStream(5), gd.flag("training")
    rate = gd.scalar("rate", dtype="float64")
    y = gd.dropout(x, rate, stream=stream, training=training)
    both = [gd.function([x, rate, training], y, backend=b) for b in ("numpy", "llvm")]
    assert "outside" not in both[1].executable.listing("program")
    for size in SIZES:
        for r in (0.0, 0.3, 0.999, 1.0):
            for on in (True, False):
                values = np.linspace(1, 2, size).astype(dtype)
                with stream.at(call=2):
                    expected, found = (f(values, r, on) for f in both)
                np.testing.assert_array_equal(found == 0, expected == 0)
                np.testing.assert_allclose(
                    found, expected, rtol=2e-3 if dtype == "float16" else 1e-6
                )


def numbers(stream: gd.RandomStream, shape: Any, **how: Any) -> list[Node]:
    """Every draw of numbers but normals, whose logarithms are each backend's own."""
    floats = [stream.uniform(shape, dtype=d, **how) for d in ("f2", "f4", "f8")]
    many = stream.randint(shape, -(2**63), 2**63 - 1, **how)
    few = [
        stream.randint(shape, *s, dtype=d, **how)
        for d, s in (("int8", (-128, 128)), ("uint16", (3, 4)), ("int64", (-(2**40), 2**50)))
    ]
    return [*floats, many, *few, stream.bernoulli(shape, 0.3, **how)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (31,), (65,), (2048,), (4161,), (3, 2047), (700, 7), (2, 1, 33)]
)
def test_numbers_are_equal_at_every_size(shape: tuple[int, ...], training: bool) -> None:
    found = []
    for backend in ("numpy", "llvm"):
        x = gd.tensor("x", "float32", (None,) * len(shape))
        made = numbers(gd.RandomStream(5), x.shape, training=training)
        # computed with what else a kernel does, and where its rows are walked twice
        made.append(x * made[1] + made[1])
        if shape:
            made.append(made[1] - made[1].max(axis=-1, keepdims=True) if shape[-1] else x)
        f = gd.function([x], made, backend=backend, on_unused_input="ignore")
        f(np.ones(shape, "f4"))
        found.append(f(np.ones(shape, "f4")))
    assert "outside" not in f.executable.listing("program")
    for right, mine in zip(*found, strict=True):
        assert mine.dtype == right.dtype
        np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_normal_numbers_agree(dtype: str) -> None:
    z = [gd.function([], gd.RandomStream(5).normal((999, 101), dtype=dtype), backend=b)()
         for b in ("numpy", "llvm")]  # fmt: skip
    np.testing.assert_array_max_ulp(z[1], z[0], 4 if dtype == "float64" else 1)


def test_many_draws_in_one_kernel_need_no_large_stack() -> None:
    stream, found = gd.RandomStream(1), []
    drawn = [stream.normal((200_000,), dtype="float64") for _ in range(60)]
    f = gd.function([], sum(drawn[1:], start=drawn[0]), backend="llvm")
    assert f.executable.listing("program").count("kernel") == 1
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=lambda: found.append(f()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert abs(found[0].std() - np.sqrt(60)) < 0.1


def test_numbers_are_drawn_in_native_loops() -> None:
    def step(h: Node) -> Node:
        noise = stream.normal(h.shape, name="noise") + stream.uniform(h.shape, name="more")
        return gd.tanh(h * 0.5 + noise)

    x = gd.matrix("x")
    stream = gd.RandomStream(9)
    last, _ = gd.scan(lambda h, _: (step(h), h), init=x, length=5)
    fs = [gd.function([x], [last, gd.grad(last.sum(), x)], backend=b) for b in ("numpy", "llvm")]
    text = fs[1].executable.listing("program")
    assert "loop of 5 steps" in text
    assert "outside" not in text
    given = np.ones((7, 33), "f4")
    for call in range(2):
        with stream.at(call=call):
            right, mine = (f(given) for f in fs)
        for a, b in zip(mine, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[::2], lambda a: a[::-1], lambda a: a.T.copy().T, lambda a: a[:, 1:],
        np.asfortranarray, lambda a: np.broadcast_to(a[:1], a.shape), lambda a: a[:0],
        lambda a: np.ndarray(a.shape, a.dtype, b"\0" + a.tobytes(), 1),
    ],
    ids=[
        "every other", "reversed", "transposed", "part", "Fortran", "broadcast", "none", "odd",
    ],
)  # fmt: skip
def test_operands_that_are_no_plain_memory(change: Callable[[Any], Any]) -> None:
    x = gd.matrix("x", dtype="float64")
    y = gd.tanh(x) @ x.T + x.sum(axis=1)
    given = change(np.random.default_rng(0).normal(size=(6, 5)))
    kept = given.copy()
    found, expected = (gd.function([x], y, backend=b)(given) for b in ("llvm", "numpy"))
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(given, kept)


def test_one_function_serves_every_size_and_several_threads() -> None:
    x = gd.matrix("x", dtype="float64")
    f = gd.function([x], (gd.exp(-x) * x).sum(axis=0), backend="llvm")
    wrong: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            a = rng.normal(size=rng.integers(0, 40, 2))
            if not np.allclose(f(a), (np.exp(-a) * a).sum(axis=0), rtol=1e-12):
                wrong.append(a)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_sum_of_all_beside_sums_of_rows(dtype: str) -> None:
    """In one kernel: parts of the loss are held in more bits than the sums that a softmax needs."""
    x = gd.matrix("x", dtype=dtype)
    loss = gd.square(gd.softmax(gd.tanh(x))).sum()
    values = np.random.default_rng(0).normal(size=(33, 8)).astype(dtype)
    found, right = (
        gd.function([x], [loss, gd.grad(loss, x)], backend=b)(values) for b in ("llvm", "numpy")
    )
    rough = {"float16": 5e-3, "float32": 1e-5, "float64": 1e-12}[dtype]
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=rough, atol=rough)


def test_sums_of_many_numbers_are_exact_to_an_ulp() -> None:
    x = gd.vector("x")
    values = np.random.default_rng(1).uniform(0, 1, 1_000_003).astype("f4")
    found = gd.function([x], [x.sum(), x.mean()], backend="llvm")(values)
    exact = values.astype("f8").sum()
    np.testing.assert_allclose(found, [exact, exact / values.size], rtol=3e-7)


def model(dtype: str) -> tuple[list[Node], list[Node]]:
    """Everything that threads share: loops, draws, reductions along either axis."""
    x, stream = gd.matrix("x", dtype=dtype), gd.RandomStream(3)
    y = gd.dropout(gd.tanh(x) * gd.exp(-x), 0.3, stream=stream)
    return [x], [y, y.sum(axis=1), y.sum(axis=0), y.max(), gd.grad((y * y).sum(), x)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = gd.get_num_threads()
    gd.set_num_threads(2)
    yield
    gd.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(3, 700_001), (1200, 1000), (900_001, 2), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_number_of_threads_changes_no_byte(shape: tuple[int, int], dtype: str) -> None:
    inputs, outputs = model(dtype)
    f = gd.function(inputs, outputs, backend="llvm")
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    found = []
    for number in (1, 2, 5):
        gd.set_num_threads(number)
        with f.streams[0].at(call=0):
            found.append([a.tobytes() for a in f(x)])
    assert found[0] == found[1] == found[2]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("shape", [(3_000_001,), (2, 1_500_001), (1500, 2048)])
def test_results_written_around_the_caches(shape: tuple[int, ...], dtype: str) -> None:
    """Rows that begin on a cache line and rows that do not, with tails; as NumPy has them."""
    x = gd.tensor("x", dtype, shape)
    f = gd.function([x], [x * x + x, x - 1], backend="llvm")
    a = np.random.default_rng(0).integers(-90, 90, shape).astype(dtype)
    for _ in range(3):  # memory of results is used again
        found = f(a)
        np.testing.assert_array_equal(found[0], a * a + a)
        np.testing.assert_array_equal(found[1], a - 1)


@pytest.mark.usefixtures("two_threads")
def test_several_callers_share_the_workers() -> None:
    x = gd.matrix("x")
    f = gd.function([x], gd.exp(x) + 1, backend="llvm")
    a = np.random.default_rng(0).normal(size=(1000, 1000)).astype("f4")
    expected, wrong = f(a), []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(f(a), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_must_be_a_number(number: Any) -> None:
    with pytest.raises(gd.errors.ArgumentError, match="positive integer"):
        gd.set_num_threads(number)


def test_a_loss_and_its_gradient_are_one_walk_whoever_knows_the_size() -> None:
    """1 / size, which a mean needs, does not wait for the loss; else its gradient would, too."""
    for size in (64, "batch"):
        x, y = gd.matrix("x", shape=(size, 100)), gd.lvector("y", shape=(size,))
        loss = gd.nn.softmax_cross_entropy(x, y).mean()
        f = gd.function([x, y], [loss, gd.grad(loss, x)], backend="llvm")
        lines = f.executable.listing("program").splitlines()
        assert sum(f"kernel over [{size}, 100]" in line for line in lines) == 1, lines


def test_steps_that_differ_in_where_they_begin_are_one_function() -> None:
    x = gd.matrix("x", shape=(40, "n"))
    f = gd.function([x], gd.concatenate([x[i : i + 2] for i in range(30)]), backend="llvm")
    assert f.source().count("define internal void @step") == 1
    array = np.arange(160, dtype="f4").reshape(40, 4)
    expected = np.concatenate([array[i : i + 2] for i in range(30)])
    np.testing.assert_array_equal(f(array), expected)
    np.testing.assert_array_equal(f(np.asfortranarray(array)), expected)
