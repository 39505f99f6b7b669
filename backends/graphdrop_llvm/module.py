"""One LLVM module for a program: functions, what they need, and the table of sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from graphdrop.types import Size

INLINED = 64  # calls on vectors in a module


class Module:
    """Collects text.

    sizes   every symbolic size in use; a function finds their values in the table %s, in this order
    needs   declarations and definitions, each once: under a name, or the text itself
    steps   texts of the functions of steps -> their names
    """

    def __init__(self) -> None:
        self.sizes: dict[Size, int] = {}
        self.needs: dict[str, str | None] = {}
        self.functions: list[str] = []
        self.steps: dict[str, str] = {}

    def size(self, size: Size) -> int:
        """The place of a size in the table."""
        return self.sizes.setdefault(size, len(self.sizes))

    def step(self, lines: list[str]) -> str:
        """The name of the function of a step with these lines: steps that do the same share it."""
        body = "\n".join([*lines, "}"])
        if body not in self.steps:
            name = self.steps[body] = f"step{len(self.steps)}"
            head = f"define internal void @{name}(ptr %t, ptr %s, i64 %first, i64 %last) {{\nentry:"
            self.functions.append(f"{head}\n{body}")
        return self.steps[body]

    def text(self) -> str:
        needs = [text or name for name, text in self.needs.items()]
        functions = "\n".join(self.functions)
        # where they are few, functions on vectors save more by being part of loops than they cost
        few = functions.count("call <") <= INLINED
        attributes = f"attributes #0 = {{ {'alwaysinline' if few else 'noinline'} }}"
        return "\n".join([*needs, "", functions, attributes, "!0 = !{i32 1}"])


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


class Code(Lines):
    """The body of one function: instructions on addresses and sizes, which are i64.

    %t is the table of addresses, %s the table of sizes.  The function of a step has a table of its
    own, of the buffers it touches, so that steps on other buffers can share the function.

    own     whether it is the function of a step
    places  the numbers of the buffers in the table of a step
    """

    def __init__(self, module: Module, own: bool = False) -> None:
        super().__init__(itertools.count(1))
        self.module, self.own = module, own
        self.places: list[int] = []
        self._sizes: dict[Size, str] = {}
        self._top: list[str] = []  # what the entry block computes once

    def once(self, text: str, hint: str = "e") -> str:
        """An instruction of the entry block."""
        name = self.fresh(hint)
        self._top.append(f"  {name} = {text}")
        return name

    def size(self, size: Size) -> str:
        """A size as an operand: a literal, or loaded when the function is entered."""
        if isinstance(size, int):
            return str(size)
        if size not in self._sizes:
            place = self.module.size(size)
            address = self.once(f"getelementptr i64, ptr %s, i64 {place}")
            self._sizes[size] = self.once(f"load i64, ptr {address}", "size")
        return self._sizes[size]

    def buffer(self, number: int) -> str:
        """The address of a buffer."""
        if self.own:
            if number not in self.places:
                self.places.append(number)
            number = self.places.index(number)
        address = self.once(f"getelementptr ptr, ptr %t, i64 {number}")
        return self.once(f"load ptr, ptr {address}", "b")

    # ---- i64 arithmetic that leaves out what is trivial
    def add(self, a: str, b: str) -> str:
        if a == "0" or b == "0":
            return b if a == "0" else a
        return self.emit(f"add i64 {a}, {b}")

    def mul(self, a: str, b: str) -> str:
        if "0" in (a, b):
            return "0"
        if a == "1" or b == "1":
            return b if a == "1" else a
        return self.emit(f"mul i64 {a}, {b}")

    def smaller(self, a: str, b: str) -> str:
        return self.emit(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def entry(self) -> list[str]:
        return self._top
