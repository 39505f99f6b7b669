"""The table's rows for reductions, norms, softmax and running sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..ops import cumulative, reduce, softmax
from ..ops.leaf import matrix, tensor, vector
from .table import ALL, FLOATS, NUMBERS, Array, Bad, Case, Sample, operands, strided, unary


def torch_call(name: str, *rest: Any, **options: Any) -> Callable[..., Any]:
    """The PyTorch function `name`, of tensors and then these arguments."""

    def call(*tensors: Any) -> Any:
        import torch

        return attrgetter(name)(torch)(*tensors, *rest, **options)

    return call


def exactly(*arrays: Any) -> Sample:
    """A sample of these values."""
    return lambda rng, dtype: [np.array(a, dtype) for a in arrays]


def distinct(*shapes: tuple[int, ...]) -> list[Sample]:
    """Samples of one operand without ties, in random order."""

    def sample(shape: tuple[int, ...]) -> Sample:
        def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
            count = int(np.prod(shape))
            return [(rng.permutation(count).reshape(shape) - count // 3).astype(dtype)]

        return make

    return [sample(s) for s in shapes]


def in_float64(reference: Callable[..., Any]) -> Callable[..., Any]:
    """`reference` computed in float64 and rounded to the dtype that NumPy's exp would give."""

    def compute(x: Array, **keywords: Any) -> Any:
        result = np.asarray(reference(x.astype(np.float64), **keywords))
        return result.astype(np.exp(np.zeros((), x.dtype)).dtype)

    return compute


# one operand of three axes, also empty, of size 1 and strided
THREE: list[Sample] = [
    operands((2, 3, 4)), operands((1, 5, 1)), operands((2, 0, 3)), operands((0, 3, 2)),
    strided((2, 3, 4)),
]  # fmt: skip
FULL: list[Sample] = [operands((2, 3, 4)), operands((1, 5, 1)), strided((2, 3, 4))]
NANS = exactly([[1.0, np.nan, 3.0], [-np.inf, 2.0, 0.5]])
INFINITIES = exactly([[-np.inf, -np.inf], [-np.inf, 1.0], [np.inf, 2.0], [3.0, -4.0]])
WITH_ZEROS: list[Sample] = [
    exactly([[0.0, 2.0, -3.0], [1.5, 0.0, 0.0], [1.0, 2.0, -0.5], [0.0, 0.0, 0.0]]),
    exactly([0.0, 3.0]), exactly([0.0]), exactly([1.5, 0.0, 2.0, 0.0, 3.0]),
]  # fmt: skip

SOME = ("float32", "float64", "int8")
# how each reduction is called: (suffix of the name, keywords)
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("", {}), ("axis", {"axis": 1}), ("axes", {"axis": (0, -1)}),
    ("keepdims", {"axis": (-2,), "keepdims": True}), ("all keepdims", {"keepdims": True}),
    ("no axes", {"axis": ()}),
]  # fmt: skip


def _family(
    name: str,
    build: Callable[..., Any],
    reference: Callable[..., Any],
    samples: Sequence[Sample],
    ways: Sequence[tuple[str, dict[str, Any]]] = WAYS,
    **rest: Any,
) -> list[Case]:
    """One case for each way of calling a reduction; all dtypes in the first two ways."""
    dtypes = rest.pop("dtypes", FLOATS)
    return [
        Case(
            f"{name} {suffix}".strip(),
            lambda x, k=keywords: build(x, **k),
            lambda x, k=keywords: reference(x, **k),
            [*samples, *unary()] if not keywords and samples is THREE else samples,
            dtypes if i < 2 else [d for d in dtypes if d in SOME],
            **rest,
        )
        for i, (suffix, keywords) in enumerate(ways)
    ]


def _logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    add: Any = np.logaddexp
    return add.reduce(x, axis=axis, keepdims=keepdims, initial=-np.inf)


def _several(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of one axis or all, applied over several axes at once."""

    def over(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
        axes = tuple(range(x.ndim)) if axis is None else tuple(np.atleast_1d(axis).astype(int))
        y = x
        for a in axes:
            y = function(y, axis=a, keepdims=True)
        return y if keepdims else y.squeeze(axes)

    return over


SUMS = [
    # one sample's sum is near 0, where NumPy's own is 32 ulp from the exact one
    *_family("sum", reduce.sum, np.sum, THREE, dtypes=ALL, covers=["sum"], others=40),
    *_family("prod", reduce.prod, np.prod, THREE, dtypes=ALL, covers=["prod"]),
    *_family("prod zeros", reduce.prod, np.prod, WITH_ZEROS, WAYS[:1], covers=["prod"],
             torch=torch_call("prod")),
    *_family("prod rows with zeros", reduce.prod, np.prod, WITH_ZEROS[:1], WAYS[1:4],
             covers=["prod"]),
    *_family("mean", reduce.mean, np.mean, FULL, dtypes=ALL),
    *_family("var", reduce.var, np.var, FULL, dtypes=ALL, ulp=8),
    *_family("std", reduce.std, np.std, FULL, WAYS[:5], dtypes=ALL, ulp=8),
    *_family("any", reduce.any, np.any, [*THREE, exactly([[0, 0, 0], [0, 1, 0]])], dtypes=ALL,
             covers=["any"], wrt=()),
    *_family("all", reduce.all, np.all, [*THREE, exactly([[1, 1, 1], [1, 1, 0]])], dtypes=ALL,
             covers=["all"], wrt=()),
    Case("sum torch", lambda x: reduce.sum(x, axis=(0, 2)), lambda x: np.sum(x, axis=(0, 2)),
         FULL, torch=torch_call("sum", (0, 2))),
    Case("mean of many float16", reduce.mean, np.mean,
         [lambda rng, dtype: [np.full((3, 30000), 2, dtype)]], wrt=()),
    Case("var ddof", lambda x: reduce.var(x, axis=(0, 2), ddof=1, keepdims=True),
         lambda x: np.var(x, axis=(0, 2), ddof=1, keepdims=True), FULL[:1], ulp=8,
         torch=torch_call("var", (0, 2), keepdim=True)),
    Case("std ddof", lambda x: reduce.std(x, axis=1, ddof=1),
         lambda x: np.std(x, axis=1, ddof=1), FULL, ulp=8, torch=torch_call("std", 1)),
    Case("std of equal values", lambda x: reduce.std(x * 0 + 2, axis=1),
         lambda x: np.std(x * 0 + x.dtype.type(2), axis=1), FULL, torch_grad=False),
]  # fmt: skip

EXTREMES = [
    case
    for name in ("max", "min")
    for case in _family(
        name, getattr(reduce, name), getattr(np, name),
        distinct((2, 3, 4), (1, 5, 1), (3, 2, 7)), WAYS, covers=[name], dtypes=NUMBERS,
    )
] + [
    Case("max bools", reduce.max, np.max, [operands((2, 3))], dtypes=["bool"], covers=["max"]),
    Case("min nan", lambda x: reduce.min(x, axis=1), lambda x: np.min(x, axis=1), [NANS],
         covers=["min"], wrt=()),
    Case("max nan", lambda x: reduce.max(x, axis=0), lambda x: np.max(x, axis=0), [NANS],
         covers=["max"], wrt=()),
    Case("max of an empty batch", lambda x: reduce.max(x, axis=-1), lambda x: np.max(x, axis=-1),
         [operands((0, 3)), operands((2, 0, 3))], covers=["max"]),
    Case("row_max", lambda x: reduce.row_max(x, axis=1, keepdims=True),
         lambda x: np.max(x, axis=1, keepdims=True,
                          initial=-np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min),
         THREE, [d for d in ALL if d != "bool"], covers=["row_max"], wrt=()),
    Case("max torch", lambda x: reduce.max(x, axis=(0, 2)), lambda x: np.max(x, axis=(0, 2)),
         distinct((2, 3, 4)), covers=["max"], torch=torch_call("amax", (0, 2))),
    Case("min torch ties", lambda x: reduce.min(x, axis=1), lambda x: np.min(x, axis=1),
         [exactly([[1, 1, 2], [3, 0, 0]])], dtypes=["float32"], covers=["min"],
         torch=torch_call("amin", 1)),
]  # fmt: skip


def _position_reference(name: str) -> Callable[..., Any]:
    find = getattr(np, name)
    return lambda x, **keywords: np.asarray(find(x, **keywords))


POSITIONS = [
    case
    for name in ("argmax", "argmin")
    for case in _family(
        name, getattr(reduce, name), _position_reference(name),
        [*FULL, exactly([[1, 3, 3], [2, 0, 0]]), strided((3, 4))],
        [WAYS[0], WAYS[1], ("keepdims", {"axis": -1, "keepdims": True}), WAYS[4]],
        dtypes=ALL, covers=[name], wrt=(),
    )
]  # fmt: skip
POSITIONS.append(
    Case("argmax nan", lambda x: reduce.argmax(x, axis=1), lambda x: np.argmax(x, axis=1), [NANS],
         covers=["argmax"], wrt=())
)  # fmt: skip


def _softmax(x: Array, axis: int = -1) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: Array, axis: int = -1) -> Any:
    return x - _logsumexp(x, axis=axis, keepdims=True)


LARGE = exactly([[-1e4, 1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]])
EXPONENTIALS = [
    *_family("logsumexp", reduce.logsumexp, in_float64(_several(_logsumexp)), THREE, dtypes=ALL,
             covers=["logsumexp"]),
    Case("logsumexp of infinities", lambda x: reduce.logsumexp(x, axis=1),
         lambda x: in_float64(_logsumexp)(x, axis=1), [INFINITIES, NANS, LARGE],
         covers=["logsumexp"], wrt=()),
    Case("logsumexp torch", lambda x: reduce.logsumexp(x, axis=(0, 2)),
         lambda x: in_float64(_several(_logsumexp))(x, axis=(0, 2)),
         FULL, covers=["logsumexp"], torch=torch_call("logsumexp", (0, 2))),
]  # fmt: skip
for _name, _op, _reference in (
    ("softmax", softmax.softmax, _softmax),
    ("log_softmax", softmax.log_softmax, _log_softmax),
):
    EXPONENTIALS += [
        Case(_name, _op, in_float64(_reference),
             [*THREE, operands((5,)), operands((3, 0)), operands((1,))], dtypes=ALL,
             covers=[_name], torch=torch_call(_name, -1)),
        Case(f"{_name} axis", lambda x, op=_op: op(x, axis=1),
             lambda x, f=_reference: in_float64(f)(x, axis=1), THREE, covers=[_name],
             torch=torch_call(_name, 1)),
        Case(f"{_name} of large and infinite values", lambda x, op=_op: op(x, axis=-1),
             in_float64(_reference), [LARGE, NANS, exactly([[-np.inf, 1.0, 2.0]])],
             covers=[_name], wrt=()),
    ]  # fmt: skip


def _cumulative(name: str, reverse: bool, exclusive: bool) -> Callable[..., Any]:
    """cumsum or cumprod of a moved, flipped and shifted array."""

    def compute(x: Array, axis: int) -> Array:
        moved = np.moveaxis(x, axis, 0)[:: -1 if reverse else 1]
        y: Array = getattr(np, name)(moved, axis=0)
        y = np.concatenate([np.ones_like(y[:1]), y[:-1]]) if exclusive else y
        return np.moveaxis(y[:: -1 if reverse else 1], 0, axis)

    return compute


def _recurrence(a: Array, b: Array) -> Array:
    z = np.zeros_like(b)
    for k in range(1, len(b)):
        z[k] = a[k - 1] * z[k - 1] + b[k - 1]
    return z


RUNNING = [
    Case("cumsum", cumulative.cumsum, np.cumsum, [*THREE, *unary()], dtypes=ALL,
         covers=["cumsum"]),
    Case("cumsum axis", lambda x: cumulative.cumsum(x, axis=1), lambda x: np.cumsum(x, axis=1),
         THREE, dtypes=ALL, covers=["cumsum"], torch=torch_call("cumsum", 1)),
    Case("cumsum reverse", lambda x: cumulative.cumsum(x, axis=-1, reverse=True),
         lambda x: _cumulative("cumsum", True, False)(x, -1), THREE, covers=["cumsum"]),
    Case("cumprod", cumulative.cumprod, np.cumprod, [*THREE, *unary(), *WITH_ZEROS[1:]], dtypes=ALL,
         covers=["cumprod"]),
    Case("cumprod axis", lambda x: cumulative.cumprod(x, axis=0), lambda x: np.cumprod(x, axis=0),
         [*THREE, WITH_ZEROS[0]], covers=["cumprod"], torch=torch_call("cumprod", 0)),
    *[
        Case(f"cumprod {label}",
             lambda x, e=exclusive, r=reverse: cumulative.cumprod(
                 x, axis=1, exclusive=e, reverse=r),
             lambda x, e=exclusive, r=reverse: _cumulative("cumprod", r, e)(x, 1),
             [*THREE, WITH_ZEROS[0]], covers=["cumprod"])
        for label, exclusive, reverse in (
            ("exclusive", True, False), ("reverse", False, True), ("from the end", True, True))
    ],
    Case("linear_recurrence",
         lambda a, b: cumulative.linear_recurrence(a, b, axis=0, reverse=False), _recurrence,
         [operands(s, s) for s in ((4, 3), (1, 2), (0, 2), (5,))], covers=["linear_recurrence"]),
    Case("linear_recurrence reverse",
         lambda a, b: cumulative.linear_recurrence(a, b, axis=1, reverse=True),
         lambda a, b: _recurrence(a[:, ::-1].T, b[:, ::-1].T).T[:, ::-1],
         [operands(s, s) for s in ((3, 4), (2, 1), (2, 0))], covers=["linear_recurrence"]),
]  # fmt: skip


def _norm(suffix: str, samples: Sequence[Sample] = FULL, **keywords: Any) -> Case:
    def reference(x: Array) -> Any:
        return np.linalg.norm(x, **keywords)

    def in_torch(x: Any) -> Any:
        order = 2 if keywords.get("ord") is None else keywords["ord"]
        return torch_call("linalg.norm", order, keywords.get("axis"))(x)

    comparable = "keepdims" not in keywords and isinstance(keywords.get("axis"), int)
    return Case(
        f"norm {suffix}", lambda x: reduce.norm(x, **keywords), reference, samples, ulp=8,
        torch=in_torch if comparable else None,
    )  # fmt: skip


MATRICES: list[Sample] = [operands((3, 4)), operands((1, 2)), strided((2, 3))]
NORMS = [
    _norm("of all", [*FULL, operands((3,)), operands((2, 3))]),
    _norm("axis", axis=1),
    _norm("axes keepdims", axis=(0, 2), keepdims=True),
    *[_norm(f"{p}", ord=p, axis=1) for p in (1, 2, 3, 2.5, -1, np.inf, -np.inf)],
    *[_norm(f"{p} keepdims", ord=p, axis=-1, keepdims=True) for p in (1, 2, 4, np.inf)],
    *[_norm(f"of matrices {p}", MATRICES, ord=p) for p in ("fro", 1, -1, np.inf, -np.inf)],
    *[_norm(f"of matrices {p} keepdims", ord=p, axis=(2, 0), keepdims=True)
      for p in ("fro", 1, np.inf)],
    _norm("of matrices 1 axes", ord=1, axis=(2, 0)),
    Case("norm of integers", reduce.norm, np.linalg.norm, FULL, dtypes=["int32", "uint8"]),
    Case("norm 0", lambda x: reduce.norm(x, 0, axis=1), lambda x: np.linalg.norm(x, 0, axis=1),
         [WITH_ZEROS[0]], wrt=()),
    Case("norm at zero", reduce.norm, np.linalg.norm, [exactly([0.0, 0.0])], order=1,
         torch=torch_call("linalg.norm")),
]  # fmt: skip

CASES = [*SUMS, *EXTREMES, *POSITIONS, *EXPONENTIALS, *RUNNING, *NORMS]

BAD = [
    Bad("sum axis", lambda: reduce.sum(matrix("x"), axis=2), ShapeError, "axis 2 is out of range"),
    Bad("sum twice", lambda: reduce.sum(matrix("x"), axis=(1, -1)), ShapeError, "twice"),
    Bad("max of nothing", lambda: reduce.max(matrix("x", shape=(3, 0)), axis=1), ShapeError,
        "no elements along axis"),
    Bad("min of nothing", lambda: reduce.min(vector("x", shape=(0,))), ShapeError, "has no min"),
    Bad("argmax of nothing", lambda: reduce.argmax(vector("x", shape=(0,))), ShapeError,
        "there is no largest"),
    Bad("argmin axes", lambda: reduce.argmin(matrix("x"), axis=(0, 1)), ArgumentError,
        "an axis must be an int"),
    Bad("softmax of a scalar", lambda: softmax.softmax(tensor("x")), ShapeError,
        "axis -1 is out of range"),
    Bad("log_softmax axis", lambda: softmax.log_softmax(matrix("x"), axis=None), ArgumentError,
        "an axis must be an int"),
    Bad("linear_recurrence shapes", lambda: cumulative.linear_recurrence(
        matrix("a", shape=(1, 3)), matrix("b", shape=(2, 3)), axis=1, reverse=False), ShapeError,
        "1 and 2 differ"),
    Bad("norm ord", lambda: reduce.norm(matrix("x"), [1]), ArgumentError, "matrix norm is"),
    Bad("cumsum axis", lambda: cumulative.cumsum(vector("x"), axis=1), ShapeError, "out of range"),
]  # fmt: skip
