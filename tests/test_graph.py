"""Nodes: interned, immutable, symbolic; graphs of any depth; the same graph in every process."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import graph
from graphdrop.errors import ArgumentError, DTypeError, GraphError
from graphdrop.graph import leaves, toposort, users
from graphdrop.op import OPS, Op, constant_value
from graphdrop.substitute import substitute
from graphdrop.types import TensorType


# ---- interning
def test_nodes_built_the_same_way_are_one() -> None:
    x, y = gd.matrix("x"), gd.matrix("y")
    assert x + y is x + y
    assert gd.sum(x, axis=0) is gd.sum(x, axis=(-2,))
    assert x + y is not y + x
    assert gd.sum(x, axis=0) is not gd.sum(x, axis=1)


def test_inputs_and_shared_values_are_never_merged() -> None:
    assert gd.scalar("x") is not gd.scalar("x")
    assert gd.shared(1.0) is not gd.shared(1.0)


def test_equality_is_identity() -> None:
    x, y = gd.vector("x"), gd.vector("y")
    assert (x == y) is False
    assert (x != y) is True
    assert x in [y, x]
    assert x not in [y]
    assert len({x, y, x}) == 2


DIFFERENT = [
    1, True, 1.0, -0.0, 0.0, 0, False, np.float64(1), np.float16(1), np.int32(1), np.uint8(1),
    [1], [[1]], [1, 1], np.nan, np.inf, np.float64(np.nan),
]  # fmt: skip


def test_constants_differ_by_dtype_shape_and_bytes() -> None:
    nodes = [gd.constant(v) for v in DIFFERENT]
    assert len(set(nodes)) == len(DIFFERENT)
    again = [gd.constant(v) for v in DIFFERENT]
    assert all(a is b for a, b in zip(nodes, again, strict=True)), "and are merged otherwise"


def test_constants_have_numpys_dtypes_but_weak_floats() -> None:
    assert gd.constant(1.5).dtype == np.float32
    assert gd.constant([1.5, 2]).dtype == np.float32
    assert gd.constant(np.float64(1.5)).dtype == np.float64
    assert gd.constant(np.arange(3.0)).dtype == np.float64
    assert gd.constant(1).dtype == np.int64
    assert gd.constant(True).dtype == np.bool_
    assert gd.constant(1, "uint8").dtype == np.uint8
    assert gd.constant(np.array([1], ">i4")).dtype.isnative


def test_constants_are_copies() -> None:
    array = np.array([1.0, 2.0])
    node = gd.constant(array)
    array[0] = 9
    held = constant_value(node)
    assert held is not None
    np.testing.assert_array_equal(held, [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 3
    assert gd.constant(np.array([1.0, 2.0])) is node
    assert constant_value(gd.scalar("x")) is None


@pytest.mark.parametrize("value", [1j, "text", [[1], [1, 2]], object(), 2**70, None])
def test_what_is_no_constant(value: Any) -> None:
    with pytest.raises(DTypeError):
        gd.constant(value)


def test_a_node_is_no_constant() -> None:
    with pytest.raises(ArgumentError, match="is a node already"):
        gd.constant(gd.scalar("x"))


def test_a_fresh_node_takes_the_place_of_a_dead_one() -> None:
    x = gd.vector("x")
    node = gd.exp(x) * 3
    dead = weakref.ref(node)
    count = len(graph._interned)
    del node
    gc.collect()
    assert dead() is None
    assert len(graph._interned) < count
    assert gd.exp(x) * 3 is gd.exp(x) * 3


def test_nothing_is_left_in_the_table() -> None:
    gc.collect()
    before = len(graph._interned)
    x = gd.vector("x", shape=4)
    y = gd.sum(gd.tanh(x * 5) ** 2)
    f = gd.function([x], [y, gd.grad(y, x)], backend="numpy")
    f(np.ones(4, "f4"))
    del x, y, f
    gc.collect()
    assert len(graph._interned) <= before


def test_threads_build_one_node() -> None:
    x = gd.matrix("x", shape=(3, 4))
    start = threading.Barrier(8)
    built: list[list[gd.Node]] = []

    def build() -> None:
        start.wait()
        chain = x
        nodes = []
        for k in range(300):
            chain = gd.tanh(chain) + k
            nodes.append(chain)
        built.append(nodes)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(built) == 8
    for nodes in zip(*built, strict=True):
        assert all(n is nodes[0] for n in nodes)


# ---- what a node is not
def test_a_node_has_no_truth_value() -> None:
    x = gd.scalar("x")
    with pytest.raises(GraphError, match=r"no value while the graph is built.*gd\.where"):
        _ = 1 if x > 0 else 0
    with pytest.raises(GraphError, match=r"gd\.where"):
        _ = x and x
    with pytest.raises(GraphError, match=r"& \| ~"):
        _ = 0 < x < 1


def test_a_node_is_no_array() -> None:
    x = gd.vector("x")
    with pytest.raises(GraphError, match=r"symbolic.*gd\.function"):
        np.asarray(x)
    with pytest.raises(GraphError, match="instead of NumPy's"):
        np.array([1.0, x], dtype=float)
    with pytest.raises(TypeError):
        np.exp(x)


def test_numpy_on_the_left_leaves_it_to_the_node() -> None:
    x = gd.vector("x", shape=3)
    for left in (np.arange(3, dtype="f4"), np.float32(2), np.ones((2, 3), "f4")):
        for node in (left + x, left * x, left - x, left / x, left**x):
            assert isinstance(node, gd.Node)
            assert node.dtype == np.float32
    assert isinstance(np.ones(3, "f4") < x, gd.Node)
    m = gd.matrix("m", shape=(3, 2))
    assert (np.ones((4, 3), "f4") @ m).shape == (4, 2)


def test_iteration_needs_a_length() -> None:
    for node in (gd.vector("x"), gd.scalar("x")):
        with pytest.raises(GraphError, match="cannot iterate"):
            iter(node)
        with pytest.raises(GraphError, match="not known yet"):
            len(node)
    rows = list(gd.matrix("x", shape=(2, 3)))
    assert [r.shape for r in rows] == [(3,), (3,)]
    assert len(gd.matrix("x", shape=(2, 3))) == 2
    a, b = gd.vector("x", shape=2)
    assert (a.ndim, b.ndim) == (0, 0)


def test_containment_is_not_a_question_for_a_node() -> None:
    with pytest.raises(GraphError, match="no values to look in"):
        _ = 1.0 in gd.vector("x")


def test_copies_are_the_node_and_pickles_are_refused() -> None:
    x = gd.vector("x") * 2
    assert copy.copy(x) is x
    assert copy.deepcopy([x])[0] is x
    with pytest.raises(GraphError, match="not pickled"):
        pickle.dumps(x)


def test_a_node_with_several_results_has_no_dtype() -> None:
    x = gd.dmatrix("x", shape=(3, 3))
    node = gd.slogdet(x)[0].inputs[0]
    with pytest.raises(GraphError, match="has 2 results; pick one"):
        _ = node.dtype


def test_how_a_node_reads() -> None:
    x = gd.matrix("x", shape=("batch", 3))
    assert repr(x) == "<input 'x' float32[batch, 3]>"
    assert repr(x * 2) == "<mul float32[batch, 3]>"
    assert gd.shared(1.0, "w").name == "w"
    assert (x * 2).name is None


def test_origin_is_the_users_line() -> None:
    x = gd.matrix("x")
    line = sys._getframe().f_lineno + 1
    y = gd.var(x, axis=1)
    assert y.origin == (__file__, line)


# ---- walks
def test_toposort_puts_operands_first_and_is_reproducible() -> None:
    x, w = gd.matrix("x", shape=(2, 3)), gd.matrix("w", shape=(3, 4))
    y = gd.tanh(x @ w) + gd.sum(x)
    order = toposort([y])
    place = {n: i for i, n in enumerate(order)}
    assert all(place[d] < place[n] for n in order for d in n.dependencies)
    assert len(place) == len(order)
    assert toposort([y]) == order
    assert set(leaves([y])) == {x, w}
    assert toposort([y], stop=lambda n: n is not y)[-1] is y
    assert x not in toposort([gd.tanh(x) * 2], stop=lambda n: n is gd.tanh(x))


def test_users_counts_every_use() -> None:
    x = gd.scalar("x")
    y = x * x
    found = users(toposort([y + x]))
    assert found[x] == [y, y, y + x]
    assert found[y + x] == []


def test_substitute_rebuilds_what_depends() -> None:
    x, z = gd.vector("x", shape=("n",)), gd.vector("z", shape=("n",))
    y, other = gd.exp(x) * 2, gd.sin(z)
    new, same = substitute([y, other], {x: z})
    assert new is gd.exp(z) * 2
    assert same is other
    with pytest.raises(ArgumentError, match="cannot be replaced by"):
        substitute([y], {x: gd.ivector("i")})


# ---- depth
DEPTH = 100_000


@pytest.mark.slow
def test_a_chain_of_100_000_nodes_builds_differentiates_compiles_and_goes() -> None:
    """Far more than any recursion limit; as deep again for the gradient."""
    assert 10 * sys.getrecursionlimit() < DEPTH
    x = gd.dscalar("x")
    y = x
    for _ in range(DEPTH):
        y = gd.neg(y)
    g = gd.grad(y, x)
    f = gd.function([x], [y, g], backend="numpy", optimize=False)
    assert [float(v) for v in f(0.5)] == [0.5, 1.0]
    last = weakref.ref(y)
    del y, g, f
    gc.collect()
    assert last() is None


def test_a_chain_of_10_000_nodes_compiles_with_its_gradient_in_five_seconds() -> None:
    """Processor time of this thread: other work on the machine does not count."""
    start = time.thread_time()
    x = gd.vector("x")
    y = x
    for _ in range(2500):
        y = gd.tanh(y) * 1.01 + x - 0.5
    f = gd.function([x], [y.sum(), gd.grad(y.sum(), x)], backend="numpy")
    assert time.thread_time() - start < 5
    assert len(toposort(f.built)) > 20_000
    assert f(np.ones(3, "f4"))[1].shape == (3,)


def test_a_wide_graph_shares_its_nodes() -> None:
    """Without interning this would have 2**60 nodes."""
    x = gd.dscalar("x")
    y = x
    for _ in range(60):
        y = y * 0.5 + y * 0.5
    assert len(toposort([y])) < 200
    f = gd.function([x], [y, gd.grad(y, x)], backend="numpy")
    assert [float(v) for v in f(3.0)] == [3.0, 1.0]


# ---- the same in every process
PROGRAM = """
import hashlib
import numpy as np, graphdrop as gd
from graphdrop.graph import toposort
x, y = gd.matrix("x", shape=("batch", 3)), gd.vector("y", shape=("batch",))
w, b = gd.shared(np.ones((3, 4), "f4"), "w"), gd.shared(np.zeros(4, "f4"), "b")
stream = gd.RandomStream(seed=5)
h = gd.dropout(gd.relu(x @ w + b), 0.5, stream)
loss = gd.mean((gd.sum(h, axis=1) - y) ** 2) + 0.1 * gd.sum(w * w)
grads = gd.grad(loss, [w, b])
for node in toposort([loss, *grads]):
    print(node.op.name, node.type)
step = gd.function([x, y], [loss, *grads], backend="numpy")
for node in toposort(step.graph.outputs):
    print(node.op.name, node.type)
rng = np.random.default_rng(0)
results = step(rng.normal(size=(5, 3)).astype("f4"), rng.normal(size=5).astype("f4"))
print(hashlib.sha256(b"".join(r.tobytes() for r in results)).hexdigest())
"""


def run(seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_graphs_and_results_do_not_depend_on_the_hash_seed() -> None:
    first, second = run("0"), run("12345")
    assert first == second
    assert len(first.splitlines()) > 40


# ---- operations
def test_two_ops_cannot_share_a_name() -> None:
    def rule(x: TensorType) -> TensorType:
        return x

    with pytest.raises(ArgumentError, match="an operation named 'add' already exists"):
        Op("add", rule)
    assert OPS["add"] is gd.add


def test_parameters_are_checked() -> None:
    x = gd.matrix("x")
    with pytest.raises(TypeError, match="takes no parameters"):
        gd.exp.make((x,), {"axis": 0})
    with pytest.raises(TypeError, match=r"missing \['keepdims'\], unknown \['keep'\]"):
        gd.sum.make((x,), {"axis": (0,), "keep": True})


def test_every_op_says_what_it_is() -> None:
    undocumented = [name for name, op in OPS.items() if not (op.__doc__ or "").strip()]
    assert not undocumented
