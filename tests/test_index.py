"""Indexing beyond the op table: random indices, unknown sizes, run-time errors, equal positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdrop as gd
from graphdrop.errors import DTypeError, GraphError, OutOfRangeError, ShapeError
from graphdrop.testing import check_grad

Array = np.ndarray[Any, Any]


def f32(*shape: int) -> Array:
    return np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def run(build: Any, *arrays: Any, shapes: Any = None) -> Any:
    """build's result for arrays whose sizes are all unknown when the graph is built."""
    nodes = [gd.tensor(f"x{i}", a.dtype, (None,) * a.ndim) for i, a in enumerate(arrays)]
    return gd.function(nodes, build(*nodes))(*arrays)


# ---- positions in axes whose sizes are computed ----
COMPUTED = {
    "from": lambda x, k, m: x[k:][0], "to": lambda x, k, m: x[:k][-1],
    "mask": lambda x, k, m: x[m][0], "matrix": lambda x, k, m: x[:k][None][0, 1],
    "made": lambda x, k, m: gd.arange(k)[-1], "repeated": lambda x, k, m: gd.repeat(x, k)[0],
    "gradient": lambda x, k, m: gd.grad(x[k:][0] ** 2, x),
    "loop": lambda x, k, m: gd.map(lambda i: x[i:][0] * x[: i + 1][-1], gd.arange(k)),
    "branch": lambda x, k, m: gd.cond(k > 1, lambda: x[k:][0], lambda: x[:k][0]),
    "product": lambda x, k, m: gd.outer(x[:k], x[m])[0],
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("k", [0, 2, 5])
def test_positions_where_sizes_are_values(name: str, k: int) -> None:
    x, m, size = gd.dvector("x"), gd.vector("m", dtype="bool"), gd.lscalar("k")
    found: list[Any] = []
    for backend in ("numpy", "llvm"):
        f = gd.function([x, size, m], COMPUTED[name](x, size, m), backend=backend,
                        on_unused_input="ignore")  # fmt: skip
        try:
            found.append(f(np.arange(1.0, 6), k, np.arange(5) % 2 == k % 2))
        except OutOfRangeError as error:
            found.append(str(error).rpartition("built at ")[2].partition(":")[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_what_has_a_computed_size_is_wanted_twice(backend: str) -> None:
    x, m, k = gd.dvector("x"), gd.vector("m", dtype="bool"), gd.lscalar("k")
    for made in (x[m], x[:k], gd.arange(k) * 2, gd.sort(x[m])):
        f = gd.function([x, m, k], [made, made, made], backend=backend, on_unused_input="ignore")
        first, *others = f(np.arange(4.0), np.array([1, 0, 1, 1], bool), 3)
        assert first.shape == (3,)
        for other in others:
            np.testing.assert_array_equal(other, first)
            assert not np.shares_memory(other, first)


@pytest.mark.parametrize("backend", ["numpy", "llvm"])
def test_an_array_put_into_itself(backend: str) -> None:
    x = gd.dmatrix("x")
    y = x[0].set(0)
    f = gd.function([x], [y[:].set(y), y[:, :].set(y[:, ::-1]), y[1:].set(y[:-1])], backend=backend)
    expected = np.arange(6.0).reshape(2, 3)
    expected[0] = 0
    found = f(np.arange(6.0).reshape(2, 3))
    for a, b in zip(found, (expected, expected[:, ::-1], np.zeros((2, 3))), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [0, -1, 4])
def test_a_reshape_to_a_size_that_is_none(size: int) -> None:
    x, n = gd.dvector("x"), gd.lscalar("n")
    f = gd.function([x, n], x.reshape(n, -1))
    assert f(np.ones(6), 3).shape == (3, 2)
    with pytest.raises(ShapeError, match=r"(?s)reshape\(<input 'x'.*built at .*test_index\.py"):
        f(np.ones(6), size)


# ---- random indices ----
BOUND = st.none() | st.integers(-6, 6)
SLICE = st.builds(slice, BOUND, BOUND, st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3]))


@st.composite
def shape_and_key(draw: Any) -> tuple[tuple[int, ...], Any]:
    """A shape and an index of it; all integer arrays of the index have shapes that broadcast."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,)]))
    key: list[Any] = []
    axis = 0
    while axis < len(shape) and draw(st.integers(0, 9)):
        size = shape[axis]
        kind = draw(st.sampled_from(["slice", "slice", "position", "array", "new", "mask"]))
        if kind == "new":
            key.append(None)
            continue
        if kind == "mask":
            bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
            if any(isinstance(k, np.ndarray) for k in key):
                key.append(slice(None))  # masks and arrays of other lengths do not broadcast
            else:
                key.append(np.array(bits, bool))
                common = (int(sum(bits)),)
        elif kind == "slice" or not size:
            key.append(draw(SLICE))
        elif kind == "position":
            key.append(draw(st.integers(-size, size - 1)))
        else:
            count = int(np.prod(common))
            ids = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
            key.append(np.array(ids, np.int64).reshape(common))
        axis += 1
    if draw(st.booleans()):  # at the end, or of no axes
        first = 0 if axis == len(shape) else len(key)
        key.insert(draw(st.integers(first, len(key))), Ellipsis)
    return shape, tuple(key)


RANDOM = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@RANDOM
@given(shape_and_key())
def test_random_indices_read_what_numpy_reads(case: tuple[tuple[int, ...], Any]) -> None:
    shape, key = case
    x = f32(*shape)
    try:
        expected = x[key]
    except IndexError:
        with pytest.raises((OutOfRangeError, ShapeError)):
            run(lambda n: n[key], x)
        return
    known = gd.tensor("x", "float32", shape)
    assert known[key].shape == expected.shape
    np.testing.assert_array_equal(gd.function([known], known[key])(x), expected, strict=True)
    np.testing.assert_array_equal(run(lambda n: n[key], x), expected, strict=True)


@RANDOM
@given(shape_and_key())
def test_random_indices_write_where_numpy_writes(case: tuple[tuple[int, ...], Any]) -> None:
    shape, key = case
    x = f32(*shape)
    try:
        part = x[key]
    except IndexError:
        return
    value = -f32(*part.shape)
    expected, summed = x.copy(), x.copy()
    expected[key] = value
    np.add.at(summed, key, value)
    written, added = run(lambda n, v: (n[key].set(v), n[key].inc(v)), x, value)
    np.testing.assert_array_equal(written, expected, strict=True)
    np.testing.assert_array_equal(added, summed, strict=True)


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), [0, 1], ..., [2, 0]), (0, ..., [2, 0], slice(None)), ([0, 1], ..., 2),
        ([0, 1], 1, ..., [2, 0]), ([0, 1], [2, 0], ..., 1), (..., [0, 1], [2, 0], 1),
    ],
)  # fmt: skip
def test_an_ellipsis_of_no_axes_parts_arrays(key: Any) -> None:
    """As in NumPy, and not in PyTorch, so that the op table does not have it."""
    x = f32(2, 3, 3)
    value = -x[key]
    expected = x.copy()
    expected[key] = value
    read, written = run(lambda n, v: (n[key], n[key].set(v)), x, value)
    np.testing.assert_array_equal(read, x[key], strict=True)
    np.testing.assert_array_equal(written, expected, strict=True)


# ---- sizes and bounds that are symbolic ----
class TestSymbolicSizes:
    def test_sizes_of_slices(self) -> None:
        x = gd.matrix("x", shape=("n", 3))
        n = x.shape[0]
        assert x[:].shape == (n, 3)
        assert x[::-1].shape == (n, 3)
        assert x[1:].shape == x[:-1].shape
        assert x[:0].shape == (0, 3)
        assert x[::2].shape[0] == (n + 1) // 2
        assert x[:n].shape == (n, 3)
        assert x[n:].shape == (0, 3)
        assert x[-n:].shape == (n, 3)
        assert x[0].shape == (3,)
        # differences of neighbours need no check at the call
        assert (x[1:] - x[:-1]).checks == ()

    def test_no_slice_is_shorter_than_nothing(self) -> None:
        x = gd.vector("x")
        f = gd.function([x], [x[0:0:-1], x[0:0:-1].set(1.0)])
        for size in (0, 1, 5):
            part, written = f(f32(size))
            assert part.shape == (0,)
            np.testing.assert_array_equal(written, f32(size))

    def test_bounds_from_sizes(self) -> None:
        x, k = gd.vector("x", shape=("n",)), gd.vector("k", shape=("k",))
        size = k.shape[0]
        f = gd.function([x, k], (x[:size], x[size:], x[-size:], x[:-size], x[x.shape[0] - 1], k))
        for n, m in [(5, 2), (5, 5), (2, 5), (1, 0), (3, 1)]:
            a, b = f32(n), f32(m)
            got = f(a, b)
            wanted = (a[:m], a[m:], a[max(n - m, 0) :], a[: max(n - m, 0)], a[n - 1])
            for g, w in zip(got, wanted, strict=False):
                np.testing.assert_array_equal(g, w, strict=True)

    def test_one_compile_serves_every_size(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], (x[-2:], x[:, 1::2], x[5:], x[-1:0:-1]))
        for shape in [(0, 0), (1, 1), (2, 5), (7, 4), (6, 2)]:
            a = f32(*shape)
            wanted = (a[-2:], a[:, 1::2], a[5:], a[-1:0:-1])
            for got, want in zip(f(a), wanted, strict=True):
                np.testing.assert_array_equal(got, want, strict=True)

    def test_run_time_position_and_bounds(self) -> None:
        x, i = gd.matrix("x"), gd.iscalar("i")
        f = gd.function([x, i], (x[i], x[:, i], x[i:], x[: i + 1], x[i : i + 2], x[::-1][i]))
        a = f32(3, 3)
        for at in (-3, -1, 0, 2):
            wanted = (a[at], a[:, at], a[at:], a[: at + 1], a[at : at + 2], a[::-1][at])
            for got, want in zip(f(a, at), wanted, strict=True):
                np.testing.assert_array_equal(got, want, strict=True)

    def test_iteration(self) -> None:
        x = gd.matrix("x", shape=(2, None))
        first, second = x
        np.testing.assert_array_equal(gd.function([x], first - second)(f32(2, 3)), [-3, -3, -3])

    def test_givens_make_sizes_known(self) -> None:
        x = gd.vector("x", shape=("n",))
        y = x[:-1] * gd.arange(x.shape[0] - 1) + gd.one_hot(0, x.shape[0] - 1)
        f = gd.function([], y, givens={x: f32(4)})
        np.testing.assert_array_equal(f(), [1, 2, 6])


# ---- masks ----
class TestMasks:
    def test_size_known_at_run_time_only(self) -> None:
        x = gd.matrix("x")
        picked = x[x > 2]
        f = gd.function([x], (picked, picked.shape[0], (picked * 2).sum(), picked[::-1] + picked))
        for a in (f32(2, 3), -f32(3, 2), f32(0, 4)):
            want = a[a > 2]
            got = f(a)
            np.testing.assert_array_equal(got[0], want, strict=True)
            assert got[1] == want.size
            assert got[2] == 2 * want.sum()
            np.testing.assert_array_equal(got[3], want[::-1] + want, strict=True)

    def test_mask_of_rows_and_gradient(self) -> None:
        check_grad(lambda x: x[x.sum(axis=1) > 0] ** 2, [np.array([[1.0, 2], [-3, 1], [0, 0.5]])])

    def test_wrong_size_at_run_time(self) -> None:
        x, m = gd.vector("x"), gd.tensor("m", bool, (None,))
        f = gd.function([x, m], x[m])
        np.testing.assert_array_equal(f(f32(3), np.array([True, False, True])), [1, 3])
        with pytest.raises(ShapeError, match="specify_shape"):
            f(f32(3), np.array([True, False]))

    def test_known_mask_has_a_known_size(self) -> None:
        x = gd.matrix("x", shape=(2, 3))
        assert x[np.array([[True, False, True], [False, False, True]])].shape == (3,)


# ---- errors at the call ----
class TestRunTimeErrors:
    @pytest.mark.parametrize("at", [3, -4, 100])
    def test_position_outside(self, at: int) -> None:
        x, i = gd.matrix("x"), gd.lscalar("i")
        f = gd.function([x, i], x[i])  # this line is named
        with pytest.raises(IndexError, match=rf"gather\(.*{at}(?s:.*)test_index.py:") as caught:
            f(f32(3, 2), at)
        assert isinstance(caught.value, gd.GraphdropError)
        np.testing.assert_array_equal(f(f32(3, 2), 2), [5, 6])  # the function still works

    def test_positions_outside(self) -> None:
        x, i = gd.matrix("x"), gd.ivector("i")
        for part in (x[i], x[i].set(0), x[i].inc(1), gd.take(x, i, 0)):
            f = gd.function([x, i], part)
            with pytest.raises(OutOfRangeError, match=r"7 is out of bounds(?s:.*)built at"):
                f(f32(3, 2), np.array([0, 7], np.int32))

    @pytest.mark.parametrize("at", [1, -2])
    def test_known_position_of_unknown_size(self, at: int) -> None:
        x = gd.vector("x")
        f = gd.function([x], (x[at], x[at].set(0.0)))
        assert f(f32(2))[0] == f32(2)[at]
        with pytest.raises(OutOfRangeError, match="built at"):
            f(f32(1))

    def test_nothing_is_returned_from_below_the_start(self) -> None:
        x = gd.vector("x")
        f = gd.function([x], x[x.shape[0] - 3])
        assert f(f32(3)) == 1
        with pytest.raises(OutOfRangeError, match=r"below 0|position -1 is outside"):
            f(f32(2))  # position -1 would be the last element

    @pytest.mark.parametrize("backend", ["numpy", "llvm"])
    def test_a_position_that_is_somewhere_else_in_memory(self, backend: str) -> None:
        """Column 4 of rows of 3 would be in the next row; in a loop of no steps nobody asks."""
        x = gd.matrix("x")
        parts = [x[0:2, 4], x[0:2, 4].set(0.0), gd.scan(lambda h, r: (h + r[4], None), x, 0.0)[0]]
        for part in parts:
            f = gd.function([x], part, backend=backend)
            f(f32(3, 5))
            with pytest.raises(OutOfRangeError, match=r"(?s)4.*built at"):
                f(f32(3, 3))
        f(f32(0, 3))

    def test_an_error_in_observed_runs(self) -> None:
        x, i = gd.vector("x"), gd.lscalar("i")
        f = gd.function([x, i], x[i], check_nan=True)
        with pytest.raises(OutOfRangeError, match="built at"):
            f(f32(2), 5)


# ---- set and inc ----
class TestSetAndInc:
    def test_the_base_is_what_was_indexed(self) -> None:
        x = gd.vector("x")
        y = x[1:]
        f = gd.function([x], (x[1:].set(0), y[1:].set(0), gd.set_subtensor(y[[0, -1]], 9.0)))
        whole, part, ends = f(f32(4))
        np.testing.assert_array_equal(whole, [1, 0, 0, 0])
        np.testing.assert_array_equal(part, [2, 0, 0])
        np.testing.assert_array_equal(ends, [9, 3, 9])

    def test_one_index_or_two_are_told_apart(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], (x[1:, [0]].set(0), x[1:][:, [0]].set(0)))
        one, two = f(f32(3, 2))
        assert one.shape == (3, 2)
        assert two.shape == (2, 2)

    def test_assignment_says_what_to_write(self) -> None:
        x = gd.vector("x")
        with pytest.raises(GraphError, match=r"x = x\[key\]\.set\(value\)"):
            x[0] = 1.0  # type: ignore[index]

    def test_the_original_stays(self) -> None:
        x = gd.shared(f32(3), "x")
        f = gd.function([], (x[0].set(5), x))
        np.testing.assert_array_equal(f()[0], [5, 2, 3])
        np.testing.assert_array_equal(f()[1], [1, 2, 3])

    def test_values_broadcast_and_are_cast_like_python_numbers(self) -> None:
        x = gd.imatrix("x")
        f = gd.function([x], (x[:, 1].set(7), x[1:].inc(np.ones((1, 3), np.int8))))
        a = np.zeros((2, 3), np.int32)
        one, two = f(a)
        assert one.dtype == two.dtype == np.int32
        np.testing.assert_array_equal(one, [[0, 7, 0], [0, 7, 0]])
        np.testing.assert_array_equal(two, [[0, 0, 0], [1, 1, 1]])
        with pytest.raises(DTypeError, match=r"gd\.cast"):
            x[0].set(gd.vector("v"))

    def test_equal_positions_last_one_wins_in_value_and_gradient(self) -> None:
        x, v = gd.dvector("x"), gd.dvector("v")
        y = x[[0, 1, 0]].set(v)
        weights = gd.constant(np.array([3.0, 5.0, 7.0]))
        gx, gv = gd.grad((y * weights).sum(), [x, v])
        f = gd.function([x, v], (y, gx, gv))
        got, at_x, at_v = f(np.zeros(3), np.array([1.0, 2.0, 4.0]))
        np.testing.assert_array_equal(got, [4, 2, 0])
        np.testing.assert_array_equal(at_x, [0, 0, 7])
        np.testing.assert_array_equal(at_v, [0, 5, 3])

    def test_rows_of_a_table_are_updated_sparsely(self) -> None:
        table = gd.shared(np.zeros((4, 2), "f4"), "table")
        ids, g = gd.ivector("ids"), gd.matrix("g")
        step = gd.function([ids, g], updates={table: gd.scatter_add(table, ids, -0.5 * g)})
        step(np.array([1, 3, 1], np.int32), np.ones((3, 2), "f4"))
        np.testing.assert_array_equal(table.get_value()[:, 0], [0, -1, 0, -0.5])

    def test_third_order(self) -> None:
        x = gd.dvector("x")
        y = (x[[0, 0, 1]] * x[1:][[0, 1, 0]] * x[::-1]).sum()
        third = gd.grad(gd.grad(gd.grad(y, x).sum(), x).sum(), x)
        # every term is a product of three elements, so the third derivative of the sum is constant
        f = gd.function([x], third.sum(), on_unused_input="ignore")
        assert f(np.array([1.0, 2.0, 3.0])) == 18.0

    def test_gradient_of_an_embedding_is_a_scatter(self) -> None:
        table, ids = gd.shared(f32(5, 2), "table"), gd.ivector("ids")
        g = gd.grad((table[ids] * 2).sum(), table)
        assert g.op.name == "scatter_add"
        got = gd.function([ids], g)(np.array([4, 0, 4], np.int32))
        np.testing.assert_array_equal(got[:, 0], [2, 0, 0, 0, 4])


def test_picking_the_label_of_every_row() -> None:
    x, labels = gd.matrix("x"), gd.ivector("labels")
    rows = gd.arange(x.shape[0])
    along = gd.take_along_axis(x, gd.expand_dims(labels, 1), 1)
    f = gd.function([x, labels], (x[rows, labels], gd.squeeze(along, 1)))
    a, b = f(f32(3, 4), np.array([2, 0, 3], np.int32))
    np.testing.assert_array_equal(a, [3, 5, 12])
    np.testing.assert_array_equal(a, b)
    with pytest.raises(ShapeError):
        f(f32(3, 4), np.array([0, 1], np.int32))


def test_rows_are_added_to_tables_of_any_layout() -> None:
    """A transposed table, ids that repeat, count from the end, and have two axes; a 3-d table."""
    rng = np.random.default_rng(5)
    for shape in ((4, 5), (4, 3, 2), (4, 0)):
        table = np.asfortranarray(rng.normal(size=shape))
        ids = np.array([[0, 3, -1], [3, 3, 1]])
        value = rng.normal(size=(2, 3, *shape[1:]))
        arrays = {"x": table, "i": ids, "v": value}
        x, i, v = (gd.tensor(n, a.dtype, a.shape) for n, a in arrays.items())
        found = gd.function([x, i, v], x[i].inc(v))
        expected = np.array(table)
        np.add.at(expected, ids, value)
        np.testing.assert_array_equal(found(table, ids, value), expected)
