"""NumPy rules of `graphdrop.ops.linalg`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import numpy as np

from graphdrop.errors import LinAlgError
from graphdrop.ops import linalg as ops

from .rule import Array, Rule, Table


def explained(why: str, rule: Callable[..., Array]) -> Rule:
    """A LAPACK call whose failure is a graphdrop error."""

    @wraps(rule)
    def run(*operands: Array) -> Array:
        try:
            return rule(*operands)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"{why} ({error})") from None

    return run


def cofactor(a: Array) -> Array:
    # LAPACK's svd never returns from some infinite and some huge matrices: the first become NaN,
    # the others are scaled by a power of 2, which is exact
    largest = np.abs(a).max(axis=(-2, -1), initial=0)[..., None, None]
    finite = np.isfinite(largest)
    exponent = np.where(finite, np.frexp(largest)[1], 0)
    # a = u s v: det(u) det(v) times u diag(products of the other singular values) v
    u, s, v = np.linalg.svd(np.where(finite, np.ldexp(a, -exponent), 0))
    n = s.shape[-1]
    others = np.where(np.eye(n, dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    sign = np.linalg.det(u) * np.linalg.det(v)
    scaled = sign[..., None, None] * ((u * others[..., None, :]) @ v)
    found: Array = np.where(finite, np.ldexp(scaled, exponent * (n - 1)), np.nan).astype(a.dtype)
    return found


SINGULAR = "a matrix is singular, so it has no inverse and its system of equations no one solution"

RULES: Table = {
    ops._matmul: np.matmul,
    ops._solve: explained(SINGULAR, np.linalg.solve),
    ops.inv: explained(SINGULAR, np.linalg.inv),
    ops.det: np.linalg.det,
    ops.cofactor: explained("the singular values of a matrix were not found", cofactor),
    ops._slogdet: np.linalg.slogdet,
    ops.cholesky: explained(
        "a matrix is not positive definite; adding a small multiple of the identity may help",
        np.linalg.cholesky,
    ),
}
