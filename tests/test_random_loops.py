"""Loops in loops, branches and draws in any order: every backend agrees with the unoptimized oracle
on values, first and second gradients and derivatives along a direction, while training and not; and
what a process has kept gives the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.graph import Node

from . import cudashim

SHIM = cudashim.register()
DEPTH = 2  # of loops and branches in one another
SIZES, LENGTHS = (1, 2, 3, 5), (0, 1, 2, 4, 7)


@dataclass
class Maker:
    """What expressions are made with: vectors of one size, of which each gives another.

    draw   a choice of Hypothesis's
    rows   a matrix of such vectors, the sequence of loops
    quiet  whether nothing may draw here
    """

    draw: Callable[[Any], Any]
    stream: gd.RandomStream
    training: Node
    weight: Node
    rows: Node
    quiet: bool = False

    def one(self, choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def vector(self, known: list[Node], depth: int) -> Node:
        """A vector made of what is known, by way of loops or branches if these are to be deeper."""
        a, b = self.one(known), self.one(known)
        elements = ELEMENTS if self.quiet else ELEMENTS | DRAWS
        name = self.one([*elements, *(NESTED if depth else ())])
        if name in elements:
            return elements[name](self, a, b)
        return NESTED[name](self, known, depth - 1)

    def block(self, known: list[Node], depth: int, longest: int = 3) -> Node:
        """The last of a few vectors, each made of those before it."""
        known = list(known)
        for _ in range(self.draw(st.integers(1, longest))):
            known.append(self.vector(known, depth))
        return known[-1]

    def state(self, known: list[Node], depth: int) -> Node:
        """The next state of a loop, which does not grow."""
        return gd.tanh(self.block(known, depth))

    def sequence(self, known: list[Node]) -> Node:
        count = self.one([0, 0, 1, 2, 3])
        return gd.stack([self.one(known) for _ in range(count)]) if count else self.rows


ELEMENTS: dict[str, Callable[[Maker, Node, Node], Node]] = {
    "squashed": lambda m, a, b: gd.tanh(a) * b,
    "difference": lambda m, a, b: a - 0.5 * b,
    "gate": lambda m, a, b: gd.sigmoid(a + b),
    "product": lambda m, a, b: gd.tanh(m.weight @ a),
    "attention": lambda m, a, b: a * gd.softmax(b),
    "larger": lambda m, a, b: gd.where(gd.greater(a, b), a, b * 0.3),
    "number": lambda m, a, b: gd.tanh(a).sum() * b * 0.1,
    "backwards": lambda m, a, b: a[::-1],
}
DRAWS: dict[str, Callable[[Maker, Node, Node], Node]] = {
    "dropout": lambda m, a, b: gd.dropout(a, m.one([0.25, 0.5]), m.stream, m.training),
    "noise": lambda m, a, b: a + m.stream.normal(a.shape) * 0.1,
}


def _branch(m: Maker, known: list[Node], depth: int) -> Node:
    a = m.one(known)
    which = m.one([m.training, gd.greater(a.sum(), 0.0), gd.less(gd.square(a).sum(), 1.0)])
    # what the steps of a loop choose must not draw
    inner = replace(m, quiet=m.quiet or which is not m.training)
    return gd.cond(which, lambda: inner.block(known, depth), lambda: inner.block(known, depth))


def _scan(m: Maker, known: list[Node], depth: int) -> Node:
    given = {"reverse": [True], "checkpoint": [1, 2, 3], "truncate": [1, 2, 3]}
    name = m.one(["", "", *given])
    how = {name: m.one(given[name])} if name else {}

    def step(carry: Node, row: Node) -> tuple[Node, Node]:
        new = m.state([*known, carry, row], depth)
        return new, new * 2

    end, outs = gd.scan(step, m.sequence(known), m.one(known), **how)
    return m.one([end, outs.sum(axis=0) * 0.5, end + outs.sum(axis=0)])


def _two_states(m: Maker, known: list[Node], depth: int) -> Node:
    def step(carry: tuple[Node, Node], row: Node) -> tuple[tuple[Node, Node], Node]:
        new = m.state([*known, *carry, row], depth)
        return (new, carry[0] * 0.5), new + carry[1]

    start = m.one(known), m.one(known)
    (a, b), outs = gd.scan(step, m.sequence(known), start, reverse=m.one([False, True]))
    return a + b + outs.sum(axis=0)


def _until(m: Maker, known: list[Node], depth: int) -> Node:
    def step(carry: Node, row: Node) -> tuple[Node, Node, Node]:
        new = m.state([*known, carry, row], depth)
        return new, new * carry, gd.greater(new.sum(), 1.0)

    end, outs = gd.scan(step, m.sequence(known), m.one(known), until=True)
    return end + outs.sum(axis=0)


def _map(m: Maker, known: list[Node], depth: int) -> Node:
    return gd.map(lambda row: m.block([*known, row], depth), m.sequence(known)).sum(axis=0)


def _reduce(m: Maker, known: list[Node], depth: int) -> Node:
    def step(carry: Node, row: Node) -> Node:
        return m.state([*known, carry, row], depth)

    return gd.reduce(step, m.sequence(known), m.one(known))


NESTED: dict[str, Callable[[Maker, list[Node], int], Node]] = {
    "branch": _branch, "scan": _scan, "two states": _two_states, "until": _until, "map": _map,
    "reduce": _reduce,
}  # fmt: skip


def outputs_of(data: Any, known_size: bool, size: int, length: int) -> tuple[Any, Any, Any]:
    """A stream, the inputs, and the outputs: the change of a number along a direction, the same by
    way of its gradients, a vector, that number and its gradients.
    """
    d, t = (size, length) if known_size else ("d", "t")
    x, y = (gd.vector(n, dtype="float64", shape=(d,)) for n in "xy")
    rows = gd.matrix("rows", dtype="float64", shape=(t, d))
    weight = gd.matrix("weight", dtype="float64", shape=(d, d))
    maker = Maker(data.draw, gd.RandomStream(1), gd.flag("training"), weight, rows)
    out = maker.block([x, y], DEPTH, longest=4)
    loss = gd.square(out).sum() + (out * x).sum()
    slopes = gd.grad(loss, [x, rows, weight], disconnected="zero")
    along = [gd.sin(n) for n in (x, rows, weight)]
    moved = gd.jvp(loss, [x, rows, weight], along)
    by_slopes = sum((g * a).sum() for g, a in zip(slopes, along, strict=True))
    found = [moved, by_slopes, out, loss, *slopes]
    if data.draw(st.booleans()):
        total = sum(gd.square(g).sum() for g in slopes)
        found.append(gd.grad(total, x, disconnected="zero"))
    return maker.stream, [x, y, rows, weight, maker.training], found


def largest_of(arrays: Any) -> float:
    return max(np.abs(np.nan_to_num(a)).max(initial=1) for a in arrays)


def run(stream: Any, inputs: Any, outputs: Any, arrays: Any, **how: Any) -> list[Any]:
    f = gd.function(inputs, outputs, on_unused_input="ignore", **how)
    found = []
    for training in (True, False):
        with stream.at(3):
            found += f(*arrays, training)
    return found


def agrees(backend: str, count: int, again: bool) -> None:
    """Compares so many programs; `again`, whether a second compilation gives the same bytes."""

    @settings(
        derandomize=True, deadline=None, database=None, max_examples=count,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(
        data=st.data(), known_size=st.booleans(), size=st.sampled_from(SIZES),
        length=st.sampled_from(LENGTHS), seed=st.integers(0, 99),
    )  # fmt: skip
    def check(data: Any, known_size: bool, size: int, length: int, seed: int) -> None:
        program = outputs_of(data, known_size, size, length)
        rng = np.random.default_rng(seed)
        shapes = [(size,), (size,), (length, size), (size, size)]
        arrays = [rng.normal(size=s) * 0.7 for s in shapes]
        right = run(*program, arrays, backend="numpy", optimize=False)
        found = run(*program, arrays, backend=backend)
        for p, q in zip(found, right, strict=True):
            assert (p.shape, p.dtype) == (q.shape, q.dtype)
            largest = largest_of([q])
            np.testing.assert_allclose(p, q, rtol=1e-7, atol=1e-8 * largest)
        for moved, by_slopes in (right[:2], right[len(right) // 2 :][:2]):
            np.testing.assert_allclose(moved, by_slopes, rtol=1e-7, atol=1e-8 * largest_of(right))
        if again:
            for p, q in itertools.zip_longest(found, run(*program, arrays, backend=backend)):
                assert p.tobytes() == q.tobytes()

    check()


@pytest.mark.slow
def test_rewritten_on_the_oracle() -> None:
    agrees("numpy", 60, again=False)


@pytest.mark.slow
def test_on_the_cpu() -> None:
    agrees("llvm", 100, again=True)


@pytest.mark.slow
@cudashim.needs_compiler
def test_as_cuda_kernels() -> None:
    agrees(SHIM, 12, again=False)
