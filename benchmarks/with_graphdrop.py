"""The workloads in graphdrop, on the backend that GRAPHDROP_BACKEND names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import models
from problems import Problem

from graphdrop.backend import get_backend
from graphdrop.tree import flatten

BACKEND = get_backend("auto")  # imports its compiler now, as `import jax` does


def wait(result: Any) -> None:
    """Until a step's result is there."""
    BACKEND.to_host(flatten(result)[0][0])


def _build(name: str, p: Problem) -> Callable[[], Any]:
    return models.MODELS[name](models.Model(p.weights, p.data, 0, "auto"), p.settings)


MODELS = {name: partial(_build, name) for name in models.MODELS}
