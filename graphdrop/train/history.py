"""What happened while training: one record per epoch, as numbers, JSON or a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from ..errors import ArgumentError, DependencyError


class History:
    """The records of a training run.

    records  for every epoch {"epoch": 1, "step": 45, "loss": ..., "val_loss": ...}
    stopped  why training ended: "finished", "early stopping", "interrupted" or "callback"
    """

    def __init__(self, records: list[dict[str, float]] | None = None) -> None:
        self.records = records or []
        self.stopped: str | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.records)

    def __getitem__(self, name: str) -> list[float]:
        """One value of every epoch: history["val_loss"]."""
        self._require(name)
        return [r[name] for r in self.records]

    def best(self, name: str, mode: str = "min") -> dict[str, float] | None:
        """The first record in which a value is best ("min" or "max"); None if it never was."""
        if mode not in ("min", "max"):
            raise ArgumentError(f"mode must be 'min' or 'max', got {mode!r}")
        if self.records:
            self._require(name)
        known = [r for r in self.records if not math.isnan(r[name])]
        sign = 1 if mode == "min" else -1
        return min(known, key=lambda r: sign * r[name], default=None)

    def _require(self, name: str) -> None:
        if any(name not in r for r in self.records) or not self.records:
            listed = ", ".join(self.records[0]) if self.records else "nothing yet"
            raise ArgumentError(f"the history has no {name!r}; it has {listed}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain lists and dicts."""
        return {"stopped": self.stopped, "records": [dict(r) for r in self.records]}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything as JSON text, also written to `path` if given; NaN and infinities as null."""
        clean = [
            {k: v if math.isfinite(v) else None for k, v in r.items()} for r in self.records
        ]  # fmt: skip
        text = json.dumps({"stopped": self.stopped, "records": clean}, indent=1)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
        return text

    def plot(self, path: str | os.PathLike[str], title: str | None = None) -> None:
        """Draw every value over the epochs, training and validation together (PNG, SVG, PDF).

        Needs matplotlib.
        """
        if not self.records:
            raise ArgumentError("the history is empty; there is nothing to plot")
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise DependencyError(
                "plots need matplotlib; install it with: pip install 'graphdrop[viz]'"
            ) from None
        names = [n for n in self.records[0] if n not in ("epoch", "step")]
        panels = list(dict.fromkeys(n.removeprefix("val_") for n in names))
        figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
        curves = (("", "training", "-"), ("val_", "validation", "--"))
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            for prefix, label, style in curves:
                if prefix + panel in names:
                    axes.plot(self["epoch"], self[prefix + panel], style, label=label)
            axes.set(xlabel="epoch", ylabel=panel)
            axes.grid(alpha=0.3)
            axes.legend()
        if title:
            figure.suptitle(title)
        figure.savefig(path, dpi=120)

    def __repr__(self) -> str:
        last = self.records[-1] if self.records else {}
        shown = "".join(f", {k}={v:.4g}" for k, v in last.items() if k not in ("epoch", "step"))
        return f"<History of {len(self)} epochs{shown}, stopped={self.stopped!r}>"
