"""A program as functions: runs of native steps, the kernels they call, and loops around bodies.

All functions take the table of addresses and the table of sizes.  A loop's body has a part of the
table of its own, behind the buffers of the program around it; before every step the loop puts there
where the step's operands and results are.
"""

from __future__ import annotations

from graphdrop.graph import Node
from graphdrop.schedule import (
    Demand,
    Kernel,
    Loop,
    Outside,
    Pack,
    Place,
    Product,
    Program,
    Rows,
    Step,
    moved,
)
from graphdrop.types import Size, num_elements

from . import blas, gemm, products, rows
from .flow import Function
from .kernel import SHARED_WORK, Printer
from .lanes import literal, memory_type, scalar_type
from .module import Code, Module
from .reductions import identity, join_blocks, join_function, wide
from .walk import BLOCKS


class Segments:
    """Prints a program into a module.

    asked  the program's demand, which numbers the buffers of bodies
    split  whether every step is a function of its own, for the profiler
    wrong  the table's place for the address of what steps tell: the one after all buffers
    parts  names of functions, and the steps outside between them, in order
    steps  name of a function -> the last step in it
    """

    def __init__(
        self, program: Program, module: Module, asked: Demand, name: str = "p", split: bool = False,
        wrong: int | None = None,
    ) -> None:  # fmt: skip
        self.module, self.asked, self.name = module, asked, name
        self.parts: list[str | Outside] = []
        self.steps: dict[str, Step] = {}
        self.wrong = asked.after if wrong is None else wrong
        self._bodies = iter(asked.loops)
        self._calls: list[str] = []
        self._local = 0  # buffers of the step that has most
        for number, step in enumerate(program.steps):
            self._step(f"{name}.{number}", step)
            if split and not isinstance(step, Outside):
                self._close()
                self.steps[str(self.parts[-1])] = step
        if self._calls or not self.parts:
            self._close()

    def _close(self) -> None:
        """What has been collected as one function."""
        name = f"{self.name}.segment{len(self.parts)}"
        self.parts.append(name)
        body = "\n".join(self._calls)
        head = f"define void @{name}(ptr %t, ptr %s) {{\nentry:"
        head += f"\n  %own = alloca [{self._local} x ptr]"
        self.module.functions.append(f"{head}\n{body}\n  ret void\n}}")
        self._calls.clear()

    def _step(self, name: str, step: Step) -> None:
        if isinstance(step, Outside):
            if self._calls:
                self._close()
            self.parts.append(step)
        elif isinstance(step, Loop):
            self._loop(name, step)
        elif isinstance(step, Rows):
            function, places = rows.print_rows(step, self.module)
            self._own_table(name, [*places, (self.wrong, 0)])
            self._by_bytes(name, function, rows.units(step), step)
        elif isinstance(step, Product):
            function, places = products.print_product(step, self.module)
            self._own_table(name, places, more=1)
            self._product(name, function, step, len(places))
        elif isinstance(step, Pack):
            function, places = products.print_pack(step, self.module)
            self._own_table(name, places)
            self._by_bytes(name, function, products.units(step), step)
        else:
            printer = Printer(step, self.module)
            function = printer.print()
            self._own_table(name, printer.code.places)
            parts = [self._parts(name, printer, node) for node in printer.partial]
            parts += [self._blocks(name, printer, node) for node in printer.columns]
            self._starts(name, step, [*printer.partial, *printer.columns])
            if printer.divisible and (least := printer.least_to_share) is not None:
                self._shared_call(name, function, printer.shares, least, step)
            else:
                self._call(name, function, printer.shares)
            for join in parts:
                self._calls += join

    # ---- calls
    def _size(self, tag: str, size: Size) -> str:
        """A size as an operand of the collected calls."""
        if isinstance(size, int):
            return str(size)
        place = self.module.size(size)
        self._calls += [
            f"  %{tag}.a = getelementptr i64, ptr %s, i64 {place}",
            f"  %{tag} = load i64, ptr %{tag}.a",
        ]
        return f"%{tag}"

    def _own_table(self, name: str, places: list[tuple[int, Size]], more: int = 0) -> None:
        """The addresses of the places of a step side by side, and room for something more."""
        self._local = max(self._local, len(places) + more)
        count, module = len(places), self.module
        numbers = [(number, module.size(offset)) for number, offset in places]
        text = ", ".join(f"i32 {n}" for pair in numbers for n in pair)
        module.needs[f"@{name}.places = private constant [{2 * count} x i32] [{text}]"] = None
        module.needs[_own_table()] = None
        self._calls.append(
            f"  call void @gd_own(ptr %own, ptr %t, ptr %s, ptr @{name}.places, i64 {count})"
        )

    def _call(self, name: str, function: str, units: Size) -> None:
        last = self._size(f"{name}.u", units)
        self._calls.append(f"  call void @{function}(ptr %own, ptr %s, i64 0, i64 {last})")

    def _shared_call(
        self, name: str, function: str, units: Size, least: int, kernel: Kernel
    ) -> None:
        """A call that workers share if the domain has at least so many elements."""
        last = self._size(f"{name}.u", units)
        count = self._size(f"{name}.n", num_elements(kernel.domain))
        self._either(name, function, last, f"icmp sge i64 {count}, {least}")

    def _either(self, name: str, function: str, units: str, condition: str) -> None:
        """A call that workers share where the condition holds."""
        self.module.needs["declare void @gd_parallel(ptr, ptr, ptr, i64)"] = None
        self._calls += [
            f"  %{name}.big = {condition}",
            f"  br i1 %{name}.big, label %{name}.shared, label %{name}.alone",
            f"{name}.shared:",
            f"  call void @gd_parallel(ptr @{function}, ptr %own, ptr %s, i64 {units})",
            f"  br label %{name}.after",
            f"{name}.alone:",
            f"  call void @{function}(ptr %own, ptr %s, i64 0, i64 {units})",
            f"  br label %{name}.after",
            f"{name}.after:",
        ]

    def _by_bytes(self, name: str, function: str, units: Size, step: Rows | Pack) -> None:
        """A call that workers share if the step moves enough."""
        last, bytes_ = (
            self._size(f"{name}.{tag}", size) for tag, size in (("u", units), ("n", moved(step)))
        )
        self._either(name, function, last, f"icmp sge i64 {bytes_}, {SHARED_WORK}")

    def _product(self, name: str, function: str, product: Product, place: int) -> None:
        """A product, cut into pieces as many as are worth sharing."""
        kind = gemm.KINDS[product.node.dtype.name]
        *sizes, batch = (
            self._size(f"{name}.d{i}", size) for i, size in enumerate(products.sizes(product))
        )
        numbers = ", ".join(f"i64 {s}" for s in (*sizes, batch))
        packed = "false" if product.packed is None else "true"
        call = f"call i64 @gd_pieces_{kind}({numbers}, i1 {packed})"
        if blas.chosen():
            call = f"or i64 {gemm.DOWN}, 1"  # its threads are its own
        else:
            self.module.needs[f"declare i64 @gd_pieces_{kind}(i64, i64, i64, i64, i1)"] = None
        self._calls += [
            f"  %{name}.cut = {call}",
            f"  %{name}.at = getelementptr i64, ptr %own, i64 {place}",
            f"  store i64 %{name}.cut, ptr %{name}.at",
            f"  %{name}.down = udiv i64 %{name}.cut, {gemm.DOWN}",
            f"  %{name}.across = urem i64 %{name}.cut, {gemm.DOWN}",
            f"  %{name}.each = mul i64 %{name}.down, %{name}.across",
            f"  %{name}.all = mul i64 %{name}.each, {batch}",
        ]
        if blas.chosen():
            self._calls.append(f"  call void @{function}(ptr %own, ptr %s, i64 0, i64 %{name}.all)")
            return
        self._calls.append(f"  %{name}.w0 = mul i64 {sizes[0]}, {sizes[1]}")
        for i, size in enumerate((sizes[2], batch)):
            self._calls.append(f"  %{name}.w{i + 1} = mul i64 %{name}.w{i}, {size}")
        self._either(name, function, f"%{name}.all", f"icmp sge i64 %{name}.w2, {2 * gemm.PIECE}")

    def _parts(self, name: str, printer: Printer, node: Node) -> list[str]:
        """Gives a reduction memory for a part from each unit; returns what joins and frees them."""
        tag = f"{name}.p{len(self._calls)}"
        units = self._size(f"{tag}.u", printer.units)
        results = self._size(f"{tag}.n", printer.reduced[node][0].buffer.elements)
        real = self._instead(name, tag, printer, node, units, wide(node).itemsize)
        join = join_function(node, self.module.needs)
        return [
            f"  call void @{join}(ptr {real}, ptr %{tag}, i64 {results}, i64 {units})",
            f"  call void @free(ptr %{tag})",
        ]

    def _blocks(self, name: str, printer: Printer, node: Node) -> list[str]:
        """Gives a reduction memory for its results in each block; as `_parts`."""
        tag = f"{name}.p{len(self._calls)}"
        results = self._size(f"{tag}.n", printer.reduced[node][0].buffer.elements)
        self._calls.append(f"  %{tag}.all = mul i64 {results}, {BLOCKS}")
        real = self._instead(name, tag, printer, node, f"%{tag}.all", node.dtype.itemsize)
        self._calls.append(self._filled(node, f"%{tag}", f"%{tag}.all"))
        join = join_blocks(node, self.module.needs)
        return [
            f"  call void @{join}(ptr {real}, ptr %{tag}, i64 {results}, i64 {BLOCKS})",
            f"  call void @free(ptr %{tag})",
        ]

    def _instead(
        self, name: str, tag: str, printer: Printer, node: Node, count: str, itemsize: int
    ) -> str:  # fmt: skip
        """Memory %tag for `count` items, in the step's own table instead of the result's, whose
        address is returned.
        """
        number = printer.reduced[node][0].buffer.number
        place = printer.code.places.index((number, 0))
        for known in ("declare ptr @malloc(i64)", "declare void @free(ptr)"):
            self.module.needs[known] = None
        self._calls += [
            f"  %{tag}.bytes = mul i64 {count}, {itemsize}",
            f"  %{tag} = call ptr @malloc(i64 %{tag}.bytes)",
            f"  %{tag}.at = getelementptr ptr, ptr %t, i64 {number}",
            f"  %{tag}.real = load ptr, ptr %{tag}.at",
            f"  %{tag}.to = getelementptr ptr, ptr %own, i64 {place}",
            f"  store ptr %{tag}, ptr %{tag}.to",
        ]
        return f"%{tag}.real"

    def _filled(self, node: Node, address: str, count: str) -> str:
        """A call that puts what changes nothing everywhere."""
        kind = scalar_type(node.dtype)
        self.module.needs[_fill(kind)] = None
        value = literal(node.dtype, identity(node))
        return f"  call void @gd_fill_{kind}(ptr {address}, i64 {count}, {kind} {value})"

    def _starts(self, name: str, kernel: Kernel, partial: list[Node]) -> None:
        """Results of reductions start with what changes nothing."""
        for k, (node, place) in enumerate(kernel.reduced.items()):
            if node in partial:
                continue
            tag = f"{name}.r{k}"
            count = self._size(tag, place.buffer.elements)
            self._calls += [
                f"  %{tag}.p = getelementptr ptr, ptr %t, i64 {place.buffer.number}",
                f"  %{tag}.b = load ptr, ptr %{tag}.p",
                self._filled(node, f"%{tag}.b", count),
            ]

    # ---- loops
    def _loop(self, name: str, loop: Loop) -> None:
        asked = next(self._bodies)
        region = asked.first - self.asked.first
        inner = Segments(loop.body, self.module, asked, f"{name}.b", wrong=self.wrong - region)
        (body,) = inner.parts
        assert isinstance(body, str)
        self.module.functions.append(_print_loop(name, loop, body, region, self.module))
        self._calls.append(f"  call void @{name}(ptr %t, ptr %s)")


def _print_loop(name: str, loop: Loop, body: str, region: int, module: Module) -> str:
    """The function of a loop whose body's addresses begin at place `region` of the table."""
    code = Code(module)
    table = code.once(f"getelementptr ptr, ptr %t, i64 {region}", "body")
    count = code.size(loop.length)
    position = code.once("alloca i64", "position")
    numbers = [b.number for b in loop.body.inputs]
    carries, rows = len(loop.carries), len(loop.sequences)
    results = [b.number for b in loop.body.outputs]

    def tell(number: int, address: str) -> None:
        slot = code.emit(f"getelementptr ptr, ptr {table}, i64 {number}")
        code.do(f"store ptr {address}, ptr {slot}")

    def base(place: Place) -> str:
        start = code.buffer(place.buffer.number)
        offset = code.size(place.offset)
        kind = memory_type(place.buffer.dtype)
        if offset == "0":
            return start
        return code.emit(f"getelementptr {kind}, ptr {start}, i64 {offset}")

    tell(numbers[0], position)
    first = [base(p) for p in loop.first]
    sequences = [base(p) for p in loop.sequences]
    for number, place in zip(numbers[1 + carries + rows :], loop.captured, strict=True):
        tell(number, base(place))
    ends = [tuple(code.buffer(b.number) for b in pair) for pair in loop.carries]
    outs = [code.buffer(b.number) for b in loop.outs]
    code.do("br label %before")
    code.label("before")
    code.do("br label %check")
    code.label("check")
    code.do("%i = phi i64 [ 0, %before ], [ %i.next, %step ]")
    code.do("%more = icmp slt i64 %i, " + count)
    code.do("br i1 %more, label %step, label %done")
    code.label("step")
    back = code.emit(f"sub i64 {count}, %i")
    left = code.emit(f"sub i64 {back}, 1")
    row = left if loop.reverse else "%i"
    code.do(f"store i64 {row}, ptr {position}")
    # the last step writes where the carry ends, the one before it to the spare memory, and so on
    odd = code.emit(f"trunc i64 {left} to i1")
    start = code.emit("icmp eq i64 %i, 0")
    for k, (end, spare) in enumerate(ends):
        new = code.emit(f"select i1 {odd}, ptr {spare}, ptr {end}")
        old = code.emit(f"select i1 {odd}, ptr {end}, ptr {spare}")
        tell(numbers[1 + k], code.emit(f"select i1 {start}, ptr {first[k]}, ptr {old}"))
        tell(results[k], new)
    walked = zip(loop.sequences, sequences, numbers[1 + carries :], strict=False)
    for place, address, number in walked:
        step = code.mul(row, code.size(place.strides[0]))
        kind = memory_type(place.buffer.dtype)
        tell(number, code.emit(f"getelementptr {kind}, ptr {address}, i64 {step}"))
    for buffer, address, number in zip(loop.outs, outs, results[carries:], strict=True):
        step = code.mul(row, code.size(num_elements(buffer.node.shape[1:])))
        kind = memory_type(buffer.dtype)
        tell(number, code.emit(f"getelementptr {kind}, ptr {address}, i64 {step}"))
    code.do(f"call void @{body}(ptr {table}, ptr %s)")
    code.do("%i.next = add i64 %i, 1")
    code.do("br label %check")
    code.label("done")
    _carry_none(code, count, loop, first, [end for end, _ in ends])
    head = f"define internal void @{name}(ptr %t, ptr %s) {{\nentry:"
    return "\n".join([head, *code.entry(), *code.lines, "}"])


def _carry_none(code: Code, count: str, loop: Loop, first: list[str], ends: list[str]) -> None:
    """After no steps at all the carries end as they began."""
    none = code.emit(f"icmp sle i64 {count}, 0")
    code.do(f"br i1 {none}, label %copy, label %out")
    code.label("copy")
    code.module.needs["declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"] = None
    for (buffer, _), start, end in zip(loop.carries, first, ends, strict=True):
        size = code.mul(code.size(buffer.elements), str(buffer.dtype.itemsize))
        code.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {end}, ptr {start}, i64 {size}, i1 false)")
    code.do("br label %out")
    code.label("out")
    code.do("ret void")


def _own_table() -> str:
    """own[i] = t[places[2 i]] + s[places[2 i + 1]] bytes."""
    f = Function(
        "define internal void @gd_own(ptr %own, ptr %t, ptr %s, ptr %places, i64 %n) noinline"
    )
    with f.loop(0, "%n") as i:
        pair = f.at("[2 x i32]", "%places", i)
        number, size = f.load("i32", pair), f.load("i32", f.at("i32", pair, 1))
        start = f.load("ptr", f.emit(f"getelementptr ptr, ptr %t, i32 {number}"))
        offset = f.load("i64", f.emit(f"getelementptr i64, ptr %s, i32 {size}"))
        f.store("ptr", f.at("i8", start, offset), f.at("ptr", "%own", i))
    return f.text()


def _fill(kind: str) -> str:
    """b[i] = x."""
    f = Function(f"define internal void @gd_fill_{kind}(ptr %b, i64 %n, {kind} %x)")
    with f.loop(0, "%n") as i:
        f.store(kind, "%x", f.at(kind, "%b", i))
    return f.text()
