"""Sizes, dtypes and shapes: what is known before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.errors import ArgumentError, DTypeError, GraphError, ShapeError
from graphdrop.op import promoted
from graphdrop.substitute import substitute
from graphdrop.types import (
    DTYPES,
    Atom,
    Dim,
    Size,
    TensorType,
    TupleType,
    as_dtype,
    atoms_of,
    broadcast_shapes,
    evaluate,
    floordiv,
    fresh_dim,
    max_size,
    min_size,
    named_dim,
    normalize_axes,
    normalize_axis,
    num_elements,
    plain_atom,
    promote,
    substitute_size,
    unify,
)

A, B, C = named_dim("a"), named_dim("b"), named_dim("c")
NAMES = {"a": A, "b": B, "c": C}


def at(size: Size, **values: int) -> int:
    return evaluate(size, {plain_atom(NAMES[k]): v for k, v in values.items()})  # type: ignore[misc]


# ---- the algebra of sizes, against integers
Pair = tuple[Size, Callable[[dict[str, int]], int]]


def _binary(symbol: str) -> Callable[[Pair, Pair], Pair]:
    def make(x: Pair, y: Pair) -> Pair:
        a, b = x[0], y[0]
        number = {
            "+": lambda e: x[1](e) + y[1](e),
            "-": lambda e: x[1](e) - y[1](e),
            "*": lambda e: x[1](e) * y[1](e),
            "max": lambda e: max(x[1](e), y[1](e)),
            "min": lambda e: min(x[1](e), y[1](e)),
        }[symbol]
        size = {
            "+": lambda: a + b,
            "-": lambda: a - b,
            "*": lambda: a * b,
            "max": lambda: max_size(a, b),
            "min": lambda: min_size(a, b),
        }[symbol]()
        return size, number

    return make


LEAVES = st.one_of(
    st.integers(0, 5).map(lambda k: (k, lambda e: k)),
    st.sampled_from("abc").map(lambda n: (NAMES[n], lambda e: e[n])),
)


def _grow(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def divided(x: Pair, k: int) -> Pair:
        return x[0] // k, lambda e: x[1](e) // k

    def remainder(x: Pair, k: int) -> Pair:
        return x[0] % k, lambda e: x[1](e) % k

    two = [st.builds(_binary(s), inner, inner) for s in ("+", "-", "*", "max", "min")]
    by = st.integers(1, 4)
    return st.one_of(*two, st.builds(divided, inner, by), st.builds(remainder, inner, by))


PAIRS: st.SearchStrategy[Any] = st.recursive(LEAVES, _grow, max_leaves=6)
VALUES = st.fixed_dictionaries(dict.fromkeys("abc", st.integers(0, 7)))


@settings(max_examples=300, deadline=None)
@given(PAIRS, VALUES)
def test_sizes_compute_as_integers_do(pair: Pair, values: dict[str, int]) -> None:
    size, number = pair
    assert at(size, **values) == number(values)


@settings(max_examples=100, deadline=None)
@given(PAIRS, PAIRS, PAIRS)
def test_sums_and_products_are_canonical(x: Pair, y: Pair, z: Pair) -> None:
    a, b, c = x[0], y[0], z[0]
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert hash(a * b + c) == hash(c + b * a)


@settings(max_examples=100, deadline=None)
@given(PAIRS, VALUES)
def test_substituting_some_names_first_changes_nothing(pair: Pair, values: dict[str, int]) -> None:
    def partly(atom: Atom) -> Size:
        return values["a"] if atom == plain_atom(A) else Dim((((atom,), 1),))

    assert at(substitute_size(pair[0], partly), **values) == pair[1](values)


def test_equal_names_are_one_size() -> None:
    assert named_dim("batch") == named_dim("batch")
    assert named_dim("batch") != named_dim("time")
    assert fresh_dim("x") != fresh_dim("x")


def test_results_that_are_constant_are_ints() -> None:
    for size in ((A + 1) - A, A * 0, A - A, A // A, (A * 6) // (A * 3), (A + 2) % 1):
        assert isinstance(size, int)
    assert [(A + 1) - A, A * 0, A // A, (A * 6) // (A * 3)] == [1, 0, 1, 2]


def test_division_is_exact_where_the_polynomial_divides() -> None:
    assert (A * B * 6 + A * 3) // (A * 3) == B * 2 + 1
    assert floordiv(A * B, B) == A
    assert floordiv(7, 2) == 3
    assert at((A + 1) // 2, a=6) == 3
    assert at(10 // A, a=3) == 3
    assert at(A // B, a=7, b=2) == 3


def test_extremes() -> None:
    assert max_size(A, A + 1) == A + 1
    assert min_size(A, A + 1) == A
    assert max_size(A, 0) == A == max_size(0, A), "no size is negative"
    assert max_size(3, 5) == 5
    assert at(max_size(A - 2, 0), a=1) == 0
    assert at(min_size(A, B), a=4, b=3) == 3


def test_sizes_have_no_truth_value_and_no_order() -> None:
    with pytest.raises(ShapeError, match="a is only known at run time"):
        bool(A)
    for compare in (lambda: A < 3, lambda: max(A, 3), lambda: A >= A):
        with pytest.raises(GraphError, match=r"a is only known at run time.*gd\.as_node"):
            compare()
    with pytest.raises(TypeError, match="not supported"):
        _ = A < "a"
    assert isinstance(A < gd.as_node(A), gd.Node)  # noqa: SIM300
    assert A != 3
    assert A != "a"
    assert isinstance(A + 1.5, gd.Node)  # type: ignore[operator]
    assert isinstance(A + True, gd.Node)  # a bool is no size


def test_how_sizes_read() -> None:
    assert repr(A * B + 1) == "a*b + 1"
    assert repr(A - 1) == "a - 1"
    assert repr(2 * A) == "2*a"
    assert repr(max_size(A - 3, 0)) == "max(a - 3, 0)"
    assert repr((A + 1) // 2) == "(a + 1)//(2)"


@pytest.mark.parametrize("name", ["", "two words", "3d", "class", "a-b"])
def test_names_are_identifiers(name: str) -> None:
    with pytest.raises(ArgumentError, match="must be an identifier"):
        named_dim(name)


def test_atoms_of_nested_sizes() -> None:
    assert set(atoms_of([max_size(A // 2, B), 3, C])) == {plain_atom(x) for x in (A, B, C)}
    assert plain_atom(A + 1) is None
    assert plain_atom(A * 2) is None
    assert plain_atom(3) is None


def test_a_size_that_is_a_value() -> None:
    n = gd.lscalar("n")
    x = gd.broadcast_to(gd.scalar("x"), (n, 3))
    assert x.shape[0] == gd.broadcast_to(gd.scalar("y"), (n, 3)).shape[0]
    f = gd.function([n, x.inputs[0]], [x, x.shape[0]], backend="numpy")
    array, size = f(2, 1.5)
    assert array.shape == (2, 3)
    assert size == 2


# ---- agreement
def test_unify() -> None:
    assert unify(3, 3) == 3
    assert unify(A, 3) == 3
    assert unify(3, A) == 3
    assert unify(A, B) == A
    with pytest.raises(ShapeError, match="inner sizes 3 and 4 differ"):
        unify(3, 4, "inner sizes")
    with pytest.raises(ShapeError, match="differ"):
        unify(A, A + 1)


def test_only_a_size_known_to_be_1_stretches() -> None:
    assert broadcast_shapes((2, 1), (1, 3)) == (2, 3)
    assert broadcast_shapes((A, 1), (B,)) == (A, B)
    assert broadcast_shapes((4, 1, 3), (5, 1), ()) == (4, 5, 3)
    assert broadcast_shapes((0,), (1,)) == (0,)
    assert broadcast_shapes() == ()
    assert broadcast_shapes((A,), (3,)) == (3,)
    for left, right in (((2,), (3,)), ((0,), (2,)), ((A,), (A + 1,))):
        with pytest.raises(ShapeError, match="do not broadcast: axis 0"):
            broadcast_shapes(left, right)


def test_a_size_that_happens_to_be_1_does_not_stretch() -> None:
    x, y = gd.vector("x", shape=("n",)), gd.vector("y", shape=("m",))
    f = gd.function([x, y], x + y, backend="numpy")
    np.testing.assert_array_equal(f(np.ones(3, "f4"), np.ones(3, "f4")), np.full(3, 2))
    with pytest.raises(ShapeError, match=r"add.*needs n = 1 and m = 3 to be equal.*\n.*test_types"):
        f(np.ones(1, "f4"), np.ones(3, "f4"))


def test_axes() -> None:
    assert normalize_axis(-1, 3) == 2
    assert normalize_axes(None, 2) == (0, 1)
    assert normalize_axes((-1, 0), 3) == (0, 2)
    assert normalize_axes(np.int64(1), 2) == (1,)  # type: ignore[arg-type]
    assert normalize_axes((), 2) == ()
    with pytest.raises(ShapeError, match="axis 2 is out of range for 2"):
        normalize_axis(2, 2)
    with pytest.raises(ShapeError, match="names one axis twice"):
        normalize_axes((0, -2), 2)
    for wrong in (1.0, True, "0"):
        with pytest.raises(ArgumentError, match="an axis must be an int"):
            normalize_axis(wrong, 2)  # type: ignore[arg-type]


# ---- dtypes
def test_every_dtype_has_a_name() -> None:
    assert [as_dtype(d.name) for d in DTYPES] == list(DTYPES)
    assert as_dtype(float) == np.float64
    assert as_dtype(">f4") == np.float32
    assert as_dtype(">f4").isnative


@pytest.mark.parametrize("dtype", ["complex64", "U3", object, "datetime64[s]", "longdouble"])
def test_dtypes_that_are_not_supported(dtype: Any) -> None:
    with pytest.raises(DTypeError, match=r"is not supported; use one of bool, int8"):
        as_dtype(dtype)


def test_what_is_no_dtype() -> None:
    with pytest.raises(DTypeError, match="is not a dtype"):
        as_dtype("float31")


@pytest.mark.parametrize("a", DTYPES, ids=str)
def test_promotion_is_numpys(a: np.dtype[Any]) -> None:
    x = np.ones(2, a)
    for b in DTYPES:
        assert promote(a, b) == (x + np.ones(2, b)).dtype
    node = gd.tensor("x", a, 2)
    for weak in (True, 2, 1.5):
        assert promoted(node, weak) == np.result_type(a, weak)


def test_python_scalars_alone_are_float32_and_int64() -> None:
    assert promoted(1.5, 2) == np.float32
    assert promoted(1, True) == np.int64
    assert promoted(True, False) == np.bool_
    assert gd.add(1, 2.5).dtype == np.float32


def test_sizes_are_weak_ints() -> None:
    x = gd.vector("x", shape=("n",))
    assert (x * x.shape[0]).dtype == np.float32
    assert (gd.sum(x) / x.shape[0]).dtype == np.float32


# ---- types
def test_types_compare_by_value() -> None:
    t = TensorType(np.dtype("f4"), (A, 3))
    assert t == TensorType(np.dtype("f4"), (A, 3))
    assert t != TensorType(np.dtype("f8"), (A, 3))
    assert t != t.with_shape((A,))
    assert hash(t) == hash(TensorType(np.dtype("f4"), (A, 3)))
    assert repr(t) == "float32[a, 3]"
    assert repr(TupleType((t, t.with_dtype("int8")))) == "(float32[a, 3], int8[a, 3])"
    assert (t.ndim, t.is_float, t.is_integer, t.is_bool) == (2, True, False, False)


def test_number_of_elements() -> None:
    assert num_elements(()) == 1
    assert num_elements((2, 0)) == 0
    assert num_elements((A, 2, B)) == 2 * A * B


# ---- sizes under substitution
def test_known_sizes_replace_names() -> None:
    x = gd.matrix("x", shape=("n", "m"))
    y = gd.reshape(x, (x.shape[0] * x.shape[1],))
    fixed = gd.matrix("x", shape=(4, 5))
    assert substitute([y], {x: fixed})[0].shape == (20,)
