"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from graphdrop import backend

from . import cudashim


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend", default="numpy", help="what backend='auto' is: tests ask the oracle first"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--backend") == cudashim.NAME:
        cudashim.register()
    os.environ[backend.ENVIRONMENT] = config.getoption("--backend")  # for subprocesses too
    # how long a case takes depends on what else runs, and on what is compiled already
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """Ctrl-C is what Python makes of it, also where the tests run in the background.

    A shell starts background jobs with SIGINT ignored, and Python then leaves it so.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
