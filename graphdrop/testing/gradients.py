"""Gradients against central differences, for users and for the op table.

Checking in the manner of autograd's `check_grads`: order by order, each time differentiating a
random projection of the gradients before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..autodiff import grad
from ..errors import ArgumentError, CheckError
from ..function import Function, function
from ..graph import Node
from ..op import as_node
from ..ops import reduce
from ..ops.leaf import tensor
from ..tree import flatten

Array = np.ndarray[Any, Any]
STEP = 2.0**-17  # near the cube root of float64's epsilon, where both errors are smallest
SHOWN = 5  # wrong elements listed in a message


def check_grad(
    fn: Callable[..., Any] | Node,
    inputs: Sequence[Any] | Mapping[Node, Any],
    *,
    order: int = 2,
    wrt: Sequence[int] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int = 0,
    elements: int = 100,
    backend: str = "numpy",
    optimize: bool = True,
) -> None:
    """Compare gradients with central differences in float64; raises CheckError where they differ.

    fn        from nodes to a node (or nodes in lists, tuples, dicts); or a node, and then `inputs`
              maps the input nodes it depends on to arrays
    inputs    arrays; floats are taken as float64.  Keep away from kinks and from ties
    order     1: gradients; 2: and the gradients of their projections on random vectors; ...
    wrt       indices of the inputs to differentiate by; None: all floats
    rtol      allowed difference relative to the largest gradient of that input
    atol      allowed difference relative to the projected output, where that is more than 1
    elements  elements compared in each input, chosen at random where it has more

    The output is projected on random weights, so that one check covers the whole Jacobian.  Draws
    use the masks of call 0 throughout; no stream advances.
    """
    rng = np.random.default_rng(seed)
    nodes, arrays, outputs = _build(fn, inputs)
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    chosen = floats if wrt is None else list(wrt)
    if not chosen:
        raise ArgumentError("check_grad needs an input of floats")
    run = _Runner(nodes, arrays, backend, optimize)
    targets = [o for o in outputs if o.tensor_type.is_float]
    if not targets:
        raise ArgumentError(f"check_grad needs an output of floats, got {outputs}")
    shapes = [v.shape for v in run(targets)]
    cost = run.project(targets, shapes, rng)
    for level in range(1, order + 1):
        gradients = grad(cost, [nodes[i] for i in chosen], disconnected="zero")
        found = run(gradients)
        value = run.compile([cost])
        for i, g in zip(chosen, found, strict=True):
            wrong = _differences(run, value, i, g, rtol, atol, rng, elements)
            if wrong:
                raise CheckError(_report(level, i, nodes[i], wrong))
        cost = run.project(gradients, [arrays[i].shape for i in chosen], rng)


def _build(
    fn: Callable[..., Any] | Node, inputs: Sequence[Any] | Mapping[Node, Any]
) -> tuple[list[Node], list[Array], list[Node]]:
    """Input nodes, their arrays (floats in float64) and the outputs."""
    if isinstance(fn, Node):
        if not isinstance(inputs, Mapping):
            raise ArgumentError("for a node, check_grad takes {input node: array}")
        nodes = list(inputs)
        narrow = [n for n in nodes if n.tensor_type.is_float and n.dtype != np.float64]
        if narrow:
            raise ArgumentError(
                f"central differences need float64, but {narrow} are not; declare them with "
                f"dtype='float64', or give check_grad a function of nodes"
            )
        return nodes, [np.array(inputs[n], n.dtype) for n in nodes], [fn]
    arrays = [np.array(a) for a in inputs]
    arrays = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    nodes = [tensor(f"x{i}", a.dtype, a.shape) for i, a in enumerate(arrays)]
    return nodes, arrays, [as_node(o) for o in flatten(fn(*nodes))[0]]


class _Runner:
    """Compiles nodes of some inputs and computes them, with every stream at call 0."""

    def __init__(
        self, nodes: list[Node], arrays: list[Array], backend: str, optimize: bool
    ) -> None:
        # projections add inputs of their own
        self.nodes, self.arrays = list(nodes), list(arrays)
        self.backend, self.optimize = backend, optimize

    def compile(self, outputs: list[Node]) -> Function:
        return function(
            self.nodes, outputs, backend=self.backend, optimize=self.optimize,
            on_unused_input="ignore",
        )  # fmt: skip

    def call(self, compiled: Function) -> list[Array]:
        with ExitStack() as stack:
            for stream in compiled.streams:
                stack.enter_context(stream.at(call=0))
            results: list[Array] = compiled(*self.arrays)
            return results

    def __call__(self, outputs: list[Node]) -> list[Array]:
        return self.call(self.compile(outputs))

    def project(
        self, outputs: list[Node], shapes: list[tuple[int, ...]], rng: np.random.Generator
    ) -> Node:
        """The sum of all elements of the outputs, each times a random weight."""
        total = as_node(np.float64(0))
        for output, shape in zip(outputs, shapes, strict=True):
            weights = tensor(f"w{len(self.nodes)}", output.dtype, output.shape)
            self.nodes.append(weights)
            self.arrays.append(rng.uniform(0.5, 1.5, shape).astype(output.dtype))
            total = total + reduce.sum(output * weights)
        return total


# (index, what the graph says, what the differences say, the difference allowed)
_Wrong = tuple[tuple[int, ...], float, float, float]


def _differences(
    run: _Runner, value: Function, index: int, found: Array, rtol: float, atol: float,
    rng: np.random.Generator, elements: int,
) -> list[_Wrong]:  # fmt: skip
    """The elements of one input whose derivative is not what central differences give."""
    array = run.arrays[index]
    scale = max(1.0, abs(float(run.call(value)[0])))
    allowed = atol * scale + rtol * float(np.max(np.abs(found), initial=0.0))
    places = list(np.ndindex(array.shape))
    if len(places) > elements:
        places = [places[k] for k in rng.choice(len(places), elements, replace=False)]
    wrong: list[_Wrong] = []
    for place in places:
        step = STEP * max(1.0, abs(float(array[place])))
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            run.arrays[index] = moved
            ends.append(float(run.call(value)[0]))
        run.arrays[index] = array
        slope, claimed = (ends[0] - ends[1]) / (2 * step), float(found[place])
        if not abs(claimed - slope) <= allowed:  # also where either is NaN
            wrong.append((place, claimed, slope, allowed))
    return wrong


def _report(level: int, index: int, node: Node, wrong: list[_Wrong]) -> str:
    name = {1: "gradient", 2: "second derivative"}.get(level, f"derivative of order {level}")
    lines = [f"the {name} by input {index} {node!r} is wrong at {len(wrong)} element(s):"]
    worst = sorted(wrong, key=lambda w: -np.nan_to_num(abs(w[1] - w[2]), nan=np.inf))
    for place, claimed, slope, allowed in worst[:SHOWN]:
        lines.append(
            f"  {list(place)}: the graph says {claimed:.10g}, central differences {slope:.10g} "
            f"(allowed difference {allowed:.1g})"
        )
    return "\n".join(lines)
