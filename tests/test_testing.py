"""The op table's driver finds what it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.backend import Backend
from graphdrop.errors import DTypeError, ShapeError
from graphdrop.testing import runner
from graphdrop.testing.table import FLOATS, Bad, Case, operands, strided, unary, values

ONE = [operands((2, 3))]


def sin(**changes: Any) -> Case:
    given: dict[str, Any] = {"build": gd.sin, "reference": np.sin, "samples": ONE, **changes}
    return Case("sin of a test", **given)


def test_a_right_case_passes() -> None:
    case = sin(samples=unary())
    for dtype in FLOATS:
        runner.check_values(case, dtype)
        runner.check_values(case, dtype, symbolic=True, optimize=False)
    assert runner.check_gradients(case) == len(case.samples)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (lambda x: np.sin(x).astype(np.float64), "is float32, not float64"),
        (lambda x: np.sin(x)[None], r"has shape \(2, 3\), not \(1, 2, 3\)"),
        (lambda x: np.sin(x) * np.float32(1.00001), "ulp, 4 are allowed"),
        (lambda x: np.where(x > 0, np.sin(x), np.nan).astype(x.dtype), "not\n"),
        (lambda x: (np.sin(x), np.cos(x)), "gave 1 results"),
    ],
)
def test_a_wrong_value_is_found(reference: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        runner.check_values(sin(reference=reference), "float32")


def test_an_exact_case_allows_no_ulp() -> None:
    nearly = sin(reference=lambda x: np.nextafter(np.sin(x), np.inf, dtype=x.dtype))
    runner.check_values(nearly, "float32")
    with pytest.raises(AssertionError, match="not\n"):
        runner.check_values(nearly, "float32", ulp=0)


def test_each_looks_at_small_elements_too() -> None:
    wide = [lambda rng, dtype: [np.array([1e-3, 1.0], dtype)]]
    off = {"reference": lambda x: np.sin(x) + x.dtype.type(1e-8), "samples": wide}
    runner.check_values(sin(**off), "float32")
    with pytest.raises(AssertionError, match="ulp"):
        runner.check_values(sin(**off, each=True), "float32")


def backend_with(monkeypatch: pytest.MonkeyPatch, rule: Any) -> str:
    """A backend like numpy's, whose sine is `rule`."""
    from graphdrop import backend
    from graphdrop_numpy.program import NumpyProgram
    from graphdrop_numpy.rules import RULES

    monkeypatch.setitem(RULES, gd.sin, rule)
    made = Backend("test", RULES, NumpyProgram, np.asarray, np.asarray)
    monkeypatch.setitem(backend._loaded, "test", made)
    return "test"


def test_a_result_that_is_the_operand_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    name = backend_with(monkeypatch, lambda x: x)
    with pytest.raises(AssertionError, match="is no copy"):
        runner.check_values(sin(reference=lambda x: x), "float64", backend=name)


def test_an_operand_that_is_written_to_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(x: Any) -> Any:
        y = np.sin(x)
        x += 1
        return y

    name = backend_with(monkeypatch, careless)
    with pytest.raises(AssertionError, match="changed its operands"):
        runner.check_values(sin(), "float64", backend=name)


def test_a_result_that_changes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def moody(x: Any) -> Any:
        calls.append(1)
        return np.sin(x) if len(calls) == 1 else np.sin(x) + 1

    name = backend_with(monkeypatch, moody)
    with pytest.raises(AssertionError, match="differs when called again"):
        runner.check_values(sin(), "float64", backend=name)


def test_a_wrong_gradient_is_found() -> None:
    def build(x: Any) -> Any:
        return gd.custom_gradient(gd.sin(x), [x], lambda g, y, x: (g,))

    with pytest.raises(AssertionError, match=r"sin of a test of shapes \[2, 3\]: the gradient by"):
        runner.check_gradients(sin(build=build))


def test_the_message_of_a_mistake() -> None:
    def build() -> Any:
        return gd.vector("x", shape=2) + gd.vector("y", shape=3)

    assert "built at" in runner.message_of(Bad("sizes", build, ShapeError, "broadcast"))
    with pytest.raises(AssertionError, match="raises ShapeError"):
        runner.message_of(Bad("sizes", build, DTypeError, "broadcast"))
    with pytest.raises(AssertionError, match="no 'banana' in"):
        runner.message_of(Bad("sizes", build, ShapeError, "banana"))
    with pytest.raises(AssertionError, match="raises nothing"):
        runner.message_of(Bad("nothing", lambda: gd.vector("x"), ShapeError, ""))


def test_samples_are_the_same_in_every_run() -> None:
    case = sin(samples=[operands((3,)), strided((3, 4))])
    first, again = (list(runner.samples(case, "float64")) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not first[1][0].flags.c_contiguous


def test_values_fit_the_dtype() -> None:
    rng = np.random.default_rng(0)
    assert values(rng, np.dtype("uint8"), (50,), -3, 3).max() < 3
    assert set(values(rng, np.dtype("int8"), (99,), -2, 2).tolist()) == {-2, -1, 0, 1}
    assert values(rng, np.dtype("bool"), (), 0, 1).dtype == bool
    assert values(rng, np.dtype("float16"), (), 0, 1).dtype == np.float16
