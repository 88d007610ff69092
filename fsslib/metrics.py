"""Few-shot IoU: intersections and unions summed per class over all episodes, with intervals from resampled episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .episode import IGNORE
from .errors import ProtocolError


class FewShotIoU:
    """Collects one small confusion matrix per episode, counted on the device of the predictions.

    Args:
        counting: `"all"` counts every pixel; `"present"` drops the counts of channels that the label does not hold
            (the habit of PANet's evaluation, so that false positives on absent classes are free).
    """

    def __init__(self, counting: str = "all"):
        if counting not in ("all", "present"):
            raise ProtocolError(f"counting={counting!r}: expected 'all' or 'present'.")
        self.counting = counting
        self._confusion: list[Tensor] = []
        self._classes: list[Tensor] = []
        self._runs: list[int] = []

    def update(self, predicted: Tensor, target: Tensor, classes: Tensor, run: int = 0) -> None:
        """Add a batch: predicted and target (B, H, W) long with values 0..N (target also 255); classes (B, N) long.

        Raises ProtocolError for shapes that do not belong together.
        """
        if predicted.shape != target.shape or len(classes) != len(target):
            found = f"{tuple(predicted.shape)}, {tuple(target.shape)} and classes {tuple(classes.shape)}"
            raise ProtocolError(f"update(): predictions and labels are {found}; expected (B, H, W) twice and (B, N).")
        ways = classes.shape[1] + 1
        top = int(predicted.max())
        if top >= ways:
            raise ProtocolError(f"update(): found channel {top} in the prediction, expected 0 to {ways - 1}.")
        batch = torch.arange(len(target), device=target.device).view(-1, 1, 1)
        cell = ((batch * ways + target) * ways + predicted)[target != IGNORE]
        counts = torch.bincount(cell, minlength=len(target) * ways * ways)
        self._confusion.append(counts.view(-1, ways, ways))
        self._classes.append(classes)
        self._runs += [run] * len(target)

    def compute(self) -> Scores:
        """All counts so far as Scores. Raises ProtocolError when nothing was added."""
        if not self._confusion:
            raise ProtocolError("no episode was scored: update() was never called.")
        confusion = torch.cat(self._confusion).cpu().numpy()
        diagonal = np.einsum("eww->ew", confusion)
        table = np.stack([diagonal, confusion.sum(1) - diagonal, confusion.sum(2) - diagonal], -1)
        if self.counting == "present":
            table = table * (confusion.sum(2) > 0)[..., None]
        return Scores(table, torch.cat(self._classes).cpu().numpy(), np.array(self._runs))


@dataclass(frozen=True)
class Scores:
    """Counts of an evaluation and the scores that follow from them (fractions in 0..1; multiply by 100 to print).

    Attributes:
        table: (E, 1 + N, 3) integers: true positive, false positive and false negative pixels per episode and channel.
        classes: (E, N) class ids. runs: (E,) index of the episode list.
    """

    table: np.ndarray
    classes: np.ndarray
    runs: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cache", {})

    @property
    def miou(self) -> float:
        """Mean over the episode lists of the mean over classes of summed intersection / summed union."""
        return float(self._miou(self._unit())[0])

    @property
    def fb_iou(self) -> float:
        """Mean IoU of background and foreground, all classes taken together."""
        return float(self._fb_iou(self._unit())[0])

    @property
    def per_class(self) -> dict[int, float]:
        """Class id -> IoU, averaged over the episode lists that hold the class."""
        ious = _mean([self._class_iou(run, unit)[0] for run, unit in enumerate(self._unit())])
        return dict(zip(self._ids().tolist(), ious.tolist()))

    @property
    def run_mious(self) -> list[float]:
        """mIoU of each episode list by itself."""
        return [float(_mean(self._class_iou(run, unit)[0])) for run, unit in enumerate(self._unit())]

    def episode_iou(self) -> np.ndarray:
        """(E,) foreground IoU of each episode by itself (for picking examples, not for reporting)."""
        tp, fp, fn = self.table[:, 1:].sum(1).T
        return tp / np.maximum(tp + fp + fn, 1)

    def interval(self, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of `miou`: episodes are resampled within their list."""
        return _quantiles(self._miou(self._weights(draws, seed)))

    def class_intervals(self, draws: int = 1000, seed: int = 0) -> dict[int, tuple[float, float]]:
        """95 % bootstrap interval of each class's IoU."""
        weights = self._weights(draws, seed)
        ious = _mean([self._class_iou(run, weight) for run, weight in enumerate(weights)])
        return {int(c): _quantiles(ious[:, i]) for i, c in enumerate(self._ids())}

    def difference(self, other: Scores, draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """`self.miou - other.miou` and its 95 % interval, paired on the same episodes.

        Raises ProtocolError when the two evaluations did not score the same classes in the same order; whether they
        used the same episode lists, their protocols' `list_hash` tells.
        """
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.runs, other.runs)):
            raise ProtocolError("paired differences need the same episodes: evaluate both on one list.")
        weights = self._weights(draws, seed)
        low, high = _quantiles(self._miou(weights) - other._miou(weights))
        return self.miou - other.miou, low, high

    def _ids(self) -> np.ndarray:
        return np.unique(self.classes)

    def _parts(self) -> list[tuple[int, np.ndarray]]:
        return [(run, np.flatnonzero(self.runs == name)) for run, name in enumerate(np.unique(self.runs))]

    def _unit(self) -> list[np.ndarray]:
        return [np.ones((1, len(part))) for _, part in self._parts()]

    def _weights(self, draws: int, seed: int) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        sizes = [len(part) for _, part in self._parts()]
        return [generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(float) for n in sizes]

    def _class_counts(self, run: int) -> tuple[np.ndarray, np.ndarray]:
        """Intersections and unions (E_run, C) of one list; every way counts for the class it shows."""
        if run not in self._cache:
            part, ids = self._parts()[run][1], self._ids()
            columns = np.searchsorted(ids, self.classes[part])
            counts = np.zeros((2, len(part), len(ids)))
            rows = np.arange(len(part))[:, None]
            np.add.at(counts[0], (rows, columns), self.table[part, 1:, 0])
            np.add.at(counts[1], (rows, columns), self.table[part, 1:].sum(-1))
            self._cache[run] = counts
        return self._cache[run]

    def _class_iou(self, run: int, weights: np.ndarray) -> np.ndarray:
        """(draws, C); NaN where a class does not occur."""
        inter, union = (weights @ counts for counts in self._class_counts(run))
        return np.divide(inter, union, out=np.full_like(inter, np.nan), where=union > 0)

    def _miou(self, weights: list[np.ndarray]) -> np.ndarray:
        return _mean([_mean(self._class_iou(run, weight).T) for run, weight in enumerate(weights)])

    def _fb_iou(self, weights: list[np.ndarray]) -> np.ndarray:
        values = []
        for (_, part), weight in zip(self._parts(), weights):
            pair = np.stack([self.table[part, 0], self.table[part, 1:].sum(1)], 1)
            counts = np.einsum("re,ecs->rcs", weight, pair.astype(float))
            values.append((counts[..., 0] / np.maximum(counts.sum(-1), 1)).mean(-1))
        return np.mean(values, 0)


def over_trainings(
    own: Sequence[Scores], others: Sequence[Scores] | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean mIoU of the same method trained several times, and its 95 % interval over episodes, shared by all trainings.

    With `others` (one per training, in the same order) the mean difference instead, paired on the same episodes. The
    interval says what other episodes would change; the spread of the single scores, what other trainings would.

    Raises ProtocolError when the evaluations did not score the same episodes, or come in different numbers.
    """
    every = [*own, *(others or [])]
    same = all(np.array_equal(every[0].classes, s.classes) and np.array_equal(every[0].runs, s.runs) for s in every)
    if not own or not same or (others is not None and len(others) != len(own)):
        raise ProtocolError("over_trainings needs as many evaluations on both sides, all on the same episodes.")
    # The same seed draws the same episodes for every training.
    drawn = np.mean([s._miou(s._weights(draws, seed)) for s in own], 0)
    value = float(np.mean([s.miou for s in own]))
    if others is not None:
        drawn = drawn - np.mean([s._miou(s._weights(draws, seed)) for s in others], 0)
        value -= float(np.mean([s.miou for s in others]))
    return value, *_quantiles(drawn)


def _mean(values) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is left (a class without a single pixel)."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full_like(total, np.nan), where=known.sum(0) > 0)


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
