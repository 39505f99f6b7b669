"""Batch and layer normalization, as functions and as layers with parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_node, composed, constant_value
from ..ops.elementwise import cast, greater, logical_and, rsqrt, where
from ..ops.leaf import Shared, as_shape, shared
from ..ops.reduce import mean
from ..ops.shape import reshape
from ..types import Size, as_dtype, max_size, normalize_axis, num_elements, unify

Updates: TypeAlias = "list[tuple[Shared, Node]]"


@composed
def layer_norm(
    x: Any, gamma: Any = None, beta: Any = None, *, axes: int | Sequence[int] = -1,
    eps: float = 1e-5,
) -> Node:  # fmt: skip
    """(x - mean) / sqrt(var + eps) * gamma + beta over some last axes (Ba et al. 2016).

    gamma, beta  of the sizes of the normalized axes, or None for 1 and 0
    """
    node = _floats(x)
    over = _last_axes(node, axes)
    centred = node - mean(node, axis=over, keepdims=True)
    variance = mean(centred * centred, axis=over, keepdims=True)
    y = centred * rsqrt(variance + eps)
    for name, value in (("gamma", gamma), ("beta", beta)):
        if value is not None:
            _check_sizes(name, as_node(value), tuple(node.shape[a] for a in over))
    y = y if gamma is None else y * as_node(gamma)
    return y if beta is None else y + as_node(beta)


def _last_axes(x: Node, axes: int | Sequence[int]) -> tuple[int, ...]:
    listed = [axes] if isinstance(axes, int) else list(axes)
    over = sorted(normalize_axis(a, x.ndim) for a in listed)
    if not over or over != list(range(x.ndim - len(over), x.ndim)):
        raise ArgumentError(f"axes must be the last ones, such as -1 or (-2, -1), got {axes}")
    return tuple(over)


def _check_sizes(name: str, value: Node, sizes: Sequence[Size]) -> None:
    if value.ndim != len(sizes):
        raise ShapeError(f"{name} must have the sizes {list(sizes)}, got {value!r}")
    for a, b in zip(value.shape, sizes, strict=True):
        unify(a, b, f"{name} does not fit: sizes")


class LayerNorm:
    """`layer_norm` over the last axes, with its gamma (1 at first) and beta (0).

    shape  the sizes of the normalized axes
    """

    def __init__(
        self, shape: int | Sequence[int], *, eps: float = 1e-5, dtype: Any = DEFAULT_FLOAT,
        name: str = "layer_norm",
    ) -> None:  # fmt: skip
        sizes = as_shape(shape if isinstance(shape, int) else tuple(shape))
        self.eps = eps
        self.gamma = shared(np.ones(sizes, as_dtype(dtype)), f"{name}.gamma")
        self.beta = shared(np.zeros(sizes, as_dtype(dtype)), f"{name}.beta")
        self.params: list[Shared] = [self.gamma, self.beta]

    def __call__(self, x: Any) -> Node:
        axes = tuple(range(-self.gamma.ndim, 0))
        return layer_norm(x, self.gamma, self.beta, axes=axes, eps=self.eps)


class BatchNorm:
    """Batch normalization (Ioffe and Szegedy 2015) with running statistics for evaluation.

        y, statistics = bn(x, training)
        step = gd.function([x, t], loss, updates=optim.sgd(...) + statistics)

    size      how many channels there are
    axis      the axis of the channels: 1 for (batch, size) and (batch, size, height, width), -1 for
              channels last.  Statistics are taken over all other axes
    momentum  the weight of this batch in the running statistics
    gamma, beta, mean, var   the scale and shift, and the running statistics
    """

    def __init__(
        self, size: int, *, axis: int = 1, momentum: float = 0.1, eps: float = 1e-5,
        dtype: Any = DEFAULT_FLOAT, name: str = "batch_norm",
    ) -> None:  # fmt: skip
        if not 0 <= momentum <= 1:
            raise ArgumentError(f"momentum must be between 0 and 1, got {momentum}")
        sizes, dtype = as_shape(size), as_dtype(dtype)
        self.axis, self.momentum, self.eps = axis, momentum, eps
        self.gamma = shared(np.ones(sizes, dtype), f"{name}.gamma")
        self.beta = shared(np.zeros(sizes, dtype), f"{name}.beta")
        self.mean = shared(np.zeros(sizes, dtype), f"{name}.mean")
        self.var = shared(np.ones(sizes, dtype), f"{name}.var")
        self.params: list[Shared] = [self.gamma, self.beta]

    def __call__(self, x: Any, training: Any) -> tuple[Node, Updates]:
        """The normalized x, and the updates of the running statistics.

        training  a bool, or a symbolic flag: normalize with the batch's own mean and variance, and
                  follow them; otherwise with the running ones, which stay as they are

        A batch of one example has variance 0 and becomes beta.  An empty batch changes nothing.
        """
        return _batch_norm(self, x, training)


@composed
def _batch_norm(bn: BatchNorm, x: Any, training: Any) -> tuple[Node, Updates]:
    x, flag = _floats(x), as_node(training)
    if flag.ndim or not flag.tensor_type.is_bool:
        raise ArgumentError(f"training must be a bool or a flag, got {training!r}")
    axis = normalize_axis(bn.axis, x.ndim)
    size = unify(x.shape[axis], bn.mean.shape[0], "channels of x and of the layer: sizes")
    row = tuple(size if i == axis else 1 for i in range(x.ndim))
    running_mean, running_var = reshape(bn.mean, row), reshape(bn.var, row)
    known = constant_value(flag)
    if known is not None and not known:
        centred, variance, updates = x - running_mean, running_var, []
    else:
        over = tuple(i for i in range(x.ndim) if i != axis)
        count = num_elements(tuple(x.shape[i] for i in over))
        batch_mean = mean(x, axis=over, keepdims=True)
        centred = x - batch_mean
        batch_var = mean(centred * centred, axis=over, keepdims=True)
        updates = _follow(bn, flag, count, batch_mean, batch_var)
        if known is None:
            centred = x - where(flag, batch_mean, running_mean)
        variance = where(flag, batch_var, running_var) if known is None else batch_var
    scale = reshape(bn.gamma, row) * rsqrt(variance + bn.eps)
    return centred * scale + reshape(bn.beta, row), updates


def _follow(bn: BatchNorm, flag: Node, count: Size, batch_mean: Node, batch_var: Node) -> Updates:
    """Running statistics moved towards those of a batch of `count` values a channel."""
    # the unbiased estimate, as in the paper; a single value gives no estimate but 0
    unbiased = as_node(count) / as_node(max_size(count - 1, 1))
    moves = logical_and(flag, greater(as_node(count), 0))
    updates = []
    for old, new in ((bn.mean, batch_mean), (bn.var, batch_var * cast(unbiased, batch_var.dtype))):
        target = cast(reshape(new, old.shape), old.dtype)
        updates.append((old, where(moves, old + bn.momentum * (target - old), old)))
    return updates


def _floats(x: Any) -> Node:
    node = as_node(x)
    if not node.tensor_type.is_float:
        raise DTypeError(f"normalization takes floats, got {node!r}; cast it with gd.cast")
    return node
