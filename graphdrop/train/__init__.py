"""Training: minibatches, progress, validation, early stopping, checkpoints and exact resume."""

from .batches import order
from .history import History
from .loop import evaluate, fit

__all__ = ["History", "evaluate", "fit", "order"]
