"""Graph -> Program: fusion, views, buffers.  Backends print Programs; the core prints no code."""

from .build import schedule
from .check import check, check_layout
from .memory import Layout, layout
from .program import (
    Buffer,
    Kernel,
    Loop,
    Outside,
    Place,
    Product,
    Program,
    Rows,
    Step,
    contiguous,
    moved,
    operations,
    title,
    touched,
)

__all__ = [
    "Buffer", "Kernel", "Layout", "Loop", "Outside", "Place", "Product", "Program", "Rows", "Step",
    "check", "check_layout", "contiguous", "layout", "moved", "operations", "schedule",
    "title", "touched",
]  # fmt: skip
