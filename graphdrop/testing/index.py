"""The table's rows for indexing: reading, replacing and adding to parts of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from ..ops import brackets, gather, index
from ..ops.leaf import ivector, lscalar, lvector, matrix, tensor, vector
from .table import ALL, FLOATS, NUMBERS, Array, Bad, Case, Sample, operands, strided, values

ALL_OF = slice(None)

# indices of an array of shape (4, 5, 3)
BASIC: dict[str, Any] = {
    "position": 1,
    "last": -1,
    "empty tuple": (),
    "ellipsis": ...,
    "all": ALL_OF,
    "slice": slice(1, 3),
    "from the end": (slice(-3, None), slice(None, -2)),
    "past the ends": (slice(-9, 2), slice(2, 99)),
    "nothing": (slice(3, 1), slice(7, None)),
    "none of the first": slice(0, 0),
    "steps": (slice(None, None, 2), slice(1, None, 3)),
    "backwards": (slice(None, None, -1), slice(None, None, -2)),
    "backwards within": (slice(2, 0, -1), slice(-1, -4, -2)),
    "backwards past the ends": (slice(99, -99, -1), slice(-99, 0, -1), slice(1, None, -1)),
    "backwards to nothing": (slice(0, 2, -1), slice(0, None, -1)),
    "inner position": (ALL_OF, 2),
    "after an ellipsis": (..., 0),
    "between": (0, ..., slice(1, None)),
    "single element": (3, 4, -3),
    "new axes": (None, slice(1, None), None, ..., None),
    "new axis of nothing": (..., None),
}
ADVANCED: dict[str, Any] = {
    "list": [0, 2, 2],
    "negative": [-1, 0, -4],
    "matrix of positions": np.array([[0, 1, 1], [3, -1, 2]]),
    "no positions": [],
    "small integers": np.array([3, 1], np.uint8),
    "inner axis": (ALL_OF, [4, 0, 4]),
    "last axis": (..., [2, 2, 0, 1]),
    "pairs": ([0, 1, 0], [2, 3, 2]),
    "grid": ([[0], [3]], [1, 2, 4]),
    "neighbours after a slice": (slice(1, None), [0, 4], [2, 1]),
    "apart": ([0, 1], ALL_OF, [0, 2]),
    "apart backwards": ([0, 1], slice(None, None, -2), [0, 2]),
    "all three": ([0, 1], [1, 2], [2, 0]),
    "beside a position": (1, [0, 2]),
    "position after": ([0, 2], -1),
    "position before a slice": (0, ALL_OF, [1, 2]),
    "position between": (ALL_OF, 0, [1, 2]),
    "with a step": (slice(None, None, 2), [0, 1, 4]),
    "new axis between": (None, [0, 1], None, [1, 1]),
    "new axis before": (None, [0, 1]),
    "new axis after": ([0, 1], None),
    "mask": np.arange(60).reshape(4, 5, 3) % 7 == 0,
    "mask of rows": np.array([True, False, False, True]),
    "mask of nothing": np.zeros((4, 5), bool),
    "mask of inner axes": (ALL_OF, np.arange(15).reshape(5, 3) % 2 == 0),
    "mask and positions": (np.array([True, False, True, False]), [1, 4]),
}
SHAPES: list[Sample] = [operands((4, 5, 3)), strided((4, 5, 3))]


def read(key: Any) -> Callable[[Any], Any]:
    return lambda x: x[key]


def replaced(x: Array, key: Any, value: Any) -> Array:
    y = x.copy()
    y[key] = value
    return y


def added(x: Array, key: Any, value: Any) -> Array:
    y = x.copy()
    np.add.at(y, key, value)
    return y


def _torch_takes(key: Any) -> bool:
    """Not: negative steps, empty lists, and uint8 arrays, which are masks there."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, slice) and part.step is not None and part.step < 0:
            return False
        if isinstance(part, (list, np.ndarray)) and np.asarray(part).dtype in (float, np.uint8):
            return False
    return True


CASES: list[Case] = []
for name, key in (BASIC | ADVANCED).items():
    op_name = "subtensor" if name in BASIC else "gather"
    # PyTorch takes a position for an array only where its neighbour is one
    torch_read = read(key) if _torch_takes(key) and name != "position before a slice" else None
    CASES.append(
        Case(
            f"getitem {name}", read(key), read(key), SHAPES, covers=[op_name], ulp=0,
            torch=torch_read,
        )
    )  # fmt: skip
    CASES.append(
        Case(
            f"set_subtensor {name}",
            lambda x, key=key: index.set_subtensor(x[key], 7),
            lambda x, key=key: replaced(x, key, 7),
            SHAPES[:1], covers=["set_subtensor" if name in BASIC else "scatter_set"], ulp=0,
        )
    )  # fmt: skip
    CASES.append(
        Case(
            f"inc_subtensor {name}",
            lambda x, key=key: x[key].inc(x[key]),  # so that second derivatives see the index too
            lambda x, key=key: added(x, key, x[key]),
            SHAPES[:1], covers=["set_subtensor" if name in BASIC else "scatter_add"],
        )
    )  # fmt: skip


def positions(shape: tuple[int, ...], *at: tuple[int, int, tuple[int, ...]]) -> Sample:
    """An operand and int64 positions: for each (low, high, shape) an array of these."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        ids = [np.asarray(rng.integers(a, b, size), np.int64) for a, b, size in at]
        return [values(rng, dtype, shape, -2, 2), *ids]

    return make


def exchanged(
    shape: tuple[int, ...], value: tuple[int, ...], high: int, ids: tuple[int, ...]
) -> Sample:
    """An operand, a value for a part of it, and positions below `high`, many of them equal."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        x, v = values(rng, dtype, shape, -2, 2), values(rng, dtype, value, -2, 2)
        return [x, v, np.asarray(rng.integers(-high, high, ids), np.int64)]

    return make


ROWS = [exchanged((3, 4), (5, 4), 3, (5,)), exchanged((2, 3), (4, 1, 3), 2, (4, 1)),
        exchanged((3, 2), (2,), 3, ()), exchanged((3, 0), (5, 0), 3, (5,)),
        exchanged((1, 2), (0, 2), 1, (0,))]  # fmt: skip
RUN_TIME: list[Case] = [
    Case(
        "getitem run-time positions", lambda x, i: x[i], lambda x, i: x[i],
        [positions((4, 3), (-4, 4, (5,))), positions((4, 3), (-4, 4, ())),
         positions((4,), (-4, 4, (2, 3))), positions((4,), (-4, 4, ())),
         positions((4, 3), (0, 1, (0,))), positions((1, 0), (0, 1, (2,)))],
        dtypes=ALL, covers=["gather"], ulp=0, torch=lambda x, i: x[i],
    ),
    Case(
        "getitem run-time pairs", lambda x, i, j: x[i, ..., j] * x[i, ..., j],
        lambda x, i, j: x[i, ..., j] * x[i, ..., j],
        [positions((4, 3, 2), (-4, 4, (5,)), (-2, 2, (5,))),
         positions((4, 3, 2), (-4, 4, (5, 1)), (-2, 2, (3,))),
         positions((4, 3, 2), (-4, 4, ()), (-2, 2, (3,)))],
        covers=["gather"],
    ),
    Case(
        "getitem run-time bounds", lambda x, i, j: x[i:j] * x[i:j],
        lambda x, i, j: x[int(i) : int(j)] * x[int(i) : int(j)],
        [positions((7, 2), (a, a + 1, ()), (b, b + 1, ()))
         for a, b in [(1, 5), (-6, -1), (5, 2), (-9, 9), (0, 0), (3, -1)]],
        covers=["subtensor"],
    ),
    Case(
        "getitem run-time bounds backwards", lambda x, i, j: (x[i:j:-2], x[:j:-1], x[i::-1]),
        lambda x, i, j: (x[int(i) : int(j) : -2], x[: int(j) : -1], x[int(i) :: -1]),
        [positions((7, 2), (a, a + 1, ()), (b, b + 1, ()))
         for a, b in [(5, 1), (-1, -6), (2, 5), (9, -9), (0, 0), (6, -7)]],
        covers=["subtensor"],
    ),
    Case(
        "getitem run-time mask", lambda x: x[x > 0] * 2, lambda x: x[x > 0] * np.array(2, x.dtype),
        [operands((4, 3)), operands((7,)), operands((0, 2)), operands((2,), low=-2, high=-1)],
        dtypes=FLOATS, covers=["nonzero", "gather"], torch=lambda x: x[x > 0] * 2,
    ),
    Case(
        "set_subtensor run-time mask", lambda x: index.set_subtensor(x[x > 0], x.sum()),
        lambda x: replaced(x, x > 0, x.sum()),
        [operands((4, 3)), operands((7,)), operands((2,), low=-2, high=-1)],
        covers=["nonzero", "scatter_set"], ulp=16,
    ),
    Case(
        "nonzero", brackets.nonzero, np.nonzero,
        [operands((4, 3)), operands((7,)), operands((0, 2)), operands((2, 1, 3), low=0, high=1)],
        dtypes=ALL, covers=["nonzero"], wrt=(), ulp=0,
    ),
    Case(
        "scatter_set rows", lambda x, v, i: x[i].set(v * v), lambda x, v, i: replaced(x, i, v * v),
        ROWS, dtypes=NUMBERS, covers=["scatter_set"], ulp=0,
    ),
    Case(
        "scatter_set columns", lambda x, v, i: x[:, i].set(v),
        lambda x, v, i: replaced(x, (ALL_OF, i), v),
        [exchanged((3, 4), (3, 6), 4, (6,)), exchanged((3, 4), (6,), 4, (6,))],
        dtypes=ALL, covers=["scatter_set"], ulp=0, symbolic=False,
    ),
    Case(
        "scatter_add", lambda x, v, i: gather.scatter_add(x, i, v * v),
        lambda x, v, i: added(x, i, v * v), ROWS, dtypes=NUMBERS, covers=["scatter_add"],
    ),
    Case(
        "scatter_add axis", lambda x, v, i: gather.scatter_add(x, i, v, axis=-1),
        lambda x, v, i: added(x, (ALL_OF, i), v), [exchanged((3, 4), (3, 6), 4, (6,))],
        dtypes=FLOATS, covers=["scatter_add"], torch=lambda x, v, i: x.index_add(1, i % 4, v),
    ),
]  # fmt: skip
CASES += RUN_TIME


def along(axis: int) -> list[Sample]:
    """Operands and positions of sizes that broadcast along the other axis."""
    shapes = [(3, 4), (3, 1), (1, 4)] if axis == 1 else [(3, 4), (1, 4)]
    wide = positions((1, 4), (-4, 4, (3, 2))) if axis == 1 else positions((3, 1), (-3, 3, (2, 4)))
    empty = positions((3, 0), (0, 3, (3, 0)))
    return [*(positions((3, 4), (-3, 3, s)) for s in shapes), wide, empty]


TAKES: list[Case] = [
    Case(
        "take", lambda x, i: x.take(i), np.take,
        [positions((4, 3), (-12, 12, (5, 2))), positions((3,), (0, 3, ()))],
        dtypes=ALL, covers=["gather"], ulp=0,
    ),
    Case(
        "take axis", lambda x, i: gather.take(x, i, axis=1), lambda x, i: np.take(x, i, axis=1),
        [positions((4, 3, 2), (-3, 3, (5, 6))), positions((4, 3, 2), (-3, 3, ()))],
        covers=["gather"], ulp=0,
    ),
    *(
        Case(
            f"take {mode}", lambda x, i, mode=mode: gather.take(x, i, 0, mode),
            lambda x, i, mode=mode: np.take(x, i, 0, mode=mode),
            [positions((4, 3), (-9, 9, (7,))), positions((4,), (-9, 9, ()))],
            covers=["gather"], ulp=0,
        )
        for mode in ("wrap", "clip")
    ),
    Case(
        "take_along_axis", lambda x, i: gather.take_along_axis(x, i, 0),
        lambda x, i: np.take_along_axis(x, i, 0), along(0), dtypes=ALL, covers=["gather"], ulp=0,
    ),
    Case(
        "take_along_axis last", lambda x, i: gather.take_along_axis(x * x, i),
        lambda x, i: np.take_along_axis(x * x, i, -1), along(1)[:3], covers=["gather"],
        torch=lambda x, i: (x * x).expand(i.shape[0], -1).gather(1, i % 4)
        if i.shape[0] == 3 else (x * x).gather(1, (i % 4).expand(3, -1)),
    ),
    Case(
        "take_along_axis set", lambda x, i: index.set_subtensor(gather.take_along_axis(x, i), 5),
        lambda x, i: _put(x, i, 5), along(1)[:1], covers=["scatter_set"], ulp=0,
    ),
    Case(
        "diagonal", gather.diagonal, np.diagonal,
        [operands((3, 4)), operands((4, 3)), operands((2, 3, 5)), operands((0, 2)),
         strided((3, 4))],
        dtypes=ALL, covers=["gather"], ulp=0, torch=lambda x: x.diagonal(),
    ),
    *(
        Case(
            f"diagonal offset {k}", lambda x, k=k: x.diagonal(k, -1, 0),
            lambda x, k=k: np.diagonal(x, k, -1, 0), [operands((4, 2, 3)), operands((1, 5, 2))],
            covers=["gather"], ulp=0,
        )
        for k in (-9, -1, 1, 2, 3)
    ),
    *(
        Case(
            f"diag {k}", lambda x, k=k: gather.diag(x, k), lambda x, k=k: np.diag(x, k),
            [operands((3,)), operands((0,)), operands((1,)), operands((3, 4)), operands((4, 2))],
            dtypes=ALL, covers=["scatter_set", "gather"], ulp=0,
            torch=lambda x, k=k: x.diag(k),
        )
        for k in (0, 2, -1)
    ),
]  # fmt: skip


def _put(x: Array, ids: Array, value: Any) -> Array:
    y = x.copy()
    np.put_along_axis(y, ids, value, -1)
    return y


CASES += TAKES


HALF: Any = 0.5


def _x() -> Any:
    return matrix("x", shape=(3, 4))


BAD: list[Bad] = [
    Bad("position outside", lambda: _x()[3], OutOfRangeError, "index 3 is outside .* size 3"),
    Bad("position before", lambda: _x()[:, -5], OutOfRangeError, "index -5 is outside"),
    Bad("positions outside", lambda: _x()[[0, 9]], OutOfRangeError, "index 9 is outside"),
    Bad("position beside", lambda: _x()[7, [0, 1]], OutOfRangeError, "index 7 is outside"),
    Bad("too many", lambda: _x()[0, 0, 0], ShapeError, "3 axes are indexed, but .* only 2"),
    Bad("two ellipses", lambda: _x()[..., 0, ...], ArgumentError, "only one ellipsis"),
    Bad("float index", lambda: _x()[1.5], DTypeError, "must be integers"),
    Bad("float array", lambda: _x()[vector("i")], DTypeError, "must be integers"),
    Bad("text index", lambda: _x()["a"], DTypeError, "give numbers"),
    Bad("bool", lambda: _x()[True], ArgumentError, "single bool"),
    Bad("step zero", lambda: _x()[::0], ArgumentError, "step .* not 0"),
    Bad("step node", lambda: _x()[:: lscalar("s")], ArgumentError, "step .* known"),
    Bad("float bound", lambda: _x()[1.5:], DTypeError, "bound must be an integer"),
    Bad("mask size", lambda: _x()[[True, False]], ShapeError, "2 and 3 differ"),
    Bad(
        "positions do not broadcast", lambda: _x()[[0, 1], [0, 1, 2]], ShapeError,
        "do not broadcast",
    ),
    Bad("set no part", lambda: index.set_subtensor(_x() + 1, 0), ArgumentError, "a part of"),
    Bad("set float", lambda: index.set_subtensor(ivector("i")[0], 1.5), DTypeError, "gd.cast"),
    Bad(
        "set wide", lambda: _x()[0].set(tensor("v", "float64", (4,))), DTypeError,
        "float64 does not fit into float32",
    ),
    Bad("set shape", lambda: _x()[0].set(np.ones(3, "f4")), ShapeError, "differ|broadcast"),
    Bad("inc axes", lambda: _x()[0].inc(_x()), ShapeError, "more axes"),
    Bad("take float", lambda: gather.take(_x(), [0.5]), DTypeError, "must be integers"),
    Bad("take mode", lambda: gather.take(_x(), [0], 0, "wrong"), ArgumentError, "'wrap'"),
    Bad("take axis", lambda: gather.take(_x(), [0], 2), ShapeError, "axis 2 is out of range"),
    Bad(
        "take_along_axis axes", lambda: gather.take_along_axis(_x(), lvector("i")), ShapeError,
        "same number of axes",
    ),
    Bad("diagonal vector", lambda: gather.diagonal(vector("v")), ShapeError, "at least 2 axes"),
    Bad("diagonal axes", lambda: gather.diagonal(_x(), 0, 1, -1), ArgumentError, "two axes"),
    Bad("diagonal half", lambda: gather.diagonal(_x(), HALF), ArgumentError, "known integer"),
    Bad("diag half", lambda: gather.diag(vector("v"), HALF), ArgumentError, "known integer"),
    Bad("diag scalar", lambda: gather.diag(1.0), ShapeError, "a vector or a matrix"),
    Bad("nonzero scalar", lambda: brackets.nonzero(1.0), ShapeError, "no positions"),
]  # fmt: skip
