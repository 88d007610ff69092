"""Few-shot IoU: intersections and unions summed per class over all episodes, with intervals from resampled episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from .episode import IGNORE
from .errors import ProtocolError


class FewShotIoU:
    """Collects one small confusion matrix per episode, counted on the device of the predictions.

    Args: counting: `"all"` counts every pixel; `"present"` drops the counts of channels that the label does not hold
        (the habit of PANet's evaluation, so that false positives on absent classes are free).
    """

    def __init__(self, counting: str = "all"):
        if counting not in ("all", "present"):
            raise ProtocolError(f"counting={counting!r}: expected 'all' or 'present'.")
        self.counting = counting
        self._confusion: list[Tensor] = []
        self._outside: list[Tensor] = []
        self._classes: list[Tensor] = []
        self._runs: list[int] = []

    def update(self, predicted: Tensor, target: Tensor, classes: Tensor, run: int = 0) -> None:
        """Add a batch: predicted and target (B, H, W) long with values 0..N (target also 255); classes (B, N) long.
        Nothing here waits for a GPU. Raises ProtocolError for shapes that do not belong together."""
        if predicted.shape != target.shape or len(classes) != len(target):
            shapes = f"{tuple(predicted.shape)}, {tuple(target.shape)} and classes {tuple(classes.shape)}"
            raise ProtocolError(f"update(): predictions and labels are {shapes}; expected (B, H, W) twice and (B, N).")
        ways = classes.shape[1] + 1
        batch = torch.arange(len(target), device=target.device).view(-1, 1, 1)
        size = len(target) * ways * ways
        cell = (batch * ways + target) * ways + predicted
        outside = (predicted < 0) | (predicted >= ways)
        # Ignored pixels have a cell of their own, and so has what no channel can be.
        cell = torch.where(target == IGNORE, size, torch.where(outside, size + 1, cell)).flatten()
        counts = counted(cell, size + 2)
        self._confusion.append(counts[:size].view(-1, ways, ways))
        self._outside.append(counts[size + 1])
        self._classes.append(classes)
        self._runs += [run] * len(target)

    def compute(self) -> Scores:
        """All counts so far as Scores.
        Raises ProtocolError when nothing was added, or a prediction held a channel that its classes do not have."""
        if not self._confusion:
            raise ProtocolError("no episode was scored: update() was never called.")
        wrong = int(torch.stack(self._outside).sum())
        if wrong:
            raise ProtocolError(f"{wrong} predicted pixels name a channel outside 0..N: predict one of 1 + N channels.")
        confusion = torch.cat(self._confusion).cpu().numpy()
        diagonal = np.einsum("eww->ew", confusion)
        table = np.stack([diagonal, confusion.sum(1) - diagonal, confusion.sum(2) - diagonal], -1)
        if self.counting == "present":
            table = table * (confusion.sum(2) > 0)[..., None]
        return Scores(table, torch.cat(self._classes).cpu().numpy(), np.array(self._runs))


def counted(cells: Tensor, size: int) -> Tensor:
    """How often each number 0..size-1 occurs in `cells` (n,) long: `bincount`, without its wait on GPUs."""
    if cells.device.type == "cpu":
        return torch.bincount(cells, minlength=size)
    return torch.zeros(size, dtype=torch.long, device=cells.device).scatter_add_(0, cells, torch.ones_like(cells))


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

    @property
    def miou(self) -> float:
        """Mean over the episode lists of the mean over classes of summed intersection / summed union."""
        return float(self._miou(self._unit())[0])

    @property
    def fb_iou(self) -> float:
        """Mean IoU of background and foreground, all classes taken together."""
        ious = []
        for part in self._parts:
            counts = np.stack([self.table[part, 0].sum(0), self.table[part, 1:].sum((0, 1))])
            ious.append((counts[:, 0] / np.maximum(counts.sum(-1), 1)).mean(keepdims=True))
        return float(np.mean(ious, 0)[0])

    @property
    def per_class(self) -> dict[int, float]:
        """Class id -> IoU, averaged over the episode lists that hold the class."""
        ious = _mean([iou[0] for iou in self._class_ious(self._unit())])
        return dict(zip(np.unique(self.classes).tolist(), ious.tolist()))

    def episode_iou(self) -> np.ndarray:
        """(E,) foreground IoU of each episode by itself (for picking examples, not for reporting)."""
        tp, fp, fn = self.table[:, 1:].sum(1).T
        return tp / np.maximum(tp + fp + fn, 1)

    @property
    def image_iou(self) -> float:
        """Mean of the foreground IoU of single episodes: every query counts alike, where `miou` sums pixels per class
        first and lets large objects count more. Not the field's mIoU. Episodes without target have no IoU."""
        return float(self._image_iou(self._unit())[0])

    def image_interval(self, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of `image_iou`."""
        return _quantiles(self._image_iou(self._weights(draws, seed)))

    @property
    def absent(self) -> np.ndarray:
        """(E,) bool: episodes whose query shows none of the classes."""
        return self.table[:, 1:, [0, 2]].sum((1, 2)) == 0

    @property
    def false_alarm(self) -> float:
        """Mean share of the pixels that are marked as an object where none is; NaN without such episodes."""
        marked = self.table[self.absent, 1:, 1].sum(1)
        pixels = self.table[self.absent, 0, 0] + marked
        return float(np.mean(marked / np.maximum(pixels, 1))) if len(marked) else float("nan")

    def interval(self, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of `miou`: episodes are resampled within their list."""
        return _quantiles(self._miou(self._weights(draws, seed)))

    def class_intervals(self, draws: int = 1000, seed: int = 0) -> dict[int, tuple[float, float]]:
        """95 % bootstrap interval of each class's IoU."""
        ious = _mean(self._class_ious(self._weights(draws, seed)))
        return {int(c): _quantiles(ious[:, i]) for i, c in enumerate(np.unique(self.classes))}

    def difference(self, other: Scores, draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """`self.miou - other.miou` and its 95 % interval, paired on the same episodes.

        Raises ProtocolError when the two evaluations did not score the same classes in the same order; whether they
        used the same episode lists, their protocols' `list_hash` tells.
        """
        return over_trainings([self], [other], draws, seed)

    @cached_property
    def _parts(self) -> list[np.ndarray]:
        """Where the episodes of each list stand."""
        return [np.flatnonzero(self.runs == run) for run in np.unique(self.runs)]

    def _unit(self) -> list[np.ndarray]:
        return [np.ones((1, len(part))) for part in self._parts]

    def _weights(self, draws: int, seed: int) -> tuple[np.ndarray, ...]:
        return _resampled(tuple(len(part) for part in self._parts), draws, seed)

    @cached_property
    def _class_counts(self) -> list[np.ndarray]:
        """Intersections and unions (2, E, C) of each list; every way counts for the class it shows."""
        ids, lists = np.unique(self.classes), []
        for part in self._parts:
            cells = np.arange(len(part))[:, None], np.searchsorted(ids, self.classes[part])
            counts = np.zeros((2, len(part), len(ids)))
            np.add.at(counts[0], cells, self.table[part, 1:, 0])
            np.add.at(counts[1], cells, self.table[part, 1:].sum(-1))
            lists.append(counts)
        return lists

    def _class_ious(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(draws, C) of each list; NaN where a class does not occur."""
        return [_ratio(*(weight @ part for part in counts)) for weight, counts in zip(weights, self._class_counts)]

    def _miou(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        return _mean([_mean(iou.T) for iou in self._class_ious(weights)])

    def _image_iou(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        ious, shown = self.episode_iou(), ~self.absent
        parts = [(part, weight * shown[part]) for part, weight in zip(self._parts, weights)]
        return _mean([_ratio(weight @ ious[part], weight.sum(-1)) for part, weight in parts])


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
        cure = "as many evaluations on both sides, all on the same episodes: evaluate on one list"
        raise ProtocolError(f"paired differences (over_trainings) need {cure}.")
    # The same seed draws the same episodes for every training.
    drawn = np.mean([s._miou(s._weights(draws, seed)) for s in own], 0)
    value = float(np.mean([s.miou for s in own]))
    if others is not None:
        drawn = drawn - np.mean([s._miou(s._weights(draws, seed)) for s in others], 0)
        value -= float(np.mean([s.miou for s in others]))
    return value, *_quantiles(drawn)


@lru_cache(maxsize=2)
def _resampled(sizes: tuple[int, ...], draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """How often each of the n = `sizes` episodes of a list occurs in each draw, (draws, n) float, read-only."""
    generator = np.random.default_rng(seed)
    drawn = tuple(generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(float) for n in sizes)
    for counts in drawn:
        counts.setflags(write=False)
    return drawn


def _mean(values) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is left (a class without a single pixel)."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(0), known.sum(0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` / `whole`; NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
