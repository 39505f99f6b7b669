"""A hidden unit forced to zero keeps its weights, to the bit.

A small network learns XOR while a mask holds its third hidden unit at zero.  A dropped unit's
incoming and outgoing weights receive a gradient of exactly zero, so after 100 epochs of Adam the
third column of the first weight matrix and the third row of the second have the bytes that they
started with, and all others have moved.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd
from graphdrop import optim

mpl.use("Agg")
import matplotlib.pyplot as plt

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
Y = np.array([[0], [1], [1], [0]], np.float32)
HIDDEN, DROPPED = 8, 2  # the third unit


def build(seed: int) -> tuple[gd.Function, gd.Function, gd.Shared, gd.Shared]:
    """The training step, the trained network, and its two weight matrices."""
    rng = np.random.default_rng(seed)
    x, y = gd.matrix("x", shape=("batch", 2)), gd.matrix("y", shape=("batch", 1))
    w1 = gd.shared(rng.normal(0, 1, (2, HIDDEN)).astype("f4"), "W1")
    b1 = gd.shared(np.zeros(HIDDEN, "f4"), "b1")
    w2 = gd.shared(rng.normal(0, 1, (HIDDEN, 1)).astype("f4"), "W2")
    b2 = gd.shared(np.zeros(1, "f4"), "b2")

    kept = np.arange(HIDDEN) != DROPPED
    h = gd.tanh(x @ w1 + b1)
    h = gd.dropout(h, rate=0.0, stream=gd.RandomStream(seed), mask=kept)  # rate 0: not scaled
    logits = h @ w2 + b2
    loss = (gd.softplus(logits) - y * logits).mean()  # binary cross entropy

    updates = optim.adam(loss, [w1, b1, w2, b2], lr=0.05)
    step = gd.function([x, y], loss, updates=updates, name="xor step")
    return step, gd.function([x], gd.sigmoid(logits)), w1, w2


def plot(path: Path, losses: list[float], changes: list[np.ndarray]) -> None:
    figure = plt.figure(figsize=(10.5, 3.8), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.25), height_ratios=(2, 1))
    curve = figure.add_subplot(grid[:, 0])
    curve.plot(losses, color="#4a7fc1", lw=2)
    curve.set(title="XOR loss", xlabel="epoch", ylabel="cross entropy", ylim=(0, None))
    curve.spines[["top", "right"]].set_visible(False)
    maps = [figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])]
    top = max(c.max() for c in changes)
    # the second matrix is shown transposed, so that hidden units stand below each other
    rows = [("W1", "input", changes[0]), ("W2, transposed", "output", changes[1].T)]
    for ax, (name, side, change) in zip(maps, rows, strict=True):
        image = ax.imshow(change, cmap="Blues", vmin=0, vmax=top)
        ax.set(title=f"|change| of {name}", ylabel=side)
        ax.set(xticks=range(change.shape[1]), yticks=range(change.shape[0]))
        for i, j in np.argwhere(change == 0):
            ax.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec="#c2255c", lw=2.5))
            ax.text(j, i, "0", ha="center", va="center", color="#c2255c", weight="bold")
    maps[1].set(xlabel="hidden unit (2, the third, is masked)")
    figure.colorbar(image, ax=maps, shrink=0.8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same; it takes a second anyway")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    step, predict, w1, w2 = build(seed=7)
    before = [w1.get_value(), w2.get_value()]
    losses = [float(step(X, Y)) for _ in range(100)]
    after = [w1.get_value(), w2.get_value()]

    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; predictions {predict(X).ravel().round(2)}")
    same = [a.view(np.uint32) == b.view(np.uint32) for a, b in zip(before, after, strict=True)]
    columns, rows = same[0].all(axis=0), same[1].all(axis=1)
    print("columns of W1 with all bits unchanged:", np.flatnonzero(columns))
    print("rows of W2 with all bits unchanged:   ", np.flatnonzero(rows))
    expected = np.arange(HIDDEN) == DROPPED
    if not ((columns == expected).all() and (rows == expected).all()):
        raise SystemExit("expected exactly those of the masked unit to be unchanged")

    path = args.out / "zero_out.png"
    plot(path, losses, [abs(a - b) for a, b in zip(after, before, strict=True)])
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
