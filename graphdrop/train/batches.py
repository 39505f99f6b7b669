"""Minibatches of arrays, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import ArgumentError, positive

# arguments of one call: by position or by input name
Batch: TypeAlias = "tuple[Any, ...] | dict[str, Any]"


def order(n: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order in which epoch `epoch` (1, 2, ...) visits n rows: a permutation of range(n).

    It sorts the words of NumPy's Philox4x64-10 under key (seed, epoch), so that any epoch can be
    repeated alone, with any version of NumPy.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(words, kind="stable")


class Batches(Protocol):
    """Data that can be read once per epoch, from any batch on."""

    @property
    def per_epoch(self) -> int | None:
        """How many batches an epoch has, where known."""

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Batch, int]]:
        """The batches of an epoch but the first `skip`, each with its number of rows."""

    def settings(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run."""


class ArrayBatches:
    """Rows of arrays of equal length."""

    def __init__(
        self, arrays: Batch, batch_size: int, *, shuffle: bool, seed: int, drop_last: bool
    ) -> None:
        columns = _columns(arrays)
        self.arrays = arrays
        self.rows = _common_length(columns)
        self.batch_size = positive(batch_size, "batch_size")
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.shapes = [[str(a.dtype), *a.shape[1:]] for a in columns.values()]
        full, rest = divmod(self.rows, self.batch_size)
        self.per_epoch = full + (rest > 0 and not drop_last)
        if not self.per_epoch:
            raise ArgumentError(
                f"{self.rows} rows make no batch of {batch_size} with drop_last=True; use a "
                f"smaller batch_size"
            )

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Batch, int]]:
        rows = order(self.rows, self.seed, number) if self.shuffle else None
        for i in range(skip, self.per_epoch):
            part = slice(i * self.batch_size, min((i + 1) * self.batch_size, self.rows))
            yield _take(self.arrays, part if rows is None else rows[part]), part.stop - part.start

    def settings(self) -> dict[str, Any]:
        return {
            "rows": self.rows, "arrays": self.shapes, "batch_size": self.batch_size,
            "shuffle": self.shuffle, "seed": self.seed, "drop_last": self.drop_last,
        }  # fmt: skip


class IterableBatches:
    """Batches that the caller makes: an object that can be iterated over once per epoch."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.per_epoch = len(source) if hasattr(source, "__len__") else None
        self._used = False

    def epoch(self, number: int, skip: int = 0) -> Iterator[tuple[Batch, int]]:
        found = iter(self.source)
        if found is self.source and self._used:
            raise ArgumentError(
                "the data is an iterator, which can be read for one epoch only; pass a list of "
                "batches, or an object whose __iter__ starts anew"
            )
        self._used = True
        for item in itertools.islice(found, skip, None):
            batch = as_batch(item)
            first = next(iter(_columns(batch).values()))
            yield batch, len(first) if np.ndim(first) else 1

    def settings(self) -> dict[str, Any]:
        return {"batches": self.per_epoch}


def as_batches(data: Any, batch_size: int, *, shuffle: bool, seed: int, drop_last: bool) -> Batches:
    """Batches of a tuple or dict of arrays, of one array, or of an iterable of batches."""
    if hasattr(data, "shape"):
        data = (data,)
    if isinstance(data, (tuple, dict)):
        return ArrayBatches(data, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
    if isinstance(data, list) and data and all(hasattr(item, "shape") for item in data):
        raise ArgumentError(
            "a list of arrays could be columns or batches: pass a tuple (x, y) of whole arrays, "
            "or a list of tuples, one for each batch"
        )
    if not hasattr(data, "__iter__"):
        raise ArgumentError(
            f"data must be a tuple or dict of arrays, or an iterable of batches, got {data!r}"
        )
    return IterableBatches(data)


def as_batch(item: Any) -> Batch:
    """The arguments of one call from what an iterable gave."""
    if isinstance(item, list):
        item = tuple(item)
    batch: Batch = item if isinstance(item, (tuple, dict)) else (item,)
    if not batch:
        raise ArgumentError("the data gave an empty batch: a tuple or dict without arrays")
    return batch


def call(function: Any, batch: Batch) -> Any:
    """The function on one batch."""
    return function(**batch) if isinstance(batch, dict) else function(*batch)


def _columns(arrays: Batch) -> Mapping[Any, Any]:
    return arrays if isinstance(arrays, dict) else dict(enumerate(arrays))


def _common_length(columns: Mapping[Any, Any]) -> int:
    if not columns:
        raise ArgumentError("the data has no arrays")
    for key, array in columns.items():
        if not getattr(array, "shape", ()):
            raise ArgumentError(
                f"data[{key!r}] must be an array with rows, got {type(array).__name__}; convert it "
                f"with np.asarray"
            )
    lengths = {key: array.shape[0] for key, array in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"data[{k!r}] has {n}" for k, n in lengths.items())
        raise ArgumentError(f"the arrays have different numbers of rows: {shown}")
    rows: int = next(iter(lengths.values()))
    if not rows:
        raise ArgumentError("the data has no rows")
    return rows


def _take(arrays: Batch, rows: Any) -> Batch:
    if isinstance(arrays, dict):
        return {k: a[rows] for k, a in arrays.items()}
    return tuple(a[rows] for a in arrays)
