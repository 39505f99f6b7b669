"""The table's rows for products of matrices, einsum and decompositions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops import linalg
from ..ops.einsum import einsum
from ..ops.leaf import matrix, scalar, tensor, tensor3, vector
from ..ops.shape import specify_shape, swap_last
from .reduce import exactly, torch_call
from .table import ALL, NUMBERS, Array, Bad, Case, Sample, operands, strided

LAPACK = ("float32", "float64")


def _product(name: str, build: Any, reference: Any, *shapes: Any, **rest: Any) -> Case:
    """A case whose samples have these pairs of shapes."""
    rest.setdefault("ulp", 8)
    return Case(name, build, reference, [operands(a, b) for a, b in shapes], **rest)


PRODUCTS = [
    _product(
        "matmul", linalg.matmul, np.matmul,
        ((2, 3), (3, 4)), ((1, 3), (3, 1)), ((3, 1), (1, 2)), ((2, 0), (0, 3)), ((0, 2), (2, 3)),
        dtypes=ALL, covers=["matmul"], torch=torch_call("matmul"),
    ),
    _product(
        "matmul vectors", linalg.matmul, np.matmul,
        ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((1,), (1, 2)), ((0,), (0,)), ((0,), (0, 2)),
        ((5, 2, 3), (3,)), ((2,), (5, 2, 3)), ((4, 5, 2, 3), (3,)),
        dtypes=NUMBERS, covers=["matmul"],
    ),
    _product(
        "matmul batched", linalg.matmul, np.matmul,
        ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)), ((0, 2, 3), (3, 4)), ((1, 2, 3), (5, 3, 1)),
        ((4, 5, 2, 3), (3, 6)),
        covers=["matmul"], torch=torch_call("matmul"),
    ),
    Case("matmul strided", linalg.matmul, np.matmul,
         [strided((2, 3), (3, 4)), strided((5, 2, 3), (3, 4)), strided((3,), (3, 4))],
         covers=["matmul"], ulp=8),
    Case("matmul nan", linalg.matmul, np.matmul,
         [exactly([[1.0, np.nan], [2.0, 3.0]], [[1.0, 2.0], [np.inf, 0.0]])], covers=["matmul"],
         wrt=()),
    Case("matmul operator", lambda a, b: a @ b + b.T @ a.T, lambda a, b: a @ b + b.T @ a.T,
         [operands((3, 4), (4, 3))], covers=["matmul"], ulp=16),
    _product(
        "dot", linalg.dot, np.dot,
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((), (2, 3)), ((2,), ()),
        ((), ()), ((2, 5, 3), (3,)), ((2, 5, 3), (6, 3, 4)), ((0, 3), (3, 2)), dtypes=NUMBERS,
    ),
    _product("tensordot", linalg.tensordot, np.tensordot,
             ((2, 3, 4), (3, 4, 5)), ((3, 4), (3, 4)), ((2, 0, 3), (0, 3)), ((2, 3), (2, 3, 4))),
    _product("tensordot 0", lambda a, b: linalg.tensordot(a, b, 0),
             lambda a, b: np.tensordot(a, b, 0), ((2, 3), (4,)), ((), (2,))),
    _product("tensordot axes", lambda a, b: linalg.tensordot(a, b, ((2, 0), (-2, 2))),
             lambda a, b: np.tensordot(a, b, ((2, 0), (-2, 2))), ((2, 3, 4), (5, 4, 2)),
             dtypes=NUMBERS, torch=torch_call("tensordot", ((2, 0), (1, 2)))),
    _product("tensordot one axis", lambda a, b: linalg.tensordot(a, b, (1, 0)),
             lambda a, b: np.tensordot(a, b, (1, 0)), ((2, 3, 4), (3, 5))),
    _product("outer", linalg.outer, np.outer, ((2, 3), (4,)), ((), (3,)), ((0,), (2,)),
             dtypes=ALL),
    _product("inner", linalg.inner, np.inner, ((3,), (3,)), ((2, 3), (4, 3)), ((5, 2, 3), (3,)),
             ((), (2,)), dtypes=NUMBERS),
    _product("vdot", linalg.vdot, np.vdot, ((3,), (3,)), ((2, 3), (3, 2)), ((), ()), ((0,), (0,)),
             dtypes=NUMBERS),
    _product("kron", linalg.kron, np.kron, ((2, 3), (4, 5)), ((3,), (2, 4)), ((2,), (3,)),
             ((1, 2, 3), (4, 1)), ((), (2,)), ((0, 2), (3, 1)), dtypes=NUMBERS,
             torch=torch_call("kron")),
    Case("trace", linalg.trace, np.trace,
         [operands(s) for s in ((3, 3), (2, 4), (0, 0), (4, 2, 3))], dtypes=NUMBERS),
    Case("trace offset", lambda x: linalg.trace(x, -1, 2, 0), lambda x: np.trace(x, -1, 2, 0),
         [operands((3, 2, 4)), strided((4, 2, 4))]),
    Case("specify_shape", lambda x: specify_shape(x, (None, 3)), np.array, [operands((2, 3))],
         dtypes=ALL, covers=["specify_shape"]),
]  # fmt: skip


def _einsum(text: str, *samples: Sequence[tuple[int, ...]], **rest: Any) -> Case:
    rest.setdefault("torch", lambda *xs: torch_call("einsum", *xs)(text))
    return Case(
        rest.pop("name", f"einsum {text}"), lambda *xs: einsum(text, *xs),
        lambda *xs: np.einsum(text, *xs), [operands(*s) for s in samples], ulp=16, **rest,
    )  # fmt: skip


EINSUMS = [
    _einsum("ij,jk->ik", [(2, 3), (3, 4)], [(2, 0), (0, 4)], [(1, 3), (3, 1)], dtypes=ALL),
    _einsum("ij,jk", [(2, 3), (3, 4)], torch=None),
    _einsum("ba,cb", [(2, 3), (4, 2)], torch=None),  # the result is in alphabetical order: ac
    _einsum("ij->ji", [(2, 3)]),
    _einsum("ij->", [(2, 3)], dtypes=ALL),
    _einsum("ij->j", [(2, 3)], [(0, 3)], dtypes=["int8", "float32"]),
    _einsum("ii", [(3, 3)], torch=None),
    _einsum("ii->i", [(3, 3)]),
    _einsum("iji->j", [(3, 2, 3)]),
    _einsum("iii->i", [(3, 3, 3)]),
    _einsum("i,i", [(3,), (3,)], torch=None),
    _einsum("i,j->ij", [(3,), (4,)], dtypes=ALL),
    _einsum("i,j->ji", [(3,), (4,)]),
    _einsum("ij,ij->ij", [(2, 3), (2, 3)]),
    _einsum("ij,kj->ik", [(2, 3), (4, 3)]),
    _einsum("ik,jk->ij", [(2, 3), (1, 3)]),
    _einsum("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)], [(0, 2, 3), (0, 3, 4)]),
    _einsum("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    _einsum("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)]),
    _einsum("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)], [(5, 2, 3), (3, 4)],
            [(6, 1, 2, 3), (5, 3, 4)]),
    _einsum("...ij,...jk", [(5, 2, 3), (3, 4)], torch=None),
    _einsum("i...->...", [(2, 3, 4)]),
    _einsum("...i->i...", [(2, 3, 4)]),
    _einsum("i...,i...->...i", [(2, 3), (2, 1)]),
    _einsum("ij,j->i", [(2, 3), (1,)]),  # a size of 1 broadcasts
    _einsum("ij,jk->ik", [(2, 1), (3, 4)], name="einsum of a size of 1"),
    _einsum("ijk,jl,km->ilm", [(2, 3, 4), (3, 5), (4, 6)]),
    _einsum("a,ab,b->", [(2,), (2, 3), (3,)]),
    _einsum("a,b,c->cab", [(2,), (3,), (4,)]),
    _einsum("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    _einsum("ab,cd->", [(2, 3), (4, 5)]),
    _einsum("ijij,jk->ik", [(2, 3, 2, 3), (3, 4)]),
    _einsum(" i j , j -> i ", [(2, 3), (3,)], torch=None),
    _einsum("->", [()]),
]  # fmt: skip


# --------------------------------------------------------------------------------------------
# decompositions


def regular(*shapes: tuple[int, ...]) -> Sample:
    """The first operand is made of matrices far from singular, the others are any."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        found = [rng.uniform(-1, 1, s) for s in shapes]
        n = shapes[0][-1]
        # a permutation keeps the pivots from being those of a dominant diagonal
        found[0] += 3 * np.eye(n)[rng.permutation(n)]
        return [a.astype(dtype) for a in found]

    return make


def _positive(x: Any) -> Any:
    """A symmetric positive definite matrix of any square one; a node or an array."""
    n = x.shape[-1]
    flipped = np.swapaxes(x, -1, -2) if isinstance(x, np.ndarray) else swap_last(x)
    return 0.2 * (x @ flipped) + np.eye(n, dtype=x.dtype)


def _each(function: Callable[[Array], Any]) -> Callable[[Array], Array]:
    """`function` of one matrix, applied to a batch in float64."""

    def compute(x: Array) -> Array:
        flat = x.reshape(-1, *x.shape[-2:]).astype(np.float64)
        parts = np.array([function(m) for m in flat])
        return parts.reshape(x.shape[:-2] + parts.shape[1:]).astype(x.dtype)

    return compute


def _cofactor(x: Array) -> Array:
    """Determinants of the minors, one by one."""
    n = len(x)
    found = np.empty((n, n))
    for i, j in np.ndindex(n, n):
        minor = np.delete(np.delete(x, i, 0), j, 1)
        found[i, j] = (-1) ** (i + j) * np.linalg.det(minor)
    return found


SQUARE = [regular((3, 3)), regular((1, 1)), regular((2, 5, 4, 4))]
SINGULAR = [
    exactly([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, -1.0]]), exactly(np.zeros((3, 3))),
    exactly([[1.0, 2.0], [2.0, 4.0]]), exactly([[0.0]]),
]  # fmt: skip
EMPTY = [operands((0, 0)), operands((0, 3, 3))]
DECOMPOSITIONS = [
    Case("solve", linalg.solve, np.linalg.solve, [
        regular((3, 3), (3, 2)), regular((3, 3), (3,)), regular((1, 1), (1, 1)),
        regular((3, 3), (3, 0)), regular((5, 3, 3), (5, 3, 2)), regular((3, 3), (5, 3, 2)),
        regular((5, 3, 3), (3, 2)), operands((0, 0), (0, 2)), operands((0, 0), (0,))],
        dtypes=LAPACK, covers=["solve"], ulp=64, torch=torch_call("linalg.solve")),
    Case("solve of integers", linalg.solve, np.linalg.solve, [exactly([[2, 1], [1, 3]], [4, 5])],
         dtypes=["int32", "uint8"], covers=["solve"]),
    Case("inv", linalg.inv, np.linalg.inv, [*SQUARE, *EMPTY], dtypes=LAPACK, covers=["inv"],
         ulp=64, torch=torch_call("linalg.inv")),
    Case("det", linalg.det, np.linalg.det, [*SQUARE, *EMPTY], dtypes=LAPACK, covers=["det"],
         ulp=64, torch=torch_call("linalg.det")),
    Case("det singular", linalg.det, lambda x: np.zeros(x.shape[:-2], x.dtype) + np.linalg.det(x),
         SINGULAR, dtypes=LAPACK, covers=["det"], order=1, ulp=64),
    Case("cofactor", linalg.cofactor, _each(_cofactor), SQUARE, dtypes=LAPACK,
         covers=["cofactor"], ulp=128),
    Case("cofactor singular", linalg.cofactor, _each(_cofactor), SINGULAR, dtypes=LAPACK,
         covers=["cofactor"], ulp=128, wrt=()),
    Case("slogdet", linalg.slogdet, lambda x: tuple(np.linalg.slogdet(x)), [*SQUARE, *EMPTY],
         dtypes=LAPACK, covers=["slogdet"], ulp=64,
         torch=lambda x: tuple(torch_call("linalg.slogdet")(x))),
    Case("slogdet singular", linalg.slogdet, lambda x: tuple(np.linalg.slogdet(x)),
         [exactly(np.zeros((2, 2))), exactly([[1.0, 2.0], [2.0, 4.0]])], dtypes=LAPACK,
         covers=["slogdet"], wrt=()),
    Case("cholesky", lambda x: linalg.cholesky(_positive(x)),
         lambda x: np.linalg.cholesky(_positive(x)),
         [*SQUARE, *EMPTY], dtypes=LAPACK, covers=["cholesky"], ulp=64, symbolic=False,
         torch=lambda x: torch_call("linalg.cholesky")(
             0.2 * x @ x.mT + torch_call("eye", x.shape[-1], dtype=x.dtype)())),
    Case("cholesky reads the lower triangle", linalg.cholesky,
         lambda x: scipy.linalg.cholesky(np.array([[4, 1], [1, 9]], x.dtype), lower=True),
         [exactly([[4.0, 7.0], [1.0, 9.0]])], dtypes=LAPACK, covers=["cholesky"], wrt=()),
]  # fmt: skip

CASES = [*PRODUCTS, *EINSUMS, *DECOMPOSITIONS]


def _no_string() -> list[Any]:
    return [matrix("a"), [0, 1]]


BAD = [
    Bad("matmul inner", lambda: linalg.matmul(matrix("a", shape=(2, 3)), matrix("b", shape=(2, 3))),
        ShapeError, "inner sizes 3 and 2 differ"),
    Bad("matmul scalar", lambda: linalg.matmul(scalar("a"), matrix("b")), ShapeError, r"use \*"),
    Bad("matmul batch", lambda: linalg.matmul(tensor3("a", shape=(2, 3, 4)),
                                              tensor3("b", shape=(5, 4, 3))), ShapeError,
        "do not broadcast"),
    Bad("dot sizes", lambda: linalg.dot(vector("a", shape=2), vector("b", shape=3)), ShapeError,
        "2 and 3 differ"),
    Bad("tensordot count", lambda: linalg.tensordot(matrix("a"), vector("b")), ShapeError,
        "over 2 axes"),
    Bad("tensordot axes", lambda: linalg.tensordot(matrix("a"), matrix("b"), ((0, 0), (0, 1))),
        ArgumentError, "pair distinct axes"),
    Bad("tensordot pair", lambda: linalg.tensordot(matrix("a"), matrix("b"), "ij"), ArgumentError,
        "a number or a pair"),
    Bad("einsum count", lambda: einsum("ij,jk", matrix("a")), ArgumentError, "about 2 operand"),
    Bad("einsum rank", lambda: einsum("ij,jk", matrix("a"), vector("b")), ShapeError,
        "'jk' in 'ij,jk' does not fit an operand with 1 axes"),
    Bad("einsum sizes", lambda: einsum("ij,jk", matrix("a", shape=(2, 3)),
                                       matrix("b", shape=(4, 5))), ShapeError,
        "axes labelled 'j': sizes 3 and 4 differ"),
    Bad("einsum diagonal", lambda: einsum("ii->i", matrix("a", shape=(2, 3))), ShapeError,
        "2 and 3 differ"),
    Bad("einsum unknown", lambda: einsum("ij->ik", matrix("a")), ArgumentError, "no operand has"),
    Bad("einsum twice", lambda: einsum("ij->ii", matrix("a")), ArgumentError, "a label twice"),
    Bad("einsum dots", lambda: einsum("...i->i", matrix("a")), ArgumentError, "needs '...'"),
    Bad("einsum characters", lambda: einsum("i1->i", matrix("a")), ArgumentError, "letters"),
    Bad("einsum no string", lambda: einsum(*_no_string()), ArgumentError, "is a string"),
    Bad("solve square", lambda: linalg.solve(matrix("a", shape=(2, 3)), vector("b", shape=2)),
        ShapeError, "is not square"),
    Bad("solve rows", lambda: linalg.solve(matrix("a", shape=(2, 2)), vector("b", shape=3)),
        ShapeError, "numbers of rows 2 and 3 differ"),
    Bad("inv float16", lambda: linalg.inv(tensor("a", "float16", (2, 2))), DTypeError,
        "takes float32 or float64"),
    Bad("solve float16", lambda: linalg.solve(tensor("a", "float16", (2, 2)), tensor(
        "b", "float16", (2,))), DTypeError, "takes float32 or float64"),
    Bad("det of a vector", lambda: linalg.det(vector("a")), ShapeError, "takes matrices"),
    Bad("slogdet square", lambda: linalg.slogdet(matrix("a", shape=(2, 3))), ShapeError,
        "not square"),
    Bad("cholesky square", lambda: linalg.cholesky(matrix("a", shape=(2, 3))), ShapeError,
        "not square"),
    Bad("trace of a vector", lambda: linalg.trace(vector("a")), ShapeError, "at least 2 axes"),
    Bad("specify_shape", lambda: specify_shape(matrix("a", shape=(2, 3)), (2, 4)), ShapeError,
        "3 and 4 differ"),
    Bad("specify_shape rank", lambda: specify_shape(matrix("a"), (2,)), ShapeError, "1 axes"),
]  # fmt: skip
