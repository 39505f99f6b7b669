"""Rows of the op table: loops against Python loops, branches against Python's `if`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cond import cond
from ..errors import ArgumentError, DTypeError, ShapeError
from ..op import constant
from ..ops.elementwise import tanh
from ..ops.leaf import tensor
from ..scan import map, reduce, scan
from .table import Array, Bad, Case, operands

LENGTHS = (0, 1, 2, 5)


def _rnn(x: Any, h: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        new = tanh(carry * 0.5 + row)
        return new, new * row

    return scan(step, x, h)


def _rnn_reference(x: Array, h: Array) -> tuple[Array, Array]:
    outs = np.empty_like(x)
    for t, row in enumerate(x):
        h = np.tanh(h * x.dtype.type(0.5) + row)
        outs[t] = h * row
    return np.array(h), outs


def _backwards(x: Any, h: Any) -> Any:
    return scan(lambda c, row: (c + row * c, c), x, h, reverse=True)


def _backwards_reference(x: Array, h: Array) -> tuple[Array, Array]:
    outs = np.empty_like(x)
    for t in reversed(range(len(x))):
        outs[t] = h
        h = h + x[t] * h
    return np.array(h), outs


def _checkpointed(x: Any, h: Any) -> Any:
    return scan(lambda c, row: (tanh(c * 0.5 + row), c), x, h, checkpoint=2)[0]


def _branches(x: Any, w: Any) -> Any:
    return cond(x.sum() > 0, lambda: (x * w + x, w), lambda: (tanh(x) - 1, w * w))


def _branches_reference(x: Array, w: Array) -> tuple[Array, Array]:
    return (x * w + x, w) if x.sum() > 0 else (np.tanh(x) - x.dtype.type(1), w * w)


SAMPLES = [operands((t, 3), (3,), low=-1.0, high=1.0) for t in LENGTHS]

CASES = [
    Case("scan", _rnn, _rnn_reference, SAMPLES, covers=("scan",), ulp=32),
    Case("scan reverse", _backwards, _backwards_reference, SAMPLES, covers=("scan",), ulp=32),
    Case(
        "scan checkpoint", _checkpointed, lambda x, h: _rnn_reference(x, h)[0], SAMPLES,
        dtypes=("float64",), covers=("scan",), ulp=32,
    ),
    Case(
        "map", lambda x: map(lambda row: row * row.sum(), x),
        lambda x: x * x.sum(axis=1, keepdims=True),
        [operands((t, 3)) for t in LENGTHS], dtypes=("float32", "float64"), ulp=16,
    ),
    Case(
        "reduce", lambda x, h: reduce(lambda a, row: a * row, x, h),
        lambda x, h: np.prod(np.concatenate([x, h[None]]), axis=0),
        SAMPLES, dtypes=("float64",), ulp=16,
    ),
    Case(
        "cond", _branches, _branches_reference,
        [operands(s, s, low=low, high=low + 1.0)
         for s in ((2, 3), (), (0,), (1, 4)) for low in (-1.5, 0.5)],
        covers=("cond",), ulp=16,
    ),
]  # fmt: skip


def _vector() -> Any:
    return tensor("x", np.float32, ("n",))


BAD = [
    Bad(
        "scan carry changes dtype",
        lambda: scan(lambda c, e: (c > 0, None), _vector(), constant(0.0)),
        DTypeError, "carry changes from float32",
    ),
    Bad(
        "scan carry changes shape",
        lambda: scan(lambda c, e: (c.reshape(1, 1), None), _vector(), constant([0.0])),
        ShapeError, "carry changes from",
    ),
    Bad(
        "scan step returns no pair",
        lambda: scan(lambda c, e: c + e, _vector(), constant(0.0)),
        ArgumentError, r"returns \(carry, out\)",
    ),
    Bad(
        "scan of sequences of two lengths",
        lambda: scan(
            lambda c, e: (c, e[0] + e[1]),
            [tensor("a", np.float32, (3,)), tensor("b", np.float32, (4,))], constant(0.0),
        ),
        ShapeError, "one length",
    ),
    Bad("scan without a length", lambda: scan(lambda c, e: (c, c), None, constant(0.0)),
        ArgumentError, "needs a length"),
    Bad("scan of a scalar", lambda: scan(lambda c, e: (c, e), tensor("s"), constant(0.0)),
        ShapeError, "leading axis"),
    Bad("scan checkpoint of 0",
        lambda: scan(lambda c, e: (c, e), _vector(), constant(0.0), checkpoint=0),
        ArgumentError, "positive int"),
    Bad("cond of a number", lambda: cond(constant(1.0), lambda: _vector(), lambda: _vector()),
        DTypeError, "predicate must be a bool scalar"),
    Bad("cond of a vector", lambda: cond(_vector() > 0, lambda: _vector(), lambda: _vector()),
        DTypeError, "predicate must be a bool scalar"),
    Bad("cond of two dtypes",
        lambda: cond(True, lambda: tensor("a", "int32"), lambda: tensor("b", "float32")),
        DTypeError, r"give int32\[\] and float32\[\]; cast one"),
    Bad("cond of two ranks",
        lambda: cond(True, lambda: _vector(), lambda: constant(0.0)), ShapeError, "one, say with"),
    Bad("cond of two sizes",
        lambda: cond(True, lambda: constant([0.0]), lambda: constant([0.0, 1.0])),
        ShapeError, "sizes: 1 and 2 differ"),
    Bad("cond of two structures",
        lambda: cond(True, lambda: (_vector(), _vector()), lambda: _vector()),
        ArgumentError, "one structure"),
    Bad("cond of a size computed inside",
        lambda: cond(True, lambda: (v := _vector())[v > 0], lambda: _vector()),
        ShapeError, "computed inside"),
]  # fmt: skip
