"""Random graphs give the same values, gradients, masks and call numbers with and without rewrites.

A graph is a list of instructions, each of which picks operands among the values so far, so that
Hypothesis can shrink a failure.  Two families: in the first all numbers are small multiples of
powers of two, so that nothing is rounded in any order of evaluation and results must be equal bit
for bit; in the second there are the formulas that the stabilizing rules look for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.errors import OutOfRangeError, ShapeError
from graphdrop.graph import Node, toposort
from graphdrop.op import constant_value
from graphdrop.ops.elementwise import exp, log, sigmoid, where
from graphdrop.ops.random import dropout
from graphdrop.ops.reduce import logsumexp
from graphdrop.ops.softmax import softmax
from graphdrop.replay import operand
from graphdrop.rewrite import optimize
from graphdrop.rules import EXACT, PHASES

SETTINGS = settings(
    derandomize=True, deadline=None, max_examples=120, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -4.0]


class Builder:
    """The values made so far, by kind, and the stream they draw from."""

    def __init__(self, size: int, seed: int) -> None:
        n = "n"
        self.stream = gd.RandomStream(seed)
        self.flag = gd.flag("flag")
        self.rate = gd.tensor("rate", "float64", ())
        x = gd.tensor("x", "float64", (n, 3))
        y = gd.tensor("y", "float64", (n, 3))
        v = gd.tensor("v", "float64", (3,))
        s = gd.tensor("s", "float64", ())
        w = gd.tensor("w", "float64", (3, 3))
        i = gd.tensor("i", "int32", (n, 3))
        b = gd.tensor("b", "bool", (n, 3))
        self.inputs = [x, y, v, s, w, i, b, self.flag, self.rate]
        self.leaves = [x, y, v, s, w]
        self.floats, self.integers, self.bools = list(self.leaves), [i], [b, self.flag]
        self.products = 0  # each makes numbers longer; the exact family has few
        self.size = size

    def arrays(self, seed: int, training: bool) -> list[Any]:
        rng = np.random.default_rng(seed)

        def floats(*shape: int) -> Any:
            return rng.integers(-3, 4, shape).astype("f8")

        n = self.size
        return [
            floats(n, 3), floats(n, 3), floats(3), floats(), floats(3, 3),
            rng.integers(-5, 6, (n, 3)).astype("i4"), rng.random((n, 3)) < 0.5, training, 0.5,
        ]  # fmt: skip

    def put(self, node: Node) -> None:
        kinds = {"f": self.floats, "b": self.bools}
        kinds.get(node.dtype.kind, self.integers).append(node)


Instruction = Callable[[Builder, Node, Node, int], "Node | None"]


def pick(values: list[Node], k: int) -> Node:
    # recent values more often, so that graphs are deep
    return values[-1 - (k * k // 16) % len(values)]


def multiplied(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    g.products += 1
    return a * b if g.products <= 4 else None


def product(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    g.products += 1
    w = g.leaves[4]
    return a @ w if a.ndim == 2 and g.products <= 4 else None


def through_integers(g: Builder, a: Node, b: Node, k: int) -> Node:
    i = pick(g.integers, k)
    made = [
        i + 0, i - i, i * 0, i + pick(g.integers, k + 1), -i, i | 0, i ^ i, i.astype("int64"),
        gd.maximum(i, i), i.sum(axis=0) if i.ndim else i, gd.square(-i), i.astype("float64"),
        i.astype("int64").astype("float64"), gd.abs(-i),
    ][k % 14]  # fmt: skip
    return gd.minimum(gd.maximum(made, -7), 7)


def through_bools(g: Builder, a: Node, b: Node, k: int) -> Node:
    p, q = pick(g.bools, k), pick(g.bools, k + 1)
    return [
        lambda: gd.less(a, a), lambda: gd.greater(a, 0), lambda: ~~p, lambda: p & True,
        lambda: gd.logical_not(gd.logical_not(p)), lambda: gd.logical_or(p, p), lambda: p ^ p,
        lambda: where(p, True, False), lambda: where(p, False, True),
        lambda: gd.logical_not(gd.equal(a, 1)), lambda: gd.logical_not(gd.less(a, 1)),
        lambda: p.any(axis=0) if p.ndim else p, lambda: where(p, p, q),
        lambda: gd.broadcast_to(q, p.shape) if not q.ndim else q,
        lambda: gd.logical_not(gd.less(g.integers[-1], 2)), lambda: gd.isnan(g.integers[-1]),
    ][k % 16]()  # fmt: skip


def dropped(g: Builder, a: Node, b: Node, k: int) -> Node:
    rate: Any = [0.5, g.rate, 0.0, 1.0, 0.75][k % 5]
    training: Any = [g.flag, True, g.flag, False][k % 4]
    axes = 0 if a.ndim and k % 7 == 0 else None
    ids = gd.abs(g.integers[0][:, 0]) if a.shape == g.integers[0].shape and k % 3 == 0 else None
    return gd.dropout(
        a, rate, g.stream, training, axes=None if ids is not None else axes, example=ids
    )


def drawn(g: Builder, a: Node, b: Node, k: int) -> Node:
    training = [True, g.flag, False][k % 3]
    return [
        lambda: g.stream.randint(a.shape, -3, 4, dtype=["int8", "int64"][k % 2], training=training),
        lambda: g.stream.bernoulli(a.shape, 0.5, training=training),
        lambda: gd.floor(g.stream.uniform(a.shape, dtype="float64", training=training) * 4),
        lambda: a + gd.floor(g.stream.uniform(a.shape, 0, 4, training=training)).astype("float64"),
    ][k % 4]()  # fmt: skip


def reshaped(g: Builder, a: Node, b: Node, k: int) -> Node:
    return [
        lambda: a.reshape(-1), lambda: a.reshape((1, *a.shape)).max(axis=0).max(axis=()),
        lambda: a.reshape((1, *a.shape)), lambda: a.T, lambda: a.T.T,
        lambda: a.reshape(a.shape), lambda: a.reshape((1, *a.shape)).reshape(a.shape),
        lambda: gd.broadcast_to(a, (2, *a.shape)).sum(axis=0),
        lambda: gd.broadcast_to(gd.broadcast_to(a, (1, *a.shape)), (2, *a.shape)).max(axis=0),
        lambda: gd.broadcast_to(a, a.shape), lambda: a.reshape((*a.shape, 1)).max(axis=-1),
        lambda: gd.broadcast_to(g.leaves[3], a.shape),
    ][k % 12]()  # fmt: skip


def reduced(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    if not a.ndim:
        return None
    axis, keepdims = [None, 0, -1, ()][k % 4], k % 3 == 0
    return [a.sum, a.max, a.min][k % 3](axis=axis, keepdims=keepdims)


def with_number(g: Builder, a: Node, b: Node, k: int) -> Node:
    c: Any = NUMBERS[k % len(NUMBERS)]
    if k % 5 == 0:
        c = np.full((3, 3), c)
    return [
        lambda: a + c, lambda: a - c, lambda: c - a, lambda: a * NUMBERS[k % 4],
        lambda: a * 0.5, lambda: a / 2, lambda: a / -1, lambda: gd.maximum(a, c),
    ][k % 8]()  # fmt: skip


EXACTLY: list[Instruction] = [
    lambda g, a, b, k: a + b,
    lambda g, a, b, k: a - b,
    lambda g, a, b, k: a + -b,
    lambda g, a, b, k: -a - -b,
    lambda g, a, b, k: gd.neg(-a),
    lambda g, a, b, k: gd.abs(-a),
    lambda g, a, b, k: gd.relu(gd.relu(a)),
    lambda g, a, b, k: gd.maximum(a, b) if k % 2 else gd.minimum(a, a),
    lambda g, a, b, k: where(pick(g.bools, k), a, b),
    lambda g, a, b, k: where(gd.logical_not(pick(g.bools, k)), a, where(pick(g.bools, k), b, a)),
    lambda g, a, b, k: gd.minimum(gd.maximum(a, -8), 8),
    lambda g, a, b, k: gd.stop_gradient(a) if k % 4 == 0 else gd.clip(a, -3, 3),
    lambda g, a, b, k: a.astype("float32").astype("float64") if k % 2 else gd.floor(gd.floor(a)),
    multiplied, product, through_integers, through_bools, dropped, reshaped, reduced, with_number,
    with_number, dropped, drawn,
]  # fmt: skip


def tame(a: Node) -> Node:
    return 3 * gd.tanh(a)


def rows(a: Node) -> Node | None:
    return tame(a) if a.ndim == 2 else None


def softmax_by_hand(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    z = rows(a)
    if z is None:
        return None
    z = z - z.max(axis=1, keepdims=True) if k % 2 else z
    weights = exp(z)
    return weights / weights.sum(axis=1, keepdims=True)


def log_of_softmax(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    z = rows(a)
    if z is None:
        return None
    p = softmax(z)
    chosen = [0, slice(1, 3), np.array([2, 0, 0])][k % 3]
    return log(p) * a if k % 2 else log(p[:, chosen])


def log_sum_exp(g: Builder, a: Node, b: Node, k: int) -> Node:
    z = tame(a)
    axis = None if k % 3 == 0 or not a.ndim else -1
    return log(exp(z).sum(axis=axis, keepdims=k % 2 == 0))


def cross_entropy(p: Node, target: Node) -> Node:
    return -(target * log(p) + (1 - target) * log(1 - p))


def shifted_log_sum_exp(g: Builder, a: Node, b: Node, k: int) -> Node | None:
    z = rows(a)
    if z is None:
        return None
    top = z.max(axis=1, keepdims=True)
    return logsumexp(z - top, axis=1, keepdims=True) + top + (z - logsumexp(z, 1, keepdims=True))


def written_out(g: Builder, a: Node, b: Node, k: int) -> Node:
    z, e = tame(a), exp(tame(a))
    return [
        lambda: 1 / (1 + e) * e, lambda: e / (1 + e), lambda: sigmoid(-z) * e,
        lambda: sigmoid(z) * exp(-z), lambda: log(1 - z / 4), lambda: gd.sqrt(gd.square(e)),
        lambda: gd.pow(e, 0.5), lambda: gd.pow(e, -0.5), lambda: gd.pow(a, 0),
        lambda: b / -(1 + e), lambda: b * e / e, lambda: a.max() + a.min(axis=()),
    ][k % 12]()  # fmt: skip


ROUGHLY: list[Instruction] = [
    lambda g, a, b, k: tame(a) * b,
    lambda g, a, b, k: a + b,
    lambda g, a, b, k: -a - -b,
    lambda g, a, b, k: a / (2 + gd.square(b)),
    lambda g, a, b, k: log(exp(tame(a))),
    lambda g, a, b, k: log(1 + exp(tame(a))),
    lambda g, a, b, k: 1 / (1 + exp(-tame(a))),
    lambda g, a, b, k: log(sigmoid(tame(a))) * sigmoid(b),
    lambda g, a, b, k: log(1 - sigmoid(tame(a))),
    lambda g, a, b, k: exp(tame(a)) - 1,
    lambda g, a, b, k: 1 - exp(tame(a)),
    lambda g, a, b, k: log(1 + gd.square(a)),
    lambda g, a, b, k: gd.pow(gd.square(tame(a)) + 1, [2, 0.5, -1, -0.5][k % 4]),
    lambda g, a, b, k: 1 / gd.sqrt(1 + gd.square(a)),
    lambda g, a, b, k: a * 3 * -1 if k % 2 else a / 8 + 0,
    lambda g, a, b, k: gd.broadcast_to(a, (2, *a.shape)).sum(axis=0),
    lambda g, a, b, k: tame(a).mean(axis=0) if a.ndim else a,
    lambda g, a, b, k: a @ g.leaves[4] / 3 if a.ndim == 2 else None,
    lambda g, a, b, k: where(pick(g.bools, k), a, b),
    lambda g, a, b, k: cross_entropy(sigmoid(tame(a)), sigmoid(b)),
    softmax_by_hand, log_of_softmax, log_sum_exp, dropped, written_out, written_out,
    shifted_log_sum_exp,
]  # fmt: skip

step = st.tuples(st.integers(0, 1000), *[st.integers(0, 300)] * 3)
programs = st.lists(step, min_size=8, max_size=60)


def build(program: list[tuple[int, int, int, int]], table: list[Instruction], size: int) -> Builder:
    g = Builder(size, seed=11)
    for code, a, b, k in program:
        try:
            made = table[code % len(table)](g, pick(g.floats, a), pick(g.floats, b), k)
        except (ShapeError, OutOfRangeError):
            continue  # operands that do not fit: another program
        # sizes that might be equal, as n and 3, are not when the function is called
        if made is not None and made.ndim <= 3 and not any(n.checks for n in toposort([made])):
            g.put(made)
    return g


def outputs_of(g: Builder) -> list[Node]:
    """The last values, and gradients by all inputs of a sum of all that nothing else uses."""
    kept = [*g.floats[-4:], g.integers[-1], g.bools[-1]]
    loss = sum((node.sum() for node in g.floats[-4:]), start=g.floats[-1].sum())
    return [*kept, loss, *gd.grad(loss, g.leaves, disconnected="zero")]


def compiled(g: Builder, nodes: list[Node], optimized: bool) -> gd.Function:
    return gd.function(
        g.inputs, nodes, optimize=optimized, backend="numpy", on_unused_input="ignore"
    )


def results(f: gd.Function, g: Builder, training: bool) -> list[Any]:
    with g.stream.at(5):
        found: list[Any] = f(*g.arrays(3, training))
    return found


def drawing_calls(f: gd.Function, g: Builder) -> list[int]:
    """How many calls the stream counts when the function is called with its flag on and off."""
    counts = []
    for training in (True, False):
        before = g.stream.calls
        f(*g.arrays(3, training))
        counts.append(g.stream.calls - before)
    return counts


def assert_same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        finite = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[finite]), np.signbit(expected[finite]))


@SETTINGS
@given(programs, st.sampled_from([1, 4]))
def test_exact_rules_keep_every_bit(program: Any, size: int) -> None:
    g = build(program, EXACTLY, size)
    nodes = outputs_of(g)
    rewritten, _ = optimize(nodes, {"exact": EXACT})
    plain, exact = compiled(g, nodes, False), compiled(g, rewritten, False)
    for training in (True, False):
        expected = results(plain, g, training)
        for found, value in zip(results(exact, g, training), expected, strict=True):
            assert_same(found, value)


@SETTINGS
@given(programs, st.sampled_from([1, 4]))
def test_all_rules_keep_values_gradients_masks_and_call_numbers(program: Any, size: int) -> None:
    g = build(program, ROUGHLY, size)
    nodes = outputs_of(g)
    plain, rewritten = compiled(g, nodes, False), compiled(g, nodes, True)
    for training in (True, False):
        expected = results(plain, g, training)
        scale = max(float(np.abs(v).max(initial=0)) for v in expected)
        assert np.isfinite(scale), "the test's formulas must not overflow"
        for found, value in zip(results(rewritten, g, training), expected, strict=True):
            assert found.dtype == value.dtype
            assert found.shape == value.shape
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12 * scale)
    assert drawing_calls(plain, g) == drawing_calls(rewritten, g)
    for node in (draw.node for draw in plain.draws if draw.node.op is dropout):
        site = node.params["site"]
        given: dict[str, Any] = {}
        if constant_value(operand(node, "threshold")) is None:
            given["rate"] = 0.5
        if operand(node, "example").ndim:
            given["example"] = np.arange(size)
        masks = [f.mask(site, 5, **given) for f in (plain, rewritten)]
        np.testing.assert_array_equal(*masks)


@SETTINGS
@given(programs)
def test_rewriting_ends_where_nothing_more_is_to_do(program: Any) -> None:
    g = build(program, EXACTLY + ROUGHLY, 4)
    once, first = optimize(outputs_of(g), PHASES)
    again, second = optimize(once, PHASES)
    assert again == once
    assert not second, str(second)
    for record in first:
        assert record.before.type == record.after.type


@SETTINGS
@given(programs)
def test_draws_are_neither_added_nor_changed(program: Any) -> None:
    g = build(program, EXACTLY, 4)
    nodes = outputs_of(g)

    def sites(outputs: list[Node]) -> set[tuple[Any, ...]]:
        drawn = [n for n in toposort(outputs) if "key" in n.op.operand_names]
        return {(n.op, n.params["site"], n.params.get("shared"), n.inputs[-2]) for n in drawn}

    assert sites(optimize(nodes, PHASES)[0]) <= sites(nodes)


def test_most_rules_fire_somewhere() -> None:
    """The random graphs are worth something only if they meet the rules."""
    rng = np.random.default_rng(1)
    fired: set[str] = set()
    for _ in range(60):
        program = [tuple(int(v) for v in rng.integers(0, 300, 4)) for _ in range(40)]
        for table in (EXACTLY, ROUGHLY):
            g = build(program, table, 4)
            fired |= {record.rule for record in optimize(outputs_of(g), PHASES)[1]}
    every = {r.name for rules in PHASES.values() for r in rules}
    assert len(fired) > 0.75 * len(every), sorted(every - fired)


@pytest.mark.parametrize("training", [True, False])
def test_functions_agree_through_the_public_face(training: bool) -> None:
    rng = np.random.default_rng(2)
    program = [tuple(int(v) for v in rng.integers(0, 300, 4)) for _ in range(80)]
    g = build(program, EXACTLY, 4)
    nodes = outputs_of(g)
    found = results(compiled(g, nodes, True), g, training)
    for a, b in zip(found, results(compiled(g, nodes, False), g, training), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
