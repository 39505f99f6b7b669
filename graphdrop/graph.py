"""Nodes: immutable, interned, and everything that walks them iteratively.

A `Node` is one operation applied to other nodes.  Two nodes built the same way are one object, so
common subexpressions merge as the graph is built and equality is identity.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .errors import GraphError
from .types import Atom, Dim, Size, TensorType, Type, atoms_of, num_elements

if TYPE_CHECKING:
    from .op import Op
    from .ops.operators import Operators  # at run time ops/operators.py adds these to Node
else:

    class Operators:
        __slots__ = ()


Params: TypeAlias = Mapping[str, Any]
# a type, and the pairs of sizes that must be equal
Typed: TypeAlias = "tuple[Type, tuple[tuple[Size, Size], ...]]"
NO_PARAMS: Params = MappingProxyType({})
Origin: TypeAlias = "tuple[str, int] | None"  # the user's file and line

_serial = itertools.count()
_interned: dict[Hashable, _Entry] = {}


class Node(Operators):
    """One value of the graph: `op` applied to `inputs` with the constants `params`.

    op       what is computed
    inputs   the operand nodes
    params   hashable constants by name (axes, shapes, sites); sizes in them may be Dims
    type     TensorType, or TupleType for an op with several results
    checks   pairs of sizes that must be equal at run time
    origin   where the user built it, outside the key

    size_inputs   nodes whose values are sizes in `params` or `checks`
    dependencies  everything that must be computed first: operands, and nodes that give sizes
    """

    __slots__ = (
        "__weakref__", "checks", "dependencies", "inputs", "op", "origin", "params", "serial",
        "size_inputs", "type", "value_atom",
    )  # fmt: skip
    op: Op
    inputs: tuple[Node, ...]
    params: Params
    type: Any
    checks: tuple[tuple[Size, Size], ...]
    origin: Origin
    serial: int
    size_inputs: tuple[Node, ...]
    dependencies: tuple[Node, ...]
    value_atom: Atom | None

    def __init__(
        self,
        op: Op,
        inputs: tuple[Node, ...],
        params: Params,
        type: Type,
        checks: tuple[tuple[Size, Size], ...] = (),
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.params = params
        self.type = type
        self.checks = checks
        self.origin = current_origin()
        self.serial = next(_serial)
        self.size_inputs = _size_inputs(params, checks) if params or checks else ()
        self.dependencies = inputs + self.size_inputs if self.size_inputs else inputs
        self.value_atom = None

    # ---- what the type says
    @property
    def dtype(self) -> np.dtype[Any]:
        type = self.type
        return (type if type.__class__ is TensorType else self.tensor_type).dtype

    @property
    def ndim(self) -> int:
        return len(self.tensor_type.shape)

    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes: ints where known, else Dims, which work as graph values too."""
        return self.tensor_type.shape

    @property
    def size(self) -> Size:
        """The number of elements."""
        return num_elements(self.shape)

    @property
    def tensor_type(self) -> TensorType:
        if isinstance(self.type, TensorType):
            return self.type
        raise GraphError(f"{self.op.name} has {len(self.type.items)} results; pick one first")

    @property
    def name(self) -> str | None:
        """The name of an input or shared value; None for computed nodes."""
        name: str | None = self.params.get("name")
        return name if not self.inputs else None

    # ---- what a node is not
    def _described(self) -> str:
        return f"{self!r} (built at {format_origin(self.origin)})"

    def __bool__(self) -> bool:
        raise GraphError(
            f"{self._described()} has no value while the graph is built, so `if`, `and`, "
            f"`or` and `not` cannot test it; use gd.where(condition, a, b), & | ~, or compile "
            f"a function"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Node) or not isinstance(other, (int, float, np.ndarray, np.generic)):
            return self is other
        raise GraphError(
            f"== and != tell whether two nodes are one; to compare the values of "
            f"{self._described()} use gd.equal or gd.not_equal"
        )

    __hash__ = object.__hash__

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise GraphError(
            f"{self._described()} is symbolic and has no array yet; use graphdrop's "
            f"functions instead of NumPy's, or compute it with gd.function([...], node)"
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise GraphError(self._no_array(function.__name__))

    def _no_array(self, name: str) -> str:
        return (
            f"np.{name} takes arrays, but {self._described()} is symbolic; graphdrop's functions "
            f"have NumPy's names: use gd.{name}"
        )

    def __iter__(self) -> Iterator[Node]:
        if self.ndim == 0 or not isinstance(self.shape[0], int):
            raise GraphError(
                f"cannot iterate over {self._described()}: its length is not known while the "
                f"graph is built; use gd.scan, or declare a fixed size"
            )
        length = self.shape[0]
        return (self[i] for i in range(length))

    def __contains__(self, value: Any) -> bool:
        raise GraphError(
            f"{self._described()} has no values to look in while the graph is built; use "
            f"gd.any(gd.equal(node, value))"
        )

    def __len__(self) -> int:
        if self.ndim == 0 or not isinstance(self.shape[0], int):
            raise GraphError(f"len() of {self._described()} is not known yet; use .shape[0]")
        return self.shape[0]

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: Any) -> Node:
        return self

    def __reduce__(self) -> Any:
        raise GraphError("nodes are not pickled; save values with gd.save")

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"<{self.op.name}{label} {self.type}>"


def intern(op: Op, inputs: tuple[Node, ...], params: Params, typed: Typed | None = None) -> Node:
    """The one node with this op, inputs and params; `typed` if its type is known already."""
    node = _interned_node(op, inputs, params, typed)
    built = _built.get()
    if built is not None:
        built.add(node)
    return node


# what `building` collects
_built: ContextVar[set[Node] | None] = ContextVar("graphdrop_built", default=None)


@contextlib.contextmanager
def building() -> Iterator[set[Node]]:
    """The set of the nodes that are built inside, also of those that somebody built before.

    Which nodes existed is a matter of chance: an unused one lives until Python collects it.
    """
    outer, found = _built.get(), set[Node]()
    token = _built.set(found)
    try:
        yield found
    finally:
        _built.reset(token)
        if outer is not None:
            outer |= found


def _interned_node(op: Op, inputs: tuple[Node, ...], params: Params, typed: Typed | None) -> Node:
    # ids are safe: a live node keeps op, inputs and params alive; its entry goes before they do.
    # A key of numbers alone is nothing that Python's collector has to visit again and again
    key = (id(op), *map(id, inputs), freeze(params)) if params else (id(op), *map(id, inputs))
    ref = _interned.get(key)
    node = ref() if ref is not None else None
    if node is not None:
        return node
    type, checks = typed or op.infer(inputs, params)
    node = Node(op, inputs, params, type, checks)
    new = _Entry(node, _forget)
    new.key = key
    while True:  # another thread may have built the same node meanwhile
        winner = _interned.setdefault(key, new)
        if winner is new:
            return node
        other = winner()
        if other is not None:
            return other
        _interned.pop(key, None)


class _Entry(weakref.ref[Node]):
    """An interned node, and the key it stands under."""

    __slots__ = ("key",)
    key: Hashable


def _forget(dead: weakref.ref[Node]) -> None:
    assert isinstance(dead, _Entry)
    if _interned.get(dead.key) is dead:
        del _interned[dead.key]


def freeze(value: Any) -> Hashable:
    """A hashable key in which 1, True, 1.0 and -0.0 differ."""
    kind: Any = type(value)
    if kind in _KEYS:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (bool, int, str)) or value is None:
        return (kind.__name__, value)
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, (MappingProxyType, dict)):
        return tuple([(k, freeze(v)) for k, v in value.items()])
    if isinstance(value, (tuple, list)):
        return tuple([freeze(v) for v in value])
    if isinstance(value, np.generic):
        return ("np", value.dtype, value.tobytes())
    assert isinstance(value, Hashable), f"{value!r} cannot be a parameter of an operation"
    if kind.__hash__ is object.__hash__:
        # a function or a stream, which may refer to the node: its key must not keep it alive
        return ("id", id(value))
    _KEYS.add(kind)
    return value


_KEYS: set[type] = set()  # kinds of parameters that have been seen to be keys themselves


def _size_inputs(params: Params, checks: tuple[tuple[Size, Size], ...]) -> tuple[Node, ...]:
    dims: list[Dim] = []
    todo: list[Any] = [*params.values(), *checks]
    while todo:
        value = todo.pop()
        if isinstance(value, Dim):
            dims.append(value)
        elif isinstance(value, tuple):
            todo.extend(value)
        elif isinstance(value, TensorType):
            todo.extend(value.shape)
    return tuple(atom.args[0] for atom in atoms_of(dims) if atom.kind == "value") if dims else ()


# --------------------------------------------------------------------------------------------
# origins

# frames that are not the user's: ours, and those of Python's wrappers around what we call
_OURS = (str(Path(__file__).parent) + os.sep, contextlib.__file__, functools.__file__)
_forced_origin: ContextVar[Origin] = ContextVar("graphdrop_origin", default=None)


def current_origin() -> Origin:
    """File and line of the nearest caller outside graphdrop, unless `origin_scope` says other."""
    forced = _forced_origin.get()
    if forced is not None:
        return forced
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back  # type: ignore[assignment]
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


class origin_scope:
    """Nodes built inside carry `origin`: a gradient or a rewrite names the user's line."""

    __slots__ = ("origin", "token")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __enter__(self) -> None:
        self.token = _forced_origin.set(self.origin)

    def __exit__(self, *error: object) -> None:
        _forced_origin.reset(self.token)


def format_origin(origin: Origin) -> str:
    return f"{origin[0]}:{origin[1]}" if origin else "an unknown place"


# --------------------------------------------------------------------------------------------
# walks


def toposort(outputs: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """All nodes that `outputs` depend on, operands first, in a reproducible order.

    Nodes for which `stop` holds are listed, but not what they depend on.
    """
    order: list[Node] = []
    met: set[Node] = set()
    # None stands above a node that is done when all above it is
    stack: list[Node | None] = [*outputs]
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None:
            order.append(stack.pop())  # type: ignore[arg-type]
        elif node not in met:
            met.add(node)
            if node.dependencies and (stop is None or not stop(node)):
                stack += (node, None)
                stack += node.dependencies[::-1]
            else:
                order.append(node)
    return order


def users(order: Sequence[Node]) -> dict[Node, list[Node]]:
    """For every node of a toposorted list, the nodes that use it, once per use."""
    found: dict[Node, list[Node]] = {node: [] for node in order}
    for node in order:
        for dependency in node.dependencies:
            found[dependency].append(node)
    return found


def leaves(outputs: Iterable[Node]) -> list[Node]:
    """The nodes without inputs that `outputs` depend on."""
    return [n for n in toposort(outputs) if not n.inputs]
