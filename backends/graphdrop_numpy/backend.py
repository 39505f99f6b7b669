"""The numpy backend's `Backend` value."""

from __future__ import annotations

import numpy as np

from graphdrop.backend import Backend

from .bodies import PARTS
from .program import NumpyProgram
from .rules import RULES

BACKEND = Backend(
    name="numpy",
    rules={**RULES, **PARTS},
    compile=NumpyProgram,
    to_device=np.asarray,
    to_host=np.asarray,
)
