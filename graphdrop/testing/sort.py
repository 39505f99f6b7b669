"""The table's rows for sorting and searching."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..ops import sort
from ..ops.elementwise import cast
from ..ops.leaf import matrix, scalar
from .table import ALL, NUMBERS, Array, Bad, Case, Sample, operands, strided, values


def shuffled(*shape: int) -> Sample:
    """Distinct values in random order."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        return [rng.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)]

    return make


def special(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
    """Ties, infinities and NaN where the dtype has them."""
    x = values(rng, dtype, (4, 6), -2, 2)
    x[:, 3] = x[:, 1]
    if dtype.kind == "f":
        x[0, 2], x[1, 4], x[2, 0], x[2, 5] = np.nan, np.inf, -np.inf, np.nan
    return [x]


SHAPES: list[Sample] = [
    shuffled(3, 4), shuffled(5), operands((0, 3)), operands((2, 0)), operands((1, 1)),
    strided((3, 4)),
]  # fmt: skip


def down(x: Array, axis: int) -> Array:
    """Positions from the largest to the smallest, equal elements in order, NaN first."""
    ids = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - ids, axis)


def largest(x: Array, k: int, axis: int = -1) -> tuple[Array, Array]:
    ids = np.take(down(x, axis), np.arange(k), axis)
    return np.take_along_axis(x, ids, axis), ids


CASES: list[Case] = [
    Case(
        "sort", lambda x: x.sort() * x, lambda x: np.sort(x) * x, SHAPES, dtypes=NUMBERS,
        covers=["sort"], torch=lambda x: x.sort().values * x,
    ),
    Case(
        "sort axis", lambda x: (sort.sort(x, 0), sort.sort(x, None), sort.sort(x, descending=True)),
        lambda x: (np.sort(x, 0), np.sort(x, None), np.flip(np.sort(x), -1)), SHAPES,
        dtypes=ALL, covers=["sort"], ulp=0,
    ),
    Case(
        "sort special", lambda x: (sort.sort(x), sort.sort(x, 0, True)),
        lambda x: (np.sort(x), np.flip(np.sort(x, 0), 0)), [special], dtypes=ALL, covers=["sort"],
        wrt=(), ulp=0,
    ),
    Case(
        "argsort", lambda x: (x.argsort(), sort.argsort(x, 0), sort.argsort(x, None)),
        lambda x: tuple(np.argsort(x, axis, kind="stable") for axis in (-1, 0, None)),
        [*SHAPES, special], dtypes=ALL, covers=["argsort"], wrt=(), ulp=0,
    ),
    Case(
        "argsort descending", lambda x: [x.argsort(axis, descending=True) for axis in (-1, 0)],
        lambda x: [down(x, axis) for axis in (-1, 0)], [*SHAPES, special], dtypes=ALL,
        covers=["argsort"], wrt=(), ulp=0,
    ),
    Case(
        "top_k", lambda x: sort.top_k(x, 2), lambda x: largest(x, 2),
        [shuffled(3, 4), shuffled(5), operands((0, 3)), strided((3, 4)), shuffled(2)],
        dtypes=ALL, covers=["argsort", "gather"], ulp=0,
        torch=lambda x: tuple(x.topk(2)),
    ),
    Case(
        "top_k special", lambda x: (*sort.top_k(x, 3), *sort.top_k(x, 0), *sort.top_k(x, 1, 0)),
        lambda x: (*largest(x, 3), *largest(x, 0), *largest(x, 1, 0)), [special], dtypes=ALL,
        covers=["argsort"], wrt=(), ulp=0,
    ),
    Case(
        "top_k squared", lambda x: sort.top_k(x * x * x, 2, 0)[0],
        lambda x: largest(x * x * x, 2, 0)[0], [shuffled(3, 2)], covers=["argsort"],
    ),
    Case(
        "last_equal", lambda x: sort.last_equal(cast(x, np.int64) % 3),
        lambda x: np.array([np.flatnonzero(x.astype(np.int64) % 3 == v)[-1]
                            for v in x.astype(np.int64) % 3], np.int64),
        [operands((7,)), operands((1,)), operands((0,)), operands((40,)), operands((700,))],
        dtypes=["int64", "int32"], covers=["last_equal"], wrt=(), ulp=0,
    ),
    *(
        Case(
            f"searchsorted {side}",
            lambda x, v, side=side: sort.searchsorted(sort.sort(x), v, side),
            lambda x, v, side=side: np.asarray(np.searchsorted(np.sort(x), v, side)),
            [operands((7,), (2, 3)), operands((7,), ()), operands((0,), (3,)),
             operands((3,), (0,))],
            dtypes=ALL, covers=["searchsorted"], wrt=(), ulp=0,
        )
        for side in ("left", "right")
    ),
]  # fmt: skip

BAD: list[Bad] = [
    Bad("sort scalar", lambda: sort.sort(scalar("s")), ShapeError, "out of range"),
    Bad("argsort axis", lambda: sort.argsort(matrix("x"), 2), ShapeError, "out of range"),
    Bad(
        "top_k too many", lambda: sort.top_k(matrix("x", shape=(3, 4)), 5), ShapeError,
        "5 largest of 4",
    ),
    Bad("top_k negative", lambda: sort.top_k(matrix("x"), -1), ShapeError, "negative"),
    Bad("last_equal matrix", lambda: sort.last_equal(matrix("x")), ShapeError, "a vector of int64"),
    Bad("searchsorted matrix", lambda: sort.searchsorted(matrix("x"), 1), ShapeError, "a vector"),
    Bad(
        "searchsorted side", lambda: sort.searchsorted([1, 2], 1, "middle"), ArgumentError,
        "'left' or 'right'",
    ),
]  # fmt: skip
