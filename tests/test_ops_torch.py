"""The op table against PyTorch: values in float32 and float64, gradients where both have one."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.op import as_node
from graphdrop.testing import runner
from graphdrop.testing.table import Array, Case
from graphdrop.tree import flatten

CASES = [c for c in runner.cases() if c.torch is not None]

if importlib.util.find_spec("torch") is None:
    pytest.skip(
        f"{len(CASES)} rows of the op table are not compared: PyTorch is not installed",
        allow_module_level=True,
    )

import torch  # noqa: E402

# PyTorch tells how it pads
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

# relative to the largest magnitude; float32 differs by the order of additions
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def tensors(arrays: list[Array], wrt: list[int]) -> list[Any]:
    found = [torch.from_numpy(np.array(a)) for a in arrays]  # torch takes no negative strides
    for i in wrt:
        found[i].requires_grad_()
    return found


def agree(what: str, ours: Array, theirs: Any, dtype: str) -> None:
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape}, PyTorch {expected.shape}"
    scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(
        ours, expected, rtol=0, atol=TOLERANCE[dtype] * float(scale), err_msg=what
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.replace(" ", "_"))
def test_values_and_gradients(case: Case) -> None:
    assert case.torch is not None
    dtypes = [d for d in TOLERANCE if d in case.dtypes]
    for dtype in dtypes:
        for arrays in runner.samples(case, dtype):
            floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
            wrt = (floats if case.wrt is None else list(case.wrt)) if case.torch_grad else []
            what = f"{case.name} of {[a.shape for a in arrays]}"
            given = tensors(arrays, wrt)
            theirs = flatten(case.torch(*given))[0]
            nodes = runner.inputs_for(arrays)
            built = [as_node(n) for n in flatten(case.build(*nodes))[0]]
            # the same random cotangents on both sides
            rng = np.random.default_rng(0)
            seeds = [
                rng.uniform(0.5, 1.5, t.shape).astype(n.dtype)
                for t, n in zip(theirs, built, strict=True)
            ]
            chosen = [k for k, t in enumerate(theirs) if t.requires_grad]
            gradients = []
            if chosen:
                gradients = gd.vjp(
                    [built[k] for k in chosen], [nodes[i] for i in wrt],
                    [seeds[k] for k in chosen], disconnected="zero",
                )  # fmt: skip
            compiled = gd.function(
                nodes, [built, gradients], backend="numpy", on_unused_input="ignore"
            )
            values, slopes = compiled(*arrays)
            for ours, right in zip(values, theirs, strict=True):
                agree(what, ours, right, dtype)
            if not chosen:
                continue
            expected = torch.autograd.grad(
                [theirs[k] for k in chosen], [given[i] for i in wrt],
                [torch.from_numpy(seeds[k]) for k in chosen], allow_unused=True,
            )  # fmt: skip
            for i, ours, right in zip(wrt, slopes, expected, strict=True):
                full = torch.zeros_like(given[i]) if right is None else right
                agree(f"the gradient of {what} by operand {i}", ours, full, dtype)


def test_enough_is_compared() -> None:
    print(f"{len(CASES)} rows of the op table are compared with PyTorch {torch.__version__}")
    assert len(CASES) > 60
