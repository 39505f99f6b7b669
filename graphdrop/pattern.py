"""Patterns: expressions with holes, written by calling operations on variables.

`log(1 + exp(x))` with `x = var("x")` is a Pattern that rewrite rules are declared with; the engine
in `rewrite.py` finds the nodes that fit.  Below `op.py`, so that operations know a pattern when
they are called with one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .graph import Node
    from .op import Op
    from .ops.operators import Operators  # at run time ops/operators.py adds these
else:

    class Operators:
        __slots__ = ()


NodeTest = Callable[["Node"], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What is known of an operand before matching.

    op      the operation
    scalar  whether it is a leaf without axes
    number  of a constant with one value: a key of that value if some pattern has it, else "other"

    One object for all operands alike.
    """

    op: Op
    scalar: bool
    number: Any


# (op, what is known of its first operands) -> whether a rule should look at such nodes
OpTest = Callable[["Op", tuple[Head, ...]], bool]


class Pattern(Operators):
    """An operation on patterns, or a variable.

    kind    "call", "var" (any node), "number" (a constant with one value), "any" (any operation)
    name    of a variable: equal names stand for one node, or for one parameter value
    op      what is called
    args    patterns and Python scalars; a final `...` stands for any further operands
    params  parameters that must be equal; a variable takes the parameter's value
    test    what else must hold: of a variable's node, or of "any" as an `OpTest`
    repeats whether one variable is two operands
    """

    __slots__ = ("args", "kind", "name", "op", "params", "repeats", "test")

    def __init__(
        self,
        kind: str,
        name: str = "",
        op: Op | None = None,
        args: tuple[Any, ...] = (),
        params: Mapping[str, Any] | None = None,
        test: Callable[..., bool] | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.op = op
        self.args = args
        self.params = dict(params or {})
        self.test = test
        names = [a.name for a in args if isinstance(a, Pattern) and a.op is None]
        self.repeats = len(set(names)) < len(names)

    def __bool__(self) -> bool:
        raise TypeError(f"the pattern {self} has no truth value")

    def __repr__(self) -> str:
        if self.op is None:
            return self.name
        shown = ["..." if a is ... else str(a) for a in self.args]
        return f"{self.op.name}({', '.join(shown + [f'{k}={v}' for k, v in self.params.items()])})"


def var(name: str, test: NodeTest | None = None) -> Any:
    """A variable that stands for any node, or for any for which `test` holds."""
    return Pattern("var", name, test=test)


def number(name: str) -> Any:
    """A variable that stands for a constant all of whose elements are equal."""
    return Pattern("number", name)


def any_op(name: str, test: OpTest) -> Any:
    """A whole pattern that stands for all nodes whose operation and operands' `test` accepts.

    The answer is remembered for all nodes with this operation and such operands.
    """
    return Pattern("any", name, test=test)


def variants(pattern: Any, commutative: Callable[[Op], bool]) -> Iterator[Any]:
    """The pattern with the operands of commutative operations in every order."""
    if not isinstance(pattern, Pattern) or pattern.op is None:
        yield pattern
        return
    for args in product(*(list(variants(a, commutative)) for a in pattern.args)):
        yield Pattern("call", op=pattern.op, args=args, params=pattern.params)
        if commutative(pattern.op) and args[0] is not args[1]:
            yield Pattern("call", op=pattern.op, args=args[::-1], params=pattern.params)
