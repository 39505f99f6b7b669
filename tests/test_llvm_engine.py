"""LLVM in several threads: the same machine code, and each shared function made once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from graphdrop.kept import Single
from graphdrop_llvm import engine, philox

TEXTS = [make() for make in philox.FUNCTIONS.values()]

# four threads whose first products and draws come at the same time, and run afterwards
FIRST = """
import gc, sys, threading
import numpy as np
import graphdrop as gd
from graphdrop_llvm import engine, program

sys.setswitchinterval(1e-5)
made, link = [], engine.linked
engine.linked = program.linked = lambda code, symbols: made.append(1) or link(code, symbols)
ready, means = threading.Barrier(4), {}

def work(i):
    x, w = gd.matrix("x"), gd.shared(np.ones((40 + i, 30), "f"))
    ready.wait()
    y = x @ w
    f = gd.function([x], [y, gd.dropout(y, 0.5, gd.RandomStream(1))], backend="llvm")
    gc.collect()
    ones = np.ones((50, 40 + i), "f")
    means[i] = {float(f(ones)[0].mean()) for _ in range(100)}

threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(len(made), [len(means[i]) for i in range(4)])
"""


def test_threads_get_the_same_machine_code() -> None:
    alone = [engine.object_code(text) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(engine.object_code, TEXTS * 8)) == alone * 8


def test_it_is_what_llvmlite_makes_under_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    past, calls = engine.object_code(TEXTS[0]), []
    entry = getattr(engine.ffi.lib, engine.EMIT)
    assert getattr(entry, "_cfn", None) is not None, "another llvmlite: look where its lock is now"

    def locked(*given: Any) -> Any:
        calls.append(len(given))
        return entry(*given)

    monkeypatch.setitem(engine.ffi.lib._fntab, engine.EMIT, locked)
    assert engine.object_code(TEXTS[0]) == past
    assert len(calls) == 1, "llvmlite's own way was taken"


def test_a_module_that_llvm_refuses_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="expected"):
        engine.object_code("define nothing")


@pytest.mark.parametrize("cache", ["off", "on"])
def test_first_programs_of_several_threads(cache: str, tmp_path: Any) -> None:
    """What all of them call is made once: of two, one would be freed and be called all the same."""
    where = "off" if cache == "off" else str(tmp_path)
    for _ in range(2):
        found = subprocess.run(
            [sys.executable, "-c", FIRST], env={**os.environ,
            "GRAPHDROP_CACHE": where}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        engines, values = found.stdout.split(maxsplit=1)
        assert values.strip() == "[1, 1, 1, 1]"
        assert int(engines) == 2 + 1 + 4, "products, draws, the threads' pool, four programs"


class TestSingle:
    def test_one_thread_makes_what_several_ask_for(self) -> None:
        made: list[int] = []

        @Single
        def slow(x: int) -> list[int]:
            """What is slow to make."""
            made.append(x)
            time.sleep(0.02)
            return [x]

        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(slow(3))) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert made == [3]
        assert all(r is results[0] for r in results)
        assert slow(4) == [4]
        assert slow.__doc__ == "What is slow to make."

    def test_an_error_is_not_kept(self) -> None:
        tries = []

        @Single
        def at_last() -> int:
            tries.append(1)
            return 1 // (len(tries) - 1)

        with pytest.raises(ZeroDivisionError):
            at_last()
        assert at_last() == 1
