"""Which source this process runs: what is kept of one is not used with another."""

from __future__ import annotations

import os
from collections.abc import Iterator

import graphdrop


def _files(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.endswith(".py"):
            s = entry.stat()
            yield f"{entry.path} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
        elif entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry.path)


def _source() -> str:
    folders = [*graphdrop.__path__, os.path.dirname(__file__)]
    if not all(map(os.path.isdir, folders)):
        return ""  # in an archive, say
    return "\n".join(sorted(line for folder in folders for line in _files(folder)))


# The size of every file, and when it came here, as this module is read.  What is installed or
# edited has a new time of its last change, whatever else it says of itself.  Empty if that cannot
# be told, and then nothing is kept.
SOURCE = _source()
