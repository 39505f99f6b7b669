"""Every rewrite of loops by name: what it makes of a scan, and that no result or mask changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.graph import Node, toposort
from graphdrop.scan import scan_op

Array = np.ndarray[Any, Any]


def compiled(
    inputs: list[Node], outputs: Any, fired: str | None, never: str | None = None
) -> tuple[Any, list[Node]]:
    """The optimized function, after its results were compared; and its scans."""
    f = gd.function(inputs, outputs)
    rules = [record.rule for record in f.trace]
    assert fired is None or fired in rules, f"{fired} did not fire:\n{f.trace}"
    assert never is None or never not in rules, f"{never} fired:\n{f.trace}"
    return f, [n for n in toposort(f.graph.outputs) if n.op is scan_op]


def agree(
    inputs: list[Node], outputs: Any, arrays: list[Array], streams: list[Any], tol: float = 1e-12
) -> None:
    """Optimized and as built: values to rounding, call numbers equal."""
    found = []
    for optimize in (True, False):
        f = gd.function(inputs, outputs, optimize=optimize)
        calls = [s.calls for s in streams]
        results = gd.tree.flatten(f(*arrays))[0]
        drew = [s.calls - c for s, c in zip(streams, calls, strict=True)]
        for s, c in zip(streams, calls, strict=True):  # the second draws what the first did
            s.load_state_dict({**s.state_dict(), "calls": c})
        found.append((results, drew))
    (a, drew), (b, also) = found
    assert drew == also
    for one, two in zip(a, b, strict=True):
        assert one.shape == two.shape
        scale = 1 + np.abs(two).max(initial=0)
        np.testing.assert_allclose(one, two, rtol=0, atol=tol * scale)


def body_ops(scan: Node) -> list[str]:
    return [n.op.name for n in toposort(scan.params["body"].outputs)]


x = gd.dtensor3("x", shape=("time", "batch", 4))
h0 = gd.dmatrix("h", shape=("batch", 4))
RNG = np.random.default_rng(0)
W = gd.shared(RNG.normal(size=(4, 4)) * 0.5, "W")
U = gd.shared(RNG.normal(size=(4, 4)) * 0.5, "U")


def arrays(time: int = 5, batch: int = 3) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(time, batch, 4)), rng.normal(size=(batch, 4))]


def test_product_before_the_loop() -> None:
    """x_t @ U + b of the whole sequence at once, elementwise functions around it included."""
    b = gd.shared(RNG.normal(size=4), "b")

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        h = gd.tanh(h @ W + (gd.sin(row) @ U + b) * 2)
        return h, h

    h, o = gd.scan(step, x, h0)
    f, (scan,) = compiled([x, h0], [h, o], "product_before_loop")
    assert body_ops(scan).count("matmul") == 1
    assert not {"sin", "mul"} & set(body_ops(scan))
    for time, batch in ((5, 3), (1, 1), (0, 2)):
        agree([x, h0], [h, o, gd.grad((o * o).sum(), [x, U, b, W])], arrays(time, batch), [])
    assert f(*arrays())[1].shape == (5, 3, 4)


def test_product_of_vectors_before_the_loop() -> None:
    rows, start = gd.dmatrix("rows", shape=("time", 4)), gd.dvector("start", shape=(4,))
    h, o = gd.scan(lambda h, r: ((n := gd.tanh(h @ W + r @ U)), n), rows, start)
    _, (scan,) = compiled([rows, start], [h, o], "product_before_loop")
    assert body_ops(scan).count("matmul") == 1
    agree([rows, start], [h, o], [RNG.normal(size=(6, 4)), RNG.normal(size=4)], [])


def test_a_drawn_product_stays_in_the_loop() -> None:
    stream = gd.RandomStream(3)

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        h = h + gd.dropout(row, 0.5, stream) @ U
        return h, h

    _, o = gd.scan(step, x, h0)
    compiled([x, h0], o, None, never="product_before_loop")
    agree([x, h0], [o, gd.grad(o.sum(), [U, x])], arrays(), [stream])


def test_products_and_sums_after_the_loop() -> None:
    """The gradients of weights and biases leave the loop."""
    b = gd.shared(RNG.normal(size=4), "b")

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        h = gd.tanh(h @ W + row + b)
        return h, h

    h, o = gd.scan(step, x, h0)
    grads = gd.grad((o * o).sum() + h.sum(), [W, b])
    f, scans = compiled([x, h0], grads, "product_after_loop")
    assert "sum_after_loop" in [record.rule for record in f.trace]
    (backward,) = [s for s in scans if s.params["reverse"]]
    shapes = [t.shape for t in backward.type.items]
    assert (4, 4) not in shapes, "the gradient of W is still summed in the loop"
    assert (4,) not in shapes
    for time, batch in ((5, 3), (1, 1), (0, 2)):
        agree([x, h0], grads, arrays(time, batch), [])


def test_checkpointed_sums_stay_where_memory_is_saved() -> None:
    h, _ = gd.scan(lambda h, r: (gd.tanh(h @ W + r), None), x, h0, checkpoint=3)
    grad = gd.grad(h.sum(), W)
    f = gd.function([x, h0], grad)
    outer = [n for n in toposort(f.graph.outputs) if n.op is scan_op and n.params["reverse"]]
    assert any((4, 4) in [t.shape for t in s.type.items] for s in outer)
    agree([x, h0], grad, arrays(8), [])


def gradient_loops(f: Any) -> list[Node]:
    return [n for n in toposort(f.graph.outputs) if n.op is scan_op and n.params["reverse"]]


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_products_and_functions_are_kept_for_the_gradient(backend: str) -> None:
    """Neither is in the gradient's loop or before it again; the mask is drawn again."""
    stream = gd.RandomStream(2)

    def step(h: Node, r: Node) -> tuple[Node, Node]:
        h = gd.dropout(gd.tanh(h @ W + r), 0.5, stream)
        return h, gd.sigmoid(h)

    h, o = gd.scan(step, x, h0)
    loss = (h**2).sum() + o.sum()
    grads = gd.grad(loss, [W, x, h0])
    f, _ = compiled([x, h0], [loss, *grads], "kept_for_gradient")
    (loop,) = gradient_loops(f)
    assert "dropout" in body_ops(loop)
    assert {"tanh", "sigmoid"}.isdisjoint(body_ops(loop))
    assert [n.op.name for n in toposort(f.graph.outputs)].count("tanh") == 0
    second = gd.grad((grads[0] ** 2).sum(), [W, h0])
    outputs = [loss, *grads, *second]
    found = []
    for name, optimize in ((backend, True), ("numpy", False)):
        g = gd.function([x, h0], outputs, backend=name, optimize=optimize)
        with stream.at(call=0):
            found.append([g(*arrays(*size)) for size in ((5, 3), (1, 1), (0, 2))])
    for one, two in zip(*found, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_much_is_not_kept() -> None:
    """A long step is computed again: what it would keep is many times its state."""

    def step(h: Node, r: Node) -> tuple[Node, None]:
        for i in range(40):
            h = gd.tanh(h + 0.1 * i * r)
        return h, None

    h, _ = gd.scan(step, x, h0)
    grad = gd.grad(h.sum(), x)
    compiled([x, h0], grad, None, never="kept_for_gradient")
    agree([x, h0], grad, arrays(), [])


def test_a_loop_that_stands_on_the_other_gives_it_nothing() -> None:
    """What is noise and a constant is little for the gradient's loop and much for the first."""
    stream = gd.RandomStream(4)
    h = gd.map(lambda r: gd.tanh(h0[0] + 0.1 * stream.normal((4,), dtype="float64")), x)
    grad = gd.grad(gd.square(h.sum(axis=0)).sum(), h0)
    compiled([x, h0], grad, None, never="kept_for_gradient")
    agree([x, h0], [grad, h], arrays(), [stream])


def test_blocks_of_a_checkpointed_loop_keep_for_themselves() -> None:
    h, _ = gd.scan(lambda h, r: (gd.tanh(h @ W + r), None), x, h0, checkpoint=3)
    grad = gd.grad(h.sum(), W)
    _, scans = compiled([x, h0], grad, "kept_for_gradient")
    # of whole blocks nothing but the states before them is stacked
    blocks = x.shape[0] // 3
    over_blocks = [s for s in scans if not s.params["reverse"] and s.params["length"] == blocks]
    (loop,) = over_blocks
    assert [t.shape[0] for t in loop.type.items].count(blocks) == 1
    agree([x, h0], grad, arrays(8), [])


@pytest.mark.parametrize(
    "step",
    [
        lambda x, w, i: gd.tanh(x[: i + 1] @ w).sum(),
        lambda x, w, i: (gd.softmax(x[: i + 1] @ w @ x[i]) @ x[: i + 1]).sum(),
        lambda x, w, i: gd.logsumexp(x[x[:, 0] > x[i, 0] - 1] @ w),
        lambda x, w, i: (gd.concatenate([x[:i], x[i:] * 2]) @ w).max(),
    ],
)
def test_sums_of_rows_whose_number_changes_stay_in_the_loop(step: Any) -> None:
    x, w = gd.dmatrix("x", shape=("t", 3)), gd.dmatrix("w", shape=(3, 3))
    total = gd.map(lambda i: step(x, w, i), gd.arange(x.shape[0])).sum()
    slopes = gd.grad(total, [x, w], disconnected="zero")
    rng = np.random.default_rng(0)
    given = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    right = gd.function([x, w], slopes, backend="numpy", optimize=False)(*given)
    for backend in ("numpy", "llvm"):
        for a, b in zip(gd.function([x, w], slopes, backend=backend)(*given), right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_sums_that_are_read_stay() -> None:
    total, o = gd.scan(lambda s, r: ((n := s + r.T @ r), n * 2), x, gd.zeros((4, 4), "float64"))
    compiled([x], [total, o], None, never="product_after_loop")
    only, _ = gd.scan(lambda s, r: (s + r.T @ r, None), x, gd.zeros((4, 4), "float64"))
    _, scans = compiled([x], only, "product_after_loop")
    assert not scans, "nothing is left to loop over"
    agree([x], [total, o, only], arrays()[:1], [])


def test_what_is_the_same_in_every_step_is_computed_before() -> None:
    """Also what only rewriting makes so: log(exp(h)) * 0 hides that a product is."""

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        same = gd.exp(W + gd.where(gd.constant(True), U, h[0, 0]))
        return h * 0.5 + row @ same, None

    h, _ = gd.scan(step, x, h0)
    _, (scan,) = compiled([x, h0], h, "same_in_every_step")
    assert "exp" not in body_ops(scan)
    agree([x, h0], h, arrays(), [])


def test_copies() -> None:
    """Carries that stay, sequences given twice, outs that are equal or the same in all steps."""

    def step(state: Any, rows: Any) -> tuple[Any, Any]:
        h, still = state
        a, b = rows
        h = h + a * b + still
        return (h, still), (h, h, W, still)

    (h, still), outs = gd.scan(step, (x, x), (h0, h0 * 2))
    f, (scan,) = compiled([x, h0], [h, still, *outs], "copies_in_scan")
    assert (scan.params["carries"], scan.params["sequences"]) == (1, 1)
    assert len(scan.type.items) == 2
    for time in (5, 1, 0):
        agree([x, h0], [h, still, *outs], arrays(time), [])
    assert f(*arrays(2))[4].shape == (2, 4, 4)


@pytest.mark.parametrize(("length", "rule"), [(0, "no_steps"), (1, "one_step")])
def test_short_loops_are_none(length: int, rule: str) -> None:
    """A draw of the one step is still that of step 1."""
    stream = gd.RandomStream(3)
    rows = gd.dtensor3("x", shape=(length, "batch", 4))

    def step(h: Node, row: Node) -> tuple[Node, Node]:
        h = gd.dropout(gd.tanh(h @ W + row), 0.5, stream, name="h")
        return h, h * 2

    h, o = gd.scan(step, rows, h0)
    f, scans = compiled([rows, h0], [h, o], rule)
    assert not scans
    agree([rows, h0], [h, o, gd.grad(h.sum() + o.sum(), [W, h0])], arrays(length), [stream])
    f(*arrays(length))
    assert f.mask("h", call=stream.calls - 1, batch=3).shape == (length, 3, 4)


def test_independent_loops_are_one() -> None:
    one, two = gd.RandomStream(3), gd.RandomStream(4)

    def step(stream: Any) -> Any:
        def make(h: Node, row: Node) -> tuple[Node, Node]:
            h = gd.dropout(gd.tanh(h @ W + row), 0.5, stream, name="h")
            return h, h

        return make

    h, a = gd.scan(step(one), x, h0)
    g, b = gd.scan(step(two), x * 2, h0 + 1)
    _, back = gd.scan(step(gd.RandomStream(5)), x, h0, reverse=True)
    f, scans = compiled([x, h0], [h, a, g, b, back], "merged_scans")
    assert [s.params["reverse"] for s in scans].count(False) == 1
    assert len(scans) == 2
    agree([x, h0], [h, a, g, b, gd.grad(a.sum() + (b * b).sum(), W)], arrays(), [one, two])
    assert f(*arrays())[3].shape == (5, 3, 4)


def test_a_loop_that_needs_another_is_not_merged() -> None:
    _, a = gd.scan(lambda h, r: ((n := gd.tanh(h + r)), n), x, h0)
    _, b = gd.scan(lambda h, r: ((n := gd.tanh(h * r)), n), a, h0)
    _, scans = compiled([x, h0], b, None, never="merged_scans")
    assert len(scans) == 2
    agree([x, h0], [b, gd.grad(b.sum(), [x, h0])], arrays(), [])


# random loops -----------------------------------------------------------------------------------
UNARY = (gd.tanh, gd.sin, gd.square, lambda v: v * 0.5, lambda v: v @ W, lambda v: v @ U)
BINARY = (gd.add, gd.sub, gd.mul, gd.maximum)


@st.composite
def programs(draw: Any) -> list[tuple[int, int, int]]:
    """Operations on what there is: (which, operand, operand)."""
    count = draw(st.integers(2, 8))
    return [
        (draw(st.integers(0, 11)), draw(st.integers(0, 40)), draw(st.integers(0, 40)))
        for _ in range(count)
    ]


def build(program: list[tuple[int, int, int]], values: list[Node], stream: Any) -> list[Node]:
    for which, i, j in program:
        a, b = values[i % len(values)], values[j % len(values)]
        if which < len(UNARY):
            new = UNARY[which](a)
        elif which < len(UNARY) + len(BINARY):
            new = BINARY[which - len(UNARY)](a, b)
        else:
            new = gd.dropout(a, 0.25, stream)
        values = [*values, new]
    return values


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    programs(), programs(), st.integers(0, 5), st.booleans(), st.sampled_from([None, 2]),
    st.integers(0, 3),
)  # fmt: skip
def test_random_loops(
    first: Any, second: Any, time: int, reverse: bool, checkpoint: int | None, carried: int
) -> None:
    """Two loops, one over what the other gives; values and gradients with and without rewriting."""
    stream = gd.RandomStream(8)
    captured = h0 * 0.5 + 0.1

    def step(program: Any) -> Any:
        def make(state: Any, row: Node) -> Any:
            values = build(program, [row, *state, captured], stream)
            new = gd.tanh(values[-1])
            kept = [new, state[1] if carried == 0 else gd.tanh(values[-2] + state[1])]
            outs = [values[-1], values[len(values) // 2], new]
            return tuple(kept), outs[carried % 3 :]

        return make

    (h, g), outs = gd.scan(step(first), x, (h0, h0 * 2), reverse=reverse, checkpoint=checkpoint)
    (last, _), more = gd.scan(step(second), gd.tanh(outs[0]), (g, captured))
    loss = gd.tanh(last).sum() + sum(gd.tanh(o).sum() for o in (*outs, *more)) + h.sum()
    grads = gd.grad(loss, [x, h0, W, U], disconnected="zero")
    agree([x, h0], [last, h, *outs, *more, *grads], arrays(time, 2), [stream], tol=1e-9)
