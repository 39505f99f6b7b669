"""The form of the op table: what is tested of every operation, on every backend.

A `Case` says how to build an operation, what NumPy gives for it, and on which samples.  The
families are in the modules beside this one; `runner.cases()` is all of them.  Backends of others
can run them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# (random generator, dtype) -> the operands of one call
Sample = Callable[[np.random.Generator, np.dtype[Any]], list[Array]]

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
BOOL = ("bool",)
NUMBERS = FLOATS + INTEGERS
ALL = NUMBERS + BOOL


@dataclass(frozen=True)
class Case:
    """One operation, or one way of using it.

    name       unique; starts with the name of what is tested: "sum", "sum keepdims"
    build      nodes -> node (or tuple of nodes)
    reference  arrays -> what NumPy or SciPy gives, dtype and shape included
    samples    operands; all sizes of one sample are distinct where the op allows it
    dtypes     dtypes of the operands that the samples make
    covers     names of the ops in OPS that this case is a test of
    wrt        operands to differentiate by; None: all floats; (): the op has no gradient
    ulp        allowed difference in units in the last place of the largest magnitude; 0: equal
    others     the same for backends that compute it otherwise than NumPy; None: as `ulp`
    torch      the same in PyTorch (tensors -> tensor), where it has the op
    torch_grad whether PyTorch defines the same gradient
    each       ulp are those of every element itself, not of the largest
    symbolic   whether it can be built when every size but 1 is unknown
    order      how often it can be differentiated, at most 2 are checked
    """

    name: str
    build: Callable[..., Any]
    reference: Callable[..., Any]
    samples: Sequence[Sample]
    dtypes: Sequence[str] = FLOATS
    covers: Sequence[str] = ()
    wrt: Sequence[int] | None = None
    ulp: float = 4
    others: float | None = None
    torch: Callable[..., Any] | None = None
    torch_grad: bool = True
    each: bool = False
    symbolic: bool = True
    order: int = 2


@dataclass(frozen=True)
class Bad:
    """A mistake: `build()` must raise `error` with a message that the pattern `match` is found in.

    The message must also say where the mistake was made, as every operation's messages do.
    """

    name: str
    build: Callable[[], Any]
    error: type[Exception]
    match: str


def values(
    rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], low: float, high: float
) -> Array:
    """Random values of a dtype in [low, high); unsigned ones start at 0, bools are mixed."""
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        first = max(int(np.floor(low)), 0) if dtype.kind == "u" else int(np.floor(low))
        return rng.integers(first, max(int(np.ceil(high)), first + 1), shape).astype(dtype)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype)


def operands(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Sample:
    """A sample: one operand of the case's dtype for every shape, in [low, high)."""
    return lambda rng, dtype: [values(rng, dtype, s, low, high) for s in shapes]


def strided(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Sample:
    """As `operands`, but non-contiguous: transposed, with steps and a negative stride."""

    def make(rng: np.random.Generator, dtype: np.dtype[Any]) -> list[Array]:
        found = []
        for shape in shapes:
            wide = values(rng, dtype, tuple(2 * s for s in reversed(shape)), low, high)
            view = wide[tuple(slice(None, None, 2) for _ in shape)].transpose()
            found.append(view[::-1] if view.ndim else view)
        return found

    return make


# samples of one operand that every unary op should take
def unary(low: float = -2.0, high: float = 2.0) -> list[Sample]:
    shapes: list[tuple[int, ...]] = [(2, 3), (), (0,), (3, 0, 2), (1,), (1, 5, 1), (7,)]
    return [operands(s, low=low, high=high) for s in shapes] + [strided((3, 4), low=low, high=high)]


def binary(low: float = -2.0, high: float = 2.0) -> list[Sample]:
    """Samples of two operands, broadcast in every way."""
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3), ()), ((), ()), ((2, 1), (1, 3)),
        ((0, 3), (3,)), ((4, 1, 3), (5, 1)), ((1,), (1, 1)),
    ]  # fmt: skip
    made = [operands(a, b, low=low, high=high) for a, b in pairs]
    return [*made, strided((3, 4), (4,), low=low, high=high)]
