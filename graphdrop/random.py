"""Random streams, the definition of a draw, and dropout.

The words of a draw are NumPy's Philox4x64-10 under key (seed, site) and counter
(block + 1, call, step, example): a pure function, so that every backend, thread count and rewrite
gives the same bits, and anyone can recompute them (`words`).  stream_version = 1.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .errors import ArgumentError, RandomError, ShapeError
from .graph import Node
from .op import as_node, constant, constant_value
from .ops import random as draws
from .ops.elementwise import cast, equal, where
from .ops.leaf import as_shape
from .types import Shape, normalize_axes, unify

STREAM_VERSION = 1

# --------------------------------------------------------------------------------------------
# the definition of a draw

_local = threading.local()


def words(
    seed: int, site: int, call: int, step: int = 0, example: int = 0, count: int = 1
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """`count` random 64-bit words of a draw, by definition equal to

    np.random.Philox(key=[seed, site], counter=[0, call, step, example]).random_raw(count)
    """
    if count == 0:
        return np.empty(0, np.uint64)
    try:
        generator = _local.generator
    except AttributeError:
        generator = _local.generator = np.random.Philox(key=0)
        _local.state = generator.state
    # setting the state of one generator is 8 times cheaper than making another
    state = _local.state
    state["state"]["key"] = np.array([seed, site], np.uint64)
    state["state"]["counter"] = np.array([0, call, step, example], np.uint64)
    generator.state = state
    raw: np.ndarray[Any, np.dtype[np.uint64]] = generator.random_raw(count)
    return raw


def lanes(
    key: np.ndarray[Any, Any],
    site: int,
    step: Any,
    example: Any,
    shape: tuple[int, ...],
    dtype: Any,
) -> np.ndarray[Any, Any]:
    """The draw's unsigned lanes of `dtype` (uint16, uint32 or uint64), one for every element.

    `example` is a scalar, or a vector with one entry for every row; then each row counts its own.
    """
    seed, call = (int(k) for k in key)
    if np.ndim(example) == 0:
        return _lanes(seed, site, call, int(step), int(example), shape, dtype)
    rows = [_lanes(seed, site, call, int(step), int(e), shape[1:], dtype) for e in example]
    return np.stack(rows) if rows else np.empty(shape, dtype)


def _lanes(
    seed: int, site: int, call: int, step: int, example: int, shape: tuple[int, ...], dtype: Any
) -> np.ndarray[Any, Any]:
    lane = np.dtype(dtype).newbyteorder("<")
    size = 1
    for s in shape:
        size *= s
    raw = words(seed, site, call, step, example, -(-size * lane.itemsize // 8))
    return raw.astype("<u8", copy=False).view(lane)[:size].reshape(shape)


def threshold_of(rate: float) -> int:
    """T of a rate: the number of 65536ths dropped; RandomError outside [0, 1] or for NaN."""
    rate = float(rate)
    if not 0.0 <= rate <= 1.0:
        raise RandomError(f"a dropout rate must be between 0 and 1, got {rate}")
    if rate in (0.0, 1.0):
        return int(rate) * draws.STEPS
    return min(max(int(np.rint(rate * draws.STEPS)), 1), draws.STEPS - 1)


def kept_scale(threshold: int) -> float:
    """What kept elements are multiplied by, so that the expectation is exact."""
    return draws.STEPS / (draws.STEPS - threshold) if threshold < draws.STEPS else 0.0


# --------------------------------------------------------------------------------------------
# streams

_replayed: ContextVar[Mapping[Any, int]] = ContextVar("graphdrop_replayed", default={})


class RandomStream:
    """A seeded source of draws for compiled functions.

    seed  an integer in [0, 2**64)

    Every draw made from it owns a site.  Each call of a compiled function that draws takes the next
    call number, whatever the number of draws; several functions and threads may share a stream.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise RandomError(f"a seed must be an integer, got {seed!r}")
        if not 0 <= seed < 2**64:
            raise RandomError(f"a seed must be in [0, 2**64), got {seed}")
        self.seed = int(seed)
        self._calls = 0
        self._sites: set[int] = set()
        self._next_site = 0
        self._lock = threading.Lock()
        self.key: Node = draws.random_key.make((), {"stream": self})

    def site(self, name: str | None = None) -> int:
        """A site of its own: the next number, or for a name 8 bytes of its sha256."""
        with self._lock:
            if name is None:
                while self._next_site in self._sites:
                    self._next_site += 1
                found = self._next_site
            else:
                if not isinstance(name, str) or not name:
                    raise RandomError(f"a draw's name must be a non-empty string, got {name!r}")
                digest = hashlib.sha256(name.encode()).digest()
                found = int.from_bytes(digest[:8], "little")
                if found in self._sites:
                    raise RandomError(
                        f"two draws of one stream cannot share the name {name!r}; "
                        f"choose another, or use a stream of its own"
                    )
            self._sites.add(found)
            return found

    @property
    def calls(self) -> int:
        """How many calls have drawn so far; also the number of the next one."""
        return self._calls

    def take_call(self) -> int:
        """The number of this call, and the stream advanced; inside `at`, the replayed number."""
        replayed = _replayed.get().get(self)
        if replayed is not None:
            return replayed
        with self._lock:
            number = self._calls
            self._calls += 1
            return number

    @contextmanager
    def at(self, call: int) -> Iterator[None]:
        """Calls made inside draw exactly as call number `call` did; the stream does not advance."""
        if isinstance(call, bool) or not isinstance(call, (int, np.integer)) or call < 0:
            raise RandomError(f"a call number must be a non-negative integer, got {call!r}")
        token = _replayed.set({**_replayed.get(), self: int(call)})
        try:
            yield
        finally:
            _replayed.reset(token)

    def state_dict(self) -> dict[str, int]:
        """Everything that the next masks depend on, besides the graph."""
        return {"stream_version": STREAM_VERSION, "seed": self.seed, "calls": self._calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; nothing changes if `state` is malformed."""
        expected = {"stream_version", "seed", "calls"}
        if set(state) != expected or any(type(v) is not int for v in state.values()):
            raise RandomError(
                f"a stream's state has the integers {sorted(expected)}, got {state!r}"
            )
        if state["stream_version"] != STREAM_VERSION:
            raise RandomError(
                f"this state has stream_version {state['stream_version']}; "
                f"this graphdrop draws version {STREAM_VERSION}"
            )
        if not 0 <= state["seed"] < 2**64 or not 0 <= state["calls"] < 2**63:
            raise RandomError(f"seed or calls out of range in {state!r}")
        with self._lock:
            self.seed, self._calls = state["seed"], state["calls"]

    def __repr__(self) -> str:
        return f"RandomStream(seed={self.seed}, calls={self._calls})"


# --------------------------------------------------------------------------------------------
# dropout


def draw_operands(stream: RandomStream, example: Any = None) -> tuple[Node, Node, Node]:
    """(key, step, example) for a draw made here."""
    if not isinstance(stream, RandomStream):
        raise ArgumentError(f"a draw needs a gd.RandomStream, got {stream!r}")
    zero = constant(np.int64(0))
    ids = zero if example is None else cast(as_node(example), np.int64) + 1
    return stream.key, zero, ids


def rate_threshold(rate: Any) -> Node:
    """The threshold of a rate, checked now if it is known and at the call if it is symbolic."""
    node = as_node(rate, None if isinstance(rate, Node) else np.float64)
    if node.ndim:
        raise RandomError(f"a rate must be a scalar, got {node!r}")
    known = constant_value(node)
    if known is not None:
        return constant(np.int64(threshold_of(float(known))))
    return draws.threshold(cast(node, np.float64))


def _is_false(node: Node) -> bool:
    known = constant_value(node)
    return known is not None and not known


def _flag(training: Any) -> Node:
    node = as_node(training)
    if node.ndim or not node.tensor_type.is_bool:
        raise ArgumentError(
            f"training must be a bool, gd.flag() or a bool scalar, got {training!r}"
        )
    return node


def _shared_axes(x: Node, axes: Any, noise_shape: Any) -> tuple[int, ...]:
    if axes is not None and noise_shape is not None:
        raise ArgumentError("give axes or noise_shape, not both")
    if axes is not None:
        return normalize_axes(axes, x.ndim)
    if noise_shape is None:
        return ()
    sizes: Shape = as_shape(noise_shape)
    if len(sizes) != x.ndim:
        raise ShapeError(f"noise_shape {noise_shape!r} needs {x.ndim} sizes for {x!r}")
    shared = []
    for i, (size, full) in enumerate(zip(sizes, x.shape, strict=True)):
        if size == 1:
            shared.append(i)
        else:
            unify(size, full, f"noise_shape {noise_shape!r} does not fit {x!r}: sizes")
    return tuple(shared)


def dropout(
    x: Any,
    rate: Any,
    stream: RandomStream,
    training: Any = True,
    *,
    axes: int | Sequence[int] | None = None,
    noise_shape: Any = None,
    mode: str = "inverted",
    name: str | None = None,
    example: Any = None,
    mask: Any = None,
) -> Node:
    """`x` with a random share `rate` of its elements set to 0 while training (Srivastava 2014).

    rate         share dropped: a number in [0, 1] or a symbolic scalar
    training     a bool, or a symbolic flag; when false, x is returned as it is and nothing drawn
    axes         axes over which the mask is shared (drawn with size 1)
    noise_shape  instead of axes: the mask's shape, 1 where shared
    mode         "inverted": kept elements are scaled up, so that the expectation is x;
                 "classic": no scaling while training, x * (1 - rate) otherwise
    name         fixes the draw's site, and names it in `step.mask` and pictures
    example      integer ids, one for every row of x: the mask of a row depends on its id only
    mask         a bool mask (True keeps) to use instead of drawing one

    The gradient is the same dropout applied to the incoming gradient.
    """
    x, flag = as_node(x), _flag(training)
    if mode not in ("inverted", "classic"):
        raise ArgumentError(f"mode must be 'inverted' or 'classic', got {mode!r}")
    threshold = rate_threshold(rate)
    if mask is not None:
        kept = _with_mask(x, threshold, mask, mode == "inverted")
        dropped = where(flag, kept, x)
    else:
        shared = _shared_axes(x, axes, noise_shape)
        site = stream.site(name)
        if constant_value(threshold) == 0 or _is_false(flag):
            dropped = x
        else:
            key, step, ids = draw_operands(stream, example)
            dropped = draws.dropout(
                x, threshold, flag, key, step, ids,
                site=site, name=name, shared=shared, scaled=mode == "inverted",
            )  # fmt: skip
    if mode == "classic":
        return where(flag, dropped, x * cast(1.0 - as_node(rate), x.dtype))
    return dropped


def _with_mask(x: Node, threshold: Node, mask: Any, scaled: bool) -> Node:
    scale = draws.STEPS / (draws.STEPS - where(equal(threshold, draws.STEPS), 0, threshold))
    scale = where(equal(threshold, draws.STEPS), 0.0, scale)
    return where(cast(mask, bool), x * cast(scale, x.dtype) if scaled else x, 0)
