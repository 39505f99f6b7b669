"""What dropout does to one hidden vector, and what the two modes do to its expectation.

At rate 0.5 each element is dropped or doubled ("inverted"), so that the expectation is the vector
itself and nothing is left to do at test time.  "classic" dropout (Srivastava et al. 2014) does not
scale while training, and multiplies by 1 - rate at test time instead.  In both modes the mean over
masks is what the test-time network computes.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd

mpl.use("Agg")
import matplotlib.pyplot as plt

RATE, UNITS = 0.5, 12


def sampled(mode: str, hidden: np.ndarray, samples: int) -> tuple[np.ndarray, ...]:
    """One training output, the mean over masks with its standard error, the test output."""
    h, training = gd.vector("h", shape=UNITS), gd.flag("training")
    rows = gd.broadcast_to(h, (samples, UNITS))
    stream = gd.RandomStream(seed=2014)
    y = gd.dropout(rows, RATE, stream, training, mode=mode, name="hidden")
    outputs = gd.function([h, training], y)
    train, test = outputs(hidden, True), outputs(hidden, False)[0]
    return train[0], train.mean(0), train.std(0) / samples**0.5, test


def plot(path: Path, hidden: np.ndarray, results: dict[str, tuple[np.ndarray, ...]]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    units, wide = np.arange(UNITS), {"width": 0.42}
    once = results["inverted"][0]
    axes[0].bar(units - 0.21, hidden, color="#b9c4d8", label="before", **wide)
    axes[0].bar(units + 0.21, once, color="#c2255c", label="after", **wide)
    for unit in np.flatnonzero(once == 0):
        axes[0].text(unit + 0.21, 0.03, "0", ha="center", color="#c2255c", weight="bold")
    axes[0].set(title="inverted dropout, one mask:\nkept elements doubled (0: dropped)")
    for ax, (mode, (_, mean, error, test)) in zip(axes[1:], results.items(), strict=True):
        ax.bar(units, test, color="#b9c4d8", label="test-time output")
        ax.errorbar(
            units, mean, 3 * error, fmt="o", ms=4, color="#c2255c", label="mean over masks ± 3 s.e."
        )
        ax.set(title=f"{mode}: training expectation\nand test-time output")
    for ax in axes:
        ax.set(xlabel="hidden unit", xticks=units)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper left", fontsize=8.5)
    axes[0].set(ylabel="activation", ylim=(0, 1.35 * max(once.max(), hidden.max())))
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer masks")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    samples = 2_000 if args.quick else 50_000
    hidden = np.random.default_rng(0).uniform(0.2, 1.5, UNITS).astype(np.float32)
    results = {mode: sampled(mode, hidden, samples) for mode in ("inverted", "classic")}

    once = results["inverted"][0]
    print("before ", hidden.round(2))
    print("after  ", once.round(2))
    kept = once != 0
    print(
        f"{kept.sum()} of {UNITS} kept, exactly doubled: {(once[kept] == 2 * hidden[kept]).all()}"
    )
    for mode, (_, mean, error, test) in results.items():
        off = abs(mean - test) / error
        print(
            f"{mode:8}: mean over {samples:,} masks and test-time output differ by at most "
            f"{abs(mean - test).max():.4f} ({off.max():.1f} standard errors)"
        )
    path = args.out / "scale_up.png"
    plot(path, hidden, results)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
