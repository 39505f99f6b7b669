"""What a NumPy, Theano or PyTorch user types without looking it up: it works, or says what does."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import GraphdropError

A = np.arange(6, dtype="f4").reshape(2, 3) + 1
COLUMN = np.array([[2.0], [3.0]])


def value(build: Callable[[gd.Node], Any]) -> Any:
    """What `build` makes of a matrix with a symbolic number of rows, for A."""
    x = gd.matrix("x", shape=("batch", 3))
    return gd.function([x], build(x), on_unused_input="ignore")(A)


WORKS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "array left": (lambda x: np.ones((2, 3), "f4") - x, 1 - A),
    "array of another dtype": (lambda x: COLUMN * x, COLUMN * A),
    "array divided": (lambda x: COLUMN / x, COLUMN / A),
    "array to the power": (lambda x: COLUMN**x, COLUMN**A),
    "array @ node": (lambda x: np.ones((4, 2), "f4") @ x, np.ones((4, 2), "f4") @ A),
    "array < node": (lambda x: np.full((2, 3), 3.0) < x, A > 3.0),
    "NumPy scalar": (lambda x: np.float32(2) * x, np.float32(2) * A),
    "NumPy scalar of another dtype": (lambda x: np.float64(2) * x, np.float64(2) * A),
    "NumPy integer scalar": (lambda x: np.int64(7) // x, np.int64(7) // A),
    "np.pi": (lambda x: np.pi * x, np.pi * A),
    "array += node": (lambda x: operator.iadd(np.ones((2, 3), "f4"), x), A + 1),
    "round": (lambda x: round(x / 2), np.round(A / 2)),
    "methods": (lambda x: x.clip(2, 5).round(), A.clip(2, 5)),
    "mT": (lambda x: x[None].mT, A[None].mT),
    "sum() of nodes": (lambda x: sum([x, x]), A + A),
    "iterating over a known axis": (lambda x: [*x.T][2], A[:, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_what_works(name: str) -> None:
    build, expected = WORKS[name]
    found = value(build)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# rows: 2 at run time
SIZES: dict[str, tuple[Callable[[Any], Any], float]] = {
    "size + float": (lambda n: n + 0.5, 2.5),
    "float * size": (lambda n: 0.5 * n, 1.0),
    "float - size": (lambda n: 0.5 - n, -1.5),
    "size ** int": (lambda n: n**3, 8),
    "size ** float": (lambda n: n**0.5, 2**0.5),
    "int ** size": (lambda n: 3**n, 9),
    "1 / size": (lambda n: 1 / n, 0.5),
    "NumPy integer * size": (lambda n: np.int64(3) * n, 6),
    "size // NumPy integer": (lambda n: n // np.int32(2), 1),
    "NumPy float * size": (lambda n: np.float32(3) * n, 6),
    "a scaled mean": (lambda n: gd.arange(n).sum() / (n - 1), 1.0),
}


@pytest.mark.parametrize("name", SIZES)
def test_arithmetic_with_sizes(name: str) -> None:
    build, expected = SIZES[name]
    assert value(lambda x: build(x.shape[0])) == pytest.approx(expected)


def test_exact_arithmetic_of_sizes_stays_a_size() -> None:
    n = gd.matrix("x", shape=("batch", 3)).shape[0]
    for size in (n + 1, 2 * n, n - 1, n // 2, n % 2, n * n, n * np.int64(2), np.int64(1) + n):
        assert not isinstance(size, gd.Node)
    assert (n + 1) - 1 == n
    assert np.prod(gd.matrix("y", shape=("batch", 3)).shape) == 3 * n


SAYS_HOW: dict[str, tuple[Callable[[Any], Any], str]] = {
    "np.exp": (np.exp, "np.exp takes arrays.*graphdrop"),
    "np.sum": (np.sum, "use gd.sum"),
    "np.mean": (lambda x: np.mean(x, axis=0), "use gd.mean"),
    "np.dot": (lambda x: np.dot(A, x), "use gd.dot"),
    "np.concatenate": (lambda x: np.concatenate([x, x]), "use gd.concatenate"),
    "array == node": (lambda x: A == x, r"gd\.equal"),  # noqa: SIM300
    "node == array": (lambda x: x == A, r"gd\.equal"),
    "node == number": (lambda x: gd.where(x == 0, 1, x), r"gd\.equal"),
    "node != NumPy scalar": (lambda x: x != np.float32(0), r"gd\.not_equal"),
    "float": (float, "no Python number"),
    "int": (int, "no Python number"),
    "math.sqrt": (math.sqrt, "no Python number"),
    "a list's index": (lambda x: [1, 2][x], "no Python number"),
    "sum of a list": (lambda x: gd.sum([x, x]), r"gd\.stack"),
    "max of two": (lambda x: gd.max(x, x), "an axis must be an int"),
    "a string": (lambda x: x + "1", "'1' cannot become an array: give numbers"),
    "None": (lambda x: x * None, "None cannot become an array: give numbers"),
    "None in a list": (lambda x: gd.constant([1.0, None], "float32"), "give numbers"),
    "a rate as text": (lambda x: gd.dropout(x, "0.5", gd.RandomStream(0)), "give numbers"),
    "zeros(2, 3)": (lambda x: gd.zeros(2, 3), r"one tuple, as in \(2, 3\)(?s:.*)test_fingers"),
    "a value for a name": (lambda x: gd.scalar(3.0), r"gd\.constant"),
    "a size as a constant": (lambda x: gd.constant(x.shape[0]), r"gd\.as_node"),
    "range(size)": (lambda x: range(x.shape[0]), "no Python number"),
    "int(size)": (lambda x: int(x.shape[0]), "no Python number"),
    "if size": (lambda x: bool(x.shape[0]), "known at run time"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAYS_HOW)
def test_what_says_how(name: str) -> None:
    mistake, match = SAYS_HOW[name]
    x = gd.matrix("x", shape=("batch", 3))
    with pytest.raises(GraphdropError, match=match):
        mistake(x)


def test_names_of_other_libraries() -> None:
    for name, here in gd._ELSEWHERE.items():
        assert hasattr(gd, here)
        assert not hasattr(gd, name)
    with pytest.raises(AttributeError, match=r"no attribute 'neq'; here it is gd\.not_equal"):
        gd.neq  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'frobnicate'$"):
        gd.frobnicate  # noqa: B018


def test_constructors_take_a_dtype() -> None:
    assert gd.matrix("x", dtype="float64").dtype == np.float64
    assert gd.vector(shape=3, dtype=np.int16).dtype == np.int16


def test_numbers_that_no_integer_dtype_holds() -> None:
    assert value(lambda x: x * 2**70).dtype == np.float32
    with pytest.raises(GraphdropError, match="out of bounds for int32"):
        gd.ivector("i") + 2**40


def test_noise_shape_with_none() -> None:
    x, stream = gd.matrix("x", shape=("batch", 3)), gd.RandomStream(0)
    y = gd.function([x], gd.dropout(x, 0.5, stream, noise_shape=(None, 1)))(np.ones((50, 3), "f4"))
    assert (y == y[:, :1]).all()
    assert 0 < (y == 0).mean() < 1


def test_equality_of_nodes_is_identity() -> None:
    x = gd.scalar("x")
    assert x + 1 == x + 1
    assert x + 1 != x + 2
    assert x not in (None, "x", x.shape)
    assert {x: 1}[x] == 1
