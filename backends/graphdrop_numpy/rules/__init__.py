"""op -> NumPy function of the operand arrays and, as keywords, the op's params."""

from __future__ import annotations

from collections.abc import Mapping

from graphdrop.errors import BackendError
from graphdrop.op import Op

from . import (
    check,
    conv,
    create,
    elementwise,
    index,
    join,
    linalg,
    losses,
    random,
    reduce,
    shape,
    sort,
)
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
    check.RULES, conv.RULES, create.RULES, elementwise.RULES, index.RULES, join.RULES, linalg.RULES,
    losses.RULES, random.RULES, reduce.RULES, shape.RULES, sort.RULES,
)  # fmt: skip
