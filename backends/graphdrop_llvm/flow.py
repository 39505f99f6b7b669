"""Functions printed with loops and conditions, for what is written by hand and not from a graph.

Counters live in memory of the function's own, which LLVM turns into registers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from .module import Lines


class Flow(Lines):
    """The body of a function; numbers are i64 unless said otherwise.

    head  the text from `define` to the closing parenthesis
    """

    def __init__(self, head: str) -> None:
        super().__init__(itertools.count(1))
        self.head = head
        self._slots: list[str] = []

    def text(self) -> str:
        end = [] if self.lines[-1].startswith("  ret ") else ["  ret void"]
        return "\n".join([f"{self.head} {{", "entry:", *self._slots, *self.lines, *end, "}"])

    # ---- numbers
    def number(self, instruction: str, a: str | int, b: str | int) -> str:
        return self.emit(f"{instruction} i64 {a}, {b}")

    def add(self, a: str | int, b: str | int) -> str:
        return self.number("add", a, b)

    def mul(self, a: str | int, b: str | int) -> str:
        return self.number("mul", a, b)

    def smaller(self, a: str | int, b: str | int) -> str:
        return self.emit(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def larger(self, a: str | int, b: str | int) -> str:
        return self.emit(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})")

    def parts(self, a: str | int, b: str | int) -> str:
        """How many parts of size b cover a."""
        return self.number("sdiv", self.add(a, self.number("sub", b, 1)), b)

    def both(self, a: str, b: str) -> str:
        return self.emit(f"and i1 {a}, {b}")

    def holds(self, relation: str, a: str | int, b: str | int) -> str:
        return self.emit(f"icmp {relation} i64 {a}, {b}")

    def choose(self, condition: str, kind: str, a: str | int, b: str | int) -> str:
        return self.emit(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    # ---- memory
    def at(self, kind: str, base: str, index: str | int) -> str:
        return self.emit(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def load(self, kind: str, address: str, align: int = 0) -> str:
        return self.emit(f"load {kind}, ptr {address}" + (f", align {align}" if align else ""))

    def store(self, kind: str, value: str, address: str, align: int = 0) -> None:
        self.do(f"store {kind} {value}, ptr {address}" + (f", align {align}" if align else ""))

    def slot(self, kind: str, align: int = 0) -> str:
        """Memory of the function's own."""
        name = self.fresh("slot")
        suffix = f", align {align}" if align else ""
        self._slots.append(f"  {name} = alloca {kind}{suffix}")
        return name

    # ---- flow
    @contextmanager
    def loop(self, first: str | int, end: str | int, step: str | int = 1) -> Iterator[str]:
        """The block once for each number from `first` on below `end`."""
        slot = self.slot("i64")
        check, body, out = (self.fresh(n)[1:] for n in ("check", "body", "out"))
        self.store("i64", str(first), slot)
        self.do(f"br label %{check}")
        self.label(check)
        index = self.load("i64", slot)
        self.do(f"br i1 {self.holds('slt', index, end)}, label %{body}, label %{out}")
        self.label(body)
        yield index
        self.store("i64", self.add(index, step), slot)
        self.do(f"br label %{check}")
        self.label(out)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """The block only where the condition holds."""
        body, out = (self.fresh(n)[1:] for n in ("then", "after"))
        self.do(f"br i1 {condition}, label %{body}, label %{out}")
        self.label(body)
        yield
        self.do(f"br label %{out}")
        self.label(out)

    @contextmanager
    def only(self, condition: str) -> Iterator[None]:
        """The block where the condition holds, and then the function is left."""
        with self.when(condition):
            yield
            # what follows is never reached, but a block ends once only
            self.do("ret void")
            self.label(self.fresh("never")[1:])
