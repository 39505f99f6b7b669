"""Every row of the op table on the numpy backend: values, gradients, messages, completeness."""

from __future__ import annotations

import re

import pytest

from graphdrop.backend import get_backend
from graphdrop.op import OPS
from graphdrop.testing import runner
from graphdrop.testing.table import Bad, Case

CASES = runner.cases()
BAD = runner.mistakes()

each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.replace(" ", "_"))


@each_case
@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
def test_values(case: Case, optimize: bool) -> None:
    runner.check_values(case, *case.dtypes, optimize=optimize)


@each_case
def test_values_with_unknown_sizes(case: Case) -> None:
    if not case.symbolic:
        pytest.skip("needs known sizes")
    ends = dict.fromkeys((case.dtypes[0], case.dtypes[-1]))  # sizes and dtypes do not meet
    runner.check_values(case, *ends, symbolic=True)


DIFFERENTIABLE = [c for c in CASES if c.wrt != () and "float64" in c.dtypes]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda c: c.name.replace(" ", "_"))
def test_gradients(case: Case) -> None:
    assert runner.check_gradients(case) > 0, "no sample has a float operand; use wrt=()"


@pytest.mark.parametrize("bad", BAD, ids=lambda b: b.name.replace(" ", "_"))
def test_mistakes_are_explained(bad: Bad) -> None:
    message = runner.message_of(bad)
    assert re.search(r"^\w+\(.*\): ", message), f"names no operation and operands: {message}"
    # the nearest line outside graphdrop: the table is inside, so it is this file's
    assert re.search(r"built at .*test_ops\.py:\d+", message), f"says not where: {message}"


def test_every_op_is_in_the_table() -> None:
    covered = {name for case in CASES for name in case.covers}
    assert covered <= set(OPS), f"no such ops: {sorted(covered - set(OPS))}"
    missing = set(OPS) - covered - set(runner.LEAVES)
    assert not missing, f"no case covers {sorted(missing)}"


def test_every_op_has_a_numpy_rule() -> None:
    backend = get_backend("numpy")
    known = {op.name for op in backend.rules} | {op.name for op in backend.unsupported}
    missing = set(OPS) - known - set(runner.LEAVES)
    assert not missing, f"neither computed nor listed as unsupported: {sorted(missing)}"
    both = set(backend.rules) & set(backend.unsupported)
    assert not both, f"computed and yet listed as unsupported: {both}"


def test_leaves_exist() -> None:
    assert set(runner.LEAVES) <= set(OPS)
