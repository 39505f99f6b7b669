"""Text of functions: instructions with names for what they make, loops and conditions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager


class Lines:
    """Collects instructions, with names for what they make."""

    def __init__(self, names: Iterator[int]) -> None:
        self.lines: list[str] = []
        self.names = names

    def fresh(self, hint: str = "x") -> str:
        return f"%{hint}.{next(self.names)}"

    def emit(self, text: str, hint: str = "x") -> str:
        name = self.fresh(hint)
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")


class Flow(Lines):
    """A function's instructions, with loops and conditions; numbers are i64 unless said otherwise.

    Counters live in memory of the function's own, which LLVM turns into registers.
    """

    def __init__(self) -> None:
        super().__init__(itertools.count(1))
        self._top: list[str] = []  # what the entry block computes once

    def once(self, text: str, hint: str = "e") -> str:
        """An instruction of the entry block."""
        name = self.fresh(hint)
        self._top.append(f"  {name} = {text}")
        return name

    def entry(self) -> list[str]:
        return self._top

    # ---- numbers
    def number(self, instruction: str, a: str | int, b: str | int) -> str:
        return self.emit(f"{instruction} i64 {a}, {b}")

    def add(self, a: str | int, b: str | int) -> str:
        if "0" in (str(a), str(b)):
            return str(b) if str(a) == "0" else str(a)
        return self.number("add", a, b)

    def mul(self, a: str | int, b: str | int) -> str:
        if "0" in (str(a), str(b)):
            return "0"
        if "1" in (str(a), str(b)):
            return str(b) if str(a) == "1" else str(a)
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
        return self.once(f"alloca {kind}" + (f", align {align}" if align else ""), "slot")

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


class Function(Flow):
    """A whole function.

    head  the text from `define` to the closing parenthesis
    """

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head

    def text(self) -> str:
        end = [] if self.lines[-1].startswith("  ret ") else ["  ret void"]
        return "\n".join([f"{self.head} {{", "entry:", *self.entry(), *self.lines, *end, "}"])
