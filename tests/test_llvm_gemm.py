"""Products of our own: every edge of tiles, any strides, and any number of threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.threads import get_num_threads
from graphdrop_llvm import gemm
from graphdrop_llvm.engine import compile_module
from graphdrop_llvm.runtime import runtime
from graphdrop_llvm.tiles import LINE, Registers, Tiles

SHAPES = {
    "64 bytes": Registers(64, 2, (12, 8, 4)), "32 bytes": Registers(32, 3, (4,)),
    "16 bytes": Registers(16, 2, (4,)),
}  # fmt: skip
SIZES = {"float": np.float32, "double": np.float64}


@cache
def compiled(kind: str, name: str) -> tuple[Any, Callable[..., None], Callable[..., None]]:
    text = gemm.text(kind, SHAPES[name])
    engine = compile_module(text, {"gd_allowed": runtime().symbols["gd_allowed"]})
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    matrix = [pointer, number, number]
    call = ctypes.CFUNCTYPE(None, *matrix, *matrix, pointer, *[number] * 5, pointer)
    pack = ctypes.CFUNCTYPE(None, *matrix, pointer, *[number] * 6)
    found = engine.get_function_address
    return engine, call(found(f"gd_product_{kind}")), pack(found(f"gd_pack_{kind}"))


def multiply(kind: str, name: str, a: Any, b: Any, down: int = 1, across: int = 1) -> Any:
    """a b in pieces, in memory whose ends are watched; the same if b is packed before."""
    _, call, pack = compiled(kind, name)
    (m, k), n = a.shape, b.shape[1]
    matrices = [(x.ctypes.data, *(s // x.itemsize for s in x.strides)) for x in (a, b)]

    def once(packed: Any) -> Any:
        guarded, out = watched(m * n, a.dtype)
        for piece in range(down * across):
            cut = down * gemm.DOWN + across
            call(*matrices[0], *matrices[1], out.ctypes.data, m, n, k, piece, cut, packed)
        assert untouched(guarded, m * n)
        return out.reshape(m, n)

    width = Tiles(kind, SHAPES[name]).width
    panels = -(-n // width)
    out = once(None)
    for steps in (1, gemm.OFTEN):
        guarded, packed = watched(LINE // a.itemsize + panels * width * k, a.dtype)
        for first in range(0, panels, 3):
            last = min(first + 3, panels)
            pack(*matrices[1], packed.ctypes.data, m, n, k, steps, first, last)
        assert untouched(guarded, packed.size)
        if panels:
            told = packed.view(np.uint8)[:8].any()
            assert told == (steps == gemm.OFTEN and 1 not in (m, n))
        np.testing.assert_array_equal(once(packed.ctypes.data), out)
    return out


def watched(count: int, dtype: Any) -> tuple[Any, Any]:
    """Memory for some numbers, with more around it."""
    guarded = np.full(count + 64, np.nan, dtype)
    return guarded, guarded[32 : 32 + count]


def untouched(guarded: Any, count: int) -> bool:
    return bool(np.isnan(np.concatenate([guarded[:32], guarded[32 + count :]])).all())


def operand(rng: np.random.Generator, rows: int, columns: int, turned: bool, dtype: Any) -> Any:
    shape = (columns, rows) if turned else (rows, columns)
    array = rng.normal(size=shape).astype(dtype)
    return array.T if turned else array


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", SIZES)
def test_every_edge(kind: str, name: str) -> None:
    rng, dtype = np.random.default_rng(0), SIZES[kind]
    sizes = product((0, 1, 4, 5, 12, 13, 20, 33), (0, 1, 7, 16, 31, 32, 33, 70), (0, 1, 5, 17, 130))
    for m, n, k in sizes:
        for left, right in product((False, True), repeat=2):
            a, b = operand(rng, m, k, left, dtype), operand(rng, k, n, right, dtype)
            wide = a.astype(np.float64) @ b.astype(np.float64)
            bound = (k + 2) * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
            found = multiply(kind, name, a, b)
            assert (np.abs(found - wide) <= bound).all(), (m, n, k, left, right)


@pytest.mark.parametrize("kind", SIZES)
def test_an_operand_of_no_product_is_not_packed(kind: str) -> None:
    """A loop without steps: there may be nothing at the operand's address."""
    _, _, pack = compiled(kind, "64 bytes")
    pack(None, 5, 1, None, 30, 5, 7, 0, 0, 1)


@pytest.mark.parametrize("name", SHAPES)
def test_deep_wide_and_tall(name: str) -> None:
    """Several blocks along every axis, and operands whose rows and columns are both apart."""
    rng = np.random.default_rng(1)
    for m, n, k in ((30, 1000, 1100), (2000, 40, 600), (7, 3000, 513)):
        a = rng.normal(size=(2 * m, 3 * k))[::2, ::3]
        b = rng.normal(size=(k, 2 * n))[:, ::2]
        np.testing.assert_allclose(multiply("double", name, a, b), a @ b, rtol=1e-9, atol=1e-9)


def test_pieces_change_no_bit() -> None:
    rng = np.random.default_rng(2)
    a, b = operand(rng, 150, 700, False, np.float32), operand(rng, 700, 333, True, np.float32)
    whole = multiply("float", "64 bytes", a, b)
    for down, across in ((1, 4), (3, 1), (4, 5), (13, 11)):
        found = multiply("float", "64 bytes", a, b, down, across)
        np.testing.assert_array_equal(found, whole)


def test_what_is_not_finite_stays_in_its_row_and_column() -> None:
    a, b = np.ones((14, 40), np.float32), np.ones((40, 35), np.float32)
    a[13, 3], b[5, 34], a[2, 7] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(multiply("float", "64 bytes", a, b), a @ b)


@pytest.fixture
def threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    gd.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("batch", [(), (1,), (3, 2)])
def test_threads_change_no_bit(batch: tuple[int, ...]) -> None:
    x, w = gd.tensor("x", "float32", (*batch, None, None)), gd.matrix("w")
    f = gd.function([x, w], x @ w, backend="llvm")
    rng = np.random.default_rng(3)
    a = rng.normal(size=(*batch, 130, 210)).astype(np.float32)
    b = rng.normal(size=(210, 340)).astype(np.float32)
    found = []
    for number in (1, 2, 5):
        gd.set_num_threads(number)
        found.append(f(a, b))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    np.testing.assert_allclose(found[0], a @ b, rtol=2e-4, atol=2e-4)
