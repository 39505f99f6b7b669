"""Products of matrices: by our own functions, or by the BLAS library that the user has chosen."""

from __future__ import annotations

from graphdrop.graph import Node
from graphdrop.schedule import Pack, Place, Product
from graphdrop.types import Size, num_elements

from . import blas, gemm
from .module import Code, Module

ROUTINES = {"float32": "sgemm", "float64": "dgemm"}


def supports(node: Node) -> bool:
    return node.dtype.name in ROUTINES


def print_product(product: Product, module: Module) -> tuple[str, list[tuple[int, Size]]]:
    """The name of the function that computes pieces of the products, and its places.

    Its table has one place more, for how a product is cut; see `gemm`.
    """
    code = Code(module, own=True)
    kind = gemm.KINDS[product.node.dtype.name]
    places = (product.left, product.right, product.out)
    bases = [code.place(p) for p in places]
    packed = "null" if product.packed is None else code.buffer(product.packed.number)
    cut = code.once(f"getelementptr i64, ptr %t, i64 {len(code.places)}")
    cut = code.once(f"load i64, ptr {cut}")
    down, across = (code.once(f"{how} i64 {cut}, {gemm.DOWN}") for how in ("udiv", "urem"))
    pieces = code.once(f"mul i64 {down}, {across}")
    with code.loop("%first", "%last") as unit:
        number, piece = (code.number(how, unit, pieces) for how in ("udiv", "urem"))
        batch = product.node.shape[:-2]
        matrices = [
            _matrix(code, base, place, batch, number, kind)
            for base, place in zip(bases, places, strict=True)
        ]
        if blas.chosen():
            _library_call(code, product, matrices, kind)
        else:
            _own_call(code, product, matrices, kind, (piece, cut, packed))
    code.do("ret void")
    return module.step([*code.entry(), *code.lines]), code.places


def room(product: Product) -> Size | None:
    """See `graphdrop.schedule.packed`."""
    rows, columns, depth, _ = sizes(product)
    if blas.chosen() or len(product.right.shape) != 2 or 1 in (rows, columns):
        return None
    return gemm.room(columns, depth, gemm.KINDS[product.node.dtype.name])


def units(pack: Pack) -> Size:
    """What threads share."""
    return gemm.panels(pack.source.shape[-1], gemm.KINDS[pack.node.dtype.name])


def print_pack(pack: Pack, module: Module) -> tuple[str, list[tuple[int, Size]]]:
    """The name of the function that lays out some panels of a right operand, and its places."""
    code, kind = Code(module, own=True), gemm.KINDS[pack.node.dtype.name]
    name, six = f"gd_pack_{kind}", ", ".join(["i64"] * 6)
    module.needs[f"declare void @{name}(ptr, i64, i64, ptr, {six})"] = None
    b, to = code.place(pack.source), code.buffer(pack.result.number)
    apart = ", ".join(f"i64 {code.size(s)}" for s in pack.source.strides)
    k, n = pack.source.shape
    known = ", ".join(f"i64 {code.size(s)}" for s in (pack.rows, n, k))
    steps = "1"
    for size in pack.loops:
        steps = code.mul(steps, code.larger(code.size(size), 0))
    code.do(
        f"call void @{name}(ptr {b}, {apart}, ptr {to}, {known}, i64 {steps}, i64 %first, "
        "i64 %last)"
    )
    code.do("ret void")
    return module.step([*code.entry(), *code.lines]), code.places


def sizes(product: Product) -> tuple[Size, Size, Size, Size]:
    """Rows and columns of the results, what is summed, and how many products there are."""
    n, m = product.node.shape[-2:]
    return n, m, product.left.shape[-1], num_elements(product.node.shape[:-2])


def _own_call(
    code: Code, product: Product, matrices: list[str], kind: str, which: tuple[str, str, str]
) -> None:
    """`which` piece of what cut is computed, and where the right operand is packed."""
    m, n, k, _ = (f"i64 {code.size(s)}" for s in sizes(product))
    left, right = (
        ", ".join(f"i64 {code.size(s)}" for s in p.strides[-2:])
        for p in (product.left, product.right)
    )
    name, sixty_four = f"gd_product_{kind}", ", ".join(["i64"] * 5)
    code.module.needs[
        f"declare void @{name}(ptr, i64, i64, ptr, i64, i64, ptr, {sixty_four}, ptr)"
    ] = None  # fmt: skip
    (a, b, c), (piece, cut, packed) = matrices, which
    code.do(
        f"call void @{name}(ptr {a}, {left}, ptr {b}, {right}, ptr {c}, {m}, {n}, {k}, "
        f"i64 {piece}, i64 {cut}, ptr {packed})"
    )


def _library_call(code: Code, product: Product, matrices: list[str], kind: str) -> None:
    """A row-major matrix is a column-major one transposed: C' = B' A' is asked for."""
    routine = ROUTINES[product.node.dtype.name]
    pointers = ", ".join(["ptr"] * 13)
    code.module.needs[f"declare void @{routine}({pointers})"] = None
    a, b, c = matrices
    m, n, k, _ = (code.size(s) for s in sizes(product))
    flip_b, step_b = _leading(code, product.right)
    flip_a, step_a = _leading(code, product.left)
    step_c = code.emit(f"call i64 @llvm.smax.i64(i64 {n}, i64 1)")
    held = [_held(code, "i8", f) for f in (flip_b, flip_a)]
    held += [_held(code, "i32", code.emit(f"trunc i64 {s} to i32")) for s in (n, m, k)]
    lead_b, lead_a, lead_c = (
        _held(code, "i32", code.emit(f"trunc i64 {s} to i32")) for s in (step_b, step_a, step_c)
    )
    one, zero = _held(code, kind, "1.0"), _held(code, kind, "0.0")
    given = [*held, one, b, lead_b, a, lead_a, zero, c, lead_c]
    code.do(f"call void @{routine}({', '.join(f'ptr {g}' for g in given)})")


def _held(code: Code, kind: str, value: str) -> str:
    """The address of a value, as Fortran takes its arguments."""
    slot = code.once(f"alloca {kind}")
    code.do(f"store {kind} {value}, ptr {slot}")
    return slot


def _matrix(
    code: Code, base: str, place: Place, batch: tuple[Size, ...], number: str, kind: str
) -> str:
    """The address of a matrix of the batch."""
    offset, rest = "0", number
    lead = len(batch) - (len(place.shape) - 2)
    for axis in reversed(range(len(batch))):
        size = code.size(batch[axis])
        index = code.emit(f"urem i64 {rest}, {size}") if axis else rest
        if axis:
            rest = code.emit(f"udiv i64 {rest}, {size}")
        own = axis - lead
        if own >= 0 and place.shape[own] != 1:
            offset = code.add(offset, code.mul(index, code.size(place.strides[own])))
    return base if offset == "0" else code.emit(f"getelementptr {kind}, ptr {base}, i64 {offset}")


def _leading(code: Code, place: Place) -> tuple[str, str]:
    """'N' or 'T' as BLAS sees the matrix, and the distance of its rows."""
    rows, columns = place.strides[-2:]
    n, m = place.shape[-2:]
    flipped = columns != 1 and m != 1
    if flipped and rows != 1 and n != 1:
        raise AssertionError(f"no matrix for BLAS: {place}")
    step = columns if flipped else rows
    least = n if flipped else m
    # a single row or column may have any stride
    text = code.emit(f"call i64 @llvm.smax.i64(i64 {code.size(step)}, i64 {code.size(least)})")
    return str(ord("T" if flipped else "N")), code.emit(
        f"call i64 @llvm.smax.i64(i64 {text}, i64 1)"
    )
