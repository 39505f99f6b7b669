"""The engine of rewrites: how patterns match, which rule wins, and what a wrong rule is told."""

from __future__ import annotations

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import RewriteError
from graphdrop.graph import Node, toposort
from graphdrop.op import constant
from graphdrop.ops import elementwise as e
from graphdrop.ops.elementwise import exp, log
from graphdrop.ops.reduce import sum
from graphdrop.pattern import any_op, number, var
from graphdrop.rewrite import Rule, optimize, rule, scalar_of
from graphdrop.rules import optimize as optimize_all
from tests.rewrite_rows.symbols import (
    b,
    f,
    i,
    row,
    x,
    y,
    z,
)

a, d, n = var("a"), var("d"), number("n")


def only(*rules: Rule) -> dict[str, tuple[Rule, ...]]:
    return {"test": rules}


def test_commutative_operands_match_in_every_order_at_every_level() -> None:
    @rule(log(1 + exp(a) * d))
    def nested(a: Node, d: Node) -> Node:
        return a - d

    orders = [
        log(1 + exp(x) * y), log(1 + y * exp(x)), log(exp(x) * y + 1), log(y * exp(x) + 1),
    ]  # fmt: skip
    found, trace = optimize(orders, only(nested))
    assert found == [x - y] * 4
    assert len(trace) == 4


def test_operands_that_do_not_commute_keep_their_places() -> None:
    @rule(exp(a) - d)
    def difference(a: Node, d: Node) -> Node:
        return a + d

    assert optimize([y - exp(x)], only(difference))[0] == [y - exp(x)]


def test_a_repeated_variable_is_one_node() -> None:
    @rule(a * d + a)
    def factored(a: Node, d: Node) -> Node:
        return a * (d + 1)

    inputs = [x * y + x, y * x + x, x + y * x, x * y + z]
    found, _ = optimize(inputs, only(factored))
    assert found == [x * (y + 1), x * (y + 1), x * (y + 1), x * y + z]


def test_parameters_match_by_value_or_are_taken() -> None:
    @rule(sum(a, axis=(1,)))
    def fixed(a: Node) -> Node:
        return a.max(axis=1)

    @rule(gd.transpose(gd.transpose(a, axes=d), axes=d))
    def twice(a: Node) -> Node:
        return gd.stop_gradient(a)

    assert optimize([x.sum(axis=1), x.sum(axis=0)], only(fixed))[0] == [
        x.max(axis=1), x.sum(axis=0),
    ]  # fmt: skip
    cube = gd.tensor("cube", "float64", (2, 2, 2))
    swapped = gd.transpose(cube, (1, 0, 2))
    turned = gd.transpose(gd.transpose(cube, (1, 0, 2)), (2, 1, 0))
    assert optimize([gd.transpose(swapped, (1, 0, 2)), turned], only(twice))[0] == [
        gd.stop_gradient(cube), turned,
    ]  # fmt: skip


def test_numbers_stand_for_uniform_constants_of_any_dtype_and_shape() -> None:
    @rule(a * n)
    def scaled(node: Node, n: Node) -> Node:
        value = scalar_of(n)
        assert value is not None
        return node.op(node.inputs[0], 0) if value == 5 else node

    for five in (5, np.full((3, 4), 5.0), gd.broadcast_to(constant(np.float64(5)), (3, 4))):
        (found,), _ = optimize([x * five], only(scaled))
        assert found is x * 0
    assert optimize([x * y], only(scaled))[0] == [x * y]


def test_zero_minus_zero_true_and_one_are_four_literals() -> None:
    @rule(a + 0, a + True)
    def dropped(a: Node) -> Node:
        return a

    kept = [x + -0.0, i + 1, x + 1, e.add(b, False)]
    assert optimize(kept, only(dropped))[0] == kept
    assert optimize([x + 0.0, i + 0, e.add(b, True)], only(dropped))[0] == [x, i, b]


def test_a_pattern_can_stand_for_any_operation() -> None:
    @rule(any_op("f(x)", lambda op, heads: op is e.exp))
    def renamed(node: Node) -> Node:
        return gd.sin(node.inputs[0])

    assert optimize([exp(x) + 1], only(renamed))[0] == [gd.sin(x) + 1]


def test_a_variable_can_have_a_condition() -> None:
    @rule(exp(var("a", lambda node: node.op is e.neg)))
    def inverted(a: Node) -> Node:
        return 1 / exp(a.inputs[0])

    assert optimize([exp(-x), exp(x)], only(inverted))[0] == [1 / exp(x), exp(x)]


def test_what_a_rule_returns_is_rewritten_too() -> None:
    @rule(gd.sin(a))
    def first(a: Node) -> Node:
        return gd.tanh(gd.cos(a))

    @rule(gd.tanh(gd.cos(a)))
    def second(a: Node) -> Node:
        return gd.square(gd.cos(a))

    @rule(gd.cos(a))
    def third(a: Node) -> Node:
        return gd.sqrt(a)

    # inside out: the cosine goes before the pattern of `second` is tried
    found, trace = optimize([gd.sin(x)], only(first, second, third))
    assert found == [gd.tanh(gd.sqrt(x))]
    assert [record.rule for record in trace] == ["first", "third"]


def test_the_first_rule_that_fires_wins() -> None:
    @rule(gd.sin(a))
    def first(a: Node) -> Node:
        return gd.cos(a)

    @rule(gd.sin(a))
    def second(a: Node) -> Node:
        return gd.tan(a)

    assert optimize([gd.sin(x)], only(first, second))[0] == [gd.cos(x)]
    assert optimize([gd.sin(x)], only(second, first))[0] == [gd.tan(x)]


@pytest.mark.parametrize("wrong", [f, row, x.T], ids=["dtype", "rank", "shape"])
def test_a_replacement_of_another_type_is_the_rules_mistake(wrong: Node) -> None:
    @rule(gd.sin(a))
    def careless(a: Node) -> Node:
        return wrong

    with pytest.raises(RewriteError, match=r"careless.*float64\[3, 4\]"):
        optimize([gd.sin(x)], only(careless))


def test_rules_that_undo_each_other_are_found() -> None:
    @rule(gd.sin(a))
    def there(a: Node) -> Node:
        return gd.cos(a)

    @rule(gd.cos(a))
    def back(a: Node) -> Node:
        return gd.sin(a)

    with pytest.raises(RewriteError, match=r"does not end.*there, back"):
        optimize([gd.sin(x)], only(there, back))


def test_a_rule_that_grows_for_ever_is_stopped() -> None:
    @rule(gd.sin(a))
    def growing(a: Node) -> Node:
        return gd.sin(a + 1)

    with pytest.raises(RewriteError, match=r"does not end.*growing"):
        optimize([gd.sin(x)], only(growing))


def test_a_rule_that_wraps_what_it_replaces_is_stopped() -> None:
    @rule(gd.sin(a))
    def wrapping(node: Node) -> Node:
        return gd.cos(node)

    with pytest.raises(RewriteError, match=r"does not end.*wrapping"):
        optimize([gd.sin(x)], only(wrapping))


def test_a_rule_may_return_none_or_the_node_itself() -> None:
    @rule(gd.sin(a))
    def neither(node: Node, a: Node) -> Node | None:
        return None if a is x else node

    found, trace = optimize([gd.sin(x), gd.sin(y)], only(neither))
    assert found == [gd.sin(x), gd.sin(y)]
    assert not trace


def test_patterns_print_and_have_no_truth_value() -> None:
    assert str(log(1 + exp(a))) == "log(add(1, exp(a)))"
    with pytest.raises(TypeError, match="no truth value"):
        bool(exp(a))


def test_long_chains() -> None:
    v = gd.tensor("v", "float64", (2,))
    node = gd.neg(-v)
    for _ in range(100_000):
        node = gd.tanh(node)
    (found,), trace = optimize_all([node])
    assert [record.rule for record in trace] == ["double_negation"]
    assert len(toposort([found])) == 100_001
