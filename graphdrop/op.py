"""What an operation is: a name, a type rule and a gradient; never computation.

Also here, because calling an operation needs them: literals (`constant`, `size`) and `as_node`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeAlias, TypeVar, overload

import numpy as np

from .errors import ArgumentError, DTypeError, GraphdropError
from .graph import (
    NO_PARAMS,
    Node,
    Origin,
    Params,
    Typed,
    current_origin,
    format_origin,
    intern,
)
from .pattern import Pattern
from .types import (
    Dim,
    Size,
    TensorType,
    TupleType,
    Type,
    _checks,
    as_dtype,
    promote,
)

TypeRule: TypeAlias = Callable[..., Type]
# vjp(g, y, *inputs, **params) -> one node or None for each input
VjpRule: TypeAlias = Callable[..., Sequence["Node | None"]]
P = ParamSpec("P")
R = TypeVar("R")
# turns a user's call into operands and canonical params
Prepare: TypeAlias = Callable[..., "tuple[Sequence[Node], dict[str, Any]]"]

DEFAULT_FLOAT = np.dtype(np.float32)
# Python's numbers, which take the dtype of what they meet; by kind: which dtypes may be met
_WEAK: dict[type, str] = {bool: "biuf", int: "iuf", float: "f"}
DIGEST = 16  # bytes that stand for a literal's, where it has more
OPS: dict[str, Op] = {}


class Op:
    """An operation of the graph.  Calling it with nodes builds a node.

    name         unique; what tables, pictures and messages call it
    rule         type rule: operand types and params -> result type, or an error
    prepare      optional: a user's call -> (operand nodes, canonical params)
    vjp_rule     gradient as a graph expression; None: the op has no gradient
    selective    whether that rule is told for which inputs it is wanted
    elementwise  operands broadcast; gradients are summed back by the caller of `vjp_rule`
    view         the result may share memory with the first operand
    """

    def __init__(
        self, name: str, rule: TypeRule, *, elementwise: bool = False, view: bool = False
    ) -> None:
        if name in OPS:
            raise ArgumentError(f"an operation named {name!r} already exists")
        parameters = inspect.signature(rule).parameters.values()
        self.name = name
        self.rule = rule
        self.elementwise = elementwise
        self.view = view
        self.__doc__ = rule.__doc__
        self.operand_names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.param_names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.defaults = {
            p.name: p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }
        self.prepare_rule: Prepare | None = None
        self.vjp_rule: VjpRule | None = None
        self.selective = False
        OPS[name] = self

    def prepare(self, rule: Prepare) -> Prepare:
        """Decorator: `rule` turns a user's call into (operand nodes, canonical params)."""
        self.prepare_rule = rule
        return rule

    def vjp(self, rule: VjpRule) -> VjpRule:
        """Decorator: `rule(g, y, *inputs, **params)` gives the gradient for each input.

        An entry None means the result does not depend on that input in a differentiable way.
        """
        self.vjp_rule = rule
        return rule

    def selective_vjp(self, rule: VjpRule) -> VjpRule:
        """As `vjp`, of an op whose gradient is one node: the rule also gets `wanted`, a set with
        the inputs whose gradient is asked for, and what it makes reads nothing for the others.
        """
        self.vjp_rule, self.selective = rule, True
        return rule

    def __call__(self, *args: Any, **params: Any) -> Node:
        if Pattern in map(type, args):  # in a rewrite rule: operands and params in canonical form
            return Pattern("call", op=self, args=args, params=params)  # type: ignore[return-value]
        operands: Sequence[Node]
        try:
            if self.prepare_rule is not None:
                operands, params = self.prepare_rule(*args, **params)
            else:
                operands = [as_node(a) for a in args]
        except GraphdropError as error:
            raise self._explain(error, args) from None
        except TypeError:
            self._check_arguments(args, params)
            raise
        return self.make(tuple(operands), params)

    def _check_arguments(self, args: tuple[Any, ...], params: dict[str, Any]) -> None:
        """Raise if a call does not fit the signature, in words about the operation."""
        try:
            inspect.signature(self.prepare_rule or self.rule).bind(*args, **params)
        except TypeError as error:
            raise self._explain(ArgumentError(str(error)), args) from None

    def make(self, inputs: tuple[Node, ...], params: dict[str, Any] | None = None) -> Node:
        """The node for operands and params that are already in canonical form."""
        if self.param_names:
            return intern(self, inputs, MappingProxyType(self._complete(params or {})))
        if params:
            raise TypeError(f"{self.name} takes no parameters, got {sorted(params)}")
        return intern(self, inputs, NO_PARAMS)

    def _complete(self, params: dict[str, Any]) -> dict[str, Any]:
        if list(params) == self.param_names:
            return dict(params)
        full = {n: params.get(n, self.defaults.get(n, params)) for n in self.param_names}
        missing = [n for n, v in full.items() if v is params]
        unknown = set(params) - set(self.param_names)
        if missing or unknown:
            raise TypeError(
                f"{self.name} takes the parameters {self.param_names}; "
                f"missing {missing}, unknown {sorted(unknown)}"
            )
        return full

    def infer(self, inputs: tuple[Node, ...], params: Params) -> Typed:
        """What the type rule says of operands and params, or its error in the user's words."""
        pending: list[tuple[Size, Size]] = []
        token = _checks.set(pending)
        try:
            if not self.variadic and len(inputs) != len(self.operand_names):
                raise ArgumentError(
                    f"takes {len(self.operand_names)} operand(s) "
                    f"({', '.join(self.operand_names)}), got {len(inputs)}"
                )
            return self.rule(*[n.type for n in inputs], **params), tuple(pending)
        except GraphdropError as error:
            raise self._explain(error, inputs) from None
        finally:
            _checks.reset(token)

    def _explain(self, error: GraphdropError, args: Sequence[Any]) -> GraphdropError:
        return explain(self.name, error, args, current_origin())

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def explain(
    name: str, error: GraphdropError, args: Sequence[Any], origin: Origin, done: str = "built"
) -> GraphdropError:
    """The same error, naming operation, operand types and the user's line, where it was `done`."""
    if getattr(error, "explained", False):
        return error
    shown = ", ".join(repr(a) if isinstance(a, Node) else _brief(a) for a in args)
    new = type(error)(f"{name}({shown}): {error}\n  {done} at {format_origin(origin)}")
    new.explained = True  # type: ignore[attr-defined]
    return new


def composed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function made of operations: its errors read as those of an operation."""
    return _explained("built")(function)


def called(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function that builds no node: its errors say which call, on what and where."""
    return _explained("called")(function)


def _explained(done: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except GraphdropError as error:
                raise explain(function.__name__, error, args, current_origin(), done) from None

        return call

    return decorate


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


@overload
def op(rule: TypeRule) -> Op: ...
@overload
def op(*, view: bool = ..., name: str | None = ...) -> Callable[[TypeRule], Op]: ...
def op(rule: TypeRule | None = None, *, view: bool = False, name: str | None = None) -> Any:
    """Declare an operation from its type rule.

    Positional arguments of the rule are operand types, keyword-only ones are params; the docstring
    becomes the operation's.
    """
    if rule is None:
        return lambda r: Op(name or r.__name__, r, view=view)
    return Op(rule.__name__, rule)


# --------------------------------------------------------------------------------------------
# literals


class Literal:
    """A read-only array that hashes and compares by dtype, shape and bytes."""

    __slots__ = ("_hash", "array", "key")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = np.array(array, order="C", copy=True)
        self.array.flags.writeable = False
        said = self.array.tobytes()
        if len(said) > DIGEST:
            said = hashlib.blake2b(said, digest_size=DIGEST).digest()
        self.key = (self.array.dtype, self.array.shape, said)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key == other.key

    def __repr__(self) -> str:
        return _brief(self.array if self.array.ndim else self.array.item())


@op(name="constant")
def _constant(*, value: Literal) -> TensorType:
    """An array known when the graph is built; merged by dtype, shape and bytes."""
    return TensorType(value.array.dtype, value.array.shape)


def as_literal(value: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """An array of a supported dtype from a scalar, array or nested list.

    Python floats become float32 unless `dtype` says otherwise; NumPy data keep their dtype.
    """
    weak = not isinstance(value, (np.ndarray, np.generic))
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Node, Dim)) for v in value):
        raise ArgumentError("a list of nodes is no array; join them with gd.stack")
    if isinstance(value, Dim):
        raise ArgumentError(f"the size {value} is symbolic; use it as it is, or gd.as_node(size)")
    try:
        # NumPy would parse text, take None for NaN, and make objects of huge integers
        number = dtype is not None and isinstance(value, (int, float))
        if weak and not number and np.asarray(value).dtype.kind in "OSU":
            raise TypeError("give numbers, integers of at most 64 bits")
        array = np.asarray(value, dtype=dtype)
    except (OverflowError, TypeError, ValueError) as error:
        raise DTypeError(f"{_brief(value)} cannot become {dtype or 'an array'}: {error}") from None
    if weak and dtype is None and array.dtype == np.float64:
        array = array.astype(DEFAULT_FLOAT)
    return array.astype(as_dtype(array.dtype), copy=False)


def constant(value: Any, dtype: Any = None) -> Node:
    """A constant node of a scalar, array or nested list; see `as_literal`."""
    if isinstance(value, Node):
        raise ArgumentError(f"{value!r} is a node already, not a constant's value")
    plain = type(value) in _WEAK and (dtype is None or type(dtype) is np.dtype)
    literal = _number(value, repr(value), dtype) if plain else Literal(as_literal(value, dtype))
    return intern(_constant, (), MappingProxyType({"value": literal}))


@functools.lru_cache(maxsize=1024, typed=True)
def _number(value: Any, text: str, dtype: np.dtype[Any] | None) -> Literal:
    """The literal of a Python number, of which a model has few; `text` tells 0.0 from -0.0."""
    return Literal(as_literal(value, dtype))


@op
def size(*, size: Size) -> TensorType:
    """The run-time value of a symbolic size, an int64 scalar."""
    return TensorType(np.dtype(np.int64), ())


@op
def get(source: TupleType, *, index: int) -> TensorType:
    """One result of an operation that has several."""
    return source.items[index]


def split(node: Node) -> tuple[Node, ...]:
    """The results of an operation that has several."""
    assert isinstance(node.type, TupleType), node
    return tuple(get.make((node,), {"index": i}) for i in range(len(node.type.items)))


def constant_value(node: Node) -> np.ndarray[Any, Any] | None:
    """The array of a constant node; None for any other node."""
    if node.op is not _constant:
        return None
    literal: Literal = node.params["value"]
    return literal.array


def as_node(value: Any, dtype: Any = None) -> Node:
    """The node of a node, a symbolic size, a scalar or an array."""
    if isinstance(value, Node):
        return value
    if isinstance(value, Dim):
        return size.make((), {"size": value})
    return constant(value, dtype)


def promoted(*values: Any) -> np.dtype[Any]:
    """The common dtype of nodes and values; Python scalars and sizes are weak."""
    dtype = next((v.dtype for v in values if isinstance(v, Node)), None)
    if dtype is not None:
        for v in values:
            if (
                v.dtype is not dtype
                if isinstance(v, Node)
                else dtype.kind not in _WEAK.get(type(v), "")
            ):
                break
        else:
            return dtype  # what nearly all calls come to
    kinds: list[Any] = []
    for v in values:
        if isinstance(v, Node):
            kinds.append(v.dtype)
        elif isinstance(v, Dim):
            kinds.append(1)
        elif isinstance(v, (np.ndarray, np.generic)):
            kinds.append(as_dtype(v.dtype))
        elif isinstance(v, (bool, int, float)):
            kinds.append(type(v)(1))
        else:
            kinds.append(constant(v).dtype)
    if all(isinstance(k, (bool, int, float)) for k in kinds):
        return max((constant(k).dtype for k in kinds), key=lambda d: "biuf".index(d.kind))
    return promote(*kinds)
