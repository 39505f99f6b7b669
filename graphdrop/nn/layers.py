"""Layers: records of parameters that are called with nodes.

    rng = np.random.default_rng(0)
    hidden, out = nn.Dense(784, 1024, rng, name="hidden"), nn.Dense(1024, 10, rng, name="out")
    logits = out(gd.relu(hidden(x)))
    updates = optim.sgd(loss, nn.params(hidden, out), lr=0.1)

A layer has `params`, the shared values to train, named "<layer>.W" and so on.  Layers have no mode:
what depends on training takes it as an argument.  `rng` is a NumPy generator or a seed.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..errors import ArgumentError, DTypeError, ShapeError, positive
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_node, composed
from ..ops.conv import conv2d
from ..ops.elementwise import not_equal, where
from ..ops.gather import take
from ..ops.leaf import Shared, shared
from ..ops.linalg import matmul
from ..ops.shape import expand_dims, reshape
from ..types import unify
from . import initializers
from .initializers import Initializer, Rng, as_generator


@runtime_checkable
class Layer(Protocol):
    """Anything with parameters; a class of your own needs no base class."""

    params: list[Shared]


def params(*layers: Any) -> list[Shared]:
    """The parameters of layers, shared values, and lists and dicts of them; each one once."""
    found: dict[Shared, None] = {}
    for layer in layers:
        if isinstance(layer, Shared):
            found[layer] = None
        elif isinstance(layer, dict):
            found.update(dict.fromkeys(params(*layer.values())))
        elif isinstance(layer, (list, tuple)):
            found.update(dict.fromkeys(params(*layer)))
        elif isinstance(layer, Layer):
            found.update(dict.fromkeys(layer.params))
        else:
            raise ArgumentError(f"{layer!r} has no params; pass layers and shared values")
    return list(found)


class Dense:
    """x @ W + b for x of shape (..., n_in); W is (n_in, n_out).

    init  of W; b starts at 0, and is None with bias=False
    """

    def __init__(
        self, n_in: int, n_out: int, rng: Rng, *, init: Initializer = initializers.glorot_uniform,
        bias: bool = True, dtype: Any = DEFAULT_FLOAT, name: str = "dense",
    ) -> None:  # fmt: skip
        self.W = shared(init(as_generator(rng), (n_in, n_out), dtype=dtype), f"{name}.W")
        self.b = shared(initializers.zeros(0, n_out, dtype=dtype), f"{name}.b") if bias else None
        self.params: list[Shared] = [self.W] if self.b is None else [self.W, self.b]

    def __call__(self, x: Any) -> Node:
        return _dense(x, self.W, self.b)


@composed
def _dense(x: Any, W: Shared, b: Shared | None) -> Node:
    x = as_node(x)
    if not x.ndim:
        raise ShapeError(f"a dense layer takes at least one axis, got {x!r}")
    unify(x.shape[-1], W.shape[0], f"the last axis of {x!r} and the inputs of {W!r}: sizes")
    # one large product, and one for the gradient of W, however many leading axes there are
    rows = reshape(x, (-1, W.shape[0])) if x.ndim > 2 and W.shape[0] != 0 else x
    y = matmul(rows, W)
    y = y if b is None else y + b
    return reshape(y, (*x.shape[:-1], W.shape[1])) if rows is not x else y


class Embedding:
    """The rows of E, (count, size), that integer ids (any shape) pick: (..., size).

    padding_id  this id gives zeros, and its row gets no gradient
    """

    def __init__(
        self, count: int, size: int, rng: Rng, *, init: Initializer = initializers.normal,
        padding_id: int | None = None, dtype: Any = DEFAULT_FLOAT, name: str = "embedding",
    ) -> None:  # fmt: skip
        if padding_id is not None and not 0 <= padding_id < count:
            raise ArgumentError(f"padding_id must be an id below {count}, got {padding_id}")
        self.padding_id = padding_id
        self.E = shared(init(as_generator(rng), (count, size), dtype=dtype), f"{name}.E")
        self.params: list[Shared] = [self.E]

    def __call__(self, ids: Any) -> Node:
        return _embed(ids, self.E, self.padding_id)


@composed
def _embed(ids: Any, E: Shared, padding_id: int | None) -> Node:
    ids = as_node(ids)
    if not ids.tensor_type.is_integer:
        raise DTypeError(f"an embedding takes integer ids, got {ids!r}")
    rows = take(E, ids, axis=0)
    if padding_id is None:
        return rows
    return where(expand_dims(not_equal(ids, padding_id), -1), rows, 0)


class Conv2D:
    """A convolution of images (batch, n_in, height, width) with filters W, and a bias b.

    kernel  the filters' size: an int, or (height, width); W is (n_out, n_in / groups, *kernel)
    stride, padding, dilation, groups   as in `gd.conv2d`
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int | tuple[int, int], rng: Rng, *,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
        init: Initializer = initializers.glorot_uniform, bias: bool = True,
        dtype: Any = DEFAULT_FLOAT, name: str = "conv",
    ) -> None:  # fmt: skip
        n_in, n_out = positive(n_in, "n_in"), positive(n_out, "n_out")
        if n_in % positive(groups, "groups") or n_out % groups:
            raise ArgumentError(f"{n_in} inputs and {n_out} outputs do not divide by {groups}")
        window = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        sizes = (n_out, n_in // groups, *window)
        self.options = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        }  # fmt: skip
        self.W = shared(init(as_generator(rng), sizes, dtype=dtype), f"{name}.W")
        self.b = shared(initializers.zeros(0, n_out, dtype=dtype), f"{name}.b") if bias else None
        self.params: list[Shared] = [self.W] if self.b is None else [self.W, self.b]

    def __call__(self, x: Any) -> Node:
        y: Node = conv2d(x, self.W, **self.options)
        return y if self.b is None else y + expand_dims(self.b, (-2, -1))
