"""Mixed precision: products in float16, everything else as it was.

A policy of casts and nothing more.  Between two products all is one kernel, which reads float16,
computes in float32 and writes float16, so that activations take half the memory; products add up in
float32 and round once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import rewrite, tree
from .graph import Node
from .op import as_node, composed
from .ops import conv
from .ops.elementwise import cast
from .ops.linalg import _matmul
from .pattern import any_op
from .rewrite import Trace, rule
from .rules.branches import optimize_branches
from .rules.scan import better_bodies

PRODUCTS = frozenset({_matmul, conv.conv2d, conv.conv2d_input_grad, conv.conv2d_kernel_grad})
HALF = np.dtype(np.float16)


@rule(any_op("product", lambda op, heads: op in PRODUCTS), exact=False)
def in_float16(node: Node) -> Node | None:
    """A product of float32 as one of float16, cast back."""
    if node.dtype != np.float32:
        return None
    operands = tuple(cast(n, HALF) for n in node.inputs)
    return cast(node.op.make(operands, dict(node.params)), node.dtype)


@composed
def mixed_precision(outputs: Any) -> Any:
    """`outputs` with every float32 product that they depend on computed in float16.

    outputs  a node, or several in lists, tuples and dicts, say the loss before `grad`: gradients
             of such products are such products

    Matrix products and convolutions, in scans and branches too, take operands rounded to float16
    and add up in float32; parameters, sums, softmax, norms and losses stay as they are.  What is
    computed of the result afterwards is not touched, which leaves a last layer in float32.
    Gradients below 6e-8 vanish in float16, so train with `optim.loss_scaling`
    (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).
    """
    nodes, structure = tree.flatten(outputs)
    found, _ = _halved([as_node(n) for n in nodes])
    return tree.unflatten(structure, found)


def _halved(outputs: Iterable[Node]) -> tuple[list[Node], Trace]:
    nodes, trace = rewrite.optimize(outputs, {"precision": (in_float16,)})
    nodes, trace = optimize_branches(nodes, trace, _halved)
    return better_bodies(nodes, trace, _halved), trace
