"""Vanilla and inverted dropout in a network of three layers: what comes out at test time.

Vanilla ("classic") dropout trains with smaller outputs and shrinks every layer at test time to
match; forgetting to shrink makes the outputs here 1 / (1 - rate)**2 = 4 times too large.  Inverted
dropout scales while training, so its test-time network is the plain one.  In a linear network the
test-time output equals the mean over masks; with ReLU it is an approximation, since the mean of
relu(z) is not relu of the mean of z.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd

mpl.use("Agg")
import matplotlib.pyplot as plt

Activation = Callable[[gd.Node], gd.Node]
Weights = Sequence[np.ndarray]
RATE, SIZES = 0.5, (20, 256, 256, 1)


def network(mode: str, activation: Activation, weights: Weights, samples: int) -> gd.Function:
    """(x, training) -> output[samples]: one network's output under as many masks."""
    x, training = gd.vector("x", shape=SIZES[0]), gd.flag("training")
    # one seed and equal names: every network built here meets the same masks
    stream = gd.RandomStream(seed=3)
    w1, w2, w3 = (gd.shared(w, f"W{i}") for i, w in enumerate(weights, start=1))
    h = gd.broadcast_to(activation(x @ w1), (samples, SIZES[1]))
    h = gd.dropout(h, RATE, stream, training, mode=mode, name="first")
    h = activation(h @ w2)
    h = gd.dropout(h, RATE, stream, training, mode=mode, name="second")
    return gd.function([x, training], (h @ w3).reshape(-1), name=f"{mode} network")


def plot(path: Path, results: dict[tuple[str, str], tuple[np.ndarray, float]]) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 5.6), sharex="col", layout="constrained")
    for ax, ((kind, mode), (train, test)) in zip(axes.T.flat, results.items(), strict=True):
        ax.hist(train, bins=80, color="#d3dbe9", density=True, label="training, over masks")
        ax.axvline(train.mean(), color="#4a7fc1", lw=5, alpha=0.6, label="mean over masks")
        ax.axvline(test, color="#c2255c", lw=2, label="test time")
        if mode == "vanilla":
            ax.axvline(4 * test, color="#c2255c", lw=2, ls=":", label="test time, not shrunk")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set(yticks=[], title=f"{mode} dropout, {kind}")
    for ax in axes[:, 1]:
        ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    for ax in axes[1]:
        ax.set(xlabel="output of the network")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer masks")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    samples = 2_000 if args.quick else 20_000
    rng = np.random.default_rng(1)
    # weights with a positive mean, so that the output is well away from zero
    weights = [rng.normal(1.5 / n, 0.7 / n**0.5, (n, m)).astype("f4") for n, m in pairwise(SIZES)]
    x = rng.uniform(0, 1, SIZES[0]).astype("f4")

    results = {}
    print(f"output:                 mean over {samples:,} masks   test time")
    for kind, activation in (("linear", lambda z: z), ("ReLU", gd.relu)):
        for mode, name in (("classic", "vanilla"), ("inverted", "inverted")):
            outputs = network(mode, activation, weights, samples)
            train, test = outputs(x, True), float(outputs(x, False)[0])
            results[kind, name] = train, test
            error = train.std() / samples**0.5
            print(f"  {kind:6} {name:9} {train.mean():12.3f} ± {error:.3f} {test:15.3f}")
    # no biases, and 2 is a power of two: the scale is never rounded
    for kind in ("linear", "ReLU"):
        vanilla, inverted = results[kind, "vanilla"], results[kind, "inverted"]
        exact = np.array_equal(inverted[0], 4 * vanilla[0]) and inverted[1] == 4 * vanilla[1]
        print(f"{kind}: inverted outputs are 4 times the vanilla ones, to the bit: {exact}")

    path = args.out / "three_layer.png"
    plot(path, results)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
