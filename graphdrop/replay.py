"""Which calls draw, and the masks of past calls.

A call draws from a stream exactly if the function's graph, after givens and before rewrites, has a
draw of it whose training flag is true.  So rewrites cannot change call numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .bodies import Values, sizes_outside
from .cond import cond_op
from .errors import RandomError
from .graph import Node, format_origin, leaves, toposort
from .op import constant, constant_value
from .ops import random as draws
from .ops.elementwise import logical_and, logical_not
from .random import RandomStream, check_call, lanes, threshold_of
from .scan import scan_op
from .substitute import Body, map_sizes, substitute
from .types import Atom, Shape, Size, atoms_of, evaluate


def operand(node: Node, name: str) -> Node:
    """The operand of a node that its op's declaration calls `name`."""
    return node.inputs[node.op.operand_names.index(name)]


# what replay asks of a draw, besides its node
ASKED = ("training", "threshold", "key", "example")


@dataclass(frozen=True)
class Draw:
    """One draw of a graph.

    node       the draw; inside a scan or a branch, a node of a body
    stream     what it draws from
    given      the operands ASKED for, as nodes of the outer graph; None if they vary within a scan
    condition  whether the branches around it are taken, likewise
    shape      of its lanes, in sizes of the outer graph
    lengths    the lengths of the scans around it, outermost first
    """

    node: Node
    stream: RandomStream
    given: Mapping[str, Node | None]
    condition: Node | None
    shape: Shape
    lengths: tuple[Size, ...]

    @property
    def flag(self) -> Node:
        """The bool node that says whether it draws."""
        flag = self.given["training"]
        here = f"{self.node!r} (built at {format_origin(self.node.origin)})"
        if self.condition is None:
            raise RandomError(
                f"{here} is in a branch whose predicate changes within a scan, but a call draws or "
                f"does not; draw before the gd.cond and use the result inside, or compute the "
                f"predicate outside the scan"
            )
        if flag is None:
            raise RandomError(
                f"the training flag of {here} changes within a scan, but a call draws or does "
                f"not; compute it outside"
            )
        return _both(self.condition, flag)


@dataclass(frozen=True)
class _Place:
    """Where in a graph of bodies we are.

    slots      what the slots of the body around stand for in the outer graph; None if that varies
    sizes      what the sizes that are values of slots are in the outer graph
    condition  as in `Draw`
    lengths    as in `Draw`
    """

    slots: Mapping[Node, Node | None]
    sizes: Mapping[Atom, Size]
    condition: Node | None
    lengths: tuple[Size, ...]

    def outer(self, node: Node) -> Node | None:
        """A node of the body as one of the outer graph; None if it varies within a scan."""
        used = [s for s in leaves([node]) if s in self.slots]
        sources = [self.slots[s] for s in used]
        found = {s: n for s, n in zip(used, sources, strict=True) if n is not None}
        return substitute([node], found)[0] if len(found) == len(used) else None

    def inside(
        self, body: Body, given: Sequence[Node | None], values: Values, **changes: Any
    ) -> _Place:
        """The place within a body some of whose slots are given."""
        slots = dict(zip(body.inputs, given, strict=True))
        sizes = {a: map_sizes(s, self.sizes) for a, s in sizes_outside(body, values).items()}
        return replace(self, slots=slots, sizes=sizes, **changes)


def find_draws(order: Sequence[Node]) -> tuple[Draw, ...]:
    """The draws among the nodes of a graph, in scans and branches too, made from a stream.

    A draw whose key was replaced by a value (`givens={stream.key: ...}`) is a function like others.
    """
    return tuple(_draws_of(order, _Place({}, {}, constant(True), ())))


def _draws_of(order: Sequence[Node], place: _Place) -> Iterator[Draw]:
    for node in order:
        names = node.op.operand_names
        if "key" in names:
            operands = zip(names, node.inputs, strict=True)
            given = {n: place.outer(i) for n, i in operands if n in ASKED}
            key = given["key"]
            if key is not None and key.op is draws.random_key:
                shape = map_sizes(_own_shape(node), place.sizes)
                stream = key.params["stream"]
                yield Draw(node, stream, given, place.condition, shape, place.lengths)
        elif node.op is scan_op:
            yield from _draws_of_scan(node, place)
        elif node.op is cond_op:
            yield from _draws_of_cond(node, place)


def _draws_of_scan(node: Node, place: _Place) -> Iterator[Draw]:
    body, counted = node.params["body"], node.params["counted"]
    first = node.params["carries"] + node.params["sequences"]
    given = [*[None] * (1 + first), *(place.outer(n) for n in node.inputs[first:])]
    here = () if counted is None else (map_sizes(counted, place.sizes),)
    lengths = (*place.lengths, *here)
    inside = place.inside(body, given, node.params["values"], lengths=lengths)
    yield from _draws_of(toposort(body.outputs), inside)


def _draws_of_cond(node: Node, place: _Place) -> Iterator[Draw]:
    predicate, *given = (place.outer(n) for n in node.inputs)
    for name in ("then", "otherwise"):
        taken = predicate
        if predicate is not None and name == "otherwise":
            known = constant_value(predicate)
            taken = logical_not(predicate) if known is None else constant(not known)
        taken = None if taken is None or place.condition is None else _both(place.condition, taken)
        if taken is not None and constant_value(taken) == False:  # noqa: E712
            continue
        body = node.params[name]
        inside = place.inside(body, given, node.params["values"], condition=taken)
        yield from _draws_of(toposort(body.outputs), inside)


def _both(a: Node, b: Node) -> Node:
    """a and b, decided if one of them is known to be true or false."""
    for one, other in ((a, b), (b, a)):
        known = constant_value(one)
        if known is not None:
            return other if known else one
    found: Node = logical_and(a, b)
    return found


def stream_flags(found: Sequence[Draw]) -> dict[RandomStream, list[Node] | None]:
    """For every stream, the flags one of which must hold for a call to draw; None if all draw."""
    flags: dict[RandomStream, list[Node] | None] = {}
    for draw in found:
        flag = draw.flag
        known, others = constant_value(flag), flags.setdefault(draw.stream, [])
        if known is None and others is not None and flag not in others:
            others.append(flag)
        elif known:
            flags[draw.stream] = None
    return flags


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
    shape = draw.shape
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
    for size, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise RandomError(f"the size {size} must be an integer that is not negative: {value!r}")
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
