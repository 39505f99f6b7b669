"""Graphs as text: `dprint`, and the words that pictures (`viz`) share with it."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import tree
from .bodies import inner_nodes
from .errors import ArgumentError
from .function import Function
from .graph import Node, format_origin, toposort
from .op import Literal, constant_value, size
from .ops import random as draws
from .ops.leaf import Shared
from .ops.leaf import _input as input_op
from .replay import operand
from .scan import scan_op
from .substitute import Body
from .types import TensorType

MAX_LEVEL = 40  # trees nested deeper go on in a tree of their own, or indents would fill memory
WHAT = ("graph", "source", "trace", "program")


def dprint(obj: Any, what: str = "graph", file: Any = None, *, origin: bool = False) -> str | None:
    """Print a graph as an indented tree, operands under what uses them (Theano's debugprint).

    obj     a node, nodes in lists, tuples and dicts, or a compiled function
    what    "graph": the nodes; of a function, what its backend compiled.  "source": what was
            built, after givens and before rewrites.  "trace": the rewrites that fired.
            "program": the steps that its backend takes
    file    where to print, standard output by default; "str" returns the text instead
    origin  whether every line ends with the file and line that built the node

    A value with several uses is printed once, with a number; later uses name the number.  Draws
    show their site (name or number), rate, shared axes and stream; a constant training flag that
    is true is left out.
    """
    if what in ("trace", "program"):
        text = _text_of(obj, what)
    else:
        text = _forest(roots_of(obj, what), origin)
    if isinstance(file, str):
        if file != "str":
            raise ArgumentError(f"file must be 'str' or something with write(), got {file!r}")
        return text
    print(text, end="", file=sys.stdout if file is None else file)
    return None


def _text_of(obj: Any, what: str) -> str:
    if not isinstance(obj, Function):
        raise ArgumentError(f"only a compiled function has a {what}, got {obj!r}")
    if what == "program":
        return obj.executable.listing("program") + "\n"
    return "".join(f"{record}\n" for record in obj.trace) or "no rewrites fired\n"


# --------------------------------------------------------------------------------------------
# what a tree or a picture starts from


@dataclass(frozen=True)
class Root:
    """A node that is asked for, what to call it, and the shared value it updates, if any."""

    label: str
    node: Node
    updated: Shared | None = None


def roots_of(obj: Any, what: str = "graph") -> list[Root]:
    """The outputs and updates of a node, of nodes in containers, or of a compiled function."""
    if what not in ("graph", "source"):
        raise ArgumentError(f"what must be one of {', '.join(map(repr, WHAT))}, got {what!r}")
    if not isinstance(obj, Function):
        nodes, structure = tree.flatten(obj)
        for node in nodes:
            if not isinstance(node, Node):
                raise ArgumentError(f"takes nodes or a compiled function, got {node!r}")
        return _labelled(structure, nodes, "")
    targets = obj.graph.outputs if what == "graph" else obj.built
    count = len(targets) - len(obj.updated)
    updates = zip(obj.updated, targets[count:], strict=True)
    return [
        *_labelled(obj.structure, targets[:count], "output"),
        *(Root(f"{title(s)} <-", n, s) for s, n in updates),
    ]


def _labelled(structure: Any, nodes: Sequence[Node], label: str) -> list[Root]:
    numbers = tree.unflatten(structure, range(len(nodes))) if nodes else None
    return [Root(path, nodes[i]) for path, i in _paths(numbers, label)]


def _paths(item: Any, path: str) -> list[tuple[str, int]]:
    if isinstance(item, dict):
        parts = [(f"[{k!r}]", v) for k, v in item.items()]
    elif isinstance(item, (list, tuple)):
        parts = [(f"[{i}]", v) for i, v in enumerate(item)]
    else:
        return [] if item is None else [(path, item)]
    return [found for key, value in parts for found in _paths(value, path + key)]


# --------------------------------------------------------------------------------------------
# the words for one node


def shown(text: str) -> str:
    """A user's text with whatever does not print (controls, line ends, bidi marks) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_draw(node: Node) -> bool:
    """Whether the node draws random numbers."""
    return "key" in node.op.operand_names


def kind_of(node: Node) -> str:
    """'input', 'shared', 'constant', 'stream', 'dropout', 'random' or 'op'."""
    if isinstance(node, Shared):
        return "shared"
    if node.op is input_op:
        return "input"
    if node.op is size or constant_value(node) is not None:
        return "constant"
    if node.op is draws.random_key:
        return "stream"
    if is_draw(node):
        return "dropout" if node.op is draws.dropout else "random"
    return "op"


def title(node: Node) -> str:
    """What a node is called in a tree or a picture: its name, its value, or its operation."""
    array = constant_value(node)
    if array is not None:
        return shown(str(array)) if array.ndim == 0 else "constant"
    if node.op is size:
        return str(node.params["size"])
    if not node.inputs and "name" in node.params:
        return shown(node.params["name"]) if node.params["name"] else f"unnamed {kind_of(node)}"
    return node.op.name


def site_of(node: Node) -> str:
    """The name of a draw's site in quotes, or 'site' and its number."""
    name = node.params["name"]
    return repr(shown(name)) if name else f"site {node.params['site']}"


def rate_of(node: Node) -> float | None:
    """The share that a dropout or a mask drops: T / 65536; None if it is known at the call only."""
    known = constant_value(operand(node, "threshold"))
    return None if known is None else int(known) / draws.STEPS


def details(node: Node) -> list[str]:
    """The params of a node as short texts; of a draw its site, rate, stream and the like."""
    kind = kind_of(node)
    if kind in ("input", "shared"):
        return [kind]
    if kind == "constant":
        return ["size"] if node.op is size else []
    if kind == "stream":
        return [f"seed={node.params['stream'].seed}"]
    words: list[str] = []
    skipped = {key for key, value in node.params.items() if isinstance(value, Body)}
    if skipped:
        skipped.add("values")
        inside = [n for n in inner_nodes([node]) if is_draw(n)]
        words += [f"draws {site_of(n)}" for n in dict.fromkeys(inside)]
    if is_draw(node):
        words, skipped = [site_of(node)], {"site", "name"}
        if "threshold" in node.op.operand_names:
            rate = rate_of(node)
            if rate is not None:
                words.append(f"rate={rate:.4g} ({round(rate * draws.STEPS)}/{draws.STEPS})")
        key = operand(node, "key")
        if key.op is draws.random_key:  # inside a loop it is captured
            words.append(f"stream(seed={key.params['stream'].seed})")
        if node.params.get("scaled") is False:
            words.append("unscaled")
        skipped.add("scaled")
    return words + [
        f"{key}={format_param(value)}"
        for key, value in node.params.items()
        # what is off or empty says nothing: keepdims=False, shared=()
        if key not in skipped and not (value is False or value is None or value == ())
    ]


def format_param(value: Any) -> str:
    """A param in one line that is the same in every process: no addresses."""
    if isinstance(value, str):
        return repr(shown(value))
    if isinstance(value, (tuple, list)):
        ends = "()" if isinstance(value, tuple) else "[]"
        comma = "," if len(value) == 1 and ends == "()" else ""
        return f"{ends[0]}{', '.join(map(format_param, value))}{comma}{ends[1]}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {format_param(v)}' for k, v in value.items())}}}"
    if callable(value) and hasattr(value, "__name__"):
        return shown(str(value.__name__))
    if isinstance(value, (np.dtype, np.generic, Literal, TensorType)):
        return str(value)
    text = repr(value)
    return shown(text) if " at 0x" not in text else f"<{type(value).__name__}>"


def operands_of(node: Node) -> list[tuple[str, Node]]:
    """The operands worth showing, with their names where these help, then nodes that give sizes.

    Draws leave out their key, and whatever `details` has said already.
    """
    if is_draw(node):
        pairs = zip(node.op.operand_names, node.inputs, strict=True)
        found = [
            ("" if name == "x" else name, i)
            for name, i in pairs
            if name != "key" and not _said(name, i)
        ]
    else:
        found = [("", i) for i in node.inputs]
    return found + [("size", n) for n in node.size_inputs]


def _said(name: str, value: Node) -> bool:
    known = constant_value(value)
    if known is None:
        return False
    return name in ("threshold", "step", "example") or (name == "training" and bool(known))


# --------------------------------------------------------------------------------------------
# the tree


def _forest(roots: Sequence[Root], origin: bool) -> str:
    """All trees, one below the other; then the bodies of loops and branches, by their numbers."""
    numbers: dict[Node, int] = {}
    lines: list[str] = []
    todo: deque[tuple[str, Sequence[Root], Mapping[Node, str]]] = deque([("", roots, {})])
    while todo:
        heading, roots, names = todo.popleft()
        printer = _Printer(roots, names, numbers, origin)
        lines += ["", heading] if heading else []
        lines += printer.lines
        for node in printer.order:
            for key, body in node.params.items():
                if isinstance(body, Body):
                    made, slots = _parts_of(node, body)
                    todo.append((f"#{numbers[node]} {node.op.name}, {_PARTS[key]}", made, slots))
    return "".join(f"{line}\n" for line in lines)


_PARTS = {"body": "each step:", "then": "if it holds:", "otherwise": "if it does not:"}


def _parts_of(node: Node, body: Body) -> tuple[list[Root], dict[Node, str]]:
    """The results of a body with what they are, and what its slots stand for."""
    carries, sequences = node.params.get("carries", 0), node.params.get("sequences", 0)
    first = 1 + carries + sequences if node.op is scan_op else 0
    given = node.inputs[first - 1 if first else 1 :]
    names = ["index"] if first else []
    names += [f"carry {i}" for i in range(carries)] + [f"element {i}" for i in range(sequences)]
    names += [title(n) if not n.inputs else f"outer {n.op.name} {i}" for i, n in enumerate(given)]
    kinds = [f"carry {i} <-" for i in range(carries)]
    kinds += [f"out {i}" for i in range(len(body.outputs) - carries)]
    roots = [Root(label, n) for label, n in zip(kinds, body.outputs, strict=True)]
    return roots, dict(zip(body.inputs, names, strict=True))


class _Printer:
    """Lines printed so far, and the numbers given to values with several uses.

    names    what nodes are called here, where that is not their title
    numbers  one source for all trees and bodies
    """

    def __init__(
        self, roots: Sequence[Root], names: Mapping[Node, str], numbers: dict[Node, int],
        origin: bool,
    ) -> None:  # fmt: skip
        self.names, self.numbers, self.origin = names, numbers, origin
        self.order = toposort(r.node for r in roots)
        self.uses = Counter(r.node for r in roots)
        for node in self.order:
            self.uses.update(child for _, child in operands_of(node))
        self.lines: list[str] = []
        self.deferred: deque[Node] = deque()  # too deep where they were met
        self.done: set[Node] = set()
        leaves = [n for n in self.order if not n.inputs and kind_of(n) != "constant"]
        titles = Counter(map(self._title, leaves))
        self.ambiguous = {t for t, count in titles.items() if count > 1}
        for root in roots:
            self.tree(root.label, root.node)
        while self.deferred:
            node = self.deferred.popleft()
            if node not in self.done:
                self.tree(f"#{self.numbers[node]}:", node)

    def _title(self, node: Node) -> str:
        return self.names.get(node) or title(node)

    def tree(self, label: str, root: Node) -> None:
        if label:
            self.lines.append(label)
        # (node, operand's name, lines drawn left of it, branch, level)
        stack = [(root, "", "  " if label else "", "", 0)]
        while stack:
            node, name, left, branch, level = stack.pop()
            children = operands_of(node)
            head = f"{left}{branch}{name + ': ' if name else ''}"
            again = node in self.done and bool(children)
            deep = level >= MAX_LEVEL and bool(children)
            self.lines.append(head + self._line(node, bool(children), again, deep))
            if again or deep:
                continue
            self.done.add(node)
            inner = left + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            for i in reversed(range(len(children))):
                child_name, child = children[i]
                next_branch = "└─ " if i == len(children) - 1 else "├─ "
                stack.append((child, child_name, inner, next_branch, level + 1))

    def _line(self, node: Node, inner: bool, again: bool, deep: bool) -> str:
        if again:
            return f"#{self.numbers[node]} {self._title(node)} (above)"
        number = self._number(node, inner, deep)
        if deep:
            return f"{number.strip()} {self._title(node)} (below)"
        said = [] if node in self.names else details(node)
        words = [self._title(node), str(node.type), *said]
        where = f"  {format_origin(node.origin)}" if self.origin else ""
        return f"{' '.join(words)}{number}{where}"

    def _number(self, node: Node, inner: bool, deep: bool) -> str:
        """' #3' for a value that is named again elsewhere, '' for others."""
        several = self.uses[node] > 1 if inner else self._title(node) in self.ambiguous
        named = deep or several or any(isinstance(v, Body) for v in node.params.values())
        if not named:
            return ""
        if deep and node not in self.numbers:
            self.deferred.append(node)
        return f" #{self.numbers.setdefault(node, len(self.numbers) + 1)}"
