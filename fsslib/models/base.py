"""What all methods have in common: the episode in, logits and losses out, and how a backbone is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..episode import Episode, Prediction
from ..errors import EpisodeError


class FewShotModel(nn.Module, ABC):
    """A few-shot segmentation method.

    Attributes:
        explain: when true, `forward` fills `Prediction.maps` with named intermediate results.
        config: the arguments of `build_model` that made this model (set there), so that a checkpoint can rebuild it.
        stem: the ResNet stem of the method's paper, which `build_model` takes unless it is told another.
        official_prefixes: how names of parameters begin here -> in the authors' checkpoints; the first that fits.
        official_unused: prefixes of entries in the authors' checkpoints that the method never uses.
        base_learner: only where a method contains a segmenter of the base classes: what base pre-training trains then,
            a module with `losses(LabelledImages)` and `classes`. Other methods train the backbone under a linear head
            that is thrown away.
    """

    stem: str = "classic"
    official_prefixes: Mapping[str, str] = MappingProxyType({})
    official_unused: tuple[str, ...] = ()
    base_learner: nn.Module

    def __init__(self, backbone: nn.Module, *, freeze: bool):
        super().__init__()
        self.backbone = backbone
        self.freeze = freeze
        self.explain = False
        self.config: dict = {}
        if freeze:
            backbone.freeze()

    @abstractmethod
    def forward(self, episode: Episode) -> Prediction:
        """Segment the queries of `episode`. Raises EpisodeError for tensors that do not fit together."""

    @abstractmethod
    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """Scalar losses by name, with their sum to minimise as `"total"`. Needs `query_masks`."""

    @property
    def batch_statistics(self) -> bool:
        """Whether the backbone's batch norm looks at the batch, so that the grouping of its calls matters."""
        return self.backbone.bn == "batch" and self.backbone.training

    def official_name(self, name: str) -> str:
        """The name that parameter `name` has in the authors' checkpoints."""
        return translated(name, self.official_prefixes)

    def lr_factor(self, name: str) -> float:
        """What the learning rate of parameter `name` is multiplied with, as in the authors' code."""
        return 1.0

    def encode(self, episode: Episode, stages: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Backbone features of the queries (B, C, h, w) and of the supports (B, N, K, C, h, w), by stage.

        One backbone call for everything while batch norms use running statistics (or there are none); with batch
        statistics one call for the queries and one per support image, since there the grouping changes the result.
        """
        batch, way, shot = episode.support_images.shape[:3]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            if self.batch_statistics:
                query = self.backbone(episode.query_images, stages)
                calls = [
                    self.backbone(episode.support_images[:, w, k], stages) for w in range(way) for k in range(shot)
                ]
                support = {s: torch.stack([call[s] for call in calls], 1) for s in stages}
            else:
                images = torch.cat([episode.query_images, episode.support_images.flatten(0, 2)])
                both = self.backbone(images, stages)
                query = {s: both[s][:batch] for s in stages}
                support = {s: both[s][batch:] for s in stages}
        shape = (batch, way, shot)
        return query, {s: value.reshape(*shape, *value.shape[-3:]) for s, value in support.items()}

    def keep(self, **maps: Tensor) -> dict[str, Tensor]:
        """The named maps, detached and in float32, when the model explains itself; nothing otherwise."""
        return {name: value.detach().float() for name, value in maps.items()} if self.explain else {}

    @staticmethod
    def require_labels(episode: Episode) -> None:
        """Raise EpisodeError when the episode has no query masks to compute a loss with."""
        if episode.query_masks is None:
            raise EpisodeError("query_masks: found None, expected (B, H, W) long: losses compare with the query masks.")


def translated(name: str, prefixes: Mapping[str, str]) -> str:
    """`name` with the first of `prefixes` that it begins with replaced."""
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
