"""The rewrite rules, and the order in which they run.

Exact rules first, on the graph as the user wrote it; then, with them, those that change rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import rewrite
from ..graph import Node
from ..ops.leaf import Shared
from ..rewrite import Rule, Trace
from .branches import BRANCHES, optimize_branches
from .fold import FOLD
from .gradients import GRADIENTS
from .inference import INFERENCE
from .scan import optimize_scans
from .shapes import SHAPES
from .simplify import SIMPLIFY
from .sparse import sparse_updates
from .stabilize import STABILIZE

EXACT: tuple[Rule, ...] = (*INFERENCE, *BRANCHES, *SIMPLIFY, *SHAPES, *FOLD)

PHASES: dict[str, tuple[Rule, ...]] = {
    "exact": EXACT,
    "stabilize": (*STABILIZE, *GRADIENTS, *EXACT),
}


def optimize(outputs: Iterable[Node], updated: Sequence[Shared] = ()) -> tuple[list[Node], Trace]:
    """`outputs` rewritten by all the phases, and the trace of what fired.

    updated  shared variables, the new values of which are the last outputs
    """
    nodes, trace = rewrite.optimize(outputs, PHASES)
    nodes, trace = optimize_branches(nodes, trace, optimize)
    nodes, trace = optimize_scans(nodes, trace, optimize)
    return sparse_updates(updated, nodes, trace), trace
