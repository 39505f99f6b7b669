"""The table's rows for shapes, creators, joins, and assertions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops import create, join, shape
from ..ops.check import assert_ as assert_node
from ..ops.leaf import lvector, matrix, scalar, tensor3, vector
from .table import (
    ALL,
    INTEGERS,
    NUMBERS,
    Array,
    Bad,
    Case,
    Sample,
    operands,
    strided,
    values,
)

THREE: list[Sample] = [
    operands((2, 3, 4)), operands((2, 0, 3)), operands((1, 5, 1)), strided((2, 3, 4)),
]  # fmt: skip


def like(reference: Callable[..., Array]) -> Callable[[Array], Array]:
    """What NumPy makes without operands, in the dtype of one."""
    return lambda x: reference().astype(x.dtype)


SHAPES: list[Case] = [
    Case(
        "reshape", lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6),
        [operands((2, 3, 4)), strided((2, 3, 4)), operands((24,))], dtypes=ALL,
        covers=["reshape"], ulp=0, torch=lambda x: x.reshape(4, 6),
    ),
    Case(
        "reshape rest", lambda x: shape.reshape(x, (x.shape[0], -1)),
        lambda x: x.reshape(x.shape[0], -1),
        [operands((2, 3, 4)), operands((3, 0, 2)), strided((2, 3, 4))], covers=["reshape"], ulp=0,
    ),
    Case(
        "reshape scalar", lambda x: (x.reshape(()), x.reshape(1, -1)),
        lambda x: (x.reshape(()), x.reshape(1, -1)), [operands(()), operands((1, 1))],
        covers=["reshape"], ulp=0,
    ),
    Case(
        "ravel", lambda x: (x.ravel(), x.flatten()), lambda x: (x.ravel(), x.flatten()),
        [*THREE, operands(())], covers=["reshape"], ulp=0,
    ),
    Case(
        "flatten to 2 axes", lambda x: x.flatten(2), lambda x: x.reshape(x.shape[0], -1),
        [operands((2, 3, 4)), strided((2, 3, 4))], covers=["reshape"], ulp=0,
        torch=lambda x: x.flatten(1),
    ),
    Case(
        "transpose", lambda x: x.T, lambda x: x.T, [*THREE, operands(()), operands((3,))],
        dtypes=ALL, covers=["transpose"], ulp=0,
    ),
    Case(
        "transpose order", lambda x: shape.transpose(x, (1, -1, 0)),
        lambda x: x.transpose(1, -1, 0), THREE, covers=["transpose"], ulp=0,
        torch=lambda x: x.permute(1, -1, 0),
    ),
    Case(
        "swapaxes", lambda x: x.swapaxes(0, -1), lambda x: x.swapaxes(0, -1), THREE,
        covers=["transpose"], ulp=0, torch=lambda x: x.swapaxes(0, -1),
    ),
    Case(
        "moveaxis", lambda x: (shape.moveaxis(x, 0, -1), shape.moveaxis(x, [0, 2], [-1, 0])),
        lambda x: (np.moveaxis(x, 0, -1), np.moveaxis(x, [0, 2], [-1, 0])), THREE,
        covers=["transpose"], ulp=0,
    ),
    Case(
        "expand_dims", lambda x: (shape.expand_dims(x, 1), shape.expand_dims(x, (0, -1))),
        lambda x: (np.expand_dims(x, 1), np.expand_dims(x, (0, -1))),
        [operands((2, 3)), operands((0,)), operands((3,))], covers=["reshape"], ulp=0,
    ),
    Case(
        "squeeze", lambda x: (shape.squeeze(x), x.squeeze(1)),
        lambda x: (x.squeeze(), x.squeeze(1)),
        [operands((2, 1, 3, 1)), operands((0, 1))], covers=["reshape"], ulp=0,
    ),
    Case(
        "broadcast_to", lambda x: shape.broadcast_to(x, (2, 3, 4)),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
        [operands(()), operands((4,)), operands((3, 1)), operands((2, 3, 4)), strided((1, 4))],
        dtypes=ALL, covers=["broadcast_to"], ulp=0, torch=lambda x: x.broadcast_to(2, 3, 4),
    ),
    Case(
        "broadcast_to empty", lambda x: shape.broadcast_to(x * x, (0, 4)),
        lambda x: np.broadcast_to(x * x, (0, 4)), [operands((4,)), operands((1, 1))],
        covers=["broadcast_to"],
    ),
]  # fmt: skip

CREATORS: list[Case] = [
    Case(
        "full", lambda x: create.full((2, 3), x * x), lambda x: np.full((2, 3), x * x),
        [operands(()), operands((3,)), operands((2, 1))], dtypes=NUMBERS, covers=["broadcast_to"],
    ),
    Case(
        "likes", lambda x: (create.zeros_like(x), create.ones_like(x), create.full_like(x, 3)),
        lambda x: (np.zeros_like(x), np.ones_like(x), np.full_like(x, 3)), THREE, dtypes=ALL,
        covers=["broadcast_to"], wrt=(), ulp=0,
    ),
    Case(
        "zeros and ones", lambda x: (create.zeros((2, 0)), create.ones(x.shape, x.dtype)),
        lambda x: (np.zeros((2, 0), "f4"), np.ones(x.shape, x.dtype)), THREE, dtypes=ALL,
        covers=["broadcast_to"], wrt=(), ulp=0,
    ),
    *(
        Case(
            f"arange {a} {b} {c}", lambda x, a=a, b=b, c=c: create.arange(a, b, c, x.dtype),
            lambda x, a=a, b=b, c=c: np.arange(a, b, c, dtype=x.dtype), [operands(())],
            dtypes=("float32", "int32", "int64"), covers=["iota"], wrt=(), ulp=0,
        )
        for a, b, c in [(0, None, 1), (5, None, 1), (-2, None, 1), (2, 7, 1), (7, 2, 1), (7, 2, -1),
                        (1, 8, 3), (9, -2, -4)]
    ),
    Case(
        "arange of a size", lambda x: (create.arange(x.shape[0]), create.arange(1, x.size, 2)),
        lambda x: (np.arange(x.shape[0]), np.arange(1, x.size, 2)),
        [operands((4, 3)), operands((0, 2)), operands((1, 1))], covers=["iota"], wrt=(), ulp=0,
    ),
    Case(
        "arange run-time bounds",
        lambda a, b: (create.arange(a), create.arange(a, b), create.arange(b, a, -2)),
        lambda a, b: (np.arange(a), np.arange(a, b), np.arange(b, a, -2)),
        [operands((), (), low=-3, high=9) for _ in range(4)], dtypes=("int32", "int64"),
        covers=["iota"], wrt=(), ulp=0,
    ),
    Case(
        "arange floats", lambda x: create.arange(0.5, 3, 0.25), lambda x: np.arange(
            0.5, 3, 0.25, dtype=np.float32), [operands(())], dtypes=("float32",),
        covers=["constant"], wrt=(), ulp=0,
    ),
    *(
        Case(
            f"linspace {n} {end}", lambda a, b, n=n, end=end: create.linspace(a * b, b, n, end),
            lambda a, b, n=n, end=end: np.linspace(a * b, b, n, end, dtype=a.dtype),
            [operands((), ()), operands((3,), ()), operands((2, 1), (3,)), operands((0,), (1,))],
            covers=["iota"], ulp=8,
        )
        for n, end in [(5, True), (4, False), (1, True), (1, False), (0, True), (2, True)]
    ),
    Case(
        "linspace integers", lambda a, b: create.linspace(a, b, 7, dtype="int64"),
        lambda a, b: np.linspace(a, b, 7, dtype=np.int64), [operands((), (), low=-9, high=9)],
        dtypes=INTEGERS, covers=["iota"], wrt=(), ulp=0,
    ),
    *(
        Case(
            f"eye {k}",
            lambda x, k=k: (create.eye(3, k=k, dtype=x.dtype), create.eye(2, 5, k, x.dtype)),
            lambda x, k=k: (np.eye(3, k=k, dtype=x.dtype), np.eye(2, 5, k, x.dtype)),
            [operands(())], dtypes=ALL, covers=["iota"], wrt=(), ulp=0,
        )
        for k in (-1, 0, 2, 9)
    ),
    *(
        Case(
            f"triangles {k}",
            lambda x, k=k: (create.tri(3, 4, k), create.tril(x * x, k), create.triu(x * x, k)),
            lambda x, k=k: (np.tri(3, 4, k, "f4"), np.tril(x * x, k), np.triu(x * x, k)),
            [operands((3, 4)), operands((2, 4, 3)), operands((0, 3))], dtypes=NUMBERS,
            covers=["iota"],
        )
        for k in (-1, 0, 1)
    ),
    Case(
        "one_hot", lambda i: (create.one_hot(i, 5), create.one_hot(i, 3, axis=0, dtype=bool)),
        lambda i: (np.eye(5, dtype="f4")[i], np.moveaxis(_hot(i, 3), -1, 0)),
        [operands((2, 3), low=0, high=5), operands((), low=0, high=5), operands((0,))],
        dtypes=INTEGERS, covers=["iota"], wrt=(), ulp=0,
    ),
    Case(
        "meshgrid", lambda a, b, c: (*create.meshgrid(a, b, c), *create.meshgrid(
            a, b, indexing="ij"), *create.meshgrid(a)),
        lambda a, b, c: (*np.meshgrid(a, b, c), *np.meshgrid(a, b, indexing="ij"),
                         *np.meshgrid(a)),
        [operands((2,), (3,), (4,)), operands((0,), (3,), ())], dtypes=ALL,
        covers=["broadcast_to"], ulp=0,
    ),
]  # fmt: skip


def _hot(ids: Array, n: int) -> Array:
    hot: Array = np.equal(np.asarray(ids)[..., None], np.arange(n))
    return hot


def with_counts(shape: tuple[int, ...], counts: Any) -> Sample:
    """An operand, and these integers."""
    return lambda rng, dtype: [values(rng, dtype, shape, -2, 2), np.array(counts, np.int64)]


def _torch() -> Any:
    import torch

    return torch


JOINS: list[Case] = [
    Case(
        "concatenate", lambda a, b, c: join.concatenate([a * a, b, c]),
        lambda a, b, c: np.concatenate([a * a, b, c]),
        [operands((2, 3), (4, 3), (1, 3)), operands((2,), (0,), (3,)),
         strided((2, 3), (4, 3), (1, 3))],
        dtypes=NUMBERS, covers=["concatenate"], torch=lambda a, b, c: _torch().cat([a * a, b, c]),
    ),
    Case(
        "concatenate axis", lambda a, b: (join.concatenate([a, b, a], -2),
                                          join.concatenate([a, b], None)),
        lambda a, b: (np.concatenate([a, b, a], -2), np.concatenate([a, b], None)),
        [operands((2, 3, 4), (2, 5, 4)), operands((2, 0, 4), (2, 5, 4))], dtypes=ALL,
        covers=["concatenate"], ulp=0,
    ),
    Case(
        "concatenate mixed", lambda a, b: join.concatenate([a, b.astype("int16"), [1]]),
        lambda a, b: np.concatenate([a, b.astype("int16"), np.array([1])]),
        [operands((2,), (3,))], dtypes=("float16", "float64", "int8", "bool"),
        covers=["concatenate"], ulp=0,
    ),
    Case(
        "stack", lambda a, b: (join.stack([a * a, b]), join.stack([a, b], -1), join.stack([b])),
        lambda a, b: (np.stack([a * a, b]), np.stack([a, b], -1), np.stack([b])),
        [operands((2, 3), (2, 3)), operands((), ()), operands((0,), (0,))], dtypes=NUMBERS,
        covers=["concatenate"],
    ),
    Case(
        "split", lambda x: join.split(x * x, 3, -1), lambda x: np.split(x * x, 3, -1),
        [operands((2, 6)), operands((3,)), operands((0,)), strided((2, 6))],
        covers=["subtensor"], torch=lambda x: list((x * x).chunk(3, -1)),
    ),
    Case(
        "split at", lambda x: join.split(x, [1, 1, 3, 9]), lambda x: np.split(x, [1, 1, 3, 9]),
        [operands((5, 2)), operands((0,))], covers=["subtensor"], ulp=0,
    ),
    Case(
        "array_split", lambda x: join.array_split(x, 3, 1), lambda x: np.array_split(x, 3, 1),
        [operands((2, 7)), operands((2, 8)), operands((2, 2)), operands((2, 0))],
        covers=["subtensor"], ulp=0,
    ),
    *(
        Case(
            f"pad {mode}", lambda x, mode=mode: join.pad(x * x, ((1, 2), (3, 0)), mode),
            lambda x, mode=mode: np.pad(x * x, ((1, 2), (3, 0)), mode),
            [operands((3, 4)), operands((2, 5)), operands((1, 1)), strided((3, 4))],
            dtypes=NUMBERS, covers=["gather"],
        )
        for mode in ("edge", "reflect", "symmetric", "wrap")
    ),
    Case(
        "pad far", lambda x: [join.pad(x, 9, m) for m in ("reflect", "symmetric", "wrap")],
        lambda x: [np.pad(x, 9, m) for m in ("reflect", "symmetric", "wrap")],
        [operands((3,)), operands((1,)), operands((2,))], covers=["gather"], ulp=0,
    ),
    Case(
        "pad bools", lambda x: join.pad(x > 0, ((0, 2), (1, 0))),
        lambda x: np.pad(x > 0, ((0, 2), (1, 0))), [operands((3, 4)), operands((0, 2))], ulp=0,
        wrt=(),
    ),
    Case(
        "pad constant", lambda x: (join.pad(x * x, (1, 2)), join.pad(x, 1, constant_values=3)),
        lambda x: (np.pad(x * x, (1, 2)), np.pad(x, 1, constant_values=3)),
        [operands((3, 4)), operands((2,)), operands((0, 2))], dtypes=NUMBERS,
        covers=["set_subtensor"], torch=lambda x: (
            _torch().nn.functional.pad(x * x, (1, 2) * x.ndim),
            _torch().nn.functional.pad(x, (1, 1) * x.ndim, value=3)),
    ),
    Case(
        "flip", lambda x: (join.flip(x * x), join.flip(x, 1), join.flip(x, (0, -1))),
        lambda x: (np.flip(x * x), np.flip(x, 1), np.flip(x, (0, -1))), THREE, dtypes=NUMBERS,
        covers=["subtensor"], torch=lambda x: ((x * x).flip(0, 1, 2), x.flip(1), x.flip(0, 2)),
    ),
    *(
        Case(
            f"roll {shift}", lambda x, shift=shift: (join.roll(x * x, shift),
                                                     join.roll(x, shift, 1)),
            lambda x, shift=shift: (np.roll(x * x, shift), np.roll(x, shift, 1)), THREE,
            dtypes=NUMBERS, covers=["concatenate"],
            torch=lambda x, shift=shift: ((x * x).roll(shift), x.roll(shift, 1)),
        )
        for shift in (0, 1, -2, 7)
    ),
    Case(
        "roll several", lambda x: join.roll(x, (1, -2), (0, 2)),
        lambda x: np.roll(x, (1, -2), (0, 2)), THREE, covers=["concatenate"], ulp=0,
    ),
    Case(
        "roll run-time shift", lambda x, n: join.roll(x * x, n, 1),
        lambda x, n: np.roll(x * x, n, 1), [with_counts((2, 5), n) for n in (-7, 0, 3, 12)],
        covers=["gather"],
    ),
    Case(
        "tile", lambda x: (join.tile(x, 2), join.tile(x * x, (2, 1, 3)), join.tile(x, (0, 2))),
        lambda x: (np.tile(x, 2), np.tile(x * x, (2, 1, 3)), np.tile(x, (0, 2))),
        [operands((2, 3)), operands(()), operands((0, 2)), operands((2, 3, 1, 2))],
        dtypes=NUMBERS, covers=["broadcast_to"],
    ),
    Case(
        "repeat", lambda x: (x.repeat(2), x.repeat(3, 0), join.repeat(x * x, 0, -1)),
        lambda x: (x.repeat(2), x.repeat(3, 0), np.repeat(x * x, 0, -1)),
        [operands((2, 3)), operands((0,)), strided((2, 3))], dtypes=NUMBERS,
        covers=["broadcast_to"], torch=lambda x: (
            x.repeat_interleave(2), x.repeat_interleave(3, 0), (x * x).repeat_interleave(0, -1)),
    ),
    Case(
        "repeat each", lambda x: (join.repeat(x * x, [2, 0, 1], 1), join.repeat(x, [3], 1)),
        lambda x: (np.repeat(x * x, [2, 0, 1], 1), np.repeat(x, [3], 1)),
        [operands((2, 3)), operands((0, 3))], covers=["gather"],
    ),
    Case(
        "repeat run-time counts", lambda x, n: join.repeat(x * x, n, 0),
        lambda x, n: np.repeat(x * x, n, 0),
        [with_counts((3, 2), [2, 0, 3]), with_counts((2,), [0, 0]), with_counts((0, 2), [])],
        covers=["gather", "searchsorted"],
    ),
    Case(
        "assert_", lambda x: assert_node(x * x, x < 9, "too large"), lambda x: x * x,
        [operands((2, 3)), operands(()), operands((0,))], dtypes=NUMBERS, covers=["assert_"],
    ),
]  # fmt: skip

CASES: list[Case] = SHAPES + CREATORS + JOINS


HALF: Any = 0.5


def _x() -> Any:
    return matrix("x", shape=(3, 4))


BAD: list[Bad] = [
    Bad("reshape count", lambda: _x().reshape(5, 2), ShapeError, "has 12 elements"),
    Bad("reshape rest", lambda: _x().reshape(5, -1), ShapeError, "do not divide"),
    Bad("reshape two rests", lambda: _x().reshape(-1, -1), ShapeError, "only one size"),
    Bad("reshape negative", lambda: _x().reshape(-3, -4), ShapeError, "negative"),
    Bad("transpose order", lambda: _x().transpose(0, 0), ShapeError, "not an order of 2"),
    Bad("swapaxes", lambda: _x().swapaxes(0, 2), ShapeError, "out of range"),
    Bad("moveaxis", lambda: shape.moveaxis(_x(), [0, 1], 0), ShapeError, "as many"),
    Bad("flatten", lambda: _x().flatten(3), ShapeError, "cannot be flattened"),
    Bad("squeeze", lambda: _x().squeeze(0), ShapeError, "3 and 1 differ"),
    Bad("expand_dims", lambda: shape.expand_dims(_x(), 5), ShapeError, "out of range"),
    Bad("broadcast_to", lambda: shape.broadcast_to(_x(), (3, 5)), ShapeError, "4.*5"),
    Bad("broadcast_to less", lambda: shape.broadcast_to(_x(), 4), ShapeError, "more axes"),
    Bad("zeros negative", lambda: create.zeros(-1), ShapeError, "negative"),
    Bad("zeros float", lambda: create.zeros(scalar("n")), ShapeError, "integer scalar"),
    Bad("arange float node", lambda: create.arange(scalar("n")), DTypeError, "integer scalar"),
    Bad("arange mixed", lambda: create.arange(0.5, _x().sum()), ArgumentError, "gd.linspace"),
    Bad("arange step", lambda: create.arange(0, 5, 0), ArgumentError, "other than 0"),
    Bad("linspace count", lambda: create.linspace(0, 1, -2), ShapeError, "negative"),
    Bad("eye offset", lambda: create.eye(3, k=HALF), ArgumentError, "known integer"),
    Bad("tril vector", lambda: create.tril(vector("v")), ShapeError, "at least 2 axes"),
    Bad("one_hot floats", lambda: create.one_hot(vector("v"), 3), DTypeError, "must be integers"),
    Bad("meshgrid", lambda: create.meshgrid(_x()), ShapeError, "vectors"),
    Bad("meshgrid order", lambda: create.meshgrid(vector("v"), indexing="yx"), ArgumentError, "ij"),
    Bad("concatenate none", lambda: join.concatenate([]), ArgumentError, "a list of one"),
    Bad("concatenate node", lambda: join.concatenate(_x()), ArgumentError, "a list of one"),
    Bad(
        "concatenate sizes", lambda: join.concatenate([_x(), np.ones((2, 5), "f4")]), ShapeError,
        "axis 1: sizes 4 and 5 differ",
    ),
    Bad("concatenate axes", lambda: join.concatenate([_x(), tensor3("t")]), ShapeError, "axes"),
    Bad("concatenate scalars", lambda: join.concatenate([1.0, 2.0]), ShapeError, "gd.stack"),
    Bad("stack shapes", lambda: join.stack([_x(), _x()[0]]), ShapeError, "one shape"),
    Bad("split", lambda: join.split(_x(), 2), ShapeError, "2 equal pieces; use gd.array_split"),
    Bad("split half", lambda: join.split(_x(), HALF), ArgumentError, "positive integer"),
    Bad("stack number", lambda: join.stack(HALF), ArgumentError, "a list of one"),
    Bad("flip half", lambda: join.flip(_x(), HALF), ArgumentError, "must be an int"),
    Bad("roll half", lambda: join.roll(_x(), 1, HALF), ArgumentError, "must be an int"),
    Bad("moveaxis half", lambda: shape.moveaxis(_x(), 0, HALF), ArgumentError, "must be an int"),
    Bad("zeros of nothing", lambda: create.zeros(HALF), ShapeError, "a size must be"),
    Bad("split none", lambda: join.split(_x(), 0), ArgumentError, "positive"),
    Bad("pad mode", lambda: join.pad(_x(), 1, "mean"), ArgumentError, "'wrap'"),
    Bad("pad pairs", lambda: join.pad(_x(), ((1, 1),) * 3), ShapeError, "3 pairs for 2 axes"),
    Bad("pad negative", lambda: join.pad(_x(), -1), ShapeError, "negative"),
    Bad("pad value", lambda: join.pad(lvector("i"), 1, constant_values=0.5), DTypeError, "fit"),
    Bad("pad empty", lambda: join.pad(create.zeros((0, 2)), 1, "edge"), ShapeError, "is empty"),
    Bad("flip axis", lambda: join.flip(_x(), 2), ShapeError, "out of range"),
    Bad("roll shift", lambda: join.roll(_x(), 0.5), DTypeError, "integer scalar"),
    Bad("roll shifts", lambda: join.roll(_x(), (1, 2), 0), ShapeError, "2 shifts for 1 axes"),
    Bad("tile negative", lambda: join.tile(_x(), -1), ShapeError, "negative"),
    Bad("repeat negative", lambda: join.repeat(_x(), -1), ShapeError, "negative"),
    Bad("repeat count", lambda: join.repeat(_x(), [1, 2], 0), ShapeError, "2 .*3|3 .*2"),
    Bad("repeat float", lambda: join.repeat(_x(), [1.5, 2], 0), DTypeError, "must be integers"),
    Bad("repeat minus", lambda: join.repeat(_x(), [1, -1, 2], 0), ArgumentError, "negative"),
    Bad("assert_ message", lambda: assert_node(_x(), True, 5), ArgumentError, "a string"),
]  # fmt: skip
