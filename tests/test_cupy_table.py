"""The op table, draws and training on the cupy backend, whose kernels run on the CPU here."""

from __future__ import annotations

import pytest

from graphdrop.testing import parity, runner
from graphdrop.testing.table import Case

from . import cudashim

SHIM = cudashim.register()
pytestmark = cudashim.needs_compiler
BACKENDS = ("numpy", SHIM)
CASES = runner.cases()


def name(case: Case) -> str:
    return case.name.replace(" ", "_")


@pytest.mark.parametrize("case", CASES, ids=name)
def test_values(case: Case) -> None:
    """In every dtype, against the oracle, whose own values are tested elsewhere."""
    wrong = [row for row in parity.values(case, BACKENDS) if not row.agrees]
    assert not wrong


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
