"""From the results of a call to the new values of shared variables.

A new value is an array that replaces the old one, or rows that are written into it: where an update
is `scatter_set(W, values, rows)` of its own variable W, the program computes values and rows alone.
All is checked before anything changes, and all variables change in one moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


# how an update is put in place
WHOLE = "whole"  # the new array instead of the old one
UNSURE = "unsure"  # likewise; only the call knows whether its shape is right
ROWS = "rows"  # some rows
SOUND = "sound rows"  # some rows; where a bool that comes with them is false, the others become NaN


def computed_for(variable: Shared, new: Node, by_rows: bool) -> tuple[str, list[Node]]:
    """How an update is put in place, and what the program gives for it: the new value, or positions
    and rows, and perhaps whether they are sound.
    """
    sound, put = None, new
    if new.op is where and _is_nan(new.inputs[2]):
        sound, put = new.inputs[:2]
    fits = put.op is _scatter_set and put.inputs[0] is variable and len(put.inputs) == 3
    if by_rows and fits and put.params["index"] == row_index(variable.shape):
        _, values, rows = put.inputs
        if sound is None:
            return ROWS, [rows, values]
        if not sound.ndim:
            return SOUND, [rows, values, sound]
    return (WHOLE if variable.shape == new.shape else UNSURE), [new]


def _is_nan(node: Node) -> bool:
    value = constant_value(node)
    return value is not None and value.ndim == 0 and bool(np.isnan(value))


class Commit:
    """How the results of a function's program become the values of its updates.

    updated  the variables
    built    their new values as built
    kinds    how each is put in place
    by_rows  the variables that are written to in place, and where in the results that begins
    copies   how often a table was copied because another call was reading it
    """

    def __init__(
        self, updated: Sequence[Shared], built: Sequence[Node], kinds: Sequence[str]
    ) -> None:
        self.copies = 0
        self.kinds = dict(zip(updated, kinds, strict=True))
        self._built = dict(zip(updated, built, strict=True))
        self.whole: list[tuple[Shared, int]] = []
        self.by_rows: dict[Shared, int] = {}
        place = 0
        for variable, kind in self.kinds.items():
            if kind in (WHOLE, UNSURE):
                self.whole.append((variable, place))
            else:
                self.by_rows[variable] = place
            place += {ROWS: 2, SOUND: 3}.get(kind, 1)

    def run(self, results: Sequence[Any], old: Mapping[Shared, Array], lease: int) -> None:
        """Put what the program gives for the updates in place; `old` are the arrays that the call
        has read.
        """
        for variable, place in self.whole:
            if self.kinds[variable] == UNSURE and results[place].shape != variable.shape:
                raise ShapeError(
                    f"the update of {variable!r} gave shape {results[place].shape}; "
                    f"nothing was updated"
                )
        for variable, place in self.by_rows.items():
            _check_rows(variable, self._built[variable], results[place])
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
        for variable, place in self.by_rows.items():
            array = tables[variable]
            if self.kinds[variable] == SOUND and not results[place + 2]:
                array[...] = np.nan
            array[results[place]] = results[place + 1]
            variable.array = array
        for variable, place in self.whole:
            variable.array = results[place]


def _check_rows(variable: Shared, built: Node, rows: Array) -> None:
    count = variable.shape[0]
    if rows.size and not (-count <= rows.min() and rows.max() < count):
        raise OutOfRangeError(
            f"the update of {variable!r} puts rows {rows.min()} to {rows.max()}, but has rows 0 to "
            f"{count - 1}; nothing was updated\n  built at {format_origin(built.origin)}"
        )
