"""Branches: `cond` computes one of two parts of a graph, and is differentiable.

What is built inside the two functions is computed only if its branch is taken; what was built
outside is captured, as in a scan.  The gradient is another cond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import tree
from .autodiff import backpropagate
from .bodies import Values, close, open_slots, outer_shape, sizes_outside
from .errors import ArgumentError, DTypeError, ShapeError
from .graph import Node, building, toposort
from .op import as_node, composed, constant, get, op, split
from .ops.create import zeros_like
from .ops.leaf import Shared, tensor
from .ops.leaf import _input as input_op
from .ops.random import random_key
from .substitute import Body
from .types import TensorType, TupleType, unify


@op(name="cond")
def cond_op(
    predicate: TensorType, *captured: TensorType, then: Body, otherwise: Body, values: Values = ()
) -> TupleType:
    """The results of `then` if the predicate holds, else those of `otherwise`.

    Both bodies map what is captured to as many results, of the same dtypes and shapes.
    `values` are sizes in the bodies' types that are values of captured nodes.
    """
    if predicate.ndim or not predicate.is_bool:
        raise DTypeError(f"the predicate must be a bool scalar, got {predicate}")
    outside = sizes_outside(then, values)
    results = []
    for a, b in zip(then.outputs, otherwise.outputs, strict=True):
        if a.dtype != b.dtype:
            raise DTypeError(f"the branches give {a.type} and {b.type}; cast one with gd.cast")
        if a.ndim != b.ndim:
            raise ShapeError(
                f"the branches give {a.type} and {b.type}; make their shapes one, say with "
                f"gd.broadcast_to"
            )
        shapes = [outer_shape(n, outside, "the result of a branch") for n in (a, b)]
        sizes = zip(*shapes, strict=True)
        shape = [unify(m, n, "the branches give different sizes:") for m, n in sizes]
        results.append(TensorType(a.dtype, tuple(shape)))
    return TupleType(tuple(results))


@composed
def cond(
    predicate: Any, then: Callable[..., Any], otherwise: Callable[..., Any], *operands: Any
) -> Any:
    """`then(*operands)` if the predicate holds, else `otherwise(*operands)`; only one is computed.

    predicate  a bool, gd.flag() or a bool scalar
    then       a function that builds nodes, in lists, tuples and dicts; it may use any node from
               outside and draw from any stream
    otherwise  the same; its results have the structure, dtypes and shapes of those of `then`
    operands   what both get; nodes that they use otherwise work as well

    What the functions only use is computed in any case; what they build is lazy.  A draw
    counts as drawn only by calls that take its branch, so its predicate must be known outside
    scans.  Where the parts are cheap, gd.where(predicate, a, b) is quicker.
    """
    chosen = as_node(predicate)
    for branch in (then, otherwise):
        if not callable(branch):
            raise ArgumentError(
                f"a branch is a function, got {branch!r}; write lambda: ..., so that only one is "
                f"computed, or use gd.where"
            )
    with building() as built:
        made = [tree.flatten(branch(*operands)) for branch in (then, otherwise)]
    (ours, structure), (theirs, other) = made
    if structure != other:
        raise ArgumentError(
            "the branches must give results of one structure: as many, nested the same way"
        )
    pairs = [_alike(a, b) for a, b in zip(ours, theirs, strict=True)]
    results = close_branches(
        chosen, [a for a, _ in pairs], [b for _, b in pairs], lambda n: _is_outer(n, built)
    )
    return tree.unflatten(structure, results)


def _alike(a: Any, b: Any) -> tuple[Node, Node]:
    """Results as nodes; a Python number takes the dtype of what the other branch gives."""
    if isinstance(a, Node) and isinstance(b, (bool, int, float)):
        return a, constant(b, a.dtype)
    if isinstance(b, Node) and isinstance(a, (bool, int, float)):
        return constant(a, b.dtype), b
    return as_node(a), as_node(b)


def _is_outer(node: Node, built: set[Node]) -> bool:
    """Whether a node is not of a branch: nobody built it there, or it is a leaf with a value."""
    if node.op is get:
        node = node.inputs[0]  # several results are captured one by one
    leaf = isinstance(node, Shared) or node.op is input_op or node.op is random_key
    return leaf or node not in built


def close_branches(
    predicate: Node, then: Sequence[Node], otherwise: Sequence[Node],
    is_outer: Callable[[Node], bool], placeholders: Sequence[Node] = (), given: Sequence[Node] = (),
) -> list[Node]:  # fmt: skip
    """A cond of two traced branches, the placeholders of which stand for the given nodes."""
    closed = close(placeholders, [*then, *otherwise], is_outer)
    inputs, outputs = closed.body.inputs, closed.body.outputs
    bodies = {
        "then": Body(inputs, outputs[: len(then)]), "otherwise": Body(inputs, outputs[len(then) :])
    }  # fmt: skip
    operands = (predicate, *given, *closed.captured)
    return list(split(cond_op.make(operands, {**bodies, "values": closed.values})))


@cond_op.selective_vjp
def _(
    gs: Sequence[Node | None], ys: Sequence[Node], predicate: Node, *captured: Node,
    then: Body, otherwise: Body, values: Values, wanted: set[Node],
) -> Sequence[Node | None]:  # fmt: skip
    """A cond of the branches' gradients; a branch that does not use a value gives zeros for it."""
    places = [
        tensor(None, c.dtype, c.shape) if c in wanted and c.tensor_type.is_float else c
        for c in captured
    ]
    seeded = [(i, tensor("g", g.dtype, g.shape)) for i, g in enumerate(gs) if g is not None]
    wrt = [p for p, c in zip(places, captured, strict=True) if p is not c]
    found = []
    for body in (then, otherwise):
        _, outputs = open_slots(body, places)
        seeds: dict[Node, Node] = {}
        for i, g in seeded:
            seeds[outputs[i]] = seeds[outputs[i]] + g if outputs[i] in seeds else g
        found.append(dict(zip(wrt, backpropagate(seeds, wrt), strict=True)))
    used = [p for p in wrt if any(f[p] is not None for f in found)]
    branches = [[zeros_like(p) if (d := f[p]) is None else d for p in used] for f in found]
    given = [*zip(places, captured, strict=True), *((p, gs[i]) for i, p in seeded)]
    order = set(toposort([*branches[0], *branches[1]]))
    inner = {p: g for p, g in given if p is not g and g is not None and p in order}
    # all that the gradient computes is lazy too
    known = set(captured)
    made = close_branches(
        predicate, branches[0], branches[1], lambda n: n in known, [*inner], [*inner.values()]
    )
    grads = dict(zip(used, made, strict=True))
    return [None, *(grads.get(p) for p in places)]
