"""Arrays that are not NumPy's: on a device, CuPy's or of any library that shares its memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InputError


def is_on_device(array: Any) -> bool:
    """Whether an array's memory is a GPU's; InputError if it is, and may not be read."""
    try:
        return hasattr(array, "__cuda_array_interface__")
    except RuntimeError as error:  # of PyTorch's: a tensor that it differentiates by
        raise InputError(f"{type(array).__name__} does not give its memory: {error}") from None


def layout_of(array: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of an array on a device."""
    found = array.__cuda_array_interface__
    return np.dtype(found["typestr"]), tuple(found["shape"])


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """An array, wherever it is, as NumPy's; not copied if it is one already."""
    if is_on_device(array):
        for name in ("get", "cpu"):  # of CuPy, and of PyTorch
            if hasattr(array, name):
                array = getattr(array, name)()
                break
    return np.asarray(array)
