"""Whose documentation is this sentence from?  A GRU over padded sentences, with one mask each.

The sentences are those of the docstrings of NumPy, SciPy, Matplotlib and scikit-learn as they are
installed.  Padding is told by a mask, so that a sentence's result does not depend on the others in
its batch; dropout is variational (Gal and Ghahramani 2016): words, inputs and state have one mask
for a whole sentence.  Naive Bayes over the words is the baseline.

It is a demonstration, not a benchmark: sizes and rates were chosen with an eye on the validation
accuracy of seed 0, and the numbers depend on which versions of the libraries are installed.
"""

import argparse
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
from helpers import docstrings
from helpers.text import Vocabulary
from threadpoolctl import threadpool_limits

import graphdrop as gd
from graphdrop import nn, optim, train

mpl.use("Agg")
import matplotlib.pyplot as plt

LIBRARIES = ("numpy", "scipy", "matplotlib", "sklearn")
LENGTH = docstrings.LONG
EMBEDDED, HIDDEN, BATCH = 64, 64, 100
WORDS, INPUTS, STATE, OUTPUT = 0.2, 0.3, 0.3, 0.5
PLAIN, DROPOUT = "#c2255c", "#4a7fc1"


def padded(rows: list, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids[sentences, LENGTH], lengths[sentences] and labels[sentences]; id 0 pads."""
    ids = np.zeros((len(rows), LENGTH), np.int32)
    for row, (words, _) in zip(ids, rows, strict=True):
        row[: len(words)] = vocabulary.encode(words)
    lengths = np.array([len(words) for words, _ in rows], np.int32)
    return ids, lengths, np.array([label for _, label in rows], np.int32)


def naive_bayes(seen: tuple, unseen: tuple, words: int) -> float:
    """The accuracy of counting words."""
    counts = np.ones((len(LIBRARIES), words))
    for ids, n, label in zip(*seen, strict=True):
        np.add.at(counts[label], ids[:n], 1)
    score = np.log(counts / counts.sum(axis=1, keepdims=True))
    found = [np.argmax(score[:, ids[:n]].sum(axis=1)) for ids, n, _ in zip(*unseen, strict=True)]
    return float(np.mean(np.array(found) == unseen[2]))


def build(seed: int, words: int, scale: float) -> tuple[gd.Function, gd.Function]:
    """step(ids, lengths, labels) -> loss; predict(ids, lengths) -> classes. Rates times `scale`."""
    rng, stream, training = np.random.default_rng(seed), gd.RandomStream(seed), gd.flag("training")
    embedding = nn.Embedding(words, EMBEDDED, rng)
    dropout = nn.RecurrentDropout(
        stream, training, inputs=INPUTS * scale, state=STATE * scale, variational=True, name="gru"
    )
    gru = nn.GRU(EMBEDDED, HIDDEN, rng, dropout=dropout)
    out = nn.Dense(HIDDEN, len(LIBRARIES), rng, name="out")

    ids = gd.imatrix("ids", shape=("batch", LENGTH))
    lengths, labels = (
        gd.ivector("lengths", shape=("batch",)),
        gd.ivector("labels", shape=("batch",)),
    )
    there = gd.expand_dims(gd.arange(LENGTH), 1) < lengths  # [time, batch]
    rows = nn.embedding_dropout(embedding.E, WORDS * scale, stream, training, name="words")
    h, _ = gru(gd.take(rows, ids.T, axis=0), mask=there)
    # the mean over the words that are there: outputs on padding are 0
    mean = h.sum(axis=0) / gd.expand_dims(gd.cast(lengths, "float32"), 1)
    mean = gd.dropout(mean, OUTPUT * scale, stream, training, name="sentence")
    logits = out(mean)
    loss = nn.softmax_cross_entropy(logits, labels).mean()
    params = nn.params(embedding, gru, out)
    updates = optim.adam(optim.clip_by_global_norm(gd.grad(loss, params), 1.0), params, lr=0.003)
    step = gd.function([ids, lengths, labels], loss, updates, givens={training: True})
    return step, gd.function([ids, lengths], gd.argmax(logits, axis=-1), givens={training: False})


def learn(seed: int, scale: float, epochs: int, words: int, seen: tuple, unseen: tuple) -> tuple:
    """Accuracies[training or validation, epoch], and the classes found in the end."""
    step, predict = build(seed, words, scale)

    def validate() -> dict[str, float]:
        return {
            name: float(np.mean(predict(ids, lengths) == labels))
            for name, (ids, lengths, labels) in (("seen", seen), ("unseen", unseen))
        }

    history = train.fit(step, seen, epochs, batch_size=BATCH, seed=seed, validate=validate)
    return np.array([history["val_seen"], history["val_unseen"]]), predict(*unseen[:2])


def plot(path: Path, curves: dict, baseline: float, matrix: np.ndarray) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.8), width_ratios=(1.7, 1), layout="constrained"
    )
    for (name, found), color in zip(curves.items(), (PLAIN, DROPOUT), strict=True):
        epochs = np.arange(1, found.shape[-1] + 1)
        for part, style, of in zip((0, 1), ("--", "-"), ("training", "validation"), strict=True):
            rows = 100 * found[:, part]
            left.fill_between(epochs, rows.min(0), rows.max(0), color=color, alpha=0.15, lw=0)
            left.plot(epochs, rows.mean(0), style, color=color, label=f"{of}, {name}")
    left.axhline(100 * baseline, color="#868e96", lw=1, label="validation, naive Bayes")
    left.set(xlabel="epoch", ylabel="accuracy (%)")
    left.set_title("Accuracy while training (mean and range over seeds)", fontsize=11)
    left.legend(frameon=False, fontsize=9)
    left.spines[["top", "right"]].set_visible(False)
    right.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(matrix.shape):
        color = "white" if matrix[i, j] > 0.5 else "black"
        right.text(j, i, f"{100 * matrix[i, j]:.0f} %", ha="center", va="center", color=color)
    ticks = range(len(LIBRARIES))
    right.set_xticks(ticks, labels=LIBRARIES)
    right.set_yticks(ticks, labels=LIBRARIES)
    right.set(xlabel="said", ylabel="written in")
    right.set_title("With dropout, last seed", fontsize=11)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--seeds", type=int, help="how many runs of each network")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds, epochs = args.seeds or (1 if args.quick else 3), 2 if args.quick else 8

    threadpool_limits(1)  # products this small take longer when threads have to meet
    start = perf_counter()
    old, new = docstrings.split(LIBRARIES, 300 if args.quick else 1500, 300)
    vocabulary = Vocabulary.of((w for words, _ in old for w in words), least=2)
    seen, unseen = padded(old, vocabulary), padded(new, vocabulary)
    baseline = naive_bayes(seen, unseen, len(vocabulary))
    print(f"{len(old)} sentences to learn from, {len(new)} of other files to validate on, ", end="")
    print(f"{len(vocabulary)} words known\nchance 25.0 %, naive Bayes {100 * baseline:.1f} %")
    curves = {}
    for name, scale in (("without dropout", 0.0), ("with dropout", 1.0)):
        found = []
        for seed in range(seeds):
            curve, said = learn(seed, scale, epochs, len(vocabulary), seen, unseen)
            found.append(curve)
        curves[name] = np.array(found)
        last = 100 * curves[name][:, 1, -1]
        print(f"{name:15}  validation accuracy {last.mean():.1f} ± {last.std():.1f} %", flush=True)
    matrix = np.zeros((len(LIBRARIES),) * 2)
    np.add.at(matrix, (unseen[2], said), 1)
    picture = args.out / "library_gru.png"
    plot(picture, curves, baseline, matrix / matrix.sum(axis=1, keepdims=True))
    print(f"picture: {picture}   ({perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
