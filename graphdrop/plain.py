"""Symbolic sizes as plain data, for names of graphs and for what is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .types import COMPOUND, Atom, Size


def plain(size: Size, atom: Callable[[Atom], Any]) -> Any:
    """An int, or a list of terms [coefficient, factor, ...].

    A factor is what `atom` makes of a name, an axis or the value of a node, which must be no list,
    or a list ["floordiv", size, size], likewise "max" and "min".
    """
    if isinstance(size, int):
        return size
    return [[coef, *[_factor(a, atom) for a in mono]] for mono, coef in size.terms]


def _factor(factor: Atom, atom: Callable[[Atom], Any]) -> Any:
    if factor.kind in COMPOUND:
        return [factor.kind, *[plain(s, atom) for s in factor.args]]
    return atom(factor)


def from_plain(said: Any, size: Callable[[Any], Size]) -> Size:
    """The size that `plain` was given; `size` is what an atom stands for."""
    if isinstance(said, int):
        return said
    total: Size = 0
    for coef, *factors in said:
        term: Size = coef
        for factor in factors:
            if isinstance(factor, list):
                kind, a, b = factor
                term = term * COMPOUND[kind](from_plain(a, size), from_plain(b, size))
            else:
                term = term * size(factor)
        total = total + term
    return total
