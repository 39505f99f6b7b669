"""Which library computes products, as GRAPHDROP_BLAS says."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, graphdrop as gd
x, w = gd.matrix("x"), gd.matrix("w")
f = gd.function([x, w], x @ w, backend="llvm")
a, b = np.arange(6, dtype="f4").reshape(2, 3), np.arange(12, dtype="f4").reshape(3, 4)
np.testing.assert_array_equal(f(a, b), a @ b)
"""


def run(blas: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "GRAPHDROP_BLAS": blas},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_scipys() -> None:
    assert run("scipy").returncode == 0


def test_scipy_is_whole_for_whoever_imports_it_later() -> None:
    later = (
        PROGRAM
        + """
import sys
assert "scipy.linalg.cython_blas" in sys.modules and "scipy.linalg" not in sys.modules
import scipy.linalg
from scipy.linalg import cython_blas
assert cython_blas is sys.modules["scipy.linalg.cython_blas"]
np.testing.assert_allclose(scipy.linalg.solve(2 * np.eye(2), [2, 4]), [1, 2])
np.testing.assert_array_equal(f(a, b), a @ b)
"""
    )
    found = subprocess.run(
        [sys.executable, "-c", later], env={**os.environ, "GRAPHDROP_BLAS": "scipy"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_mkl() -> None:
    found = run("mkl")
    if "MKL is not installed; pip install mkl" in found.stderr:
        pytest.skip("MKL is not installed")
    assert found.returncode == 0, found.stderr


def test_a_library_that_is_no_blas() -> None:
    name = ctypes.util.find_library("m")
    assert name is not None
    assert f"{name} has no sgemm_, so it is no BLAS with Fortran's names" in run(name).stderr


def test_a_library_by_its_path() -> None:
    """Any that is found on this machine."""
    named = ctypes.util.find_library("blas") or ctypes.util.find_library("mkl_rt")
    if named is None:
        pytest.skip("no other BLAS is installed")
    found = run(named)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("wrong", ["/no/such/library.so", __file__])
def test_what_is_no_library(wrong: str) -> None:
    found = run(wrong)
    assert found.returncode != 0
    assert "graphdrop.errors.BackendError" in found.stderr
    assert f"GRAPHDROP_BLAS={wrong}" in found.stderr
