"""Products of matrices of our own, for every size and any strides.

Libraries are made for large matrices: those of a recurrent step, a small batch or an attention head
they serve at a half or less of the processor's speed, and their threads are others than ours.  A
product is cut into pieces of the result, which threads share; every number is summed in the same
order whatever the pieces, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphdrop.kept import Single
from graphdrop.types import Size

from .engine import features, own_module
from .flow import Flow, Function
from .runtime import runtime
from .tiles import LINE, Registers, Tiles
from .vectors import dots, sums

DEPTH = 512  # of k that tiles sum at once: a strip of the left operand stays in the first cache
PACKED = 640 << 10  # bytes of the right operand that stay in the second cache
ROWS = 960  # of the left operand that are packed at once
PIECE = 1 << 16  # multiplications in a piece at least: about a microsecond of a core
PIECES = 2  # for each thread at most: the last to finish is then not far behind
LONG = 256  # rows or columns of a piece of several for a thread
DOWN = 1 << 32  # a cut is a number: rows of pieces times this, and columns of pieces
ENOUGH = 16  # rows for each thread at least, of a product cut into rows though it has more columns
OFTEN = 5  # products with one right operand, from which on it is packed for all of them
KINDS = {"float32": "float", "float64": "double"}


def registers() -> Registers:
    """For the processor of this machine."""
    if "+avx512f" in features():
        return Registers(64, 2, (12, 8, 4))
    if "+avx," in features():
        return Registers(32, 3, (4,))
    return Registers(16, 2, (4,))


@Single
def _engine(kind: str) -> Any:
    allowed = {"gd_allowed": runtime().symbols["gd_allowed"]}
    return own_module(f"products of {kind}", lambda: text(kind, registers()), allowed)


# what programs may call, and the type of numbers
NAMES = {f"gd_{what}_{k}": k for k in KINDS.values() for what in ("product", "pieces", "pack")}


def address(name: str) -> int:
    """Where the function called so is."""
    found: int = _engine(NAMES[name]).get_function_address(name)
    return found


def text(kind: str, held: Registers) -> str:
    """The module for a type of numbers."""
    tiles = Tiles(kind, held)
    known = [
        "declare i64 @llvm.smin.i64(i64, i64)", "declare i64 @llvm.smax.i64(i64, i64)",
        "declare ptr @malloc(i64)", "declare void @free(ptr)", "declare i64 @gd_allowed()",
    ]  # fmt: skip
    parts = (_left, _strips, _region, dots, sums, _product, _pieces, _pack)
    return "\n".join([*known, tiles.text(), *(part(tiles) for part in parts)])


def _pieces(tiles: Tiles) -> str:
    """The cut of each of %batch products that suits their sizes and the threads.

    Every piece packs all of one operand, unless that is the right one and %packed before.
    """
    head = f"define i64 @gd_pieces_{tiles.kind}(i64 %m, i64 %n, i64 %k, i64 %batch, i1 %packed)"
    f = Function(head)
    work = f.mul(f.mul(f.mul("%m", "%n"), "%k"), "%batch")
    threads = f.emit("call i64 @gd_allowed()")
    several = f.holds("sgt", threads, 1)
    # then nothing is packed twice; a few rows take less time than all of the right operand to read
    by_rows = f.both("%packed", f.holds("sge", "%m", f.mul(threads, ENOUGH)))
    wide = f.both(f.holds("sge", "%n", "%m"), f.emit(f"xor i1 {by_rows}, true"))
    # what is packed is little beside a piece that is long enough
    length = f.choose(by_rows, "i64", "%m", f.larger("%m", "%n"))
    long = f.number("sdiv", length, f.mul(threads, LONG))
    each_thread = f.larger(f.smaller(long, PIECES), 1)
    wish = f.smaller(f.number("sdiv", work, PIECE), f.mul(threads, each_thread))
    wish = f.choose(several, "i64", f.larger(wish, 1), 1)
    each = f.parts(wish, f.larger("%batch", 1))
    strips = f.larger(f.parts("%m", tiles.height), 1)
    panels = f.larger(f.parts("%n", tiles.width), 1)
    longer = f.choose(wide, "i64", panels, strips)
    shorter = f.choose(wide, "i64", strips, panels)
    most = f.smaller(each, longer)
    other = f.smaller(f.parts(each, most), shorter)
    rows = f.choose(wide, "i64", other, most)
    columns = f.choose(wide, "i64", most, other)
    f.do(f"ret i64 {f.add(f.mul(rows, DOWN), columns)}")
    return f.text()


def _product(tiles: Tiles) -> str:
    """Piece number %piece of c = a b, row by row; strides in numbers, c is dense.

    %packed is where `gd_pack` was to lay out b for these sizes, or null.
    """
    kind = tiles.kind
    f = Function(
        f"define void @gd_product_{kind}(ptr %a, i64 %ra, i64 %ca, ptr %b, i64 %rb, i64 %cb, "
        "ptr %c, i64 %m, i64 %n, i64 %k, i64 %piece, i64 %cut, ptr %packed)"
    )
    down, across = f.number("udiv", "%cut", DOWN), f.number("urem", "%cut", DOWN)
    spans = []
    for size, unit, count, number in (
        ("%m", tiles.registers.heights[-1], down, f.number("udiv", "%piece", across)),
        ("%n", tiles.width, across, f.number("urem", "%piece", across)),
    ):
        step = f.mul(f.parts(f.parts(size, count), unit), unit)
        first = f.smaller(f.mul(step, number), size)
        spans.append((first, f.smaller(step, f.number("sub", size, first))))
    (i, m), (j, n) = spans
    a = f.at(kind, "%a", f.mul(i, "%ra"))
    b = f.at(kind, "%b", f.mul(j, "%cb"))
    c = f.at(kind, "%c", f.add(f.mul(i, "%n"), j))
    # a vector would leave most of a tile unused
    column, row = f.holds("eq", "%n", 1), f.holds("eq", "%m", 1)
    lies = f.both(f.holds("eq", "%ca", 1), f.holds("eq", "%rb", 1))
    with f.only(f.both(column, lies)):
        f.do(f"call void @dots(ptr {a}, i64 %ra, ptr {b}, ptr {c}, i64 {m}, i64 %k)")
    with f.only(f.both(row, lies)):
        f.do(f"call void @dots(ptr {b}, i64 %cb, ptr {a}, ptr {c}, i64 {n}, i64 %k)")
    with f.only(f.both(column, f.holds("eq", "%ra", 1))):
        f.do(f"call void @sums(ptr {b}, i64 %rb, ptr {a}, i64 %ca, ptr {c}, i64 {m}, i64 %k)")
    with f.only(f.both(row, f.holds("eq", "%cb", 1))):
        f.do(f"call void @sums(ptr {a}, i64 %ca, ptr {b}, i64 %rb, ptr {c}, i64 {n}, i64 %k)")
    slot = f.slot("ptr")
    f.store("ptr", "null", slot)
    with f.when(f.emit("icmp ne ptr %packed, null")):
        told = f.holds("ne", f.load("i64", "%packed"), 0)
        f.store("ptr", f.choose(told, "ptr", f.at("i8", "%packed", LINE), "null"), slot)
    ready, columns = f.load("ptr", slot), _up(f, "%n", tiles.width)
    f.do(
        f"call void @region(ptr {a}, i64 %ra, i64 %ca, ptr {b}, i64 %rb, i64 %cb, ptr {c}, i64 %n, "
        f"i64 {m}, i64 {n}, i64 %k, ptr {ready}, i64 {j}, i64 {columns})"
    )
    return f.text()


def _up(f: Flow, number: str, unit: int) -> str:
    """The next multiple of a unit."""
    return f.mul(f.parts(number, unit), unit)


def _depth(f: Flow) -> str:
    """How much of %k tiles sum at once."""
    return f.parts("%k", f.larger(f.parts("%k", DEPTH), 1))


def panels(columns: Size, kind: str) -> Size:
    """How many panels a right operand of so many columns has; threads share them."""
    width = Tiles(kind, registers()).width
    return (columns + (width - 1)) // width


def room(columns: Size, depth: Size, kind: str) -> Size:
    """How many numbers `gd_pack` needs for a right operand of so many columns and rows."""
    tiles = Tiles(kind, registers())
    return LINE // tiles.size + panels(columns, kind) * tiles.width * depth


def _pack(tiles: Tiles) -> str:
    """Panels of b from %first to %last where `region` expects them, for products that are computed
    %steps times: for each part of k that is summed at once, all panels one behind the other.

    The first number of %to tells whether that was done; what else is there begins a line later.
    """
    kind, width = tiles.kind, tiles.width
    f = Function(
        f"define void @gd_pack_{kind}(ptr %b, i64 %rb, i64 %cb, ptr %to, i64 %m, i64 %n, i64 %k, "
        "i64 %steps, i64 %first, i64 %last)"
    )
    with f.only(f.holds("sle", "%steps", 0)):
        pass  # there may be no such operand
    several = f.both(f.holds("ne", "%m", 1), f.holds("ne", "%n", 1))  # no tiles for vectors
    worth = f.both(several, f.holds("sge", "%steps", OFTEN))
    with f.when(f.holds("eq", "%first", 0)):
        f.store("i64", f.emit(f"zext i1 {worth} to i64"), "%to")
    with f.when(worth):
        depth, columns = _depth(f), _up(f, "%n", width)
        begin, j = f.at("i8", "%to", LINE), f.mul("%first", width)
        n = f.number("sub", f.smaller(f.mul("%last", width), "%n"), j)
        with f.loop(0, "%k", depth) as p:
            k = f.smaller(depth, f.number("sub", "%k", p))
            to = f.at(kind, begin, f.add(f.mul(p, columns), f.mul(j, k)))
            b = f.at(kind, "%b", f.add(f.mul(p, "%rb"), f.mul(j, "%cb")))
            f.do(f"call void @pack{width}(ptr {to}, ptr {b}, i64 %rb, i64 %cb, i64 {k}, i64 {n})")
    return f.text()


def _region(tiles: Tiles) -> str:
    """c = a b: strides in numbers, c's columns dense and its rows %rc apart.

    %ready is null, or where a matrix of %all columns is packed, of which b begins at column %j.
    """
    kind, width = tiles.kind, tiles.width
    f = Function(
        "define internal void @region(ptr %a, i64 %ra, i64 %ca, ptr %b, i64 %rb, i64 %cb, ptr %c, "
        "i64 %rc, i64 %m, i64 %n, i64 %k, ptr %ready, i64 %j, i64 %all) noinline"
    )
    with f.only(f.holds("sle", "%k", 0)), f.loop(0, "%m") as i:
        row = f.at(kind, "%c", f.mul(i, "%rc"))
        with f.loop(0, "%n") as j:
            f.store(kind, "0.0", f.at(kind, row, j))
    depth = _depth(f)
    rows = f.parts("%m", f.larger(f.parts("%m", ROWS), 1))
    rows = f.larger(_up(f, rows, tiles.height), tiles.height)
    all_columns = _up(f, "%n", width)
    fit = f.mul(f.number("sdiv", f.number("sdiv", PACKED // tiles.size, depth), width), width)
    packs = f.emit("icmp eq ptr %ready, null")
    # few rows read the right operand about once: packing it would take as long
    few = f.both(f.holds("sle", "%m", 2 * tiles.height), f.holds("eq", "%cb", 1))
    direct = f.both(few, packs)
    columns = f.choose(direct, "i64", all_columns, f.smaller(fit, all_columns))
    space = f.choose(packs, "i64", f.choose(direct, "i64", width, columns), 0)
    numbers = f.mul(f.add(space, rows), depth)
    memory = f.emit(f"call ptr @malloc(i64 {f.add(f.mul(numbers, tiles.size), LINE)})")
    address = f.emit(f"ptrtoint ptr {memory} to i64")
    aligned = f.number("and", f.add(address, LINE - 1), -LINE)
    right = f.emit(f"inttoptr i64 {aligned} to ptr")
    left = f.at(kind, right, f.mul(space, depth))
    with f.loop(0, "%m", rows) as i, f.loop(0, "%k", depth) as p:
        m = f.smaller(rows, f.number("sub", "%m", i))
        k = f.smaller(depth, f.number("sub", "%k", p))
        a = f.at(kind, "%a", f.add(f.mul(i, "%ra"), f.mul(p, "%ca")))
        f.do(f"call void @left(ptr {left}, ptr {a}, i64 %ra, i64 %ca, i64 {m}, i64 {k})")
        more = f.holds("ne", p, 0)
        with f.loop(0, "%n", columns) as j:
            n = f.smaller(columns, f.number("sub", "%n", j))
            b = f.at(kind, "%b", f.add(f.mul(p, "%rb"), f.mul(j, "%cb")))
            first = f.mul(f.number("sdiv", n, width), width)
            first = f.choose(direct, "i64", first, 0)
            with f.when(packs):
                rest, source = f.number("sub", n, first), f.at(kind, b, f.mul(first, "%cb"))
                f.do(
                    f"call void @pack{width}(ptr {right}, ptr {source}, i64 %rb, i64 %cb, i64 {k}, "
                    f"i64 {rest})"
                )
            begin = f.add(f.mul(p, "%all"), f.mul(f.add("%j", j), k))
            found = f.choose(packs, "ptr", right, f.at(kind, "%ready", begin))
            c = f.at(kind, "%c", f.add(f.mul(i, "%rc"), j))
            f.do(
                f"call void @strips(ptr {left}, ptr {b}, i64 {first}, i64 %rb, ptr {found}, "
                f"ptr {c}, i64 %rc, i64 {m}, i64 {n}, i64 {k}, i1 {more})"
            )
    f.do(f"call void @free(ptr {memory})")
    return f.text()


def _strips_of(f: Flow, heights: tuple[int, ...]) -> Iterator[tuple[int, str, str]]:
    """Heights, and from where to where strips of them cover %m rows."""
    start = "0"
    for height, smaller in zip(heights, (*heights[1:], 0), strict=True):
        left = f.number("sub", "%m", start)
        # a rest that only this height holds gets one strip more, which is not full
        count = f.number("sdiv", f.add(left, height - 1 - smaller), height)
        end = f.smaller("%m", f.add(start, f.mul(count, height)))
        yield height, start, end
        start = end


def _left(tiles: Tiles) -> str:
    """The left operand packed: strip after strip."""
    f = Function(
        "define internal void @left(ptr %to, ptr %a, i64 %ra, i64 %ca, i64 %m, i64 %k) noinline"
    )
    for height, start, end in _strips_of(f, tiles.registers.heights):
        source = f.at(tiles.kind, "%a", f.mul(start, "%ra"))
        to = f.at(tiles.kind, "%to", f.mul(start, "%k"))
        f.do(
            f"call void @pack{height}(ptr {to}, ptr {source}, i64 %ca, i64 %ra, i64 %k, "
            f"i64 {f.number('sub', end, start)})"
        )
    return f.text()


def _strips(tiles: Tiles) -> str:
    """The product of packed rows and a part of b, whose columns from %first on are packed."""
    kind, width = tiles.kind, tiles.width
    f = Function(
        "define internal void @strips(ptr %a, ptr %b, i64 %first, i64 %rb, ptr %packed, ptr %c, "
        "i64 %rc, i64 %m, i64 %n, i64 %k, i1 %more) noinline"
    )
    edge = f.slot(f"[{tiles.height * width} x {kind}]", LINE)
    for height, start, end in _strips_of(f, tiles.registers.heights):
        with f.loop(start, end, height) as i, f.loop(0, "%n", width) as j:
            a = f.at(kind, "%a", f.mul(i, "%k"))
            rows = f.smaller(height, f.number("sub", "%m", i))
            all_rows = f.holds("eq", rows, height)
            row = f.at(kind, "%c", f.mul(i, "%rc"))
            columns = f.smaller(width, f.number("sub", "%n", j))
            inside = f.both(all_rows, f.holds("eq", columns, width))
            here = f.holds("slt", j, "%first")
            panel = f.mul(f.number("sub", j, "%first"), "%k")
            b = f.choose(here, "ptr", f.at(kind, "%b", j), f.at(kind, "%packed", panel))
            step = f.choose(here, "i64", "%rb", width)
            c = f.at(kind, row, j)
            tile = f"call void @tile{height}(ptr {a}, ptr {b}, i64 {step}, "
            outside = f.emit(f"xor i1 {inside}, true")
            with f.when(inside):
                f.do(f"{tile}ptr {c}, i64 %rc, i64 %k, i1 %more)")
            with f.when(outside):  # at the edges, by way of a whole tile
                size = f"i64 {rows}, i64 {columns}"
                with f.when("%more"):
                    f.do(f"call void @move(ptr {edge}, i64 {width}, ptr {c}, i64 %rc, {size})")
                f.do(f"{tile}ptr {edge}, i64 {width}, i64 %k, i1 %more)")
                f.do(f"call void @move(ptr {c}, i64 %rc, ptr {edge}, i64 {width}, {size})")
    return f.text()
