"""Whole matrices of derivatives: a loop with a backward pass for every element."""

from __future__ import annotations

from typing import Any

from .autodiff import _check_nodes, _check_wrt, _like, grad, vjp
from .graph import Node
from .op import as_node, called
from .ops.create import arange
from .ops.elementwise import cast, equal
from .ops.shape import reshape
from .scan import map
from .types import num_elements


@called
def jacobian(output: Any, wrt: Any, *, disconnected: str = "zero") -> Any:
    """d(output)/d(wrt), of shape output.shape + wrt.shape.

    One backward pass for every element of the output, in a loop, whatever their number.
    """
    (output,) = _check_nodes([as_node(output)], "the output")
    nodes = _check_wrt(wrt)
    elements = arange(num_elements(output.shape))

    def row(element: Node) -> tuple[Node, ...]:
        one = reshape(cast(equal(elements, element), output.dtype), output.shape)
        return tuple(vjp(output, nodes, one, disconnected=disconnected))

    rows = map(row, elements)
    shapes = [(*output.shape, *node.shape) for node in nodes]
    return _like(wrt, [reshape(r, shape) for r, shape in zip(rows, shapes, strict=True)])


@called
def hessian(cost: Any, wrt: Any) -> Any:
    """d2(cost)/d(wrt)2 of a scalar cost, of shape wrt.shape + wrt.shape.

    For a list, a list: node by node, without the mixed derivatives (which are
    `jacobian(grad(cost, a), b)`).
    """
    nodes = _check_wrt(wrt)
    gradients = grad(cost, nodes)
    result = [jacobian(g, node) for g, node in zip(gradients, nodes, strict=True)]
    return _like(wrt, result)
