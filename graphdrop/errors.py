"""The exception tree.

Every error a user can cause derives from `GraphdropError`, and from the builtin a NumPy user would
expect (`ValueError`, `TypeError`, ...).  A message says what was attempted, on which types, where
the user built it (file:line) and what to do instead.
"""

from typing import Any

import numpy as np


class GraphdropError(Exception):
    """Base of all errors raised on purpose by graphdrop."""


class ShapeError(GraphdropError, ValueError):
    """Sizes or ranks do not fit, when building the graph or when calling a function."""


class DTypeError(GraphdropError, TypeError):
    """A dtype that the operation does not accept."""


class ArgumentError(GraphdropError, ValueError):
    """A parameter of an operation or of a library function has a value it cannot have."""


class OutOfRangeError(GraphdropError, IndexError):
    """An index outside its axis: of a known size when building the graph, else at the call."""


class GraphError(GraphdropError, TypeError):
    """A symbolic node was used where a value is needed (`if x > 0`, `np.asarray(x)`, ...)."""


class GradientError(GraphdropError, ValueError):
    """A gradient that does not exist: of a non-scalar, through an integer, of some op."""


class DisconnectedError(GradientError):
    """The cost does not depend on a variable it is differentiated by."""


class RandomError(GraphdropError, ValueError):
    """Misuse of a random stream: a rate out of range, two draws with one site, a bad seed."""


class InputError(GraphdropError, ValueError):
    """A compiled function's inputs do not fit: missing, unused, unknown, wrong dtype or rank."""


class BackendError(GraphdropError, RuntimeError):
    """A backend is unknown, not installed, or cannot run an operation."""


class MissingError(BackendError):
    """What a backend needs is not installed."""


class RewriteError(GraphdropError, RuntimeError):
    """A rewrite rule broke its contract: it made another type, or rules do not end."""


class ScheduleError(GraphdropError, RuntimeError):
    """A program breaks the rules of programs: a mistake of graphdrop's own."""


class NanError(GraphdropError, ArithmeticError):
    """The NaN detector found a NaN or an infinity."""


class LinAlgError(GraphdropError, np.linalg.LinAlgError):
    """A matrix for which the operation has no result: singular, or not positive definite."""


class CheckError(GraphdropError, AssertionError):
    """A run-time assertion written with `gd.assert_`, or `gd.testing.check_grad`, failed."""


class CheckpointError(GraphdropError, ValueError):
    """A checkpoint file is malformed, truncated, tampered with, or does not fit the model."""


class DependencyError(GraphdropError, ImportError):
    """An optional package is not installed; the message says how to install it."""


def positive(value: Any, what: str) -> int:
    """A count as an int; ArgumentError if it is not an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"{what} must be a positive integer, got {value!r}")
    return int(value)
