"""Every mistake says which operation, on what types, on which line of the user's, and what to do.

One table: a row is a mistake made on one line, and what its message must contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import (
    BackendError,
    CheckpointError,
    DisconnectedError,
    DTypeError,
    GradientError,
    GraphdropError,
    GraphError,
    InputError,
    RandomError,
    ShapeError,
)

X, Y = np.ones((2, 3), "f4"), np.ones((3, 4), "f4")


class Row(NamedTuple):
    mistake: Callable[..., Any]
    error: type[GraphdropError]
    operation: str
    types: str
    says: str
    fix: str


x = gd.matrix("x", shape=("batch", 3))
y = gd.matrix("y", shape=("batch", 4))
v = gd.vector("v", shape=("n",))
ids = gd.ivector("ids")
rate = gd.scalar("rate")
training = gd.flag("training")
W = gd.shared(np.zeros((5, 2), "f4"), "W")


STREAM = gd.RandomStream(0)
HIDDEN = gd.dropout(x, 0.5, STREAM, training, name="hidden")

ROWS: dict[str, Row] = {
    "wrong shape: product": Row(
        lambda: x @ W,
        ShapeError, "matmul", r"float32\[batch, 3\].*float32\[5, 2\]",
        "inner sizes 3 and 5 differ", "columns of the left and rows of the right must agree",
    ),
    "wrong shape: broadcasting": Row(
        lambda: x + np.zeros(4, "f4"),
        ShapeError, "add", r"float32\[batch, 3\].*float32\[4\]",
        "axis 1 is 3 in one and 4 in another", r"x\[:, None\]",
    ),
    "wrong dtype: operand": Row(
        lambda: x & 1,
        DTypeError, "bitwise_and", r"float32\[batch, 3\]", "needs integers or bools", "gd.cast",
    ),
    "wrong dtype: index": Row(
        lambda: gd.take(W, v),
        DTypeError, "take", r"float32\[n\]", "indices must be integers", "gd.cast",
    ),
    "wrong dtype: dropout": Row(
        lambda: gd.dropout(ids, 0.5, STREAM),
        DTypeError, "dropout", "int32", "takes floats", "gd.cast",
    ),
    "wrong dtype: argument": Row(
        lambda: gd.function([ids], ids + 1)(np.ones(3)),
        InputError, "function", "<input 'ids' int32", "float64 values", r"astype\('int32'\)",
    ),
    "wrong rank: argument": Row(
        lambda: gd.function([x], x + 1)(np.ones(3, "f4")),
        InputError, "function", r"<input 'x' float32\[batch, 3\]>", "takes 2 axes", "reshape it",
    ),
    "missing input: compiling": Row(
        lambda: gd.function([y], [x, y]),
        InputError, "function", r"<input 'x' float32\[batch, 3\]> \(declared at .*\.py:\d+\)",
        "need the input", r"add it to the inputs, or .*givens=\{x",
    ),
    "missing input: calling": Row(
        lambda: gd.function([v, ids], [v, ids])(np.ones(3, "f4")),
        InputError, "function", r"<input 'ids' int32\[.*\]> \(declared at .*\.py:\d+\)",
        "called without", "one argument for each",
    ),
    "unused input": Row(
        lambda: gd.function([x, y], x),
        InputError, "function", r"<input 'y' float32\[batch, 4\]>",
        "not used by any output", "on_unused_input='ignore'",
    ),
    "unknown backend": Row(
        lambda: gd.function([x], x + 1, backend="nunpy"),
        BackendError, "function", r"<input 'x' float32\[batch, 3\]>",
        "unknown backend 'nunpy'", "installed are .*numpy",
    ),
    "rate out of range: building": Row(
        lambda: gd.dropout(x, 1.5, STREAM),
        RandomError, "dropout", r"float32\[batch, 3\]",
        "got 1.5", "between 0 and 1",
    ),
    "rate NaN": Row(
        lambda: gd.dropout(x, float("nan"), STREAM),
        RandomError, "dropout", r"float32\[batch, 3\]", "got nan", "between 0 and 1",
    ),
    "rate out of range: calling": Row(
        lambda: gd.function([x, rate], gd.dropout(x, rate, STREAM))(X, 1.5),
        RandomError, "threshold", r"float64\[\]",
        "dropout rate.* got 1.5", "between 0 and 1",
    ),
    "duplicate site name": Row(
        lambda: gd.dropout(x * 2, 0.5, STREAM, name="hidden"),
        RandomError, "dropout", r"float32\[batch, 3\]", "name 'hidden'", "choose another",
    ),
    "gradient of a non-scalar": Row(
        lambda: gd.grad(x * 2, x),
        GradientError, "grad", r"<mul float32\[batch, 3\]>", "must be a scalar", r"cost\.sum\(\)",
    ),
    "gradient by an integer": Row(
        lambda: gd.grad(x.sum(), ids),
        GradientError, "grad", "<input 'ids' int32", "not a float", r"gd\.cast",
    ),
    "gradient through an integer": Row(
        lambda: gd.grad(gd.cast(gd.cast(x, "int32"), "float32").sum(), x),
        DisconnectedError, "grad", r"<input 'x' float32\[batch, 3\]>",
        r"nothing flows through <cast int32\[batch, 3\]>", "disconnected='zero'",
    ),
    "gradient of an integer": Row(
        lambda: gd.grad(ids.sum(), x),
        GradientError, "grad", r"<sum int64\[\]>", "must be a float", r"gd\.cast",
    ),
    "if x > 0": Row(
        lambda: 1 if x > 0 else 2,
        GraphError, "greater", r"bool\[batch, 3\]", "has no value", r"gd\.where",
    ),
    "flag not given: compiling": Row(
        lambda: gd.function([x], HIDDEN),
        InputError, "function", r"<input 'training' bool\[\]>",
        "need the input", r"givens=\{training",
    ),
    "flag not given: calling": Row(
        lambda: gd.function([x, training], HIDDEN)(X),
        InputError, "function", r"<input 'training' bool\[\]>",
        "called without", "one argument for each",
    ),
    "run-time size mismatch: arguments": Row(
        lambda: gd.function([x, y], [x, y])(X, Y),
        ShapeError, "function", r"float32\[batch, 3\].*float32\[batch, 4\]",
        r"dim 'batch' is 2 in x \(axis 0\) but 3 in y \(axis 0\)", "call with arrays that fit",
    ),
    "run-time size mismatch: operation": Row(
        lambda: gd.function([x, v], x[:, 0] + v)(X, np.ones(5, "f4")),
        ShapeError, "add", r"float32\[batch\].*float32\[n\]",
        "batch = 2 and n = 5", "call with arrays that fit",
    ),
    "run-time size mismatch: declared": Row(
        lambda: gd.function([x], x)(Y),
        ShapeError, "function", r"float32\[batch, 3\]",
        r"x \(axis 1\) must have size 3, got 4", "call with arrays that fit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_mistake_says(name: str) -> None:
    row = ROWS[name]
    with pytest.raises(row.error) as caught:
        row.mistake()
    message = str(caught.value)
    assert_says(message, row)
    line = row.mistake.__code__.co_firstlineno
    assert f"{Path(__file__).name}:{line}" in message


def assert_says(message: str, row: Row) -> None:
    assert re.match(rf"<?{row.operation}\b", message), message
    for part in (row.types, row.says, row.fix):
        assert re.search(part, message), f"no {part!r} in: {message}"


def test_mistakes_change_nothing() -> None:
    """A refused draw gives its site back."""
    stream = gd.RandomStream(0)
    with pytest.raises(RandomError):
        gd.dropout(x, 2.0, stream, name="a")
    with pytest.raises(DTypeError):
        gd.dropout(ids, 0.5, stream, name="a")
    assert gd.dropout(x, 0.5, stream, name="a").op.name == "dropout"


@pytest.mark.parametrize("damage", ["truncated", "tampered", "another model"])
def test_a_checkpoint_that_does_not_fit_says(damage: str, tmp_path: Path) -> None:
    path, w = tmp_path / "model.safetensors", gd.shared(np.ones((3, 4), "f4"), "w")
    gd.save(path, w)
    data = path.read_bytes()
    changed = {"truncated": data[:-5], "tampered": data[:-1] + b"\0", "another model": data}
    path.write_bytes(changed[damage])
    target = gd.shared(np.zeros((3, 5), "f4"), "w") if damage == "another model" else w
    says, fix = {
        "truncated": ("truncated", "use another copy"),
        "tampered": ("changed after saving", "use another copy"),
        "another model": (
            "nothing was changed",
            r"float32\[3, 4\] in the file but float32\[3, 5\]",
        ),
    }[damage]
    row = Row(
        lambda: gd.load(path, target),
        CheckpointError, "load", r"<shared 'w' float32\[3, \d\]>", says, fix,
    )  # fmt: skip
    with pytest.raises(CheckpointError) as caught:
        row.mistake()
    assert_says(str(caught.value), row)
    assert f"{Path(__file__).name}:{row.mistake.__code__.co_firstlineno}" in str(caught.value)
    assert str(path) in str(caught.value)
