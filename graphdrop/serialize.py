"""Saving and loading: shared values, stream states and arrays in one safetensors file.

The file is plain safetensors: anything that reads the format reads the arrays.  Its metadata has
one entry, "graphdrop", with JSON {"format_version", "streams", "info", "sha256"}.  The sha256 is
that of the same JSON with "tensors" {key: [dtype, shape]} in place of "sha256" (keys sorted, no
spaces), followed by the bytes of all tensors in the order of their keys.  It finds damage; it is no
signature.  Nothing in a file is ever executed, and a file that is not accepted changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import leases
from .errors import ArgumentError, CheckpointError, RandomError
from .function import Function
from .graph import format_origin
from .op import called
from .ops.leaf import Shared
from .random import RandomStream
from .types import DTYPES

FORMAT_VERSION = 1

Array: TypeAlias = np.ndarray[Any, Any]
PathLike: TypeAlias = "str | os.PathLike[str]"

# safetensors' names of our dtypes
_CODES = {
    "BOOL" if d.kind == "b" else f"{d.kind.upper()}{8 * d.itemsize}": d for d in DTYPES
}  # fmt: skip


@called
def save(path: PathLike, *objects: Any, info: Mapping[str, Any] | None = None) -> None:
    """Write the state of `objects` to a safetensors file, all of it or nothing.

    objects  compiled functions (their shared values and streams), shared values, RandomStreams,
             dicts of name -> shared value, stream or array, and lists of all these
    info     anything JSON can say, which `load` returns

    A shared value's key is its name.  Those that have one name, or none, are numbered in the order
    in which they were made ("W[0]", "unnamed[1]"); a dict gives keys of your own.  The file is
    written beside `path` and renamed, so that a crash leaves the old file or the new one.
    """
    write(path, snapshot(collect(objects), info or {}))


@called
def load(path: PathLike, *objects: Any, allow_extra: bool = False) -> dict[str, Any]:
    """Put what `save` wrote back into `objects`, and return its `info`.

    objects      as for `save`; arrays inside dicts are overwritten in place
    allow_extra  ignore what the file has beyond `objects`, say the optimizer's state

    Everything is checked before anything is replaced.  Whatever is wrong with the file, or between
    the file and `objects`, raises CheckpointError and leaves every object as it was.
    """
    targets = collect(objects)
    contents = read(path)
    restore(path, targets, contents, allow_extra=allow_extra)
    return contents.info


@called
def load_arrays(path: PathLike) -> dict[str, Array]:
    """The arrays of a safetensors file by name; graphdrop's own are checked for damage."""
    return read(path, foreign=True).arrays


# --------------------------------------------------------------------------------------------
# what is saved, and under which keys


@dataclass(frozen=True)
class Targets:
    """The objects whose state is saved or replaced, by key; `numbered` are keys like "W[0]"."""

    shared: dict[str, Shared] = field(default_factory=dict)
    streams: dict[str, RandomStream] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    numbered: set[str] = field(default_factory=set)

    def add(self, key: str, value: Any) -> None:
        if key in self.shared or key in self.streams or key in self.arrays:
            raise ArgumentError(
                f"two values would be saved as {key!r}; rename one, or give both keys of their "
                f"own with a dict"
            )
        if not _is_key(key):
            raise ArgumentError(f"{key!r} cannot be a key in a file; use a non-empty string")
        table: Any = self.arrays
        if isinstance(value, (Shared, RandomStream)):
            table = self.shared if isinstance(value, Shared) else self.streams
        table[key] = value

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No function that updates one of the shared values runs meanwhile."""
        with ExitStack() as held:
            for variable in sorted(self.shared.values(), key=lambda s: s.serial):
                held.enter_context(variable.lock)
            held.enter_context(leases.writing())
            yield


def _is_key(key: Any) -> bool:
    if not isinstance(key, str) or not key or key == "__metadata__":
        return False
    return all(not "\ud800" <= c <= "\udfff" for c in key)  # a lone surrogate is not UTF-8


def collect(objects: Iterable[Any]) -> Targets:
    """Everything in `objects` that has state, under the keys that `save` describes."""
    targets = Targets()
    loose: dict[Any, None] = {}
    named: dict[Any, str] = {}
    todo = list(objects)[::-1]
    while todo:
        item = todo.pop()
        if isinstance(item, (list, tuple)):
            todo.extend(reversed(item))
        elif isinstance(item, Function):
            loose.update(dict.fromkeys([*item.shared, *item.streams]))
        elif isinstance(item, (Shared, RandomStream)):
            loose[item] = None
        elif isinstance(item, Mapping):
            _add_named(targets, item, named)
        else:
            raise ArgumentError(
                f"cannot save or load {type(item).__name__}: give compiled functions, shared "
                f"values, streams, or a dict of name -> shared value, stream or array"
            )
    _add_loose(targets, [item for item in loose if item not in named])
    return targets


def _add_named(targets: Targets, items: Mapping[Any, Any], named: dict[Any, str]) -> None:
    for key, value in items.items():
        if isinstance(value, (Shared, RandomStream)):
            if named.setdefault(value, key) != key:
                raise ArgumentError(f"{value!r} is given twice, as {named[value]!r} and {key!r}")
        elif not isinstance(value, np.ndarray) or value.dtype not in DTYPES:
            raise ArgumentError(
                f"{key!r} is {type(value).__name__}; a dict's values are shared values, streams "
                f"or arrays (put anything else into info=)"
            )
        targets.add(key, value)


def _add_loose(targets: Targets, items: Sequence[Any]) -> None:
    groups: dict[str, list[Any]] = {}
    for item in items:
        if isinstance(item, RandomStream):
            groups.setdefault("stream[]", []).append(item)
        else:
            groups.setdefault(item.name or "unnamed[]", []).append(item)
    for name, group in groups.items():
        if len(group) == 1 and not name.endswith("[]"):
            targets.add(name, group[0])
            continue
        # the order of making is the same whenever the same program runs
        group.sort(key=lambda v: v.key.serial if isinstance(v, RandomStream) else v.serial)
        for i, item in enumerate(group):
            key = f"{name.removesuffix('[]')}[{i}]"
            targets.add(key, item)
            targets.numbered.add(key)


# --------------------------------------------------------------------------------------------
# state out of objects and into them


@dataclass(frozen=True)
class Contents:
    """What a file holds: arrays and stream states by key, and `info`."""

    arrays: dict[str, Array]
    streams: dict[str, dict[str, int]]
    info: dict[str, Any]


def snapshot(targets: Targets, info: Mapping[str, Any]) -> Contents:
    """A copy of the state of all targets at one moment."""
    with targets.locked():
        arrays = {k: np.asarray(s.get_value(), order="C") for k, s in targets.shared.items()}
        arrays |= {k: np.array(a, order="C") for k, a in targets.arrays.items()}
        streams = {k: s.state_dict() for k, s in targets.streams.items()}
    return Contents(arrays, streams, dict(info))


def restore(
    path: PathLike, targets: Targets, contents: Contents, *, allow_extra: bool = False
) -> None:
    """Put `contents` into the targets, if all of it fits."""
    problems = _misfits(targets, contents, allow_extra)
    if problems:
        shown = "".join(f"\n  {p}" for p in problems[:8])
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{path} does not fit; nothing was changed:{shown}{more}")
    with targets.locked():
        for key, variable in targets.shared.items():
            variable.set_value(contents.arrays[key])
        for key, array in targets.arrays.items():
            array[...] = contents.arrays[key]
        for key, stream in targets.streams.items():
            stream.load_state_dict(contents.streams[key])


def _misfits(targets: Targets, contents: Contents, allow_extra: bool) -> list[str]:
    """Why `contents` cannot be put into the targets; empty if it can."""
    wanted: dict[str, Shared | Array] = {**targets.shared, **targets.arrays}
    found = []
    for key, value in wanted.items():
        loaded = contents.arrays.get(key)
        made = format_origin(value.origin) if isinstance(value, Shared) else "a dict"
        if loaded is None:
            found.append(f"{key!r} (from {made}) is not in the file")
        elif loaded.dtype != value.dtype or loaded.shape != value.shape:
            found.append(
                f"{key!r} is {loaded.dtype}{list(loaded.shape)} in the file but "
                f"{value.dtype}{list(value.shape)} here (from {made})"
            )
        elif isinstance(value, np.ndarray) and not value.flags.writeable:
            found.append(f"{key!r} is a read-only array here; pass a copy")
    for key in targets.streams:
        if key not in contents.streams:
            found.append(f"the stream {key!r} is not in the file")
        else:
            found += _bad_state(key, contents.streams[key])
    bases = {key.rpartition("[")[0] for key in targets.numbered}
    for key in [*contents.arrays, *contents.streams]:
        if key in wanted or key in targets.streams:
            continue
        if not allow_extra:
            found.append(f"{key!r} is only in the file; pass allow_extra=True to ignore it")
        elif key.rpartition("[")[0] in bases:
            found.append(
                f"{key!r} is only in the file, so the numbers of values without a name of their "
                f"own may differ; give them names"
            )
    return found


def _bad_state(key: str, state: Any) -> list[str]:
    try:
        RandomStream(0).load_state_dict(state if isinstance(state, dict) else {})
    except RandomError as error:
        return [f"the stream {key!r}: {error}"]
    return []


# --------------------------------------------------------------------------------------------
# the file


def write(path: PathLike, contents: Contents) -> None:
    """Write a file beside `path` and rename it, durably."""
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; save to a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {path.parent}; make it before you save")
    try:
        info = json.loads(json.dumps(contents.info))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"info must be what JSON can say: {error}") from None
    said = {"format_version": FORMAT_VERSION, "streams": contents.streams, "info": info}
    said["sha256"] = _digest(said, contents.arrays)
    data = to_bytes(contents.arrays, {"graphdrop": _json(said)})
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems where a folder can be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: PathLike, *, foreign: bool = False) -> Contents:
    """All of a file, checked; CheckpointError if anything about it is wrong.

    foreign  accept safetensors files that graphdrop did not write
    """
    from safetensors import SafetensorError, deserialize

    data = _read_bytes(path)
    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated, damaged or no safetensors file ({error}); use another copy"
        ) from None
    arrays = {key: _array(path, key, found) for key, found in sorted(tensors)}
    # safetensors has accepted the header, and gives all of it but the metadata
    end = 8 + int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:end]).get("__metadata__") or {}
    if "graphdrop" not in metadata:
        if foreign:
            return Contents(arrays, {}, {})
        raise CheckpointError(
            f"{path} was not written by gd.save; read it with gd.load_arrays, and put the arrays "
            f"where they belong with set_value"
        )
    said = _parse(path, metadata["graphdrop"])
    digest = said.pop("sha256")
    if digest != _digest(said, arrays):
        raise CheckpointError(f"{path} was damaged or changed after saving; use another copy")
    return Contents(arrays, said["streams"], said["info"])


def _read_bytes(path: PathLike) -> bytes:
    try:
        # asked before opening: to open a pipe is to wait for its writer
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError(f"{path} is not a file; give the path of a saved checkpoint")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read: {error or 'too large'}") from None


def _array(path: PathLike, key: str, found: Mapping[str, Any]) -> Array:
    """The array of one tensor, whose bytes safetensors has counted."""
    dtype = _CODES.get(found["dtype"])
    if dtype is None:
        raise CheckpointError(
            f"{path}: {key!r} has dtype {found['dtype']}, which graphdrop does not have; convert "
            f"it to one of {', '.join(_CODES)}"
        )
    data = found["data"]
    if dtype.kind == "b" and bytes(data).strip(b"\0\1"):
        raise CheckpointError(f"{path}: {key!r} has bools that are neither 0 nor 1")
    try:
        array: Array = np.frombuffer(data, dtype) if len(data) else np.empty(0, dtype)
        return array.reshape(found["shape"])
    except (ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: {key!r} cannot have shape {found['shape']}: {error}"
        ) from None


def _parse(path: PathLike, text: str) -> dict[str, Any]:
    """graphdrop's metadata, of this version and with the right fields."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has malformed metadata ({error}); use another copy"
        ) from None
    version = said.get("format_version") if isinstance(said, dict) else None
    if type(version) is not int:
        raise CheckpointError(f"{path} has metadata without a format_version; use another copy")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {version}; this graphdrop reads {FORMAT_VERSION}, so load "
            f"it with the graphdrop that wrote it"
        )
    fields = {"format_version": int, "streams": dict, "info": dict, "sha256": str}
    if said.keys() != fields.keys() or any(type(said[k]) is not t for k, t in fields.items()):
        raise CheckpointError(f"{path} has metadata that is incomplete; use another copy")
    return dict(said)


def _digest(said: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    listed = {k: [a.dtype.name, list(a.shape)] for k, a in arrays.items()}
    found = hashlib.sha256(_json({**said, "tensors": listed}).encode())
    for key in sorted(arrays):
        found.update(np.ascontiguousarray(arrays[key]).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
