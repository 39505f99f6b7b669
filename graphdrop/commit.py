"""From the results of a call to the new values of shared variables.

A new value is an array that replaces the old one, or rows that are written into it: where an update
is `scatter_set(W, values, rows)` of its own variable W, the program computes values and rows alone.
All is checked before anything changes, and all variables change in one moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import leases
from .errors import OutOfRangeError, ShapeError
from .graph import Node, format_origin
from .op import constant_value
from .ops.elementwise import where
from .ops.gather import row_index
from .ops.index import _scatter_set
from .ops.leaf import Shared

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RowUpdate:
    """An update of some rows.

    put    the scatter_set whose table is the variable
    sound  a bool scalar; where it is false the other rows become NaN.  None: it is true
    """

    put: Node
    sound: Node | None = None

    @property
    def computed(self) -> list[Node]:
        """What the program gives for it: rows, values, sound."""
        _, values, rows = self.put.inputs
        return [rows, values] if self.sound is None else [rows, values, self.sound]


def row_update(variable: Shared, new: Node) -> RowUpdate | None:
    """The update as one of rows, if that is what it is."""
    sound = None
    if new.op is where and _is_nan(new.inputs[2]):
        sound, new = new.inputs[:2]
    if new.op is not _scatter_set or new.inputs[0] is not variable or len(new.inputs) != 3:
        return None
    if new.params["index"] != row_index(variable.shape) or (sound is not None and sound.ndim):
        return None
    return RowUpdate(new, sound)


def _is_nan(node: Node) -> bool:
    value = constant_value(node)
    return value is not None and value.ndim == 0 and bool(np.isnan(value))


class Commit:
    """What a function's program computes for its updates, and how that becomes their values.

    computed  the nodes, one for a whole array, several for rows
    by_rows   the variables that are written to in place
    copies    how often a table was copied because another call was reading it
    """

    def __init__(self, updated: Sequence[Shared], new: Sequence[Node], in_place: bool) -> None:
        self.copies = 0
        self.computed: list[Node] = []
        self.whole: list[tuple[Shared, int]] = []
        self.by_rows: dict[Shared, tuple[int, RowUpdate]] = {}
        # updates whose sizes are known at the call only
        self.unsure: list[tuple[Shared, int]] = []
        for variable, node in zip(updated, new, strict=True):
            place, found = len(self.computed), row_update(variable, node) if in_place else None
            if found is not None:
                self.by_rows[variable] = place, found
                self.computed += found.computed
                continue
            self.whole.append((variable, place))
            self.computed.append(node)
            if variable.shape != node.shape:
                self.unsure.append((variable, place))

    def run(self, results: Sequence[Any], old: Mapping[Shared, Array], lease: int) -> None:
        """Put the values of `computed` in place; `old` are the arrays that the call has read."""
        for variable, place in self.unsure:
            if results[place].shape != variable.shape:
                raise ShapeError(
                    f"the update of {variable!r} gave shape {results[place].shape}; "
                    f"nothing was updated"
                )
        for variable, (place, update) in self.by_rows.items():
            _check_rows(variable, update, results[place])
        copies: dict[Shared, Array] = {}
        while True:
            with leases.swap:
                read = [v for v in self.by_rows if leases.read_elsewhere(v, lease)]
                held = [v for v in read if v not in copies]
                if not held:
                    with leases.writing():
                        self._write(results, {**old, **copies})
                    return
            for variable in held:  # a reader sees the value whole that it started with
                copies[variable] = np.array(old[variable])
                self.copies += 1

    def _write(self, results: Sequence[Any], tables: Mapping[Shared, Array]) -> None:
        for variable, (place, update) in self.by_rows.items():
            array = tables[variable]
            if update.sound is not None and not results[place + 2]:
                array[...] = np.nan
            array[results[place]] = results[place + 1]
            variable.array = array
        for variable, place in self.whole:
            variable.array = results[place]


def _check_rows(variable: Shared, update: RowUpdate, rows: Array) -> None:
    count = variable.shape[0]
    if rows.size and not (-count <= rows.min() and rows.max() < count):
        raise OutOfRangeError(
            f"the update of {variable!r} puts rows {rows.min()} to {rows.max()}, but has rows 0 to "
            f"{count - 1}; nothing was updated\n  built at {format_origin(update.put.origin)}"
        )
