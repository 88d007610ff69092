"""Figures about an ablation: what a part adds, how sure that is, and what each loss weighs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..training import History
from .common import LINES, Drawing, beside, curves, forest, panels, theme


@theme()
def ablation(rows: Sequence[Mapping], lines: Mapping[str, float] | None = None) -> Drawing:
    """mIoU of every variant with its 95 % interval, one panel for each number of shots; each training a small dot.

    Args:
        rows: dictionaries with `shots`, `model`, `miou` (value, low, high) and `per_seed`, all in percent.
        lines: further scores that have no variant, drawn as vertical lines.
    """
    lines, shots = lines or {}, list(dict.fromkeys(row["shots"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(len(shots), 4.6, 0.9 + 0.36 * len(names), sharex=True, sharey=True)
    words = []
    for axis, shot in zip(axes, shots):
        variants = {row["model"]: row for row in rows if row["shots"] == shot}
        forest(axis, {"": {name: row["miou"] for name, row in variants.items()}})
        for i, row in enumerate(variants.values()):
            value, low, high = row["miou"]
            axis.plot(row["per_seed"], [i - 0.3] * len(row["per_seed"]), "o", color=LINES[1], markersize=3)
            words.append(f"{row['model']} {value:.1f} ({low:.1f} to {high:.1f}) at K={shot}")
        for label, value in lines.items():
            axis.axvline(value, color="#555555", linestyle=":", linewidth=1.2)
            axis.text(value, -0.65, label, fontsize=8, ha="center", va="bottom")
        axis.set_title(f"{shot} shot{'s' * (shot > 1)}", pad=14 if lines else 6)
        axis.set(xlabel="mIoU, %", ylim=(len(variants) - 0.5, -0.6))
    drawn = "".join(f" Line: {label}, {value:.1f}." for label, value in lines.items())
    alt = f"Points with 95 % intervals over episodes, a small dot for each training: {'; '.join(words)}.{drawn}"
    data = pd.DataFrame({f"K={k}": {r["model"]: r["miou"][0] for r in rows if r["shots"] == k} for k in shots})
    return figure, alt, data.loc[names].round(1)


@theme()
def weighted_losses(history: History, weights: Mapping[str, float], window: int = 25) -> Drawing:
    """Every loss times its weight over a training, on a logarithmic scale, smoothed.

    Args: weights: loss -> weight in the total; other columns of the history are left out.
    """
    figure, axis = plt.subplots(figsize=(6.2, 2.8))
    labels = {name: name if weight == 1 else f"{weight:g} × {name}" for name, weight in weights.items()}
    losses = pd.DataFrame({labels[name]: w * np.array(history.smooth(name, window)) for name, w in weights.items()})
    curves(axis, losses)
    axis.set(yscale="log", xlabel="step", ylabel=f"weighted loss\n(mean of {window} steps)")
    beside(axis)
    table = losses.iloc[[0, -1]].set_axis(["first", "last"]).T
    words = "; ".join(f"{label} from {first:.2g} to {last:.2g}" for label, first, last in table.itertuples())
    return figure, f"Weighted losses over the training, logarithmic: {words}.", table.round(4)
