"""What the cupy backend asks of cuBLAS, and arrays of no elements, which have no address."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdrop as gd
from graphdrop.errors import BackendError
from graphdrop_cupy.device import Device

from . import cudashim
from .cudashim import fake_cublas, fake_cupy
from .test_cupy import both, data

SHIM = cudashim.register()
pytestmark = cudashim.needs_compiler


class TestProducts:
    """What cuBLAS is asked for; see `fake_cublas`."""

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ((5, 3), (3, 4)), ((1, 7), (7, 1)), ((6, 1), (1, 6)), ((0, 3), (3, 4)),
            ((5, 0), (0, 4)), ((2, 5, 3), (2, 3, 4)), ((2, 5, 3), (3, 4)), ((5, 3), (2, 3, 4)),
            ((2, 1, 5, 3), (3, 3, 4)), ((2, 3, 5, 3), (2, 1, 3, 4)), ((2, 0, 5, 3), (3, 4)),
        ],
    )  # fmt: skip
    def test_of_all_layouts(self, dtype: str, left: Any, right: Any) -> None:
        a, b = (
            gd.tensor(name, dtype, [1 if size == 1 else None for size in shape])
            for name, shape in (("a", left), ("b", right))
        )
        turn = [*range(len(left) - 2), len(left) - 1, len(left) - 2]
        outs = [
            a @ b, a[..., ::-1, :] @ b, a[..., ::-1] @ b[..., ::-1, :], a[..., 1:] @ b[..., 1:, :],
            a @ b[..., ::2], a.transpose(turn) @ (a * 2), a @ b[..., :1],
            gd.broadcast_to(a.sum(axis=-2, keepdims=True), a.shape) @ b,
        ]  # fmt: skip
        given = [data(*s).astype(dtype) for s in (left, right)]
        right_ones = gd.function([a, b], outs, backend="numpy")(*given)
        f = gd.function([a, b], outs, backend=SHIM)
        for _ in range(4):  # the later ones are replayed
            for found, expected in zip(f(*given), right_ones, strict=True):
                assert found.dtype == expected.dtype
                rough = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
                np.testing.assert_allclose(found, expected, rtol=rough, atol=rough)

    def test_batches_that_no_one_step_walks(self) -> None:
        """Attention's: a head's matrix is a part of every row."""
        products = lambda x: [  # noqa: E731
            x.transpose(0, 2, 1, 3) @ x.transpose(0, 2, 3, 1),
            x.transpose(2, 0, 1, 3) @ x.transpose(2, 0, 3, 1),
            x[::-1].transpose(0, 2, 1, 3) @ x.transpose(0, 2, 3, 1),
            x[::-1, :, 0] @ x[:, 1, :].transpose(0, 2, 1),
        ]
        for expected, found in both(products, data(2, 5, 3, 4)):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_float16_adds_up_in_float32(self) -> None:
        x = np.array([[300, -300, 1]], "float16")
        y = np.array([[300], [300], [1]], "float16")
        a, b = gd.matrix("a", dtype="float16"), gd.matrix("b", dtype="float16")
        assert gd.function([a, b], a @ b, backend=SHIM)(x, y) == [[1]]

    def test_a_failure_is_told(self) -> None:
        device = Device(fake_cupy, fake_cublas.library)
        a, out = device.put(data(3, 3)), device.empty((3, 3), "f4")
        device.matmul(a, a, out)
        (made,) = device._products.values()
        made.memory.data = fake_cupy.MemoryPointer(a.data.mem, 1 << 40)
        with pytest.raises(BackendError, match="cuBLAS: cublasSetWorkspace_v2 failed"):
            device.matmul(a, a, out)


class TestEmpty:
    """Arrays of no elements have no address, and none to count from."""

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
    def test_parts_of_them(self, shape: tuple[int, int]) -> None:
        outs = lambda x: [x[:, 1:] @ x[:, 1:].T, x[::-1] @ x.T, x[1:] * 2, x[::-1, 1:].sum()]  # noqa: E731
        for expected, found in both(outs, data(*shape)):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("shape", [(4, 0, 3), (0, 2, 3), (4, 2, 1)])
    def test_rows_of_loops(self, shape: tuple[int, int, int]) -> None:
        step = lambda c, e: (c + e.sum(), e * 2)  # noqa: E731
        for expected, found in both(
            lambda x: [*gd.scan(step, x[:, :, 1:], 0.0)], data(*shape)
        ):  # fmt: skip
            np.testing.assert_array_equal(found, expected)
