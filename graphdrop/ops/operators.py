"""The operators and methods of a node, for a NumPy user's fingers.

`Node` inherits from `Operators` for the type checker only: this module needs the operations, which
need `Node`, so at run time `install` adds the methods once everything is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

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

    def __round__(self) -> Node:
        return e.round(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **kwargs: Any) -> Any:
        """`array + node` is a node; NumPy's other functions of nodes are mistakes."""
        operation = _OF_ARRAYS.get(ufunc)
        # `array += node` names a node `array` from now on, as `node += array` does
        in_place = kwargs == {"out": operands[:1]} if kwargs else True
        if operation is None or method != "__call__" or not in_place:
            node = next(n for n in (*operands, *kwargs.get("out", ())) if isinstance(n, Node))
            raise GraphError(node._no_array(ufunc.__name__))
        return operation(*operands)

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

    @property
    def mT(self) -> Node:
        """Each matrix transposed: the last two axes swapped."""
        return shape.swapaxes(self, -1, -2)

    def round(self) -> Node:
        return e.round(self)

    def clip(self, min: Any = None, max: Any = None) -> Node:
        return e.clip(self, min, max)

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


# what NumPy calls where an array or a NumPy scalar stands left of an operator
_OF_ARRAYS: dict[Any, Callable[..., Node]] = {
    np.add: e.add, np.subtract: e.sub, np.multiply: e.mul, np.true_divide: e.div,
    np.floor_divide: e.floordiv, np.remainder: e.mod, np.power: e.pow, np.matmul: linalg.matmul,
    np.bitwise_and: e.bitwise_and, np.bitwise_or: e.bitwise_or, np.bitwise_xor: e.bitwise_xor,
    np.less: e.less, np.less_equal: e.less_equal, np.greater: e.greater,
    np.greater_equal: e.greater_equal,
}  # fmt: skip


def install() -> None:
    """Give `Node` the methods above, and symbolic sizes the arithmetic that leaves the sizes."""
    install_on(Node)
    for name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow"):
        for full in (f"__{name}__", f"__r{name}__"):
            setattr(Dim, full, _of_size(vars(Dim).get(full), getattr(Operators, full)))
    for kind in (Node, Dim):  # here, so that the type checker goes on refusing int(size)
        for name in ("__float__", "__int__", "__index__"):
            setattr(kind, name, _no_number)


def _no_number(symbol: Node | Dim) -> NoReturn:
    raise GraphError(
        f"{symbol!r} is symbolic and no Python number; compute with it in the graph, with "
        f"graphdrop's functions instead of math's, or declare sizes as numbers"
    )


def _of_size(exact: Callable[[Dim, Any], Any] | None, general: Callable[[Node, Any], Node]) -> Any:
    """An operator of a size: a size again where it can be, else the node of the size's value."""

    def operator(size: Dim, other: Any) -> Any:
        other = int(other) if isinstance(other, np.integer) else other
        found = NotImplemented if exact is None else exact(size, other)
        return general(as_node(size), other) if found is NotImplemented else found

    return operator
