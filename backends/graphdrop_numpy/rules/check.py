"""NumPy rules of `graphdrop.ops.check`."""

from __future__ import annotations

from graphdrop.errors import CheckError
from graphdrop.ops import check as ops

from .rule import Array, Table


def assert_(x: Array, condition: Array, *, message: str) -> Array:
    if not condition:
        raise CheckError(message)
    return x


RULES: Table = {ops.assert_: assert_}
