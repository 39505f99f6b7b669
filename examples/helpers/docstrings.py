"""Sentences of real documentation: the docstrings of installed libraries, read and not imported."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .text import tokenize

SHORT, LONG = 8, 20  # words of a sentence


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of one source file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # a template or a test file of another encoding
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def sentences(text: str) -> Iterator[list[str]]:
    """Paragraphs of prose cut into sentences, as words; headings, tables and code are left out."""
    for block in re.split(r"\n\s*\n", text):
        if re.search(r">>>|[-=~]{4}|^\s+\S", block, re.MULTILINE):
            continue
        for sentence in re.split(r"(?<=[.:])\s+", " ".join(block.split())):
            words = tokenize(sentence)
            if SHORT <= len(words) <= LONG:
                yield words


def of_library(name: str) -> dict[str, list[list[str]]]:
    """The sentences of every source file of a library; no sentence twice."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"this example reads the sources of {name}; install it")
    root = Path(spec.submodule_search_locations[0])
    seen: set[str] = set()
    found: dict[str, list[list[str]]] = {}
    for path in sorted(p for p in root.rglob("*.py") if "tests" not in p.parts):
        for text in docstrings(path):
            for words in sentences(text):
                if (key := " ".join(words)) not in seen:
                    seen.add(key)
                    found.setdefault(str(path.relative_to(root)), []).append(words)
    return found


def split(
    names: tuple[str, ...], each: int, held: int, seed: int = 0
) -> tuple[list[tuple[list[str], int]], list[tuple[list[str], int]]]:
    """Labelled sentences to learn from and to validate on: `each` and `held` of every library.

    No source file has sentences in both, and a library's name is cut out of its sentences.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[list[tuple[list[str], int]], list[tuple[list[str], int]]] = ([], [])
    for label, name in enumerate(names):
        files = list(of_library(name).values())
        rng.shuffle(files)
        chosen: tuple[list[list[str]], list[list[str]]] = ([], [])
        for file in files:
            part = chosen[1] if len(chosen[1]) < held else chosen[0]
            part.extend([w for w in words if w not in names] for words in file)
        for rows, kept, count in zip(chosen, parts, (each, held), strict=True):
            rng.shuffle(rows)
            kept += [(words, label) for words in rows[:count]]
    return parts
