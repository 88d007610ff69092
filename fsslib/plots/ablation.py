"""Figures and words about an ablation: what a part adds, how sure that is, and what each loss weighs.

Each drawing function returns `(figure, alt text, data)` for `display.show`, like those of `common`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..training import History
from .common import LINES, Drawing


def ablation(rows: Sequence[Mapping], lines: Mapping[str, float] | None = None) -> Drawing:
    """mIoU of every variant with its 95 % interval, one panel for each number of shots; each training a small dot.

    Args:
        rows: dictionaries with `shots`, `model`, `miou` (value, low, high) and `per_seed`, all in percent.
        lines: further scores that have no variant, drawn as vertical lines.
    """
    shots = list(dict.fromkeys(row["shots"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    height = 0.9 + 0.36 * len(names)
    figure, axes = plt.subplots(
        1, len(shots), figsize=(4.6 * len(shots), height), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    said = []
    for axis, shot in zip(axes[0], shots):
        own = {row["model"]: row for row in rows if row["shots"] == shot}
        for label, value in (lines or {}).items():
            axis.axvline(value, color="#555555", linestyle=":", linewidth=1.2)
            axis.text(value, -0.75, label, fontsize=8, ha="center", va="bottom")
        for i, row in enumerate(own.values()):
            value, low, high = row["miou"]
            error = [[value - low], [high - value]]
            axis.errorbar(value, i + 0.12, xerr=error, fmt="o", color=LINES[0], capsize=3, markersize=6)
            axis.plot(row["per_seed"], [i - 0.22] * len(row["per_seed"]), "o", color=LINES[1], markersize=3)
            said.append(f"{row['model']} {value:.1f} ({low:.1f} to {high:.1f}) at K={shot}")
        axis.set_yticks(range(len(own)), list(own), fontsize=9)
        axis.set_title(f"{shot} shot{'s' * (shot > 1)}", fontsize=10, pad=14 if lines else 6)
        axis.set(xlabel="mIoU, %", ylim=(len(own) - 0.4, -0.7))
        axis.grid(axis="x", alpha=0.3)
    drawn = "".join(f" Line: {label}, {value:.1f}." for label, value in (lines or {}).items())
    alt = f"Points with 95 % intervals over episodes, a small dot for each training: {'; '.join(said)}.{drawn}"
    data = pd.DataFrame({f"K={k}": {r["model"]: r["miou"][0] for r in rows if r["shots"] == k} for k in shots})
    return figure, alt, data.loc[names].round(1)


def shares(history: History, weights: Mapping[str, float], window: int = 25) -> Drawing:
    """Every loss times its weight over a training, on a logarithmic scale, smoothed.

    Args: weights: loss -> weight in the total; other columns of the history are left out.
    """
    figure, axis = plt.subplots(figsize=(6.2, 2.8), layout="constrained")
    table = {}
    for i, (name, weight) in enumerate(weights.items()):
        values = weight * np.array(history.smooth(name, window))
        label = name if weight == 1 else f"{weight:g} × {name}"
        axis.plot(values, ("-", "--", "-.", ":")[i % 4], color=LINES[i % 4], label=label, linewidth=1.8)
        table[label] = {"first": values[0], "last": values[-1]}
    axis.set(yscale="log", xlabel="step", ylabel=f"weighted loss\n(mean of {window} steps)")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    said = "; ".join(f"{label} from {v['first']:.2g} to {v['last']:.2g}" for label, v in table.items())
    return figure, f"Weighted losses over the training, logarithmic: {said}.", pd.DataFrame(table).T.round(4)
