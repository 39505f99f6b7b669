"""A recurrent language model with dropout inside the loop: Theano's RNN example done right.

A vanilla RNN (or `--cell lstm`, `--cell gru`) learns to say the next word of the English that comes
with Python.  Dropout is one line of the step that `gd.scan` traces; there is no dictionary of
updates to thread and nothing to tell the gradient.  Flag and rate are arguments of the
compiled functions: nothing is compiled again to train with rate 0 and then with rate 0.3.

It is a demonstration, not a benchmark: sizes and rate were chosen with an eye on the validation
perplexity of seed 0.
"""

import argparse
import textwrap
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

EMBEDDED, HIDDEN, TIME, BATCH = 64, 128, 20, 32
RATE, LEARNING_RATE, SAMPLE = 0.3, 0.01, 50
PLAIN, DROPOUT = "#c2255c", "#4a7fc1"

# A cell: the projected input x[batch, gates * hidden], the state, whose first part is h, and the
# projected h, -> the next state.


def rnn(x: gd.Node, state: tuple, u: gd.Node) -> tuple:
    return (gd.tanh(x + u),)


def lstm(x: gd.Node, state: tuple, u: gd.Node) -> tuple:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000."""
    i, f, o, new = gd.split(x + u, 4, axis=-1)
    c = gd.sigmoid(f) * state[1] + gd.sigmoid(i) * gd.tanh(new)
    return gd.sigmoid(o) * gd.tanh(c), c


def gru(x: gd.Node, state: tuple, u: gd.Node) -> tuple:
    """Cho et al. 2014, with the reset gate after the product as in cuDNN."""
    (xr, xz, xn), (ur, uz, un) = gd.split(x, 3, axis=-1), gd.split(u, 3, axis=-1)
    z = gd.sigmoid(xz + uz)
    return (z * state[0] + (1 - z) * gd.tanh(xn + gd.sigmoid(xr + ur) * un),)


CELLS = {"rnn": (rnn, 1, 1), "lstm": (lstm, 4, 2), "gru": (gru, 3, 1)}  # gates, parts of the state


class LanguageModel:
    """Embedding, a recurrent layer, and a softmax over the words.

    variational  one mask for the whole sequence (Gal and Ghahramani 2016), not one for each step
    """

    def __init__(self, seed: int, words: int, cell: str, variational: bool) -> None:
        rng = np.random.default_rng(seed)
        self.cell, gates, self.parts = CELLS[cell]
        self.embedding = nn.Embedding(words, EMBEDDED, rng)
        self.enter = nn.Dense(EMBEDDED, gates * HIDDEN, rng, name="enter")
        blocks = [nn.orthogonal(rng, (HIDDEN, HIDDEN)) for _ in range(gates)]
        self.U = gd.shared(np.concatenate(blocks, axis=1), "U")
        self.leave = nn.Dense(HIDDEN, words, rng, name="leave")
        self.params = nn.params(self.embedding, self.enter, self.U, self.leave)
        self.stream = gd.RandomStream(seed)
        self.training, self.rate = gd.flag("training"), gd.scalar("rate")
        self.words = gd.imatrix("words", shape=("batch", "length"))
        self.state, self.logits = self.read(self.words[:, :-1].T, variational)

    def read(self, ids: gd.Node, variational: bool) -> tuple[tuple, gd.Node]:
        """ids[time, batch] -> the state after them, and logits[time, batch, words]."""

        def drop(x: gd.Node, name: str, axes: int | None = None) -> gd.Node:
            return gd.dropout(x, self.rate, self.stream, self.training, name=name, axes=axes)

        shared = 0 if variational else None  # axis 0 is time
        x = self.enter(drop(self.embedding(ids), "input", shared))
        zeros = gd.zeros((ids.shape[1], HIDDEN))
        noise = drop(zeros + 1, "state") if variational else None

        def step(state: tuple, x: gd.Node) -> tuple[tuple, gd.Node]:
            h = drop(state[0], "state") if noise is None else state[0] * noise
            state = self.cell(x, state, h @ self.U)
            return state, state[0]

        state, h = gd.scan(step, x, init=(zeros,) * self.parts)
        return state, self.leave(drop(h, "output", shared))

    def functions(self, steps: int) -> tuple[gd.Function, gd.Function]:
        """step(words[batch, time + 1], rate) -> loss; check(words) -> the loss without dropout."""
        loss = nn.softmax_cross_entropy(self.logits, self.words[:, 1:].T).mean()
        grads = optim.clip_by_global_norm(gd.grad(loss, self.params), 5.0)
        lr = optim.cosine_decay(LEARNING_RATE, steps, end=LEARNING_RATE / 10)
        updates = optim.adam(grads, self.params, lr=lr)
        step = gd.function([self.words, self.rate], loss, updates, givens={self.training: True})
        off = {self.training: False, self.rate: 0.0}
        return step, gd.function([self.words], loss, givens=off)

    def writer(self, seed: int) -> gd.Function:
        """(words[batch, length], temperature) -> the next ids[batch, SAMPLE], drawn in a loop."""
        temperature, stream = gd.scalar("temperature"), gd.RandomStream(seed)

        def step(carry: tuple, _: None) -> tuple[tuple, gd.Node]:
            word, state = carry
            state = self.cell(self.enter(self.embedding(word)), state, state[0] @ self.U)
            p = gd.softmax(self.leave(state[0]) / temperature, axis=-1)
            known = gd.where(gd.arange(p.shape[-1]) > 0, p, 0)  # never "<unk>"
            word = gd.cast(stream.categorical(known), "int32")
            return (word, state), word

        ids = gd.scan(step, init=(self.words[:, -1], self.state), length=SAMPLE)[1]
        off = {self.training: False, self.rate: 0.0}
        return gd.function([self.words, temperature], ids.T, givens=off)


def perplexity(check: gd.Function, rows: np.ndarray) -> float:
    """exp of the mean loss: among how many words, all as likely, it still has to guess."""
    return float(np.exp(train.evaluate(check, (rows,))["loss"]))


def learn(model: LanguageModel, seed: int, rate: float, epochs: int, texts: tuple) -> tuple:
    """Perplexities[training or validation, epoch], both without dropout, and the step."""
    seen, unseen = texts
    step, check = model.functions(epochs * -(-len(seen) // BATCH))

    def validate() -> dict[str, float]:
        some = seen[: len(unseen)]
        return {"seen": perplexity(check, some), "unseen": perplexity(check, unseen)}

    history = train.fit(
        lambda rows: step(rows, rate), (seen,), epochs,
        batch_size=BATCH, seed=seed, validate=validate,
    )  # fmt: skip
    return (history["val_seen"], history["val_unseen"]), step


def compare(args: argparse.Namespace, seeds: int, epochs: int, words: int, texts: tuple) -> tuple:
    """{name: perplexities[seed, training or validation, epoch]}, and the last model and step."""
    curves = {}
    for name, rate in (("without dropout", 0.0), ("with dropout", RATE)):
        rows = []
        for seed in range(seeds):
            model = LanguageModel(seed, words, args.cell, args.variational)
            found, step = learn(model, seed, rate, epochs, texts)
            rows.append(found)
            best, last = min(found[1]), found[1][-1]
            print(f"  {name:15}  seed {seed}  validation {last:5.1f}, best {best:5.1f}", flush=True)
        curves[name] = np.array(rows)
    return curves, model, step


def write(model: LanguageModel, vocabulary: text.Vocabulary, prompts: tuple[str, ...]) -> None:
    """Print how the model goes on."""
    writer = model.writer(seed=0)
    for prompt in prompts:
        ids = vocabulary.encode(text.tokenize(prompt))
        more = writer(ids[None], 0.8)[0]
        print(f"\n{prompt.upper()} ...")
        print(textwrap.fill(vocabulary.decode([*ids, *more]), initial_indent="  ", width=90))


def plot_curves(axes: plt.Axes, curves: dict[str, np.ndarray]) -> None:
    """Perplexities over the epochs: mean and range over the seeds."""
    for (name, found), color in zip(curves.items(), (PLAIN, DROPOUT), strict=True):
        epochs = np.arange(1, found.shape[-1] + 1)
        for part, style, of in zip((0, 1), ("--", "-"), ("training", "validation"), strict=True):
            rows = found[:, part]
            axes.fill_between(epochs, rows.min(0), rows.max(0), color=color, alpha=0.15, lw=0)
            axes.plot(epochs, rows.mean(0), style, color=color, label=f"{of}, {name}")
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    ticks = [t for t in (10, 20, 30, 50, 70, 100, 150, 200) if axes.get_ylim()[0] < t]
    axes.set_yticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.set_title("Perplexity while training (mean and range over seeds)", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def plot_seeds(axes: plt.Axes, final: np.ndarray) -> None:
    """Final validation perplexities, one line for each seed."""
    for pair in final.T:
        axes.plot([0, 1], pair, color="#adb5bd", lw=1, zorder=1)
    for i, (found, color) in enumerate(zip(final, (PLAIN, DROPOUT), strict=True)):
        axes.scatter(np.full(len(found), i), found, color=color, zorder=2)
        side, align = (-0.12, "right") if i == 0 else (1.12, "left")
        words = f"{found.mean():.1f}\n± {found.std():.1f}"
        axes.text(side, found.mean(), words, color=color, ha=align, va="center")
    axes.set(xticks=[0, 1], xticklabels=["without dropout", "with dropout"], xlim=(-0.6, 1.6))
    axes.set_ylabel("validation perplexity")
    axes.set_title("After training, seed by seed", fontsize=11)


def plot(path: Path, curves: dict[str, np.ndarray]) -> None:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.8), width_ratios=(1.7, 1), layout="constrained"
    )
    plot_curves(left, curves)
    plot_seeds(right, np.stack([found[:, 1, -1] for found in curves.values()]))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=CELLS, default="rnn")
    parser.add_argument("--variational", action="store_true", help="one mask for all steps")
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute")
    parser.add_argument("--seeds", type=int, help="how many runs of each network")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the results go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds, epochs = args.seeds or (1 if args.quick else 3), 2 if args.quick else 10

    threadpool_limits(1)  # products this small take longer when threads have to meet
    start = perf_counter()
    old, new = text.split(0.15)
    vocabulary = text.Vocabulary.of(old, least=4)
    seen, unseen = (text.windows(vocabulary.encode(part), TIME) for part in (old, new))
    print(f"{len(old)} words to learn from, {len(new)} to validate on, {len(vocabulary)} known")
    curves, model, step = compare(args, seeds, epochs, len(vocabulary), (seen, unseen))
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

    mask = step.mask("state", call=step.call, rate=RATE)
    print(f"masks of the state in the last step: {mask.shape}, {100 * mask.mean():.1f} % kept")
    write(model, vocabulary, ("a function is", "the class"))

    picture = args.out / "rnn_dropout.png"
    plot(picture, curves)
    print(f"picture: {picture}   ({perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
