"""Numbers with their uncertainty, and what may be said of them.

Intervals and paired differences; rankings, gains and the effect of knobs in words; how far numbers lie apart.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

Interval = tuple[float, float, float]
Series = Mapping[str, Mapping[object, Interval]]  # label -> {x or group: (value, low, high)}
Row = Mapping[str, object]
Differences = Mapping[tuple[str, str], tuple[Interval, Sequence[float]]]  # of pairs: interval, that of each training


def verdict(label: str, difference: Interval, digits: int = 1) -> str:
    """A paired difference in words: `"K=5 - K=1: +6.2 (3.6 to 8.7), higher"`, or "no clear difference" around 0."""
    value, low, high = difference
    word = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
    return f"{label}: {value:+.{digits}f} ({low:.{digits}f} to {high:.{digits}f}), {word}"


def percent(values: Interval) -> Interval:
    """Value, low and high as percent."""
    return tuple(100 * float(v) for v in values)


def mean_interval(values: Tensor | np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """Mean of (E,) numbers, one per episode, and its 95 % bootstrap interval.
    Pass the differences of two measurements on the same episodes for a paired comparison."""
    values = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def apart(score: Interval, other: Interval) -> Interval:
    """Difference of two independent scores (value, low, high).
    The halves of the intervals add in squares (Zou, Donner, Statistics in Medicine 2008)."""
    (a, a_low, a_high), (b, b_low, b_high) = score, other
    return a - b, a - b - float(np.hypot(a - a_low, b_high - b)), a - b + float(np.hypot(a_high - a, b - b_low))


def over_folds(values: Sequence[Interval]) -> Interval:
    """Mean of independent scores or differences (value, low, high)."""
    table = np.array(values, float)
    value = float(table[:, 0].mean())
    low, high = (float(np.linalg.norm(table[:, 0] - table[:, i])) / len(table) for i in (1, 2))
    return value, value - low, value + high


# What each knob does, as the label of its axis.
KNOBS = {
    "gap": "support/query gap", "parts": "parts of an object", "area": "size of the objects (radius)",
    "co_occurrence": "base classes in the background",
}  # fmt: skip


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean of one number per training and its 95 % interval over trainings (Student's t); endless for a single one."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), -np.inf, np.inf
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def clear(difference: Interval, seeds: Sequence[float]) -> bool:
    """Whether a paired difference leaves out 0 and every training agrees on its sign.

    This is a modest demand: where two methods are equal, three trainings agree by chance one time in four (2 · ½³).
    `over_seeds` says how far the mean of the trainings may be off.
    """
    _, low, high = difference
    return (low > 0 or high < 0) and (min(seeds) > 0 or max(seeds) < 0)


def ranking(scores: Mapping[str, float], differences: Differences) -> str:
    """The methods from best to worst: `>` where the difference of neighbours is clear, `≈` where it is not.

    Args: scores: method -> mIoU. differences: (method, other) -> paired difference and that of every training.
    """
    order = sorted(scores, key=lambda name: -scores[name])
    words = [f"{order[0]} {scores[order[0]]:.1f}"]
    for better, worse in pairwise(order):
        words += [">" if clear(*differences[better, worse]) else "≈", f"{worse} {scores[worse]:.1f}"]
    return " ".join(words)


def knob_verdicts(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    """For every knob in words: what it costs each method, and whether the lead over PANet survives.

    The standard difficulty is the first value of a knob, the hardest the last. A lead "grows" or "shrinks" only when
    its two paired intervals are apart. Rows need `gain over panet` beside what `knobs` takes.
    """
    lines = []
    for knob in dict.fromkeys(row["knob"] for row in rows):
        turned = {m: [row for row in rows if (row["knob"], row["method"]) == (knob, m)] for m in names}
        ends = {method: (entry[0], entry[-1]) for method, entry in turned.items()}
        first, last = (row["value"] for row in next(iter(ends.values())))
        losses = [
            f"{names[m]} {hard['miou'][0] - easy['miou'][0]:+.1f}" + " (overlap)" * _overlap(easy["miou"], hard["miou"])
            for m, (easy, hard) in ends.items()
        ]
        lines.append(f"{KNOBS.get(knob, knob)}, {first:g} to {last:g}: {', '.join(losses)}")
        for method, (easy, hard) in ends.items():
            if method != "panet":
                before, after = easy["gain over panet"], hard["gain over panet"]
                lines.append(f"  {names[method]} - {names['panet']}: {_change(before, after)}")
    return lines


def _overlap(one: Interval, other: Interval) -> bool:
    return one[1] <= other[2] and other[1] <= one[2]


def _change(before: Interval, after: Interval) -> str:
    numbers = f"{before[0]:+.1f} becomes {after[0]:+.1f} ({after[1]:.1f} to {after[2]:.1f})"
    if _overlap(before, after):
        return f"{numbers}, no clear change"
    if (before[1] > 0 and after[2] < 0) or (before[2] < 0 and after[1] > 0):
        return f"{numbers}, turns round"
    return f"{numbers}, {'rises' if after[0] > before[0] else 'falls'}"


def contrasts(ious: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Which episodes to look at: method -> {"wins": largest lead over the best other, "fails": largest gap to it}.

    Args:
        ious: method -> (E,) IoU of every episode by itself. An episode is taken once at most, in the order of methods.
    """
    taken, picks = [], {name: {} for name in ious}
    for kind, sign in (("wins", -1), ("fails", 1)):
        for name, scores in ious.items():
            lead = scores - np.max([other for label, other in ious.items() if label != name], 0)
            order = np.argsort(sign * lead, kind="stable").tolist()
            picks[name][kind] = next(i for i in order if i not in taken)
            taken.append(picks[name][kind])
    return picks


def gain_verdict(label: str, gain: Interval, seeds: Sequence[float]) -> str:
    """A paired gain in words, in points. It counts only if its interval leaves out 0 *and* every training agrees.

    Args: gain: (value, low, high), mean over the trainings; the interval is over episodes. seeds: the gain of each one.
    """
    value, low, high = gain
    if low <= 0 <= high:
        word = "not distinguishable"
    elif min(seeds) <= 0 <= max(seeds):
        word = "the trainings disagree"
    else:
        word = "better" if value > 0 else "worse"
    each = ", ".join(f"{s:+.1f}" for s in seeds)
    return f"{label}: {value:+.1f} ({low:.1f} to {high:.1f}; trainings {each}), {word}"


def spread(points: np.ndarray | Tensor) -> float:
    """Mean distance between (P, 2) points, in their unit; 0 for one point."""
    points = np.asarray(points, float)
    if len(points) < 2:
        return 0.0
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    return float(distance.sum() / (len(points) * (len(points) - 1)))


def scatter(values: Tensor | np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """How far the rows of (E, C) numbers lie apart, and how far the means of their groups; both means over the columns.

    Args: groups: E names, one a row. Returns: standard deviation over all rows, and range of the groups' means.
    """
    values, groups = np.asarray(values, float), np.asarray(groups)
    means = [values[groups == group].mean(0) for group in np.unique(groups)]
    return float(values.std(0).mean()), float(np.ptp(means, 0).mean())


def entropy(shares: Tensor | np.ndarray) -> float:
    """Entropy of (C,) shares that add up to one, in nats."""
    shares = np.asarray(shares, float)
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())
