"""Products of matrices through BLAS.

A row-major matrix is a column-major one transposed, so C = A B is asked for as C' = B' A'; which of
the operands are transposed once more is seen from their strides.
"""

from __future__ import annotations

from graphdrop.graph import Node
from graphdrop.schedule import Place, Product
from graphdrop.types import Size, num_elements

from .module import Code, Module

ROUTINES = {"float32": "sgemm", "float64": "dgemm"}


def supports(node: Node) -> bool:
    return node.dtype.name in ROUTINES


def print_product(product: Product, module: Module) -> tuple[str, list[int]]:
    """The name of the function that calls BLAS for every matrix of the batch, and its buffers."""
    code = Code(module, own=True)
    routine = ROUTINES[product.node.dtype.name]
    kind = "float" if routine == "sgemm" else "double"
    module.needs[f"declare void @{routine}(ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, ptr, "
                 "ptr, ptr)"] = None  # fmt: skip
    n, m = product.node.shape[-2:]
    k = product.left.shape[-1]
    code.do("br label %batch")
    code.label("batch")
    code.do("%i = phi i64 [ %first, %entry ], [ %i.next, %one ]")
    code.do("%more = icmp slt i64 %i, %last")
    code.do("br i1 %more, label %one, label %done")
    code.label("one")
    places = (product.left, product.right, product.out)
    a, b, c = (_matrix(code, p, product.node.shape[:-2], kind) for p in places)
    flip_b, step_b = _leading(code, product.right)
    flip_a, step_a = _leading(code, product.left)
    step_c = code.emit(f"call i64 @llvm.smax.i64(i64 {code.size(m)}, i64 1)")
    numbers = [m, n, k]
    held = [_held(code, "i32", code.emit(f"trunc i64 {code.size(s)} to i32"))
            for s in numbers]  # fmt: skip
    steps = [_held(code, "i32", code.emit(f"trunc i64 {s} to i32"))
             for s in (step_b, step_a, step_c)]  # fmt: skip
    flips = [_held(code, "i8", f) for f in (flip_b, flip_a)]
    one, zero = _held(code, kind, "1.0"), _held(code, kind, "0.0")
    code.do(
        f"call void @{routine}(ptr {flips[0]}, ptr {flips[1]}, ptr {held[0]}, ptr {held[1]}, "
        f"ptr {held[2]}, ptr {one}, ptr {b}, ptr {steps[0]}, ptr {a}, ptr {steps[1]}, ptr {zero}, "
        f"ptr {c}, ptr {steps[2]})"
    )
    code.do("%i.next = add i64 %i, 1")
    code.do("br label %batch")
    code.label("done")
    code.do("ret void")
    return module.step([*code.entry(), *code.lines]), code.places


def units(product: Product) -> Size:
    """How many products there are."""
    return num_elements(product.node.shape[:-2])


def _held(code: Code, kind: str, value: str) -> str:
    """The address of a value, as Fortran takes its arguments."""
    slot = code.once(f"alloca {kind}")
    code.do(f"store {kind} {value}, ptr {slot}")
    return slot


def _matrix(code: Code, place: Place, batch: tuple[Size, ...], kind: str) -> str:
    """The address of matrix number %i."""
    offset, rest = code.size(place.offset), "%i"
    lead = len(batch) - (len(place.shape) - 2)
    for axis in reversed(range(len(batch))):
        size = code.size(batch[axis])
        index = code.emit(f"urem i64 {rest}, {size}") if axis else rest
        if axis:
            rest = code.emit(f"udiv i64 {rest}, {size}")
        own = axis - lead
        if own >= 0 and place.shape[own] != 1:
            offset = code.add(offset, code.mul(index, code.size(place.strides[own])))
    base = code.buffer(place.buffer.number)
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
