"""Constant folding: operations on constants are computed now, by the numpy backend."""

from __future__ import annotations

import math

from ..backend import Graph, get_backend
from ..errors import GraphdropError
from ..graph import Node
from ..op import Op, _constant, constant, get
from ..ops.shape import broadcast_to
from ..pattern import Head, any_op
from ..rewrite import Rule, rule
from ..types import TensorType, TupleType, Type

FOLDED_ELEMENTS = 1024  # a larger result is folded only if its operands are as large together


def _on_constants(op: Op, heads: tuple[Head, ...]) -> bool:
    # broadcast_to stays: as an operand it costs nothing, as an array memory
    known = op is get or all(h.op in (_constant, broadcast_to) for h in heads)
    return bool(heads) and op is not broadcast_to and "key" not in op.operand_names and known


@rule(any_op("op(constants)", _on_constants))
def fold_constants(node: Node) -> Node | None:
    """The value of an operation on constants, unless it draws."""
    source = node.inputs[0] if node.op is get else node
    if isinstance(node.type, TupleType) or not all(map(_is_known, source.inputs)):
        return None
    if not source.inputs or node.size_inputs or source.size_inputs or not _is_small(node, source):
        return None
    try:
        (value,) = get_backend("numpy").compile(Graph((), (node,), ())).run([], ())
    except (GraphdropError, ArithmeticError, ValueError):
        return None  # an operation that fails does so when the function is called
    return constant(value)


def _is_known(node: Node) -> bool:
    while node.op is broadcast_to:
        node = node.inputs[0]
    return node.op is _constant


def _is_small(node: Node, source: Node) -> bool:
    """Whether the result is no larger than its operands, or small anyway."""
    elements = _elements(node.type)
    given = [_elements(i.type) for i in source.inputs]
    if elements is None or None in given:
        return False
    return elements <= max(FOLDED_ELEMENTS, sum(g or 0 for g in given))


def _elements(type: Type) -> int | None:
    """How many elements an array has; None if a size is unknown, even of one without elements."""
    sizes = type.shape if isinstance(type, TensorType) else ()
    known = [s for s in sizes if isinstance(s, int)]
    return math.prod(known) if len(known) == len(sizes) else None


FOLD: tuple[Rule, ...] = (fold_constants,)
