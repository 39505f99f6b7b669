"""The rewrite engine: named rules under patterns, run bottom-up until none fires.

A rule is a small function that gives a better node for the nodes its patterns fit, or None:

    @rule(log(exp(x)))
    def log_of_exp(x): return x

The rules that exist, and their order, are in `rules/`.  Values agree with the graph as built: bit
for bit under rules with `exact=True` (but for which NaN a NaN is), to rounding and with more range
under the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import RewriteError
from .graph import Node, Origin, format_origin, origin_scope, toposort
from .op import Literal, Op, _constant, constant, constant_value
from .ops import elementwise as e
from .ops.operators import install_on
from .ops.shape import broadcast_to
from .pattern import Head, Pattern, variants
from .substitute import rebuild, size_of_value
from .types import Atom, Size

install_on(Pattern)  # patterns are written with the operators of nodes

COMMUTATIVE = frozenset({
    e.add, e.mul, e.maximum, e.minimum, e.equal, e.not_equal, e.logical_and, e.logical_or,
    e.logical_xor, e.bitwise_and, e.bitwise_or, e.bitwise_xor,
})  # fmt: skip
UNIFORM_LIMIT = 1024  # larger constants are not searched for being one value
HEADS = 3  # operands whose operations choose the rules to try
FIRES_PER_NODE, FIRES_AT_LEAST = 50, 1000  # rules fired beyond this do not end
ROUNDS = 1000  # likewise changes of loops, one after the other

# --------------------------------------------------------------------------------------------
# what rules ask and build


def scalar_of(node: Node) -> np.ndarray[Any, Any] | None:
    """The one value that all elements of a node are known to have, as a 0-d array; else None."""
    while node.op is broadcast_to:
        node = node.inputs[0]
    array = constant_value(node)
    if array is None or array.ndim == 0:
        return array
    if not 0 < array.size <= UNIFORM_LIMIT:
        return None
    first = array.reshape(-1)[:1]
    # bytes, because 0.0 == -0.0 and nan != nan
    return first.reshape(()) if array.tobytes() == first.tobytes() * array.size else None


def is_number(node: Node, value: Any) -> bool:
    """Whether all elements are the number `value`, with its sign if it is a zero.

    True and False are not numbers here but the bools that they are.
    """
    found = scalar_of(node)
    if found is None or isinstance(value, bool) != (found.dtype.kind == "b"):
        return False
    same_sign = found.dtype.kind != "f" or bool(np.signbit(found) == np.signbit(float(value)))
    return bool(found.item() == value) and same_sign


def scalar(value: Any, like: Node) -> Node:
    """A constant scalar of the dtype of `like`."""
    return constant(np.asarray(value, like.dtype))


def full(value: Any, like: Node) -> Node:
    """`value` in the dtype and shape of `like`."""
    return fit(scalar(value, like), like)


def fit(node: Node, like: Node) -> Node:
    """`node` broadcast to the shape of `like`."""
    return node if node.shape == like.shape else broadcast_to(node, like.shape)


# --------------------------------------------------------------------------------------------
# rules


@dataclass(frozen=True, eq=False)
class Rule:
    """One rewrite.

    name       for traces and tests
    patterns   what it fits, commutative operands in every order
    function   gets the variables it names (`node` is the whole) and returns a node or None
    exact      results are equal bit for bit, but for the payload and sign of a NaN
    """

    name: str
    patterns: tuple[Pattern, ...]
    function: Callable[..., Node | None]
    exact: bool
    wanted: tuple[str, ...]

    def apply(self, node: Node, pattern: Pattern) -> Node | None:
        """The replacement of `node`, if the pattern fits and the function gives one."""
        found: dict[str, Any] = {}
        if pattern.kind != "any" and not match(pattern, node, found):
            return None
        found["node"] = node
        with origin_scope(node.origin):
            return self.function(*[found[name] for name in self.wanted])

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def rule(*patterns: Any, exact: bool = True) -> Callable[[Callable[..., Node | None]], Rule]:
    """Decorator: the function under some patterns, which all have the variables that it names."""

    def make(function: Callable[..., Node | None]) -> Rule:
        every = tuple(v for p in patterns for v in variants(p, COMMUTATIVE.__contains__))
        wanted = tuple(inspect.signature(function).parameters)
        return Rule(function.__name__, every, function, exact, wanted)

    return make


def match(pattern: Any, node: Node, found: dict[str, Any]) -> bool:
    """Whether the node fits; `found` gets what the variables stand for."""
    if type(pattern) is not Pattern:
        return is_number(node, pattern)
    if pattern.op is None:
        if pattern.name in found:
            return found[pattern.name] is node
        if pattern.kind == "number" and scalar_of(node) is None:
            return False
        if pattern.test is not None and not pattern.test(node):
            return False
        found[pattern.name] = node
        return True
    if node.op is not pattern.op:
        return False
    for key, value in pattern.params.items():
        if not _match_param(value, node.params[key], found):
            return False
    if len(pattern.args) != len(node.inputs) and ... not in pattern.args:
        return False
    for arg, operand in zip(pattern.args, node.inputs, strict=False):
        if arg is ...:
            return True
        if not match(arg, operand, found):
            return False
    return True


def _match_param(pattern: Any, value: Any, found: dict[str, Any]) -> bool:
    """Whether a parameter fits: is equal, or may be what a variable stands for."""
    if type(pattern) is not Pattern:
        return bool(pattern == value)
    return bool(found.setdefault(pattern.name, value) == value)


# --------------------------------------------------------------------------------------------
# which rules to try


def _number_key(value: Any) -> Any:
    """One key for equal numbers of all dtypes; True and False, 0.0 and -0.0 have their own."""
    return (type(value) is bool, value, str(value)[:1] == "-")


class _Index:
    """Which rules to try on a node, from its operation and its first operands."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = [(r, p) for r in rules for p in r.patterns]
        self.numbers = {_number_key(n) for _, p in self.rules for n in _numbers_in(p)}
        self.heads: dict[tuple[Any, ...], Head] = {}
        self.of_op: dict[Op, list[tuple[Rule, Pattern]]] = {}
        self.known: dict[tuple[Any, ...], tuple[tuple[Rule, Pattern], ...]] = {}

    def head(self, node: Node) -> Head:
        """What the choice of rules for a node's users depends on."""
        if node.op is not _constant and node.op is not broadcast_to:
            return self.heads.get((node.op,)) or self._head((node.op,), Head(node.op, False, None))
        value, number = scalar_of(node), None
        if value is not None:
            number = _number_key(value.item())
            number = number if number in self.numbers else "other"
        bare = node.op is _constant and not node.ndim
        key = (node.op, bare, number)
        return self.heads.get(key) or self._head(key, Head(*key))

    def _head(self, key: tuple[Any, ...], head: Head) -> Head:
        return self.heads.setdefault(key, head)  # another thread may have made it meanwhile

    def candidates(self, node: Node, heads: dict[Node, Head]) -> tuple[tuple[Rule, Pattern], ...]:
        """The rules, with the pattern of each, that may fit; in the order of the rules."""
        first = node.inputs[:HEADS]
        # whether two operands are one node
        repeated = len(first) > 1 and (first[0] is first[1] or first[-1] in first[:-1])
        known = (*[heads[i] for i in first],)
        key = (node.op, repeated, known)
        found = self.known.get(key)
        if found is None:
            rules = self._of_op(node.op)
            found = tuple((r, p) for r, p in rules if _may_fit(p, node.op, repeated, known))
            self.known[key] = found
        return found

    def _of_op(self, op: Op) -> list[tuple[Rule, Pattern]]:
        found = self.of_op.get(op)
        if found is None:
            found = [(r, p) for r, p in self.rules if p.kind == "any" or p.op is op]
            self.of_op[op] = found
        return found


def _numbers_in(pattern: Any) -> Iterator[Any]:
    if not isinstance(pattern, Pattern):
        yield from () if pattern is ... else (pattern,)
        return
    for arg in pattern.args:
        yield from _numbers_in(arg)


def _may_fit(pattern: Pattern, op: Op, repeated: bool, heads: tuple[Head, ...]) -> bool:
    if pattern.kind == "any":
        assert pattern.test is not None
        return pattern.test(op, heads)
    if pattern.repeats and not repeated:
        return False
    return all(_head_fits(a, h) for a, h in zip(pattern.args, heads, strict=False))


def _head_fits(pattern: Any, head: Head) -> bool:
    if pattern is ...:
        return True
    if not isinstance(pattern, Pattern):
        return bool(head.number == _number_key(pattern))
    if pattern.op is not None:
        return pattern.op is head.op
    return pattern.kind == "var" or head.number is not None


@lru_cache(maxsize=64)
def _index(rules: tuple[Rule, ...]) -> _Index:
    return _Index(rules)


# --------------------------------------------------------------------------------------------
# traces


@dataclass(frozen=True)
class Fired:
    """One rule that fired: in which phase, on which node, and what it gave."""

    phase: str
    rule: str
    before: Node
    after: Node
    origin: Origin

    def __str__(self) -> str:
        before, after = expression(self.before), expression(self.after)
        where = format_origin(self.origin)
        return f"{self.phase:10} {self.rule:24} {before}  ->  {after}  [{where}]"


class Trace(list[Fired]):
    """The rules that fired, in order; one line each when printed."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def expression(node: Node, depth: int = 4) -> str:
    """A node in one line: "log(add(x, 1))"; deeper than `depth` are dots."""
    value = constant_value(node)
    if value is not None:
        return repr(Literal(value)) if value.size <= 4 else f"constant {node.type}"
    if not node.inputs:
        return node.name or (str(size_of_value(node)) if "size" in node.params else node.op.name)
    if not depth:
        return "..."
    shown = [expression(i, depth - 1) for i in node.inputs[:HEADS]]
    if len(node.inputs) > HEADS:
        shown.append("...")
    return f"{node.op.name}({', '.join(shown)})"


# --------------------------------------------------------------------------------------------
# running


def optimize(
    outputs: Iterable[Node], phases: Mapping[str, Sequence[Rule]]
) -> tuple[list[Node], Trace]:
    """`outputs` rewritten by the rules of one phase after the other, and which rules fired."""
    nodes, trace = list(outputs), Trace()
    for phase, rules in phases.items():
        nodes = _Pass(phase, tuple(rules), trace).run(nodes)
    return nodes, trace


class _Pass:
    """One phase over one graph.

    Nodes are settled operands first.  Patterns look at operands only, so a node that no rule
    changes, on settled operands, stays settled: one walk reaches the fixpoint.
    """

    def __init__(self, phase: str, rules: tuple[Rule, ...], trace: Trace) -> None:
        self.phase = phase
        self.index = _index(rules)
        self.trace = trace
        self.settled: dict[Node, Node] = {}
        self.heads: dict[Node, Head] = {}  # of the nodes that are settled as they are
        self.pending: dict[Node, Node] = {}  # node -> what it becomes, once that is settled
        self.sizes: dict[Atom, Size] = {}
        self.fired = self.limit = 0

    def run(self, outputs: list[Node]) -> list[Node]:
        order = toposort(outputs)
        self.limit = FIRES_AT_LEAST + FIRES_PER_NODE * len(order)
        for node in order:
            if node not in self.settled:
                self._visit(node)
                self._settle(node)
        return [self.settled[n] for n in outputs]

    def _settle(self, root: Node) -> None:
        """Settle a node, and before it what it depends on and what it becomes."""
        settled, pending = self.settled, self.pending
        stack = [root]
        while stack:
            node = stack[-1]
            if node in settled:
                stack.pop()
            elif node in pending:
                if pending[node] in settled:
                    settled[node] = settled[pending.pop(node)]
                else:
                    stack.append(pending[node])
            elif missing := [d for d in node.dependencies if d not in settled]:
                if any(d in pending for d in missing):
                    raise self._endless()  # it waits for what it will itself become
                stack.extend(reversed(missing))
            else:
                self._visit(node)

    def _visit(self, node: Node) -> None:
        """Settle a node whose dependencies are settled, or find what it becomes."""
        current = self._rebuilt(node)
        if current in self.pending:
            raise self._endless()
        if current not in self.settled:
            new = self._fire(current)
            if new is current:
                self.settled[current] = current
                self.heads[current] = self.index.head(current)
            elif new in self.pending:
                raise self._endless()
            else:
                self.pending[current] = new
        if current is not node:
            self.pending[node] = current

    def _rebuilt(self, node: Node) -> Node:
        settled = self.settled
        if node.size_inputs:
            return rebuild(node, settled, self.sizes)
        for i in node.inputs:
            if settled[i] is not i:
                return rebuild(node, settled, self.sizes)
        return node

    def _fire(self, node: Node) -> Node:
        """What the first rule that fires makes of a node; the node itself if none does."""
        if node.size_inputs and node.checks:
            return node  # sizes that are values are checked where the node is computed
        for candidate, pattern in self.index.candidates(node, self.heads):
            found = candidate.apply(node, pattern)
            if found is not None and found is not node:
                self._record(candidate, node, found)
                return found
        return node

    def _record(self, fired: Rule, before: Node, after: Node) -> None:
        if after.type != before.type:
            raise RewriteError(
                f"the rule {fired.name} made {after.type} of {before.type}: "
                f"{expression(before)} -> {expression(after)}; a rule keeps dtype and shape"
            )
        self.trace.append(Fired(self.phase, fired.name, before, after, before.origin))
        self.fired += 1
        if self.fired > self.limit:
            raise self._endless()

    def _endless(self) -> RewriteError:
        return _endless(f"the phase {self.phase}", self.fired, self.trace)


def rounds(trace: Trace) -> Iterator[None]:
    """For what is done until nothing changes any more: an error if that does not end."""
    for _ in range(ROUNDS):
        yield
    raise _endless("what is done to loops", ROUNDS, trace)


def _endless(what: str, count: int, trace: Trace) -> RewriteError:
    last = ", ".join(dict.fromkeys(f.rule for f in trace[-20:]))
    return RewriteError(
        f"{what} does not end: {count} rewrites, the last by {last}; a rule undoes another, or "
        f"rewrites its own result"
    )
