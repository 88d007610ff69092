"""Rules that make a K-shot answer of K one-shot answers, for any method: HSNet's vote, and the mean."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..episode import Episode, Prediction
from ..errors import ProtocolError
from ..protocol import MERGE_RULES
from .base import FewShotModel

VOTE, MEAN = RULES = MERGE_RULES
_HALF = 0.5 - 1e-6  # half of the most votes is enough: the tie goes to the object


class ShotByShot(FewShotModel):
    """A method that looks at one support at a time; what it says K times is merged afterwards.

    `"vote of K masks"`: a pixel belongs to a class when its votes reach half of the most that any pixel got (the rule
    of HSNet: Min, Kang, Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021). `"mean of K
    probabilities"`: the K softmaxes averaged. Logits are the merged votes or log-probabilities; losses and maps are the
    method's own.

    Args: model: any method; it is shared, not copied. rule: one of `RULES`. Raises ProtocolError for another rule.
    """

    def __init__(self, model: FewShotModel, rule: str = MEAN):
        if rule not in RULES:
            raise ProtocolError(f"k_merge={rule!r}: expected one of {', '.join(RULES)}.")
        # Not FewShotModel's own: the method has the backbone, if there is one.
        nn.Module.__init__(self)
        self.model, self.rule, self.config = model, rule, getattr(model, "config", {})

    def forward(self, episode: Episode) -> Prediction:
        if episode.shot == 1:
            return self.model(episode)
        supports = zip(episode.support_images.split(1, 2), episode.support_masks.split(1, 2))
        single = (replace(episode, support_images=images, support_masks=masks) for images, masks in supports)
        answers = [self.model(one).logits for one in single]
        if self.rule == VOTE:
            return Prediction(vote(answers))
        # In logarithms, where a probability of 0 is no infinity that resizing would spread.
        return Prediction(torch.stack([a.log_softmax(1) for a in answers]).logsumexp(0) - math.log(len(answers)))

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        return self.model.losses(episode)


def vote(answers: list[Tensor]) -> Tensor:
    """Shares of the votes (B, 1 + N, H, W), 1 for the most that any pixel got; background stands at one half.

    Args: answers: K logits (B, 1 + N, H, W).
    """
    votes = torch.zeros_like(answers[0])
    for logits in answers:
        votes.scatter_add_(1, logits.argmax(1, keepdim=True), torch.ones_like(votes[:, :1]))
    shares = votes / votes[:, 1:].amax((1, 2, 3), keepdim=True).clamp(min=1)
    shares[:, 0] = _HALF
    return shares
