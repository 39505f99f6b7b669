"""The table's rows for convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops import conv, pool
from ..ops.leaf import tensor, tensor4
from .reduce import distinct, exactly, torch_call
from .table import NUMBERS, Array, Bad, Case, Sample, operands, strided

PLAIN: dict[str, Any] = {
    "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1,
}  # fmt: skip
ODD: dict[str, Any] = {
    "stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2,
}  # fmt: skip


# --------------------------------------------------------------------------------------------
# references: position by position, from the definition


def _places(
    size: Sequence[int], kernel: Sequence[int], stride: Any, padding: Any, dilation: Any
) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """Row and column of every window, and the part of the padded image that it covers."""
    counts = [
        (s + sum(p) - (k - 1) * d - 1) // step + 1
        for s, k, step, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    for i in range(counts[0]):
        for j in range(counts[1]):
            high, wide = (
                slice(at * step, at * step + (k - 1) * d + 1, d)
                for at, k, step, d in zip((i, j), kernel, stride, dilation, strict=True)
            )
            yield i, j, (high, wide)


def _padded(x: Array, padding: Any, fill: Any = 0) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)


def _conv(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    wide = np.result_type(x.dtype, np.float64 if x.dtype.kind == "f" else np.int64)
    parts = {}
    per = w.shape[0] // groups
    around = _padded(x, padding).astype(wide)
    for i, j, window in _places(x.shape[2:], w.shape[2:], stride, padding, dilation):
        seen = around[:, :, *window].reshape(len(x), groups, w.shape[1], *w.shape[2:])
        kernels = w.astype(wide).reshape(groups, per, *w.shape[1:])
        y = np.einsum("ngcij,gocij->ngo", seen, kernels).reshape(len(x), len(w))
        parts[i, j] = y
    rows, columns = max(parts)[0] + 1, max(parts)[1] + 1
    y = np.stack([np.stack([parts[i, j] for j in range(columns)], -1) for i in range(rows)], -2)
    return y.astype(x.dtype)


def _transposed(x_shape: Sequence[int], w_shape: Sequence[int], which: int, **params: Any) -> Any:
    """The gradient of `_conv` by one operand, as its transposed matrix."""

    def compute(first: Array, second: Array) -> Array:
        other, g = (second, first) if which == 0 else (first, second)
        shape = tuple(x_shape if which == 0 else w_shape)
        columns = []
        for k in range(int(np.prod(shape))):
            unit = np.zeros(int(np.prod(shape)))
            unit[k] = 1
            unit = unit.reshape(shape)
            pairs = (unit, other) if which == 0 else (other.astype(np.float64), unit)
            columns.append(float(np.sum(_conv(*pairs, **params) * g.astype(np.float64))))
        return np.array(columns).reshape(shape).astype(first.dtype)

    return compute


def _pool(
    reduce: Callable[..., Any], x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any,
    fill: Any = 0,
) -> Array:  # fmt: skip
    around = _padded(x, padding, fill)
    parts = {
        (i, j): reduce(around[:, :, *window], axis=(2, 3))
        for i, j, window in _places(x.shape[2:], kernel, stride, padding, dilation)
    }
    rows, columns = max(parts)[0] + 1, max(parts)[1] + 1
    return np.stack([np.stack([parts[i, j] for j in range(columns)], -1) for i in range(rows)], -2)


def _max_pool(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Array:
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return _pool(np.max, x, kernel, stride, padding, dilation, low)


def _positions(x: Array, **params: Any) -> Array:
    """The first place of each window's maximum."""
    y = _max_pool(x, **params)
    places = np.arange(x.shape[2] * x.shape[3]).reshape(1, 1, *x.shape[2:])
    around = _padded(np.broadcast_to(places, x.shape), params["padding"], -1)
    found = np.empty(y.shape, np.int64)
    values = _padded(x, params["padding"])
    for i, j, window in _places(x.shape[2:], **params):
        for n, c in np.ndindex(*x.shape[:2]):
            seen, at = values[n, c, *window].ravel(), around[n, c, *window].ravel()
            best = y[n, c, i, j]
            hits = [p for v, p in zip(seen, at, strict=True) if p >= 0 and (v == best or v != v)]
            found[n, c, i, j] = hits[0]
    return found


# --------------------------------------------------------------------------------------------
# convolution


def _conv_case(
    label: str, samples: Sequence[Sample], canonical: dict[str, Any], **given: Any
) -> Case:
    """conv2d called with `given`, against the reference with the canonical params."""

    def in_torch(x: Any, w: Any) -> Any:
        return torch_call("nn.functional.conv2d", **given)(x, w)

    comparable = not isinstance(given.get("padding"), tuple) or isinstance(given["padding"][0], int)
    return Case(
        f"conv2d {label}".strip(), lambda x, w: conv.conv2d(x, w, **given),
        lambda x, w: _conv(x, w, **{**PLAIN, **canonical}), samples, covers=["conv2d"], ulp=8,
        torch=in_torch if comparable else None, symbolic=given.get("padding") != "same",
    )  # fmt: skip


IMAGES = operands((1, 2, 5, 6), (3, 2, 2, 3))
CONVOLUTIONS = [
    _conv_case("", [
        operands((2, 3, 5, 6), (4, 3, 2, 3)), operands((1, 1, 1, 1), (1, 1, 1, 1)),
        operands((3, 2, 4, 5), (1, 2, 4, 5)),
        operands((0, 2, 4, 5), (3, 2, 2, 2)), strided((2, 3, 4, 5), (4, 3, 3, 2)),
    ], {}),
    _conv_case("stride", [IMAGES], {"stride": (2, 3)}, stride=(2, 3)),
    _conv_case("padding", [IMAGES], {"padding": ((1, 1), (2, 2))}, padding=(1, 2)),
    _conv_case("uneven padding", [IMAGES], {"padding": ((1, 0), (2, 3))},
               padding=((1, 0), (2, 3))),
    _conv_case("valid", [IMAGES], {}, padding="valid"),
    _conv_case("same", [IMAGES], {"padding": ((0, 1), (2, 2)), "dilation": (1, 2)},
               padding="same", dilation=(1, 2)),
    _conv_case("dilation", [IMAGES], {"dilation": (3, 2)}, dilation=(3, 2)),
    _conv_case("groups", [operands((1, 4, 3, 5), (6, 2, 2, 3))], {"groups": 2}, groups=2),
    _conv_case("depthwise", [operands((2, 3, 4, 5), (3, 1, 2, 3))], {"groups": 3}, groups=3),
    _conv_case("everything", [operands((1, 4, 5, 6), (2, 2, 3, 2))],
               {"stride": (2, 3), "padding": ((1, 1), (2, 2)), "dilation": (1, 2), "groups": 2},
               stride=(2, 3), padding=(1, 2), dilation=(1, 2), groups=2),
    # rows and columns that no window reaches
    _conv_case("remainder", [operands((2, 1, 6, 5), (1, 1, 2, 2))], {"stride": (3, 2)},
               stride=(3, 2)),
    Case("conv2d of integers", lambda x, w: conv.conv2d(x, w, padding=1),
         lambda x, w: _conv(x, w, **{**PLAIN, "padding": ((1, 1), (1, 1))}), [IMAGES],
         dtypes=["int32", "uint8"], covers=["conv2d"]),
    *[
        Case(f"conv2d_input_grad {label}".strip(),
             lambda g, w, p=params, s=x: conv.conv2d_input_grad(g, w, size=s[2:], **p),
             _transposed(x, w, 0, **params), [operands(y, w)],
             dtypes=["float32", "float64"], covers=["conv2d_input_grad"], ulp=8, symbolic=False)
        for label, x, w, y, params in (
            ("", (2, 3, 4, 5), (4, 3, 2, 3), (2, 4, 3, 3), PLAIN),
            ("everything", (1, 4, 5, 6), (6, 2, 2, 3), (1, 6, 3, 5), ODD))
    ],
    *[
        Case(f"conv2d_kernel_grad {label}".strip(),
             lambda a, g, p=params, s=w: conv.conv2d_kernel_grad(a, g, size=s[2:], **p),
             _transposed(x, w, 1, **params), [operands(x, y)],
             dtypes=["float32", "float64"], covers=["conv2d_kernel_grad"], ulp=8, symbolic=False)
        for label, x, w, y, params in (
            ("", (2, 3, 4, 5), (4, 3, 2, 3), (2, 4, 3, 3), PLAIN),
            ("everything", (1, 4, 5, 6), (6, 2, 2, 3), (1, 6, 3, 5), ODD))
    ],
]  # fmt: skip


# --------------------------------------------------------------------------------------------
# pooling

# (label, what is given, what that means)
POOLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("", {"kernel": 2}, {"kernel": (2, 2), "stride": (2, 2)}),
    ("overlapping", {"kernel": (3, 2), "stride": 1}, {"kernel": (3, 2), "stride": (1, 1)}),
    ("padding", {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 0)},
     {"kernel": (2, 3), "stride": (1, 2), "padding": ((1, 1), (0, 0))}),
    ("remainder", {"kernel": (2, 1), "stride": (3, 4)}, {"kernel": (2, 1), "stride": (3, 4)}),
]  # fmt: skip
DILATED = (
    "dilation", {"kernel": 2, "stride": (1, 2), "padding": 1, "dilation": (1, 3)},
    {"kernel": (2, 2), "stride": (1, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 3)},
)  # fmt: skip
NO_TIES = [*distinct((1, 2, 5, 6), (2, 1, 3, 4)), operands((0, 2, 4, 5))]


def _full(canonical: dict[str, Any]) -> dict[str, Any]:
    return {"padding": ((0, 0), (0, 0)), "dilation": (1, 1), **canonical}


POOLINGS = [
    case
    for label, given, canonical in [*POOLS, DILATED]
    for case in (
        Case(f"max_pool2d {label}".strip(), lambda x, k=given: pool.max_pool2d(x, **k),
             lambda x, p=canonical: _max_pool(x, **_full(p)), NO_TIES, dtypes=NUMBERS,
             covers=["max_pool2d"],
             torch=torch_call("nn.functional.max_pool2d", **{
                 "kernel_size" if k == "kernel" else k: v for k, v in given.items()})),
        Case(f"max_pool2d_position {label}".strip(),
             lambda x, k=given: pool.max_pool2d_position(x, **k),
             lambda x, p=canonical: _positions(x, **_full(p)),
             [*NO_TIES, exactly(np.zeros((1, 2, 4, 5))),
              exactly(np.arange(20).reshape(1, 1, 4, 5) // 3 % 3)],
             dtypes=["float32", "int8"], covers=["max_pool2d_position"], wrt=()),
        Case(f"sum_pool2d {label}".strip(), lambda x, k=given: pool.sum_pool2d(x, **k),
             lambda x, p=canonical: _pool(np.sum, x.astype("f8"), **_full(p)).astype(x.dtype),
             [*NO_TIES[:2], operands((0, 2, 4, 5))], covers=["sum_pool2d", "sum_pool2d_grad"]),
    )
] + [
    case
    for label, given, canonical in POOLS
    for case in (
        Case(f"avg_pool2d {label}".strip(), lambda x, k=given: pool.avg_pool2d(x, **k),
             lambda x, p=canonical: _pool(np.mean, x.astype("f8"), **_full(p)).astype(x.dtype),
             NO_TIES[:2],
             torch=torch_call("nn.functional.avg_pool2d", **{
                 "kernel_size" if k == "kernel" else k: v for k, v in given.items()})),
        Case(f"avg_pool2d without padding {label}".strip(),
             lambda x, k=given: pool.avg_pool2d(x, **k, count_include_pad=False),
             lambda x, p=canonical: _pool(
                 np.nanmean, x.astype("f8"), **_full(p), fill=np.nan).astype(x.dtype),
             NO_TIES[:2],
             torch=torch_call("nn.functional.avg_pool2d", count_include_pad=False, **{
                 "kernel_size" if k == "kernel" else k: v for k, v in given.items()})),
    )
] + [
    Case("avg_pool2d of integers", lambda x: pool.avg_pool2d(x, 2),
         lambda x: _pool(np.mean, x, **_full(POOLS[0][2])), NO_TIES[:1], dtypes=["int32", "bool"]),
    Case("max_pool2d nan", lambda x: pool.max_pool2d(x, 2, padding=1),
         lambda x: _max_pool(x, (2, 2), (2, 2), ((1, 1), (1, 1)), (1, 1)),
         [exactly([[[[1.0, np.nan, 3.0], [-np.inf, 2.0, np.inf]]]])], covers=["max_pool2d"],
         wrt=()),
    # torch takes the first of equals too
    Case("max_pool2d ties", lambda x: pool.max_pool2d(x, 2, stride=1),
         lambda x: _max_pool(x, (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
         [exactly(np.arange(20).reshape(1, 1, 4, 5) // 3 % 3), exactly(np.ones((2, 1, 3, 4)))],
         dtypes=["float32"], covers=["max_pool2d"],
         torch=torch_call("nn.functional.max_pool2d", kernel_size=2, stride=1)),
    Case("max_pool2d of the lowest", lambda x: pool.max_pool2d_position(x, 2, padding=1),
         lambda x: _positions(x, kernel=(2, 2), stride=(2, 2), padding=((1, 1), (1, 1)),
                              dilation=(1, 1)),
         [exactly(np.full((1, 1, 2, 3), -128))], dtypes=["int8", "float32"],
         covers=["max_pool2d_position"], wrt=()),
]  # fmt: skip

CASES = [*CONVOLUTIONS, *POOLINGS]


def _image(*shape: Any) -> Any:
    return tensor4("x", shape=shape or ("n", 3, 5, 6))


def _kernel(*shape: Any) -> Any:
    return tensor4("w", shape=shape or (4, 3, 2, 3))


BAD = [
    Bad("conv2d rank", lambda: conv.conv2d(tensor("x", shape=(3, 5, 6)), _kernel()), ShapeError,
        r"needs images \(n, c, h, w\)"),
    Bad("conv2d channels", lambda: conv.conv2d(_image(), _kernel(4, 2, 2, 3)), ShapeError,
        "channels of .* 2 and 3 differ"),
    Bad("conv2d groups", lambda: conv.conv2d(_image(), _kernel(4, 1, 2, 3), groups=3), ShapeError,
        "4 channels cannot be divided into 3 groups"),
    Bad("conv2d groups 0", lambda: conv.conv2d(_image(), _kernel(), groups=0), ArgumentError,
        "groups is an int >= 1"),
    Bad("conv2d window", lambda: conv.conv2d(_image(), _kernel(4, 3, 8, 3), padding=1), ShapeError,
        "a window of 8 does not fit into a size of 5 with padding 1 and 1"),
    Bad("conv2d stride", lambda: conv.conv2d(_image(), _kernel(), stride=0), ArgumentError,
        "stride is an int >= 1"),
    Bad("conv2d padding", lambda: conv.conv2d(_image(), _kernel(), padding="full"), ArgumentError,
        "padding is 'same', 'valid' or numbers"),
    Bad("conv2d negative padding", lambda: conv.conv2d(_image(), _kernel(), padding=(0, -1)),
        ArgumentError, "padding is an int >= 0"),
    Bad("conv2d same stride", lambda: conv.conv2d(_image(), _kernel(), stride=2, padding="same"),
        ArgumentError, "needs stride 1"),
    Bad("conv2d bools", lambda: conv.conv2d(tensor("x", bool, (1, 1, 2, 2)),
                                            tensor("w", bool, (1, 1, 1, 1))), DTypeError, "bool"),
    Bad("max_pool2d rank", lambda: pool.max_pool2d(tensor("x", shape=(5, 6)), 2), ShapeError,
        "needs images"),
    Bad("max_pool2d window", lambda: pool.max_pool2d(_image(), 7), ShapeError, "does not fit"),
    Bad("max_pool2d padding", lambda: pool.max_pool2d(_image(), 2, padding=2), ArgumentError,
        "more than half"),
    Bad("avg_pool2d kernel", lambda: pool.avg_pool2d(_image(), 0), ArgumentError,
        "kernel is an int >= 1"),
    Bad("max_pool2d bools", lambda: pool.max_pool2d(tensor("x", bool, (1, 1, 2, 2)), 2),
        DTypeError, "does not take bools"),
]  # fmt: skip
