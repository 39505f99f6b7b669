"""Section 4 of the design written out once more, without graphdrop: what the tests compare with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LOW64 = 2**64 - 1


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds of Philox4x64 (Salmon et al. 2011) in Python integers: one block of four words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & LOW64, (p0 >> 64) ^ c[3] ^ k[1], p0 & LOW64]
        k = [(k[0] + 0x9E3779B97F4A7C15) & LOW64, (k[1] + 0xBB67AE8584CAA73B) & LOW64]
    return c


def raw(seed: int, site: int, call: int, step: int, example: int, count: int) -> Array:
    """The words of a draw, from NumPy's generator with the exact integers."""
    key = np.array([seed, site], np.uint64)
    counter = np.array([0, call, step, example], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def lanes(
    dtype: Any, shape: tuple[int, ...], seed: int, site: int, call: int, *, step: int = 0,
    example: int = 0,
) -> Array:  # fmt: skip
    """The first lanes of a draw, in C order."""
    count, size = int(np.prod(shape)), np.dtype(dtype).itemsize
    words = raw(seed, site, call, step, example, -(-count * size // 8))
    return np.frombuffer(words.astype("<u8").tobytes(), np.dtype(dtype))[:count].reshape(shape)


def site_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "little")


def threshold(rate: float) -> int:
    t = int(np.rint(rate * 65536))
    if rate > 0:
        t = max(t, 1)
    if rate < 1:
        t = min(t, 65535)
    return t


def mask(
    rate: float, shape: tuple[int, ...], seed: int, site: int, call: int, *, step: int = 0,
    example: int = 0,
) -> Array:  # fmt: skip
    """True where dropout keeps."""
    found = lanes(np.uint16, shape, seed, site, call, step=step, example=example)
    return found.astype(np.int64) >= threshold(rate)


def dropped(x: Array, keep: Array, rate: float) -> Array:
    """Inverted dropout by a mask."""
    t = threshold(rate)
    scale = 0.0 if t == 65536 else 65536 / (65536 - t)
    wide = np.float32 if x.dtype == np.float16 else x.dtype.type
    with np.errstate(all="ignore"):
        return np.where(keep, x * wide(scale), 0).astype(x.dtype)
