"""graphdrop as an extra framework of a peers' harness: build(workload) -> .step(), .loss().

The harness provides `common.problem`: initial weights, data and settings of a workload.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import problem  # type: ignore[import-not-found]
from models import MODELS, Model


class Workload:
    """One workload's compiled step."""

    def __init__(self, name: str, variant: str, rate: Any, seed: int, lr: Any, sizes: Any) -> None:
        made = problem(name, rate=rate, seed=seed, lr=lr, **sizes)
        model = Model(made.params, made.data, seed, variant or "auto")
        self._step = MODELS[name](model, made.cfg)
        self._loss: Any = float("nan")

    def step(self) -> None:
        self._loss = self._step()

    def loss(self) -> float:
        return float(self._loss)


def build(
    workload: str, variant: str = "", rate: Any = None, seed: int = 0, lr: Any = None, **sizes: Any
) -> Workload:
    """The workload on the backend called `variant`."""
    return Workload(workload, variant, rate, seed, lr, sizes)
