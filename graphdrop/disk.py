"""Machine code kept on disk, so that a second process need not compile.

A file is named by what its code was made from: the text, the compiler's version, and the processor
with its features.  It begins with a digest of the rest; what does not fit is thrown away.  The
directory is private: one that others may write to is not used, since machine code from it would be
run.

GRAPHDROP_CACHE names another directory, or is "off".
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

LARGEST = 512 << 20  # bytes of all files; the oldest go first
PART = ".part"  # of a file that is not yet whole
ABANDONED = 3600  # seconds after which nobody is still writing one


@cache
def directory() -> Path | None:
    """Where code is kept; None if nowhere."""
    wish = os.environ.get("GRAPHDROP_CACHE")
    if wish == "off":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(wish) if wish else base / "graphdrop"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if not path.is_dir() or not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written to")
        if hasattr(os, "geteuid") and (
            found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        ):
            raise PermissionError(f"others may write to {path}")
    except OSError as error:
        warnings.warn(
            f"compiled code is not kept: {error}; set GRAPHDROP_CACHE to a directory of your own, "
            "or to off",
            stacklevel=2,
        )
        return None
    return path


def key(*parts: str) -> str:
    """The name of what is made from these parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part.encode())
    return digest.hexdigest()


def load(name: str) -> bytes | None:
    """What was kept under a name."""
    place = directory()
    if place is None:
        return None
    path = place / f"{name}.o"
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        path.unlink(missing_ok=True)
        return None
    return data


def keep(name: str, data: bytes) -> None:
    """Keep data under a name: written aside and moved, so that no reader meets a half."""
    place = directory()
    if place is None:
        return
    try:
        _make_room(place)
        handle, aside = tempfile.mkstemp(dir=place, suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(aside, place / f"{name}.o")
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:  # a full disk is no reason to stop
        warnings.warn(f"compiled code is not kept: {error}", stacklevel=2)


@cache
def _make_room(place: Path) -> None:
    """Remove the oldest files if all together are too large, and what writers left that ended half
    way; once in the life of a process.
    """
    files = []
    for path in place.glob(f"*{PART}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
    for path in place.glob("*.o"):
        try:
            found = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        files.append((found.st_mtime, found.st_size, path))
    total = sum(s for _, s, _ in files)
    for _, s, path in sorted(files):
        if total <= LARGEST:
            return
        path.unlink(missing_ok=True)
        total -= s
