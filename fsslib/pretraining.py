"""Base-class pre-training: the backbone learns to segment the base classes before it ever sees an episode.

Episodic training from scratch hardly learns: the binary loss of an episode says too little about features. A plain
segmentation head over all base classes does, and is thrown away afterwards.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .data.base import IGNORE, SegmentationDataset, base_table
from .data.episodes import share
from .data.transforms import Resize, augment, normalise
from .errors import TrainingError
from .losses import segmentation
from .nn.backbones.cached import CachedBackbone
from .ops import upsample
from .training import History, Schedule, fit


@dataclass(frozen=True)
class LabelledImages:
    """A batch of images (B, 3, H, W) float32, normalised, with masks (B, H, W) long: 0, 1..number of classes, 255."""

    images: Tensor
    masks: Tensor

    def to(self, device: torch.device | str) -> "LabelledImages":
        """The batch on another device."""
        return LabelledImages(self.images.to(device, non_blocking=True), self.masks.to(device, non_blocking=True))

    def pin_memory(self) -> "LabelledImages":
        """The batch in pinned memory, from where a copy to a GPU needs no waiting."""
        return LabelledImages(self.images.pin_memory(), self.masks.pin_memory())


class BaseSegmenter(nn.Module):
    """A backbone with a linear per-position classifier over background and base classes.

    Args: backbone: a Backbone; trained with batch statistics. classes: number of base classes, background not counted.
    """

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels[backbone.deepest], 1 + classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, 1 + classes, h, w) logits at feature resolution."""
        stage = self.backbone.deepest
        return self.head(self.backbone(images, [stage])[stage])

    def losses(self, batch: LabelledImages) -> dict[str, Tensor]:
        """Cross entropy at half the input resolution: finer costs twice the time and teaches the same."""
        target = batch.masks[:, ::2, ::2]
        return {"total": segmentation(upsample(self(batch.images).float(), tuple(target.shape[-2:])), target)}


def labelled_batch(
    dataset: SegmentationDataset, size: int, seed: int, step: int, batch: int, change: bool = True,
    part: tuple[int, int] = (0, 1),
) -> LabelledImages:  # fmt: skip
    """The pre-training batch of `step`, a pure function of (seed, step), augmented with `change`; of its images the
    `part` (number, of how many). Classes become 1.. in order of their ids."""
    generator = np.random.default_rng([seed, step, 77])
    resize = Resize(size)
    images, masks = [], []
    mine = share(batch, part)
    for item, index in enumerate(generator.integers(len(dataset), size=batch).tolist()):
        change_seed = int(generator.integers(2**31))
        if item not in mine:
            continue
        image, mask = resize(*dataset[index])
        if change:
            image, mask = augment(image, mask, change_seed, dataset.augmentation)
        images.append(image)
        masks.append(mask)
    labels = base_table(dataset.base_classes, dataset.names)[torch.stack(masks).long()]
    return LabelledImages(normalise(torch.stack(images)), labels)


def pretrain(
    backbone: nn.Module, dataset: SegmentationDataset, schedule: Schedule, *, size: int = 97,
    learner: nn.Module | None = None, folder: str | Path | None = None, **how,
) -> History:  # fmt: skip
    """Train `backbone` in place to segment the base classes of `dataset`; it ends in the BN mode it came in.

    A `CachedBackbone` stays as it is: then only the head of a `learner` is trained, and the images are used unchanged.

    Args:
        size: input pixels a side. folder: where the resume file `pretrain.ckpt` lives. how: see `training.fit`.
        learner: a segmenter around the same backbone (a method's `base_learner`) that is trained and kept; None puts a
            `BaseSegmenter` around it, whose head is thrown away.
    Raises TrainingError for a frozen backbone, or a learner of another number of classes, and as `training.fit` does.
    """
    kept = isinstance(backbone, CachedBackbone)
    if learner is None and not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise TrainingError("the backbone is frozen, so pre-training changes nothing: build it without freeze=True.")
    classes = len(dataset.base_classes)
    if learner is not None and (learner.classes != classes or classes >= IGNORE):
        numbers = f"{learner.classes} classes, {dataset.name} fold {dataset.fold} has {classes} base classes"
        most = ", at most 254" if classes >= IGNORE else ""
        raise TrainingError(f"the base learner has {numbers}: build the model with base_classes={classes}{most}.")
    if learner is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(schedule.seed)  # the head, too, is a function of the schedule alone
            learner = BaseSegmenter(backbone, classes + (classes >= IGNORE))  # label 255 is no class
    # At all other times a method keeps its base learner frozen.
    shared = set(backbone.parameters()) if kept else set()
    thawed = [weight for weight in learner.parameters() if weight not in shared and not weight.requires_grad]
    mode = backbone.bn
    where = {"folder": folder, "name": "pretrain", "data": f"{dataset.hash()} at {size} px"}
    try:
        backbone.set_bn(mode if kept else "batch")
        for weight in thawed:
            weight.requires_grad_(True)
        batch_at = partial(labelled_batch, dataset, size, schedule.seed, batch=schedule.batch, change=not kept)
        return fit(learner, batch_at, schedule, **where, **how)
    finally:
        backbone.set_bn(mode)
        for weight in thawed:
            weight.requires_grad_(False)
