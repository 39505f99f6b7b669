"""The op table, draws and training on the cupy backend, whose kernels run on the CPU here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphdrop.testing import parity, runner
from graphdrop.testing.table import Case

from . import cudashim

SHIM = cudashim.register()
BACKENDS = ("numpy", SHIM)
CASES = runner.cases()


def name(case: Case) -> str:
    return case.name.replace(" ", "_")


@pytest.mark.parametrize("case", CASES, ids=name)
def test_values(case: Case) -> None:
    """All shapes in one dtype, two in the others; what is printed does not depend on the dtype."""
    few = replace(case, samples=case.samples[:2])
    for dtype in case.dtypes:
        which = case if dtype == case.dtypes[-1] else few
        runner.check_values(which, dtype, backend=SHIM, symbolic=case.symbolic)


@pytest.mark.parametrize("case", [c for c in CASES if parity.has_gradients(c)], ids=name)
def test_gradients(case: Case) -> None:
    """Twice; that the oracle's are right is tested with differences."""
    row = parity.gradients(case, BACKENDS)
    assert row.agrees, row


@pytest.mark.parametrize("draw", parity.draws())
def test_draws(draw: str) -> None:
    row = parity.drawn(draw, BACKENDS)
    assert row.agrees, row


@pytest.mark.parametrize("model", parity.MODELS)
def test_training_and_checkpoints(model: str) -> None:
    for row in (parity.trained(model, BACKENDS), parity.carried_on(model, (SHIM, "numpy"))):
        assert row.agrees, row
