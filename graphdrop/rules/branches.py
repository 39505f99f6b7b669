"""Branches: one that is known to be taken needs no cond; bodies are rewritten like any graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..bodies import open_slots
from ..cond import cond_op
from ..graph import Node, origin_scope, toposort
from ..op import constant_value, get
from ..pattern import any_op
from ..rewrite import Rule, Trace, rule
from ..substitute import Body, rebuild
from ..types import Atom, Size

Optimize = Callable[[Iterable[Node]], tuple[list[Node], Trace]]


@rule(any_op("get(cond(known, ...))", lambda op, heads: op is get and heads[0].op is cond_op))
def known_branch(node: Node) -> Node | None:
    """The branch that a constant predicate takes."""
    source = node.inputs[0]
    known = constant_value(source.inputs[0])
    if known is None:
        return None
    body = source.params["then" if known else "otherwise"]
    return open_slots(body, source.inputs[1:])[1][node.params["index"]]


BRANCHES: tuple[Rule, ...] = (known_branch,)


def optimize_branches(
    outputs: list[Node], trace: Trace, optimize: Optimize
) -> tuple[list[Node], Trace]:
    """`outputs` with both bodies of every cond rewritten by `optimize`."""
    if not any(n.op is cond_op for n in toposort(outputs)):
        return outputs, trace
    done: dict[Node, Node] = {}
    sizes: dict[Atom, Size] = {}
    for node in toposort(outputs):
        new = done[node] = rebuild(node, done, sizes)
        if new.op is cond_op:
            params = dict(new.params)
            for name in ("then", "otherwise"):
                body: Body = params[name]
                better, fired = optimize(body.outputs)
                trace.extend(fired)
                params[name] = Body(body.inputs, tuple(better))
            with origin_scope(node.origin):
                done[node] = cond_op.make(new.inputs, params)
    return [done[n] for n in outputs], trace
