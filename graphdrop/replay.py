"""Which calls draw, and the masks of past calls.

A call draws from a stream exactly if the function's graph, after givens and before rewrites, has a
draw of it whose training flag is true.  So rewrites cannot change call numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import RandomError
from .graph import Node
from .op import constant_value
from .ops import random as draws
from .random import RandomStream, check_call, lanes, threshold_of
from .types import Atom, Shape, atoms_of, evaluate


def operand(node: Node, name: str) -> Node:
    """The operand of a node that its op's declaration calls `name`."""
    return node.inputs[node.op.operand_names.index(name)]


@dataclass(frozen=True)
class Draws:
    """The draws of a graph.

    nodes    the draws
    streams  the streams they draw from, in the order met
    flags    for every draw, the bool node that says whether it draws
    owners   for every draw, the index of its stream
    """

    nodes: tuple[Node, ...]
    streams: tuple[RandomStream, ...]
    flags: tuple[Node, ...]
    owners: tuple[int, ...]

    def active(self, values: Mapping[Node, Any]) -> list[bool]:
        """Which streams draw, given the values of the flags that are not constant."""
        found = [False] * len(self.streams)
        for flag, owner in zip(self.flags, self.owners, strict=True):
            known = constant_value(flag)
            found[owner] |= bool(values[flag] if known is None else known)
        return found


def find_draws(order: Sequence[Node]) -> Draws:
    """The draws among the nodes of a graph that are made from a stream.

    A draw whose key was replaced by a value (`givens={stream.key: ...}`) is a function like others.
    """
    nodes = tuple(
        n for n in order
        if "key" in n.op.operand_names and operand(n, "key").op is draws.random_key
    )  # fmt: skip
    streams: dict[RandomStream, int] = {}
    for node in nodes:
        streams.setdefault(_stream(node), len(streams))
    flags = tuple(operand(n, "training") for n in nodes)
    return Draws(nodes, tuple(streams), flags, tuple(streams[_stream(n)] for n in nodes))


def _stream(draw: Node) -> RandomStream:
    stream: RandomStream = operand(draw, "key").params["stream"]
    return stream


def regenerate_mask(
    nodes: Sequence[Node],
    name: str | int,
    call: int,
    *,
    rate: float | None,
    example: Any,
    known: Mapping[Atom, int],
    sizes: Mapping[str, int],
) -> np.ndarray[Any, Any]:
    """The mask of the draw called `name`, or of site `name`, in a call: True where kept.

    known    sizes of the last call; `sizes` by name go before them
    rate     needed where the draw's rate is not a constant
    example  the ids, needed where the draw is keyed by them
    """
    check_call(call)
    node = _find(nodes, name)
    shape = _concrete_shape(node, name, known, sizes)
    threshold = _threshold(node, name, rate)
    ids = _ids(node, name, example, shape)
    step = constant_value(operand(node, "step"))
    if step is None:
        raise RandomError(f"the mask {name!r} is drawn inside a scan, one for every step")
    key = np.array([_stream(node).seed, call], np.uint64)
    return lanes(key, node.params["site"], step, ids, shape, np.uint16) >= threshold


def _find(nodes: Sequence[Node], name: str | int) -> Node:
    masks = [n for n in nodes if n.op in (draws.dropout, draws.mask)]
    # a dropout and its gradient are two draws of one mask
    found = {
        (_stream(n), n.params["site"]): n
        for n in reversed(masks)
        if n.params["name"] == name or (n.params["site"] == name and type(name) is int)
    }
    if len(found) > 1:
        raise RandomError(
            f"{len(found)} streams of this function have a mask {name!r}; name one of them "
            f"otherwise, say name='hidden 2'"
        )
    if not found:
        names = sorted({repr(n.params["name"] or n.params["site"]) for n in masks})
        raise RandomError(
            f"this function draws no mask {name!r}; it draws {', '.join(names) or 'none'}"
        )
    return found.popitem()[1]


def _concrete_shape(
    node: Node, name: str | int, known: Mapping[Atom, int], sizes: Mapping[str, int]
) -> tuple[int, ...]:
    shape = _own_shape(node)
    env = {a: sizes.get(str(a), known.get(a)) for a in atoms_of(shape)}
    absent = [str(a) for a, v in env.items() if v is None]
    if absent:
        raise RandomError(
            f"the mask {name!r} needs the size(s) {', '.join(absent)}: call the function first, or "
            f"give them, say {absent[0]}=32"
        )
    unknown = set(sizes) - {str(a) for a in env}
    if unknown:
        raise RandomError(f"the mask {name!r} has no size called {', '.join(sorted(unknown))}")
    return tuple(evaluate(s, {a: int(v or 0) for a, v in env.items()}) for s in shape)


def _ids(node: Node, name: str | int, example: Any, shape: tuple[int, ...]) -> Any:
    """The `example` operand: 0, or 1 + ids."""
    known = constant_value(operand(node, "example"))
    if known is not None and example is not None:
        raise RandomError(f"the mask {name!r} is not keyed by ids given at the call")
    if known is not None:
        return known
    if example is None:
        raise RandomError(f"the mask {name!r} is keyed by ids; give example=ids")
    ids = np.asarray(example)
    if ids.dtype.kind not in "iu" or ids.shape != shape[:1]:
        raise RandomError(
            f"the mask {name!r} takes {shape[0]} integer ids, got {ids.dtype}{list(ids.shape)}"
        )
    return (ids if ids.dtype == np.uint64 else ids.astype(np.int64)) + 1


def _own_shape(node: Node) -> Shape:
    if node.op is draws.dropout:
        return draws.noise_shape(node.shape, node.params["shared"])
    return node.shape


def _threshold(node: Node, name: str | int, rate: float | None) -> int:
    known = constant_value(operand(node, "threshold"))
    given = None if rate is None else threshold_of(rate)
    if known is not None and given not in (None, int(known)):
        raise RandomError(f"the rate of {name!r} is {int(known) / draws.STEPS}, not {rate}")
    threshold = given if known is None else int(known)
    if threshold is None:
        raise RandomError(f"the rate of {name!r} is not a constant; give rate=")
    return threshold
