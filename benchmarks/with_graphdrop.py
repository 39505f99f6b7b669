"""The workloads in graphdrop, on the backend that GRAPHDROP_BACKEND names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import models
from problems import Problem

from graphdrop.backend import get_backend

get_backend("auto")  # import its compiler now, as `import jax` does


def _build(name: str, p: Problem) -> Callable[[], Any]:
    return models.MODELS[name](models.Model(p.weights, p.data, 0, "auto"), p.settings)


MODELS = {name: partial(_build, name) for name in models.MODELS}
