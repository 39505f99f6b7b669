"""Whether backends agree: every operation and its gradients, draws, training, and checkpoints.

    python -m graphdrop.testing parity --backends numpy,llvm,cupy

The first backend is what the others are compared with.  What is drawn must be equal to the bit,
other numbers within the ulp that the op table allows.  Backends of others need only be registered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn, optim
from ..autodiff import grad
from ..dropout import dropout
from ..function import function
from ..graph import Node
from ..op import as_node
from ..ops import create, reduce
from ..ops.elementwise import not_equal, relu, tanh
from ..ops.leaf import Shared, ivector, matrix, shared, tensor3
from ..precision import mixed_precision
from ..random import RandomStream
from ..scan import scan
from ..serialize import load, save
from ..tree import flatten
from . import runner
from .table import Array, Case

SEED = 2**63 + 11
GRADIENTS = 1e5  # ulp of the largest: sums of products in another order
TRAINING = 2e4  # ulp of float32, after all steps


@dataclass(frozen=True)
class Row:
    """One comparison.

    off      by how many ulp of the largest number a backend differs, in the order of the others
    allowed  by how many it may; 0: not by a bit
    """

    name: str
    dtype: str
    off: tuple[float, ...]
    allowed: float

    @property
    def agrees(self) -> bool:
        return all(x <= self.allowed for x in self.off)


def distance(found: Array, right: Array, least: float = 0.0) -> float:
    """How far apart two arrays are, in ulp of the largest number, but of `least` at least.

    Infinite where NaN, infinities, shapes or dtypes differ, or anything where they are no floats.
    """
    if (found.dtype, found.shape) != (right.dtype, right.shape):
        return np.inf
    if right.dtype.kind != "f":
        return 0.0 if found.tobytes() == right.tobytes() else np.inf
    finite = np.isfinite(right)
    if not np.array_equal(found[~finite], right[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(found[finite]).all():
        return np.inf
    if not finite.any():
        return 0.0
    a, b = found[finite].astype(np.float64), right[finite].astype(np.float64)
    largest = np.nextafter(np.finfo(right.dtype).max, 0, dtype=right.dtype)
    size = np.minimum(np.max(np.abs(right[finite]), initial=right.dtype.type(least)), largest)
    return float(np.max(np.abs(a - b)) / np.spacing(size).astype(np.float64))


def _worst(results: Sequence[Sequence[Array]], least: float = 0.0) -> tuple[float, ...]:
    """The distance of each backend's results from the first's."""
    first, *others = results
    return tuple(
        max((distance(f, r, least) for f, r in zip(found, first, strict=True)), default=0.0)
        for found in others
    )


# ---- operations
def values(case: Case, backends: Sequence[str], few: int = 1) -> list[Row]:
    """A case of the op table, a row for every dtype: all samples of the last, `few` of the others.

    They are computed by one function: to compile takes longer than to run.
    """
    nodes: list[Node] = []
    arrays: list[Array] = []
    outputs: list[Node] = []
    ends: list[int] = []
    for dtype in case.dtypes:
        last = dtype == case.dtypes[-1]
        some = case if last else replace(case, samples=case.samples[:few])
        for given in runner.samples(some, dtype):
            operands = runner.inputs_for(given, case.symbolic, len(nodes))
            outputs += [as_node(n) for n in flatten(case.build(*operands))[0]]
            nodes, arrays = nodes + operands, arrays + given
        ends.append(len(outputs))
    results = [_computed(nodes, outputs, arrays, b) for b in backends]
    allowed = case.ulp + (case.ulp if case.others is None else case.others)
    return [
        Row(case.name, dtype, _worst([r[start:end] for r in results]), allowed)
        for dtype, start, end in zip(case.dtypes, [0, *ends], ends, strict=False)
    ]


def _computed(nodes: list[Node], outputs: Any, arrays: list[Array], backend: str) -> list[Array]:
    run = function(nodes, outputs, backend=backend, on_unused_input="ignore")
    return flatten(run(*arrays))[0]


def has_gradients(case: Case) -> bool:
    """Whether there is anything to differentiate."""
    return case.wrt != () and "float64" in case.dtypes


def gradients(case: Case, backends: Sequence[str]) -> Row:
    """First and second derivatives, projected on weights that are the same for all."""
    inputs: list[Node] = []
    given: list[Array] = []
    found: list[Node] = []
    for arrays in runner.samples(case, np.float64):
        wrt = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
        wrt = list(case.wrt) if case.wrt is not None else wrt
        if not wrt:
            continue
        nodes = runner.inputs_for(arrays, case.symbolic, len(inputs))
        inputs, given = inputs + nodes, given + arrays
        outputs = [as_node(n) for n in flatten(case.build(*nodes))[0]]
        for _ in range(min(case.order, 2)):
            outputs = grad(_projected(outputs), [nodes[i] for i in wrt], disconnected="zero")
            found += outputs
    # what ought to be 0 is a difference of numbers near 1
    off = _worst([_computed(inputs, found, given, b) for b in backends], least=1.0)
    return Row(f"{case.name}: gradients", "float64", off, GRADIENTS)


def _projected(outputs: Sequence[Node]) -> Node:
    """The sum of all elements, each times a weight that depends on its place."""
    total = as_node(np.float64(0))
    for node in outputs:
        if node.tensor_type.is_float:
            count = create.arange(node.size, dtype=node.dtype) % 7 + 0.5
            total = total + reduce.sum(node.reshape((-1,)) * count)
    return total


# ---- draws
def draws() -> dict[str, tuple[Callable[[RandomStream, Node], Node], float]]:
    """Name -> (what is drawn in the shape of an input, allowed ulp)."""
    ids = np.array([5, 0, 2**40, 7, 5], np.int64)
    return {
        "dropout": (lambda s, x: dropout(x, 0.3, s), 0),
        "dropout of float64": (lambda s, x: dropout(x.astype("float64"), 0.3, s), 0),
        "dropout of float16": (lambda s, x: dropout(x.astype("float16"), 0.3, s), 0),
        "dropout of all": (lambda s, x: dropout(x, 1.0, s), 0),
        "dropout of rows": (lambda s, x: dropout(x, 0.5, s, axes=(0,)), 0),
        "dropout added up": (lambda s, x: dropout(x * x, 0.5, s).sum(axis=0), 1),
        "dropout by example": (lambda s, x: dropout(x[:5], 0.5, s, example=ids), 0),
        "bernoulli": (lambda s, x: s.bernoulli(x.shape, 0.2), 0),
        "randint": (lambda s, x: s.randint(x.shape, -7, 100), 0),
        "uniform": (lambda s, x: s.uniform(x.shape), 0),
        "uniform float64": (lambda s, x: s.uniform(x.shape, dtype="float64"), 0),
        "normal": (lambda s, x: s.normal(x.shape), 4),
        "permutation": (lambda s, x: s.permutation(x.shape[0]), 0),
    }  # fmt: skip


SHAPES = ((5, 3), (16, 1), (7, 33), (9, 700))


def drawn(name: str, backends: Sequence[str]) -> Row:
    """Two calls of a draw at several sizes."""
    build, allowed = draws()[name]
    results = []
    for backend in backends:
        x = matrix("x")
        node = build(RandomStream(SEED), x)
        run = function([x], node, backend=backend, on_unused_input="ignore")
        results.append([run(_data(s)) for s in SHAPES for _ in range(2)])
    return Row(name, "", _worst(results), allowed)


def _data(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(1, 1, shape).astype(np.float32)


# ---- training
Trained = tuple[Callable[[], Any], list[Shared], RandomStream]


def _network(backend: str, half: bool = False) -> Trained:
    """A step of a network of two layers with dropout, and momentum.

    half  whether in mixed precision, with loss scaling
    """
    x, y = matrix("x", shape=("batch", 20)), ivector("y", shape=("batch",))
    stream = RandomStream(SEED)
    w1, b1 = shared(_data((20, 33), 1) * 0.1, "w1"), shared(np.zeros(33, "f4"), "b1")
    w2 = shared(_data((33, 5), 2) * 0.1, "w2")
    h = dropout(relu(x @ w1 + b1), 0.5, stream, name="hidden")
    loss = nn.softmax_cross_entropy(h @ w2, y).mean()
    params = [w1, b1, w2]

    def optimizer(grads: Any) -> Any:
        return optim.sgd(grads, params, lr=0.1, momentum=0.9)

    if half:
        updates = optim.loss_scaling(mixed_precision(loss), params, optimizer)
    else:
        updates = optimizer(loss)
    step = function([x, y], [loss, not_equal(h, 0)], updates=updates, backend=backend)
    return lambda: step(_data((17, 20), 3), np.arange(17, dtype="i4") % 5), params, stream


def _recurrent(backend: str) -> Trained:
    """A step of a recurrent network whose state is dropped at every step of a scan."""
    x, stream = tensor3("x", shape=("time", "batch", 6)), RandomStream(SEED)
    u, w = shared(_data((6, 8), 4) * 0.3, "u"), shared(_data((8, 8), 5) * 0.3, "w")

    def body(h: Node, row: Node) -> Any:
        h = tanh(row @ u + dropout(h, 0.4, stream, name="state") @ w)
        return h, h

    _, hs = scan(body, x, create.zeros((x.shape[1], 8)))
    loss = (hs * hs).mean()
    step = function([x], loss, updates=optim.sgd(loss, [u, w], lr=0.5), backend=backend)
    return lambda: step(_data((5, 3, 6), 6)), [u, w], stream


MODELS: dict[str, Callable[[str], Trained]] = {
    "network": _network,
    "mixed precision": partial(_network, half=True),
    "recurrent": _recurrent,
}


def trained(name: str, backends: Sequence[str], steps: int = 6) -> Row:
    """Losses, masks and weights along some steps."""
    results = []
    for backend in backends:
        step, params, _ = MODELS[name](backend)
        found = [np.asarray(a) for _ in range(steps) for a in flatten(step())[0]]
        results.append(found + [p.get_value() for p in params])
    return Row(f"training: {name}", "float32", _worst(results), TRAINING)


def carried_on(name: str, backends: Sequence[str]) -> Row:
    """Three steps on the first backend, saved, loaded, and three more on each."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        step, params, stream = MODELS[name](backends[0])
        for _ in range(3):
            step()
        save(path, [*params, stream])
        for backend in backends:
            step, params, stream = MODELS[name](backend)
            load(path, [*params, stream])
            found = [np.asarray(a) for _ in range(3) for a in flatten(step())[0]]
            results.append(found + [p.get_value() for p in params])
    return Row(f"checkpoint: {name}", "float32", _worst(results), TRAINING)


# ---- all of it
def comparisons(backends: Sequence[str], only: str = "") -> list[Callable[[], list[Row]]]:
    """All comparisons whose names contain `only`, to be made one after the other."""
    cases = [c for c in runner.cases() if only in c.name]
    found: list[Callable[[], list[Row]]] = []
    for case in cases:
        found.append(partial(values, case, backends))
        if has_gradients(case):
            found.append(partial(_row, gradients, case, backends))
    found += [partial(_row, drawn, name, backends) for name in draws() if only in name]
    for model in (m for m in MODELS if only in m):
        found += [partial(_row, of, model, backends) for of in (trained, carried_on)]
    return found


def _row(compare: Callable[..., Row], *given: Any) -> list[Row]:
    return [compare(*given)]


def report(found: Sequence[Row], backends: Sequence[str]) -> str:
    """A line for everything compared, all dtypes together: the largest difference by backend."""
    first, *others = backends
    names = list(dict.fromkeys(row.name for row in found))
    width = max(map(len, names), default=0)
    lines = [f"{'ulp from ' + first:{width}s}  " + "  ".join(f"{b:>9s}" for b in others)]
    for name in names:
        mine = [row for row in found if row.name == name]
        off = [max(x) for x in zip(*(row.off for row in mine), strict=True)]
        shown = "  ".join(
            f"{'bit-equal' if x == 0 and all(r.allowed == 0 for r in mine) else f'{x:.3g}':>9s}"
            for x in off
        )
        wrong = "" if all(row.agrees for row in mine) else "  <- more than allowed"
        lines.append(f"{name:{width}s}  {shown}{wrong}")
    bad = sum(not row.agrees for row in found)
    return "\n".join([*lines, f"{len(found)} comparisons, {bad} beyond what is allowed"])
