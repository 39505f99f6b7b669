"""The op table on the llvm backend: values, with unknown sizes too, and gradients twice."""

from __future__ import annotations

import pytest

from graphdrop.testing import parity, runner
from graphdrop.testing.table import Case

BACKENDS = ("numpy", "llvm")
CASES = runner.cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.replace(" ", "_"))


@each_case
def test_values_with_known_sizes(case: Case) -> None:
    runner.check_values(case, case.dtypes[-1], backend="llvm")


@each_case
def test_values_of_every_dtype(case: Case) -> None:
    """With unknown sizes where there may be any; all shapes for the first and for float32.

    What is printed for a shape does not depend on the dtype.
    """
    runner.check_values(case, *case.dtypes, backend="llvm", symbolic=case.symbolic, few=2)


DIFFERENTIABLE = [c for c in CASES if parity.has_gradients(c)]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda c: c.name.replace(" ", "_"))
def test_gradients(case: Case) -> None:
    """Twice; that the oracle's are right is tested with differences."""
    row = parity.gradients(case, BACKENDS)
    assert row.agrees, row
