"""graphdrop as an extra framework of a peers' harness: build(workload) -> .step(), .loss().

The harness provides `common.problem`: initial weights, data and settings of a workload.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from common import problem  # type: ignore[import-not-found]
from models import MODELS, Model

from graphdrop.backend import get_backend

get_backend("auto")  # import its compiler now, as `import jax` does


class Workload:
    """One workload's compiled step, and the numbers that must agree with other frameworks'."""

    def __init__(self, name: str, variant: str, rate: Any, seed: int, lr: Any, sizes: Any) -> None:
        made = problem(name, rate=rate, seed=seed, lr=lr, **sizes)
        self.name, self.problem = name, made
        self._step = MODELS[name](Model(made.params, made.data, seed, variant or "auto"), made.cfg)
        self._made: Any = float("nan")

    def step(self) -> None:
        self._made = self._step()

    def loss(self) -> float:
        if self.name == "mc":
            mean = self._made[0]
            return float(-np.log(mean[np.arange(len(mean)), self.problem.data["y"]]).mean())
        if self.name == "tiny_grad":
            return float(sum(g.sum() for g in self._made))
        return float(self._made[0] if isinstance(self._made, tuple) else self._made)

    def checks(self) -> dict[str, float]:
        if self.name == "mc":
            return {"var": float(self._made[1].mean())}
        if self.name not in ("drop_bw", "chain", "deep", "softmax_ce"):
            return {}
        gradient = self._made[1]
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        if self.name == "drop_bw":
            return {"gnorm": norm, "zeros": float((gradient == 0).mean())}
        return {"gnorm": norm * (1e3 if self.name == "chain" else 1)}


def build(
    workload: str, variant: str = "", rate: Any = None, seed: int = 0, lr: Any = None, **sizes: Any
) -> Workload:
    """The workload on the backend called `variant`."""
    return Workload(workload, variant, rate, seed, lr, sizes)
