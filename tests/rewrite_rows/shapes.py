"""Rows of the rules that move and drop shapes."""

from __future__ import annotations

import numpy as np

import graphdrop as gd
from graphdrop.op import constant
from graphdrop.ops import random as draws
from graphdrop.ops.elementwise import exp, where
from tests.rewrite_rows.symbols import (
    Row,
    b,
    flag,
    i,
    named,
    row,
    s,
    small,
    spread,
    x,
    y,
    zero,
)

ROWS = [
    # ---- shapes
    Row(
        "same_shape",
        [
            (gd.reshape(x, (3, 4)), x),
            (gd.broadcast_to(x, (3, 4)), x),
            (gd.reshape(named, (named.shape[0], 4)), named),
        ],
        [gd.reshape(x, (4, 3)), gd.broadcast_to(row, (3, 4))],
    ),
    Row("same_order", [(gd.transpose(x, (0, 1)), x)], [x.T]),
    Row(
        "reshape_of_reshape",
        [(x.reshape(12).reshape(2, 6), x.reshape(2, 6))],
        [x.T.reshape(12)],
    ),
    Row(
        "transpose_of_transpose",
        [
            (x.T.T, gd.transpose(x, (0, 1))),
            (
                gd.transpose(gd.transpose(x.reshape(3, 2, 2), (1, 2, 0)), (1, 0, 2)),
                gd.transpose(x.reshape(3, 2, 2), (2, 1, 0)),
            ),
        ],
        [x.T.reshape(12).reshape(3, 4).T],
    ),
    Row(
        "broadcast_of_broadcast",
        [
            (
                gd.broadcast_to(gd.broadcast_to(row, (3, 4)), (2, 3, 4)),
                gd.broadcast_to(row, (2, 3, 4)),
            )
        ],
        [gd.broadcast_to(row.reshape(1, 4), (3, 4))],
    ),
    Row(
        "broadcast_of_lifted",
        [(gd.broadcast_to(row.reshape(1, 4), (3, 4)), gd.broadcast_to(row, (3, 4)))],
        [gd.broadcast_to(x[:, 0].reshape(3, 1), (3, 4)), gd.broadcast_to(x.reshape(4, 3), (4, 3))],
    ),
    Row(
        "view_of_broadcast_scalar",
        [
            (gd.broadcast_to(s, (3, 4)).reshape(12), gd.broadcast_to(s, (12,))),
            (gd.broadcast_to(s, (3, 4)).T, gd.broadcast_to(s, (4, 3))),
        ],
        [gd.broadcast_to(row, (3, 4)).T],
    ),
    Row(
        "broadcast_later",
        [
            (gd.broadcast_to(row, (3, 4)) * x, row * x),
            (exp(gd.broadcast_to(row, (3, 4))), gd.broadcast_to(exp(row), (3, 4))),
            (
                gd.broadcast_to(s, (3, 4)) + gd.broadcast_to(row, (3, 4)),
                gd.broadcast_to(s + row, (3, 4)),
            ),
            (x + np.full((3, 4), 7.0), x + 7.0),
            (
                gd.broadcast_to(row, (3, 4)).astype("float32"),
                gd.broadcast_to(row.astype("float32"), (3, 4)),
            ),
            (where(gd.broadcast_to(flag, (3, 4)), x, y), where(flag, x, y)),
            (row.reshape(1, 4) * x, row * x),
            (exp(s.reshape(1, 1)), gd.broadcast_to(exp(s), (1, 1))),
        ],
        [row * x, x + np.arange(4.0), gd.broadcast_to(row, (3, 4)) @ x.T],
    ),
    Row(
        "reduce_nothing",
        [
            (x.max(axis=()), x.reshape(3, 4)),
            (x.reshape(3, 1, 4).max(axis=1), x.reshape(3, 1, 4).reshape(3, 4)),
            (x.sum(axis=()), x.reshape(3, 4) + 0.0),
            (i.sum(axis=()), i.reshape(3, 4)),
            (small.sum(axis=()), small.astype("int64").reshape(3, 4)),
            (x.any(axis=(), keepdims=True), x.astype(bool).reshape(3, 4)),
        ],
        [x.sum(axis=0), named.max(axis=0), gd.argmax(x.reshape(3, 1, 4), axis=1)],
    ),
    Row(
        "reduce_of_reduce",
        [
            (x.max(axis=0).max(axis=0), x.max(axis=(0, 1)).reshape(())),
            (x.max(axis=0, keepdims=True).max(axis=1), x.max(axis=(0, 1)).reshape((1,))),
            (i.sum(axis=0).sum(axis=0), i.sum(axis=(0, 1)).reshape(())),
            (b.any(axis=1).any(axis=0, keepdims=True), b.any(axis=(0, 1)).reshape((1,))),
        ],
        [x.sum(axis=0).sum(axis=0), x.max(axis=0).min(axis=0), b.any(axis=0).all(axis=0)],
    ),
    Row(
        "reduce_of_broadcast",
        [
            (
                gd.broadcast_to(row, (3, 4)).max(axis=0),
                gd.broadcast_to(row.reshape(1, 4), (1, 4))
                .max(axis=(), keepdims=True)
                .reshape((4,)),
            ),
            (
                gd.broadcast_to(i, (5, 3, 4)).sum(axis=0),
                gd.mul(
                    gd.broadcast_to(i.reshape(1, 3, 4), (1, 3, 4))
                    .sum(axis=(), keepdims=True)
                    .reshape((3, 4)),
                    5,
                ),
            ),
        ],
        [
            gd.broadcast_to(row, (3, 4)).max(axis=1),
            gd.broadcast_to(row, (3, 4)).sum(axis=0),
            gd.broadcast_to(row, ("n", 4)).max(axis=0),
            gd.broadcast_to(i, (0, 3, 4)).sum(axis=0),
        ],
    ),
    Row(
        "known_branch",
        [
            (gd.cond(True, lambda: exp(x), lambda: x), exp(x)),
            (
                gd.cond(False, lambda: exp(x), lambda: (x * y).sum(axis=0) + x),
                (x * y).sum(axis=0) + x,
            ),
        ],
        [gd.cond(flag, lambda: exp(x), lambda: x)],
    ),
    Row(
        "fold_constants",
        [
            (exp(constant(np.zeros(3))), constant(np.ones(3))),
            (gd.as_node(2) + gd.as_node(3), gd.as_node(5)),
            (spread(2.0, shape=(2, 3)).sum(), constant(np.float64(12))),
            (constant(np.ones((40, 50))).sum(), constant(np.float64(2000))),
            (draws.threshold(constant(np.float64(0.5))), constant(np.int64(32768))),
        ],
        [
            x + 1,
            gd.broadcast_to(constant(1.0), (3, 4)),
            draws.threshold(constant(2.0, "f8")),
            constant(np.ones((40, 1))) * constant(np.ones((1, 50))),
            gd.broadcast_to(constant(1.0), ("n",)).sum(),
            exp(gd.broadcast_to(constant(1.0), (0, "n"))),
            draws.mask(
                np.int64(9), True, np.zeros(2, "u8"), zero, zero, site=1, name=None, shape=(3,)
            ),
        ],
    ),
]
