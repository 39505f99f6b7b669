"""The numpy backend's program against the plainest evaluation there is: every node from copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.backend import Graph
from graphdrop.errors import BackendError
from graphdrop.graph import Node, toposort
from graphdrop.op import constant_value
from graphdrop_numpy.program import NumpyProgram
from graphdrop_numpy.rules import RULES

SIZE = 4


def naive(outputs: list[Node], given_arrays: dict[Node, np.ndarray]) -> list[np.ndarray]:
    """Every node computed from copies of its operands, nothing reused and nothing freed."""
    values: dict[Node, Any] = {}
    for node in toposort(outputs):
        known = given_arrays.get(node, constant_value(node))
        if known is not None:
            values[node] = np.array(known)
        else:
            operands = [np.array(values[i]) for i in node.inputs]
            values[node] = np.array(RULES[node.op](*operands, **dict(node.params)))
    return [values[n] for n in outputs]


# every step takes square matrices to a square matrix; many of them are views or write in place
STEPS = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: gd.maximum(a, b),
    lambda a, b: a - 0.5,
    lambda a, b: gd.tanh(a),
    lambda a, b: -a,
    lambda a, b: a.T,
    lambda a, b: a.reshape(2, 2, SIZE).transpose(1, 0, 2).reshape(SIZE, SIZE),
    lambda a, b: a + b.sum(axis=0),
    lambda a, b: gd.broadcast_to(b.sum(axis=1, keepdims=True), (SIZE, SIZE)),
    lambda a, b: gd.where(a > b, a, b * 0.5),
    lambda a, b: gd.stop_gradient(a),
    lambda a, b: a @ b.T * 0.25,
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 99), st.integers(0, 99)),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
)
def test_reuse_of_memory_changes_nothing(
    steps: list[tuple[int, int, int]], wanted: list[int]
) -> None:
    x = gd.dmatrix("x", shape=(SIZE, SIZE))
    w = gd.shared(np.linspace(-1, 1, SIZE * SIZE).reshape(SIZE, SIZE), "w")
    nodes: list[Node] = [x, w, gd.constant(np.eye(SIZE))]
    for kind, i, j in steps:
        nodes.append(STEPS[kind](nodes[i % len(nodes)], nodes[j % len(nodes)]))
    outputs = [nodes[-1 - k % len(nodes)] for k in wanted]
    program = NumpyProgram(Graph((x, w), tuple(outputs), ()))
    array = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    expected = naive(outputs, {x: array, w: w.get_value()})
    before = array.copy()
    results = program.run([array, w.array], ())
    for _ in range(2):  # a second run must not see anything of the first
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got, want)
        for got in results:
            got += 1  # results are the caller's own
        results = program.run([array, w.array], ())
    np.testing.assert_array_equal(array, before)


def test_values_are_dropped_after_their_last_use() -> None:
    x = gd.vector("x", shape=(1000,))
    y = x
    for _ in range(50):
        y = gd.exp(y * 0.1)
    program = NumpyProgram(Graph((x,), (y.sum(),), ()))
    alive: list[int] = []
    import tracemalloc

    tracemalloc.start()
    try:
        program.observe(
            [np.zeros(1000, "f4")],
            (),
            lambda n, v, t: alive.append(tracemalloc.get_traced_memory()[0]),
        )
    finally:
        tracemalloc.stop()
    # two or three arrays of 4,000 bytes are alive at any time, not a hundred
    assert max(alive) - min(alive) < 6 * 4000


def test_elementwise_results_overwrite_dying_operands() -> None:
    x = gd.vector("x", shape=(8,))
    program = NumpyProgram(Graph((x,), ((x * 2 + 1).sum() * 3,), ()))
    reused = {call.node.op.name for call in program.calls if call.reuse >= 0}
    assert reused == {"add"}  # x itself is the caller's; x * 2 dies in the sum


def test_prepared_sizes_are_kept_and_bounded() -> None:
    from graphdrop_numpy.program import PLANS_KEPT

    x = gd.vector("x", shape=("n",))
    f = gd.function([x], x.reshape(1, x.shape[0]) * 2, backend="numpy")
    for n in range(PLANS_KEPT + 10):
        assert f(np.ones(n, "f4")).shape == (1, n)
    assert len(f.executable._plans) == PLANS_KEPT


def test_an_op_without_a_rule_is_an_error() -> None:
    from graphdrop.op import OPS, Op

    rare = Op("rare_op_of_this_test", lambda x: x)
    try:
        with pytest.raises(BackendError, match="no rule for rare_op_of_this_test"):
            gd.function([], rare(gd.constant(1.0)), optimize=False, backend="numpy")()
    finally:
        del OPS["rare_op_of_this_test"]
