"""What a run of training can go back to: its checkpoint file, and its best values in memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, CheckpointError
from ..serialize import Array, Contents, Targets, read, restore, snapshot, write

BEST = "fit.best/"  # keys in a checkpoint of the values at the best epoch


@dataclass
class Position:
    """Where a run is, so that it can go on from exactly there.

    epoch  epochs finished
    step   batches done in all
    batch  batches done in the current epoch
    rows   rows in them
    sums   their results, each weighted by its rows
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float], rows: int) -> None:
        if self.batch and values.keys() != self.sums.keys():
            raise ArgumentError(
                f"step returned {sorted(values)} after {sorted(self.sums)}; every batch must give "
                f"the same names"
            )
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * rows
        self.step, self.batch, self.rows = self.step + 1, self.batch + 1, self.rows + rows

    def means(self) -> dict[str, float]:
        return {name: total / self.rows for name, total in self.sums.items()}

    def next_epoch(self) -> None:
        self.epoch, self.batch, self.rows, self.sums = self.epoch + 1, 0, 0, {}


class Store:
    """The state of a run on disk.

    path      of the checkpoint; None keeps nothing
    targets   the values and streams whose state is saved
    settings  what must be equal when a run is resumed
    """

    def __init__(self, path: Any, targets: Targets, settings: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.targets = targets
        self.settings = settings
        reserved = [k for k in [*targets.shared, *targets.arrays] if k.startswith(BEST)]
        if reserved:
            raise ArgumentError(f"names starting with {BEST!r} are taken, got {reserved}")

    def exists(self) -> bool:
        return self.path is not None and self.path.exists()

    def save(self, at: Position, records: list[dict[str, float]], best: dict[str, Array]) -> None:
        if self.path is None:
            return
        info = {"position": asdict(at), "records": records, "settings": self.settings}
        now = snapshot(self.targets, {"fit": info})
        arrays = {**now.arrays, **{BEST + k: a for k, a in best.items()}}
        write(self.path, Contents(arrays, now.streams, now.info))

    def load(self) -> tuple[Position, list[dict[str, float]], dict[str, Array]]:
        """Restore the values and streams; where the run was, its records, its best values."""
        assert self.path is not None
        contents = read(self.path)
        at, records = self._check(contents.info.get("fit"))
        best = {k: a for k, a in contents.arrays.items() if k.startswith(BEST)}
        now = {k: a for k, a in contents.arrays.items() if k not in best}
        best = {k.removeprefix(BEST): a for k, a in best.items()}
        expected = {k: (s.dtype, s.shape) for k, s in self.targets.shared.items()}
        if best and {k: (a.dtype, a.shape) for k, a in best.items()} != expected:
            raise CheckpointError(f"{self.path}: the values of the best epoch do not fit the model")
        restore(self.path, self.targets, Contents(now, contents.streams, {}))
        return at, records, best

    def _check(self, info: Any) -> tuple[Position, list[dict[str, float]]]:
        if not isinstance(info, dict) or info.keys() != {"position", "records", "settings"}:
            raise CheckpointError(
                f"{self.path} is no checkpoint of train.fit; load it with gd.load, and resume from "
                f"a file that fit wrote"
            )
        position, records, settings = info["position"], info["records"], info["settings"]
        if settings != self.settings:
            raise CheckpointError(
                f"{self.path} is of another run, which cannot go on here: it had {settings}, this "
                f"one has {self.settings}; use the same arguments, or another path"
            )
        numbers = isinstance(records, list) and all(_is_numbers(r) for r in records)
        if not numbers or not _is_position(position) or len(records) != position["epoch"]:
            raise CheckpointError(f"{self.path} has a malformed position; use another copy")
        return Position(**position), records


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(type(v) in (int, float) for v in value.values())


def _is_position(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != asdict(Position()).keys():
        return False
    counts = [value[k] for k in ("epoch", "step", "batch", "rows")]
    return _is_numbers(value["sums"]) and all(type(c) is int and 0 <= c < 2**63 for c in counts)


class Stopping:
    """Early stopping: remembers the values of the best epoch.

    monitor   the name of what decides, say "val_loss"
    mode      "min" or "max"
    patience  epochs without improvement after which training stops; None: never
    """

    def __init__(self, monitor: str, mode: str, patience: int | None, keep: bool) -> None:
        if mode not in ("min", "max"):
            raise ArgumentError(f"mode must be 'min' or 'max', got {mode!r}")
        self.monitor, self.mode, self.patience, self.keep = monitor, mode, patience, keep
        self.best: dict[str, Array] = {}

    def see(self, records: list[dict[str, float]], targets: Targets) -> None:
        """After an epoch: keep the values if it was the best."""
        if self.patience is None:
            return
        if self.monitor not in records[-1]:
            raise ArgumentError(
                f"monitor={self.monitor!r} is not among what training gives: {list(records[-1])}"
            )
        if self.keep and self._best_epoch(records) == len(records):
            self.best = snapshot(Targets(shared=targets.shared), {}).arrays

    def exhausted(self, records: list[dict[str, float]]) -> bool:
        return (
            self.patience is not None and len(records) - self._best_epoch(records) >= self.patience
        )

    def _best_epoch(self, records: list[dict[str, float]]) -> int:
        """The number of the first epoch that none is better than; 0 before there is one."""
        sign = 1 if self.mode == "min" else -1
        values = [sign * r[self.monitor] for r in records]
        known = [v for v in values if not math.isnan(v)]
        return values.index(min(known)) + 1 if known else 0

    def restore(self, targets: Targets) -> None:
        """Put the values of the best epoch back."""
        if self.best:
            shared = Targets(shared=targets.shared)
            restore("the best epoch", shared, Contents(self.best, {}, {}))
