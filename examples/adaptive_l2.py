"""Dropout in a linear unit is an adaptive L2 penalty (Baldi and Sadowski 2013).

For S = sum_i w_i x_i d_i with masks d_i that are 1 with probability p, and the squared error
L_D = (t - S)**2 / 2, the expectation over the masks is

    E[L_D]      = L_E      + p (1 - p) / 2 * sum_i (w_i x_i)**2
    E[dL_D/dw]  = dL_E/dw  + p (1 - p) * w_i x_i**2

where L_E is the error of the ensemble average p * sum_i w_i x_i.  Checked exactly, over all 2**n
masks, and by sampling; the gradients are graphdrop's own, through its dropout.
"""

import argparse
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np

import graphdrop as gd

mpl.use("Agg")
import matplotlib.pyplot as plt

UNITS, TARGET = 10, 1.5
RATES = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # multiples of 1 / 65536: exact


def expectation(x: np.ndarray, w: gd.Shared, rate: float, draws: int | None) -> list[np.ndarray]:
    """E[L_D] and its gradient by w: over all masks, or over `draws` sampled ones."""
    if draws is None:
        masks = np.array(list(product([False, True], repeat=UNITS)))
        chance = np.where(masks, 1 - rate, rate).prod(axis=1)
        rows = gd.broadcast_to(gd.constant(x), masks.shape)
    else:
        masks, chance = None, np.full(draws, 1 / draws)
        rows = gd.broadcast_to(gd.constant(x), (draws, UNITS))
    stream = gd.RandomStream(seed=2013)
    dropped = gd.dropout(rows, rate, stream, mode="classic", mask=masks)  # classic: not scaled
    loss = (0.5 * gd.square(TARGET - dropped @ w) * chance).sum()
    return gd.function([], [loss, gd.grad(loss, w)])()


def theory(x: np.ndarray, w: np.ndarray, rate: float) -> list[np.ndarray]:
    """The right-hand sides above."""
    p = 1 - rate
    error = TARGET - p * (w @ x)
    loss = error**2 / 2 + p * (1 - p) / 2 * ((w * x) ** 2).sum()
    return [loss, -error * p * x + p * (1 - p) * w * x**2]


def plot(path: Path, x: np.ndarray, w: np.ndarray, results: dict[str, list]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    fine = np.linspace(0, 1, 201)
    total = [theory(x, w, r)[0] for r in fine]
    ensemble = [(TARGET - (1 - r) * (w @ x)) ** 2 / 2 for r in fine]
    left.plot(fine, total, color="#8391ab", lw=2, label="$L_E$ + adaptive L2 penalty")
    left.plot(fine, ensemble, color="#8391ab", ls=":", lw=1.5, label="$L_E$, the ensemble alone")
    left.fill_between(fine, ensemble, total, color="#8391ab", alpha=0.15, lw=0)
    marks = {"all masks": {"marker": "o", "ms": 9, "mfc": "none"}, "sampled": {"marker": "x"}}
    for (name, found), color in zip(results.items(), ("#4a7fc1", "#c2255c"), strict=True):
        style = {"ls": "", "mew": 1.8, "color": color, "label": name, **marks[name]}
        left.plot(RATES, [loss for loss, _ in found], **style)
        for rate, (_, gradient) in zip(RATES, found, strict=True):
            right.plot(theory(x, w, rate)[1], gradient, **style)
            style.pop("label", None)
    left.set(xlabel="rate 1 - p", ylabel="expected loss $E[L_D]$", title="The loss")
    right.set(xlabel="theory", ylabel="through graphdrop", title="The gradient, all weights, rates")
    span = right.get_xlim()
    right.plot(span, span, color="#8391ab", lw=1, zorder=0)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the picture goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    draws = 4_000 if args.quick else 200_000
    rng = np.random.default_rng(5)
    x, start = rng.normal(size=UNITS), rng.normal(size=UNITS)
    w = gd.shared(start, "w")
    results = {
        "all masks": [expectation(x, w, rate, None) for rate in RATES],
        "sampled": [expectation(x, w, rate, draws) for rate in RATES],
    }
    print(f"largest relative error over {len(RATES)} rates, against Baldi and Sadowski's formula:")
    for name, found in results.items():
        right = [theory(x, start, rate) for rate in RATES]
        loss = max(abs(f[0] - r[0]) / abs(r[0]) for f, r in zip(found, right, strict=True))
        slope = max(
            abs(f[1] - r[1]).max() / abs(r[1]).max() for f, r in zip(found, right, strict=True)
        )
        count = f"{2**UNITS:,}" if name == "all masks" else f"{draws:,}"
        print(f"  {name:9} ({count:>7}): loss {loss:.1e}, gradient {slope:.1e}")
    path = args.out / "adaptive_l2.png"
    plot(path, x, start, results)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
