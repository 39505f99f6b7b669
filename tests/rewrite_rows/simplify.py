"""Rows of the rules that fold flags and simplify."""

from __future__ import annotations

import numpy as np

import graphdrop as gd
from graphdrop.op import constant, size
from graphdrop.ops import elementwise as e
from graphdrop.ops import random as draws
from graphdrop.ops.elementwise import where
from tests.rewrite_rows.symbols import (
    Row,
    b,
    c,
    drawn,
    f,
    flag,
    h,
    i,
    j,
    masked,
    named,
    numbers,
    other,
    row,
    small,
    spread,
    u,
    x,
    y,
    z,
)

ROWS = [
    # ---- inference
    Row(
        "dropout_of_nothing",
        [(drawn(100, False), x), (drawn(0), x)],
        [drawn(100), drawn(100, True), drawn(65536)],
    ),
    Row(
        "dropout_of_everything",
        [(drawn(65536), where(flag, 0.0, x)), (drawn(65536, True), where(True, 0.0, x))],
        [drawn(65535)],
    ),
    Row(
        "mask_of_nothing",
        [(masked(0, flag), spread(True, "bool")), (masked(9, False), spread(True, "bool"))],
        [masked(9, flag), masked(65536, True)],
    ),
    Row(
        "mask_of_everything",
        [(masked(65536, True), spread(False, "bool"))],
        [masked(65536, flag), masked(65535, True), masked(0, True)],
    ),
    Row(
        "number_at_rest",
        [
            (numbers(draws.uniform, False), spread(0, "float32")),
            (numbers(draws.normal, False), spread(0, "float32")),
        ],
        [numbers(draws.uniform, flag), numbers(draws.normal, True)],
    ),
    # ---- simplify
    Row(
        "gradient_control",
        [(gd.stop_gradient(x), x), (gd.custom_gradient(x, [y], lambda g, out, y: (g,)), x)],
    ),
    Row(
        "known_size",
        [(size.make((), {"size": 5}), constant(np.int64(5)))],
        [gd.as_node(named.shape[0])],
    ),
    Row(
        "neutral_operand",
        [
            (x - 0, x),
            (x + -0.0, x),
            (i + 0, i),
            (0 + i, i),
            (x * 1, x),
            (1 * x, x),
            (x / 1, x),
            (gd.pow(x, 1), x),
            (i // 1, i),
            (e.mul(b, True), b),
            (e.add(b, False), b),
            (i | 0, i),
            (i ^ 0, i),
            (b | False, b),
            (b ^ False, b),
            (b & True, b),
            (gd.logical_and(b, True), b),
            (gd.logical_or(False, b), b),
            (gd.logical_xor(b, False), b),
            (gd.maximum(x, -np.inf), x),
            (gd.minimum(x, np.inf), x),
            (x * np.ones((3, 4)), x),
            (row * np.ones((3, 4)), gd.broadcast_to(row, (3, 4))),
            (h * 1, h),
        ],
        [
            x + 0.0,
            x - -0.0,
            0 - x,
            1 / x,
            1 - x,
            x * 2,
            gd.maximum(x, np.inf),
            i & 0,
            x * np.asarray([1.0, 1, 1, 2]),
            gd.pow(1, x),
            x // 1,
            x * -1,
            gd.maximum(x, -1),
        ],
    ),
    Row(
        "always_zero",
        [
            (i * 0, spread(0, "int64")),
            (e.mul(b, False), spread(False, "bool")),
            (i & 0, spread(0, "int64")),
            (b & False, spread(False, "bool")),
            (gd.logical_and(b, False), spread(False, "bool")),
            (i - i, spread(0, "int64")),
            (i ^ i, spread(0, "int64")),
            (gd.logical_xor(b, b), spread(False, "bool")),
            (gd.less(x, x), spread(False, "bool")),
            (gd.greater(x, x), spread(False, "bool")),
            (gd.not_equal(i, i), spread(False, "bool")),
        ],
        [x * 0, x - x, gd.not_equal(x, x), x / x, i - j, i * j, gd.less(x, y)],
    ),
    Row(
        "always_one",
        [
            (gd.pow(x, 0), spread(1)),
            (e.add(b, True), spread(True, "bool")),
            (b | True, spread(True, "bool")),
            (gd.logical_or(b, True), spread(True, "bool")),
            (gd.equal(i, i), spread(True, "bool")),
            (gd.less_equal(i, i), spread(True, "bool")),
            (gd.greater_equal(b, b), spread(True, "bool")),
        ],
        [gd.equal(x, x), gd.less_equal(x, x), x / x, gd.equal(i, j), gd.pow(x, -0.5)],
    ),
    Row(
        "same_operands",
        [
            (gd.maximum(x, x), x),
            (gd.minimum(i, i), i),
            (i & i, i),
            (i | i, i),
            (gd.logical_and(b, b), b),
            (gd.logical_or(b, b), b),
        ],
        [gd.maximum(x, y), i ^ i, x * x],
    ),
    Row("integers_are_not_nan", [(gd.isnan(i), spread(False, "bool"))], [gd.isnan(x)]),
    Row(
        "double_negation",
        [
            (gd.neg(-x), x),
            (gd.neg(-u), u),
            (gd.logical_not(gd.logical_not(b)), b),
            (~~i, i),
            (gd.neg(gd.neg(-x)), -x),
        ],
        [-x, -gd.abs(-x)],
    ),
    Row(
        "times_minus_one",
        [(x * -1, -x), (-1 * x, -x), (x / -1, -x), (i * -1, -i)],
        [x * -2, -1 / x, u * 255],
    ),
    Row("add_negative", [(x + -y, x - y), (-x + y, y - x), (i + -j, i - j)], [x - y]),
    Row(
        "subtract_negative",
        [(x - -y, x + y), (named - -other, gd.add(named, other))],
        [-x - y, x - y],
    ),
    Row(
        "two_negatives",
        [(-x * -y, x * y), (e.div(-x, -y), x / y), (-i * -j, i * j)],
        [-x * y, -x + -y],
    ),
    Row(
        "negative_times_number",
        [(-x * 3, x * -3), (-(x * 3), x * -3), (-(3 * x), x * -3), (-i * 3, i * -3)],
        [x * 3, -(x * y), -(x + 3)],
    ),
    Row("negative_by_number", [(-x / 3, x / -3), (-(x / 3), x / -3)], [x / 3, -(3 / x)]),
    Row("sign_out_of_product", [(-x * y, -(x * y)), (y * -x, -(x * y))], [-(x * y)]),
    Row("sign_out_of_quotient", [(-x / y, -(x / y))], [-(x / y), x / -y]),
    Row("sign_out_of_divisor", [(x / -y, -(x / y))], [-(x / y), -x / y]),
    Row(
        "even_function",
        [
            (gd.abs(-x), gd.abs(x)),
            (gd.square(-x), gd.square(x)),
            (gd.square(gd.abs(x)), gd.square(x)),
            (gd.square(-i), gd.square(i)),
        ],
        [gd.tanh(-x), gd.abs(x)],
    ),
    Row(
        "idempotent",
        [
            (op(op(x)), op(x))
            for op in (gd.abs, gd.floor, gd.ceil, gd.trunc, gd.relu, gd.sign, e._round)
        ],
        [gd.floor(gd.ceil(x)), gd.tanh(gd.tanh(x))],
    ),
    Row(
        "divide_by_power_of_two",
        [(x / 4, x * 0.25), (x / -0.5, x * -2.0), (h / 1024, h * 2.0**-10), (f / 2, f * 0.5)],
        [x / 3, 4 / x, x / 0.0, x / np.inf, x / np.nan, x / 2.0**-1074, x / 2.0**1023, h / 2**15],
    ),
    Row(
        "decided_where",
        [
            (where(True, x, y), x),
            (where(False, x, y), y),
            (where(b, x, x), x),
            (where(True, row, x), gd.broadcast_to(row, (3, 4))),
        ],
        [where(b, x, y), where(np.asarray([True, True, False, True]), x, y)],
    ),
    Row(
        "where_not",
        [(where(gd.logical_not(b), x, y), where(b, y, x)), (where(~b, x, y), where(b, y, x))],
        [where(b, x, y)],
    ),
    Row(
        "where_in_where",
        [
            (where(b, where(b, x, z), y), where(b, x, y)),
            (where(b, x, where(b, z, y)), where(b, x, y)),
        ],
        [where(b, where(c, x, z), y), where(b, where(c, x, x), y)],
    ),
    Row(
        "where_is_condition",
        [(where(b, True, False), b)],
        [where(b, 1, 0), where(b, False, True), where(b, c, False)],
    ),
    Row("where_is_opposite", [(where(b, False, True), gd.logical_not(b))], [where(b, 0, 1)]),
    Row(
        "not_equal_is_not_equal",
        [(gd.logical_not(gd.equal(x, y)), gd.not_equal(x, y))],
        [gd.logical_not(gd.less(x, y))],
    ),
    Row(
        "not_different_is_equal",
        [(gd.logical_not(gd.not_equal(x, y)), gd.equal(x, y))],
        [gd.logical_not(gd.equal(x, y))],
    ),
    Row(
        "opposite_order",
        [
            (gd.logical_not(gd.less(i, j)), gd.greater_equal(i, j)),
            (gd.logical_not(gd.less_equal(i, j)), gd.greater(i, j)),
            (gd.logical_not(gd.greater(i, j)), gd.less_equal(i, j)),
            (gd.logical_not(gd.greater_equal(b, c)), gd.less(b, c)),
        ],
        [gd.logical_not(gd.less(x, y)), gd.logical_not(gd.greater_equal(f, 0))],
    ),
    Row(
        "cast_of_cast",
        [
            (f.astype("float64").astype("float32"), f),
            (f.astype("float64").astype("float16"), f.astype("float16")),
            (small.astype("int32").astype("float32"), small.astype("float32")),
            (small.astype("float32").astype("int8"), small),
            (small.astype("int64").astype("uint8"), small.astype("uint8")),
            (b.astype("float32").astype("int8"), b.astype("int8")),
            (f.astype("float64").astype("bool"), f.astype("bool")),
            (u.astype("float16").astype("int32"), u.astype("int32")),
        ],
        [
            x.astype("float32").astype("float64"),
            i.astype("float64").astype("int64"),
            f.astype("float64").astype("int8"),
            small.astype("float32").astype("uint8"),
            x.astype("int64").astype("float64"),
            i.astype("float64").astype("float32"),
            u.astype("int8").astype("int32"),
            x.astype("bool").astype("float64"),
        ],
    ),
]
