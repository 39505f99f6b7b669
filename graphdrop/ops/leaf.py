"""Leaves: inputs and shared values (constants and sizes are in `op.py`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import leases
from ..arrays import is_on_device, to_host
from ..errors import ArgumentError, DTypeError, GradientError, ShapeError
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_literal, as_node, constant_value, op, size
from ..types import Dim, Size, TensorType, as_dtype, fresh_dim, named_dim, value_dim

_serials = itertools.count()


def as_size(value: Any, label: str = "size") -> Size:
    """A size from an int, a name, None (unknown), a symbolic size or an integer scalar node."""
    if value is None:
        return fresh_dim(label)
    if isinstance(value, str):
        return named_dim(value)
    if isinstance(value, Node):
        if value.ndim or not value.tensor_type.is_integer:
            raise ShapeError(f"a size must be an integer scalar, got {value!r}")
        known = constant_value(value)
        if known is not None:
            return as_size(int(known), label)
        found: Size = value.params["size"] if value.op is size else value_dim(value)
        return found
    if isinstance(value, (bool, float, np.bool_, np.floating)):
        raise ShapeError(f"a size must be an int, a name, None or a symbolic size, got {value!r}")
    if isinstance(value, (int, np.integer)):
        if value < 0:
            raise ShapeError(f"a size cannot be negative, got {value}")
        return int(value)
    if not isinstance(value, Dim):
        raise ShapeError(f"a size must be an int, a name, None or a symbolic size, got {value!r}")
    return value


def as_shape(shape: Any, label: str = "shape") -> tuple[Size, ...]:
    """A tuple of sizes from one size or a sequence of sizes."""
    if isinstance(shape, (tuple, list)):
        return tuple(as_size(s, f"{label}[{i}]") for i, s in enumerate(shape))
    return (as_size(shape, f"{label}[0]"),)


@op(name="input")
def _input(*, name: str | None, serial: int, type: TensorType) -> TensorType:
    """A value given at every call of a compiled function."""
    return type


@op(name="shared")
def _shared(*, name: str | None, serial: int, type: TensorType) -> TensorType:
    """A value that lives between calls and that updates replace."""
    return type


def tensor(name: str | None = None, dtype: Any = DEFAULT_FLOAT, shape: Any = ()) -> Node:
    """An input.  Each size is an int, a name (equal wherever it stands) or None (unknown)."""
    if name is not None and not isinstance(name, str):
        raise ArgumentError(
            f"an input's name must be a string, got {name!r}; for a value use "
            f"gd.constant or gd.shared"
        )
    type = TensorType(as_dtype(dtype), as_shape(shape, f"{name or 'input'}.shape"))
    return _input.make((), {"name": name, "serial": next(_serials), "type": type})


def _constructor(rank: int, kind: str, dtype: Any) -> Callable[..., Node]:
    def make(name: str | None = None, *, shape: Any = None, dtype: Any = dtype) -> Node:
        sizes = (None,) * rank if shape is None else shape
        if not isinstance(sizes, (tuple, list)):
            sizes = (sizes,)
        if len(sizes) != rank:
            raise ShapeError(
                f"{make.__name__} has {rank} axes, but shape={shape!r} has {len(sizes)}"
            )
        return tensor(name, dtype, sizes)

    make.__name__ = kind
    make.__doc__ = f"An input with {rank} axes of dtype {np.dtype(dtype).name}; see `tensor`."
    return make


scalar = _constructor(0, "scalar", np.float32)
vector = _constructor(1, "vector", np.float32)
matrix = _constructor(2, "matrix", np.float32)
tensor3 = _constructor(3, "tensor3", np.float32)
tensor4 = _constructor(4, "tensor4", np.float32)
iscalar = _constructor(0, "iscalar", np.int32)
ivector = _constructor(1, "ivector", np.int32)
imatrix = _constructor(2, "imatrix", np.int32)
itensor3 = _constructor(3, "itensor3", np.int32)
itensor4 = _constructor(4, "itensor4", np.int32)
lscalar = _constructor(0, "lscalar", np.int64)
lvector = _constructor(1, "lvector", np.int64)
lmatrix = _constructor(2, "lmatrix", np.int64)
ltensor3 = _constructor(3, "ltensor3", np.int64)
ltensor4 = _constructor(4, "ltensor4", np.int64)
dscalar = _constructor(0, "dscalar", np.float64)
dvector = _constructor(1, "dvector", np.float64)
dmatrix = _constructor(2, "dmatrix", np.float64)
dtensor3 = _constructor(3, "dtensor3", np.float64)
dtensor4 = _constructor(4, "dtensor4", np.float64)


def flag(name: str = "training") -> Node:
    """A run-time bool, say whether the model is training."""
    return tensor(name, bool, ())


class Shared(Node):
    """A node whose value lives between calls.  `get_value` and `set_value` copy.

    The value is where the function that used it last computes: in NumPy's memory or a device's.
    """

    __slots__ = ("array", "lock")

    def __init__(self, array: np.ndarray[Any, Any], name: str | None) -> None:
        type = TensorType(array.dtype, array.shape)
        params = MappingProxyType({"name": name, "serial": next(_serials), "type": type})
        super().__init__(_shared, (), params, type)
        self.array = array  # replaced, or written to while nobody has a lease
        self.lock = leases.lock_of(self)  # held by a call that updates this value

    def get_value(self) -> np.ndarray[Any, Any]:
        """A copy of the current value."""
        with leases.reading((self,)) as (array,):
            return np.array(to_host(array))

    def set_value(self, value: Any) -> None:
        """Replace the value; shape and dtype must stay."""
        known = isinstance(value, np.ndarray) or is_on_device(value)
        new = np.array(to_host(value), dtype=None if known else self.dtype)
        if new.shape != self.shape:
            raise ShapeError(f"{self!r} takes shape {self.shape}, got {new.shape}")
        if new.dtype != self.dtype:
            raise DTypeError(
                f"{self!r} takes {self.dtype}, got {new.dtype}; "
                f"use value.astype({self.dtype.name!r})"
            )
        self.array = new


def shared(value: Any, name: str | None = None, dtype: Any = None) -> Shared:
    """A value that lives between calls of compiled functions: a parameter, an optimizer's state."""
    if isinstance(value, Node):
        raise ArgumentError(f"shared() takes a value, got the node {value!r}")
    array = np.array(as_literal(value, dtype), order="C")
    return Shared(array, name)


# --------------------------------------------------------------------------------------------
# custom gradients

GradientRule = Callable[..., Sequence[Any]]


@op(view=True)
def override_gradient(y: TensorType, *inputs: TensorType, rule: GradientRule) -> TensorType:
    """`y`, with `rule(g, y, *inputs)` as its gradient for `inputs`; none flows through `y`."""
    return y


@override_gradient.vjp
def _(g: Node, y: Node, value: Node, *inputs: Node, rule: GradientRule) -> Sequence[Node | None]:
    found = rule(g, y, *inputs)
    if len(found) != len(inputs):
        raise GradientError(f"a custom gradient gave {len(found)} values for {len(inputs)} inputs")
    return None, *(None if f is None else as_node(f) for f in found)


def custom_gradient(y: Any, inputs: Sequence[Any], vjp: GradientRule) -> Node:
    """`y` with a gradient of your own: `vjp(g, y, *inputs)` returns one node or None per input.

    The rule is called when gradients are built, with nodes, so it can be differentiated again.
    """
    return override_gradient(y, *inputs, rule=vjp)


def clip_gradient(x: Any, low: float, high: float) -> Node:
    """`x`, whose incoming gradient is limited to [low, high]."""
    from .elementwise import clip

    return custom_gradient(x, [x], lambda g, y, x: (clip(g, low, high),))
