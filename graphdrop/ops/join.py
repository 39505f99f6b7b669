"""Arrays joined, cut, repeated and shifted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError, positive
from ..graph import Node
from ..op import as_node, composed, constant, constant_value, op, promoted
from ..types import (
    Size,
    TensorType,
    floordiv,
    max_size,
    normalize_axes,
    normalize_axis,
    unify,
)
from .check import assert_
from .create import as_bound, full, iota
from .cumulative import cumsum
from .elementwise import cast, clip, coerce, greater_equal, minimum, mod
from .gather import integers, take
from .index import _subtensor, getitem, set_subtensor, window
from .leaf import as_size
from .reduce import sum as sum_of
from .shape import broadcast_to, expand_dims, reshape, specify_shape
from .sort import searchsorted


@op
def concatenate(*xs: TensorType, axis: int) -> TensorType:
    """Arrays one after another along an axis; the other sizes must be equal."""
    first = xs[0]
    shape: list[Size] = list(first.shape)
    for x in xs[1:]:
        if x.ndim != first.ndim or x.dtype != first.dtype:
            raise ShapeError(f"operands must have one dtype and number of axes, got {x}")
        for a, size in enumerate(x.shape):
            shape[a] = shape[a] + size if a == axis else unify(shape[a], size, f"axis {a}: sizes")
    return first.with_shape(shape)


@concatenate.prepare
def _(xs: Sequence[Any], axis: int | None = 0) -> tuple[list[Node], dict[str, Any]]:
    if not isinstance(xs, (list, tuple)) or not xs:
        raise ArgumentError(f"needs a list of one array or more, got {xs!r}")
    nodes = coerce(xs, promoted(*xs))
    if axis is None:
        nodes, axis = [reshape(n, (-1,)) for n in nodes], 0
    if not nodes[0].ndim:
        raise ShapeError("scalars cannot be concatenated; use gd.stack")
    return nodes, {"axis": normalize_axis(axis, nodes[0].ndim)}


@concatenate.vjp
def _(g: Node, y: Node, *xs: Node, axis: int) -> Sequence[Node | None]:
    return _cut(g, [x.shape[axis] for x in xs], axis)


def _cut(x: Node, sizes: Sequence[Size], axis: int) -> list[Node]:
    """Consecutive pieces along an axis; their sizes add up to its size."""
    starts = itertools.accumulate(sizes[:-1], initial=0)
    return [window(x, axis, start, size) for start, size in zip(starts, sizes, strict=True)]


@composed
def stack(xs: Sequence[Any], axis: int = 0) -> Node:
    """Arrays of one shape side by side along a new axis."""
    if not isinstance(xs, (list, tuple)) or not xs:
        raise ArgumentError(f"needs a list of one array or more, got {xs!r}")
    nodes = coerce(xs, promoted(*xs))
    for node in nodes[1:]:
        if node.ndim != nodes[0].ndim:
            raise ShapeError(f"operands must have one shape, got {nodes[0].type} and {node.type}")
    place = normalize_axis(axis, nodes[0].ndim + 1)
    return concatenate([expand_dims(n, place) for n in nodes], place)


# pieces -------------------------------------------------------------------------------------------
@composed
def split(x: Any, sections: Any, axis: int = 0) -> list[Node]:
    """x cut along an axis: into that many equal pieces, or before the positions in a list."""
    node = as_node(x)
    axis = normalize_axis(axis, node.ndim)
    size = node.shape[axis]
    if isinstance(sections, Iterable) and not isinstance(sections, Node):
        bounds = itertools.pairwise([None, *sections, None])
        return [getitem(node, (slice(None),) * axis + (slice(a, b),)) for a, b in bounds]
    count = positive(sections, "sections")
    if isinstance(size, int) and size % count:
        raise ShapeError(
            f"an axis of size {size} does not split into {count} equal pieces; use gd.array_split"
        )
    each = floordiv(size, count)
    shape = (*node.shape[:axis], each * count, *node.shape[axis + 1 :])
    return _cut(specify_shape(node, shape), [each] * count, axis)


@composed
def array_split(x: Any, sections: Any, axis: int = 0) -> list[Node]:
    """As `split`, but the first pieces are longer by one where the size does not divide."""
    if isinstance(sections, Iterable) and not isinstance(sections, Node):
        return split(x, sections, axis)
    node, count = as_node(x), positive(sections, "sections")
    axis = normalize_axis(axis, node.ndim)
    size = node.shape[axis]
    return _cut(node, [floordiv(size + (count - 1 - i), count) for i in range(count)], axis)


# padding ------------------------------------------------------------------------------------------
# positions in an axis of size n for positions i outside it too
def _edge(i: Node, n: Size) -> Node:
    return clip(i, 0, n - 1)


def _wrap(i: Node, n: Size) -> Node:
    return mod(i, max_size(n, 1))


def _reflect(i: Node, n: Size) -> Node:
    period = max_size(2 * (n - 1), 1)
    i = mod(i, period)
    return minimum(i, period - i)


def _symmetric(i: Node, n: Size) -> Node:
    period = max_size(2 * n, 1)
    i = mod(i, period)
    return minimum(i, period - 1 - i)


_MODES: dict[str, Callable[[Node, Size], Node]] = {
    "edge": _edge, "wrap": _wrap, "reflect": _reflect, "symmetric": _symmetric,
}  # fmt: skip


@composed
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = False) -> Node:
    """x with more elements before and after it along its axes, as np.pad.

    pad_width        n, (before, after), or one such pair for every axis; sizes may be symbolic
    mode             "constant", "edge", "reflect", "symmetric" or "wrap"
    constant_values  the new elements of mode "constant"; False is 0 in every dtype
    """
    node = as_node(x)
    widths = _pad_widths(pad_width, node.ndim)
    shape = tuple(b + s + a for s, (b, a) in zip(node.shape, widths, strict=True))
    if mode == "constant":
        if promoted(node, constant_values) != node.dtype:
            raise DTypeError(f"{constant_values!r} does not fit into {node.dtype}")
        inside = tuple((b, 1, s) for s, (b, _) in zip(node.shape, widths, strict=True))
        around = full(shape, coerce([constant_values], node.dtype)[0])
        return set_subtensor(_subtensor.make((around,), {"index": inside}), node)
    if mode not in _MODES:
        raise ArgumentError(f"mode must be 'constant' or one of {sorted(_MODES)}, got {mode!r}")
    for axis, (size, (before, after)) in enumerate(zip(node.shape, widths, strict=True)):
        if before == 0 and after == 0:
            continue
        if size == 0:
            raise ShapeError(f"axis {axis} is empty; only mode 'constant' can pad it")
        places = iota.make((), {"size": shape[axis]}) - before
        node = take(node, _MODES[mode](places, size), axis)
    return node


def _pad_widths(given: Any, ndim: int) -> list[tuple[Size, Size]]:
    rows = list(given) if isinstance(given, (list, tuple, np.ndarray)) else [given]
    if len(rows) == 2 and not any(isinstance(r, (list, tuple, np.ndarray)) for r in rows):
        rows = [rows]
    rows = rows * ndim if len(rows) == 1 else rows
    if len(rows) != ndim:
        raise ShapeError(f"pad_width has {len(rows)} pairs for {ndim} axes")
    pairs = [list(r) if isinstance(r, (list, tuple, np.ndarray)) else [r] for r in rows]
    if any(len(p) not in (1, 2) for p in pairs):
        raise ShapeError(f"pad_width must be pairs (before, after), got {given!r}")
    return [(as_size(p[0], "pad_width"), as_size(p[-1], "pad_width")) for p in pairs]


# order and repetition -----------------------------------------------------------------------------
@composed
def flip(x: Any, axis: int | Sequence[int] | None = None) -> Node:
    """x backwards along the given axes, or along all."""
    node = as_node(x)
    for a in normalize_axes(axis, node.ndim):
        node = window(node, a, node.shape[a] - 1, node.shape[a], -1)
    return node


@composed
def roll(x: Any, shift: Any, axis: int | Sequence[int] | None = None) -> Node:
    """x shifted along axes, what leaves at the end coming back at the start.

    shift  integers, symbolic sizes or integer scalar nodes, one for every axis or one for all
    axis   None: x is rolled as if it were flat
    """
    node = as_node(x)
    if axis is None:
        return reshape(roll(reshape(node, (-1,)), shift, 0), node.shape)
    axes = list(axis) if isinstance(axis, Iterable) else [axis]
    shifts = list(shift) if isinstance(shift, (list, tuple)) else [shift] * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"{len(shifts)} shifts for {len(axes)} axes")
    for by, a in zip(map(as_bound, shifts), axes, strict=True):
        a = normalize_axis(a, node.ndim)
        size = node.shape[a]
        least = max_size(size, 1)  # an empty axis has nothing to shift
        if isinstance(by, Node):
            places = mod(iota.make((), {"size": size}) - by, least)
            node = take(node, places, a)
        else:
            moved = by - floordiv(by, least) * least
            head = window(node, a, 0, size - moved)
            node = concatenate([window(node, a, size - moved, moved), head], a)
    return node


@composed
def tile(x: Any, reps: Any) -> Node:
    """x repeated as a whole: reps[i] times along axis i; sizes may be symbolic."""
    node = as_node(x)
    listed = reps if isinstance(reps, (list, tuple)) else [reps]
    times: list[Size] = [as_size(r, "reps") for r in listed]
    ndim = max(len(times), node.ndim)
    times[:0] = [1] * (ndim - len(times))
    sizes = (1,) * (ndim - node.ndim) + node.shape
    pairs = list(zip(times, sizes, strict=True))
    node = reshape(node, tuple(n for s in sizes for n in (1, s)))
    node = broadcast_to(node, tuple(n for pair in pairs for n in pair))
    return reshape(node, tuple(t * s for t, s in pairs))


@composed
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Node:
    """Every element of x several times in a row, along an axis or of x flattened.

    repeats  a count (which may be symbolic), or an integer vector with one count for every element:
             then the size of the result may be known at run time only
    """
    node = as_node(x)
    if axis is None:
        node, axis = reshape(node, (-1,)), 0
    axis = normalize_axis(axis, node.ndim)
    if isinstance(repeats, (list, tuple, np.ndarray, Node)) and integers(repeats).ndim:
        return take(node, _repeated_positions(integers(repeats), node.shape[axis]), axis)
    before, size, after = node.shape[:axis], node.shape[axis], node.shape[axis + 1 :]
    times = as_size(repeats, "repeats")
    node = reshape(node, (*before, size, 1, *after))
    node = broadcast_to(node, (*before, size, times, *after))
    return reshape(node, (*before, size * times, *after))


def _repeated_positions(repeats: Node, size: Size) -> Node:
    """0, ..., size - 1, each as often as `repeats` says."""
    if repeats.ndim != 1:
        raise ShapeError(f"repeats must be a count or a vector, got {repeats.type}")
    counts = broadcast_to(cast(repeats, np.int64), (size,))
    known = constant_value(repeats)
    if known is not None and isinstance(size, int):
        if (known < 0).any():
            raise ArgumentError("repeats cannot be negative")
        return constant(np.repeat(np.arange(size), known))
    counts = assert_(counts, greater_equal(counts, 0), "repeats cannot be negative")
    total = as_size(sum_of(counts))
    return searchsorted(cumsum(counts), iota.make((), {"size": total}), side="right")
