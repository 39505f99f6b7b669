"""Compiled functions: arguments, sizes, outputs, updates, givens, flags, threads."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import (
    ArgumentError,
    DTypeError,
    InputError,
    NanError,
    RandomError,
    ShapeError,
)
from graphdrop.profiling import Took, quickest


def f32(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype="f4").reshape(shape) / 7


class TestArguments:
    def test_by_position_and_by_name(self) -> None:
        x, y = gd.vector("x"), gd.vector("y")
        f = gd.function([x, y], x - y)
        a, b = f32(3), 2 * f32(3)
        for got in (f(a, b), f(a, y=b), f(y=b, x=a)):
            np.testing.assert_array_equal(got, a - b)

    def test_lists_and_scalars_are_accepted(self) -> None:
        x, n = gd.vector("x"), gd.iscalar("n")
        f = gd.function([x, n], x * n)
        np.testing.assert_array_equal(f([1, 2.5], 3), np.array([3, 7.5]))

    def test_safe_casts_are_made_and_others_are_errors(self) -> None:
        x, n = gd.dvector("x"), gd.lvector("n")
        f = gd.function([x, n], x + n)
        assert f(f32(2), np.array([1, 2], np.int8)).dtype == np.float64
        with pytest.raises(InputError, match=r"astype\('int64'\)"):
            f(f32(2).astype("f8"), f32(2))

    def test_cut_off_python_numbers_are_errors(self) -> None:
        n = gd.ivector("n")
        with pytest.raises(InputError, match="cut off"):
            gd.function([n], n + 1)([1.5])

    def test_non_contiguous_arguments(self) -> None:
        x = gd.matrix("x")
        a = f32(6, 8)[::2, ::-3]
        np.testing.assert_array_equal(gd.function([x], x.T * 2)(a), a.T * 2)

    def test_arguments_are_never_changed_or_returned(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], [x, x.T, x.reshape(-1), gd.stop_gradient(x)])
        a = f32(2, 3)
        kept = a.copy()
        for y in f(a):
            y += 1
        np.testing.assert_array_equal(a, kept)

    def test_outputs_do_not_share_memory(self) -> None:
        x = gd.matrix("x")
        y = x * 2
        first, second, third = gd.function([x], [y, y, y.T])(f32(2, 3))
        first += 1
        assert not np.array_equal(first, second)
        assert np.array_equal(second.T, third)

    def test_node_as_argument(self) -> None:
        x = gd.vector("x")
        with pytest.raises(InputError, match="symbolic"):
            gd.function([x], x * 2)(x)


class TestOutputs:
    def test_structures(self) -> None:
        x = gd.scalar("x")
        f = gd.function([x], {"a": x, "b": [x * 2, (x * 3, {"c": x * 4})], "n": None})
        assert f(1.0) == {"a": 1, "b": [2, (3, {"c": 4})], "n": None}

    def test_single_none_and_constant(self) -> None:
        x = gd.scalar("x")
        assert gd.function([x], x)(2.0) == 2
        assert gd.function([], None)() is None
        assert gd.function([], gd.constant(3.0))() == 3
        assert gd.function([], [])() == []

    def test_named_tuple(self) -> None:
        from typing import NamedTuple

        class Pair(NamedTuple):
            first: Any
            second: Any

        x = gd.scalar("x")
        got = gd.function([x], Pair(x, x + 1))(1.0)
        assert isinstance(got, Pair)
        assert got.second == 2

    def test_results_are_arrays(self) -> None:
        x = gd.vector("x")
        total = gd.function([x], x.sum())(f32(3))
        assert isinstance(total, np.ndarray)
        assert total.shape == ()
        assert total.dtype == np.float32


class TestUpdates:
    def test_all_updates_see_the_old_values(self) -> None:
        a, b = gd.shared(1.0, "a"), gd.shared(2.0, "b")
        swap = gd.function([], a + b, updates={a: b, b: a})
        assert swap() == 3
        assert (a.get_value(), b.get_value()) == (2, 1)

    def test_output_is_the_value_before_the_update(self) -> None:
        w = gd.shared(np.zeros(3, "f4"), "w")
        f = gd.function([], w, updates=[(w, w + 1)])
        assert f().tolist() == [0, 0, 0]
        assert f().tolist() == [1, 1, 1]

    def test_returned_arrays_are_not_the_state(self) -> None:
        w = gd.shared(np.zeros(3, "f4"), "w")
        f = gd.function([], w + 1, updates={w: w + 1})
        f()[...] = 99
        assert w.get_value().tolist() == [1, 1, 1]
        w.get_value()[...] = 99
        assert w.get_value().tolist() == [1, 1, 1]

    def test_an_update_with_an_argument_keeps_no_reference_to_it(self) -> None:
        x, w = gd.vector("x", shape=(3,)), gd.shared(np.zeros(3, "f4"), "w")
        f = gd.function([x], None, updates={w: x})
        a = f32(3)
        f(a)
        a += 1
        np.testing.assert_array_equal(w.get_value(), f32(3))

    def test_scalar_values(self) -> None:
        n = gd.shared(np.int64(0), "n")
        f = gd.function([], n, updates={n: n + 1})
        f()
        f()
        assert n.get_value() == 2

    def test_nothing_is_updated_when_a_call_fails(self) -> None:
        x, w = gd.vector("x"), gd.shared(np.zeros(3, "f4"), "w")
        v = gd.shared(0.0, "v")
        f = gd.function([x], None, updates={v: v + 1, w: w + x})
        with pytest.raises(ShapeError):
            f(f32(4))
        assert v.get_value() == 0

    def test_mistakes(self) -> None:
        x, w = gd.vector("x", shape=(4,)), gd.shared(np.zeros(3, "f4"), "w")
        with pytest.raises(InputError, match="only shared"):
            gd.function([x], None, updates={x: x})
        with pytest.raises(ShapeError, match="does not fit"):
            gd.function([x], None, updates={w: x})
        with pytest.raises(TypeError, match=r"gd\.cast\(new, 'float32'\)"):
            gd.function([], None, updates={w: gd.cast(w, "float64")})
        with pytest.raises(InputError, match="twice"):
            gd.function([], None, updates=[(w, w + 1), (w, w + 2)])
        with pytest.raises(ArgumentError, match="pairs"):
            gd.function([], None, updates=[w])


class TestGivens:
    def test_replacement_by_value_and_by_node(self) -> None:
        x, y = gd.vector("x"), gd.vector("y")
        f = gd.function([x], x * y, givens={y: x + 1})
        np.testing.assert_array_equal(f(f32(3)), f32(3) * (f32(3) + 1))
        g = gd.function([], x.sum(), givens={x: np.ones(5, "f4")})
        assert g() == 5

    def test_sizes_follow_the_replacement(self) -> None:
        x = gd.matrix("x", shape=("batch", 3))
        data = gd.shared(f32(50, 3), "data")
        mean = x.sum(axis=0) / x.shape[0]
        f = gd.function([], [mean, x.reshape(-1).shape[0] * 2], givens={x: data})
        got, size = f()
        np.testing.assert_allclose(got, f32(50, 3).mean(0), rtol=1e-6)
        assert size == 300

    def test_computed_nodes_can_be_replaced(self) -> None:
        x = gd.scalar("x")
        h = x * 3
        y = h + 1
        assert gd.function([], y, givens={h: 10.0})() == 11

    def test_replacements_happen_at_once(self) -> None:
        x, y = gd.scalar("x"), gd.scalar("y")
        f = gd.function([x, y], x - y, givens={x: y, y: x})
        assert f(1.0, 5.0) == 4

    def test_wrong_type(self) -> None:
        x = gd.vector("x")
        with pytest.raises(ArgumentError, match="cannot be replaced"):
            gd.function([], x, givens={x: gd.scalar("s")})


class TestSizes:
    def test_one_compile_serves_every_size(self) -> None:
        x = gd.matrix("x", shape=("batch", None))
        f = gd.function([x], (x - x.mean(axis=0)).sum(axis=1).reshape(x.shape[0], 1))
        for shape in [(4, 3), (1, 3), (7, 1), (0, 3), (5, 0), (1, 1)]:
            a = f32(*shape)
            if not shape[0]:
                continue
            np.testing.assert_allclose(f(a)[:, 0], (a - a.mean(0)).sum(1), atol=1e-5)

    def test_named_sizes_agree(self) -> None:
        x, y = gd.matrix("x", shape=("batch", 2)), gd.ivector("y", shape=("batch",))
        f = gd.function([x, y], (x.sum(axis=1) * y).sum())
        with pytest.raises(ShapeError, match=r"dim 'batch' is 3 in x \(axis 0\) but 4 in y"):
            f(f32(3, 2), np.zeros(4, "i4"))
        f(f32(3, 2), np.zeros(3, "i4"))

    def test_fixed_sizes_are_checked(self) -> None:
        x = gd.matrix("x", shape=("batch", 2))
        with pytest.raises(ShapeError, match="must have size 2, got 3"):
            gd.function([x], x + 1)(f32(4, 3))

    def test_unknown_sizes_that_meet_are_checked_with_the_users_line(self) -> None:
        x, y = gd.vector("x"), gd.vector("y")
        f = gd.function([x, y], x + y)
        with pytest.raises(ShapeError, match=r"(?s)x\.shape\[0\] = 3 and y.*test_function\.py"):
            f(f32(3), f32(4))

    def test_a_size_that_happens_to_be_one_does_not_broadcast(self) -> None:
        x, y = gd.vector("x"), gd.vector("y")
        with pytest.raises(ShapeError, match="declared as 1"):
            gd.function([x, y], x + y)(f32(3), f32(1))
        one = gd.vector("one", shape=(1,))
        assert gd.function([x, one], x + one)(f32(3), f32(1)).shape == (3,)

    def test_derived_sizes(self) -> None:
        x = gd.matrix("x", shape=("a", "b"))
        y = gd.vector("y", shape=(gd.matrix("x", shape=("a", "b")).reshape(-1).shape[0],))
        f = gd.function([x, y], x.reshape(-1) + y)
        assert f(f32(2, 3), f32(6)).shape == (6,)
        with pytest.raises(ShapeError, match="must have size"):
            f(f32(2, 3), f32(5))

    def test_size_nothing_fixes(self) -> None:
        x = gd.vector("x", shape=("n",))
        with pytest.raises(InputError, match="size m"):
            gd.function([x], x.sum() + gd.broadcast_to(x.max(), ("m",)).sum())


class TestFlags:
    def make(self) -> tuple[gd.Node, gd.Node, gd.RandomStream, gd.Node]:
        x, training = gd.matrix("x", shape=("batch", 8)), gd.flag("training")
        stream = gd.RandomStream(seed=3)
        return x, training, stream, gd.dropout(x, 0.5, stream, training, name="d")

    def test_run_time_and_static_flags_agree(self) -> None:
        x, training, stream, y = self.make()
        both = gd.function([x, training], y)
        train = gd.function([x], y, givens={training: True})
        predict = gd.function([x], y, givens={training: False})
        a = f32(4, 8) + 1
        np.testing.assert_array_equal(both(a, False), a)
        np.testing.assert_array_equal(predict(a), a)
        assert stream.calls == 0
        assert both.call is None
        first = both(a, True)
        assert (stream.calls, both.call) == (1, 0)
        with stream.at(call=0):
            np.testing.assert_array_equal(train(a), first)
        assert stream.calls == 1

    def test_flag_computed_from_other_inputs(self) -> None:
        x, training, stream, _ = self.make()
        epoch = gd.iscalar("epoch")
        y = gd.dropout(x, 0.5, stream, gd.logical_and(training, epoch > 2))
        f = gd.function([x, training, epoch], y)
        a = f32(4, 8) + 1
        f(a, True, 2)
        assert stream.calls == 0
        f(a, True, 3)
        assert stream.calls == 1

    def test_flag_not_given(self) -> None:
        x, _, _, y = self.make()
        with pytest.raises(InputError, match=r"'training'.*givens=\{training: \.\.\.\}"):
            gd.function([x], y)


class TestLookingInside:
    def test_check_nan_is_for_the_backend_that_has_every_value(self) -> None:
        x = gd.vector("x")
        with pytest.raises(gd.errors.ArgumentError, match="looks at every value"):
            gd.function([x], x * 2, check_nan=True, backend="llvm")

    def test_check_nan_names_the_line(self) -> None:
        x, w = gd.vector("x"), gd.shared(0.0, "w")
        y = gd.log(x) * 2
        f = gd.function([x], y, updates={w: w + 1}, check_nan=True)
        f(f32(3) + 1)
        with pytest.raises(NanError, match=r"(?s)log made a NaN.*test_function\.py:\d+") as caught:
            f(f32(3) - 1)
        assert str(caught.value).count("built at") == 1
        assert w.get_value() == 1

    def test_profile_updates_nothing(self) -> None:
        x, w = gd.vector("x"), gd.shared(0.0, "w")
        stream = gd.RandomStream(0)
        y = gd.dropout(gd.tanh(x), 0.5, stream)
        f = gd.function([x], y, updates={w: w + 1})
        profile = f.profile(f32(4))
        names = " ".join(str(r["op"]) for r in profile.rows).split()
        drawing = "mask" if f.backend == "numpy" else "dropout"  # NumPy draws the mask apart
        assert {"tanh", drawing} <= set(names)
        assert "test_function.py" in str(profile)
        assert profile.seconds > 0
        assert w.get_value() == 0
        assert stream.calls == 0

    def test_a_profile_is_of_the_quickest_of_three_calls(self) -> None:
        """The first one finds memory that the system has yet to clear."""
        took = iter([3.0, 1.0, 2.0])
        steps = quickest(lambda: [Took(gd.vector("x"), "", 0, 0, next(took))])
        assert [s.seconds for s in steps] == [1.0]
        assert not [*took]

    def test_repr(self) -> None:
        x = gd.vector("x")
        f = gd.function([x], x, backend="numpy", name="copy")
        assert repr(f) == "<graphdrop function copy(x) on numpy>"


class TestThreads:
    def test_updates_from_many_threads_are_all_counted(self) -> None:
        n = gd.shared(np.int64(0), "n")
        f = gd.function([], None, updates={n: n + 1})
        threads = [threading.Thread(target=lambda: [f() for _ in range(200)]) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert n.get_value() == 1600

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_fork_in_the_middle_of_an_update(self) -> None:
        """In a process of its own: the child's call must not wait for threads that are gone."""
        script = (
            "import os, signal, threading, time, numpy as np, graphdrop as gd\n"
            "w, stream = gd.shared(np.zeros(200_000, 'f')), gd.RandomStream(1)\n"
            "step = gd.function([], updates={w: gd.dropout(gd.sin(w) + 1, 0.5, stream)})\n"
            "step(); stop = []\n"
            "def work():\n"
            "    while not stop: step()\n"
            "t = threading.Thread(target=work); t.start()\n"
            "for _ in range(8):\n"
            "    time.sleep(0.003); child = os.fork()\n"
            "    if not child: signal.alarm(20); step(); w.get_value(); os._exit(0)\n"
            "    print(os.waitpid(child, 0)[1])\n"
            "stop.append(1); t.join()\n"
        )
        command = [sys.executable, "-W", "ignore", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.stdout.split() == ["0"] * 8, done.stderr

    def test_readers_see_one_consistent_state(self) -> None:
        a, b = gd.shared(np.int64(0), "a"), gd.shared(np.int64(0), "b")
        step = gd.function([], None, updates={a: a + 1, b: b + 1})
        read = gd.function([], a - b)
        stop = threading.Event()
        writer = threading.Thread(target=lambda: [step() for _ in iter(stop.is_set, True)])
        writer.start()
        try:
            assert {int(read()) for _ in range(500)} == {0}
        finally:
            stop.set()
            writer.join()


class TestMistakes:
    """Each says what is wrong, with types, place and fix."""

    @pytest.mark.parametrize(
        "made",
        [
            lambda x: gd.zeros_like(x), lambda x: gd.ones(x.shape).sum(), lambda x: x.shape[0] + 0,
            lambda x: gd.grad((x * 2).sum(), x),
            lambda x: gd.scan(lambda c, _: (c + 1, c), length=x.shape[0], init=0)[1],
        ],
    )  # fmt: skip
    def test_an_input_that_gives_a_size_is_used(self, made: Any) -> None:
        x, y = gd.vector("x", shape=("n",)), gd.vector("y", shape=("n",))
        expected = gd.function([x, y], gd.as_node(made(x)), on_unused_input="ignore")(
            f32(3), f32(3)
        )
        np.testing.assert_array_equal(gd.function([x], made(x))(f32(3)), expected)
        with pytest.raises(InputError, match=r"'y'.*is not used"):
            gd.function([x, y], [made(x), x * 2])
        with pytest.raises(InputError, match="declare an input whose shape has it"):
            gd.function([], made(gd.vector("z")), on_unused_input="ignore")

    def test_an_array_that_does_not_give_its_memory(self) -> None:
        class Tensor:  # PyTorch's on a GPU, by which it differentiates
            @property
            def __cuda_array_interface__(self) -> Any:
                raise RuntimeError(
                    "Can't get __cuda_array_interface__ on Variable that requires grad"
                )

        x = gd.vector("x")
        with pytest.raises(InputError, match=r"Tensor does not give its memory.*requires grad"):
            gd.function([x], x * 2)(Tensor())

    def test_an_unused_input_that_is_meant(self) -> None:
        x, y = gd.vector("x"), gd.vector("y")
        with pytest.warns(UserWarning, match="not used") as caught:
            gd.function([x, y], x, on_unused_input="warn")
        assert caught[0].filename == __file__
        assert gd.function([x, y], x, on_unused_input="ignore")(f32(2), f32(3)).shape == (2,)

    def test_too_many_unknown_and_double_arguments(self) -> None:
        x = gd.vector("x")
        f = gd.function([x], x, name="f")
        with pytest.raises(InputError, match="takes 1 input"):
            f(f32(2), f32(2))
        with pytest.raises(InputError, match="no input called 'z'"):
            f(z=f32(2))
        with pytest.raises(InputError, match="twice"):
            f(f32(2), x=f32(2))

    def test_wrong_rank_dtype_and_kind(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], x * 2)
        with pytest.raises(InputError, match=r"takes 2 axes, got an array of shape \(3,\)"):
            f(f32(3))
        with pytest.raises(InputError, match=r"float64 values.*astype\('float32'\)"):
            f(np.zeros((2, 2)))
        with pytest.raises(InputError, match="cannot be made from str"):
            f("abc")

    def test_bad_inputs_lists(self) -> None:
        x = gd.vector("x")
        with pytest.raises(InputError, match="computed"):
            gd.function([x * 2], x * 2)
        with pytest.raises(InputError, match="shared"):
            gd.function([gd.shared(1.0, "w")], x)
        with pytest.raises(InputError, match="listed twice"):
            gd.function([x, x], x)
        with pytest.raises(InputError, match="two inputs are called x"):
            gd.function([x, gd.vector("x")], x)
        with pytest.raises(InputError, match="must be nodes"):
            gd.function([3], x)

    def test_wrong_dtype_when_building(self) -> None:
        with pytest.raises(TypeError, match=r"(?s)neg.*bool"):
            -gd.flag("t")
        with pytest.raises(TypeError, match="not supported"):
            gd.tensor("z", "complex64")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int32", 1.5), ("int32", np.ones((2, 3), "f4")), ("bool", np.ones((2, 3), "i4"))],
)
def test_givens_and_updates_do_not_cut_values_off(dtype: str, value: Any) -> None:
    x = gd.tensor("x", dtype, (2, 3))
    with pytest.raises(DTypeError, match=r"values cannot take the place of .*np\.asarray"):
        gd.function([], x, givens={x: np.broadcast_to(value, (2, 3))})
    w = gd.shared(np.zeros((2, 3), dtype))
    with pytest.raises(DTypeError, match="cannot take the place"):
        gd.function([], [], updates={w: np.broadcast_to(value, (2, 3))})


def test_givens_have_the_declared_sizes() -> None:
    x, y = gd.matrix("x", shape=("n", 3)), gd.vector("y", shape=("n",))
    with pytest.raises(ShapeError, match=r"cannot be given for .*sizes 3 and 4 differ"):
        gd.function([], x, givens={x: f32(2, 4)})
    with pytest.raises(ShapeError, match="n is given two sizes: 2 and 5 differ"):
        gd.function([], [x, y], givens={x: f32(2, 3), y: f32(5)})
    given = gd.function([], x + y[:, None], givens={x: f32(2, 3), y: f32(2)})()
    assert given.shape == (2, 3)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_owns_state_is_not_copied(copied: Any) -> None:
    """A copied stream would repeat the masks of the first."""
    x, stream = gd.vector("x"), gd.RandomStream(0)
    f = gd.function([x], gd.dropout(x, 0.5, stream))
    for owner in (f, stream):
        with pytest.raises(gd.GraphdropError, match="neither pickled nor copied"):
            copied(owner)


def test_masks_of_sizes_that_cannot_be() -> None:
    x = gd.matrix("x", shape=("batch", 3))
    f = gd.function([x], gd.dropout(x, 0.5, gd.RandomStream(0), name="h"))
    for size in (-1, 2.0, True):
        with pytest.raises(RandomError, match="the size batch must be an integer"):
            f.mask("h", call=0, batch=size)
    assert f.mask("h", call=0, batch=np.int64(0)).shape == (0, 3)


def test_shared_values_keep_type() -> None:
    w = gd.shared(np.zeros((2, 3), "f4"), "w")
    w.set_value(f32(2, 3))
    with pytest.raises(ShapeError, match="takes shape"):
        w.set_value(f32(3, 2))
    with pytest.raises(TypeError, match="astype"):
        w.set_value(np.zeros((2, 3)))
    w.set_value([[1, 2, 3], [4, 5, 6]])
    assert w.get_value().dtype == np.float32


def test_data_dependent_sizes() -> None:
    n, x = gd.lscalar("n"), gd.vector("x")
    y = gd.broadcast_to(x.sum(), (n, 2))
    f = gd.function([n, x], [y, y.shape[0] * 3, (y + 1).sum()])
    for k in (0, 1, 5):
        full, triple, total = f(k, f32(3))
        assert full.shape == (k, 2)
        assert triple == 3 * k
        np.testing.assert_allclose(total, 2 * k * (f32(3).sum() + 1), rtol=1e-6)
    m = gd.lscalar("m")
    g = gd.function([n, m], gd.broadcast_to(1.0, (n,)) + gd.broadcast_to(2.0, (m,)))
    assert g(3, 3).tolist() == [3, 3, 3]
    with pytest.raises(ShapeError, match=r"are 3 and 4"):
        g(3, 4)
