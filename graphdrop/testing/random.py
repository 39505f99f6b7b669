"""The table's rows for draws and dropout.

The key of every stream is replaced by a value, so that each row is a function of its operands.  The
references are section 4 of the design, written out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dropout import dropout
from ..errors import ArgumentError, DTypeError, RandomError, ShapeError
from ..graph import Node
from ..nn import dropout as family
from ..op import constant
from ..ops.leaf import matrix, tensor, vector
from ..random import RandomStream
from ..substitute import substitute
from .table import INTEGERS, Array, Bad, Case, Sample, operands, strided, unary, values

SEED, CALL = 0xFEDC_BA98_7654_3210, 5


def pinned(build: Callable[..., Node]) -> Callable[..., Node]:
    """`build(stream, *nodes)` as a function of nodes: the draws of one call, whenever it runs."""

    def made(*nodes: Node) -> Node:
        stream = RandomStream(SEED)
        key = constant(np.array([SEED, CALL], np.uint64))
        return substitute([build(stream, *nodes)], {stream.key: key})[0]

    return made


def lanes(shape: Sequence[int], dtype: Any, example: int = 0) -> Array:
    """The lanes of the first unnamed draw of a stream, in call CALL."""
    count = int(np.prod(shape, dtype=np.int64))
    size = np.dtype(dtype).itemsize
    philox = np.random.Philox(
        key=np.array([SEED, 0], np.uint64), counter=np.array([0, CALL, 0, example], np.uint64)
    )
    raw = philox.random_raw(-(-count * size // 8)).astype("<u8")
    found: Array = raw.view(np.dtype(dtype).newbyteorder("<"))[:count].reshape(shape)
    return found


def dropped(
    x: Array, rate: Any, shared: tuple[int, ...] = (), scaled: bool = True, keep: Any = None
) -> Array:
    """Inverted dropout of x in NumPy."""
    t = int(np.rint(float(rate) * 65536))
    if keep is None:
        keep = lanes([1 if i in shared else s for i, s in enumerate(x.shape)], np.uint16) >= t
    wide = np.float32 if x.dtype == np.float16 else x.dtype.type
    factor = wide(65536 / (65536 - t) if scaled and t < 65536 else 1)
    return np.where(keep, x * factor, 0).astype(x.dtype)


def by_example(x: Array, ids: Array) -> Array:
    rows = [lanes(x.shape[1:], np.uint16, 1 + int(i)) >= 32768 for i in ids]
    return dropped(x, 0.5, keep=np.reshape(rows, x.shape))


def alpha(x: Array, rate: float) -> Array:
    floor = -1.7580993408473766
    t = int(np.rint(rate * 65536))
    q = 1 - t / 65536
    a = (q + floor**2 * q * (1 - q)) ** -0.5
    y = np.where(lanes(x.shape, np.uint16) >= t, x, x.dtype.type(floor))
    return np.asarray(y * x.dtype.type(a) + x.dtype.type(-a * (1 - q) * floor)).astype(x.dtype)


def gauss(shape: Sequence[int], dtype: Any) -> Array:
    lane = lanes(shape, np.uint64)
    u1, u2 = ((lane >> 32) + 0.5) / 2**32, (lane & 0xFFFFFFFF) / 2**32
    return np.asarray(np.sqrt(-2 * np.log(u1)) * np.cos(2 * np.pi * u2)).astype(dtype)


def unit(shape: Sequence[int], dtype: Any) -> Array:
    if dtype == np.float64:
        return np.asarray((lanes(shape, np.uint64) >> 11) * 2.0**-53)
    if dtype == np.float32:
        return np.asarray((lanes(shape, np.uint32) >> 8) * 2.0**-24).astype(np.float32)
    return np.asarray((lanes(shape, np.uint32) >> 21) * 2.0**-11).astype(np.float16)


def integers(shape: Sequence[int], low: Any, high: Any, dtype: Any) -> Array:
    ends = (np.broadcast_to(v, shape).ravel().tolist() for v in (low, high))
    drawn = zip(lanes(shape, np.uint64).ravel().tolist(), *ends, strict=True)
    return np.array([a + (u * (b - a) >> 64) for u, a, b in drawn], dtype).reshape(shape)


def classes(p: Array, shape: Sequence[int]) -> Array:
    p = np.broadcast_to(p.astype(np.float64), (*shape, p.shape[-1]))
    found = np.zeros(shape, np.int64)
    lane = lanes(shape, np.uint64)
    for place in np.ndindex(*shape):
        weights = [int(np.rint(v * 2**40)) for v in p[place]]
        r = int(lane[place]) * sum(weights) >> 64
        found[place] = next(k for k in range(len(weights)) if sum(weights[: k + 1]) > r)
    return found


def shares(*shapes: tuple[int, ...]) -> list[Sample]:
    """Samples of one operand of probabilities that add up to 1 along the last axis."""

    def sample(shape: tuple[int, ...]) -> Sample:
        def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
            p = rng.random(shape)
            return [(p / p.sum(-1, keepdims=True)).astype(dtype)]

        return make

    return [sample(s) for s in shapes]


def with_rate(*shapes: tuple[int, ...]) -> list[Sample]:
    """Samples of an operand and a rate."""
    return [lambda rng, dtype, s=s: [values(rng, dtype, s, -2, 2), np.array(0.3)] for s in shapes]  # type: ignore[misc]


def with_ids(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    return [values(rng, dtype, (4, 3), -2, 2), np.array([7, 0, 7, 2**40])]


def with_mask(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    return [values(rng, dtype, (4, 3), -2, 2), rng.random((4, 1)) < 0.5]


CASES: list[Case] = [
    Case(
        "dropout", pinned(lambda s, x: dropout(x, 0.3, s)), lambda x: dropped(x, 0.3),
        unary(), covers=["dropout"], ulp=0,
    ),
    Case(
        "dropout off", pinned(lambda s, x: dropout(x, 0.3, s, constant(False))), lambda x: x,
        unary(), ulp=0,
    ),
    Case(
        "dropout everything", pinned(lambda s, x: dropout(x, 1.0, s)), np.zeros_like,
        unary(), ulp=0,
    ),
    Case(
        "dropout shared", pinned(lambda s, x: dropout(x, 0.5, s, axes=(0, -1))),
        lambda x: dropped(x, 0.5, (0, 2)),
        [operands((2, 5, 3)), operands((2, 0, 3)), strided((2, 5, 3))], ulp=0,
    ),
    Case(
        "dropout classic", pinned(lambda s, x: dropout(x, 0.3, s, mode="classic")),
        lambda x: dropped(x, 0.3, scaled=False), unary(), ulp=0,
    ),
    Case(
        "dropout symbolic rate", pinned(lambda s, x, rate: dropout(x, rate, s)), dropped,
        with_rate((7,), (2, 3), (), (0, 2)), covers=["threshold"], wrt=[0], ulp=0,
    ),
    Case(
        "dropout by example", pinned(lambda s, x, ids: dropout(x, 0.5, s, example=ids)),
        by_example, [with_ids], ulp=0,
    ),
    Case(
        "dropout by mask", pinned(lambda s, x, m: dropout(x, 0.25, s, mask=m)),
        lambda x, m: dropped(x, 0.25, keep=m), [with_mask], ulp=0,
    ),
    Case(
        "spatial_dropout", pinned(lambda s, x: family.spatial_dropout(x, 0.5, s)),
        lambda x: dropped(x, 0.5, (2, 3)), [operands((2, 7, 4, 3)), operands((2, 3, 0, 4))], ulp=0,
    ),
    Case(
        "alpha_dropout", pinned(lambda s, x: family.alpha_dropout(x, 0.3, s)),
        lambda x: alpha(x, 0.3), unary(), covers=["mask"],
    ),
    Case(
        "gaussian_dropout", pinned(lambda s, x: family.gaussian_dropout(x, 0.3, s)),
        lambda x: x * (1 + gauss(x.shape, x.dtype) * x.dtype.type(np.sqrt(0.3 / 0.7))), unary(),
    ),
    Case(
        "uniform", pinned(lambda s, x: x * s.uniform(x.shape, dtype=x.dtype)),
        lambda x: x * unit(x.shape, x.dtype), unary(), covers=["uniform"], ulp=0,
    ),
    Case(
        "uniform low high", pinned(lambda s, a, b: s.uniform((3, 5), a, b, dtype=a.dtype)),
        lambda a, b: a + unit((3, 5), a.dtype) * (b - a),
        [operands((3, 5), (5,)), operands((), (3, 1)), strided((3, 5), (5,))],
    ),
    Case(
        "normal", pinned(lambda s, x: x * s.normal(x.shape, dtype=x.dtype)),
        lambda x: x * gauss(x.shape, x.dtype), unary(), covers=["normal"], ulp=2,
    ),
    Case(
        "normal loc scale", pinned(lambda s, a, b: s.normal((3, 5), a, b, dtype=a.dtype)),
        lambda a, b: gauss((3, 5), a.dtype) * b + a,
        [operands((3, 5), (5,)), operands((), (3, 1)), strided((3, 5), (5,))],
    ),
    Case(
        "bernoulli", pinned(lambda s, p: s.bernoulli((4, 3), p / 2)),
        lambda p: lanes((4, 3), np.uint32) < np.rint(p.astype(np.float64) / 2 * 2**32),
        [operands((3,), low=0), operands((), low=0), strided((4, 3), low=0)],
        covers=["bernoulli"], wrt=(), ulp=0,
    ),
    *(
        Case(
            f"randint {dtype}",
            pinned(lambda s, x, d=dtype: s.randint(x.shape, 0, 100, dtype=d)),
            lambda x, d=dtype: integers(x.shape, 0, 100, d),
            unary(), dtypes=["float32"], covers=["randint"], wrt=(), ulp=0,
        )
        for dtype in INTEGERS
    ),
    Case(
        "randint bounds",
        pinned(lambda s, a, b: s.randint((4, 3), a, b, dtype=a.dtype)),
        lambda a, b: integers((4, 3), a, b, a.dtype),
        [lambda rng, dtype: [np.full((1, 1), 3, dtype), np.array([4, 50, 100], dtype)]],
        dtypes=[d for d in INTEGERS if d != "uint64"], wrt=(), ulp=0,
    ),
    Case(
        "categorical", pinned(lambda s, p: s.categorical(p)), lambda p: classes(p, p.shape[:-1]),
        shares((4, 3), (5,), (2, 3, 4), (0, 3), (3, 1)), covers=["categorical"], wrt=(), ulp=0,
    ),
    Case(
        "categorical shape", pinned(lambda s, p: s.categorical(p, (2, 5))),
        lambda p: classes(p, (2, 5)), shares((3,), (5, 3), (2, 1, 4)), wrt=(), ulp=0,
    ),
    Case(
        "permutation", pinned(lambda s, x: s.permutation(x.shape[0])),
        lambda x: np.argsort(lanes(x.shape[:1], np.uint64), kind="stable"),
        [operands((7,)), operands((0,)), operands((1,)), operands((33, 2))],
        covers=["permutation"], wrt=(), ulp=0,
    ),
]  # fmt: skip


def _stream() -> RandomStream:
    return RandomStream(0)


def _twice() -> Node:
    stream = _stream()
    return dropout(dropout(matrix("x"), 0.5, stream, name="d"), 0.5, stream, name="d")


BAD: list[Bad] = [
    Bad("rate above 1", lambda: dropout(matrix("x"), 1.5, _stream()), RandomError, "between 0 and"),
    Bad("rate below 0", lambda: dropout(matrix("x"), -0.1, _stream()), RandomError, "between 0"),
    Bad("rate NaN", lambda: dropout(matrix("x"), np.nan, _stream()), RandomError, "got nan"),
    Bad("rate vector", lambda: dropout(matrix("x"), [0.5], _stream()), RandomError, "a scalar"),
    Bad("two draws of one name", _twice, RandomError, "cannot share the name 'd'"),
    Bad("dropout of integers", lambda: dropout(tensor("x", "int32", (3,)), 0.5, _stream()),
        DTypeError, "takes floats"),
    Bad("dropout without a stream", lambda: dropout(matrix("x"), 0.5, None), ArgumentError,  # type: ignore[arg-type]
        "RandomStream"),
    Bad("mode", lambda: dropout(matrix("x"), 0.5, _stream(), mode="old"), ArgumentError, "classic"),
    Bad("training a number", lambda: dropout(matrix("x"), 0.5, _stream(), 1), ArgumentError,
        "gd.flag"),
    Bad("axes and noise_shape",
        lambda: dropout(matrix("x", shape=(2, 3)), 0.5, _stream(), axes=0, noise_shape=(1, 3)),
        ArgumentError, "not both"),
    Bad("noise_shape", lambda: dropout(matrix("x", shape=(2, 3)), 0.5, _stream(), noise_shape=(3,)),
        ShapeError, "x's own, or 1"),
    Bad("noise_shape of another size",
        lambda: dropout(matrix("x", shape=(2, 3)), 0.5, _stream(), noise_shape=(2, 2)),
        ShapeError, "x's own, or 1"),
    Bad("mask and name", lambda: dropout(matrix("x"), 0.5, _stream(), name="m", mask=matrix("m")),
        ArgumentError, "mask="),
    Bad("mask that stretches x",
        lambda: dropout(vector("x", shape=(3,)), 0.5, _stream(), mask=matrix("m")),
        ShapeError, "more axes"),
    Bad("mask of another size",
        lambda: dropout(vector("x", shape=(3,)), 0.5, _stream(), mask=[True, False]),
        ShapeError, "does not fit"),
    Bad("example a scalar", lambda: dropout(matrix("x"), 0.5, _stream(), example=3), DTypeError,
        "integer vector"),
    Bad("example of floats", lambda: dropout(matrix("x"), 0.5, _stream(), example=vector("i")),
        DTypeError, "integer vector"),
    Bad("example ids and rows",
        lambda: dropout(matrix("x", shape=(3, 2)), 0.5, _stream(), example=[1, 2]),
        ShapeError, "example ids"),
    Bad("uniform of integers", lambda: _stream().uniform((3,), dtype=int), DTypeError, "floats"),
    Bad("uniform backwards", lambda: _stream().uniform((3,), 2, 1), RandomError, "low <= high"),
    Bad("uniform without end", lambda: _stream().uniform((3,), 0, np.inf), RandomError, "finite"),
    Bad("uniform bounds", lambda: _stream().uniform((3,), vector("low", shape=(2,))), ShapeError,
        "does not fit"),
    Bad("normal scale", lambda: _stream().normal((3,), 0, -1), RandomError, "scale"),
    Bad("bernoulli", lambda: _stream().bernoulli((3,), 1.5), RandomError, "between 0 and 1"),
    Bad("bernoulli stretched", lambda: _stream().bernoulli((1,), vector("p")), ShapeError,
        "does not fit"),
    Bad("randint empty", lambda: _stream().randint((3,), 5, 5), RandomError, "low < high"),
    Bad("randint range", lambda: _stream().randint((3,), 0, 257, dtype="uint8"), RandomError,
        "within uint8"),
    Bad("randint floats", lambda: _stream().randint((3,), 0, 5, dtype="float32"), DTypeError,
        "integers"),
    Bad("randint float bound", lambda: _stream().randint((3,), 0, 5.5), DTypeError, "high must be"),
    Bad("categorical", lambda: _stream().categorical([0.5, -0.5]), RandomError, "between 0 and 1"),
    Bad("categorical scalar", lambda: _stream().categorical(0.5), ShapeError, "axis of classes"),
    Bad("categorical of nothing", lambda: _stream().categorical(np.zeros((3, 0))), RandomError,
        "number of classes"),
    Bad("permutation", lambda: _stream().permutation(-1), ShapeError, "negative"),
    Bad("spatial of a vector", lambda: family.spatial_dropout(vector("x"), 0.5, _stream()),
        ShapeError, "channel axis|out of range"),
    Bad("embedding vector", lambda: family.embedding_dropout(vector("x"), 0.5, _stream()),
        ShapeError, "a row for every word"),
]  # fmt: skip
