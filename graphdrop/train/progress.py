"""Around the loop: a progress bar on terminals, and Ctrl-C between steps."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any


class Progress:
    """A tqdm bar over all batches; silent unless `show` and standard error is a terminal."""

    def __init__(self, show: bool, per_epoch: int | None, epochs: int, done: int) -> None:
        from tqdm import tqdm

        total = None if per_epoch is None else per_epoch * epochs
        silent = not show or not sys.stderr.isatty()
        self._bar: Any = tqdm(total=total, initial=done, unit="step", disable=silent)
        self._epochs = epochs
        self._shown: dict[str, str] = {}

    def batch(self, epoch: int, means: dict[str, float]) -> None:
        """One batch done: the means of its epoch so far."""
        if not self._bar.disable:
            self._bar.set_description(f"epoch {epoch}/{self._epochs}", refresh=False)
            self.values(means)
            self._bar.update(1)

    def values(self, values: dict[str, float]) -> None:
        """Show these beside the bar; others stay."""
        if not self._bar.disable:
            self._shown |= {k: f"{v:.4g}" for k, v in values.items()}
            self._bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Interrupt:
    """Ctrl-C asks to stop after the current step, so that state is never between two steps.

    A second one raises KeyboardInterrupt at once.  Outside the main thread, or where the program
    handles SIGINT itself, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._installed = False

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._ask)
            self._installed = True
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
