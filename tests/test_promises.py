"""The promises of section 8 that are about masks, and published bugs of this kind elsewhere.

(P6 is with the op table, P8 with the checkpoint tests.)
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.nn.dropout import spatial_dropout
from graphdrop.random import RandomStream

from . import cudashim, philox

BACKENDS = ["numpy", "llvm", cudashim.register()]
each_backend = pytest.mark.parametrize(
    "backend", [*BACKENDS[:2], pytest.param(BACKENDS[2], marks=cudashim.needs_compiler)]
)
each_level = pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
SEED = 2**63 + 12345


def data(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(1, 1, shape).astype("f4")


def network(stream: RandomStream, training: Any, rate: Any = 0.5) -> Any:
    """(x, weights, hidden layer, loss, gradients) of a small dropout network."""
    x = gd.matrix("x", shape=("batch", 6))
    w1, w2 = gd.shared(data((6, 16), 1), "w1"), gd.shared(data((16, 3), 2), "w2")
    h = gd.dropout(gd.tanh(x @ w1), rate, stream, training, name="hidden")
    h = gd.dropout(h * 2 + 1, 0.25, stream, training)
    loss = gd.square(h @ w2).mean()
    return x, [w1, w2], h, loss, gd.grad(loss, [w1, w2])


@each_backend
@each_level
class TestP1:
    """Masks and integer draws are the same bits everywhere."""

    def test_masks_and_draws(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.matrix("x", shape=("batch", 6))
        nodes = [
            gd.dropout(x, 0.3, stream, name="a"),
            # inside and outside of what a compiler would fuse, and of two dtypes
            gd.tanh(gd.dropout(gd.exp(x) * 2, 0.3, stream, name="b")).sum(axis=0),
            stream.randint(x.shape, -7, 100, name="c"),
            stream.bernoulli(x.shape, 0.2, name="d"),
            stream.categorical([0.25, 0.5, 0.25], x.shape, name="e"),
            stream.permutation(x.shape[0], name="f"),
            stream.uniform(x.shape, name="g"),
        ]
        f = gd.function([x], nodes, backend=backend, optimize=optimize)
        for call, batch in enumerate([1, 5, 0, 33]):
            where = {c: (SEED, philox.site_of(c), call) for c in "abcdefg"}
            value, shape = data((batch, 6), call), (batch, 6)
            a, _, c, d, e, order, u = f(value)
            assert (a == philox.dropped(value, philox.mask(0.3, shape, *where["a"]), 0.3)).all()
            assert (f.mask("b", call=call) == philox.mask(0.3, shape, *where["b"])).all()
            lane = {k: philox.lanes(np.uint64, shape, *where[k]).astype(object) for k in "ce"}
            assert (c == (lane["c"] * 107 >> 64) - 7).all()
            assert (d == (philox.lanes(np.uint32, shape, *where["d"]) < round(0.2 * 2**32))).all()
            fourth = lane["e"] * 4 >> 64
            assert (e == (fourth >= 1) + 0 + (fourth >= 3)).all()
            words = philox.lanes(np.uint64, (batch,), *where["f"])
            assert (order == np.argsort(words, kind="stable")).all()
            lane32 = philox.lanes(np.uint32, shape, *where["g"])
            assert (u == ((lane32 >> 8) * np.float64(2**-24)).astype("f4")).all()

    def test_rewrites_change_no_call_number(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(9,))
        # rewrites may find that none of these draws matters
        idle = gd.dropout(x, 0.5, stream) * 0 + stream.uniform((9,)).sum() * 0
        f = gd.function([x], idle, backend=backend, optimize=optimize)
        for _ in range(3):
            f(np.ones(9, "f4"))
        assert (f.call, stream.calls) == (2, 3)


@each_backend
@each_level
class TestP2:
    """Forward and backward see one mask, at every order."""

    def test_every_order(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.dvector("x", shape=(50,))
        h = gd.dropout(gd.sin(x), 0.5, stream, name="h")
        nodes = [h]
        for _ in range(4):
            nodes.append(gd.grad(nodes[-1].sum(), x))
        f = gd.function([x], nodes, backend=backend, optimize=optimize)
        value = np.random.default_rng(0).uniform(0.2, 1.2, 50)
        for call in range(3):
            found = f(value)
            keep = philox.mask(0.5, (50,), SEED, philox.site_of("h"), call)
            assert (f.mask("h", call=call) == keep).all()
            right = [np.sin(value), np.cos(value), -np.sin(value), -np.cos(value), np.sin(value)]
            for result, derivative in zip(found, right, strict=True):
                assert ((result != 0) == keep).all()
                np.testing.assert_allclose(result, 2 * derivative * keep, rtol=1e-12)

    def test_gradient_compiled_apart_replays_the_forward_call(
        self, backend: str, optimize: bool
    ) -> None:
        stream = RandomStream(SEED)
        x, weights, _, loss, gradients = network(stream, True)
        options = {"backend": backend, "optimize": optimize}
        both = gd.function([x], [loss, *gradients], **options)
        forward, backward = (
            gd.function([x], loss, **options),
            gd.function([x], gradients, **options),
        )
        value = data((4, 6))
        expected = both(value)
        with stream.at(call=0):
            assert forward(value).tobytes() == expected[0].tobytes()
            for g, right in zip(backward(value), expected[1:], strict=True):
                np.testing.assert_allclose(g, right, rtol=1e-5)
                assert ((g == 0) == (right == 0)).all()
        assert len(weights) == len(gradients)


@each_backend
@each_level
class TestP3:
    """Two dropouts never share a mask; one used twice is one."""

    def test_equal_looking_draws_never_merge(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(256,))
        pairs = [
            [gd.dropout(x, 0.5, stream) for _ in range(2)],
            [stream.uniform((256,)) for _ in range(2)],
            [stream.bernoulli((256,)) for _ in range(2)],
            [stream.normal((256,)) for _ in range(2)],
        ]
        f = gd.function([x], pairs, backend=backend, optimize=optimize)
        for a, b in f(np.ones(256, "f4")):
            assert (a != b).sum() > 60

    def test_one_node_used_twice_is_one_mask(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(256,))
        y = gd.dropout(x, 0.5, stream)
        f = gd.function([x], [y - y, y * x, y], backend=backend, optimize=optimize)
        difference, product, alone = f(np.ones(256, "f4"))
        assert (difference == 0).all()
        assert (product == alone).all()
        assert stream.calls == 1

    def test_no_mask_repeats(self, backend: str, optimize: bool) -> None:
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(128,))
        first = gd.function([x], [gd.dropout(x, 0.5, stream) for _ in range(3)], backend=backend,
                            optimize=optimize)  # fmt: skip
        second = gd.function([x], [gd.dropout(x, 0.5, stream, name=c) for c in "abc"],
                             backend=backend, optimize=optimize)  # fmt: skip
        ones = np.ones(128, "f4")
        seen = {m.tobytes() for _ in range(20) for f in (first, second) for m in f(ones)}
        assert len(seen) == 120


@each_backend
@each_level
class TestP4:
    """Evaluation is the graph without dropout, to the byte, and advances nothing."""

    def test_bytes_and_calls(self, backend: str, optimize: bool) -> None:
        options: dict[str, Any] = {"backend": backend, "optimize": optimize}
        value = data((7, 6))
        value[0, 0], value[1, 1] = -0.0, 1e-40
        plain = RandomStream(0)
        x, _, h, loss, gradients = network(plain, False)
        expected = gd.function([x], [h, loss, *gradients], **options)(value)
        t = gd.flag()
        streams = [RandomStream(SEED) for _ in range(3)]
        functions = []
        for stream, training, rate in zip(streams, [t, t, t], [0.5, 0.5, 0.9], strict=True):
            x, _, h, loss, gradients = network(stream, training, rate)
            functions.append((x, [h, loss, *gradients]))
        runs: list[Callable[[], Any]] = []
        x, nodes = functions[0]
        given = gd.function([x], nodes, givens={t: False}, **options)
        runs.append(lambda: given(value))
        x, nodes = functions[1]
        dynamic = gd.function([x, t], nodes, **options)
        runs.append(lambda: dynamic(value, False))
        x, nodes = functions[2]
        other = gd.function([x, t], nodes, **options)
        runs.append(lambda: other(value, False))
        for run in runs:
            for _ in range(2):
                for result, right in zip(run(), expected, strict=True):
                    assert result.tobytes() == right.tobytes()
        assert [s.calls for s in streams] == [0, 0, 0]
        assert dynamic(value, True)[1] != expected[1]
        assert streams[1].calls == 1


@each_backend
@each_level
class TestP5:
    """Rates 0, 1 and out of range (known rates that are wrong: see the op table)."""

    @pytest.mark.parametrize("rate", [0.0, 1.0])
    def test_zero_and_one(self, backend: str, optimize: bool, rate: float) -> None:
        symbolic = gd.scalar("rate")
        value = data((5, 7))
        value[0, :3] = np.nan, np.inf, -0.0
        for r in (rate, symbolic):
            x = gd.matrix("x", shape=("batch", 7))
            y = gd.dropout(x, r, RandomStream(SEED))
            f = gd.function([x, symbolic], [y, gd.grad((y * 3).sum(), x)], backend=backend,
                            optimize=optimize, on_unused_input="ignore")  # fmt: skip
            y_value, g = f(value, rate)
            assert y_value.tobytes() == (value if rate == 0 else np.zeros((5, 7), "f4")).tobytes()
            assert (g == (3 if rate == 0 else 0)).all()

    @pytest.mark.parametrize("rate", [-0.001, 1.001, np.nan, np.inf])
    def test_out_of_range_at_the_call(self, backend: str, optimize: bool, rate: float) -> None:
        symbolic, stream = gd.scalar("rate"), RandomStream(SEED)
        x = gd.matrix("x", shape=("batch", 7))
        f = gd.function([x, symbolic], gd.dropout(x, symbolic, stream), backend=backend,
                        optimize=optimize)  # fmt: skip
        with pytest.raises(gd.GraphdropError, match="between 0 and 1"):
            f(data((5, 7)), rate)


PROGRAM = """
import hashlib, numpy as np, graphdrop as gd
rng = np.random.default_rng(0)
stream = gd.RandomStream(99)
x = gd.matrix("x", shape=("batch", 6))
w = gd.shared(rng.normal(size=(6, 4)).astype("f4"), "w")
h = gd.dropout(gd.tanh(x @ w), 0.5, stream, name="h") + stream.normal((x.shape[0], 4), scale=0.1)
loss = gd.square(gd.dropout(h, 0.2, stream)).mean()
step = gd.function([x], [loss, h], updates={w: w - 0.1 * gd.grad(loss, w)})
digest = hashlib.sha256()
for _ in range(5):
    for value in step(rng.normal(size=(9, 6)).astype("f4")):
        digest.update(value.tobytes())
digest.update(w.get_value().tobytes() + repr(stream.state_dict()).encode())
"""


class TestP7:
    """Same inputs and state, same bytes, whatever PYTHONHASHSEED."""

    def test_hash_seeds_and_runs(self) -> None:
        spaces: list[dict[str, Any]] = [{}, {}]
        for space in spaces:
            exec(PROGRAM, space)
        digests = {space["digest"].hexdigest() for space in spaces}
        for hash_seed in ("0", "4242"):
            found = subprocess.run(
                [sys.executable, "-c", PROGRAM + "print(digest.hexdigest())"],
                env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            digests.add(found.stdout.strip())
        assert len(digests) == 1
        assert digests != {hashlib.sha256().hexdigest()}


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run work(0) ... work(count - 1) in threads, all at once; what they raise is raised here."""
    start = threading.Barrier(count)

    def run(index: int) -> object:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


def sleep_between_lines(function: Any) -> Callable[..., Any]:
    """A trace function that lets other threads in after every line of `function`."""

    def local(frame: Any, event: str, arg: Any) -> Any:
        time.sleep(1e-5)
        return local

    return lambda frame, event, arg: local if frame.f_code is function.__code__ else None


def test_call_numbers_are_handed_out_one_by_one() -> None:
    # P9 where it matters: in the middle of taking a number, whatever the interpreter's timing
    stream, numbers = RandomStream(SEED), list[int]()
    threading.settrace(sleep_between_lines(RandomStream.take_call))
    try:
        in_threads(8, lambda _: numbers.extend([stream.take_call() for _ in range(20)]))
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    assert sorted(numbers) == list(range(160))
    assert stream.calls == 160


@each_backend
@pytest.mark.usefixtures("eager_switching")
class TestP9:
    """Compiled functions are called from several threads."""

    def test_no_two_calls_get_one_number(self, backend: str) -> None:
        stream, n, calls = RandomStream(SEED), 64, 100
        x = gd.vector("x", shape=(n,))
        functions = [
            gd.function([x], gd.dropout(x, 0.5, stream, name=c), backend=backend) for c in "ab"
        ]
        masks: list[tuple[str, bytes]] = []

        def work(index: int) -> None:
            f, ones = functions[index % 2], np.ones(n, "f4")
            for _ in range(calls):
                masks.append(("ab"[index % 2], (f(ones) > 0).tobytes()))

        in_threads(8, work)
        assert stream.calls == 8 * calls
        number = {
            (c, philox.mask(0.5, (n,), SEED, philox.site_of(c), call).tobytes()): call
            for c in "ab" for call in range(8 * calls)
        }  # fmt: skip
        assert sorted(number[m] for m in masks) == list(range(8 * calls))

    def test_replay_holds_for_its_thread_only(self, backend: str) -> None:
        stream, n = RandomStream(SEED), 64
        x = gd.vector("x", shape=(n,))
        f = gd.function([x], gd.dropout(x, 0.5, stream), backend=backend)
        ones = np.ones(n, "f4")

        def work(index: int) -> None:
            for call in range(index, 200, 8):
                with stream.at(call=call):
                    keep = philox.mask(0.5, (n,), SEED, 0, call)
                    assert ((f(ones) > 0) == keep).all()

        in_threads(8, work)
        assert stream.calls == 0

    def test_updates_are_not_lost(self, backend: str) -> None:
        stream = RandomStream(SEED)
        total = gd.shared(np.zeros(64, "f8"), "total")
        drawn = gd.cast(stream.bernoulli((64,), 0.5), "float64")
        f = gd.function([], [], updates={total: total + drawn}, backend=backend)
        in_threads(8, lambda _: [f() for _ in range(25)])
        lanes = [philox.lanes(np.uint32, (64,), SEED, 0, call) < 2**31 for call in range(200)]
        assert total.get_value().tolist() == np.sum(lanes, axis=0).tolist()


@each_backend
@each_level
class TestPublishedBugs:
    """Bugs of other compilers, so that they never become ours."""

    def test_neighbouring_channels_do_not_share_a_mask(self, backend: str, optimize: bool) -> None:
        # pytorch#198333: four neighbouring channels had one mask after a reshape
        stream = RandomStream(SEED)
        x = gd.tensor4("x", shape=(8, 16, 4, 4))
        flat = gd.dropout(x.reshape(8, 256), 0.5, stream, name="flat").reshape(8, 16, 4, 4)
        whole = spatial_dropout(x, 0.5, stream, name="channels")
        f = gd.function([x], [flat, whole], backend=backend, optimize=optimize)
        first, second = f(np.ones((8, 16, 4, 4), "f4"))
        keep = philox.mask(0.5, (8, 256), SEED, philox.site_of("flat"), 0)
        assert ((first > 0) == keep.reshape(8, 16, 4, 4)).all()
        keep = philox.mask(0.5, (8, 16, 1, 1), SEED, philox.site_of("channels"), 0)
        assert ((second > 0) == keep).all()
        for masks in ((first > 0).reshape(8, 16, 16), (second > 0)[..., 0]):
            rows = masks.transpose(1, 0, 2).reshape(16, -1)
            assert len({row.tobytes() for row in rows}) == 16

    def test_backward_draws_nothing_afresh(self, backend: str, optimize: bool) -> None:
        # pytorch#190758: under recomputation the backward pass drew a mask of its own
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(200,))
        y = gd.dropout(x, 0.5, stream)
        f = gd.function([x], gd.grad((y * y).sum(), x), backend=backend, optimize=optimize)
        for call in range(3):
            keep = philox.mask(0.5, (200,), SEED, 0, call)
            assert ((f(np.ones(200, "f4")) != 0) == keep).all()
        assert stream.calls == 3

    def test_order_of_evaluation_swaps_no_masks(self, backend: str, optimize: bool) -> None:
        # pytorch#192635: a compiler that reordered two dropouts swapped their masks
        stream = RandomStream(SEED)
        x = gd.vector("x", shape=(200,))
        a, b = gd.dropout(x, 0.5, stream), gd.dropout(gd.exp(x), 0.5, stream)
        value = np.ones(200, "f4")
        keep = [philox.mask(0.5, (200,), SEED, site, 0) for site in (0, 1)]
        for nodes, order in (([a, b], (0, 1)), ([b, a], (1, 0)), ([b], (1,)), ([a * 2 + b, b], ())):
            f = gd.function([x], nodes, backend=backend, optimize=optimize)
            with stream.at(call=0):
                found = f(value)
            for result, site in zip(found, order, strict=False):
                assert ((result > 0) == keep[site]).all()
        assert ((found[1] > 0) == keep[1]).all()

    def test_dropout_of_a_constant_is_not_folded(self, backend: str, optimize: bool) -> None:
        # TVM#7530: constant folding evaluated dropout, so that every call had one mask
        stream = RandomStream(SEED)
        y = gd.dropout(gd.constant(np.ones(200, "f4")), 0.5, stream) + 1
        f = gd.function([], [y, stream.uniform((3,), 2, 3)], backend=backend, optimize=optimize)
        for call in range(3):
            keep = philox.mask(0.5, (200,), SEED, 0, call)
            found, u = f()
            assert ((found > 1) == keep).all()
            lane = philox.lanes(np.uint32, (3,), SEED, 1, call) >> 8
            np.testing.assert_allclose(u, 2 + lane * 2.0**-24, rtol=1e-6)

    def test_two_random_nodes_are_not_merged(self, backend: str, optimize: bool) -> None:
        # onnxruntime PR#3047, onnx/optimizer#254: equal-looking random nodes became one
        stream = RandomStream(SEED)
        difference = stream.normal((200,)) - stream.normal((200,))
        f = gd.function([], difference, backend=backend, optimize=optimize)
        assert (f() != 0).all()
