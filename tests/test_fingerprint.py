"""Names of graphs: equal for graphs built alike, different for all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.fingerprint import fingerprint
from graphdrop.graph import Node
from graphdrop.op import OPS, op
from graphdrop.types import TensorType


def name(make: Callable[..., Any], *leaves: Node, more: tuple[Any, ...] = ()) -> str | None:
    return fingerprint(leaves, [make(*leaves)], *more)


def twice_dropped(first: gd.RandomStream, second: gd.RandomStream, label: str) -> Any:
    def make(x: Node, *keys: Node) -> Node:
        return gd.dropout(gd.dropout(x, 0.5, first, name=label), 0.5, second, name=label)

    return make


def folded(how: Callable[[Node, Node], Node], **kwargs: Any) -> Callable[[Node], Node]:
    return lambda x: gd.scan(lambda h, r: (how(h, r), h), x, x[0], **kwargs)[1]


def test_what_differs_has_another_name() -> None:
    x, y, n = gd.matrix("x", shape=(3, 4)), gd.matrix("y", shape=(3, 4)), gd.matrix("n")
    z, m = gd.dmatrix("x", shape=(3, 4)), gd.matrix("m", shape=("a", "a"))
    s, t = gd.RandomStream(1), gd.RandomStream(1)
    made = [
        name(lambda x, y: x - y, x, y), name(lambda x, y: y - x, x, y), name(lambda x: x + 1, x),
        name(lambda x: x + 2, x), name(lambda x: x + np.float64(1), x), name(lambda x: x * 0.0, x),
        name(lambda x: x * -0.0, x), name(lambda x: x.sum(), x), name(lambda x: x.sum(axis=0), x),
        name(lambda x: x.sum(axis=1), x), name(lambda x: x.sum(axis=1, keepdims=True), x),
        name(lambda x: x.sum(axis=1), n), name(lambda x: x.sum(axis=1), z),
        name(lambda x: x.sum(axis=1), m),
        name(lambda x: x.reshape((4, 3)), x), name(lambda x: x.reshape((2, 6)), x),
        name(lambda x, k: gd.dropout(x, 0.5, s, name="a"), x, s.key),
        name(lambda x, k: gd.dropout(x, 0.5, s, name="b"), x, s.key),
        name(lambda x, k: gd.dropout(x, 0.25, s, name="c"), x, s.key),
        name(lambda x, k: gd.dropout(x, 0.5, s, name="d", axes=0), x, s.key),
        name(twice_dropped(s, t, "e"), x, s.key, t.key),
        name(twice_dropped(s, t, "f"), x, t.key, s.key),
        name(folded(lambda h, r: h + r), x), name(folded(lambda h, r: h - r), x),
        name(folded(lambda h, r: h + r, reverse=True), x),
        name(lambda n: n.reshape((n.shape[0] * n.shape[1],)), n),
        name(lambda n: n.reshape((n.shape[1], n.shape[0])), n),
        name(lambda n: n[: n.shape[0] // 2], n), name(lambda n: n[: n.shape[1] // 2], n),
        name(lambda x: x, x), name(lambda x: x, x, more=(True,)), name(lambda x: x, x, more=(0,)),
    ]  # fmt: skip
    assert None not in made
    assert len(set(made)) == len(made)


def test_what_is_built_alike_has_one_name() -> None:
    """Names of inputs, lines, what was built before, and seeds do not matter."""
    found = set()
    for label in ("a", "b"):
        x, w = gd.matrix(label), gd.shared(np.ones(3, "f"), label)
        stream = gd.RandomStream(len(found))
        y = gd.dropout(x * w, 0.5, stream)
        loss = gd.scan(lambda h, r: (gd.tanh(h * r), h), y, w)[0].sum()
        leaves = [x, w, stream.key]
        found.add(fingerprint(leaves, [loss, *gd.grad(loss, [x, w])]))
    assert len(found) == 1
    assert None not in found


def test_operations_of_the_users_own_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphdrop.op.OPS", dict(OPS))

    def twice(x: TensorType) -> TensorType:
        return x

    x = gd.vector("x")
    assert fingerprint([x], [op(twice)(x) + 1]) is None
    assert fingerprint([], [x + 1]) is None  # a leaf that is no input
    assert fingerprint([x], [x + 1]) is not None
