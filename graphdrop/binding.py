"""Arguments of a call: matched to inputs, checked, and their sizes bound to the symbolic ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import is_on_device, layout_of, to_host
from .errors import GraphdropError, InputError, ShapeError
from .graph import Node, Origin, format_origin
from .op import explain
from .types import Atom, Size, atoms_of, evaluate, plain_atom

SIZES_KEPT = 1024  # sets of sizes whose checks are remembered as passed


class Binder:
    """Checks the arguments of one compiled function.

    inputs     the function's inputs
    order      the toposorted graph as the user built it: its size checks hold at every call
    origin     where the user compiled the function
    to_device  makes of an array on a device one that the backend takes
    atoms      the symbolic sizes that the inputs fix, in the order of the values `bind` returns
    sized      those of them that the rest of the graph has
    """

    def __init__(
        self, inputs: Sequence[Node], order: Sequence[Node], origin: Origin,
        to_device: Callable[[Any], Any],
    ) -> None:  # fmt: skip
        self.inputs = list(inputs)
        self.origin, self.to_device = origin, to_device
        self.names = {n.name: i for i, n in enumerate(inputs) if n.name}
        axes = [(plain_atom(s), i, a) for i, n in enumerate(inputs) for a, s in enumerate(n.shape)]
        # where the value of each atom is read: the first input axis that is just that atom
        self.source: dict[Atom, tuple[int, int]] = {}
        for atom, i, a in axes:
            if atom is not None:
                self.source.setdefault(atom, (i, a))
        self.atoms = tuple(self.source)
        self._read = tuple(self.source.values())
        self.dtypes = [n.dtype for n in inputs]
        self.ranks = [n.ndim for n in inputs]
        self.checks = [(a, b, n) for n in order for a, b in n.checks if self._static((a, b))]
        self._passed: OrderedDict[tuple[int, ...], tuple[Any, ...]] = OrderedDict()
        self.sized = self._sized(order)

    def _static(self, sizes: Sequence[Size]) -> bool:
        return all(a in self.source for a in atoms_of(sizes))

    def _sized(self, order: Sequence[Node]) -> set[Atom]:
        """The sizes that the graph has, its inputs left out; an input must fix each."""
        found: set[Atom] = set()
        inputs = set(self.inputs)
        for node in order:
            shape = getattr(node.type, "shape", ())
            for atom in atoms_of([*shape, *node.params.values()]):
                if atom.kind != "value" and atom not in self.source:
                    raise InputError(
                        f"the size {atom} of {node!r} (built at {format_origin(node.origin)}) is "
                        f"not fixed by any input; declare an input whose shape has it"
                    )
                if node not in inputs:
                    found.add(atom)
        return found

    def unused(self, known: Iterable[Node]) -> list[Node]:
        """The inputs that are not among the known ones and fix no size besides those of these."""
        known = set(known)
        fixed = {a for n in self.inputs if n in known for a in map(plain_atom, n.shape)}
        missing = self.sized - fixed
        return [
            n for n in self.inputs
            if n not in known and missing.isdisjoint(map(plain_atom, n.shape))
        ]  # fmt: skip

    def bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], name: str
    ) -> tuple[list[Any], tuple[int, ...]]:
        """Arrays for the inputs, and the values of `atoms`; `name` is the function's."""
        try:
            return self._bind(args, kwargs)
        except GraphdropError as error:
            raise explain(name, error, self.inputs, self.origin, "compiled") from None

    def _bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], tuple[int, ...]]:
        values = self._arrange(args, kwargs) if kwargs or len(args) != len(self.inputs) else args
        arrays = [
            v if type(v) is np.ndarray and v.dtype == d and v.ndim == r else self._convert(i, v)
            for i, (v, d, r) in enumerate(zip(values, self.dtypes, self.ranks, strict=True))
        ]
        sizes = tuple([arrays[i].shape[a] for i, a in self._read])
        shapes = tuple([a.shape for a in arrays])
        if self._passed.get(sizes) != shapes:
            self._check(arrays, sizes)
            self._passed[sizes] = shapes
            while len(self._passed) > SIZES_KEPT:
                self._passed.popitem(last=False)
        return arrays, sizes

    def _arrange(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        if len(args) > len(self.inputs):
            raise InputError(
                f"takes {len(self.inputs)} input(s), got {len(args)}; shared values and givens "
                f"are no arguments"
            )
        missing = object()
        values: list[Any] = [*args, *[missing] * (len(self.inputs) - len(args))]
        for key, value in kwargs.items():
            if key not in self.names:
                raise InputError(
                    f"there is no input called {key!r}; those with names are "
                    f"{', '.join(self.names) or 'none'}"
                )
            if values[self.names[key]] is not missing:
                raise InputError(
                    f"the input {key!r} is given twice; give it by position or by name"
                )
            values[self.names[key]] = value
        absent = [_declared(n) for n, v in zip(self.inputs, values, strict=True) if v is missing]
        if absent:
            raise InputError(
                f"called without {', '.join(absent)}; give one argument for each input"
            )
        return values

    def _convert(self, index: int, value: Any) -> Any:
        """An array for one input from something that is not quite one."""
        node = self.inputs[index]
        what = f"the input {_declared(node)}"
        if isinstance(value, Node):
            raise InputError(f"{what} got the symbolic {value!r}; call it with arrays")
        if is_on_device(value) and layout_of(value) == (node.dtype, tuple(value.shape)):
            return self._checked(node, self.to_device(value), what)
        value = to_host(value) if is_on_device(value) else value
        try:
            # Python scalars and lists have no dtype of their own; arrays do
            array = np.asarray(value) if hasattr(value, "dtype") else np.asarray(value, node.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{what} cannot be made from {type(value).__name__}: {error}"
            ) from None
        if not hasattr(value, "dtype"):
            self._check_weak(node, value, what)
        if array.dtype != node.dtype:
            if not np.can_cast(array.dtype, node.dtype, "safe"):
                raise InputError(
                    f"{what} got {array.dtype} values; convert them with "
                    f"array.astype({node.dtype.name!r}), or declare another dtype"
                )
            array = array.astype(node.dtype)
        return self._checked(node, array, what)

    def _checked(self, node: Node, array: Any, what: str) -> Any:
        if array.ndim != node.ndim:
            raise InputError(
                f"{what} takes {node.ndim} axes, got an array of shape {array.shape}; reshape it, "
                f"or declare another number of axes"
            )
        return array

    def _check_weak(self, node: Node, value: Any, what: str) -> None:
        """Python numbers become any dtype that holds their kind: no floats into integers."""
        given = np.asarray(value)
        kinds = {"b": 0, "i": 1, "u": 1, "f": 2}
        if given.dtype.kind not in kinds:
            raise InputError(f"{what} got {type(value).__name__}; give numbers or an array")
        if given.size and kinds[given.dtype.kind] > kinds[node.dtype.kind]:
            raise InputError(
                f"{what} got {given.dtype} values, which would be cut off; convert them with "
                f"np.array(values, {node.dtype.name!r}) if that is meant"
            )

    def _check(self, arrays: Sequence[Any], sizes: tuple[int, ...]) -> None:
        """Every declared and derived size against the arrays at hand."""
        env = dict(zip(self.atoms, sizes, strict=True))
        for node, array in zip(self.inputs, arrays, strict=True):
            for axis, declared in enumerate(node.shape):
                if self._static([declared]) and evaluate(declared, env) != array.shape[axis]:
                    self._explain(node, axis, declared, array.shape[axis], env)
        for a, b, node in self.checks:
            if evaluate(a, env) != evaluate(b, env):
                error = ShapeError(
                    f"needs {self._show(a, env)} and {self._show(b, env)} to be equal (only a size "
                    f"declared as 1 broadcasts); call with arrays that fit"
                )
                raise explain(node.op.name, error, node.inputs, node.origin)

    def _show(self, size: Size, env: Mapping[Atom, int]) -> str:
        return str(size) if isinstance(size, int) else f"{size} = {evaluate(size, env)}"

    def _explain(
        self, node: Node, axis: int, declared: Size, got: int, env: Mapping[Atom, int]
    ) -> None:
        here = f"{_label(node)} (axis {axis})"
        advice = "call with arrays that fit, or declare the size by another name or as None"
        atom = plain_atom(declared)
        if atom is None:
            raise ShapeError(
                f"{here} must have size {self._show(declared, env)}, got {got}; {advice}"
            )
        i, a = self.source[atom]
        first = f"{_label(self.inputs[i])} (axis {a})"
        raise ShapeError(f"dim '{atom}' is {env[atom]} in {first} but {got} in {here}; {advice}")


def _label(node: Node) -> str:
    return node.name or repr(node)


def _declared(node: Node) -> str:
    return f"{node!r} (declared at {format_origin(node.origin)})"
