"""One LLVM module for a program: functions, what they need, and the table of sizes."""

from __future__ import annotations

from graphdrop.schedule import Place
from graphdrop.types import Size

from .flow import Flow

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


class Code(Flow):
    """The body of one function: instructions on addresses and sizes, which are i64.

    %t is the table of addresses, %s the table of sizes.  The function of a step has a table of its
    own, of the buffers it touches, so that steps on other buffers can share the function.

    own     whether it is the function of a step
    places  what is in the table of a step: a buffer's number, and how many bytes from its begin
    """

    def __init__(self, module: Module, own: bool = False) -> None:
        super().__init__()
        self.module, self.own = module, own
        self.places: list[tuple[int, Size]] = []
        self._sizes: dict[Size, str] = {}

    def size(self, size: Size) -> str:
        """A size as an operand: a literal, or loaded when the function is entered."""
        if isinstance(size, int):
            return str(size)
        if size not in self._sizes:
            place = self.module.size(size)
            address = self.once(f"getelementptr i64, ptr %s, i64 {place}")
            self._sizes[size] = self.once(f"load i64, ptr {address}", "size")
        return self._sizes[size]

    def buffer(self, number: int, offset: Size = 0) -> str:
        """The address of a buffer; in a step, of a place in it so many bytes from its begin, so
        that steps which differ in such offsets alone are one function.
        """
        if self.own:
            if (number, offset) not in self.places:
                self.places.append((number, offset))
            number = self.places.index((number, offset))
        else:
            assert offset == 0, "only a step has places of its own"
        address = self.once(f"getelementptr ptr, ptr %t, i64 {number}")
        return self.once(f"load ptr, ptr {address}", "b")

    def place(self, place: Place) -> str:
        """The address of the first element of a place; of the function of a step."""
        return self.buffer(place.buffer.number, place.offset * place.buffer.dtype.itemsize)
