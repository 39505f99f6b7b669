"""Optimizers: from a loss (or gradients) to the updates of parameters and optimizer state.

Each follows PyTorch's update rule of the same name: published settings carry over.  All take

loss_or_grads  the scalar to minimize, or its gradients, one for every parameter
params         float shared values
lr             a number, a scalar node (a shared value can be set between steps), or a schedule
weight_decay   L2 penalty: this times the parameter is added to its gradient

and return a list of (shared value, new value).  What does not depend on an element is computed once
a step in float64, so that a parameter costs few passes over its elements.  The state of float16
parameters is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autodiff import grad
from ..errors import ArgumentError, DTypeError, ShapeError
from ..graph import Node
from ..op import as_node, composed
from ..ops.elementwise import cast, maximum, pow, sqrt
from ..ops.leaf import Shared, shared
from ..types import unify
from . import constraints
from .constraints import Updates, accurate
from .scalars import Scalar, as_scalar, check_scalar
from .schedules import Schedule

Params = Sequence[Shared]


@composed
def sgd(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule,
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """Gradient descent: W -= lr * g; with momentum, v = momentum * v + g and W -= lr * v.

    nesterov  step along momentum * v + g instead (Sutskever et al. 2013); needs momentum
    State: "SGD.velocity.<parameter>", "SGD.step" with a schedule.
    """
    pairs = _gradients(loss_or_grads, params, weight_decay)
    momentum = check_scalar("momentum", momentum, high=1)
    moving = isinstance(momentum, Node) or momentum > 0
    if nesterov and not moving:
        raise ArgumentError("nesterov needs momentum > 0")
    rate, updates = _learning_rate(lr, "SGD")
    for p, g in pairs:
        if moving:
            velocity, mu = _state("SGD.velocity", p), as_scalar(momentum, g.dtype)
            new = velocity * mu + g
            updates.append((velocity, new))
            g = new * mu + g if nesterov else new
        updates.append((p, _descend(p, g * as_scalar(rate, g.dtype))))
    return updates


@composed
def momentum(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """`sgd` with momentum (Polyak 1964)."""
    return sgd(loss_or_grads, params, lr, momentum, weight_decay=weight_decay)


@composed
def nesterov(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule,
    momentum: Scalar = 0.9,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """`sgd` with Nesterov's momentum, as Sutskever et al. 2013 write it."""
    return sgd(loss_or_grads, params, lr, momentum, nesterov=True, weight_decay=weight_decay)


@composed
def adagrad(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule = 0.01,
    eps: Scalar = 1e-10,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """s += g**2; W -= lr * g / (sqrt(s) + eps) (Duchi et al. 2011).

    State: "Adagrad.sum.<parameter>", "Adagrad.step" with a schedule.
    """
    pairs = _gradients(loss_or_grads, params, weight_decay)
    eps = check_scalar("eps", eps)
    rate, updates = _learning_rate(lr, "Adagrad")
    for p, g in pairs:
        total = _state("Adagrad.sum", p)
        new = total + g * g
        scale = sqrt(new) + as_scalar(eps, g.dtype)
        updates += [(total, new), (p, _descend(p, g * as_scalar(rate, g.dtype) / scale))]
    return updates


@composed
def adadelta(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """Steps in the units of the parameter: g * rms(past steps) / rms(gradients) (Zeiler 2012).

    State: "Adadelta.square.<parameter>", "Adadelta.delta.<parameter>", "Adadelta.step" with a
    schedule.
    """
    pairs = _gradients(loss_or_grads, params, weight_decay)
    rho, eps = check_scalar("rho", rho, high=1), check_scalar("eps", eps)
    rate, updates = _learning_rate(lr, "Adadelta")
    for p, g in pairs:
        square, delta = _state("Adadelta.square", p), _state("Adadelta.delta", p)
        small = as_scalar(eps, g.dtype)
        new = _average(square, g * g, rho)
        change = g * sqrt((delta + small) / (new + small))
        updates += [
            (square, new),
            (delta, _average(delta, change * change, rho)),
            (p, _descend(p, change * as_scalar(rate, g.dtype))),
        ]
    return updates


@composed
def rmsprop(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule = 0.01,
    rho: Scalar = 0.99,
    eps: Scalar = 1e-8,
    centered: bool = False,
    momentum: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """W -= lr * g / (rms of recent gradients + eps) (Tieleman and Hinton 2012, lecture 6.5).

    centered  divide by the standard deviation of recent gradients instead (Graves 2013)
    State: "RMSprop.square.<parameter>", and "RMSprop.mean", "RMSprop.velocity", "RMSprop.step"
    where used.
    """
    pairs = _gradients(loss_or_grads, params, weight_decay)
    rho, eps = check_scalar("rho", rho, high=1), check_scalar("eps", eps)
    momentum = check_scalar("momentum", momentum, high=1)
    rate, updates = _learning_rate(lr, "RMSprop")
    for p, g in pairs:
        square = _state("RMSprop.square", p)
        spread = _average(square, g * g, rho)
        updates.append((square, spread))
        if centered:
            mean = _state("RMSprop.mean", p)
            new = _average(mean, g, rho)
            updates.append((mean, new))
            spread = maximum(spread - new * new, 0)  # rounding can make a variance negative
        step = g / (sqrt(spread) + as_scalar(eps, g.dtype))
        if isinstance(momentum, Node) or momentum > 0:
            velocity = _state("RMSprop.velocity", p)
            step = velocity * as_scalar(momentum, g.dtype) + step
            updates.append((velocity, step))
        updates.append((p, _descend(p, step * as_scalar(rate, g.dtype))))
    return updates


@composed
def adam(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule = 0.001,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    amsgrad: bool = False,
    weight_decay: Scalar = 0.0,
) -> Updates:
    """Adam (Kingma and Ba 2015): m and v average g and g**2; W -= lr * m^ / (sqrt(v^) + eps).

    amsgrad  divide by the largest v so far (Reddi et al. 2018)
    State: "Adam.step", "Adam.m.<parameter>", "Adam.v.<parameter>", with amsgrad "Adam.vmax".
    """
    pairs = _gradients(loss_or_grads, params, weight_decay)
    return _adam("Adam", pairs, lr, beta1, beta2, eps, amsgrad, 0.0)


@composed
def adamw(
    loss_or_grads: Node | Sequence[Node],
    params: Params,
    lr: Scalar | Schedule = 0.001,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    amsgrad: bool = False,
    weight_decay: Scalar = 0.01,
) -> Updates:
    """`adam` whose weight decay is W -= lr * weight_decay * W (Loshchilov and Hutter 2019).

    State as that of `adam`, with "AdamW" for "Adam".
    """
    pairs = _gradients(loss_or_grads, params, 0.0)
    return _adam("AdamW", pairs, lr, beta1, beta2, eps, amsgrad, weight_decay)


def _adam(
    name: str, pairs: list[tuple[Shared, Node]], lr: Scalar | Schedule, beta1: Scalar,
    beta2: Scalar, eps: Scalar, amsgrad: bool, decay: Scalar,
) -> Updates:  # fmt: skip
    beta1 = check_scalar("beta1", beta1, high=1)
    beta2 = check_scalar("beta2", beta2, high=1)
    eps, decay = check_scalar("eps", eps), check_scalar("weight_decay", decay)
    count = shared(np.int64(0), f"{name}.step")
    rate, _ = _learning_rate(lr, name, count)
    t = cast(count + 1, np.float64)
    # m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps), the corrections moved into scalars
    root = sqrt(1.0 - pow(as_scalar(beta2, np.float64), t))
    step = as_scalar(rate, np.float64) * root / (1.0 - pow(as_scalar(beta1, np.float64), t))
    small = as_scalar(eps, np.float64) * root
    updates: Updates = [(count, count + 1)]
    for p, g in pairs:
        m, v = _state(f"{name}.m", p), _state(f"{name}.v", p)
        new_m, new_v = _average(m, g, beta1), _average(v, g * g, beta2)
        updates += [(m, new_m), (v, new_v)]
        if amsgrad:
            largest = _state(f"{name}.vmax", p)
            new_v = maximum(largest, new_v)
            updates.append((largest, new_v))
        shift = new_m * cast(step, g.dtype) / (sqrt(new_v) + cast(small, g.dtype))
        if isinstance(decay, Node) or decay > 0:
            keep = 1.0 - as_scalar(rate, np.float64) * as_scalar(decay, np.float64)
            updates.append((p, _descend(p, shift, keep)))
        else:
            updates.append((p, _descend(p, shift)))
    return updates


# --------------------------------------------------------------------------------------------
# what they share


def _gradients(loss_or_grads: Any, params: Any, weight_decay: Scalar) -> list[tuple[Shared, Node]]:
    """Each parameter with its gradient, decay included, in the dtype of the optimizer's state."""
    params = _check_params(params)
    if isinstance(loss_or_grads, (list, tuple)):
        grads = _check_grads(loss_or_grads, params)
    else:
        grads = grad(loss_or_grads, params)
    decay = check_scalar("weight_decay", weight_decay)
    grads = [cast(g, accurate(p.dtype)) for p, g in zip(params, grads, strict=True)]
    if isinstance(decay, Node) or decay > 0:
        wide = [cast(p, g.dtype) for p, g in zip(params, grads, strict=True)]
        grads = constraints.weight_decay(grads, wide, decay)
    return list(zip(params, grads, strict=True))


def _check_params(params: Any) -> list[Shared]:
    found = list(params) if isinstance(params, (list, tuple)) else [params]
    if not found:
        raise ArgumentError("there are no parameters to optimize")
    for p in found:
        if not isinstance(p, Shared):
            raise ArgumentError(f"parameters are shared values made with gd.shared(), got {p!r}")
        if not p.tensor_type.is_float:
            raise DTypeError(f"the parameter {p!r} is not a float, so it has no gradient")
    for p in found:
        if found.count(p) > 1:
            raise ArgumentError(f"the parameter {p!r} is listed twice")
    return found


def _check_grads(grads: Sequence[Any], params: Sequence[Shared]) -> list[Node]:
    if len(grads) != len(params):
        raise ArgumentError(f"{len(grads)} gradients for {len(params)} parameters")
    nodes = [as_node(g) for g in grads]
    for p, g in zip(params, nodes, strict=True):
        if g.ndim != p.ndim or not g.tensor_type.is_float:
            raise ShapeError(f"the gradient of {p!r} is {g!r}; their shapes must be equal")
        for a, b in zip(p.shape, g.shape, strict=True):
            unify(a, b, f"the gradient of {p!r} does not fit: sizes")
    return nodes


def _learning_rate(
    lr: Scalar | Schedule, name: str, count: Shared | None = None
) -> tuple[Scalar, Updates]:
    """The rate of this step, and the update of the counter that a schedule needs."""
    if isinstance(lr, Node) or not callable(lr):
        return check_scalar("lr", lr), []
    own = shared(np.int64(0), f"{name}.step") if count is None else count
    rate = lr(own)
    if not isinstance(rate, Node):
        raise ArgumentError(f"a schedule returns a scalar node, got {rate!r}")
    return check_scalar("lr", rate), [(own, own + 1)]


def _state(kind: str, p: Shared) -> Shared:
    """Zeros like a parameter, in at least float32, named after it."""
    label = f"{kind}.{p.name}" if p.name else kind
    return shared(np.zeros(p.array.shape, accurate(p.dtype)), label)


def _average(old: Node, new: Node, keep: Scalar) -> Node:
    """keep * old + (1 - keep) * new in three passes."""
    return old + (new - old) * as_scalar(1.0 - keep, old.dtype)


def _descend(p: Shared, shift: Node, keep: Node | None = None) -> Node:
    """p * keep - shift, computed in the dtype of `shift` and returned in the parameter's."""
    wide = cast(p, shift.dtype)
    if keep is not None:
        wide = wide * cast(keep, shift.dtype)
    return cast(wide - shift, p.dtype)
