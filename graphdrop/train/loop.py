"""`fit`, the training loop, and `evaluate`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, NanError, positive
from ..function import Function
from ..serialize import Targets, collect
from .batches import Batches, as_batches, call
from .history import History
from .progress import Interrupt, Progress
from .state import Position, Stopping, Store

ROWS = 256  # per batch where nothing is trained: enough to be fast, few enough to fit

Validate: TypeAlias = "Callable[[], Any] | tuple[Any, Any] | None"
# called after every epoch; a true result ends the training
Callback: TypeAlias = Callable[[History], Any]


def fit(
    step: Callable[..., Any],
    data: Any,
    epochs: int,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    drop_last: bool = False,
    validate: Validate = None,
    early_stopping: int | None = None,
    monitor: str | None = None,
    mode: str = "min",
    restore_best: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    state: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> History:
    """Call `step` on minibatches of `data` for `epochs` epochs; the history of what it returned.

    step              a compiled function with updates (or anything that is called with a batch);
                      returns a scalar loss, or a dict of scalars
    data              a tuple of arrays (arguments by position), a dict of arrays (by input name),
                      one array, or an iterable that gives one epoch's batches each time
    batch_size, shuffle, seed, drop_last
                      for arrays: rows per batch; whether epoch e visits them in the order
                      `train.order(rows, seed, e)`; whether a smaller last batch is left out
    validate          what to evaluate after every epoch: a pair (function, data), as `evaluate`
                      does, or a callable without arguments; recorded as "val_loss" etc.
    early_stopping    stop after so many epochs in which `monitor` ("val_loss", or "loss" without
                      validation) has not improved; mode is "min" or "max"
    restore_best      with early_stopping: at the end, put back the shared values of the best epoch
    checkpoint        file to which everything is saved after every epoch, and also after every
                      `checkpoint_every` steps if given; an older file is replaced
    resume            go on from `checkpoint` if it exists: the result has the same bytes as an
                      uninterrupted run, wherever in an epoch the run was cut off
    state             what is saved if `step` is no compiled function, or other objects are part of
                      the state: anything that `gd.save` takes
    callbacks         called with the history after every epoch; one that returns True ends training
    progress          show a bar, on terminals

    Ctrl-C ends training after the current step, saves the checkpoint, and returns the history; a
    second one raises KeyboardInterrupt at once.  A NaN, or an infinite loss, raises NanError and
    leaves the last checkpoint in place.  `gd.load(checkpoint, step, allow_extra=True)` reads one.
    """
    epochs = _count(epochs)
    batches = as_batches(data, batch_size, shuffle=shuffle, seed=_seed(seed), drop_last=drop_last)
    patience = None if early_stopping is None else positive(early_stopping, "early_stopping")
    every = None if checkpoint_every is None else positive(checkpoint_every, "checkpoint_every")
    if checkpoint is None and (resume or every is not None):
        raise ArgumentError("resume and checkpoint_every need checkpoint=, the path of a file")
    monitor = monitor or ("loss" if validate is None else "val_loss")
    keep = patience is not None and restore_best
    targets = _targets(step, validate, state, needed=keep or checkpoint is not None)
    settings = {**batches.settings(), "monitor": monitor, "mode": mode, "restore_best": keep}
    run = _Run(
        step, batches, _validator(validate), Stopping(monitor, mode, patience, keep),
        Store(checkpoint, targets, settings), every, callbacks,
    )  # fmt: skip
    if resume and run.store.exists():
        run.resume()
    bar = Progress(progress, batches.per_epoch, epochs, run.at.step)
    try:
        with Interrupt() as interrupt:
            run.go(epochs, bar, interrupt)
    finally:
        bar.close()
    if keep and run.history.stopped != "interrupted":
        run.stopping.restore(targets)
    return run.history


def evaluate(function: Callable[..., Any], data: Any, batch_size: int = ROWS) -> dict[str, float]:
    """The mean of what `function` returns (a scalar, or a dict of scalars) over the rows of data.

    data  as for `fit`; batches are taken in order.  A scalar is called "loss".
    """
    return _evaluate(function, as_batches(data, batch_size, shuffle=False, seed=0, drop_last=False))


def _evaluate(function: Callable[..., Any], batches: Batches) -> dict[str, float]:
    total = Position()
    for batch, rows in batches.epoch(1):
        total.add(_scalars(call(function, batch), "the evaluated function"), rows)
    if not total.batch:
        raise ArgumentError("the data gave no batches to evaluate")
    return total.means()


class _Run:
    """One run of `fit`: where it is, and one epoch after the other."""

    def __init__(
        self, step: Callable[..., Any], batches: Batches, validate: Any, stopping: Stopping,
        store: Store, every: int | None, callbacks: Sequence[Callback],
    ) -> None:  # fmt: skip
        self.step, self.batches, self.validate = step, batches, validate
        self.stopping, self.store, self.every, self.callbacks = stopping, store, every, callbacks
        self.at = Position()
        self.history = History()

    def resume(self) -> None:
        self.at, self.history.records, self.stopping.best = self.store.load()

    def save(self) -> None:
        self.store.save(self.at, self.history.records, self.stopping.best)

    def go(self, epochs: int, bar: Progress, interrupt: Interrupt) -> None:
        history = self.history
        history.stopped = "finished"
        while self.at.epoch < epochs:
            if self.stopping.exhausted(history.records):
                history.stopped = "early stopping"
                return
            if self._epoch(bar, interrupt):
                self._finish_epoch(bar)
                wishes = [callback(history) for callback in self.callbacks]
                self.save()
                if any(wish is True for wish in wishes):
                    history.stopped = "callback"
                    return
            else:
                self.save()
            if interrupt.asked:
                history.stopped = "interrupted"
                return

    def _epoch(self, bar: Progress, interrupt: Interrupt) -> bool:
        """The rest of the current epoch; False if it was interrupted before its end."""
        at, number = self.at, self.at.epoch + 1
        for batch, rows in self.batches.epoch(number, skip=at.batch):
            if interrupt.asked:
                return False
            values = _scalars(call(self.step, batch), "step")
            _refuse_nan(values, f"epoch {number}, step {at.step + 1} (batch {at.batch + 1})")
            at.add(values, rows)
            bar.batch(number, at.means())
            if self.every is not None and at.step % self.every == 0:
                self.save()
        if not at.batch:
            raise ArgumentError(f"the data gave no batches in epoch {number}")
        return True

    def _finish_epoch(self, bar: Progress) -> None:
        """Validate, record, and move on to the next epoch."""
        at = self.at
        record: dict[str, float] = {"epoch": at.epoch + 1, "step": at.step, **at.means()}
        if self.validate is not None:
            found = {f"val_{k}": v for k, v in self.validate().items()}
            record |= found
            bar.values(found)
        self.history.records.append(record)
        at.next_epoch()
        self.stopping.see(self.history.records, self.store.targets)


# --------------------------------------------------------------------------------------------
# checking what the user gave


def _count(epochs: Any) -> int:
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ArgumentError(f"epochs must be a non-negative integer, got {epochs!r}")
    return int(epochs)


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentError(f"seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ArgumentError(f"seed must be in [0, 2**64), got {seed}")
    return int(seed)


def _targets(step: Any, validate: Any, state: Any, *, needed: bool) -> Targets:
    """What is saved: the state of the compiled functions, and of what the user adds."""
    checked = validate[0] if isinstance(validate, tuple) and validate else validate
    objects = [f for f in (step, checked) if isinstance(f, Function)]
    if needed and not isinstance(step, Function) and state is None:
        raise ArgumentError(
            f"step is {type(step).__name__}, so what to save is unknown: pass state=, say the "
            f"compiled function that it calls, or a list of shared values and streams"
        )
    return collect([*objects, *([] if state is None else [state])])


def _validator(validate: Validate) -> Callable[[], dict[str, float]] | None:
    if validate is None:
        return None
    if isinstance(validate, tuple):
        if len(validate) != 2 or not callable(validate[0]):
            raise ArgumentError("validate must be a pair (function, data), or a callable")
        function, data = validate
        batches = as_batches(data, ROWS, shuffle=False, seed=0, drop_last=False)
        return lambda: _evaluate(function, batches)
    if not callable(validate):
        raise ArgumentError(
            f"validate must be a pair (function, data), or a callable, got {validate!r}"
        )
    return lambda: _scalars(validate(), "validate")


def _scalars(found: Any, what: str) -> dict[str, float]:
    """The numbers that a function returned, by name; a lone one is the loss."""
    named = found if isinstance(found, Mapping) else {"loss": found}
    values = {}
    for name, value in named.items():
        if not isinstance(name, str) or name in ("epoch", "step"):
            raise ArgumentError(f"{what} returned the name {name!r}; use another string")
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "biuf":
            kind = f"an array of shape {array.shape}" if array.ndim else type(value).__name__
            raise ArgumentError(
                f"{what} must return a scalar loss or a dict of scalars, but {name!r} is {kind}; "
                f"say loss.mean()"
            )
        values[name] = float(array)
    if not values:
        raise ArgumentError(f"{what} returned an empty dict; return at least the loss")
    return values


def _refuse_nan(values: Mapping[str, float], where: str) -> None:
    for name, value in values.items():
        if math.isnan(value) or (name == "loss" and math.isinf(value)):
            raise NanError(
                f"{name} is {value} in {where}; lower the learning rate or clip gradients, and "
                f"compile with gd.function(..., check_nan=True) to find the operation that made it"
            )
