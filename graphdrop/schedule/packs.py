"""Right operands that stay the same in all steps of a loop: laid out once before it.

A product reads its right operand in an order of the backend's own, and copies it into that order
first.  In a loop it would do so again in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..types import Size
from .check import check
from .program import Buffer, Loop, Pack, Place, Product, Program, Step

Room: TypeAlias = Callable[[Product], "Size | None"]


def packed(program: Program, room: Room) -> Program:
    """The program with a `Pack` before a loop for every operand that stays in it.

    room  how many elements the right operand of a product takes in the backend's order; None if it
          reads that operand as it is
    """
    found = _packed(program, room)
    check(found)
    return found


def _packed(program: Program, room: Room) -> Program:
    buffers, steps = list(program.buffers), list[Step]()
    for step in program.steps:
        if isinstance(step, Loop):
            packs = _Packs(room, buffers)
            loop = packs.loop(step, lambda place: place, (), lambda pack: pack.result)
            steps += packs.made.values()
            # what changes in this loop may stay in one within it
            step = replace(loop, body=_packed(loop.body, room))
        steps.append(step)
    return replace(program, buffers=tuple(buffers), steps=tuple(steps))


@dataclass
class _Packs:
    """What is laid out before one loop.

    buffers  of the program that the loop is in; the results are added
    """

    room: Room
    buffers: list[Buffer]
    made: dict[Hashable, Pack] = field(default_factory=dict)

    def loop(
        self, loop: Loop, where: Callable[[Place], Place | None], loops: tuple[Size, ...],
        known: Callable[[Pack], Buffer],
    ) -> Loop:  # fmt: skip
        """The loop, to whose products the results are handed down.

        where  a place around the loop -> where that is outside of all loops, if it stays
        loops  the lengths of the loops around this one
        known  the buffer around the loop that has a result
        """
        body, loops = loop.body, (*loops, loop.length)
        buffers, steps, inputs = list(body.buffers), list[Step](), dict[Pack, Buffer]()
        fixed = body.inputs[len(body.inputs) - len(loop.captured) :]
        stays = {b: at for b, p in zip(fixed, loop.captured, strict=True) if (at := where(p))}

        def inner(place: Place) -> Place | None:
            at = stays.get(place.buffer)
            if at is None:
                return None
            return Place(at.buffer, place.shape, place.strides, at.offset + place.offset)

        def handed(pack: Pack) -> Buffer:
            if pack not in inputs:
                inputs[pack] = replace(pack.result, number=len(buffers), role="input")
                buffers.append(inputs[pack])
            return inputs[pack]

        for step in body.steps:
            if isinstance(step, Loop):
                step = self.loop(step, inner, loops, handed)
            elif isinstance(step, Product) and (pack := self._pack(step, inner, loops)) is not None:
                step = replace(step, packed=handed(pack))
            steps.append(step)
        around = [known(pack) for pack in inputs]
        given = (*body.inputs, *inputs.values())
        body = replace(body, inputs=given, buffers=tuple(buffers), steps=tuple(steps))
        more = [Place(b, (b.elements,), (1,)) for b in around]
        return replace(loop, body=body, captured=(*loop.captured, *more))

    def _pack(
        self, product: Product, where: Callable[[Place], Place | None], loops: tuple[Size, ...]
    ) -> Pack | None:
        """What lays out the right operand of a product, if it stays and is not read as it is."""
        source, size = where(product.right), self.room(product)
        if product.packed is not None or source is None or size is None:
            return None
        right, rows = product.node.inputs[1], product.node.shape[-2]
        key = source.buffer, right, rows, loops
        if key not in self.made:
            result = Buffer(len(self.buffers), "scratch", right, size)
            self.buffers.append(result)
            self.made[key] = Pack(product.node, source, result, rows, loops)
        return self.made[key]
