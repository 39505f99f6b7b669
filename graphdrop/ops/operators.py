"""The operators and methods of a node, for a NumPy user's fingers.

`Node` inherits from `Operators` for the type checker only: this module needs the operations, which
need `Node`, so at run time `install` adds the methods once everything is imported.
"""

from __future__ import annotations

from typing import Any

from ..errors import GraphError
from ..graph import Node
from ..op import as_node
from ..types import Dim
from . import brackets, cumulative, gather, index, join, linalg, reduce, shape, sort
from . import elementwise as e


class Operators:
    """Methods that every node has."""

    __slots__ = ()

    def __add__(self, other: Any) -> Node:
        return e.add(self, other)

    def __radd__(self, other: Any) -> Node:
        return e.add(other, self)

    def __sub__(self, other: Any) -> Node:
        return e.sub(self, other)

    def __rsub__(self, other: Any) -> Node:
        return e.sub(other, self)

    def __mul__(self, other: Any) -> Node:
        return e.mul(self, other)

    def __rmul__(self, other: Any) -> Node:
        return e.mul(other, self)

    def __truediv__(self, other: Any) -> Node:
        return e.div(self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return e.div(other, self)

    def __floordiv__(self, other: Any) -> Node:
        return e.floordiv(self, other)

    def __rfloordiv__(self, other: Any) -> Node:
        return e.floordiv(other, self)

    def __mod__(self, other: Any) -> Node:
        return e.mod(self, other)

    def __rmod__(self, other: Any) -> Node:
        return e.mod(other, self)

    def __pow__(self, other: Any) -> Node:
        return e.pow(self, other)

    def __rpow__(self, other: Any) -> Node:
        return e.pow(other, self)

    def __matmul__(self, other: Any) -> Node:
        return linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Node:
        return linalg.matmul(other, self)

    def __neg__(self) -> Node:
        return e.neg(self)

    def __pos__(self) -> Node:
        return as_node(self)

    def __abs__(self) -> Node:
        return e.abs(self)

    def __and__(self, other: Any) -> Node:
        return e.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Node:
        return e.bitwise_and(other, self)

    def __or__(self, other: Any) -> Node:
        return e.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Node:
        return e.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Node:
        return e.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Node:
        return e.bitwise_xor(other, self)

    def __invert__(self) -> Node:
        return e.bitwise_not(self)

    def __lt__(self, other: Any) -> Node:
        return e.less(self, other)

    def __le__(self, other: Any) -> Node:
        return e.less_equal(self, other)

    def __gt__(self, other: Any) -> Node:
        return e.greater(self, other)

    def __ge__(self, other: Any) -> Node:
        return e.greater_equal(self, other)

    @property
    def T(self) -> Node:
        """The transpose: all axes reversed."""
        return shape.transpose(self)

    def astype(self, dtype: Any) -> Node:
        return e.cast(self, dtype)

    def reshape(self, *sizes: Any) -> Node:
        return shape.reshape(self, *sizes)

    def transpose(self, *axes: Any) -> Node:
        return shape.transpose(self, *axes)

    def squeeze(self, axis: Any = None) -> Node:
        return shape.squeeze(self, axis)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.min(self, axis=axis, keepdims=keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.prod(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Node:
        return reduce.var(self, axis, ddof, keepdims)

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Node:
        return reduce.std(self, axis, ddof, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Node:
        return reduce.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Node:
        return reduce.argmin(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Node:
        return cumulative.cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Node:
        return cumulative.cumprod(self, axis)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
        return linalg.trace(self, offset, axis1, axis2)

    def dot(self, other: Any) -> Node:
        return linalg.dot(self, other)

    def any(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Node:
        return reduce.all(self, axis=axis, keepdims=keepdims)

    def __getitem__(self, key: Any) -> Node:
        return index.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise GraphError(
            f"{self!r} cannot be changed; make a new value: x = x[key].set(value), or .inc(value)"
        )

    def set(self, value: Any) -> Node:
        """The array of which this is a part, with `value` in its place: x[1:].set(0)."""
        return index.set_subtensor(self, value)

    def inc(self, value: Any) -> Node:
        """The array of which this is a part, with `value` added to it: x[ids].inc(1)."""
        return index.inc_subtensor(self, value)

    def take(self, ids: Any, axis: int | None = None, mode: str = "raise") -> Node:
        return gather.take(self, ids, axis, mode)

    def nonzero(self) -> tuple[Node, ...]:
        return brackets.nonzero(self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
        return gather.diagonal(self, offset, axis1, axis2)

    def flatten(self, ndim: int = 1) -> Node:
        return shape.flatten(self, ndim)

    def ravel(self) -> Node:
        return shape.ravel(self)

    def swapaxes(self, axis1: int, axis2: int) -> Node:
        return shape.swapaxes(self, axis1, axis2)

    def repeat(self, repeats: Any, axis: int | None = None) -> Node:
        return join.repeat(self, repeats, axis)

    def sort(self, axis: int | None = -1, descending: bool = False) -> Node:
        """A sorted copy (NumPy's method sorts in place, which a graph cannot)."""
        return sort.sort(self, axis, descending)

    def argsort(self, axis: int | None = -1, descending: bool = False) -> Node:
        return sort.argsort(self, axis, descending)

    def searchsorted(self, values: Any, side: str = "left") -> Node:
        return sort.searchsorted(self, values, side)


def install_on(kind: type) -> None:
    """Give a class the methods above."""
    for name, method in vars(Operators).items():
        if name not in ("__module__", "__slots__", "__doc__", "__dict__", "__weakref__"):
            setattr(kind, name, method)


def install() -> None:
    """Give `Node` the methods above, and symbolic sizes the division that sizes do not have."""
    install_on(Node)

    def truediv(self: Dim, other: Any) -> Node:
        return e.div(self, other)

    def rtruediv(self: Dim, other: Any) -> Node:
        return e.div(other, self)

    for name, method in (("__truediv__", truediv), ("__rtruediv__", rtruediv)):
        setattr(Dim, name, method)
