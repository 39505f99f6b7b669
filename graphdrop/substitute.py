"""Rebuilding a graph with some nodes replaced: for givens, scans and rewrites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .errors import ArgumentError
from .graph import Node, format_origin, intern, origin_scope, toposort
from .op import constant_value, op, size
from .types import (
    Atom,
    Dim,
    Size,
    TensorType,
    atoms_of,
    has_values,
    plain_atom,
    substitute_size,
    unify,
    value_dim,
)


@dataclass(frozen=True)
class Body:
    """A closed graph, the body of a loop or a branch: a function of its input slots.

    Slots are numbered by position, so that two bodies built alike are equal.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def map_sizes(self, sizes: Mapping[Atom, Size]) -> Body:
        """The same body in which symbolic sizes are better known.

        Sizes that are values come in by slots, so those of the graph around mean nothing here.
        """
        known = {a: s for a, s in sizes.items() if a.kind != "value"}
        if not known:
            return self
        self._check_sizes(known)
        slots = [slot(i, map_sizes(s.type, known)) for i, s in enumerate(self.inputs)]
        replaced = dict(zip(self.inputs, slots, strict=True))
        return Body(tuple(slots), tuple(substitute(self.outputs, replaced, known)))

    def _check_sizes(self, known: Mapping[Atom, Size]) -> None:
        """Raise if a size would become the value of a node, which a closed body cannot name."""
        values = {a for a, s in known.items() if has_values([s])}
        if not values:
            return
        for node in (*self.inputs, *toposort(self.outputs)):
            for atom in atoms_of([*getattr(node.type, "shape", ()), *node.params.values()]):
                if atom in values:
                    raise ArgumentError(
                        f"the size {atom} of {node!r} (built at {format_origin(node.origin)}) "
                        f"cannot become {known[atom]} inside a scan or a branch; build these on "
                        f"the new value instead of replacing it afterwards"
                    )


@op(name="slot")
def _slot(*, position: int, type: TensorType) -> TensorType:
    """An input of a body."""
    return type


def slot(position: int, type: TensorType) -> Node:
    """The input number `position` of a body."""
    return _slot.make((), {"position": position, "type": type})


def substitute(
    outputs: Iterable[Node],
    replacements: Mapping[Node, Node],
    known: Mapping[Atom, Size] = MappingProxyType({}),
) -> list[Node]:
    """`outputs` with every node in `replacements` replaced, and what depends on it rebuilt.

    A replacement has the dtype and rank of what it replaces.  Where its sizes are better known
    (an input `batch` replaced by an array of 50 rows), they are put into every symbolic size.
    """
    sizes = dict(known)
    for old, by in replacements.items():
        _check_fits(old, by)
        for a, b in zip(old.shape, by.shape, strict=True):
            atom = plain_atom(a)
            if atom is None or a == b:
                continue
            unify(sizes.setdefault(atom, b), b, f"{atom} is given two sizes:")
    outputs = list(outputs)
    if not replacements and not sizes:
        return outputs
    done = dict(replacements)
    everywhere = bool(sizes)
    for node in toposort(outputs, stop=replacements.__contains__):
        if node not in done and (everywhere or not done.keys().isdisjoint(node.dependencies)):
            done[node] = rebuild(node, done, sizes)
    return [done.get(node, node) for node in outputs]


def _check_fits(old: Node, new: Node) -> None:
    if old.dtype != new.dtype or old.ndim != new.ndim:
        raise ArgumentError(
            f"{old!r} cannot be replaced by {new!r}: dtype and number of axes must be equal"
        )


def rebuild(node: Node, done: Mapping[Node, Node], sizes: dict[Atom, Size]) -> Node:
    """`node` on the new versions of its inputs, where there are any; the node itself if nothing
    changed.
    """
    for source in node.size_inputs:
        new = done.get(source, source)
        if new is not source and source.value_atom is not None:
            sizes[source.value_atom] = size_of_value(new)
    inputs = tuple([done.get(i, i) for i in node.inputs])
    params = map_sizes(dict(node.params), sizes) if sizes and node.params else node.params
    if inputs == node.inputs and params == node.params:
        return node
    if not node.inputs and "type" in node.params:
        return node  # an input's own type is its contract with the caller
    with origin_scope(node.origin):
        if params == node.params and all(
            a.type == b.type for a, b in zip(inputs, node.inputs, strict=True)
        ):
            # nothing that the type follows from has changed
            return intern(node.op, inputs, node.params, (node.type, node.checks))
        return node.op.make(inputs, dict(params))


def size_of_value(node: Node) -> Size:
    """The size that an integer scalar node stands for."""
    known = constant_value(node)
    if known is not None:
        return int(known)
    found: Size = node.params["size"] if node.op is size else value_dim(node)
    return found


def map_sizes(value: Any, sizes: Mapping[Atom, Size]) -> Any:
    """A parameter with the atoms of every Dim inside replaced."""
    if isinstance(value, Dim):
        return substitute_size(value, lambda a: sizes.get(a, Dim((((a,), 1),))))
    if isinstance(value, tuple):
        return tuple(map_sizes(v, sizes) for v in value)
    if isinstance(value, dict):
        return {k: map_sizes(v, sizes) for k, v in value.items()}
    if isinstance(value, TensorType):
        return value.with_shape(map_sizes(value.shape, sizes))
    if isinstance(value, Body):
        return value.map_sizes(sizes)
    return value
