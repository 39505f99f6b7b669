"""The regularized LSTM of Zaremba, Sutskever and Vinyals (2014), scaled down to Python's own help.

Two LSTM layers; dropout on the connections that are not recurrent (into each layer and out of the
last); plain SGD with clipped gradients and a learning rate that falls after some epochs.  The text
is read in order by 20 readers at once, and each batch starts with the state in which the one before
left off, while gradients stop there: truncated back-propagation through time.

It is a demonstration, not a benchmark: sizes, rate and schedule were chosen with an eye on the
validation perplexity of seed 0.  Six minutes on two cores: perplexity 58 with dropout, 86 without.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
from helpers import text
from threadpoolctl import threadpool_limits

import graphdrop as gd
from graphdrop import nn, optim, train

mpl.use("Agg")
import matplotlib.pyplot as plt

LAYERS, HIDDEN, READERS, TIME = 2, 128, 20, 20
RATE, LEARNING_RATE, MAX_NORM = 0.4, 1.0, 5.0
STEADY, FACTOR = 12, 0.75  # epochs at the full learning rate; its factor in each later one
PLAIN, DROPOUT = "#c2255c", "#4a7fc1"


class Reader:
    """Running text as windows ids[readers, time + 1] in order; every epoch starts at the front.

    state  a shared value that an epoch starts with as zeros
    """

    def __init__(self, ids: np.ndarray, readers: int, state: gd.Shared) -> None:
        length = (len(ids) - 1) // (readers * TIME) * TIME
        rows = length * np.arange(readers)[:, None] + np.arange(length + 1)
        self.rows, self.state = ids[rows], state

    def __len__(self) -> int:
        return (self.rows.shape[1] - 1) // TIME

    def __iter__(self) -> Iterator[tuple[np.ndarray]]:
        self.state.set_value(np.zeros_like(self.state.get_value()))
        for i in range(len(self)):
            yield (self.rows[:, i * TIME : (i + 1) * TIME + 1],)


class Network:
    """Embedding, LSTM layers and softmax; a rate of 0 makes it the network without dropout."""

    def __init__(self, seed: int, words: int, rate: float, readers: tuple[int, int]) -> None:
        rng = np.random.default_rng(seed)
        self.stream, self.training = gd.RandomStream(seed), gd.flag("training")
        dropout = nn.RecurrentDropout(
            self.stream, self.training, inputs=rate, between=rate, outputs=rate, name="lstm"
        )
        self.embedding = nn.Embedding(words, HIDDEN, rng)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, rng, layers=LAYERS, dropout=dropout)
        self.out = nn.Dense(HIDDEN, words, rng, name="out")
        self.params = nn.params(self.embedding, self.lstm, self.out)
        # where training and validation are in their texts: h and c of every layer
        self.states = [
            gd.shared(np.zeros((LAYERS, 2, n, HIDDEN), "f4"), name)
            for n, name in zip(readers, ("learning", "validating"), strict=True)
        ]

    def run(self, ids: gd.Node, state: gd.Node) -> tuple[gd.Node, gd.Node]:
        """ids[time, readers], state -> logits[time, readers, words], the state after them."""
        start = [(state[i, 0], state[i, 1]) for i in range(LAYERS)]
        h, end = self.lstm(self.embedding(ids), start)
        return self.out(h), gd.stack([gd.stack(pair) for pair in end])

    def functions(self, batches: int) -> tuple[gd.Function, gd.Function]:
        """step(words[readers, time + 1]) -> loss a word; check, the same without learning."""
        words = gd.imatrix("words", shape=("readers", TIME + 1))
        start = gd.tensor4("state", shape=(LAYERS, 2, "readers", HIDDEN))
        logits, end = self.run(words[:, :-1].T, start)
        losses = nn.softmax_cross_entropy(logits, words[:, 1:].T)
        # the paper's loss adds up over time; its learning rate and its limit are for this one
        grads = gd.grad(losses.sum(axis=0).mean(), self.params)

        def lr(step: gd.Node) -> gd.Node:
            late = gd.maximum(step // batches + 1 - STEADY, 0)
            return LEARNING_RATE * FACTOR ** gd.cast(late, "float64")

        updates = optim.sgd(optim.clip_by_global_norm(grads, MAX_NORM), self.params, lr=lr)
        functions = []
        for state, learns in zip(self.states, (True, False), strict=True):
            moves = [(state, end), *(updates if learns else [])]
            givens = {start: state, self.training: learns}
            functions.append(gd.function([words], losses.mean(), moves, givens=givens))
        return functions[0], functions[1]


def learn(seed: int, rate: float, epochs: int, words: int, texts: tuple) -> np.ndarray:
    """Perplexities[training or validation, epoch]; that of training is with dropout, as it goes."""
    readers = (READERS, READERS // 4)
    network = Network(seed, words, rate, readers)
    seen, unseen = (
        Reader(ids, n, s) for ids, n, s in zip(texts, readers, network.states, strict=True)
    )
    step, check = network.functions(len(seen))

    def validate() -> dict[str, float]:
        return {"loss": float(np.mean([check(*batch) for batch in unseen]))}

    history = train.fit(step, seen, epochs, validate=validate)
    return np.exp([history["loss"], history["val_loss"]])


def plot(path: Path, curves: dict[str, np.ndarray]) -> None:
    """Perplexities over the epochs, mean and range over the seeds; and the best of every seed."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.8), width_ratios=(1.7, 1), layout="constrained"
    )
    for (name, found), color in zip(curves.items(), (PLAIN, DROPOUT), strict=True):
        epochs = np.arange(1, found.shape[-1] + 1)
        for part, style, of in zip((0, 1), ("--", "-"), ("training", "validation"), strict=True):
            rows = found[:, part]
            left.fill_between(epochs, rows.min(0), rows.max(0), color=color, alpha=0.15, lw=0)
            left.plot(epochs, rows.mean(0), style, color=color, label=f"{of}, {name}")
    left.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    left.xaxis.get_major_locator().set_params(integer=True)
    low, high = left.get_ylim()
    ticks = [t for t in (10, 20, 30, 50, 70, 100, 150, 200, 300, 500) if low < t < high]
    left.set_yticks(ticks, labels=map(str, ticks))
    left.minorticks_off()
    left.set_title("Perplexity while training (mean and range over seeds)", fontsize=11)
    left.legend(frameon=False, fontsize=9)
    final = np.stack([found[:, 1, -1] for found in curves.values()])
    for pair in final.T:
        right.plot([0, 1], pair, color="#adb5bd", lw=1, zorder=1)
    for i, (found, color) in enumerate(zip(final, (PLAIN, DROPOUT), strict=True)):
        right.scatter(np.full(len(found), i), found, color=color, zorder=2)
        side, align = (-0.12, "right") if i == 0 else (1.12, "left")
        label = f"{found.mean():.1f}\n± {found.std():.1f}"
        right.text(side, found.mean(), label, color=color, ha=align, va="center")
    right.set(xticks=[0, 1], xticklabels=list(curves), xlim=(-0.6, 1.6))
    right.set_ylabel("validation perplexity")
    right.set_title("After training, seed by seed", fontsize=11)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--seeds", type=int, help="how many runs of each network")
    parser.add_argument("--epochs", type=int, help="how often the text is read")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds, epochs = args.seeds or (1 if args.quick else 3), args.epochs or (2 if args.quick else 18)

    threadpool_limits(1)  # products this small take longer when threads have to meet
    start = perf_counter()
    old, new = text.split(0.15)
    vocabulary = text.Vocabulary.of(old, least=4)
    texts = (vocabulary.encode(old), vocabulary.encode(new))
    print(f"{len(old)} words to learn from, {len(new)} to validate on, {len(vocabulary)} known")
    curves = {}
    for name, rate in (("without dropout", 0.0), ("with dropout", RATE)):
        found = []
        for seed in range(seeds):
            found.append(learn(seed, rate, epochs, len(vocabulary), texts))
            last, best = found[-1][1, -1], found[-1][1].min()
            print(f"  {name:15}  seed {seed}  validation {last:5.1f}, best {best:5.1f}", flush=True)
        curves[name] = np.array(found)
    final = [found[:, 1, -1] for found in curves.values()]
    best = [found[:, 1].min(axis=-1) for found in curves.values()]
    for name, last, lowest in zip(curves, final, best, strict=True):
        print(
            f"{name:15}  validation perplexity {last.mean():5.1f} ± {last.std():.1f}, in its best "
            f"epoch {lowest.mean():5.1f} ± {lowest.std():.1f}, over {seeds} seeds"
        )
    print(f"dropout is better with {(final[1] < final[0]).sum()} of {seeds} seeds")
    if args.quick:
        print("(two epochs are too few to overfit, so that dropout only slows learning down)")
    picture = args.out / "lstm_lm.png"
    plot(picture, curves)
    print(f"picture: {picture}   ({perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
