"""Two overlapping clouds of points: a large network learns them by heart, with dropout it does not.

200 points in two Gaussian blobs, half to train on and half to validate; 4 hidden layers of 64,
Adam, rate 0.5.  The blobs overlap, so that the best possible boundary, a straight line, gets about
15 % wrong.  Without dropout the training loss goes to zero, while the validation loss grows and
the boundary winds around single points.
"""

import argparse
from math import erf
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd
from graphdrop import nn, optim, train

mpl.use("Agg")
import matplotlib.pyplot as plt

CENTRES, STD = np.array([[0.0, 0.0], [0.5, 0.1]]), 0.25
LAYERS, WIDTH = 4, 64
X_RANGE, Y_RANGE = (-0.8, 1.3), (-0.85, 0.95)


def blobs(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` points[count, 2], half of each class, and their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    x = CENTRES[y] + rng.normal(0, STD, (count, 2))
    return x.astype("f4"), y.astype("i4")


def network(seed: int, rate: float) -> tuple[gd.Function, gd.Function, gd.Function]:
    """step(x, y) -> loss; check(x, y) -> {loss, error}; predict(x) -> probability of class 1."""
    rng, stream = np.random.default_rng(seed), gd.RandomStream(seed)
    x, y = gd.matrix("x", shape=("batch", 2)), gd.ivector("y", shape=("batch",))
    training = gd.flag("training")
    layers, h, size = [], x, 2
    for i in range(1, LAYERS + 1):
        layers.append(nn.Dense(size, WIDTH, rng, init=nn.he_normal, name=f"layer{i}"))
        h = gd.dropout(gd.relu(layers[-1](h)), rate, stream, training, name=f"hidden{i}")
        size = WIDTH
    layers.append(nn.Dense(size, 2, rng, name="out"))
    logits = layers[-1](h)
    loss = nn.softmax_cross_entropy(logits, y).mean()
    error = 100 * (1 - nn.accuracy(logits, y).mean())
    updates = optim.adam(loss, nn.params(layers), lr=0.01)
    step = gd.function([x, y], loss, updates, givens={training: True})
    check = gd.function([x, y], {"loss": loss, "error": error}, givens={training: False})
    predict = gd.function([x], gd.softmax(logits, axis=-1)[:, 1], givens={training: False})
    return step, check, predict


def grid(steps: int) -> np.ndarray:
    """Points[steps * steps, 2] that cover the picture."""
    x, y = np.meshgrid(np.linspace(*X_RANGE, steps), np.linspace(*Y_RANGE, steps))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype("f4")


def train_once(rate: float, seed: int, epochs: int, count: int) -> dict[str, np.ndarray]:
    """Losses and validation errors[epoch] without dropout, and probabilities on the grid.

    The points are always the same; the seed is that of the initial weights and the masks.
    """
    x, y = blobs(0, count)
    half = count // 2
    step, check, predict = network(seed, rate)

    def validate() -> dict[str, float]:
        seen, unseen = check(x[:half], y[:half]), check(x[half:], y[half:])
        return {"loss": unseen["loss"], "error": unseen["error"], "seen": seen["loss"]}

    history = train.fit(
        step, (x[:half], y[:half]), epochs, batch_size=half, seed=seed, validate=validate
    )
    return {
        "training": np.array(history["val_seen"]),
        "validation": np.array(history["val_loss"]),
        "error": np.array(history["val_error"]),
        "grid": predict(grid(120)),
    }


def run(rate: float, seeds: int, epochs: int, count: int) -> dict[str, np.ndarray]:
    """The results of `train_once`, stacked over the seeds."""
    runs = [train_once(rate, seed, epochs, count) for seed in range(seeds)]
    return {name: np.stack([r[name] for r in runs]) for name in runs[0]}


def best_error() -> float:
    """The error in percent of the best possible boundary, half-way between the centres."""
    distance = np.linalg.norm(CENTRES[1] - CENTRES[0]) / 2 / STD
    return 50 * (1 - erf(distance / 2**0.5))


def plot_losses(axes: plt.Axes, result: dict[str, np.ndarray], top: float) -> None:
    for name, color in (("training", "#4a7fc1"), ("validation", "#c2255c")):
        curves = result[name]
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0)
        axes.plot(epochs, curves.mean(0), color=color, label=name)
        last = curves[:, -1].mean()
        if last > top:
            text = f"{last:.1f} at the end"
            axes.text(0.98, 0.92, text, color=color, ha="right", transform=axes.transAxes)
    axes.set(ylim=(0, top), xlim=(0, curves.shape[1]), ylabel="cross entropy")
    axes.spines[["top", "right"]].set_visible(False)


def plot_regions(axes: plt.Axes, values: np.ndarray, count: int) -> object:
    """The mean probability of class 1 over the seeds, the points, and the best boundary."""
    steps = round(len(values) ** 0.5)
    xs, ys = np.linspace(*X_RANGE, steps), np.linspace(*Y_RANGE, steps)
    shaded = axes.contourf(
        xs, ys, values.reshape(steps, steps), levels=np.linspace(0, 1, 21), cmap="RdBu", alpha=0.6
    )
    axes.contour(xs, ys, values.reshape(steps, steps), levels=[0.5], colors="black", linewidths=1.5)
    x, y = blobs(0, count)
    for k, color in enumerate(("#c2255c", "#1864ab")):
        for part, marker, label in (
            (slice(None, count // 2), "o", "training"),
            (slice(count // 2, None), "x", "validation"),
        ):
            p = x[part][y[part] == k]
            edge = {"edgecolors": "white", "linewidths": 0.5} if marker == "o" else {"lw": 1}
            axes.scatter(*p.T, s=22, c=color, marker=marker, label=f"class {k}, {label}", **edge)
    # half-way between the centres and at a right angle to the line through them
    middle, (dx, dy) = CENTRES.mean(0), CENTRES[1] - CENTRES[0]
    axes.axline(middle, slope=-dx / dy, color="black", ls=":", lw=1.5, label="best possible")
    axes.set(xlim=X_RANGE, ylim=Y_RANGE, xticks=[], yticks=[], aspect="equal")
    return shaded


def plot(path: Path, results: dict[str, dict[str, np.ndarray]], count: int) -> None:
    figure, axes = plt.subplots(
        2, 2, figsize=(11, 8.4), layout="constrained", height_ratios=(1, 1.5)
    )
    top = 1.1 * min(2.5, max(r["validation"].mean(0).max() for r in results.values()))
    for (upper, lower), (name, result) in zip(axes.T, results.items(), strict=True):
        plot_losses(upper, result, top)
        error = result["error"][:, -1].mean()
        upper.set(title=f"{name}: {error:.1f} % of validation points wrong", xlabel="epoch")
        shaded = plot_regions(lower, result["grid"].mean(0), count)
    axes[0, 0].legend(frameon=False, loc="center right")
    figure.colorbar(shaded, ax=axes[1], ticks=[0, 0.5, 1], label="probability of class 1")
    handles, labels = lower.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs and seeds")
    parser.add_argument("--seeds", type=int, help="how many runs of each network")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = args.seeds or (2 if args.quick else 5)
    epochs, count = (60 if args.quick else 300), 200

    results = {}
    print(f"{count} points, {epochs} epochs, mean over {seeds} seeds, at the end:")
    for name, rate in (("without dropout", 0.0), ("with dropout", 0.5)):
        result = results[name] = run(rate, seeds, epochs, count)
        last = {k: v[:, -1].mean() for k, v in result.items()}
        print(
            f"  {name:15}  training loss {last['training']:.3f}   validation loss "
            f"{last['validation']:.3f}   validation error {last['error']:.1f} %"
        )
    print(f"  the best possible boundary is wrong in {best_error():.1f} % of all cases")
    path = args.out / "blobs.png"
    plot(path, results, count)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
