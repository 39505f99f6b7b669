"""Graph -> Program: fusion, views, buffers.  Backends print Programs; the core prints no code."""

from .build import schedule
from .check import check, check_layout
from .conditions import Need, check_conditions, conditions
from .kinds import draws_bits, draws_by_row, draws_numbers, fetches_rows
from .lower import lower
from .memory import Demand, Layout, Piece, demand, in_place, layout, replaces
from .outside import closed, operands
from .packs import packed
from .program import (
    Buffer,
    Kernel,
    Loop,
    Outside,
    Pack,
    Place,
    Product,
    Program,
    Rows,
    Step,
    contiguous,
    cost,
    moved,
    operations,
    title,
    touched,
)

__all__ = [
    "Buffer", "Demand", "Kernel", "Layout", "Loop", "Need", "Outside", "Pack", "Piece", "Place",
    "Product", "Program", "Rows", "Step", "check", "check_conditions", "check_layout", "closed",
    "conditions", "contiguous", "cost", "demand", "draws_bits", "draws_by_row", "draws_numbers",
    "fetches_rows", "in_place", "layout", "lower", "moved", "operands", "operations", "packed",
    "replaces", "schedule", "title", "touched",
]  # fmt: skip
