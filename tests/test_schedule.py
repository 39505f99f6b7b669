"""Programs: what is fused, where memory lies, and that the checker finds injected faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.backend import Graph
from graphdrop.errors import ScheduleError
from graphdrop.graph import Node, toposort
from graphdrop.ops.random import dropout
from graphdrop.schedule import (
    Demand,
    Kernel,
    Layout,
    Outside,
    Piece,
    Place,
    Product,
    Program,
    check,
    check_layout,
    demand,
    in_place,
    layout,
    schedule,
)
from graphdrop.types import atoms_of

ELEMENTWISE = {
    "add", "sub", "mul", "div", "tanh", "exp", "relu", "where", "greater", "cast", "dropout",
}  # fmt: skip


def prints(node: Node) -> str | None:
    """A backend that prints a few operations."""
    if node.op.name in ELEMENTWISE:
        return "loop"
    return {"sum": "reduce", "max": "reduce", "matmul": "product"}.get(node.op.name)


def same(outputs: Sequence[Node]) -> Sequence[Node]:
    return outputs


def program_of(outputs: list[Node]) -> Program:
    inputs = tuple(n for n in toposort(outputs) if not n.inputs and n.op.name != "constant")
    atoms = tuple(atoms_of(s for n in inputs for s in n.shape))
    return schedule(Graph(inputs, tuple(outputs), atoms), prints, same)


x = gd.matrix("x", dtype="float64", shape=("n", "m"))
y = gd.matrix("y", dtype="float64", shape=("n", "m"))
stream = gd.RandomStream(1)


def env(program: Program, size: int = 5) -> dict[Any, int]:
    return {atom: size + i for i, atom in enumerate(program.atoms)}


class TestFusion:
    def test_elementwise_operations_are_one_kernel(self) -> None:
        program = program_of([gd.tanh(x * y + x) - y])
        assert [type(s) for s in program.steps] == [Kernel]

    def test_what_feeds_a_sum_is_in_its_kernel(self) -> None:
        e = gd.exp(x)
        program = program_of([(e * y).sum(axis=0), e])
        assert [type(s) for s in program.steps] == [Kernel]
        (kernel,) = program.steps
        assert isinstance(kernel, Kernel)
        assert [n.op.name for n in kernel.reduced] == ["sum"]

    def test_rows_are_walked_again_in_one_kernel(self) -> None:
        weights = gd.exp(x - x.max(axis=1, keepdims=True))
        program = program_of([weights / weights.sum(axis=1, keepdims=True)])
        assert [type(s) for s in program.steps] == [Kernel]

    @pytest.mark.parametrize("axis", [0, None])
    def test_other_reductions_end_a_kernel(self, axis: int | None) -> None:
        program = program_of([x / x.sum(axis=axis, keepdims=True)])
        assert len(program.steps) == 2

    def test_a_product_stands_between_its_operands_and_what_follows(self) -> None:
        program = program_of([gd.tanh(gd.exp(x) @ y.T)])
        assert [type(s) for s in program.steps] == [Kernel, Product, Kernel]
        product = program.steps[1]
        assert isinstance(product, Product)
        assert product.right.strides[0] == 1, "a transpose is strides"

    def test_what_is_not_printed_is_outside_and_says_so(self) -> None:
        program = program_of([gd.cumsum(gd.exp(x), axis=0)])
        assert [type(s) for s in program.steps] == [Kernel, Outside]
        assert "outside: cumsum" in program.text()
        assert "test_schedule.py" in program.text()

    def test_groups_do_not_wait_for_each_other(self) -> None:
        a = gd.exp(x)
        b = gd.tanh(a @ y.T) @ y
        program = program_of([a * b, a + 1])
        check(program)

    def test_a_long_chain_is_cut(self) -> None:
        node = x
        for _ in range(1000):
            node = gd.tanh(node)
        assert len(program_of([node]).steps) >= 2


class TestMemory:
    def test_buffers_share_what_is_free(self) -> None:
        node = x
        for _ in range(6):
            node = gd.tanh(node @ y.T) @ y
        program = program_of([node])
        sizes = env(program)
        found = layout(demand(program), sizes)
        check_layout(program, found, sizes)
        scratch = [b for b in program.buffers if b.role == "scratch"]
        assert len(scratch) > 10
        assert found.size < 5 * 64 * 8

    def test_a_kernel_writes_over_what_it_reads_for_the_last_time(self) -> None:
        program = program_of([gd.tanh(x @ y.T) @ y])
        product, kernel, _ = program.steps
        assert isinstance(product, Product)
        assert isinstance(kernel, Kernel)
        (written,) = kernel.writes.values()
        assert in_place(program) == {written.buffer: product.out.buffer}
        sizes = env(program)
        found = layout(demand(program), sizes)
        check_layout(program, found, sizes)
        assert found.size == 320  # 6 x 6 numbers of 8 bytes, once

    def test_a_walk_after_the_write_still_reads_what_was_there(self) -> None:
        h = x @ y.T
        squashed = gd.tanh(h)
        weighed = h * squashed.sum(axis=1, keepdims=True)
        program = program_of([squashed @ y, weighed @ y])
        assert [type(s) for s in program.steps] == [Product, Kernel, Product, Product]
        over = {new.node: old.node for new, old in in_place(program).items()}
        assert over == {weighed: h}

    @pytest.mark.parametrize(
        "made",
        [
            lambda h: gd.tanh(h) @ y + h @ y,  # read by a later step
            lambda h: (h + h.T) @ y,  # elements are read after others were written
            lambda h: (h[0] * gd.exp(y.T @ y)) @ y.T,  # one row for all
            lambda h: gd.greater(h, 0).astype("float32") @ gd.ones((x.shape[0], 2)),  # another type
        ],
    )
    def test_nothing_is_written_over_what_is_needed_still(self, made: Any) -> None:
        h = x @ y.T
        assert h not in {old.node for old in in_place(program_of([made(h)])).values()}

    @pytest.mark.parametrize("size", [0, 1, 17])
    def test_every_size_has_a_layout(self, size: int) -> None:
        program = program_of([gd.tanh(x) @ y.T, (x * y).sum(axis=1)])
        sizes = env(program, size)
        check_layout(program, layout(demand(program), sizes), sizes)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-1, 3000))))
    def test_pieces_in_use_at_once_lie_apart(self, wanted: list[tuple[int, int, int]]) -> None:
        pieces = [Piece([i], *sorted(w[:2]), w[2]) for i, w in enumerate(wanted)]
        found = layout(Demand(0, len(pieces), pieces, []), {})
        taken = [range(found.offsets[p.buffers[0]], found.own)[: max(p.size, 1)] for p in pieces]
        for i, (p, mine) in enumerate(zip(pieces, taken, strict=True)):
            assert len(mine) == max(p.size, 1)
            assert mine.start % 64 == 0
            for q, other in zip(pieces[:i], taken[:i], strict=True):
                if p.first <= q.last and q.first <= p.last:
                    assert mine.stop <= other.start or other.stop <= mine.start

    def test_the_largest_pieces_are_placed_first(self) -> None:
        """In the order of the steps, the first would leave a gap too small for the third."""
        pieces = [Piece([0], 0, 1, 1024), Piece([1], 1, 3, 4096), Piece([2], 2, 3, 2048)]
        found = layout(Demand(0, 3, pieces, []), {})
        assert (found.offsets, found.size) == ({0: 4096, 1: 0, 2: 4096}, 6144)

    def test_sizes_that_no_machine_has(self) -> None:
        length = x.shape[0] * x.shape[0] * x.shape[0]
        tall = gd.broadcast_to(x[0, :], (length * length, x.shape[1]))
        f = gd.function([x], (gd.tanh(tall @ x.T) @ x).sum(), backend="llvm")
        with pytest.raises(MemoryError, match=r"[0-9.]+e\+21 bytes of scratch"):
            f(np.ones((1000, 2)))


def two_dropouts() -> Program:
    a = gd.dropout(x, 0.5, stream=stream, name="a")
    b = gd.dropout(a * y, 0.5, stream=stream, name="b")
    return program_of([a, b])


class TestInjectedFaults:
    """What the checker is for."""

    @pytest.mark.parametrize(
        "output",
        [
            gd.tanh(gd.exp(x) @ y.T) @ gd.exp(y),  # freed early
            gd.tanh((x @ y.T).T) @ y,  # written over what is read in another order
        ],
    )
    def test_a_buffer_in_the_place_of_one_in_use(self, output: Node) -> None:
        program = program_of([output, gd.exp(x) + 1])
        sizes = env(program)
        right = layout(demand(program), sizes)
        check_layout(program, right, sizes)
        wrong = Layout(dict.fromkeys(right.offsets, 0), right.own, right.loops)
        with pytest.raises(ScheduleError, match="share memory"):
            check_layout(program, wrong, sizes)

    def test_two_draws_swapped(self) -> None:
        program = two_dropouts()
        (kernel,) = program.steps
        assert isinstance(kernel, Kernel)
        first, second = (n for n in kernel.nodes if n.op is dropout)
        places = dict(kernel.writes)
        places[first], places[second] = places[second], places[first]
        with pytest.raises(ScheduleError, match="dropout"):
            check(replace(program, steps=(replace(kernel, writes=places),)))

    def test_an_update_over_what_is_still_read(self) -> None:
        program = program_of([(gd.exp(x) @ y.T).sum(axis=0), gd.tanh(x)])
        product = next(s for s in program.steps if isinstance(s, Product))
        wrong = replace(product, out=replace(product.out, buffer=product.left.buffer))
        steps = tuple(wrong if s is product else s for s in program.steps)
        with pytest.raises(ScheduleError):
            check(replace(program, steps=steps))

    def test_steps_in_the_wrong_order(self) -> None:
        program = program_of([gd.tanh(x @ y.T) @ y])
        with pytest.raises(ScheduleError, match="before any step wrote"):
            check(replace(program, steps=program.steps[::-1]))

    def test_a_step_left_out(self) -> None:
        program = program_of([gd.tanh(x @ y.T)])
        with pytest.raises(ScheduleError, match="no step writes"):
            check(replace(program, steps=program.steps[:-1]))

    def test_a_place_outside_its_buffer(self) -> None:
        program = program_of([x.T + 1.0])
        (kernel,) = program.steps
        assert isinstance(kernel, Kernel)
        node, place = next(iter(kernel.writes.items()))
        moved = Place(place.buffer, place.shape, place.strides, 1)
        wrong = replace(program, steps=(replace(kernel, writes={node: moved}),))
        sizes = env(program)
        with pytest.raises(ScheduleError, match="reaches"):
            check_layout(wrong, layout(demand(wrong), sizes), sizes)

    def test_a_buffer_written_twice(self) -> None:
        program = program_of([gd.exp(x), gd.tanh(y)])
        with pytest.raises(ScheduleError, match="in use"):
            check(replace(program, steps=program.steps + program.steps))


def test_a_program_is_shown_with_what_is_fused() -> None:
    weights = gd.shared(np.ones((3, 3)), "w")
    text = program_of([gd.tanh(x @ weights), (x * 2).sum()]).text()
    assert "product: matmul" in text
    assert "kernel over" in text
