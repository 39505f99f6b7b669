"""Draws by example ids as kernels: on the CPU, and as CUDA kernels on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import RandomError

from . import cudashim
from .test_llvm import numbers

SHIM = cudashim.register()
BACKENDS = ["llvm", pytest.param(SHIM, marks=cudashim.needs_compiler)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "shape", [(3, 31), (2, 4161), (700, 7), (5, 2, 33), (3, 1, 16), (4, 40, 129), (0, 5), (4, 0)]
)
def test_draws_by_ids_are_native(shape: tuple[int, ...], known: bool, backend: str) -> None:
    """Of every row those of its id, in rows that are shorter and longer than what is drawn at once,
    along axes that are walked as one, and beside draws that count all elements."""
    found: dict[str, list[np.ndarray]] = {}
    for name in ("numpy", backend):
        s = gd.RandomStream(5)
        x = gd.tensor("x", "float32", shape if known else (None,) * len(shape))
        ids = gd.tensor("ids", "int64", x.shape[:1])
        made = numbers(s, x.shape, example=ids)
        dropped = gd.dropout(x, 0.5, s, example=ids)  # scaled by a power of 2: to the bit
        made += [dropped, gd.dropout(dropped + x, 0.5, s), gd.dropout(x.T, 0.5, s).T + dropped]
        if len(shape) == 3:
            made += [gd.dropout(x, 0.5, s, example=ids, axes=1), dropped.transpose(1, 0, 2)]
        f = gd.function([x, ids], made, backend=name)
        for call in range(2):
            given = np.random.default_rng(call).integers(0, 9, shape[:1])
            found.setdefault(name, []).extend(f(np.ones(shape, "f4"), given))
    assert "outside" not in f.executable.listing("program")
    for right, mine in zip(found["numpy"], found[backend], strict=True):
        np.testing.assert_array_equal(mine, right, strict=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_in_a_loop_and_its_gradient(backend: str) -> None:
    """A row has its mask wherever it stands in the batch."""
    x, ids = gd.tensor3("x", shape=("n", "t", "k")), gd.lvector("ids")
    s = gd.RandomStream(2)

    def step(h: gd.Node, row: gd.Node) -> tuple[gd.Node, gd.Node]:
        h = gd.dropout(gd.tanh(h + row), 0.25, s, example=ids)
        return h, h

    _, hs = gd.scan(step, x.transpose(1, 0, 2), gd.zeros((x.shape[0], x.shape[2])))
    outputs = [hs, gd.grad((hs * hs).sum(), x)]
    f, oracle = (gd.function([x, ids], outputs, backend=b) for b in (backend, "numpy"))
    values, rows = np.random.default_rng(0).normal(size=(6, 5, 37)).astype("f4"), np.arange(6) * 7
    assert "loop" in f.executable.listing("program")
    assert "outside" not in f.executable.listing("program")
    with s.at(3):
        found, right = f(values, rows), oracle(values, rows)
    with s.at(3):
        turned = f(values[::-1], rows[::-1])
    for a, b, c in zip(found, right, turned, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(a == 0, b == 0)
        np.testing.assert_array_equal(a, c[:, ::-1] if a is found[0] else c[::-1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "wrong"), [("int32", -1), ("int64", -5), ("uint64", 2**64 - 1)])
def test_an_id_that_is_none(kind: str, wrong: int, backend: str) -> None:
    x, ids = gd.matrix("x"), gd.tensor("ids", kind, (None,))
    f = gd.function([x, ids], gd.dropout(x, 0.5, gd.RandomStream(1), example=ids), backend=backend)
    f(np.ones((2, 3), "f4"), np.array([0, 2**31 - 1], kind))
    with pytest.raises(RandomError, match=r"(?s)example ids.*test_ids\.py"):
        f(np.ones((2, 3), "f4"), np.array([0, wrong], kind))
