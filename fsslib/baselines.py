"""Scores that need no model: what a number on a data set has to be compared with."""

from __future__ import annotations

import torch

from .data.base import IGNORE, SegmentationDataset
from .evaluation import episode_lists
from .metrics import FewShotIoU, Scores
from .protocol import Protocol


def baselines(dataset: SegmentationDataset, protocol: Protocol | None = None) -> dict[str, Scores]:
    """Scores of "everything is foreground" and of an oracle that marks every annotated object whatever its class.

    The oracle is the bound of a method that finds objects but ignores the support. One-way, at the images' own size,
    on the same episode lists as `evaluate` with this protocol and `shots=(5,)` or fewer.
    """
    protocol = (protocol or Protocol()).replace(way=1)
    sampler, lists, protocol = episode_lists(dataset, protocol, (5,))
    meters = {"all foreground": FewShotIoU(), "every object (oracle)": FewShotIoU()}
    for run, entry in enumerate(lists):
        for spec in entry.specs:
            target, classes = sampler.label(spec)[None], torch.tensor([spec.classes])
            mask = dataset[spec.query][1]
            guesses = (torch.ones_like(target), ((mask > 0) & (mask != IGNORE)).long()[None])
            for meter, guess in zip(meters.values(), guesses):
                meter.update(guess, target, classes, run)
    return {name: meter.compute() for name, meter in meters.items()}
