"""What a node is: dtype and shape.  First layer of the house; knows nothing of graphs.

A size is a Python int or a `Dim`, a symbolic size.  Dims are integer polynomials over atoms in
canonical form, so that `batch * time == time * batch` and `(n + 1) - 1 == n` hold structurally,
and so that one compiled function serves every size.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from .errors import ArgumentError, DTypeError, GraphError, ShapeError

Size: TypeAlias = "int | Dim"
Shape: TypeAlias = "tuple[Size, ...]"

_serial = itertools.count()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Atom:
    """An indivisible size: a name, an unknown axis, the value of a node, or a //, max, min.

    Interned by `_atom`, so equality is identity.  `order` sorts atoms the same way in every
    process, whatever PYTHONHASHSEED.
    """

    kind: str  # "name", "axis", "value", "floordiv", "max", "min"
    args: tuple[Any, ...]  # (name,), (label, serial), (node,), or two sizes
    order: int

    def __repr__(self) -> str:
        if self.kind in ("name", "axis"):
            return str(self.args[0])
        if self.kind == "value":
            return f"value of {self.args[0].name or self.args[0].op.name}"
        left, right = self.args
        return (
            f"({left})//({right})" if self.kind == "floordiv" else f"{self.kind}({left}, {right})"
        )


_atoms: WeakValueDictionary[tuple[Any, ...], Atom] = WeakValueDictionary()


def _atom(kind: str, *args: Any) -> Atom:
    key = (kind, *args)
    found = _atoms.get(key)
    return found if found is not None else _atoms.setdefault(key, Atom(kind, args, next(_serial)))


_Terms: TypeAlias = "dict[tuple[Atom, ...], int]"


class Dim:
    """A symbolic size: an integer polynomial over atoms.

    Supports `+ - * //` and `%` with ints and Dims; a result that is constant becomes an int.
    Equality is structural.  Order comparisons and truth values raise: the size is not known yet.
    """

    __slots__ = ("_hash", "terms")
    __array_ufunc__ = None  # NumPy leaves `scalar * size` to the methods here
    terms: tuple[tuple[tuple[Atom, ...], int], ...]

    def __init__(self, terms: tuple[tuple[tuple[Atom, ...], int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __bool__(self) -> bool:
        raise ShapeError(f"the size {self} is only known at run time; it has no truth value")

    def _compared(self, other: Any) -> Any:
        if not _is_size(other):
            return NotImplemented
        raise GraphError(
            f"the size {self} is only known at run time, and cannot be compared with {other} now; "
            "compare nodes, say gd.as_node(size) > 3 in gd.where or gd.cond, and for the larger of "
            "two write gd.maximum(gd.as_node(a), b)"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def __add__(self, other: Size) -> Size:
        if not _is_size(other):
            return NotImplemented
        terms = dict(self.terms)
        for mono, coef in _terms(other):
            terms[mono] = terms.get(mono, 0) + coef
        return _make(terms)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1 if _is_size(other) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return self * -1 + other if _is_size(other) else NotImplemented

    def __mul__(self, other: Size) -> Size:
        if not _is_size(other):
            return NotImplemented
        terms: _Terms = {}
        for mono_a, a in self.terms:
            for mono_b, b in _terms(other):
                mono = tuple(sorted(mono_a + mono_b, key=_order))
                terms[mono] = terms.get(mono, 0) + a * b
        return _make(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other) if _is_size(other) else NotImplemented

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self) if _is_size(other) else NotImplemented

    def __mod__(self, other: Size) -> Size:
        return self - self // other * other if _is_size(other) else NotImplemented

    def __repr__(self) -> str:
        parts = []
        for mono, coef in self.terms:
            factors = [repr(a) for a in mono]
            if coef != 1 or not factors:
                factors.insert(0, str(coef))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")


def _order(atom: Atom) -> int:
    return atom.order


def _is_size(value: object) -> bool:
    return isinstance(value, (int, Dim)) and not isinstance(value, bool)


def _terms(size: Size) -> tuple[tuple[tuple[Atom, ...], int], ...]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _make(terms: _Terms) -> Size:
    kept = [(mono, coef) for mono, coef in terms.items() if coef]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    # constants last, then by the atoms' age: "batch*time + 1"
    kept.sort(key=lambda t: (not t[0], [a.order for a in t[0]]))
    return Dim(tuple(kept))


def atom_size(atom: Atom) -> Dim:
    """The size that is an atom."""
    return Dim((((atom,), 1),))


def named_dim(name: str) -> Dim:
    """The size called `name`: the same size wherever the name stands."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ArgumentError(f"a dimension's name must be an identifier, got {name!r}")
    return atom_size(_atom("name", name))


def fresh_dim(label: str) -> Dim:
    """A size nothing is known about; `label` (say 'x.shape[0]') is for messages only."""
    return atom_size(Atom("axis", (label,), next(_serial)))


def value_dim(node: Any) -> Dim:
    """The size that an int64 scalar node will have as its value."""
    if node.value_atom is None:
        node.value_atom = Atom("value", (node,), next(_serial))
    return atom_size(node.value_atom)


def floordiv(a: Size, b: Size) -> Size:
    """a // b, exact where the polynomial divides."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise ShapeError(f"a size is {a} // 0, and nothing divides by 0")
        return a // b
    divisor = _terms(b)
    if len(divisor) == 1:
        (mono_b, coef_b), quotient = divisor[0], {}
        for mono_a, coef_a in _terms(a):
            rest = list(mono_a)
            if coef_a % coef_b or not all(_take(rest, atom) for atom in mono_b):
                break
            quotient[tuple(rest)] = coef_a // coef_b
        else:
            return _make(quotient)
    return 1 if a == b else atom_size(_atom("floordiv", a, b))


def _take(items: list[Atom], item: Atom) -> bool:
    if item in items:
        items.remove(item)
        return True
    return False


def max_size(a: Size, b: Size) -> Size:
    """The larger of two sizes."""
    return _extreme("max", a, b)


def min_size(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    return _extreme("min", a, b)


def _extreme(kind: str, a: Size, b: Size) -> Size:
    gap = a - b
    if isinstance(gap, int):
        return a if (gap >= 0) == (kind == "max") else b
    if kind == "max" and a == 0 and _is_a_size(b):
        return b
    if kind == "max" and b == 0 and _is_a_size(a):
        return a
    return atom_size(_atom(kind, a, b))


def _is_a_size(size: Size) -> bool:
    """Whether it is never negative, as far as can be told."""
    if isinstance(size, int):
        return size >= 0
    return all(coef > 0 and all(map(_counts, mono)) for mono, coef in size.terms)


def _counts(atom: Atom) -> bool:
    """Whether an atom is never negative; an axis has no fewer than 0 elements."""
    if atom.kind in ("max", "min"):
        return (any if atom.kind == "max" else all)(map(_is_a_size, atom.args))
    return atom.kind != "floordiv"


def plain_atom(size: Size) -> Atom | None:
    """The atom of a size that is nothing but a name or an unknown axis, else None."""
    if isinstance(size, Dim) and len(size.terms) == 1:
        mono, coef = size.terms[0]
        if coef == 1 and len(mono) == 1 and mono[0].kind in ("name", "axis"):
            return mono[0]
    return None


def atoms_of(sizes: Iterable[Any]) -> list[Atom]:
    """The names, axes and node values that some sizes are computed from, first met first."""
    found: dict[Atom, None] = {}
    todo = [s for s in sizes if isinstance(s, Dim)]
    while todo:
        for mono, _ in todo.pop().terms:
            for atom in mono:
                if atom.kind in COMPOUND:
                    todo.extend(a for a in atom.args if isinstance(a, Dim))
                else:
                    found[atom] = None
    return list(found)


def has_values(sizes: Iterable[Any]) -> bool:
    """Whether some sizes are computed from values of nodes, which no call knows before it runs."""
    return any(a.kind == "value" for a in atoms_of(sizes))


def evaluate(size: Size, env: Mapping[Atom, int]) -> int:
    """The size as a number, given the numbers of its atoms."""
    return substitute_size(size, env.__getitem__)  # type: ignore[return-value]


def substitute_size(size: Size, value: Callable[[Atom], Size]) -> Size:
    """The size with every name, axis and node value replaced by `value(atom)`."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for mono, coef in size.terms:
        product: Size = coef
        for atom in mono:
            if atom.kind in COMPOUND:
                a, b = (substitute_size(s, value) for s in atom.args)
                product = product * COMPOUND[atom.kind](a, b)
            else:
                product = product * value(atom)
        total = total + product
    return total


COMPOUND: dict[str, Callable[[Size, Size], Size]] = {
    "floordiv": floordiv,
    "max": max_size,
    "min": min_size,
}


# --------------------------------------------------------------------------------------------
# dtypes

DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(t)
    for t in (
        bool, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
        np.float16, np.float32, np.float64,
    )
)  # fmt: skip


_KNOWN = frozenset(DTYPES)


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype that `dtype` names, if graphdrop has it."""
    if isinstance(dtype, np.dtype) and dtype in _KNOWN:
        return dtype
    try:
        found = np.dtype(dtype)
    except TypeError:
        hint = "; sizes go into one tuple, as in (2, 3)" if isinstance(dtype, int) else ""
        raise DTypeError(f"{dtype!r} is not a dtype{hint}") from None
    native: np.dtype[Any] = found.newbyteorder("=")
    if native not in _KNOWN:
        names = ", ".join(d.name for d in DTYPES)
        raise DTypeError(f"dtype {found} is not supported; use one of {names}")
    return native


def promote(*kinds: Any) -> np.dtype[Any]:
    """NumPy 2 promotion; a Python scalar among `kinds` is weak."""
    return as_dtype(np.result_type(*kinds))


# --------------------------------------------------------------------------------------------
# types


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape of one array; equality is by value."""

    dtype: np.dtype[Any]
    shape: Shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.dtype.kind == "b"

    def with_shape(self, shape: Sequence[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: Any) -> TensorType:
        return TensorType(as_dtype(dtype), self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class TupleType:
    """The type of an operation with several results."""

    items: tuple[TensorType, ...]

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type: TypeAlias = TensorType | TupleType


def num_elements(shape: Shape) -> Size:
    """The product of the sizes; 1 for a scalar."""
    total: Size = 1
    for size in shape:
        total = total * size
    return total


# --------------------------------------------------------------------------------------------
# agreement of sizes

# Pairs of sizes that must turn out equal at run time; a type rule appends, `Op.make` collects.
_checks: ContextVar[list[tuple[Size, Size]] | None] = ContextVar("graphdrop_checks", default=None)


def unify(a: Size, b: Size, what: str = "sizes") -> Size:
    """One size where two must be equal.

    Sizes that can never be equal raise ShapeError now; sizes that may be are checked at the call.
    """
    if a == b:
        return a
    gap = a - b
    if isinstance(gap, int):
        raise ShapeError(f"{what} {a} and {b} differ")
    pending = _checks.get()
    if pending is not None:
        pending.append((a, b))
    return a if isinstance(a, int) else b if isinstance(b, int) else a


def broadcast_sizes(a: Size, b: Size) -> Size:
    """Broadcasting of one axis: only a size known to be 1 stretches."""
    if isinstance(a, int) and a == 1:
        return b
    if isinstance(b, int) and b == 1:
        return a
    return unify(a, b)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape under NumPy's rule, restricted to sizes known to be 1."""
    shapes = tuple([s for s in shapes if s])  # one number stretches to whatever there is
    if not shapes or shapes.count(shapes[0]) == len(shapes):
        return shapes[0] if shapes else ()
    ndim = max(len(s) for s in shapes)
    out: list[Size] = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, start=ndim - len(shape)):
            try:
                out[axis] = broadcast_sizes(out[axis], size)
            except ShapeError:
                listed = " and ".join(str(list(s)) for s in shapes)
                raise ShapeError(
                    f"shapes {listed} do not broadcast: axis {axis} is {out[axis]} in one and "
                    f"{size} in another; only a size known to be 1 stretches, so reshape "
                    f"one of them, or insert an axis of size 1 with x[:, None]"
                ) from None
    return tuple(out)


def normalize_axis(axis: int, ndim: int) -> int:
    """A non-negative axis, or ShapeError."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise ArgumentError(f"an axis must be an int, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is out of range for {ndim} dimension(s)")
    return int(axis) % ndim


def normalize_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Sorted distinct non-negative axes; None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    listed: list[Any] = list(axis) if isinstance(axis, (Sequence, Set)) else [axis]
    axes = tuple(normalize_axis(a, ndim) for a in listed)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis {tuple(listed)} names one axis twice")
    return tuple(sorted(axes))
