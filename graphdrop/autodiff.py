"""Reverse-mode differentiation: gradients are nodes like any other, so any order works."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, DisconnectedError, GradientError, ShapeError
from .graph import Node, format_origin, leaves, origin_scope, toposort
from .op import as_node, called, constant, get, split
from .ops.create import zeros_like
from .ops.elementwise import cast
from .ops.leaf import tensor
from .ops.reduce import sum_to
from .ops.shape import reshape
from .types import TensorType, TupleType, unify


def depending(
    order: Sequence[Node], wrt: Iterable[Node], barrier: Collection[Node] = ()
) -> set[Node]:
    """The nodes that depend on `wrt`; nothing passes through `barrier`."""
    found = set(wrt)
    for node in order:
        if node not in barrier and not found.isdisjoint(node.inputs):
            found.add(node)
    return found


class _Adjoints:
    """Gradients collected so far: node -> contributions; for tuple-typed nodes, by index."""

    def __init__(self) -> None:
        self.parts: dict[Node, list[Node]] = {}
        self.items: dict[Node, dict[int, Node]] = {}

    def add(self, node: Node, g: Node) -> None:
        self.parts.setdefault(node, []).append(g)

    def total(self, node: Node) -> Node | None:
        parts = self.parts.pop(node, None)
        if not parts:
            return None
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def backpropagate(
    seeds: Mapping[Node, Node],
    wrt: Sequence[Node],
    barrier: Iterable[Node] = (),
    known: Mapping[Node, Node] | None = None,
) -> list[Node | None]:
    """For every node of `wrt`, the sum over seeds of seed . d(seeded)/d(node); None if unconnected.

    barrier  nodes through which nothing flows
    known    whole gradients of some nodes: what else would flow into these is not counted
    """
    stopped, fixed = set(barrier), known or {}
    order = toposort([*seeds, *fixed])
    relevant = depending(order, wrt, stopped)
    wanted = set(wrt)
    adjoints, result = _Adjoints(), {}
    for node, seed in seeds.items():
        adjoints.add(node, seed)
    for node in reversed(order):
        if node not in relevant:
            continue
        g: Any = adjoints.total(node)
        if isinstance(node.type, TupleType):
            g = adjoints.items.pop(node, None)
        g = fixed.get(node, g)
        if g is None:
            continue
        if node in wanted:
            result[node] = g
        if node not in stopped and node.inputs and not relevant.isdisjoint(node.inputs):
            with origin_scope(node.origin):
                _step(node, g, relevant, adjoints)
    return [result.get(node) for node in wrt]


def _step(node: Node, g: Any, relevant: set[Node], adjoints: _Adjoints) -> None:
    """Send the gradient of one node on to its inputs."""
    if node.op is get:
        adjoints.items.setdefault(node.inputs[0], {})[node.params["index"]] = g
        return
    if node.op.vjp_rule is None:
        raise GradientError(
            f"{node.op.name} has no gradient (built at {format_origin(node.origin)}); wrap it in "
            f"gd.stop_gradient, or give it one with gd.custom_gradient"
        )
    y: Any = node
    if isinstance(node.type, TupleType):
        y = split(node)
        g = tuple(g.get(i) for i in range(len(y)))
    chosen = {"wanted": relevant} if node.op.selective else {}
    found = node.op.vjp_rule(g, y, *node.inputs, **node.params, **chosen)
    for x, part in zip(node.inputs, found, strict=True):
        if part is None or x not in relevant:
            continue
        if isinstance(x.type, TupleType) or not x.type.is_float:
            continue
        part = sum_to(part, x.shape) if node.op.elementwise else part
        part = _fit(part, x, f"the gradient that {node.op.name} gives for")
        adjoints.add(x, cast(part, x.dtype))


# --------------------------------------------------------------------------------------------
# checking what the user gave


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _fit(g: Node, node: Node, what: str) -> Node:
    """A gradient in the shape of what it is the gradient of; sizes not known are checked later."""
    if g.shape == node.shape:
        return g
    try:
        if g.ndim != node.ndim:
            raise ShapeError("different numbers of axes")
        for a, b in zip(g.shape, node.shape, strict=True):
            unify(a, b)
    except ShapeError:
        raise GradientError(
            f"{what} {node!r} has the shape {list(g.shape)}; it must have the shape of the node "
            f"(built at {format_origin(node.origin)})"
        ) from None
    return reshape(g, node.shape)


def _as_gradient(g: Any, node: Node, what: str) -> Node:
    """A node with the dtype and shape of `node`, from a node or value."""
    if not node.tensor_type.is_float:
        raise GradientError(
            f"{node!r} is not a float, so it has no gradient "
            f"(built at {format_origin(node.origin)})"
        )
    given = cast(g, node.dtype) if isinstance(g, Node) else constant(g, node.dtype)
    return _fit(given, node, what)


def _check_nodes(values: Sequence[Any], what: str) -> list[Node]:
    for value in values:
        if not isinstance(value, Node) or not isinstance(value.type, TensorType):
            raise ArgumentError(f"{what} must be nodes of one array each, got {value!r}")
    return list(values)


def _check_wrt(wrt: Any) -> list[Node]:
    nodes = _check_nodes(_as_list(wrt), "what gradients are taken by")
    for w in nodes:
        if not w.tensor_type.is_float:
            raise GradientError(
                f"no gradient by {w!r}: it is not a float; cast it with gd.cast(x, 'float32') "
                f"before the model, or leave it out (built at {format_origin(w.origin)})"
            )
    return nodes


def _pair(
    outputs: Any, gradients: Any, what: str, names: tuple[str, str]
) -> list[tuple[Node, Node]]:
    """Nodes with a value of the same shape for each, from one of both or from lists of both."""
    several = isinstance(outputs, (list, tuple))
    nodes = _check_nodes(_as_list(outputs), names[0])
    values = _as_list(gradients) if several else [gradients]
    if len(nodes) != len(values):
        raise ArgumentError(f"{len(nodes)} {names[0]} but {len(values)} {names[1]}")
    return [(n, _as_gradient(v, n, what)) for n, v in zip(nodes, values, strict=True)]


def _summed(pairs: Iterable[tuple[Node, Node]]) -> dict[Node, Node]:
    seeds: dict[Node, Node] = {}
    for node, g in pairs:
        seeds[node] = seeds[node] + g if node in seeds else g
    return seeds


def _finish(
    found: Sequence[Node | None],
    wrt: Sequence[Node],
    disconnected: str,
    what: str,
    outputs: Iterable[Node],
) -> list[Node]:
    """The gradients of `outputs`, with those that do not exist treated as the user said."""
    if disconnected not in ("raise", "zero", "warn"):
        raise ArgumentError(f"disconnected must be 'raise', 'zero' or 'warn', got {disconnected!r}")
    result = []
    for w, g in zip(wrt, found, strict=True):
        if g is None and disconnected != "zero":
            message = (
                f"{what} does not depend on {w!r} (built at {format_origin(w.origin)}) in a "
                f"differentiable way{_cut(outputs, w)}; pass disconnected='zero' if that is meant"
            )
            if disconnected == "raise":
                raise DisconnectedError(message)
            warnings.warn(message, stacklevel=4)
        result.append(zeros_like(w) if g is None else g)
    return result


def _cut(outputs: Iterable[Node], w: Node) -> str:
    """Which node on the way from `w` to the outputs is no float, if there is one."""
    order = toposort(outputs)
    between = depending(order, [w])
    for node in order:
        if node in between and isinstance(node.type, TensorType) and not node.type.is_float:
            place = format_origin(node.origin)
            return f": nothing flows through {node!r} (built at {place}), which is no float"
    return ""


def _like(structure: Any, values: Sequence[Node]) -> Any:
    """A list if the user gave a list or a tuple, else the one value."""
    return list(values) if isinstance(structure, (list, tuple)) else values[0]


# --------------------------------------------------------------------------------------------
# what users call


@called
def grad(
    cost: Any,
    wrt: Any,
    *,
    known_grads: Mapping[Node, Any] | None = None,
    consider_constant: Iterable[Node] = (),
    disconnected: str = "raise",
) -> Any:
    """The gradient of a scalar `cost` by `wrt` (a node, or a list: then a list of nodes).

    known_grads        whole gradients of some nodes, which replace what would flow into these;
                       `cost` may then be None
    consider_constant  nodes through which nothing flows
    disconnected       'raise', 'zero' or 'warn' where the cost does not depend on a node
    """
    nodes = _check_wrt(wrt)
    known = known_grads or {}
    _check_nodes(list(known), "keys of known_grads")
    fixed = {n: _as_gradient(g, n, "the known gradient of") for n, g in known.items()}
    barrier = _check_nodes(_as_list(consider_constant), "consider_constant")
    seeds: dict[Node, Node] = {}
    if cost is not None:
        cost = as_node(cost)
        if cost.ndim:
            raise GradientError(
                f"the cost must be a scalar, got {cost!r} (built at "
                f"{format_origin(cost.origin)}); take cost.sum() or .mean(), or use gd.jacobian"
            )
        if not cost.tensor_type.is_float:
            raise GradientError(
                f"the cost must be a float, got {cost!r} (built at {format_origin(cost.origin)}); "
                f"cast what it is made of with gd.cast(x, 'float32')"
            )
        seeds[cost] = constant(np.ones((), cost.dtype))
    elif not fixed:
        raise ArgumentError("grad needs a cost, or known_grads")
    found = backpropagate(seeds, nodes, barrier, fixed)
    return _like(wrt, _finish(found, nodes, disconnected, "the cost", [*seeds, *fixed]))


@called
def vjp(outputs: Any, wrt: Any, cotangents: Any, *, disconnected: str = "raise") -> Any:
    """Vector-Jacobian product: for each node of `wrt`, the sum of cotangent . d(output)/d(node).

    Cotangents have the shapes of the outputs.
    """
    nodes = _check_wrt(wrt)
    pairs = _pair(outputs, cotangents, "the cotangent of", ("outputs", "cotangents"))
    seeds = _summed(pairs)
    found = backpropagate(seeds, nodes)
    return _like(wrt, _finish(found, nodes, disconnected, "the output", seeds))


@called
def jvp(outputs: Any, wrt: Any, tangents: Any) -> Any:
    """Jacobian-vector product: the change of each output as `wrt` moves along `tangents`.

    Tangents have the shapes of the nodes in `wrt`; an output that does not depend on these gives 0.

    Built as the derivative of a vjp by its cotangent, in which the vjp is linear, so that every
    op with a vjp has a jvp (Townsend 2017, "A new trick for calculating Jacobian vector products").
    """
    nodes = _check_wrt(wrt)
    pairs = _pair(wrt, tangents, "the tangent of", ("nodes", "tangents"))
    ys = _check_nodes(_as_list(outputs), "outputs")
    dummies = [tensor("cotangent", y.dtype, y.shape) for y in ys]
    pulled = vjp(ys, nodes, dummies, disconnected="zero")
    seeds = _summed((p, t) for p, (_, t) in zip(pulled, pairs, strict=True))
    found = backpropagate(seeds, dummies)
    result = [zeros_like(y) if f is None else f for y, f in zip(ys, found, strict=True)]
    if not set(dummies).isdisjoint(leaves(result)):
        raise GradientError(
            "jvp needs gradients that are linear in what comes in; a custom or clipped gradient "
            "in this graph is not"
        )
    return _like(outputs, result)
