"""Right operands that stay the same in a loop: what is packed, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import ScheduleError
from graphdrop.schedule import Loop, Pack, Product, Program, Step, check, moved
from graphdrop_llvm.gemm import OFTEN
from graphdrop_llvm.program import LlvmProgram

rng = np.random.default_rng(0)
LENGTHS = (0, 1, OFTEN - 1, OFTEN, 9)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = gd.get_num_threads()
    gd.set_num_threads(2)
    yield
    gd.set_num_threads(before)


def weights(*shape: int, dtype: str = "float32") -> Any:
    return gd.shared((rng.normal(size=shape) / np.sqrt(shape[0])).astype(dtype), "w")


def program_of(f: Any) -> Program:
    executable = f.executable
    assert isinstance(executable, LlvmProgram)
    return executable.program


def steps_of(program: Program, kind: type[Any]) -> list[Any]:
    """The steps of a kind, those in loops too."""
    found: list[Step] = []
    for step in program.steps:
        found += [step] if isinstance(step, kind) else []
        found += steps_of(step.body, kind) if isinstance(step, Loop) else []
    return found


def check_near(found: Any, expected: Any) -> None:
    """Sums of the same terms in another order, and tanh to its last bits."""
    bound = {"float32": 1e-5, "float64": 1e-13}[found.dtype.name]
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=bound * np.abs(expected).max(initial=1)
    )


def network(x: Any, w: Any, v: Any) -> tuple[Any, Any]:
    """Two products with one matrix, and one with another; -> the last state, and all of them."""

    def step(state: Any, xt: Any) -> Any:
        a, b = state
        new = gd.tanh(a @ w + xt), gd.tanh(b @ w - a @ v.T)
        return new, new[1]

    zeros = gd.zeros((x.shape[1], w.shape[0]), x.dtype)
    return gd.scan(step, x, init=(zeros, zeros))


class TestWhatIsPacked:
    def test_each_operand_once_for_all_products_and_steps(self) -> None:
        x, w, v = gd.tensor("x", "float32", (None, None, 33)), weights(33, 33), weights(33, 33)
        (_, last), ys = network(x, w, v)
        f = gd.function([x], [last, *gd.grad(ys.sum(), [w, v])], backend="llvm")
        program = program_of(f)
        forward, backward = (s for s in program.steps if isinstance(s, Loop))
        assert len(steps_of(program, Pack)) == 4, "w and v, and their transposes"
        for loop, count in ((forward, 3), (backward, 3)):
            products = steps_of(loop.body, Product)
            assert len(products) == count
            assert all(p.packed is not None for p in products)
        assert len({p.packed for p in steps_of(forward.body, Product)}) == 2
        assert "pack: (33, 33) for a loop's products" in program.text()

    def test_what_is_packed_is_moved_once_by_each_product(self) -> None:
        x, w = gd.tensor("x", "float32", (9, 40, 33)), weights(33, 33)
        last, _ = gd.scan(lambda h, xt: (gd.tanh(h @ w + xt), None), x, init=gd.zeros((40, 33)))
        program = program_of(gd.function([x], last, backend="llvm"))
        ((product,), (pack,)) = (steps_of(program, kind) for kind in (Product, Pack))
        assert moved(product) == 4 * (40 * 33 + 33 * 33 + 40 * 33)
        assert moved(pack) == 4 * (33 * 33 + pack.result.elements)

    def test_not_what_the_loop_changes_nor_vectors_nor_batches(self) -> None:
        x = gd.tensor("x", "float32", (None, 2, 7, 7))
        w, u = weights(7, 7), gd.shared(np.ones(7, "f"), "u")

        def step(state: Any, xt: Any) -> Any:
            matrix, vector = state
            return (matrix @ w + w @ matrix, xt[0] @ vector), (xt @ matrix, w @ u)

        found = gd.scan(step, x, init=(weights(7, 7), weights(7)))
        program = program_of(gd.function([x], [found[0][0], *found[1]], backend="llvm"))
        (pack,) = steps_of(program, Pack)
        (product,) = (p for p in steps_of(program, Product) if p.packed is not None)
        assert pack.result.node is product.node.inputs[1]

    def test_before_the_outermost_loop_in_which_it_stays(self) -> None:
        x, w = gd.tensor("x", "float32", (None, 6, 5)), weights(5, 5)

        def outer(h: Any, xt: Any) -> Any:
            here = gd.outer(h[0], h[1])

            def inner(g: Any, _: Any) -> Any:
                return gd.tanh(g @ w + (g @ here)), None

            return gd.scan(inner, init=xt, length=4)[0][:5], None

        last, _ = gd.scan(outer, x[:, 1:], init=x[0, :5])
        program = program_of(gd.function([x], last, backend="llvm"))
        (once,) = (s for s in program.steps if isinstance(s, Pack))
        (loop,) = program.loops
        (again,) = (s for s in loop.body.steps if isinstance(s, Pack))
        assert len(once.loops) == 2
        assert len(again.loops) == 1
        assert len(steps_of(program, Pack)) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients(length: int, dtype: str) -> None:
    """One program for all sizes, with rows and columns at the edges of tiles."""
    for hidden in (1, 5, 33, 70):
        x = gd.tensor("x", dtype, (None, None, hidden))
        w, v = weights(hidden, hidden, dtype=dtype), weights(hidden, hidden, dtype=dtype)
        (_, last), ys = network(x, w, v)
        outputs = [last, ys, *gd.grad((ys**2).sum(), [w, v])]
        compiled, oracle = (gd.function([x], outputs, backend=b) for b in ("llvm", "numpy"))
        for rows in (0, 1, 2, 24, 25, 65):
            given = rng.normal(size=(length, rows, hidden)).astype(dtype)
            found = compiled(given)
            for a, b in zip(found, oracle(given), strict=True):
                check_near(a, b)
            gd.set_num_threads(1)
            for a, b in zip(found, compiled(given), strict=True):
                np.testing.assert_array_equal(a, b)
            gd.set_num_threads(2)


def test_second_derivatives() -> None:
    x, w, v = gd.tensor("x", "float64", (None, 3, 4)), *(weights(4, 4, dtype="float64"),) * 2
    ys = network(x, w, v)[1]
    slope = gd.grad((ys**3).sum(), w)
    outputs = [slope, gd.grad((slope**2).sum(), w)]
    compiled, oracle = (gd.function([x], outputs, backend=b) for b in ("llvm", "numpy"))
    for length in LENGTHS:
        given = rng.normal(size=(length, 3, 4))
        for a, b in zip(compiled(given), oracle(given), strict=True):
            check_near(a, b)


@pytest.mark.parametrize("length", LENGTHS)
def test_parts_of_operands(length: int) -> None:
    """Views of what stays: parts with offsets, steps over columns, and both turned."""
    x = gd.tensor("x", "float32", (None, 30, 8))
    w, many = weights(16, 24), weights(3, 8, 8)

    def step(h: Any, xt: Any) -> Any:
        h = gd.tanh(h @ w[3:11, 8:16] + xt @ w[::2, ::3] + h @ w.T[4:12, ::2] + xt @ many[2])
        return h, None

    last, _ = gd.scan(step, x, init=gd.zeros((30, 8)))
    outputs = [last, *gd.grad(last.sum(), [w, many])]
    compiled, oracle = (gd.function([x], outputs, backend=b) for b in ("llvm", "numpy"))
    assert len(steps_of(program_of(compiled), Pack)) >= 4
    given = rng.normal(size=(length, 30, 8)).astype("f")
    for a, b in zip(compiled(given), oracle(given), strict=True):
        check_near(a, b)


class TestInjectedFaults:
    def program(self) -> Program:
        x, w, v = gd.tensor("x", "float32", (None, 40, 33)), weights(33, 33), weights(33, 33)
        return program_of(gd.function([x], network(x, w, v)[1], backend="llvm"))

    def test_a_pack_left_out(self) -> None:
        program = self.program()
        steps = tuple(s for s in program.steps if not isinstance(s, Pack))
        with pytest.raises(ScheduleError, match="before any step wrote"):
            check(replace(program, steps=steps))

    def test_two_operands_swapped(self) -> None:
        program = self.program()
        (loop,) = program.loops
        *others, first, second = loop.captured
        wrong = replace(loop, captured=(*others, second, first))
        with pytest.raises(ScheduleError, match="packed"):
            check(replace(program, steps=tuple(wrong if s is loop else s for s in program.steps)))

    def test_an_operand_that_was_not_packed(self) -> None:
        program = self.program()
        (loop,) = program.loops
        product = next(s for s in loop.body.steps if isinstance(s, Product))
        bad = replace(product, packed=product.right.buffer)
        body = replace(loop.body, steps=tuple(bad if s is product else s for s in loop.body.steps))
        with pytest.raises(ScheduleError, match="packed"):
            check(replace(program, steps=tuple(
                replace(loop, body=body) if s is loop else s for s in program.steps
            )))  # fmt: skip
