"""Reshaping, broadcasting and reductions that can be had for less.  All exact."""

from __future__ import annotations

import builtins

from ..graph import Node
from ..op import Op, _constant
from ..ops.elementwise import cast
from ..ops.reduce import all, any, kept_shape, max, min, prod, sum
from ..ops.shape import broadcast_to, reshape, transpose
from ..pattern import Head, any_op, var
from ..rewrite import Rule, fit, rule, scalar, scalar_of

x, axes, inner, keepdims = var("x"), var("axes"), var("inner"), var("keepdims")


# views of views ------------------------------------------------------------------------------
@rule(reshape(reshape(x)))
def reshape_of_reshape(node: Node, x: Node) -> Node:
    return reshape(x, node.shape)


@rule(reshape(x), broadcast_to(x))
def same_shape(node: Node, x: Node) -> Node | None:
    return x if x.shape == node.shape else None


@rule(transpose(x, axes=axes))
def same_order(x: Node, axes: tuple[int, ...]) -> Node | None:
    return x if axes == tuple(range(len(axes))) else None


@rule(transpose(transpose(x, axes=inner), axes=axes))
def transpose_of_transpose(x: Node, inner: tuple[int, ...], axes: tuple[int, ...]) -> Node:
    return transpose(x, tuple(inner[a] for a in axes))


@rule(broadcast_to(broadcast_to(x)))
def broadcast_of_broadcast(node: Node, x: Node) -> Node:
    return broadcast_to(x, node.shape)


@rule(reshape(broadcast_to(x)), transpose(broadcast_to(x)))
def view_of_broadcast_scalar(node: Node, x: Node) -> Node | None:
    """All elements are one, so their order is nothing."""
    return None if x.ndim else broadcast_to(x, node.shape)


# broadcasting --------------------------------------------------------------------------------
def _stretches(op: Op, heads: tuple[Head, ...]) -> bool:
    return op.elementwise and builtins.any(
        h.op in (broadcast_to, reshape) or (h.op is _constant and not h.scalar) for h in heads
    )


@rule(any_op("elementwise(..., broadcast_to(x), ...)", _stretches))
def broadcast_later(node: Node) -> Node | None:
    """Operands are stretched by the operation itself, or the result is: fewer elements to compute.

    A constant that is one number everywhere counts as that number broadcast, and a reshape that
    only puts axes of size 1 first as a broadcast.
    """
    operands = tuple(_before_broadcast(i) for i in node.inputs)
    if operands == node.inputs:
        return None
    return fit(node.op.make(operands, dict(node.params)), node)


def _before_broadcast(node: Node) -> Node:
    if node.op is broadcast_to:
        return node.inputs[0]
    if node.op is reshape and _is_lifted(node):
        return node.inputs[0]
    if node.op is _constant and node.ndim:
        value = scalar_of(node)
        if value is not None:
            return scalar(value, node)
    return node


def _is_lifted(node: Node) -> bool:
    """Whether a reshape only puts axes of size 1 first."""
    x = node.inputs[0]
    return node.shape == (*[1] * (node.ndim - x.ndim), *x.shape)


@rule(broadcast_to(reshape(x)))
def broadcast_of_lifted(node: Node, x: Node) -> Node | None:
    return broadcast_to(x, node.shape) if _is_lifted(node.inputs[0]) else None


# reductions ----------------------------------------------------------------------------------
@rule(
    *(op(x, axis=axes) for op in (sum, prod, max, min, any, all)),
)
def reduce_nothing(node: Node, x: Node, axes: tuple[int, ...]) -> Node | None:
    """A reduction over no axes, or over axes of size 1, is its operand.

    NumPy's sum of -0.0 is 0.0, which adding 0.0 repeats.
    """
    if [a for a in axes if x.shape[a] != 1]:
        return None
    kept = reshape(cast(x, node.dtype), node.shape)
    return kept + scalar(0, kept) if node.op is sum and node.tensor_type.is_float else kept


@rule(
    *(
        op(op(x, axis=inner, keepdims=keepdims), axis=axes)
        for op in (max, min, any, all, sum, prod)
    ),
)
def reduce_of_reduce(
    node: Node, x: Node, inner: tuple[int, ...], keepdims: bool, axes: tuple[int, ...]
) -> Node | None:
    """Two reductions of one kind in one; not of floats that are rounded on the way."""
    if node.op in (sum, prod) and node.tensor_type.is_float:
        return None
    kept = [a for a in range(x.ndim) if keepdims or a not in inner]
    both = set(inner) | {kept[a] for a in axes}
    return reshape(node.op(x, axis=tuple(sorted(both))), node.shape)


@rule(
    *(op(broadcast_to(x), axis=axes) for op in (max, min, any, all, sum)),
)
def reduce_of_broadcast(node: Node, x: Node, axes: tuple[int, ...]) -> Node | None:
    """Copies of one value: the extreme of them is the value, the sum of integers a product."""
    if node.op is sum and node.tensor_type.is_float:
        return None
    return unstretch(node, x, axes)


def unstretch(node: Node, x: Node, axes: tuple[int, ...]) -> Node | None:
    """A reduction over `axes` of a broadcast x, without the axes that x was stretched along."""
    whole = node.inputs[0]
    lead = whole.ndim - x.ndim
    aligned = (*[1] * lead, *x.shape)
    stretched = [a for a in axes if aligned[a] == 1 and whole.shape[a] != 1]
    copies = 1
    for a in stretched:
        size = whole.shape[a]
        if not isinstance(size, int) or size == 0:
            return None  # the reduction of nothing is another value
        copies *= size
    if not stretched:
        return None
    # what is left to reduce, in an operand that is stretched only along axes that stay
    shape = tuple(1 if a in stretched else s for a, s in enumerate(whole.shape))
    rest = tuple(a for a in axes if a not in stretched)
    result = node.op(broadcast_to(reshape(x, aligned), shape), axis=rest, keepdims=True)
    result = reshape(result, kept_shape(whole.shape, axes, node.params["keepdims"]))
    return result * scalar(copies, result) if node.op is sum else result


SHAPES: tuple[Rule, ...] = (
    same_shape, same_order, reshape_of_reshape, transpose_of_transpose, broadcast_of_broadcast,
    broadcast_of_lifted, view_of_broadcast_scalar, broadcast_later, reduce_nothing,
    reduce_of_reduce, reduce_of_broadcast,
)  # fmt: skip
