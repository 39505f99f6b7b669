"""op -> NumPy function of the operand arrays and, as keywords, the op's params."""

from __future__ import annotations

from collections.abc import Mapping

from graphdrop.errors import BackendError
from graphdrop.op import Op

from . import elementwise, linalg, random, reduce, shape
from .rule import Rule


def _merged(*tables: Mapping[Op, Rule]) -> dict[Op, Rule]:
    merged: dict[Op, Rule] = {}
    for table in tables:
        for op, rule in table.items():
            if op in merged:
                raise BackendError(f"two NumPy rules for {op.name}")
            merged[op] = rule
    return merged


RULES: dict[Op, Rule] = _merged(
    elementwise.RULES, linalg.RULES, random.RULES, reduce.RULES, shape.RULES
)
