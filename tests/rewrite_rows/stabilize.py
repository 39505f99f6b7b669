"""Rows of the rules that keep formulas, and their gradients, from overflowing."""

from __future__ import annotations

import numpy as np

import graphdrop as gd
from graphdrop.ops.elementwise import exp, log, sigmoid
from graphdrop.ops.reduce import logsumexp
from graphdrop.ops.softmax import log_softmax, softmax
from tests.rewrite_rows.symbols import (
    Row,
    h,
    i,
    ids,
    put,
    row,
    s,
    sum_exp,
    top,
    x,
    y,
    z,
)

ROWS = [
    # ---- stabilize
    Row(
        "power_2",
        [(gd.pow(x, 2), gd.square(x)), (gd.pow(i, 2), gd.square(i))],
        [gd.pow(2, x), gd.pow(x, 3)],
    ),
    Row("power_minus_1", [(gd.pow(x, -1), 1 / x)], [gd.pow(x, -2), gd.pow(x, 1)]),
    Row(
        "power_half",
        [
            (gd.pow(gd.square(x), 0.5), gd.sqrt(gd.square(x))),
            (gd.pow((x * x).sum(axis=1), 0.5), gd.sqrt((x * x).sum(axis=1))),
        ],
        [gd.pow(x, 0.5), gd.pow(x * y, 0.5)],
    ),
    Row(
        "power_minus_half",
        [(gd.pow(exp(x), -0.5), gd.rsqrt(exp(x)))],
        [gd.pow(x, -0.5)],
    ),
    Row("one_over_sqrt", [(1 / gd.sqrt(x), gd.rsqrt(x))], [2 / gd.sqrt(x), y / gd.sqrt(x)]),
    Row(
        "sqrt_of_square",
        [(gd.sqrt(gd.square(x)), gd.abs(x)), (gd.sqrt(x * x), gd.abs(x))],
        [gd.sqrt(x * y), gd.square(gd.sqrt(x))],
    ),
    Row("log_of_exp", [(log(exp(x)), x)], [exp(log(x)), log(gd.expm1(x))]),
    Row(
        "log_of_one_plus_exp",
        [
            (log(1 + exp(x)), gd.softplus(x)),
            (log(exp(x) + 1), gd.softplus(x)),
            (gd.log1p(exp(x)), gd.softplus(x)),
            (log(exp(row) + np.ones((3, 4))), gd.broadcast_to(gd.softplus(row), (3, 4))),
        ],
        [log(2 + exp(x)), log(1 - exp(x)), log(True + exp(x) - 1)],
    ),
    Row(
        "log_of_sigmoid",
        [(log(sigmoid(x)), -gd.softplus(-x))],
        [gd.log2(sigmoid(x)), log(sigmoid(x) * y)],
    ),
    Row(
        "log_of_one_minus_sigmoid",
        [(log(1 - sigmoid(x)), -gd.softplus(x)), (gd.log1p(-sigmoid(x)), -gd.softplus(x))],
        [log(sigmoid(x) - 1), log(2 - sigmoid(x)), 1 - sigmoid(x)],
    ),
    Row("log_of_one_plus", [(log(1 + x), gd.log1p(x)), (log(x + 1), gd.log1p(x))], [log(x + 2)]),
    Row("log_of_one_minus", [(log(1 - x), gd.log1p(-x))], [log(x - 1)]),
    Row(
        "exp_minus_one",
        [(exp(x) - 1, gd.expm1(x)), (exp(x) + -1, gd.expm1(x))],
        [exp(x) - 2, exp(x) + 1],
    ),
    Row("one_minus_exp", [(1 - exp(x), -gd.expm1(x))], [2 - exp(x)]),
    Row(
        "logistic",
        [(1 / (1 + exp(x)), sigmoid(-x)), (1 / (exp(-x) + 1), sigmoid(gd.neg(-x)))],
        [2 / (1 + exp(x)), 1 / (2 + exp(x))],
    ),
    Row(
        "logistic_of_quotient",
        [(exp(x) / (1 + exp(x)), sigmoid(x))],
        [exp(x) / (1 + exp(y)), exp(x) / (2 + exp(x))],
    ),
    Row(
        "softmax_written_out",
        [
            (exp(x) / sum_exp(), softmax(x, axis=1)),
            (exp(x) / sum_exp(keepdims=False).reshape(3, 1), softmax(x, axis=1)),
            (exp(row) / exp(row).sum(), softmax(row, axis=0)),
            (exp(x) / exp(x).sum(axis=0), softmax(x, axis=0)),
        ],
        [
            exp(x) / exp(x).sum(),
            exp(x) / exp(y).sum(axis=1, keepdims=True),
            exp(x.reshape(3, 4)) / exp(y).sum(axis=0),
            exp(x) / exp(x).sum(axis=1).reshape(1, 3, 1),
        ],
    ),
    Row(
        "softmax_of_shifted",
        [
            (softmax(x - top(), axis=1), softmax(x, axis=1)),
            (log_softmax(x - top(), axis=1), log_softmax(x, axis=1)),
            (softmax(x - x.max(keepdims=True), axis=1), softmax(x, axis=1)),
        ],
        [softmax(x - top(), axis=0), softmax(x - top(y), axis=1), softmax(x + top(), axis=1)],
    ),
    Row(
        "logsumexp_of_shifted",
        [
            (logsumexp(x - top(), axis=1) + x.max(axis=1), logsumexp(x, axis=1)),
            (
                top() + logsumexp(x - top(), axis=1, keepdims=True),
                logsumexp(x, axis=1, keepdims=True),
            ),
        ],
        [logsumexp(x - top(), axis=0) + x.max(axis=0), logsumexp(x - top(), axis=1)],
    ),
    Row(
        "log_of_sum_of_exp",
        [(log(sum_exp(x, False)), logsumexp(x, axis=1)), (log(exp(x).sum()), logsumexp(x))],
        [log(exp(x).max(axis=1)), log((2 * exp(x)).sum())],
    ),
    Row("log_of_softmax", [(log(softmax(x)), log_softmax(x))], [gd.log2(softmax(x))]),
    Row(
        "minus_logsumexp",
        [(x - logsumexp(x, axis=1, keepdims=True), log_softmax(x, axis=1))],
        [
            x - logsumexp(y, axis=1, keepdims=True),
            x - logsumexp(x, keepdims=True),
            x - logsumexp(x, axis=0),
        ],
    ),
    Row(
        "log_of_chosen_softmax",
        [
            (log(softmax(x)[:, ids]), log(softmax(x))[:, ids]),
            (log(softmax(x)[1]), log(softmax(x))[1]),
        ],
        [log(x[:, ids]), log(sigmoid(x)[1])],
    ),
    Row(
        "sum_of_copies",
        [
            (
                gd.broadcast_to(row, (3, 4)).sum(axis=0),
                gd.broadcast_to(row.reshape(1, 4), (1, 4)).sum(axis=(), keepdims=True).reshape((4,))
                * 3.0,
            )
        ],
        [
            gd.broadcast_to(row, ("n", 4)).sum(axis=0),
            gd.broadcast_to(row, (0, 4)).sum(axis=0),
            gd.broadcast_to(row, (3, 4)).sum(axis=1),
            gd.broadcast_to(h, (1000, 3, 4)).sum(axis=0),
        ],
    ),
    # ---- gradients
    Row(
        "cancelled_factor",
        [(x * sigmoid(y) / sigmoid(y), x), (exp(y) * row / exp(y), gd.broadcast_to(row, (3, 4)))],
        [x * y / y, x * exp(y) / exp(z)],
    ),
    Row(
        "cancelled_divisor",
        [
            ((x / exp(y)) * exp(y), x),
            (exp(y) * (x / exp(y) * z), x * z),
            (-(x / sigmoid(y)) * sigmoid(y), -x),
            (x / (1 + exp(y)) * (1 + exp(y)), x),
            (x / (1 - sigmoid(y)) * (1 - sigmoid(y)), x),
            (x / sum_exp() * sum_exp(), x),
            (x / (1 - sigmoid(y)) * sigmoid(-y), x),
            (x / sigmoid(y) * (1 - sigmoid(-y)), x),
            ((x / exp(y) - z) * exp(y), x - z * exp(y)),
            ((z + row * (x / exp(y))) * exp(y), z * exp(y) + row * x),
        ],
        [
            (x / y) * y,
            (x / exp(y)) * exp(z),
            (x / exp(y) - z) * y,
            (x + y) * exp(z),
            x / (2 - sigmoid(y)) * (2 - sigmoid(y)),
            x / (1 - sigmoid(y)) * sigmoid(y),
        ],
    ),
    Row(
        "logistic_gradient",
        [(sigmoid(-x) * exp(x), sigmoid(x))],
        [sigmoid(x) * exp(x), sigmoid(-x) * exp(y)],
    ),
    Row(
        "logistic_gradient_of_negative",
        [(sigmoid(x) * exp(-x), sigmoid(-x))],
        [sigmoid(x) * exp(x), sigmoid(x) * exp(-y)],
    ),
    Row(
        "gradient_of_softplus",
        [
            (x / (1 + exp(y)) * exp(y), x * sigmoid(y)),
            (exp(y) * (x / (exp(y) + 1)), x * sigmoid(y)),
        ],
        [x / (1 + exp(y)) * exp(z), x / (2 + exp(y)) * exp(y)],
    ),
    Row(
        "gradient_of_logsumexp",
        [
            (s / sum_exp() * exp(x), gd.broadcast_to(s, (3, 1)).reshape(3, 1) * softmax(x)),
            (
                (s / sum_exp(x, False)).reshape(3, 1) * exp(x),
                gd.broadcast_to(s, (3,)).reshape(3, 1) * softmax(x),
            ),
            (
                (s / exp(x).sum()).reshape(1, 1) * exp(x),
                s.reshape(1, 1) * exp(x - logsumexp(x, axis=(0, 1), keepdims=True)),
            ),
        ],
        [s / sum_exp() * exp(y), x / sum_exp() * exp(x), s / sum_exp()],
    ),
    Row(
        "gradient_of_softmax",
        [
            (
                (y / sum_exp() + gd.sum(-(z / sum_exp()), axis=1).reshape(3, 1)) * exp(x),
                softmax(x) * y - softmax(x) * z.sum(axis=1, keepdims=True),
            )
        ],
        [
            (y / sum_exp() + gd.sum(-(z / sum_exp(y)), axis=1).reshape(3, 1)) * exp(x),
            (y / sum_exp() + gd.sum(-(z / sum_exp()), axis=1).reshape(3, 1)) * exp(y),
        ],
    ),
    Row(
        "cancelled_in_place",
        [(put(1, row / softmax(x)[1]) * softmax(x), put(1, row))],
        [
            put(2, row / softmax(x)[1]) * softmax(x),
            put(1, row / x[1]) * x,
            put(1, row / softmax(x)[1], 1.0) * softmax(x),
        ],
    ),
    Row(
        "parts_side_by_side",
        [
            (put(1, row) + put(0, exp(row)), put(0, exp(row), put(1, row))),
            (put(2, row, put(1, row)) + put(0, row), put(0, row, put(2, row, put(1, row)))),
        ],
        [
            put(1, row) + put(1, exp(row)),
            put(2, row, put(1, row)) + put(1, exp(row)),
            put(1, row, 1.0) + put(0, row),
            put(1, row) + put(0, row, 1.0),
            put(1, row, x) + put(0, row, y),
        ],
    ),
    Row(
        "cancelled_in_place_of_difference",
        [((put(1, row / softmax(x)[1]) - z) * softmax(x), put(1, row) - softmax(x) * z)],
        [
            (put(1, row / softmax(y)[1]) - z) * softmax(x),
            (put(0, row / softmax(x)[1]) - z) * softmax(x),
        ],
    ),
]
