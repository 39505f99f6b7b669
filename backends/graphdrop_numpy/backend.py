"""The numpy backend's `Backend` value."""

from __future__ import annotations

from graphdrop.arrays import to_host
from graphdrop.backend import Backend

from .bodies import PARTS
from .program import NumpyProgram
from .rules import RULES

BACKEND = Backend(
    name="numpy",
    rules={**RULES, **PARTS},
    compile=NumpyProgram,
    to_device=to_host,
    to_host=to_host,
)
