"""What a network does not know: Monte-Carlo dropout as a band around a regression.

Gal and Ghahramani (2016): dropout left on while predicting gives many networks at once, and how far
they disagree says where there were no data.  `nn.mc_dropout` draws all of them in one call of one
compiled function; rate and flag are arguments, so the same function also gives the plain network.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd
from graphdrop import nn, optim, train

mpl.use("Agg")
import matplotlib.pyplot as plt

RATE, SAMPLES, NOISE = 0.1, 200, 0.1
BAND, LINE, POINTS = "#4a7fc1", "#1c3d6e", "#c2255c"


def truth(x: np.ndarray) -> np.ndarray:
    return np.sin(3 * x) + 0.5 * x


def observations(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """120 noisy points, none between -0.3 and 0.9."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-2.0, -0.3, 60), rng.uniform(0.9, 2.0, 60)])[:, None]
    return x.astype("f4"), (truth(x) + NOISE * rng.normal(size=x.shape)).astype("f4")


def build(seed: int) -> tuple[gd.Function, gd.Function]:
    """step(x, y) -> loss; predict(x, training, rate) -> mean and standard deviation."""
    rng, stream = np.random.default_rng(seed), gd.RandomStream(seed)
    training, rate = gd.flag("training"), gd.scalar("rate")
    layers = [nn.Dense(1, 128, rng), nn.Dense(128, 128, rng), nn.Dense(128, 1, rng)]
    x, y = gd.matrix("x", shape=("points", 1)), gd.matrix("y", shape=("points", 1))
    h = x
    for i, layer in enumerate(layers[:-1]):
        h = gd.dropout(gd.relu(layer(h)), rate, stream, training, name=f"layer {i + 1}")
    out = layers[-1](h)
    loss = nn.mse(out, y).mean()
    updates = optim.adamw(loss, nn.params(*layers), lr=0.005, weight_decay=1e-4)
    step = gd.function([x, y], loss, updates, givens={training: True, rate: RATE})
    mean, variance = nn.mc_dropout(out, samples=SAMPLES)
    return step, gd.function([x, training, rate], [mean, gd.sqrt(variance)])


def plot(path: Path, grid: np.ndarray, data: tuple, plain: np.ndarray, bands: dict) -> None:
    figure, panels = plt.subplots(
        1, len(bands), figsize=(12, 4.6), sharey=True, layout="constrained"
    )
    for axes, (rate, (mean, spread)) in zip(panels, bands.items(), strict=True):
        for width in (2, 1):
            low, high = mean - width * spread, mean + width * spread
            axes.fill_between(grid, low, high, color=BAND, alpha=0.22, lw=0)
        axes.plot(grid, mean, color=LINE, label=f"mean of {SAMPLES} masks, ± 1 and 2 deviations")
        axes.plot(grid, plain, "--", color=LINE, lw=1, label="without dropout")
        axes.plot(grid, truth(grid), color="#868e96", lw=1, label="truth")
        axes.scatter(*data, s=9, color=POINTS, zorder=3, label="data")
        axes.set(xlabel="x", xlim=(grid[0], grid[-1]), ylim=(-4, 4))
        axes.set_title(f"predicting with rate {rate}", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("y")
    panels[0].legend(frameon=False, fontsize=9, loc="upper left")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    step, predict = build(args.seed)
    data = observations(args.seed)
    train.fit(step, data, 60 if args.quick else 1000, batch_size=60, seed=args.seed)

    grid = np.linspace(-3, 3, 241, dtype="f4")
    plain, still = predict(grid[:, None], False, 0.0)
    print(f"flag off: the largest deviation between samples is {still.max():.1f}")
    bands = {}
    for rate in (RATE, 3 * RATE):
        mean, spread = (a[:, 0] for a in predict(grid[:, None], True, rate))
        bands[round(rate, 2)] = mean, spread
        seen = (abs(grid + 1.15) < 0.85) | (abs(grid - 1.45) < 0.55)
        print(
            f"rate {rate:.1f}: standard deviation {spread[seen].mean():.3f} among the data, "
            f"{spread[(grid > -0.2) & (grid < 0.8)].mean():.3f} in the gap, "
            f"{spread[abs(grid) > 2.3].mean():.3f} beyond"
        )
    picture = args.out / "mc_dropout.png"
    plot(picture, grid, data, plain[:, 0], bands)
    print(f"picture: {picture}")


if __name__ == "__main__":
    main()
