"""Optimizers as lists of updates, learning-rate schedules, limits on gradients and weights.

    updates = optim.adam(loss, params, lr=optim.cosine_decay(1e-3, steps=10_000))
    updates = optim.max_norm(updates, [W1, W2], 3.0)
    step = gd.function([x, y], loss, updates=updates)

An optimizer returns the pairs (shared value, its new value) of the parameters and of its own state,
which lives in shared values with names such as "Adam.m.W1".  Lists add up with `+`.
"""

from .constraints import clip_by_global_norm, constrain_norm, global_norm, max_norm, weight_decay
from .loss_scale import loss_scaling
from .optimizers import (
    adadelta,
    adagrad,
    adam,
    adamw,
    momentum,
    nesterov,
    rmsprop,
    sgd,
)
from .schedules import (
    constant,
    cosine_decay,
    exponential_decay,
    polynomial_decay,
    step_decay,
    warmup,
)

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "adamw",
    "clip_by_global_norm",
    "constant",
    "constrain_norm",
    "cosine_decay",
    "exponential_decay",
    "global_norm",
    "loss_scaling",
    "max_norm",
    "momentum",
    "nesterov",
    "polynomial_decay",
    "rmsprop",
    "sgd",
    "step_decay",
    "warmup",
    "weight_decay",
]
