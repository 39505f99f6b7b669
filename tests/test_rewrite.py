"""Every rewrite rule: what it makes of what, what it leaves alone, and that values agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.graph import Node, toposort
from graphdrop.ops.elementwise import log
from graphdrop.ops.softmax import log_softmax, softmax
from graphdrop.rewrite import expression, optimize
from graphdrop.rules import EXACT, PHASES
from graphdrop.rules import optimize as optimize_all
from tests.rewrite_rows import ROWS
from tests.rewrite_rows.symbols import (
    Row,
    b,
    c,
    f,
    flag,
    h,
    i,
    ids,
    j,
    named,
    other,
    row,
    s,
    small,
    stream,
    u,
    x,
    y,
    z,
)

RULES = {r.name: r for phase in PHASES.values() for r in phase}


def alone(name: str, node: Node) -> tuple[Node, list[str]]:
    """What one rule makes of a node, and the names of what fired."""
    (after,), trace = optimize([node], {"alone": (RULES[name],)})
    return after, [record.rule for record in trace]


def test_every_rule_has_one_row() -> None:
    every = [r for phase in PHASES.values() for r in phase]
    assert len({r.name for r in every}) == len(set(every)), "two rules have one name"
    assert sorted(row.rule for row in ROWS) == sorted(RULES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_what_a_rule_makes(row: Row) -> None:
    for before, expected in row.pairs:
        after, fired = alone(row.rule, before)
        assert after is expected, f"{expression(before)} -> {expression(after)}"
        assert set(fired) == {row.rule}
        assert after.type == before.type


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_what_a_rule_leaves_alone(row: Row) -> None:
    for node in row.never:
        after, fired = alone(row.rule, node)
        assert after is node, f"{expression(node)} -> {expression(after)}"
        assert fired == []


# --------------------------------------------------------------------------------------------
# values


def arrays(inputs: list[Node], awkward: bool) -> list[np.ndarray[Any, Any]]:
    """One array for every input, the same for equal calls; with NaN, infinities, -0.0, extremes."""
    rng = np.random.default_rng(5)
    found = []
    for node in inputs:
        shape = tuple(n if isinstance(n, int) else 3 for n in node.shape)
        if node.dtype == bool:
            array = rng.random(shape) < 0.5
        elif node is ids:
            array = rng.integers(0, 4, shape)
        elif node.dtype.kind in "iu":
            info = np.iinfo(node.dtype)
            array = rng.integers(info.min, info.max, shape, node.dtype, endpoint=True)
        else:
            array = rng.uniform(-2, 2, shape)
            if awkward and array.size > 1:
                odd = [np.nan, np.inf, -np.inf, -0.0, 0.0, np.finfo(node.dtype).max, 1e-310]
                array.flat[rng.permutation(array.size)[:7]] = odd[: min(7, array.size)]
        found.append(np.asarray(array).astype(node.dtype))
    return found


# operands that only one side has would shift the samples of the others: all of them are given
EVERY = [x, y, z, row, s, h, f, i, j, small, u, b, c, flag, named, other, ids]


def values(nodes: list[Node], awkward: bool) -> list[np.ndarray[Any, Any]]:
    compiled = gd.function(EVERY, nodes, optimize=False, backend="numpy", on_unused_input="ignore")
    with stream.at(3):
        found: list[np.ndarray[Any, Any]] = compiled(*arrays(EVERY, awkward))
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_values_agree(row: Row) -> None:
    exact = RULES[row.rule].exact
    nodes = [n for before, _ in row.pairs for n in (before, alone(row.rule, before)[0])]
    found = values(nodes, awkward=exact)
    for before, after in zip(found[::2], found[1::2], strict=True):
        if exact:
            np.testing.assert_array_equal(before, after)
            nan = np.isnan(before) if before.dtype.kind == "f" else np.zeros(before.shape, bool)
            assert before[~nan].tobytes() == after[~nan].tobytes()
        else:
            np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-14, equal_nan=True)


# --------------------------------------------------------------------------------------------
# the whole


def model() -> tuple[list[Node], list[Node]]:
    v, t = gd.tensor("v", "float64", ("n", 3)), gd.tensor("t", "float64", ("n", 3))
    w = gd.tensor("w", "float64", (3, 3))
    hidden = gd.dropout(gd.tanh(v @ w), 0.5, gd.RandomStream(1), flag, name="hidden")
    loss = -(t * log(softmax(hidden))).sum(axis=1).mean()
    return [v, t, w, flag], [loss, *gd.grad(loss, [v, w])]


def test_the_trace_names_rules_phases_and_the_users_line() -> None:
    _, outputs = model()
    _, trace = optimize_all(outputs)
    assert {record.phase for record in trace} == {"exact", "stabilize"}
    line = next(str(record) for record in trace if record.rule == "log_of_softmax")
    assert line.startswith("stabilize  log_of_softmax")
    assert "log(softmax(dropout(tanh(...), " in line
    assert "->  log_softmax(dropout(" in line
    assert "test_rewrite.py:" in line
    assert str(trace).count("\n") == len(trace) - 1


def test_new_nodes_have_the_origin_of_what_they_replace() -> None:
    v = gd.tensor("v", "float64", ("n", 3))
    node = log(softmax(v))
    (found,), _ = optimize_all([node])
    assert found.op is log_softmax
    assert found.origin == node.origin
    assert found.origin is not None
    assert found.origin[0] == __file__


def test_compiled_functions_carry_the_trace() -> None:
    inputs, outputs = model()
    assert gd.function(inputs, outputs, backend="numpy").trace
    assert gd.function(inputs, outputs, backend="numpy", optimize=False).trace == []


def test_a_second_run_changes_nothing() -> None:
    _, outputs = model()
    once, _ = optimize_all(outputs)
    again, trace = optimize_all(once)
    assert again == once
    assert not trace


def test_two_runs_are_alike() -> None:
    first, second = (str(optimize_all(model()[1])[1]) for _ in range(2))
    assert first == second


def test_only_exact_rules_in_the_first_phase() -> None:
    assert next(iter(PHASES)) == "exact"
    assert all(r.exact for r in EXACT)
    assert not all(r.exact for r in PHASES["stabilize"])


def test_dropout_that_is_off_leaves_no_draw_and_keeps_call_numbers() -> None:
    one_stream = gd.RandomStream(3)
    v = gd.tensor("v", "float64", ("n", 3))
    rate = gd.tensor("rate", "float64", ())
    outputs = gd.dropout(v, rate, one_stream, flag).sum()
    step = gd.function([v, rate, flag], [outputs, gd.grad(outputs, v)], backend="numpy")
    off = gd.function([v], [outputs, gd.grad(outputs, v)], givens={flag: False, rate: 0.5},
                      backend="numpy")  # fmt: skip
    all_dropped = gd.function([v, flag], outputs, givens={rate: 1.0}, backend="numpy")
    for compiled in (off, all_dropped):
        assert not any("key" in node.op.operand_names for node in toposort(compiled.graph.outputs))
    value = np.ones((2, 3))
    off(value)
    assert one_stream.calls == 0
    assert all_dropped(value, False) == 6
    assert one_stream.calls == 0
    assert all_dropped(value, True) == 0  # draws nothing, yet is a call that draws
    assert one_stream.calls == 1
    step(value, 0.5, True)
    assert step.call == 1


def test_sizes_that_become_known_are_put_in() -> None:
    v = gd.tensor("v", "float64", (6,))
    count = gd.as_node(np.int64(2)) + 1
    folded = gd.reshape(v, (count, 2))
    (found,), _ = optimize_all([folded])
    assert found is gd.reshape(v, (3, 2))


def test_a_checked_node_is_not_removed() -> None:
    """Sizes that are values of the graph are checked where the node is computed."""
    v, k = gd.tensor("v", "float64", (6,)), gd.tensor("k", "int64", ())
    node = gd.reshape(gd.reshape(v, (k, 2)), (6,))
    compiled = gd.function([v, k], node, backend="numpy")
    compiled(np.zeros(6), 3)
    with pytest.raises(gd.GraphdropError):
        compiled(np.zeros(6), 4)
