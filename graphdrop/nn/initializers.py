"""Initial values of weights: a NumPy generator and a shape in, an array out.

    rng = np.random.default_rng(0)
    W = gd.shared(nn.glorot_uniform(rng, (784, 1024)), "W")

All take `(rng, shape, ..., dtype)`, so that layers take any of them; settings are fixed with
`functools.partial(nn.normal, std=0.1)`.  `rng` is a `np.random.Generator` or an integer seed.  A
shape is (inputs, units) for a dense layer and (out, in, height, width) for filters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..op import DEFAULT_FLOAT
from ..types import as_dtype

Array: TypeAlias = np.ndarray[Any, Any]
Initializer: TypeAlias = Callable[..., Array]  # (rng, shape, *, dtype) -> array
Rng: TypeAlias = "np.random.Generator | int"
Shape: TypeAlias = "int | Sequence[int]"


def as_generator(rng: Any) -> np.random.Generator:
    """The generator that `rng` is, or that an integer seeds."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(rng)
    raise ArgumentError(
        f"rng must be a NumPy generator, np.random.default_rng(seed), or a seed; got {rng!r}"
    )


def fans(shape: Shape) -> tuple[int, int]:
    """How many inputs a unit of a weight array has, and how many units an input reaches.

    (n, m) for a matrix of that shape; for filters (out, in, *window), in and out times the window.
    """
    sizes = _sizes(shape)
    if len(sizes) < 2:
        raise ShapeError(
            f"weights of shape {sizes} have no inputs and outputs to scale by; use nn.normal or "
            f"nn.uniform with a size of your own"
        )
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    window = math.prod(sizes[2:])
    return sizes[1] * window, sizes[0] * window


def zeros(rng: Rng, shape: Shape, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """All 0; nothing is drawn."""
    return np.zeros(_sizes(shape), _float(dtype))


def ones(rng: Rng, shape: Shape, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """All 1; nothing is drawn."""
    return np.ones(_sizes(shape), _float(dtype))


def constant(rng: Rng, shape: Shape, value: float = 0.0, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """All `value`; nothing is drawn."""
    return np.full(_sizes(shape), value, _float(dtype))


def identity(rng: Rng, shape: Shape, gain: float = 1.0, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """A matrix with `gain` on its diagonal (Le et al. 2015); nothing is drawn."""
    sizes = _sizes(shape)
    if len(sizes) != 2:
        raise ShapeError(f"an identity has two axes, got shape {sizes}")
    return (gain * np.eye(*sizes)).astype(_float(dtype))


def uniform(
    rng: Rng, shape: Shape, low: float = -0.05, high: float = 0.05, *, dtype: Any = DEFAULT_FLOAT
) -> Array:
    """Uniform in [low, high)."""
    if not low <= high:
        raise ArgumentError(f"low must not exceed high, got {low} and {high}")
    return as_generator(rng).uniform(low, high, _sizes(shape)).astype(_float(dtype))


def normal(
    rng: Rng, shape: Shape, std: float = 0.05, mean: float = 0.0, *, dtype: Any = DEFAULT_FLOAT
) -> Array:
    """Normal with a standard deviation and a mean."""
    drawn = as_generator(rng).normal(mean, _std(std), _sizes(shape))
    return drawn.astype(_float(dtype))


def truncated_normal(
    rng: Rng, shape: Shape, std: float = 0.05, mean: float = 0.0, *, dtype: Any = DEFAULT_FLOAT
) -> Array:
    """Normal, with values beyond 2 standard deviations drawn again.

    `std` is that of the normal before the cut; what remains has 0.88 of it.
    """
    generator = as_generator(rng)
    drawn = generator.standard_normal(_sizes(shape))
    outside = np.abs(drawn) > 2
    while outside.any():
        drawn[outside] = generator.standard_normal(int(outside.sum()))
        outside = np.abs(drawn) > 2
    return (mean + _std(std) * drawn).astype(_float(dtype))


def glorot_uniform(
    rng: Rng, shape: Shape, gain: float = 1.0, *, dtype: Any = DEFAULT_FLOAT
) -> Array:
    """Uniform with variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return _scaled_uniform(rng, shape, gain * _glorot_std(shape), dtype)


def glorot_normal(
    rng: Rng, shape: Shape, gain: float = 1.0, *, dtype: Any = DEFAULT_FLOAT
) -> Array:
    """Normal with variance gain**2 * 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal(rng, shape, gain * _glorot_std(shape), dtype=dtype)


def he_uniform(rng: Rng, shape: Shape, slope: float = 0.0, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """Uniform with variance 2 / ((1 + slope**2) * fan_in), for (leaky) ReLUs (He et al. 2015)."""
    return _scaled_uniform(rng, shape, _fan_in_std(shape, 2 / (1 + slope**2)), dtype)


def he_normal(rng: Rng, shape: Shape, slope: float = 0.0, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """Normal with variance 2 / ((1 + slope**2) * fan_in), for (leaky) ReLUs (He et al. 2015)."""
    return normal(rng, shape, _fan_in_std(shape, 2 / (1 + slope**2)), dtype=dtype)


def lecun_uniform(rng: Rng, shape: Shape, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """Uniform with variance 1 / fan_in (LeCun et al. 1998)."""
    return _scaled_uniform(rng, shape, _fan_in_std(shape, 1.0), dtype)


def lecun_normal(rng: Rng, shape: Shape, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """Normal with variance 1 / fan_in (LeCun et al. 1998); what SELU networks need."""
    return normal(rng, shape, _fan_in_std(shape, 1.0), dtype=dtype)


def orthogonal(rng: Rng, shape: Shape, gain: float = 1.0, *, dtype: Any = DEFAULT_FLOAT) -> Array:
    """`gain` times orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).

    Filters are taken as a matrix of shape (out, in * window).
    """
    sizes = _sizes(shape)
    if len(sizes) < 2:
        raise ShapeError(f"an orthogonal array has at least two axes, got shape {sizes}")
    rows, columns = sizes[0], math.prod(sizes[1:])
    drawn = as_generator(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without this the distribution is not uniform
    if rows < columns:
        q = q.T
    return np.asarray(gain * q.reshape(sizes), _float(dtype))


# --------------------------------------------------------------------------------------------


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 0:
            raise ShapeError(f"the sizes of weights are known integers, got shape {shape!r}")
    return tuple(map(int, sizes))


def _float(dtype: Any) -> np.dtype[Any]:
    found = as_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"weights are floats, got dtype {found}")
    return found


def _std(std: float) -> float:
    if not std >= 0:
        raise ArgumentError(f"a standard deviation must not be negative, got {std}")
    return float(std)


def _glorot_std(shape: Shape) -> float:
    return math.sqrt(2 / max(sum(fans(shape)), 1))


def _fan_in_std(shape: Shape, variance: float) -> float:
    return math.sqrt(variance / max(fans(shape)[0], 1))


def _scaled_uniform(rng: Rng, shape: Shape, std: float, dtype: Any) -> Array:
    bound = math.sqrt(3) * _std(std)
    return uniform(rng, shape, -bound, bound, dtype=dtype)
