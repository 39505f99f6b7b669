"""The cupy backend's kernels and host code, on the CPU: draws, sums, arrays, calls replayed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
import graphdrop_cupy.backend
from graphdrop import backend as backends
from graphdrop import disk, optim
from graphdrop.errors import BackendError, MissingError
from graphdrop_cupy import geometry, plans

from . import cudashim
from .cudashim import fake_cublas, fake_cupy

SHIM = cudashim.register()
pytestmark = cudashim.needs_compiler
Array = np.ndarray[Any, Any]


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def both(outputs: Callable[[Any], Any], array: Array) -> list[tuple[Array, Array]]:
    """Results of the oracle and of this backend, of graphs that are built anew for each."""
    found = []
    for name in ("numpy", SHIM):
        x = gd.tensor("x", array.dtype, [None] * array.ndim)
        found.append(gd.function([x], outputs(x), backend=name)(array))
    return list(zip(*found, strict=True))


class TestDraws:
    @pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 31, 511, 512, 513, 1025, 70_001])
    @pytest.mark.parametrize("rate", [1e-5, 0.5, 1 - 1e-5])
    def test_masks_of_all_sizes_are_numpys_words(self, n: int, rate: float) -> None:
        x = gd.vector("x")
        stream = gd.RandomStream(2**64 - 1)
        f = gd.function([x], gd.dropout(x, rate, stream, name="m"), backend=SHIM)
        for call in range(2):
            kept = f(np.ones(n, "f4")) != 0
            np.testing.assert_array_equal(kept, f.mask("m", call))

    def test_in_rows_that_begin_anywhere(self) -> None:
        """A softmax with dropout: rows of 37 are not whole blocks of 16."""

        def outputs(x: Any) -> Any:
            y = gd.dropout(gd.softmax(x), 0.4, gd.RandomStream(5))
            return [y, y.sum(axis=-1)]

        for width in (1, 5, 37, 600):
            for right, found in both(outputs, data(9, width)):
                np.testing.assert_allclose(found, right, rtol=1e-6)
                np.testing.assert_array_equal(found == 0, right == 0)

    def test_added_up_along_columns(self) -> None:
        """Threads walk down the rows here, so that each element's bit is drawn by itself."""

        def outputs(x: Any) -> Any:
            return [gd.dropout(x, 0.5, gd.RandomStream(5)).sum(axis=0)]

        for right, found in both(outputs, data(130, 33)):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)

    def test_do_not_depend_on_blocks_and_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = gd.vector("x")
        ones, found = np.ones(5000, "f4"), []
        for threads, blocks in ((256, 4096), (32, 1), (512, 3)):
            monkeypatch.setattr(geometry, "THREADS", threads)
            monkeypatch.setattr(geometry, "BLOCKS", blocks)
            monkeypatch.setattr(geometry, "SMALL", 0)
            f = gd.function([x], gd.dropout(x, 0.5, gd.RandomStream(1)), backend=SHIM)
            found.append(f(ones).tobytes())
        assert len(set(found)) == 1

    def test_with_long_positions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plans, "SHORT", 0)

        def outputs(x: Any) -> Any:
            y = gd.dropout(gd.tanh(x), 0.5, gd.RandomStream(1))
            return [y, y.sum(axis=0), y.sum(axis=1), y.sum(), x[:, ::-2] * 2]

        for right, found in both(outputs, data(40, 70)):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)
        assert "long long" in {o for _, options in fake_cupy.Module.compiled
                               for o in (options[-1].partition("=")[2],)}  # fmt: skip


def test_rows_and_columns_of_one_kernel() -> None:
    """What is added up along columns is computed again from the sums of rows, which are read."""
    x = gd.tensor("x", "float32", (None, 64))
    y = x / (1 + x.sum(axis=1, keepdims=True))
    outputs = [y, (x * y).sum(axis=0), gd.softmax(x).sum(axis=0), (y * y).sum(axis=1)]
    found = [gd.function([x], outputs, backend=b)(data(33, 64) ** 2) for b in ("numpy", SHIM)]
    for right, mine in zip(*found, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-6)


class TestNumbers:
    """Draws other than masks; the table and `--backend shim tests/test_random.py` have values."""

    def test_they_are_drawn_on_the_device_and_replayed(self) -> None:
        x, s = gd.matrix("x", shape=("n", 5)), gd.RandomStream(7)
        shape = x.shape
        y = x + s.normal(shape) * s.uniform(shape, 2.0, 3.0) + s.randint(shape, -3, 9)
        y = gd.where(s.bernoulli(shape, 0.3), y, gd.dropout(y, 0.5, s))
        f, before = gd.function([x], y, backend=SHIM), fake_cupy.Graph.launches
        oracle = gd.function([x], y, backend="numpy")
        for call in range(8):
            found = f(data(70, 5))
            with s.at(call):
                np.testing.assert_allclose(found, oracle(data(70, 5)), rtol=1e-6, atol=1e-6)
        assert "outside" not in f.executable.listing("program")
        assert fake_cupy.Graph.launches - before >= 4

    def test_what_can_be_wrong_at_the_call_is_left_to_the_oracle(self) -> None:
        p, s = gd.vector("p"), gd.RandomStream(7)
        f = gd.function([p], s.bernoulli(p.shape, p), backend=SHIM)
        assert f(np.array([0, 1], "f4")).tolist() == [False, True]
        with pytest.raises(gd.GraphdropError, match="between 0 and 1"):
            f(np.array([0, 1.5], "f4"))


class TestRows:
    @pytest.mark.parametrize("width", [1, 32, 37])
    @pytest.mark.parametrize("rows", [1, 7, 500])
    def test_many_are_added_in_their_order(self, rows: int, width: int) -> None:
        """More positions than a block has threads, most of them several times."""
        x, v, i = gd.matrix("x"), gd.matrix("v"), gd.vector("i", dtype="int64")
        y = gd.scatter_add(x, i, v)
        f, oracle = (gd.function([x, v, i], y, backend=b) for b in (SHIM, "numpy"))
        at = np.random.default_rng(0).integers(-rows, rows, 700)
        given = (data(rows, width), data(700, width), at)
        np.testing.assert_array_equal(f(*given), oracle(*given))


class TestReductions:
    @pytest.mark.parametrize(
        ("shape", "axis"),
        [((20_000,), 0), ((3, 20_001), 1), ((20_001, 3), 0), ((700, 70), 0), ((5, 400, 30), (0, 1)),
         ((5, 40, 30), 1), ((5, 40, 30), (0, 2)), ((0, 3), 0), ((3, 0), 0), ((3, 0), 1)],
    )  # fmt: skip
    def test_of_any_axes_in_chunks_or_not(self, shape: tuple[int, ...], axis: Any) -> None:
        x = gd.tensor("x", "float32", [None] * len(shape))
        outputs = [x.sum(axis=axis), gd.square(x).sum(axis=axis, keepdims=True)]
        array = data(*shape)
        array.reshape(-1)[array.size // 2 : array.size // 2 + 1] = np.nan
        wide = array.astype(np.float64)
        right = [wide.sum(axis=axis), np.square(wide).sum(axis=axis, keepdims=True)]
        if array.size:
            outputs += [x.max(axis=axis), x.min(axis=axis)]
            right += [array.max(axis=axis), array.min(axis=axis)]
        for r, found in zip(right, gd.function([x], outputs, backend=SHIM)(array), strict=True):
            np.testing.assert_allclose(found, r, rtol=2e-6, atol=1e-6)

    def test_of_several_axes_at_once(self) -> None:
        def outputs(x: Any) -> Any:
            p = gd.softmax(x)
            return [p, p.sum(axis=0), p.sum(), x.sum(axis=1)]

        for right, found in both(outputs, data(65, 40)):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)

    def test_are_the_same_bytes_every_time(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], [x.sum(), x.sum(axis=0)], backend=SHIM)
        a, b = f(data(300, 41)), f(data(300, 41))
        assert [r.tobytes() for r in a] == [r.tobytes() for r in b]


class TestArrays:
    def test_results_are_numpys_unless_asked_for(self) -> None:
        x = gd.vector("x")
        assert type(gd.function([x], x * 2, backend=SHIM)(data(3))) is np.ndarray
        there = gd.function([x], x * 2, backend=SHIM, results="device")(data(3))
        assert isinstance(there, fake_cupy.ndarray)
        # and are taken as arguments, here and on the host
        for name in (SHIM, "llvm", "numpy"):
            again = gd.function([x], x + 1, backend=name)(there)
            np.testing.assert_array_equal(again, data(3) * 2 + 1)
        with pytest.raises(gd.errors.InputError, match=r"declare another number of axes"):
            gd.function([gd.matrix("m")], gd.constant(1.0), backend=SHIM,
                        on_unused_input="ignore")(there)  # fmt: skip

    def test_shared_values_live_where_they_were_used_last(self) -> None:
        x = gd.vector("x")
        w = gd.shared(np.zeros(3, "f4"), "w")
        train = {b: gd.function([x], w.sum(), updates={w: w + x}, backend=b)
                 for b in (SHIM, "llvm", "numpy")}  # fmt: skip
        one = np.ones(3, "f4")
        for i, b in enumerate((SHIM, SHIM, "llvm", SHIM, "numpy", "llvm", SHIM)):
            assert train[b](one) == 3 * i
            assert isinstance(w.array, fake_cupy.ndarray if b == SHIM else np.ndarray)
            np.testing.assert_array_equal(w.get_value(), np.full(3, i + 1, "f4"))
        w.set_value(one)
        assert train[SHIM](one) == 3

    def test_rows_of_a_table_are_updated(self) -> None:
        """The whole array is written on a device; repeated rows add up in their order."""
        ids = gd.ivector("ids")
        values = []
        for name in ("numpy", SHIM):
            table = gd.shared(data(50, 8), "table")
            loss = gd.square(table[ids]).sum()
            step = gd.function([ids], loss, updates=optim.sgd(loss, [table], lr=0.1), backend=name)
            for _ in range(3):
                step(np.array([3, 3, 49, -1, 0, 3], "i4"))
            values.append(table.get_value())
        np.testing.assert_allclose(values[1], values[0], rtol=1e-6)

    def test_positions_that_are_none_are_explained(self) -> None:
        ids, x = gd.ivector("ids"), gd.matrix("x")
        f = gd.function([ids, x], x[ids], backend=SHIM)
        with pytest.raises(gd.errors.OutOfRangeError, match="7"):
            f(np.array([0, 7], "i4"), data(5, 2))
        np.testing.assert_array_equal(f(np.array([4, -5], "i4"), data(5, 2)), data(5, 2)[[4, 0]])

    def test_two_threads_may_call_one_function(self) -> None:
        x = gd.matrix("x")
        f = gd.function([x], gd.softmax(gd.tanh(x) @ x.T), backend=SHIM)
        arrays = [data(6, 5, seed=s) for s in range(8)]
        right = [f(a) for a in arrays]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(f, arrays))
        for r, g in zip(right, found, strict=True):
            np.testing.assert_array_equal(g, r)


def test_what_has_a_computed_size_is_wanted_twice() -> None:
    x, k = gd.vector("x"), gd.lscalar("k")
    f = gd.function([x, k], [x[:k], x[:k]], backend=SHIM, results="device")
    first, second = f(data(5), 3)
    np.testing.assert_array_equal(first.get(), data(5)[:3])
    np.testing.assert_array_equal(second.get(), data(5)[:3])
    assert first.data.ptr != second.data.ptr


class TestReplay:
    def step(self) -> Any:
        x = gd.matrix("x", shape=("n", 6))
        w = gd.shared(data(6, 6) * 0.3, "w")
        h = gd.dropout(gd.tanh(x @ w), 0.5, gd.RandomStream(1), name="h")
        loss = (h * h).sum()
        return gd.function([x], [loss, h], updates=optim.sgd(loss, [w], lr=0.01), backend=SHIM)

    def test_a_repeated_step_is_one_launch_with_new_masks(self) -> None:
        f, before = self.step(), fake_cupy.Graph.launches
        for call in range(9):
            _, h = f(data(5, 6))
            np.testing.assert_array_equal(h != 0, f.mask("h", call))
        assert fake_cupy.Graph.launches - before >= 5

    def test_each_stream_has_memory_of_its_own(self) -> None:
        f = self.step()
        f(data(5, 6))
        plans_before = len(f.executable._plans)
        with fake_cupy.Stream(non_blocking=True):
            for call in range(1, 5):
                np.testing.assert_array_equal(f(data(5, 6))[1] != 0, f.mask("h", call))
        assert len(f.executable._plans) == plans_before + 1

    def test_no_memory_to_record_with_is_no_reason_to_stop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Any) -> None:
            raise MemoryError("out of memory")

        x = gd.matrix("x")
        f = gd.function([x], x[:, ::-1] @ x.T, backend=SHIM)
        monkeypatch.setattr(fake_cupy.Stream, "begin_capture", refuse)
        monkeypatch.setattr(fake_cupy.Stream, "end_capture", lambda self: None)
        for _ in range(4):
            assert f(data(3, 3)).shape == (3, 3)
        assert "calls are not replayed" in f.executable.listing("program")

    def test_other_sizes_have_launches_of_their_own(self) -> None:
        f = self.step()
        for call, n in enumerate((5, 3, 5, 3, 5, 3, 5, 3)):
            np.testing.assert_array_equal(f(data(n, 6))[1] != 0, f.mask("h", call, n=n))

    def test_steps_outside_are_not_replayed_and_it_is_said(self) -> None:
        x = gd.vector("x")
        f, before = gd.function([x], gd.sort(x) * 2, backend=SHIM), fake_cupy.Graph.launches
        for _ in range(4):
            f(data(9))
        assert fake_cupy.Graph.launches == before
        text = f.executable.listing("program")
        assert "outside: sort" in text
        assert "calls are not replayed: steps outside" in text

    @pytest.mark.parametrize("where", ["begin_capture", "end_capture"])
    def test_a_driver_that_refuses_is_no_reason_to_stop(
        self, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        real = getattr(fake_cupy.Stream, where)

        def refuse(self: Any) -> None:
            if where == "end_capture":
                real(self)
            raise fake_cupy.CUDARuntimeError("cudaErrorNotSupported")

        monkeypatch.setattr(fake_cupy.Stream, where, refuse)
        f = self.step()
        for call in range(5):
            np.testing.assert_array_equal(f(data(5, 6))[1] != 0, f.mask("h", call))
        assert "calls are not replayed: the driver" in f.executable.listing("program")


class TestNoGpu:
    """A machine without CuPy, without a driver, or with a broken one."""

    @pytest.fixture(autouse=True)
    def _forget(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def clear() -> None:
            graphdrop_cupy.backend.load.cache_clear()
            backends._best.cache_clear()

        monkeypatch.setattr(backends, "_loaded", {})
        monkeypatch.delenv(backends.ENVIRONMENT, raising=False)
        clear()
        yield
        clear()

    def cupy(self, monkeypatch: pytest.MonkeyPatch, count: Any) -> None:
        def devices() -> int:
            if isinstance(count, Exception):
                raise count
            return int(count)

        module = types.ModuleType("cupy")
        vars(module).update({k: v for k, v in vars(fake_cupy).items() if k[0] != "_"})
        runtime = types.SimpleNamespace(**vars(fake_cupy.cuda.runtime), getDeviceCount=devices)
        cuda = types.SimpleNamespace(**{**vars(fake_cupy.cuda), "runtime": runtime})
        module.cuda = cuda  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(graphdrop_cupy.products, "cublas", fake_cublas.library)

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cupy", None)  # what Python takes for not installed
        with pytest.raises(MissingError, match=r"pip install 'graphdrop\[cupy\]'"):
            graphdrop_cupy.backend.load()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert backends.get_backend("auto").name == "llvm"  # nothing to say

    def test_auto_takes_a_gpu_that_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cupy(monkeypatch, 1)
        assert backends.get_backend("auto").name == "cupy"

    @pytest.mark.parametrize(
        "error",
        [
            ImportError("libcublas.so.12: cannot open shared object file"),
            AttributeError("undefined symbol: cublasGemmEx"),
            RuntimeError("CuPy failed to load libnvrtc.so.12"), fake_cupy.CompileException("sm_30"),
        ],
    )  # fmt: skip
    def test_not_all_of_cuda(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.cupy(monkeypatch, 1)

        def fail(*_: Any) -> Any:
            raise error

        if "cublas" in str(error):
            monkeypatch.setattr(graphdrop_cupy.products, "cublas", fail)
        else:
            cuda = sys.modules["cupy"].cuda  # type: ignore[attr-defined]
            names = {**vars(cuda.compiler), "compile_using_nvrtc": fail}
            monkeypatch.setattr(cuda, "compiler", types.SimpleNamespace(**names))
            monkeypatch.setattr(disk, "load", lambda name: None)
        with pytest.raises(BackendError, match=r"not all that it needs.*\[ctk\]"):
            backends.get_backend("cupy")
        with pytest.warns(UserWarning, match="goes on without 'cupy'"):
            assert backends.get_backend("auto").name == "llvm"

    @pytest.mark.parametrize("count", [0, fake_cupy.CUDARuntimeError("cudaErrorNoDevice: none")])
    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch, count: Any) -> None:
        self.cupy(monkeypatch, count)
        with pytest.raises(BackendError, match=r"CuPy is installed, but .* GPU") as caught:
            backends.get_backend("cupy")
        assert "backend='llvm'" in str(caught.value)
        with pytest.warns(UserWarning, match="goes on without 'cupy'"):
            assert backends.get_backend("auto").name == "llvm"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert backends.get_backend("auto").name == "llvm"  # it has been said


class TestShim:
    """That what it is there for is caught."""

    HEAD = 'extern "C" __global__ void gd_0(float *__restrict__ b0, const INDEX s0) {\n'

    def run(self, body: str, size: int = 64, threads: int = 64) -> Array:
        module = fake_cupy.module_of(self.HEAD + body + "\n}", ("-DINDEX=int",))
        array = fake_cupy.asarray(np.arange(size, dtype="f4"))
        module.get_function("gd_0")((1, 1, 1), (threads, 1, 1), (array.data.ptr, np.int32(size)))
        return array.get()

    SHIFT = "__shared__ float s[64]; s[threadIdx.x] = b0[threadIdx.x];\n{}\n" \
            "b0[threadIdx.x] = s[(threadIdx.x + 1) % 64];"  # fmt: skip

    def test_threads_that_wait_for_each_other(self) -> None:
        found = self.run(self.SHIFT.format("__syncthreads();"))
        np.testing.assert_array_equal(found, np.roll(np.arange(64), -1))

    def test_a_missing_barrier(self) -> None:
        with pytest.raises(RuntimeError, match="order of threads"):
            self.run(self.SHIFT.format(""))

    def test_a_barrier_that_some_do_not_reach(self) -> None:
        with pytest.raises(RuntimeError, match="barrier"):
            self.run("if (threadIdx.x < 5) __syncthreads();")

    def test_a_shuffle_that_some_do_not_reach(self) -> None:
        with pytest.raises(RuntimeError, match="shuffle"):
            self.run("if (threadIdx.x < 5) b0[0] = __shfl_sync(~0u, 1.0f, 0);")

    def test_shared_memory_that_nobody_wrote(self) -> None:
        found = self.run("__shared__ float s[64]; b0[threadIdx.x] = s[threadIdx.x];")
        assert np.isnan(found).all()

    def test_host_arrays_given_to_kernels(self) -> None:
        module = fake_cupy.module_of(self.HEAD + "}", ("-DINDEX=int",))
        with pytest.raises(TypeError, match="no address of the device's"):
            module.get_function("gd_0")((1, 1, 1), (1, 1, 1), (data(4).ctypes.data, np.int32(4)))

    def test_device_arrays_given_to_numpy(self) -> None:
        with pytest.raises(TypeError, match=r"use \.get"):
            np.asarray(fake_cupy.asarray(data(4)))


class TestBounds:
    """Accesses beyond arrays, which the address sanitizer sees."""

    HEAD = "import numpy as np, graphdrop as gd\nfrom tests import cudashim\n" \
           "shim = cudashim.register()\nfrom tests.cudashim import fake_cupy\n"  # fmt: skip

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        ask = ["g++", "-print-file-name=libasan.so"]
        library = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(library).exists():
            pytest.skip("g++ has no address sanitizer")
        env = os.environ | {
            "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0",
            "CUDASHIM_FLAGS": "-fsanitize=address",
        }  # fmt: skip
        root = Path(__file__).parent.parent
        return subprocess.run(
            [sys.executable, "-c", self.HEAD + script],
            capture_output=True, text=True, env=env, cwd=root, check=False, timeout=300,
        )  # fmt: skip

    def test_kernels_stay_inside(self) -> None:
        done = self.run(
            "x = gd.matrix('x'); ids = gd.ivector('ids')\n"
            "y = gd.dropout(gd.softmax(x), 0.5, gd.RandomStream(1))\n"
            "outs = [y, y.sum(axis=0), y.sum(axis=1), x.max(), x[ids], x[:, ::-2] + 1, y @ x.T]\n"
            "outs += [gd.grad((x[ids] * 2).sum(), x), x.astype('float16').sum(axis=0)]\n"
            "f = gd.function([x, ids], outs, backend=shim)\n"
            "for n, m in ((1, 1), (3, 37), (40, 600), (300, 5)):\n"
            "    f(np.ones((n, m), 'f4'), np.arange(n, dtype='i4')[::-1])\n"
            "print('done')\n"
        )
        assert done.stdout == "done\n", done.stderr[-3000:]

    @pytest.mark.parametrize("place", ["-1", "s0"])
    def test_a_kernel_that_does_not_is_caught(self, place: str) -> None:
        done = self.run(
            "head = 'extern \"C\" __global__ void gd_0(float *b0, const INDEX s0)'\n"
            f"module = fake_cupy.module_of(head + '{{ b0[{place}] = 1; }}', ('-DINDEX=int',))\n"
            "a = fake_cupy.asarray(np.ones(10, 'f4'))\n"
            "module.get_function('gd_0')((1, 1, 1), (1, 1, 1), (a.data.ptr, np.int32(10)))\n"
        )
        assert done.returncode != 0
        assert "heap-buffer-overflow" in done.stderr
