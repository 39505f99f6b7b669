"""python -m graphdrop.testing parity --backends numpy,llvm,cupy [--only NAME]"""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from ..backend import get_backend
from . import parity


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m graphdrop.testing")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("parity", help="whether backends agree")
    command.add_argument("--backends", default="numpy,llvm", help="the first is the oracle")
    command.add_argument("--only", default="", help="compare only what has this in its name")
    asked = parser.parse_args()
    backends = asked.backends.split(",")
    if len(backends) < 2:
        parser.error("give two backends or more, as in --backends numpy,llvm")
    for name in backends:
        get_backend(name)  # says what is missing before anything is compared
    todo = parity.comparisons(backends, asked.only)
    found = [row for compare in tqdm(todo, unit="comparison") for row in compare()]
    print(parity.report(found, backends))
    return 0 if all(row.agrees for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
