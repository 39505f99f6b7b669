"""Reverse-mode differentiation: gradients are nodes like any other, so any order works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, DisconnectedError, GradientError
from .graph import Node, format_origin, origin_scope, toposort
from .op import as_node, constant, get, split
from .ops.elementwise import cast
from .ops.reduce import sum_to
from .ops.shape import broadcast_to
from .types import TupleType


def zeros_like(x: Node) -> Node:
    """Zeros of x's dtype and shape, as a gradient that does not exist."""
    return broadcast_to(constant(np.zeros((), x.dtype)), x.shape)


def _relevant(order: Sequence[Node], wrt: Iterable[Node], barrier: set[Node]) -> set[Node]:
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
    seeds: Mapping[Node, Node], wrt: Sequence[Node], barrier: Iterable[Node] = ()
) -> list[Node | None]:
    """For every node of `wrt`, the sum over seeds of seed . d(node)/d(wrt); None if unconnected."""
    stopped = set(barrier)
    order = toposort(seeds)
    relevant = _relevant(order, wrt, stopped)
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
    found = node.op.vjp_rule(g, y, *node.inputs, **node.params)
    for x, part in zip(node.inputs, found, strict=True):
        if part is None or x not in relevant:
            continue
        if isinstance(x.type, TupleType) or not x.type.is_float:
            continue
        part = sum_to(part, x.shape) if node.op.elementwise else part
        adjoints.add(x, cast(part, x.dtype))


def _as_list(value: Any) -> list[Node]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_wrt(wrt: Sequence[Any]) -> None:
    for w in wrt:
        if not isinstance(w, Node):
            raise ArgumentError(f"gradients are taken by nodes, got {w!r}")
        if not w.tensor_type.is_float:
            raise GradientError(
                f"no gradient by {w!r}: it is not a float; cast it with gd.cast(x, 'float32') "
                f"before the model, or leave it out (built at {format_origin(w.origin)})"
            )


def _finish(
    found: Sequence[Node | None], wrt: Sequence[Node], disconnected: str, cost: str
) -> list[Node]:
    if disconnected not in ("raise", "zero", "warn"):
        raise ArgumentError(f"disconnected must be 'raise', 'zero' or 'warn', got {disconnected!r}")
    result = []
    for w, g in zip(wrt, found, strict=True):
        if g is None and disconnected != "zero":
            message = (
                f"{cost} does not depend on {w!r} (built at {format_origin(w.origin)}) in a "
                f"differentiable way; pass disconnected='zero' if that is meant"
            )
            if disconnected == "raise":
                raise DisconnectedError(message)
            import warnings

            warnings.warn(message, stacklevel=3)
        result.append(zeros_like(w) if g is None else g)
    return result


def grad(
    cost: Any,
    wrt: Any,
    *,
    known_grads: Mapping[Node, Any] | None = None,
    consider_constant: Iterable[Node] = (),
    disconnected: str = "raise",
) -> Any:
    """The gradient of a scalar `cost` by `wrt` (a node, or a list: then a list of nodes).

    known_grads        gradients already known at some nodes; `cost` may then be None
    consider_constant  nodes through which nothing flows
    disconnected       'raise', 'zero' or 'warn' where the cost does not depend on a node
    """
    nodes = _as_list(wrt)
    _check_wrt(nodes)
    seeds = {node: as_node(g) for node, g in (known_grads or {}).items()}
    for node, g in seeds.items():
        if g.shape != node.shape:
            raise GradientError(f"the known gradient of {node!r} has shape {list(g.shape)}")
    if cost is not None:
        cost = as_node(cost)
        if cost.ndim:
            raise GradientError(
                f"the cost must be a scalar, got {cost!r} (built at "
                f"{format_origin(cost.origin)}); take cost.sum() or .mean(), or use gd.jacobian"
            )
        if not cost.tensor_type.is_float:
            raise GradientError(f"the cost must be a float, got {cost!r}")
        one = constant(np.ones((), cost.dtype))
        seeds[cost] = seeds[cost] + one if cost in seeds else one
    if not seeds:
        raise ArgumentError("grad needs a cost, or known_grads")
    found = backpropagate(seeds, nodes, consider_constant)
    result = _finish(found, nodes, disconnected, "the cost")
    return result if isinstance(wrt, (list, tuple)) else result[0]


def vjp(outputs: Any, wrt: Any, cotangents: Any, *, disconnected: str = "raise") -> Any:
    """Vector-Jacobian product: for each node of `wrt`, the sum of cotangent . d(output)/d(node)."""
    nodes, ys, gs = _as_list(wrt), _as_list(outputs), _as_list(cotangents)
    _check_wrt(nodes)
    if len(ys) != len(gs):
        raise ArgumentError(f"{len(ys)} outputs but {len(gs)} cotangents")
    seeds: dict[Node, Node] = {}
    for y, g in zip(ys, gs, strict=True):
        g = cast(as_node(g), y.dtype)
        if g.ndim != y.ndim:
            raise GradientError(f"the cotangent of {y!r} is {g!r}; the shapes must be equal")
        seeds[y] = seeds[y] + g if y in seeds else g
    result = _finish(backpropagate(seeds, nodes), nodes, disconnected, "the output")
    return result if isinstance(wrt, (list, tuple)) else result[0]


def jvp(outputs: Any, wrt: Any, tangents: Any) -> Any:
    """Jacobian-vector product: the change of each output as `wrt` moves along `tangents`.

    Built as the derivative of a vjp by its cotangent, in which the vjp is linear, so that every
    op with a vjp has a jvp (Townsend 2017, "A new trick for calculating Jacobian vector products").
    """
    nodes, ys, ts = _as_list(wrt), _as_list(outputs), _as_list(tangents)
    _check_wrt(nodes)
    if len(nodes) != len(ts):
        raise ArgumentError(f"{len(nodes)} nodes but {len(ts)} tangents")
    from .ops.leaf import tensor

    dummies = [tensor("cotangent", y.dtype, y.shape) for y in ys]
    pulled = vjp(ys, nodes, dummies, disconnected="zero")
    seeds: dict[Node, Node] = {}
    for p, t in zip(pulled, ts, strict=True):
        t = cast(as_node(t), p.dtype)
        seeds[p] = seeds[p] + t if p in seeds else t
    found = backpropagate(seeds, dummies)
    result = [zeros_like(y) if f is None else f for y, f in zip(ys, found, strict=True)]
    return result if isinstance(outputs, (list, tuple)) else result[0]


def jacobian(output: Any, wrt: Any, *, disconnected: str = "zero") -> Any:
    """d(output)/d(wrt), of shape output.shape + wrt.shape; output's sizes must be known."""
    from .ops.shape import reshape, stack

    output = as_node(output)
    nodes = _as_list(wrt)
    if not all(isinstance(s, int) for s in output.shape):
        raise GradientError(
            f"jacobian needs known sizes, got {output!r}; declare the input with fixed sizes"
        )
    flat = reshape(output, (-1,)) if 0 not in output.shape else output
    rows = [grad(flat[i], nodes, disconnected=disconnected) for i in range(flat.shape[0])]
    result = []
    for k, node in enumerate(nodes):
        shape = (*output.shape, *node.shape)
        parts = [row[k] for row in rows]
        result.append(
            reshape(stack(parts), shape)
            if parts
            else broadcast_to(constant(np.zeros((), output.dtype)), shape)
        )
    return result if isinstance(wrt, (list, tuple)) else result[0]


def hessian(cost: Any, wrt: Any) -> Any:
    """d2(cost)/d(wrt)2 of a scalar cost: the Jacobian of its gradient, node by node."""
    nodes = _as_list(wrt)
    result = [jacobian(grad(cost, node), node) for node in nodes]
    return result if isinstance(wrt, (list, tuple)) else result[0]
