"""Scores that need no model: what a number on a data set has to be compared with."""

from collections.abc import Sequence
from itertools import groupby

import torch

from ..data.base import IGNORE, SegmentationDataset
from ..evaluation import episode_lists
from ..metrics import FewShotIoU, Scores
from ..protocol import Protocol

BATCH = 64  # episodes that are counted together, where their images have one size


def baselines(
    dataset: SegmentationDataset, protocol: Protocol | None = None, shots: Sequence[int] = (1, 5)
) -> dict[str, Scores]:
    """Scores of three answers that ignore the support, one-way and at the images' own size.

    * all foreground;
    * every object: an oracle that outlines each annotated object perfectly and calls them all the target;
    * every novel object: an oracle that besides tells the fold's classes from all others. What a method scores above
      it can only come from the support.

    Uses the episode lists of `evaluate` with the same protocol and `shots`.
    """
    protocol = (protocol or Protocol()).replace(way=1)
    sampler, lists, protocol = episode_lists(dataset, protocol, shots)
    names = ("all foreground", "every object (oracle)", "every novel object (oracle)")
    meters = {name: FewShotIoU(protocol.counting) for name in names}
    novel = torch.tensor(dataset.classes)
    for run, entry in enumerate(lists):
        items = ((sampler.label(spec), dataset[spec.query][1], torch.tensor(spec.classes)) for spec in entry.specs)
        for _, group in groupby(enumerate(items), key=lambda item: (item[1][0].shape, item[0] // BATCH)):
            targets, masks, classes = (torch.stack(part) for part in zip(*(item for _, item in group)))
            marked = ((masks > 0) & (masks != IGNORE), torch.isin(masks.long(), novel))
            guesses = (torch.ones_like(targets), *(guess.long() for guess in marked))
            for meter, guess in zip(meters.values(), guesses):
                meter.update(guess, targets, classes, run)
    return {name: meter.compute() for name, meter in meters.items()}
