"""Nested lists, tuples and dicts of values: flattened for compiling, rebuilt for the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

LEAF = object()  # where a value stands in a structure


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The values inside nested containers in order, and the structure to rebuild them.

    None is an empty structure; whatever is no list, tuple or dict is a value.
    """
    values: list[Any] = []
    return values, _take(value, values)


def _take(item: Any, values: list[Any]) -> Any:
    if item is None:
        return None
    if isinstance(item, dict):
        return {k: _take(v, values) for k, v in item.items()}
    if isinstance(item, list):
        return [_take(v, values) for v in item]
    if isinstance(item, tuple):
        parts = [_take(v, values) for v in item]
        return type(item)(*parts) if hasattr(item, "_fields") else tuple(parts)
    values.append(item)
    return LEAF


def unflatten(structure: Any, values: Sequence[Any]) -> Any:
    """The structure of `flatten` with values in place."""
    return rebuilder(structure)(values)


def rebuilder(structure: Any) -> Callable[[Sequence[Any]], Any]:
    """What puts values in the places of a structure; quick for a single value or a flat list."""
    if structure is LEAF:
        return itemgetter(0)
    if type(structure) in (list, tuple) and all(part is LEAF for part in structure):
        kind: type[Any] = type(structure)
        return kind
    return lambda values: _fill(structure, iter(values))


def _fill(structure: Any, values: Iterator[Any]) -> Any:
    if structure is LEAF:
        return next(values)
    if isinstance(structure, dict):
        return {k: _fill(v, values) for k, v in structure.items()}
    if isinstance(structure, list):
        return [_fill(v, values) for v in structure]
    if isinstance(structure, tuple):
        parts = [_fill(v, values) for v in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return None
