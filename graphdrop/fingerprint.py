"""A name for what a graph computes: the same in every process that builds it the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .graph import Node, toposort
from .op import Literal, Op
from .ops.leaf import _input, _shared, override_gradient
from .ops.random import random_key
from .plain import plain
from .substitute import Body
from .types import Atom, Dim, TensorType

LEAVES = (_input, _shared, random_key)  # known by their place among the inputs
PACKAGE = __name__.partition(".")[0]


class _NameError(Exception):
    """Something has no name that means the same in another process."""


def fingerprint(inputs: Sequence[Node], outputs: Sequence[Node], *more: Any) -> str | None:
    """A name for `outputs` as functions of `inputs`, and for `more` that repr tells all about.

    Names of inputs, shared values and streams, and lines of the user's are not in it; names of
    sizes and of draws are.  Graphs of one name have equal programs: types follow from operations,
    parameters and the types of leaves.  None if the graph has operations of the user's own, or
    parameters that only this process knows, such as functions.
    """
    said = _Description()
    try:
        said.leaves(inputs)
        ends = said.nodes(outputs)
    except _NameError:
        return None
    return hashlib.sha256(repr((said.lines, ends, more)).encode()).hexdigest()


class _Description:
    """What is said of nodes, in order; nodes are numbers."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.numbers: dict[Node, int] = {}
        self.axes: dict[Atom, int] = {}
        self.operations: dict[Op, str] = {}

    def leaves(self, inputs: Sequence[Node]) -> None:
        for node in inputs:
            self._add(node, node.op.name)
        for node in inputs:
            self.nodes(node.size_inputs)
            self.lines.append(self.value(node.type))

    def nodes(self, outputs: Sequence[Node]) -> list[int]:
        numbers = self.numbers
        for node in toposort(outputs):
            if node in numbers:
                continue
            if node.op in LEAVES:
                raise _NameError
            said = (self._operation(node.op), *[numbers[n] for n in node.inputs])
            if node.params and node.op is not override_gradient:  # gradients have been built
                said += tuple([(k, self.value(v)) for k, v in node.params.items()])
            self._add(node, said)
        return [numbers[n] for n in outputs]

    def _add(self, node: Node, said: Any) -> None:
        self.numbers[node] = len(self.lines)
        self.lines.append(said)

    def _operation(self, op: Op) -> str:
        if op not in self.operations:
            if op.rule.__module__.partition(".")[0] != PACKAGE:
                raise _NameError  # another process may mean something else by its name
            self.operations[op] = op.name
        return self.operations[op]

    def value(self, value: Any) -> Any:
        """A parameter, so that repr tells all about it."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is tuple:
            return tuple([self.value(v) for v in value])
        if kind is Literal:
            dtype, shape, said = value.key
            return dtype.str, shape, said  # a dtype's own repr takes 3 us
        if kind is Dim:
            return "size", plain(value, self._atom)
        if kind is TensorType:
            return "type", value.dtype.name, self.value(value.shape)
        if kind is Body:
            return "body", self.nodes(value.inputs), self.nodes(value.outputs)
        if isinstance(value, np.dtype):
            return "dtype", value.name
        raise _NameError

    def _atom(self, atom: Atom) -> Any:
        if atom.kind == "name":
            return atom.args[0]
        if atom.kind == "axis":
            return self.axes.setdefault(atom, len(self.axes))
        return "value", self.numbers[atom.args[0]]  # listed before what depends on it
