"""Streams and draws: their bits against the formula, their statistics, their mistakes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import scipy.stats

import graphdrop as gd
from graphdrop.errors import ArgumentError, DTypeError, RandomError, ShapeError
from graphdrop.ops import random as ops
from graphdrop.random import RandomStream, words
from graphdrop.testing.table import INTEGERS

from . import philox

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (1, 1), (4, 3, 11)]
BIG = 0xFEDC_BA98_7654_3210


def draw(node: Any, *args: Any, inputs: Any = (), **options: Any) -> Any:
    return gd.function(list(inputs), node, **options)(*args)


class TestWords:
    # https://github.com/DEShawResearch/random123, tests/kat_vectors
    KNOWN = (
        ([0] * 4, [0] * 2,
         [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]),
        ([2**64 - 1] * 4, [2**64 - 1] * 2,
         [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]),
    )  # fmt: skip

    @pytest.mark.parametrize(("counter", "key", "block"), KNOWN)
    def test_published_vectors(self, counter: list[int], key: list[int], block: list[int]) -> None:
        assert philox.philox4x64(counter, key) == block
        before = (sum(c << (64 * i) for i, c in enumerate(counter)) - 1) % 2**256
        generator = np.random.Philox(
            key=np.array(key, np.uint64),
            counter=np.array([before >> (64 * i) & (2**64 - 1) for i in range(4)], np.uint64),
        )
        assert generator.random_raw(4).tolist() == block

    @pytest.mark.parametrize("seed", [0, 5, BIG, 2**64 - 1])
    @pytest.mark.parametrize("site", [0, 1, 2**63, 2**63 + 1, 2**64 - 1])
    def test_words_are_blocks_of_the_counter(self, seed: int, site: int) -> None:
        for call, step, example in [(0, 0, 0), (3, 0, 0), (2**40, 7, 2**63 + 9)]:
            blocks = [
                philox.philox4x64([b + 1, call, step, example], [seed, site]) for b in range(3)
            ]
            expected = [w for block in blocks for w in block][:10]
            assert words(seed, site, call, step, example, 10).tolist() == expected
            assert philox.raw(seed, site, call, step, example, 10).tolist() == expected

    def test_sites_above_2_to_63_are_not_rounded(self) -> None:
        # a list [5, site] would go through float64 (docs/decisions/0002)
        found = {words(5, 2**63 + i, 0, count=4).tobytes() for i in range(64)}
        assert len(found) == 64

    def test_nothing_is_left_over_from_the_draw_before(self) -> None:
        alone = words(1, 2, 3, count=3).tolist()
        for count in (1, 2, 5, 0, 7):
            words(9, 9, 9, count=count)
            assert words(1, 2, 3, count=3).tolist() == alone

    def test_threads_have_generators_of_their_own(self) -> None:
        expected = [words(4, site, 0, count=4000).tobytes() for site in range(8)]
        wrong: list[int] = []

        def work(site: int) -> None:
            for _ in range(20):
                if words(4, site, 0, count=4000).tobytes() != expected[site]:
                    wrong.append(site)

        threads = [threading.Thread(target=work, args=(s,)) for s in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


def uniform(dtype: str, shape: tuple[int, ...], *where: int) -> Any:
    if dtype == "float64":
        return (philox.lanes(np.uint64, shape, *where) >> 11) * 2.0**-53
    lane = philox.lanes(np.uint32, shape, *where).astype(np.float64)
    return np.floor(lane / 2**8) / 2**24 if dtype == "float32" else np.floor(lane / 2**21) / 2**11


def normal(shape: tuple[int, ...], *where: int) -> Any:
    lane = philox.lanes(np.uint64, shape, *where)
    first, second = (lane >> 32).astype(np.float64), (lane & 0xFFFFFFFF).astype(np.float64)
    return np.sqrt(-2 * np.log((first + 0.5) * 2**-32)) * np.cos(2 * np.pi * (second * 2**-32))


def categorical(p: Any, shape: tuple[int, ...], *where: int) -> Any:
    totals = np.cumsum([int(np.rint(v * 2**40)) for v in p]).tolist()
    lane = philox.lanes(np.uint64, shape, *where)
    drawn = [int(u) * totals[-1] >> 64 for u in lane.ravel()]
    return np.array([sum(r >= t for t in totals) for r in drawn], np.int64).reshape(shape)


class TestBits:
    """Every draw of live streams, call after call, against the formula."""

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("name", [None, "hidden", "größe"])
    def test_every_draw(self, shape: tuple[int, ...], name: str | None) -> None:
        def stream() -> RandomStream:
            return RandomStream(BIG)

        p = [0.2, 0.5, 0.3]
        nodes = [
            stream().uniform(shape, name=name),
            stream().uniform(shape, name=name, dtype="float64"),
            stream().uniform(shape, name=name, dtype="float16"),
            stream().normal(shape, name=name, dtype="float64"),
            stream().bernoulli(shape, 0.3, name=name),
            stream().randint(shape, -5, 1000, name=name, dtype="int16"),
            stream().categorical(p, shape, name=name),
        ]
        f = gd.function([], nodes)
        for call in range(3):
            where = (BIG, philox.site_of(name) if name else 0, call)
            lane = philox.lanes(np.uint64, shape, *where)
            expected = [
                uniform("float32", shape, *where).astype(np.float32),
                uniform("float64", shape, *where),
                uniform("float16", shape, *where).astype(np.float16),
                normal(shape, *where),
                philox.lanes(np.uint32, shape, *where) < round(0.3 * 2**32),
                np.array([-5 + (int(u) * 1005 >> 64) for u in lane.ravel()], np.int16),
                categorical(p, shape, *where),
            ]
            for node, found, right in zip(nodes, f(), expected, strict=True):
                assert found.dtype == right.dtype
                assert found.shape == shape
                if node.op is ops.normal and f.backend == "llvm":  # its log and cos are its own
                    np.testing.assert_array_max_ulp(found, right, 4)
                else:
                    assert found.tobytes() == right.tobytes()

    def test_sites_are_handed_out_in_order(self) -> None:
        stream = RandomStream(7)
        nodes = [stream.uniform((3,)) for _ in range(3)]
        named = stream.uniform((3,), name="n")
        after = stream.uniform((3,))
        found = draw([*nodes, named, after])
        for site, value in zip([0, 1, 2, philox.site_of("n"), 3], found, strict=True):
            assert value.tolist() == uniform("float32", (3,), 7, site, 0).tolist()

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_uniform_is_below_one(self, dtype: str) -> None:
        u = draw(RandomStream(3).uniform((100_000,), dtype=dtype))
        assert u.min() >= 0
        assert u.max() < 1

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_randint_over_all_of_a_dtype(self, dtype: str) -> None:
        info = np.iinfo(dtype)
        low, high = int(info.min), int(info.max) + 1
        found = draw(RandomStream(3).randint((64,), low, high, dtype=dtype))
        lane = philox.lanes(np.uint64, (64,), 3, 0, 0)
        assert found.dtype == dtype
        assert found.tolist() == [low + (int(u) * (high - low) >> 64) for u in lane]

    def test_randint_of_one_value_and_at_the_ends(self) -> None:
        stream = RandomStream(0)
        found = draw([
            stream.randint((5,), 2**63 - 1, 2**63), stream.randint((5,), -(2**63), 1 - 2**63),
            stream.randint((5,), 2**64 - 1, 2**64, dtype="uint64"),
            stream.randint((400,), -2, 3),
        ])  # fmt: skip
        assert set(found[0].tolist()) == {2**63 - 1}
        assert set(found[1].tolist()) == {-(2**63)}
        assert set(found[2].tolist()) == {2**64 - 1}
        assert set(found[3].tolist()) == {-2, -1, 0, 1, 2}

    def test_randint_up_to_a_symbolic_size(self) -> None:
        x = gd.matrix("x", shape=("batch", 2))
        rows = RandomStream(1).randint((x.shape[0],), 0, x.shape[0])
        f = gd.function([x], rows, on_unused_input="ignore")
        lane = philox.lanes(np.uint64, (9,), 1, 0, 0)
        assert f(np.zeros((9, 2), "f4")).tolist() == [int(u) * 9 >> 64 for u in lane]

    def test_permutation(self) -> None:
        x = gd.vector("x", shape=("n",))
        f = gd.function([x], RandomStream(1).permutation(x.shape[0]), on_unused_input="ignore")
        for call, n in enumerate([0, 1, 2, 1000]):
            found = f(np.zeros(n, "f4"))
            expected = np.argsort(philox.lanes(np.uint64, (n,), 1, 0, call), kind="stable")
            assert found.tolist() == expected.tolist()
            assert sorted(found.tolist()) == list(range(n))

    def test_rows_keyed_by_ids(self) -> None:
        ids = gd.lvector("ids", shape=("batch",))
        stream = RandomStream(5)
        f = gd.function([ids], stream.normal((ids.shape[0], 3), dtype="float64", example=ids))
        found = f([4, 0, 4, 99])
        for row, i in zip(found, [4, 0, 4, 99], strict=True):
            lane = philox.lanes(np.uint64, (3,), 5, 0, 0, example=1 + i)
            u1, u2 = ((lane >> 32) + 0.5) / 2**32, (lane & 0xFFFFFFFF) / 2**32
            right = np.sqrt(-2 * np.log(u1)) * np.cos(2 * np.pi * u2)
            if f.backend == "llvm":  # its log and cos are its own
                np.testing.assert_array_max_ulp(row, right, 4)
            else:
                assert row.tolist() == right.tolist()
        with pytest.raises(RandomError, match="example ids"):
            f([3, -1, 2, 1])


class TestValues:
    def test_probability_zero_and_one(self) -> None:
        stream = RandomStream(2)
        never, always = draw([stream.bernoulli((999,), 0.0), stream.bernoulli((999,), 1.0)])
        assert not never.any()
        assert always.all()

    def test_classes_without_probability_are_never_drawn(self) -> None:
        p = np.array([0, 0.5, 0, 0, 0.5, 0])
        found = draw(RandomStream(2).categorical(p, (2000,)))
        assert set(found.tolist()) == {1, 4}

    def test_symbolic_probabilities_are_checked_at_the_call(self) -> None:
        p = gd.dvector("p", shape=(2,))
        stream = RandomStream(2)
        f = gd.function([p], stream.bernoulli((3, 2), p))
        g = gd.function([p], stream.categorical(p, (3,)))
        for wrong in ([0.5, 1.5], [0.5, np.nan], [-0.1, 0.5]):
            for h in (f, g):
                with pytest.raises(RandomError, match=r"between 0 and 1[^$]*test_random\.py"):
                    h(wrong)
        with pytest.raises(RandomError, match="without any probability"):
            g([0.0, 0.0])

    def test_symbolic_bounds_are_checked_at_the_call(self) -> None:
        high = gd.lscalar("high")
        f = gd.function([high], RandomStream(2).randint((3,), 0, high, dtype="uint8"))
        assert f(256).dtype == np.uint8
        for wrong in (0, -1, 257):
            with pytest.raises(RandomError, match="low < high"):
                f(wrong)

    def test_gradients_by_bounds_mean_and_scale(self) -> None:
        a, b = gd.dscalar("a"), gd.dvector("b", shape=(3,))
        stream = RandomStream(6)
        u = stream.uniform((2, 3), a, b, dtype="float64", name="u")
        z = stream.normal((2, 3), a, b, dtype="float64", name="z")
        gradients = [*gd.grad(u.sum(), [a, b]), *gd.grad(z.sum(), [a, b])]
        f = gd.function([a, b], gradients, on_unused_input="ignore")
        by_low, by_high, by_loc, by_scale = f(0.5, [1.0, 2.0, 3.0])
        unit = uniform("float64", (2, 3), 6, philox.site_of("u"), 0)
        gauss = normal((2, 3), 6, philox.site_of("z"), 0)
        np.testing.assert_allclose(by_low, (1 - unit).sum(), rtol=1e-14)
        np.testing.assert_allclose(by_high, unit.sum(0), rtol=1e-14)
        np.testing.assert_allclose(by_loc, 6, rtol=1e-14)
        np.testing.assert_allclose(by_scale, gauss.sum(0), rtol=1e-13)

    def test_at_rest(self) -> None:
        t = gd.flag()
        stream = RandomStream(6)
        nodes = [
            stream.uniform((2,), 3, 5, training=t), stream.normal((2,), 3, 5, training=t),
            stream.bernoulli((2,), 0.9, training=t), stream.randint((2,), 4, 9, training=t),
            stream.categorical([0.0, 1.0], (2,), training=t), stream.permutation(4, training=t),
        ]  # fmt: skip
        f = gd.function([t], nodes)
        rest = [v.tolist() for v in f(False)]
        assert rest == [[3, 3], [3, 3], [False, False], [4, 4], [0, 0], [0, 1, 2, 3]]
        assert (stream.calls, f.call) == (0, None)
        assert f(True)[4].tolist() == [1, 1]
        assert stream.calls == 1

    def test_a_key_can_be_given_a_value(self) -> None:
        stream = RandomStream(11)
        u = stream.uniform((4,))
        pinned = gd.function([], u, givens={stream.key: np.array([11, 2], np.uint64)})
        assert pinned().tolist() == pinned().tolist()
        with stream.at(call=2):
            assert draw(u).tolist() == pinned().tolist()
        assert stream.calls == 0


def chi_square(lanes: Any) -> float:
    """The p-value of the highest bytes of lanes being uniform."""
    top = lanes >> np.array(8 * (lanes.itemsize - 1), lanes.dtype)
    return float(scipy.stats.chisquare(np.bincount(top.ravel().astype(np.int64), minlength=256))[1])


DIRECTIONS = {
    "sites": lambda i: (12, i, 0, 0, 0),
    "named sites": lambda i: (12, philox.site_of(f"layer {i}"), 0, 0, 0),
    "seeds": lambda i: (i, 0, 0, 0, 0),
    "calls": lambda i: (12, 0, i, 0, 0),
    "steps": lambda i: (12, 0, 0, i, 0),
    "examples": lambda i: (12, 0, 0, 0, i),
    "diagonal": lambda i: (12, i, i, i, i),
}


class TestStatistics:
    """With fixed seeds, so that they pass always or never."""

    @pytest.mark.parametrize("direction", list(DIRECTIONS))
    def test_uniform_and_uncorrelated(self, direction: str) -> None:
        where = DIRECTIONS[direction]
        bits = np.array([words(*where(i), count=1024).view(np.uint16) for i in range(40)])
        assert 1e-3 < chi_square(bits) < 1 - 1e-3
        assert 1e-3 < chi_square(np.ascontiguousarray(bits[:, :32])) < 1 - 1e-3
        signs = np.where(bits >= 32768, 1.0, -1.0)
        n = signs.shape[1]
        correlations = (signs @ signs.T)[np.triu_indices(40, 1)] / np.sqrt(n)
        assert np.abs(correlations).max() < 4.5
        total = float((correlations**2).sum())
        assert 1e-3 < scipy.stats.chi2.sf(total, correlations.size) < 1 - 1e-3

    def test_neighbouring_elements(self) -> None:
        lane = words(12, 3, 4, count=2**16).view(np.uint16)
        centred = (lane.astype(np.float64) - 32767.5) / np.sqrt((65536**2 - 1) / 12)
        for lag in (1, 2, 3, 4, 7, 8, 15, 16, 17, 64, 256):
            correlation = (centred[:-lag] * centred[lag:]).sum() / np.sqrt(centred.size - lag)
            assert abs(correlation) < 4, lag
        pairs = (lane[::2] >> 12).astype(np.int64) * 16 + (lane[1::2] >> 12)
        assert 1e-3 < scipy.stats.chisquare(np.bincount(pairs, minlength=256))[1] < 1 - 1e-3

    def test_distributions(self) -> None:
        stream = RandomStream(77)
        u, z, k, c, b = draw([
            stream.uniform((50_000,)), stream.normal((50_000,)), stream.randint((50_000,), 0, 10),
            stream.categorical([0.1, 0.2, 0.3, 0.4], (50_000,)), stream.bernoulli((50_000,), 0.1),
        ])  # fmt: skip
        assert 1e-3 < scipy.stats.kstest(u, "uniform").pvalue < 1 - 1e-3
        assert 1e-3 < scipy.stats.kstest(z, "norm").pvalue < 1 - 1e-3
        assert 1e-3 < scipy.stats.chisquare(np.bincount(k, minlength=10))[1] < 1 - 1e-3
        share = np.array([0.1, 0.2, 0.3, 0.4]) * 50_000
        assert 1e-3 < scipy.stats.chisquare(np.bincount(c, minlength=4), share)[1] < 1 - 1e-3
        assert scipy.stats.binomtest(int(b.sum()), 50_000, 0.1).pvalue > 1e-3


class TestStreams:
    @pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "1", None])
    def test_bad_seeds(self, seed: Any) -> None:
        with pytest.raises(RandomError, match="a seed must be"):
            RandomStream(seed)

    def test_large_and_numpy_seeds(self) -> None:
        assert RandomStream(2**64 - 1).seed == 2**64 - 1
        assert RandomStream(np.uint64(2**63)).seed == 2**63

    def test_names(self) -> None:
        stream = RandomStream(0)
        assert stream.site("a") == philox.site_of("a")
        with pytest.raises(RandomError, match="cannot share the name 'a'"):
            stream.site("a")
        for wrong in ("", 3, b"x"):
            with pytest.raises(RandomError, match="non-empty string"):
                stream.site(wrong)  # type: ignore[arg-type]
        assert RandomStream(0).site("a") == philox.site_of("a")

    def test_a_mistaken_draw_gives_its_site_back(self) -> None:
        stream = RandomStream(0)
        with pytest.raises(ShapeError):
            stream.bernoulli((2,), [0.5, 0.5, 0.5], name="b")
        stream.bernoulli((3,), [0.5, 0.5, 0.5], name="b")
        with pytest.raises(DTypeError):
            stream.uniform((3,), dtype="int32")
        assert stream.site() == 0

    def test_state(self) -> None:
        first, second = RandomStream(5), RandomStream(6)
        f = gd.function([], first.uniform((3,)))
        g = gd.function([], second.uniform((3,)))
        f()
        state = first.state_dict()
        assert state == {"stream_version": 1, "seed": 5, "calls": 1}
        expected = [f().tolist(), f().tolist()]
        second.load_state_dict(state)
        assert [g().tolist(), g().tolist()] == expected
        assert (g.call, second.calls) == (2, 3)

    @pytest.mark.parametrize("change", [
        {"stream_version": 2}, {"seed": -1}, {"seed": 2**64}, {"calls": -1}, {"calls": 1.0},
        {"calls": True}, {"seed": "1"}, {"more": 1},
    ])  # fmt: skip
    def test_malformed_state_changes_nothing(self, change: dict[str, Any]) -> None:
        stream = RandomStream(5)
        good = {"stream_version": 1, "seed": 9, "calls": 4}
        with pytest.raises(RandomError):
            stream.load_state_dict({**good, **change})
        with pytest.raises(RandomError):
            stream.load_state_dict({k: v for k, v in good.items() if k != "seed"})
        assert stream.state_dict() == {"stream_version": 1, "seed": 5, "calls": 0}

    def test_replay(self) -> None:
        stream = RandomStream(5)
        f = gd.function([], stream.uniform((3,)))
        past = [f().tolist() for _ in range(3)]
        with stream.at(call=1):
            assert (f().tolist(), f.call) == (past[1], 1)
            with stream.at(2):
                assert f().tolist() == past[2]
            assert f().tolist() == past[1]
        assert (stream.calls, f().tolist() in past, stream.calls) == (3, False, 4)
        with pytest.raises(ZeroDivisionError), stream.at(0):
            _ = 1 / 0
        f()
        assert stream.calls == 5
        for wrong in (-1, 0.5, None, True, 2**64):
            with pytest.raises(RandomError, match="call number"), stream.at(wrong):  # type: ignore[arg-type]
                pass

    def test_two_streams_in_one_function(self) -> None:
        a, b, t = RandomStream(5), RandomStream(5), gd.flag()
        f = gd.function([t], [a.uniform((3,)), b.uniform((3,), training=t)])
        x, y = f(True)
        assert x.tolist() == y.tolist()  # equal seeds, sites and calls
        f(False)
        assert (a.calls, b.calls) == (2, 1)

    def test_training_must_be_a_bool(self) -> None:
        with pytest.raises(ArgumentError, match="must be a bool"):
            RandomStream(0).uniform((3,), training=1)
