"""What a rule is, and the table of one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from graphdrop.op import Op

Array: TypeAlias = np.ndarray[Any, Any]
# (operand arrays, **params) -> result array (a tuple of arrays for an op with several results)
Rule: TypeAlias = Callable[..., Any]
Table: TypeAlias = dict[Op, Rule]
