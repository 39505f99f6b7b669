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
    # a = u s v: det(u) det(v) times u diag(products of the other singular values) v
    u, s, v = np.linalg.svd(a)
    n = s.shape[-1]
    others = np.where(np.eye(n, dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    sign = np.linalg.det(u) * np.linalg.det(v)
    found: Array = sign[..., None, None] * ((u * others[..., None, :]) @ v)
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
