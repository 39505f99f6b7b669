"""Recurrent layers over sequences of shape (time, batch, n_in): RNN, LSTM, GRU.

    lstm = nn.LSTM(64, 128, rng, layers=2, dropout=nn.RecurrentDropout(stream, training, state=0.3))
    h, state = lstm(x)                   # h is (time, batch, 128)
    h, state = lstm(x, state, mask=m)    # go on where it left off; m is False on padding

The products of the inputs are made for all steps at once; only what depends on the state is inside
the loop.  Batch and length may be symbolic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import tree
from ..errors import ArgumentError, DTypeError, ShapeError, positive
from ..graph import Node
from ..op import DEFAULT_FLOAT, as_node, composed
from ..ops.create import zeros
from ..ops.elementwise import relu, sigmoid, tanh, where
from ..ops.join import concatenate, split
from ..ops.leaf import Shared, shared
from ..ops.linalg import matmul
from ..ops.shape import expand_dims
from ..scan import scan
from ..types import unify
from . import initializers
from .initializers import Initializer, Rng, as_generator
from .layers import _dense
from .recurrent_dropout import RecurrentDropout, StepNoise, check_choice


@dataclass(frozen=True, eq=False)
class Weights:
    """The parameters of one layer in one direction; gates lie side by side.

    W  (n_in, gates * units), U  (units, gates * units), b  (gates * units,)
    extra  (units,) or (3, units): what only some kinds have
    """

    W: Shared
    U: Shared
    b: Shared
    extra: Shared | None = None

    @property
    def params(self) -> list[Shared]:
        return [self.W, self.U, self.b] + ([] if self.extra is None else [self.extra])


class Recurrent:
    """What all recurrent layers share; use RNN, LSTM or GRU.

    n_in, units     sizes of the input and of the state
    layers          how many are stacked
    bidirectional   a second state runs backward, and the outputs of both lie side by side
    dropout         an `nn.RecurrentDropout`
    init            of W; recurrent_init  of U, gate by gate; b starts at 0

    weights[layer][direction] are the `Weights`.
    """

    gates: ClassVar[int]
    parts: ClassVar[int] = 1  # of the state of one direction
    updates: ClassVar[bool] = True  # whether a step adds to a memory

    def __init__(
        self, n_in: int, units: int, rng: Rng, *, layers: int = 1, bidirectional: bool = False,
        dropout: RecurrentDropout | None = None, init: Initializer = initializers.glorot_uniform,
        recurrent_init: Initializer = initializers.orthogonal, dtype: Any = DEFAULT_FLOAT,
        name: str = "",
    ) -> None:  # fmt: skip
        n_in, units = positive(n_in, "n_in"), positive(units, "units")
        layers = positive(layers, "layers")
        check_choice(dropout, type(self).__name__, self.updates, self.parts)
        self.units, self.layers, self.dropout = units, layers, dropout
        self.directions = 2 if bidirectional else 1
        name = name or type(self).__name__.lower()
        rng = as_generator(rng)
        self.weights: list[list[Weights]] = []
        for layer in range(layers):
            size = n_in if layer == 0 else units * self.directions
            self.weights.append(
                [
                    self._weights(size, rng, init, recurrent_init, dtype, name + label)
                    for label in (self._label(layer, d) for d in range(self.directions))
                ]
            )
        self.params = [p for pair in self.weights for w in pair for p in w.params]

    def _label(self, layer: int, direction: int) -> str:
        """What tells a layer and direction from others in names."""
        return (f".{layer}" if self.layers > 1 else "") + (".back" if direction else "")

    def _weights(
        self, n_in: int, rng: np.random.Generator, init: Initializer, recurrent_init: Initializer,
        dtype: Any, name: str,
    ) -> Weights:  # fmt: skip
        def blocks(make: Initializer, rows: int) -> Any:
            made = [make(rng, (rows, self.units), dtype=dtype) for _ in range(self.gates)]
            return np.concatenate(made, axis=1)

        return Weights(
            shared(blocks(init, n_in), f"{name}.W"),
            shared(blocks(recurrent_init, self.units), f"{name}.U"),
            shared(self._bias(dtype), f"{name}.b"),
            self._extra(dtype, name),
        )

    def _bias(self, dtype: Any) -> Any:
        return np.zeros(self.gates * self.units, dtype)

    def _extra(self, dtype: Any, name: str) -> Shared | None:
        return None

    def next(
        self, w: Weights, x: Node, state: tuple[Node, ...], u: Node, noise: StepNoise
    ) -> tuple[Node, ...]:
        """The state after one step.

        x  inputs times W, plus b; u  the state times U; both (batch, gates * units)
        """
        raise NotImplementedError

    # ---- use
    def __call__(
        self, x: Any, state: Any = None, *, mask: Any = None, truncate: int | None = None,
        checkpoint: int | None = None,
    ) -> tuple[Node, Any]:  # fmt: skip
        """Outputs (time, batch, units * directions), and the state after the last step.

        x      (time, batch, n_in)
        state  what an earlier call gave, or None for zeros: for each layer (a list if there are
               several) and direction (a pair if bidirectional) h, or (h, c) for an LSTM
        mask   bools (time, batch), False on padding: there the state stays and outputs are 0
        truncate, checkpoint  as for `gd.scan`
        """
        return _run(self, x, state, mask, truncate, checkpoint)

    def step(self, x: Any, state: Any = None) -> tuple[Node, Any]:
        """One step on x of shape (batch, n_in): outputs (batch, units) and the new state.

        Nothing is dropped: it is for using a trained layer word by word, say inside a `gd.scan`.
        """
        return _one_step(self, x, state)

    def _initial(self, x: Node, state: Any) -> list[list[tuple[Node, ...]]]:
        """The state as [layer][direction], each a tuple of parts."""
        shape = (x.shape[-2], self.units)
        if state is None:
            start = (zeros(shape, x.dtype),) * self.parts
            return [[start] * self.directions for _ in range(self.layers)]
        flat, given = tree.flatten(state)
        sample = [[(0,) * self.parts] * self.directions] * self.layers
        wanted = tree.flatten(self._nested(sample))[1]
        if given != wanted:
            raise ArgumentError(
                f"the state of {self.layers} layer(s) of {type(self).__name__} in "
                f"{self.directions} direction(s) has another structure; pass what a call returned"
            )
        nodes = [as_node(n) for n in flat]
        for node in nodes:
            if node.dtype != x.dtype or node.ndim != 2:
                raise ShapeError(f"a state is {x.dtype} of shape (batch, units), got {node!r}")
            for a, b in zip(node.shape, shape, strict=True):
                unify(a, b, f"the state {node!r} does not fit (batch, {self.units}): sizes")
        rest = iter(nodes)
        return [
            [tuple(next(rest) for _ in range(self.parts)) for _ in range(self.directions)]
            for _ in range(self.layers)
        ]

    def _nested(self, states: Any) -> Any:
        """[layer][direction] parts as users see it."""

        def one(parts: Any) -> Any:
            return parts if self.parts > 1 else parts[0]

        found = [
            tuple(one(p) for p in pair) if self.directions > 1 else one(pair[0]) for pair in states
        ]
        return found if self.layers > 1 else found[0]


@composed
def _run(
    layer: Recurrent, x: Any, state: Any, mask: Any, truncate: int | None, checkpoint: int | None
) -> tuple[Node, Any]:
    x, choice = _checked(layer, x, 3, "(time, batch, n_in)"), layer.dropout
    if mask is not None:
        mask = as_node(mask)
        if not mask.tensor_type.is_bool or mask.ndim != 2:
            raise DTypeError(f"a mask is bools of shape (time, batch), got {mask!r}")
        for a, b in zip(mask.shape, x.shape, strict=False):
            unify(a, b, f"the mask {mask!r} does not fit {x!r}: sizes")
        mask = expand_dims(mask, -1)
    states, after = layer._initial(x, state), []
    for i, weights in enumerate(layer.weights):
        if choice is not None:
            x = (
                choice.of_sequence(x, "between", str(i) if layer.layers > 2 else "")
                if i
                else (choice.of_sequence(x, "inputs"))
            )
        outs, last = [], []
        for d, w in enumerate(weights):
            noise = StepNoise(choice, layer._label(i, d), (x.shape[1], layer.units))
            u = w.U if choice is None else choice.of_weights(w.U, layer._label(i, d))
            step = _step(layer, w, u, noise, mask is not None, checkpoint is not None)
            # checkpointed, products for all steps would take the memory that is to be saved
            rows = x if checkpoint is not None else _dense(x, w.W, w.b)
            final, h = scan(
                step, rows if mask is None else (rows, mask), states[i][d], reverse=d == 1,
                truncate=truncate, checkpoint=checkpoint,
            )  # fmt: skip
            outs.append(h)
            last.append(final)
        x = outs[0] if len(outs) == 1 else concatenate(outs, axis=-1)
        after.append(last)
    if choice is not None:
        x = choice.of_sequence(x, "outputs")
    return x, layer._nested(after)


def _step(
    layer: Recurrent, w: Weights, u: Node, noise: StepNoise, masked: bool, raw: bool
) -> Callable[[Any, Any], Any]:
    """The step of a scan; with a mask, padding leaves the state as it is and gives 0.

    raw  whether the step gets inputs, and not their products with W
    """

    def step(state: tuple[Node, ...], row: Any) -> tuple[tuple[Node, ...], Node]:
        x, valid = row if masked else (row, None)
        x = _dense(x, w.W, w.b) if raw else x
        new = layer.next(w, x, state, matmul(noise.state(state[0]), u), noise)
        if valid is None:
            return new, new[0]
        held = tuple(where(valid, n, o) for n, o in zip(new, state, strict=True))
        return held, where(valid, new[0], 0)

    return step


@composed
def _one_step(layer: Recurrent, x: Any, state: Any) -> tuple[Node, Any]:
    x = _checked(layer, x, 2, "(batch, n_in)")
    if layer.directions > 1:
        raise ArgumentError("a bidirectional layer needs the whole sequence; call it with that")
    resting = layer.dropout
    if resting is not None:
        # zoneout has an expectation to take, the others are nothing
        resting = RecurrentDropout(resting.stream, False, zoneout=resting.zoneout)
    after = []
    for (w,), (old,) in zip(layer.weights, layer._initial(x, state), strict=True):
        noise = StepNoise(resting, "", old[0].shape)
        new = layer.next(w, _dense(x, w.W, w.b), old, matmul(old[0], w.U), noise)
        after.append([new])
        x = new[0]
    return x, layer._nested(after)


def _checked(layer: Recurrent, x: Any, ndim: int, shape: str) -> Node:
    node, first = as_node(x), layer.weights[0][0].W
    if node.ndim != ndim:
        raise ShapeError(f"{type(layer).__name__} takes {shape}, got {node!r}")
    if node.dtype != first.dtype:
        raise DTypeError(f"the weights are {first.dtype}, got {node!r}; cast it with gd.cast")
    unify(node.shape[-1], first.shape[0], f"the last axis of {node!r} and n_in: sizes")
    return node


class RNN(Recurrent):
    """h = tanh(x W + h U + b), or relu (Elman 1990); the arguments are those of `Recurrent`."""

    gates, updates = 1, False

    def __init__(
        self, n_in: int, units: int, rng: Rng, *, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        if nonlinearity not in _FUNCTIONS:
            raise ArgumentError(f"nonlinearity is 'tanh' or 'relu', got {nonlinearity!r}")
        self.function = _FUNCTIONS[nonlinearity]
        super().__init__(n_in, units, rng, **options)

    def next(
        self, w: Weights, x: Node, state: tuple[Node, ...], u: Node, noise: StepNoise
    ) -> tuple[Node, ...]:
        return (noise.zoned(self.function(x + u), state[0], "h"),)


_FUNCTIONS: dict[str, Callable[[Any], Node]] = {"tanh": tanh, "relu": relu}


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gates: Gers et al. 2000).

    i, f, o = sigmoid, g = tanh of x W + h U + b, in the order i f g o
    c = f c + i g;  h = o tanh(c)

    forget_bias  what the forget gates' b starts at (Jozefowicz et al. 2015)
    peepholes    gates see the memory: i and f the old c, o the new one, times weights of their own
                 (Gers and Schmidhuber 2000)
    """

    gates, parts = 4, 2

    def __init__(
        self, n_in: int, units: int, rng: Rng, *, peepholes: bool = False,
        forget_bias: float = 1.0, **options: Any,
    ) -> None:  # fmt: skip
        self.peepholes, self.forget_bias = peepholes, forget_bias
        super().__init__(n_in, units, rng, **options)

    def _bias(self, dtype: Any) -> Any:
        b = super()._bias(dtype)
        b[self.units : 2 * self.units] = self.forget_bias
        return b

    def _extra(self, dtype: Any, name: str) -> Shared | None:
        return shared(np.zeros((3, self.units), dtype), f"{name}.P") if self.peepholes else None

    def next(
        self, w: Weights, x: Node, state: tuple[Node, ...], u: Node, noise: StepNoise
    ) -> tuple[Node, ...]:
        h, c = state
        i, f, g, o = split(x + u, 4, axis=-1)
        if w.extra is not None:
            i, f = i + c * w.extra[0], f + c * w.extra[1]
        memory = sigmoid(f) * c + sigmoid(i) * noise.update(tanh(g))
        if w.extra is not None:
            o = o + memory * w.extra[2]
        memory = noise.zoned(memory, c, "c")
        return noise.zoned(sigmoid(o) * tanh(memory), h, "h"), memory


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as in cuDNN.

    r, z = sigmoid of x W + h U + b;  n = tanh(x W + b + r (h U + bn));  h = (1 - z) n + z h
    in the order r z n
    """

    gates = 3

    def _extra(self, dtype: Any, name: str) -> Shared | None:
        return shared(np.zeros(self.units, dtype), f"{name}.bn")

    def next(
        self, w: Weights, x: Node, state: tuple[Node, ...], u: Node, noise: StepNoise
    ) -> tuple[Node, ...]:
        (h,) = state
        (xr, xz, xn), (ur, uz, un) = split(x, 3, axis=-1), split(u, 3, axis=-1)
        assert w.extra is not None
        z = sigmoid(xz + uz)
        new = noise.update(tanh(xn + sigmoid(xr + ur) * (un + w.extra)))
        return (noise.zoned((1 - z) * new + z * h, h, "h"),)
