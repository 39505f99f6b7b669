"""The oracle: every operation as one line of NumPy, evaluated node by node.  Obviously right."""

from .backend import BACKEND

__all__ = ["BACKEND"]
