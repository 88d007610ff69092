"""Where the training of a decoder begins: with random answers as published, or with those of the features alone.

In a few hundred steps a random decoder learns little more than that most pixels are background. Here the answer that
needs no training is added to its logits, and its last layer begins at 0 (as adapters do), so that it only has to learn
what that answer lacks.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..episode import Episode
from ..ops import cosine_maps, masked_average, resize, upsample
from .base import Features, OneWayModel
from .matching import default_stages, matched

Start = Literal["random", "features", "matching"]
SHARPNESS = 5.0  # of matching's probabilities as logits: the decoder can still overrule them


class StartedModel(OneWayModel):
    """A one-way method with a decoder.

    Attributes:
        start: what is added to the decoder's logits: nothing (`"random"`, as published), the scores of `"features"`
            (prototypes and cosines of the deepest stage, as in PANet), or of `"matching"` (`Matching` with its
            defaults).
    """

    start: Start = "random"

    def begin(self, start: Start, last: nn.Conv2d) -> None:
        """Set `start`; `last` is the decoder's last layer."""
        self.start = start
        if start != "random":
            for weights in (last.weight, last.bias):
                nn.init.zeros_(weights)

    def shared(self, episode: Episode) -> tuple[Features, Features]:
        query, support = self.features(episode)
        if self.start == "random":
            return query, support
        stages = [self.backbone.deepest] if self.start == "features" else default_stages(self.backbone)
        sides = self.encode(episode, stages)
        grid = tuple(sides[0][stages[-1]].shape[-2:])
        more = ({f"start/{stage}": resize(value, grid) for stage, value in side.items()} for side in sides)
        return query | next(more), support | next(more)

    def first_logits(self, query: Features, support: Features, masks: Tensor, size: tuple[int, int]) -> Tensor | float:
        """What is added to the decoder's logits: 0, or (B, 2, *size) float32. Arguments as of `segment`."""
        if self.start == "random":
            return 0.0
        own, theirs = (
            {name.removeprefix("start/"): value for name, value in side.items() if name.startswith("start/")}
            for side in (query, support)
        )
        if self.start == "matching":
            theirs = {stage: value[:, None] for stage, value in theirs.items()}
            with torch.no_grad():
                return upsample(SHARPNESS * matched(own, theirs, masks[:, None])["refined"], size)
        features, pair = theirs[self.backbone.deepest], torch.stack([masks == 0, masks == 1], 2).flatten(0, 1).float()
        prototypes = masked_average(features.flatten(0, 1), pair).unflatten(0, masks.shape[:2]).mean(1)
        return upsample(cosine_maps(own[self.backbone.deepest], prototypes), size)
