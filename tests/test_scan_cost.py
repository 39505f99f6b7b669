"""What a loop costs in memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import nn

TIME, BATCH, HIDDEN = 2000, 32, 128


def peak_of_gradient(checkpoint: int | None) -> tuple[int, list[Any]]:
    """Bytes beyond the inputs, and the gradients."""
    rng, stream = np.random.default_rng(0), gd.RandomStream(0)
    dropout = nn.RecurrentDropout(stream, state=0.3, name="d")
    lstm = nn.LSTM(HIDDEN, HIDDEN, rng, dropout=dropout)
    x = gd.tensor3("x", shape=("time", "batch", HIDDEN))
    _, (h, _) = lstm(x, checkpoint=checkpoint)
    step = gd.function([x], gd.grad((h * h).sum(), lstm.params))
    given = rng.standard_normal((TIME, BATCH, HIDDEN), dtype="f4")
    step(given[:2])
    with stream.at(call=0):
        tracemalloc.start()
        try:
            grads = step(given)
            return tracemalloc.get_traced_memory()[1], grads
        finally:
            tracemalloc.stop()


@pytest.mark.slow
def test_checkpointing_takes_under_a_fifth_of_the_memory() -> None:
    """2000 steps, 45 states kept; measured 5.3 MB against 329 MB."""
    plain, grads = peak_of_gradient(None)
    checked, again = peak_of_gradient(45)
    assert checked < plain / 5, f"{checked / 1e6:.1f} MB against {plain / 1e6:.1f} MB"
    for a, b in zip(grads, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * np.abs(a).max())
