"""Running the op table on a backend; what tests/test_ops.py does, for backends of others too.

Each `check_` function raises AssertionError with the case, the operands and what went wrong.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import CheckError, GraphdropError
from ..function import function
from ..graph import Node
from ..op import as_node
from ..ops.leaf import tensor
from ..tree import flatten
from .gradients import check_grad
from .table import Array, Bad, Case

FAMILIES = (
    "elementwise", "shape", "index", "sort", "reduce", "linalg", "conv", "random", "losses", "scan",
)  # fmt: skip

# ops that are no computation: values come from the caller, or are taken apart by the backend
LEAVES = ("constant", "get", "input", "random_key", "shared", "size", "slot")


def _family(name: str, attribute: str) -> list[Any]:
    module = importlib.import_module(f"{__package__}.{name}")
    return list(getattr(module, attribute, []))


def cases() -> list[Case]:
    """Every case of the table; names are unique."""
    found: list[Case] = [c for name in FAMILIES for c in _family(name, "CASES")]
    names = [c.name for c in found]
    double = {n for n in names if names.count(n) > 1}
    assert not double, f"two cases have the names {double}"
    return found


def mistakes() -> list[Bad]:
    """Every mistake of the table."""
    return [b for name in FAMILIES for b in _family(name, "BAD")]


def samples(case: Case, dtype: Any) -> Iterator[list[Array]]:
    """The operands of a case in one dtype, the same in every run."""
    for i, sample in enumerate(case.samples):
        yield sample(np.random.default_rng([zlib.crc32(case.name.encode()), i]), np.dtype(dtype))


def inputs_for(arrays: Sequence[Array], symbolic: bool = False, first: int = 0) -> list[Node]:
    """Input nodes for operands, x0, x1, ... from `first` on; with `symbolic`, every size but 1 is
    unknown.
    """
    return [
        tensor(f"x{i}", a.dtype, [None if symbolic and s != 1 else s for s in a.shape])
        for i, a in enumerate(arrays, first)
    ]


def check_values(
    case: Case,
    *dtypes: Any,
    backend: str = "numpy",
    optimize: bool = True,
    symbolic: bool = False,
    ulp: float | None = None,
    few: int | None = None,
) -> None:
    """Value, dtype and shape on every sample; operands untouched; results new, and repeatable.

    few  so many samples of each dtype will do, but for the first dtype and float32

    All are computed by one function: to compile takes longer than to run.
    """
    if ulp is None:
        ulp = case.ulp if backend == "numpy" or case.others is None else case.others
    inputs: list[Node] = []
    given: list[list[Array]] = []
    built: list[list[Node]] = []
    for dtype in dtypes:
        all_of_it = few is None or dtype in (dtypes[0], "float32")
        which = case if all_of_it else replace(case, samples=case.samples[:few])
        for arrays in samples(which, dtype):
            nodes = inputs_for(arrays, symbolic, len(inputs))
            inputs += nodes
            given.append(arrays)
            built.append([as_node(n) for n in flatten(case.build(*nodes))[0]])
    compiled = function(
        inputs, built, backend=backend, optimize=optimize, on_unused_input="ignore"
    )  # fmt: skip
    operands = [a for arrays in given for a in arrays]
    before = [a.tobytes() for a in operands]
    found = compiled(*operands)
    assert [a.tobytes() for a in operands] == before, f"{case.name} changed its operands"
    again = compiled(*operands)
    for arrays, nodes, results, repeated in zip(given, built, found, again, strict=True):
        what = f"{case.name} of {', '.join(f'{a.dtype}{list(a.shape)}' for a in arrays)}"
        what += " with unknown sizes" if symbolic else ""
        with np.errstate(all="ignore"):
            expected = flatten(case.reference(*arrays))[0]
        assert len(results) == len(expected), f"{what} gave {len(results)} results"
        for node, result, right in zip(nodes, results, expected, strict=True):
            compare(what, result, np.asarray(right), ulp, case.each)
            assert node.dtype == result.dtype, f"{what} is declared {node!r}"
            assert not any(np.shares_memory(result, a) for a in arrays), f"{what} is no copy"
        for first, second in zip(results, repeated, strict=True):
            assert first.tobytes() == second.tobytes(), f"{what} differs when called again"
            assert not np.shares_memory(first, second), f"{what} hands out one array twice"


def compare(what: str, result: Array, expected: Array, ulp: float, each: bool = False) -> None:
    """Equal dtype and shape, NaN and infinities in the same places, values within `ulp`."""
    assert result.dtype == expected.dtype, f"{what} is {result.dtype}, not {expected.dtype}"
    assert result.shape == expected.shape, f"{what} has shape {result.shape}, not {expected.shape}"
    if expected.dtype.kind != "f" or ulp == 0:
        same = np.array_equal(result, expected, equal_nan=expected.dtype.kind == "f")
        assert same, f"{what} is\n{result}\nnot\n{expected}"
        return
    finite = np.isfinite(expected)
    special = np.array_equal(result[~finite], expected[~finite], equal_nan=True)
    usual = bool(np.isfinite(result[finite]).all())
    assert (special, usual) == (True, True), f"{what} is\n{result}\nnot\n{expected}"
    if not finite.any():
        return
    # differences in float64, where those of float16 and float32 are exact
    right, got = expected[finite].astype(np.float64), result[finite].astype(np.float64)
    size = np.abs(expected[finite]) if each else np.max(np.abs(expected[finite]))
    # the spacing above the largest number of a dtype is infinite, below it is not
    largest = np.nextafter(np.finfo(expected.dtype).max, 0, dtype=expected.dtype)
    unit = np.spacing(np.minimum(size, largest)).astype(np.float64)
    off = np.abs(got - right) / unit
    assert np.max(off) <= ulp, (
        f"{what} is off by {np.max(off):.3g} ulp, {ulp} are allowed:\n{result}\nnot\n{expected}"
    )


def check_gradients(case: Case, *, backend: str = "numpy", optimize: bool = True) -> int:
    """First and second derivatives on every sample; how many samples had something to check."""
    if "float64" not in case.dtypes or case.wrt == ():
        return 0
    count = 0
    for arrays in samples(case, np.float64):
        wrt = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
        wrt = list(case.wrt) if case.wrt is not None else wrt
        if not wrt:
            continue
        try:
            check_grad(
                case.build, arrays, order=min(case.order, 2), wrt=wrt, backend=backend,
                optimize=optimize,
            )  # fmt: skip
        except CheckError as error:
            shapes = ", ".join(str(list(a.shape)) for a in arrays)
            raise AssertionError(f"{case.name} of shapes {shapes}: {error}") from None
        count += 1
    return count


def message_of(bad: Bad) -> str:
    """The message of a mistake, which must be of the right class and say the right thing."""
    raised: GraphdropError | None = None
    built: Any = None
    try:
        built = bad.build()
    except GraphdropError as error:
        raised = error
    assert raised is not None, f"{bad.name} raises nothing and gives {built!r}"
    message, kind = str(raised), type(raised)
    assert kind is bad.error, f"{bad.name} raises {kind.__name__}: {message}"
    assert re.search(bad.match, message), f"{bad.name}: no {bad.match!r} in {message!r}"
    return message
