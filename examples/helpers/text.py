"""English that every Python ships with: the help texts of `pydoc_data.topics`, as word ids.

They are prose, code and grammar; only the prose is taken.  Some paragraphs stand in several topics;
each is taken once, so that none is in the training and in the validation text.  A newer Python has
longer texts, so numbers differ a little between versions of Python.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pydoc_data.topics import topics

import numpy as np

UNKNOWN = "<unk>"
WORD = re.compile(r"[a-z_][a-z0-9_]*(?:'[a-z]+)?|[.,:;?()]")
# curly apostrophes become straight; quotes and stars are left out
STRAIGHT = str.maketrans("\u2018\u2019", "''", '"*`\u201c\u201d')


def tokenize(text: str) -> list[str]:
    """Lower-case words and the punctuation between them; numbers and other signs are left out."""
    return WORD.findall(text.lower().translate(STRAIGHT))


def is_prose(paragraph: str) -> bool:
    """Whether it is sentences: long enough, hardly any signs, and a full stop at the end."""
    letters = sum(c.isalpha() or c.isspace() for c in paragraph.translate(STRAIGHT))
    return len(paragraph) >= 60 and letters >= 0.9 * len(paragraph) and paragraph[-1] in ".:"


def prose(texts: dict[str, str] = topics) -> dict[str, list[str]]:
    """The paragraphs of prose in every topic that has some; no paragraph twice."""
    taken: set[str] = set()
    found: dict[str, list[str]] = {}
    for topic in sorted(texts):
        for block in re.split(r"\n\s*\n", texts[topic]):
            paragraph = " ".join(block.split())
            if is_prose(paragraph) and paragraph not in taken:
                taken.add(paragraph)
                found.setdefault(topic, []).append(paragraph)
    return found


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; id 0 stands for all others."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, tokens: Iterable[str], least: int) -> "Vocabulary":
        """The words that occur at least so often, the most frequent first."""
        counts = Counter(tokens)
        known = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
        return cls((UNKNOWN, *known))

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """Tokens as int32 ids[tokens]."""
        return np.array([self.ids.get(token, 0) for token in tokens], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as text, without the spaces that do not belong before punctuation."""
        text = " ".join(self.words[i] for i in ids)
        return re.sub(r" ([.,:;?)])|(\() ", r"\1\2", text)


def split(share: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """The tokens to learn from, and those to validate on: about `share` of all paragraphs."""
    paragraphs = [tokenize(p) for texts in prose().values() for p in texts]
    held = np.random.default_rng(seed).random(len(paragraphs)) < share
    parts: tuple[list[str], list[str]] = ([], [])
    for paragraph, new in zip(paragraphs, held.tolist(), strict=True):
        parts[new].extend(paragraph)
    return parts


def windows(ids: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """Running text as rows[windows, length + 1]; the last word of one row begins the next."""
    count = (len(ids) - 1) // length
    starts = length * np.arange(count)
    return np.asarray(ids)[starts[:, None] + np.arange(length + 1)]
