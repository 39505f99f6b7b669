"""Random streams and the definition of a draw.

The words of a draw are NumPy's Philox4x64-10 under key (seed, site) and counter
(block + 1, call, step, example): a pure function, so that every backend, thread count and rewrite
gives the same bits, and anyone can recompute them (`words`).  stream_version = 1.
"""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy as np

from . import leases
from .errors import ArgumentError, DTypeError, GraphdropError, RandomError
from .graph import Node
from .op import Op, as_node, composed, constant, constant_value
from .ops import random as draws
from .ops.elementwise import cast, coerce
from .ops.leaf import as_shape, as_size
from .types import as_dtype

STREAM_VERSION = 1

# --------------------------------------------------------------------------------------------
# the definition of a draw

_local = threading.local()
# lanes are little-endian on every machine
_LITTLE = {t: np.dtype(t).newbyteorder("<") for t in (np.uint16, np.uint32, np.uint64)}


def words(
    seed: int, site: int, call: int, step: int = 0, example: int = 0, count: int = 1
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """`count` random 64-bit words of a draw, by definition equal to

    np.random.Philox(key=[seed, site], counter=[0, call, step, example]).random_raw(count)

    with the exact integers: as arrays of uint64, since lists go through float64 (decision 2).
    """
    if count == 0:
        return np.empty(0, np.uint64)
    if not hasattr(_local, "generator"):
        _local.generator = np.random.Philox(key=0)
        _local.state = _local.generator.state
    # setting the state of one generator is 8 times cheaper than making another
    generator, state = _local.generator, _local.state
    key, counter = state["state"]["key"], state["state"]["counter"]
    key[0], key[1] = seed, site  # element by element: a list would go through float64
    counter[1], counter[2], counter[3] = call, step, example
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

    `example` is 0, or a vector of 1 + id for every row; then each row counts its own blocks.
    """
    seed, call = key.tolist()
    if np.ndim(example) == 0:
        return _lanes(seed, site, call, int(step), int(example), shape, dtype)
    if np.min(example, initial=1) < 1:
        raise RandomError("example ids must be in [0, 2**63 - 1), or [0, 2**64 - 1) as uint64")
    rows = [_lanes(seed, site, call, int(step), int(e), shape[1:], dtype) for e in example]
    return np.stack(rows) if rows else np.empty(shape, dtype)


def _lanes(
    seed: int, site: int, call: int, step: int, example: int, shape: tuple[int, ...], dtype: Any
) -> np.ndarray[Any, Any]:
    lane = _LITTLE[dtype]
    size = math.prod(shape)
    raw = words(seed, site, call, step, example, -(-size * lane.itemsize // 8))
    if sys.byteorder == "big":
        raw = raw.byteswap()
    found: np.ndarray[Any, Any] = raw.view(lane)[:size].reshape(shape)
    return found


def threshold_of(rate: float) -> int:
    """T of a rate: the number of 65536ths dropped; RandomError outside [0, 1] or for NaN."""
    rate = float(rate)
    if not 0.0 <= rate <= 1.0:
        raise RandomError(f"a dropout rate, the share dropped, must be between 0 and 1, got {rate}")
    if rate in (0.0, 1.0):
        return int(rate) * draws.STEPS
    return min(max(int(np.rint(rate * draws.STEPS)), 1), draws.STEPS - 1)


def kept_scale(threshold: int) -> float:
    """What kept elements are multiplied by, so that the expectation is exact."""
    return draws.STEPS / (draws.STEPS - threshold) if threshold < draws.STEPS else 0.0


def check_call(call: Any) -> None:
    """A call number is an integer in [0, 2**64)."""
    if not _is_int(call) or not 0 <= call < 2**64:
        raise RandomError(f"a call number must be an integer that is not negative, got {call!r}")


# --------------------------------------------------------------------------------------------
# streams

# inside a scan, 1 + the row-major index over all enclosing scans: the step of draws made there
current_step: ContextVar[Node | None] = ContextVar("graphdrop_step", default=None)

# stream -> the call number that `at` replays
_replayed: ContextVar[Mapping[Any, int]] = ContextVar(
    "graphdrop_replayed", default=MappingProxyType({})
)


class RandomStream:
    """A seeded source of draws for compiled functions.

    seed  an integer in [0, 2**64)

    Every draw made from it owns a site.  Each call of a compiled function that draws takes the next
    call number, whatever the number of draws; several functions and threads may share a stream.
    """

    def __init__(self, seed: int) -> None:
        if not _is_int(seed):
            raise RandomError(f"a seed must be an integer, got {seed!r}")
        if not 0 <= seed < 2**64:
            raise RandomError(f"a seed must be in [0, 2**64), got {seed}")
        self.seed = int(seed)
        self._calls = 0
        self._sites: set[int] = set()
        self._next_site = 0
        self.lock = leases.lock_of(self)
        self.key: Node = draws.random_key.make((), {"stream": self})

    def site(self, name: str | None = None) -> int:
        """A site of its own: the next number, or for a name 8 bytes of its sha256."""
        with self.lock:
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

    @contextmanager
    def _new_site(self, name: str | None) -> Iterator[int]:
        """A site that is given back if the draw turns out to be a mistake."""
        site = self.site(name)
        try:
            yield site
        except GraphdropError:
            with self.lock:
                self._sites.discard(site)
            raise

    @property
    def calls(self) -> int:
        """How many calls have drawn so far; also the number of the next one."""
        return self._calls

    def take_call(self) -> int:
        """The number of this call, and the stream advanced; inside `at`, the replayed number."""
        replayed = _replayed.get().get(self)
        if replayed is not None:
            return replayed
        with self.lock:
            number = self._calls
            self._calls += 1
            return number

    @contextmanager
    def at(self, call: int) -> Iterator[None]:
        """Calls made inside draw exactly as call number `call` did; the stream does not advance.

        Holds for this thread (or asyncio task): others go on drawing new numbers meanwhile.
        """
        check_call(call)
        token = _replayed.set({**_replayed.get(), self: int(call)})
        try:
            yield
        finally:
            _replayed.reset(token)

    def __reduce__(self) -> Any:
        raise RandomError(
            "streams are neither pickled nor copied, since a copy would repeat the masks; save "
            "their state with gd.save or state_dict"
        )

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
        with self.lock:
            self.seed, self._calls = state["seed"], state["calls"]

    # ---- draws
    def draw(
        self, op: Op, *operands: Node, training: Any = True, name: str | None = None,
        example: Any = None, **params: Any,
    ) -> Node:  # fmt: skip
        """A node of a draw `op` (see `ops/random.py`) with a site of its own."""
        flag, ids = training_flag(training), example_ids(example)
        step = current_step.get()
        step = constant(np.int64(0)) if step is None else step
        with self._new_site(name) as site:
            return op(*operands, flag, self.key, step, ids, site=site, name=name, **params)

    @composed
    def uniform(
        self, shape: Any = (), low: Any = 0.0, high: Any = 1.0, *, dtype: Any = np.float32,
        training: Any = True, name: str | None = None, example: Any = None,
    ) -> Node:  # fmt: skip
        """Numbers from low to high, high excluded but for rounding: low + u * (high - low).

        shape     sizes; symbolic ones too
        low, high numbers, arrays or nodes that broadcast to the shape; differentiable
        dtype     float16, float32 or float64; u has 11, 24 or 53 random bits
        training  while false nothing is drawn: all are low
        name      fixes the draw's site
        example   integer ids, one for every row: a row's draw depends on its id only
        """
        u = self.draw(
            draws.uniform, shape=as_shape(shape), dtype=as_dtype(dtype),
            training=training, name=name, example=example,
        )  # fmt: skip
        if _is_number(low, 0) and _is_number(high, 1):
            return u
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            if not -np.inf < low <= high < np.inf:
                raise RandomError(f"uniform needs low <= high, both finite, got {low} and {high}")
            return u * _fitted("high", float(high) - float(low), u) + _fitted("low", low, u)
        start = _fitted("low", low, u)
        return start + u * (_fitted("high", high, u) - start)

    @composed
    def normal(
        self, shape: Any = (), loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = np.float32,
        training: Any = True, name: str | None = None, example: Any = None,
    ) -> Node:  # fmt: skip
        """Normal numbers with mean `loc` and standard deviation `scale`: loc + scale * z.

        z is made by Box and Muller's formula from one 64-bit word w of the draw for each element,
        in float64, and rounded to dtype:
        z = sqrt(-2 * log(((w >> 32) + 0.5) * 2**-32)) * cos(2 * pi * ((w & 0xffffffff) * 2**-32))

        loc, scale  numbers, arrays or nodes that broadcast to the shape; differentiable
        training    while false nothing is drawn: all are loc
        The other arguments are those of `uniform`.
        """
        z = self.draw(
            draws.normal, shape=as_shape(shape), dtype=as_dtype(dtype),
            training=training, name=name, example=example,
        )  # fmt: skip
        if isinstance(scale, (int, float)) and not 0 <= scale < np.inf:
            raise RandomError(f"the scale of normal numbers cannot be {scale}")
        scaled = z if _is_number(scale, 1) else z * _fitted("scale", scale, z)
        return scaled if _is_number(loc, 0) else scaled + _fitted("loc", loc, z)

    @composed
    def bernoulli(
        self, shape: Any = (), p: Any = 0.5, *, training: Any = True, name: str | None = None,
        example: Any = None,
    ) -> Node:  # fmt: skip
        """bools that are True with probability p, exactly rint(p * 2**32) / 2**32.

        p         a number, array or node that broadcasts to the shape
        training  while false nothing is drawn: all are False
        The other arguments are those of `uniform`.
        """
        return self.draw(
            draws.bernoulli, _probabilities(p), shape=as_shape(shape),
            training=training, name=name, example=example,
        )  # fmt: skip

    @composed
    def randint(
        self, shape: Any, low: Any, high: Any, *, dtype: Any = np.int64, training: Any = True,
        name: str | None = None, example: Any = None,
    ) -> Node:  # fmt: skip
        """Integers from low up to but not including high.

        low, high  integers, arrays, nodes or symbolic sizes that broadcast to the shape; the range
                   may be all of dtype's
        dtype      any integer dtype
        training   while false nothing is drawn: all are low
        The other arguments are those of `uniform`.
        """
        kind = as_dtype(dtype)
        if kind.kind not in "iu":
            raise DTypeError(f"randint makes integers, not {kind}")
        info = np.iinfo(kind)
        if _is_int(low) and _is_int(high) and not info.min <= low < high <= int(info.max) + 1:
            raise RandomError(f"randint needs low < high within {kind}, got {low} and {high}")
        first = _integers(low) if _is_int(low) else _integer_node("low", low)
        last = _integers(int(high) - 1) if _is_int(high) else _integer_node("high", high) - 1
        return self.draw(
            draws.randint, first, last, shape=as_shape(shape), dtype=kind,
            training=training, name=name, example=example,
        )  # fmt: skip

    @composed
    def categorical(
        self, p: Any, shape: Any = None, *, training: Any = True, name: str | None = None,
        example: Any = None,
    ) -> Node:  # fmt: skip
        """Class numbers, int64, with the probabilities p along p's last axis.

        The draw is made in integers, from rint(p * 2**40), so that the same p give the same
        classes everywhere; p is normalized by its sum.

        p         probabilities, say gd.softmax(logits)
        shape     p.shape[:-1] by default, or one that this broadcasts to
        training  while false nothing is drawn: all are 0
        The other arguments are those of `uniform`.
        """
        probabilities = _probabilities(p)
        sizes = probabilities.shape[:-1] if shape is None else as_shape(shape)
        return self.draw(
            draws.categorical, probabilities, shape=sizes,
            training=training, name=name, example=example,
        )  # fmt: skip

    @composed
    def permutation(self, n: Any, *, training: Any = True, name: str | None = None) -> Node:
        """The integers 0 ... n-1 in random order, int64; in their own order while not training."""
        return self.draw(draws.permutation, length=as_size(n), training=training, name=name)

    def __repr__(self) -> str:
        return f"RandomStream(seed={self.seed}, calls={self._calls})"


# --------------------------------------------------------------------------------------------
# arguments of draws


def training_flag(training: Any) -> Node:
    """The bool scalar node of a `training` argument."""
    node = as_node(training)
    if node.ndim or not node.tensor_type.is_bool:
        raise ArgumentError(
            f"training must be a bool, gd.flag() or a bool scalar, got {training!r}"
        )
    return node


def known_in(value: Any, dtype: Any) -> Node:
    """`value` as a node of a dtype; a constant stays a constant."""
    known = constant_value(value) if isinstance(value, Node) else value
    return cast(value, dtype) if known is None else constant(known, dtype)


def known_flag(flag: Node) -> bool | None:
    """The value of a training flag that is a constant."""
    known = constant_value(flag)
    return None if known is None else bool(known)


def example_ids(example: Any) -> Node:
    """The `example` operand of a draw: 0, or 1 + ids."""
    if example is None:
        return constant(np.int64(0))
    node = as_node(example)
    if node.ndim != 1 or not node.tensor_type.is_integer:
        raise DTypeError(f"example ids must be an integer vector, one for every row, got {node!r}")
    return (node if node.dtype == np.uint64 else cast(node, np.int64)) + 1


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _fitted(what: str, value: Any, drawn: Node) -> Node:
    """A number for every element of `drawn`, in its dtype."""
    (node,) = coerce([value], drawn.dtype)
    draws.check_fits(what, node.tensor_type, drawn.shape)
    return node


def _probabilities(p: Any) -> Node:
    """p in float64, checked now where it is known."""
    node = known_in(p, np.float64)
    known = constant_value(node)
    if known is not None and not ((known >= 0) & (known <= 1)).all():
        raise RandomError(f"probabilities must be between 0 and 1, got {p!r}")
    return node


def _integers(value: Any) -> Node:
    value = int(value)
    if not -(2**63) <= value < 2**64:
        raise RandomError(f"{value} is no integer of 64 bits")
    return constant(np.int64(value) if value < 2**63 else np.uint64(value))


def _integer_node(what: str, value: Any) -> Node:
    node = as_node(value)
    if not node.tensor_type.is_integer or node.dtype == np.uint64:
        raise DTypeError(f"{what} must be an integer, or int64 or less as an array, got {node!r}")
    return cast(node, np.int64)
