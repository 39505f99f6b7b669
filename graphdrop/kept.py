"""What is kept to be used again: by key, or once nobody else holds it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar

from .leases import lock_of

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")


def _references_of_ours() -> int:
    """What getrefcount says of a thing that one variable alone holds: 2, and from Python 3.14 on 1,
    as a variable's reference may be lent.
    """
    thing = object()
    return sys.getrefcount(thing)


_OURS = _references_of_ours()


class Single(Generic[P, V]):
    """Decorator of a function whose results are made once for each set of arguments, and stay.

    As `functools.cache`; but of threads that ask at once one makes the result, and the others wait:
    theirs would be thrown away, while the addresses in it may be in use already.
    """

    def __init__(self, make: Callable[P, V]) -> None:
        self.make, self.__doc__ = make, make.__doc__
        self.lock = lock_of(self)
        self._values: dict[Any, V] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        assert not kwargs, "arguments are told apart by position"
        if args not in self._values:
            with self.lock:
                if args not in self._values:
                    self._values[args] = self.make(*args, **kwargs)
        return self._values[args]


class Recent(Generic[K, V]):
    """Values by key, made when they are first asked for; the oldest are forgotten.

    make  key -> value
    most  how many are kept
    """

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self.make, self.most = make, most
        self._values: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        try:
            return self._values[key]
        except KeyError:
            value = self._values[key] = self.make(key)
            while len(self._values) > self.most:
                self._values.popitem(last=False)
            return value

    def __len__(self) -> int:
        return len(self._values)

    @property
    def latest(self) -> V | None:
        """The value that was made last."""
        return next(reversed(self._values.values()), None)


class Once(Generic[K]):
    """Arrays by key, each given once: who asks again gets a copy.

    arrays  NumPy's or a device's
    """

    def __init__(self, arrays: Mapping[K, Any]) -> None:
        self._arrays, self._given = arrays, set[K]()

    def __getitem__(self, key: K) -> Any:
        array = self._arrays[key]
        if key in self._given:
            return array.copy()
        self._given.add(key)
        return array


class Spares(Generic[V]):
    """Things that take turns: one is handed out again when nobody else holds it any more.

    make  makes one
    most  how many are kept
    """

    def __init__(self, make: Callable[[], V], most: int) -> None:
        self.make, self.most = make, most
        self._things: list[V] = []

    def take(self) -> V:
        """One that nobody holds; what is popped here no other thread sees."""
        for _ in range(len(self._things)):
            try:
                thing = self._things.pop(0)
            except IndexError:
                break
            if sys.getrefcount(thing) == _OURS:
                return thing
            if len(self._things) < self.most:
                self._things.append(thing)
        return self.make()

    def keep(self, thing: V) -> None:
        """One that was taken: to be taken again when all others have let it go."""
        self._things.append(thing)
