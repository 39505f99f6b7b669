"""The op table on the llvm backend: values, with unknown sizes too, and gradients twice."""

from __future__ import annotations

import pytest

from graphdrop.testing import runner
from graphdrop.testing.table import Case

CASES = runner.cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.replace(" ", "_"))


@each_case
def test_values(case: Case) -> None:
    for dtype in case.dtypes:
        runner.check_values(case, dtype, backend="llvm")


@each_case
def test_values_with_unknown_sizes(case: Case) -> None:
    if not case.symbolic:
        pytest.skip("needs known sizes")
    runner.check_values(case, case.dtypes[0], backend="llvm", symbolic=True)


DIFFERENTIABLE = [c for c in CASES if c.wrt != () and "float64" in c.dtypes]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda c: c.name.replace(" ", "_"))
def test_gradients(case: Case) -> None:
    assert runner.check_gradients(case, backend="llvm") > 0
