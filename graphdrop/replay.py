"""Which calls draw, and the masks of past calls.

A call draws from a stream exactly if the function's graph, after givens and before rewrites, has a
draw of it whose training flag is true.  So rewrites cannot change call numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import RandomError
from .graph import Node, format_origin, toposort
from .op import constant_value
from .ops import random as draws
from .random import RandomStream, check_call, lanes, threshold_of
from .scan import scan_op
from .types import Atom, Shape, Size, atoms_of, evaluate


def operand(node: Node, name: str) -> Node:
    """The operand of a node that its op's declaration calls `name`."""
    return node.inputs[node.op.operand_names.index(name)]


@dataclass(frozen=True)
class Draw:
    """One draw of a graph.

    node     the draw; inside a scan, a node of its body
    stream   what it draws from
    given    its operands by name as nodes of the outer graph; None if they vary within a scan
    lengths  the lengths of the scans around it, outermost first
    """

    node: Node
    stream: RandomStream
    given: Mapping[str, Node | None]
    lengths: tuple[Size, ...] = ()

    @property
    def flag(self) -> Node:
        """The bool node that says whether it draws."""
        flag = self.given["training"]
        if flag is None:
            raise RandomError(
                f"the training flag of {self.node!r} (built at {format_origin(self.node.origin)}) "
                f"changes within a scan, but a call draws or does not; compute it outside"
            )
        return flag


def find_draws(order: Sequence[Node]) -> tuple[Draw, ...]:
    """The draws among the nodes of a graph, in scans too, that are made from a stream.

    A draw whose key was replaced by a value (`givens={stream.key: ...}`) is a function like others.
    """
    return tuple(_draws_of(order, {}, ()))


def _draws_of(
    order: Sequence[Node], outer: Mapping[Node, Node | None], lengths: tuple[Size, ...]
) -> Iterator[Draw]:
    for node in order:
        names = node.op.operand_names
        if "key" in names:
            given = {n: outer.get(i, i) for n, i in zip(names, node.inputs, strict=True)}
            key = given["key"]
            if key is not None and key.op is draws.random_key:
                yield Draw(node, key.params["stream"], given, lengths)
        elif node.op is scan_op:
            body, captured = node.params["body"], node.params["carries"] + node.params["sequences"]
            places: dict[Node, Node | None] = dict.fromkeys(body.inputs)
            for slot, source in zip(
                body.inputs[1 + captured :], node.inputs[captured:], strict=True
            ):
                places[slot] = outer.get(source, source)
            inside = (*lengths, node.params["length"])
            yield from _draws_of(toposort(body.outputs), places, inside)


def active_streams(found: Sequence[Draw], values: Mapping[Node, Any]) -> dict[RandomStream, bool]:
    """Which streams draw, given the values of the flags that are not constant."""
    active: dict[RandomStream, bool] = {}
    for draw in found:
        known = constant_value(draw.flag)
        now = bool(values[draw.flag] if known is None else known)
        active[draw.stream] = active.get(draw.stream, False) or now
    return active


def regenerate_mask(
    found: Sequence[Draw],
    name: str | int,
    call: int,
    *,
    rate: float | None,
    example: Any,
    known: Mapping[Atom, int],
    sizes: Mapping[str, int],
) -> np.ndarray[Any, Any]:
    """The mask of the draw called `name`, or of site `name`, in a call: True where kept.

    Inside scans, the masks of all steps, stacked along leading axes of the scans' lengths.

    known    sizes of the last call; `sizes` by name go before them
    rate     needed where the draw's rate is not a constant
    example  the ids, needed where the draw is keyed by them
    """
    check_call(call)
    draw = _find(found, name)
    shape = _own_shape(draw.node)
    *lengths, env = (*draw.lengths, _environment((*draw.lengths, *shape), name, known, sizes))
    loops = tuple(evaluate(s, env) for s in lengths)
    concrete = tuple(evaluate(s, env) for s in shape)
    threshold, ids = _threshold(draw, name, rate), _ids(draw, name, example, concrete)
    key = np.array([draw.stream.seed, call], np.uint64)

    def at(step: int) -> np.ndarray[Any, Any]:
        return lanes(key, draw.node.params["site"], step, ids, concrete, np.uint16) >= threshold

    if not loops:
        return at(0)
    masks = [at(1 + i) for i in range(math.prod(loops))]
    return np.array(masks, bool).reshape(*loops, *concrete)


def _find(found: Sequence[Draw], name: str | int) -> Draw:
    masks = [d for d in found if d.node.op in (draws.dropout, draws.mask)]
    # a dropout and its gradient are two draws of one mask
    fitting = {
        (d.stream, d.node.params["site"]): d
        for d in reversed(masks)
        if d.node.params["name"] == name or (d.node.params["site"] == name and type(name) is int)
    }
    if len(fitting) > 1:
        raise RandomError(
            f"{len(fitting)} streams of this function have a mask {name!r}; name one of them "
            f"otherwise, say name='hidden 2'"
        )
    if not fitting:
        names = sorted({repr(d.node.params["name"] or d.node.params["site"]) for d in masks})
        raise RandomError(
            f"this function draws no mask {name!r}; it draws {', '.join(names) or 'none'}"
        )
    return fitting.popitem()[1]


def _environment(
    needed: Sequence[Size], name: str | int, known: Mapping[Atom, int], sizes: Mapping[str, int]
) -> dict[Atom, int]:
    """The values of the symbolic sizes in `needed`."""
    env = {a: sizes.get(str(a), known.get(a)) for a in atoms_of(needed)}
    absent = [str(a) for a, v in env.items() if v is None]
    if absent:
        raise RandomError(
            f"the mask {name!r} needs the size(s) {', '.join(absent)}: call the function first, or "
            f"give them, say {absent[0]}=32"
        )
    unknown = set(sizes) - {str(a) for a in env}
    if unknown:
        raise RandomError(f"the mask {name!r} has no size called {', '.join(sorted(unknown))}")
    return {a: v for a, v in env.items() if v is not None}


def _ids(draw: Draw, name: str | int, example: Any, shape: tuple[int, ...]) -> Any:
    """The `example` operand: 0, or 1 + ids."""
    known = _constant_operand(draw, "example")
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


def _constant_operand(draw: Draw, name: str) -> np.ndarray[Any, Any] | None:
    node = draw.given[name]
    return None if node is None else constant_value(node)


def _own_shape(node: Node) -> Shape:
    if node.op is draws.dropout:
        return draws.noise_shape(node.shape, node.params["shared"])
    return node.shape


def _threshold(draw: Draw, name: str | int, rate: float | None) -> int:
    known = _constant_operand(draw, "threshold")
    given = None if rate is None else threshold_of(rate)
    if known is not None and given not in (None, int(known)):
        raise RandomError(f"the rate of {name!r} is {int(known) / draws.STEPS}, not {rate}")
    threshold = given if known is None else int(known)
    if threshold is None:
        raise RandomError(f"the rate of {name!r} is not a constant; give rate=")
    return threshold
