"""Methods that segment one class at a time, and how they meet an episode of several classes."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..episode import IGNORE, Episode, Prediction
from ..ops import resize
from .base import FewShotModel


@dataclass
class Outcome:
    """What one way comes to: logits (B, 2, H, W), named scalar losses, and named maps for figures."""

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)


class OneWayModel(FewShotModel):
    """A method of two output channels, background and object.

    With N > 1 ways each way is run by itself, with its own binary query label: channel w of the logits is then
    object − background of way w, channel 0 is 0, and the losses are means over the ways. Maps of several ways are
    stacked behind the batch axis.
    """

    @abstractmethod
    def features(self, episode: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What all ways share: query features (B, …) and support features (B, N, K, …) by name."""

    @abstractmethod
    def segment(
        self, query: dict[str, Tensor], support: dict[str, Tensor], masks: Tensor, labels: Tensor | None, learn: bool
    ) -> Outcome:
        """Segment one way.

        Args:
            query: as `features` returns it. support: the same for this way, (B, K, …).
            masks: (B, K, H, W) long, 1 object, 0 background, 255 neither.
            labels: (B, H, W) long, 1 this way's object, 0 anything else, 255 ignored; None without query masks.
            learn: whether the losses are wanted.
        """

    def forward(self, episode: Episode) -> Prediction:
        episode.validate(values=False)
        ways = self._ways(episode, learn=False)
        if len(ways) == 1:
            return Prediction(ways[0].logits, self.keep(**ways[0].maps))
        margins = [way.logits[:, 1] - way.logits[:, 0] for way in ways]
        logits = torch.stack([torch.zeros_like(margins[0]), *margins], 1)
        kept = [self.keep(**way.maps) for way in ways]
        return Prediction(logits, {name: torch.stack([maps[name] for maps in kept], 1) for name in kept[0]})

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """Scalars by name and their weighted sum as `"total"`, means over the ways."""
        episode.validate(values=False)
        self.require_labels(episode)
        terms = [way.losses for way in self._ways(episode, learn=True)]
        return {name: torch.stack([term[name] for term in terms]).mean(0) for name in terms[0]}

    def _ways(self, episode: Episode, learn: bool) -> list[Outcome]:
        query, support = self.features(episode)
        found = []
        for w in range(episode.way):
            labels = episode.query_masks
            if labels is not None:
                labels = torch.where(labels == IGNORE, IGNORE, (labels == w + 1).long())
            own = {name: value[:, w] for name, value in support.items()}
            found.append(self.segment(query, own, episode.support_masks[:, w], labels, learn))
        return found


def joined(features: dict[str, Tensor]) -> Tensor:
    """layer3 and layer2 (in this order) as one map; a larger layer2 (VGG) is resized to layer3's grid."""
    deep, shallow = features["layer3"], features["layer2"]
    return torch.cat([deep, resize(shallow, tuple(deep.shape[-2:]))], 1)
