"""What all methods have in common: the episode in, logits and losses out, and how a backbone is called.

`FewShotModel` is any method; `OneWayModel` is one that segments a single class, and meets several one after another.
"""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..episode import IGNORE, Episode, Prediction
from ..errors import EpisodeError, ModelError
from ..losses import segmentation
from ..ops import resize

Features = dict[str, Tensor]
# Where wrappers keep the model: torch.compile; DataParallel, DistributedDataParallel and Fabric.
WRAPPERS = "_orig_mod", "module"


class FewShotModel(nn.Module, ABC):
    """A few-shot segmentation method.

    Attributes:
        explain: when true, `forward` fills `Prediction.maps` with named intermediate results.
        config: the arguments of `build_model` that made this model (set there), so that a checkpoint can rebuild it.
        stem: the ResNet stem of the method's paper, which `build_model` takes unless it is told another.
        official_prefixes: how names of parameters begin here -> in the authors' checkpoints; the first that fits.
        official_unused: prefixes of entries in the authors' checkpoints that the method never uses.
        base_learner: only where a method contains a segmenter of the base classes: what base pre-training trains then,
            a module with `losses(LabelledImages)` and `classes`.
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

    def encode(self, episode: Episode, stages: Sequence[str]) -> tuple[Features, Features]:
        """Backbone features of the queries (B, C, h, w) and of the supports (B, N, K, C, h, w), by stage.

        One backbone call for everything while batch norms use running statistics (or there are none); with batch
        statistics one call for the queries and one per support image, since there the grouping changes the result.
        Where a gradient is wanted they come in the layout in which the layers behind them learn fastest.
        """
        shape, images = episode.support_images.shape[:3], episode.support_images.flatten(1, 2)
        held = next((parameter.dtype for parameter in self.backbone.parameters()), images.dtype)
        if held != images.dtype and not torch.is_autocast_enabled(images.device.type):
            cure = "call model.float(), or use segment or evaluate, which compute in 32 bits"
            raise ModelError(f"this model's weights are {held}, the episode's pictures {images.dtype}: {cure}.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            if self.batch_statistics:
                query = self.backbone(episode.query_images, stages)
                calls = [self.backbone(image, stages) for image in images.unbind(1)]
                support = {s: torch.stack([call[s] for call in calls], 1).flatten(0, 1) for s in stages}
            else:
                both = self.backbone(torch.cat([episode.query_images, images.flatten(0, 1)]), stages)
                query = {s: both[s][: shape[0]] for s in stages}
                support = {s: both[s][shape[0] :] for s in stages}
        if torch.is_grad_enabled() and images.device.type == "cpu":
            how = {"memory_format": self.backbone.layout(learns=True)}
            query, support = ({s: value.contiguous(**how) for s, value in side.items()} for side in (query, support))
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


@contextlib.contextmanager
def evaluating(model: nn.Module, explain: bool = False) -> Iterator[None]:
    """Eval mode without gradients inside the block, with `explain` also explaining; then all is put back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    before = getattr(model, "explain", False)
    model.eval()
    if explain:
        model.explain = True
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        if explain:
            model.explain = before


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for a baseline that has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel, DistributedDataParallel or Fabric, which share its weights."""
    while not isinstance(model, FewShotModel):
        inner = [getattr(model, name, None) for name in WRAPPERS]
        inner = next((value for value in inner if isinstance(value, nn.Module)), None)
        if inner is None:
            break
        model = inner
    return model


def in_single_precision(model: nn.Module) -> nn.Module:
    """The model itself if its weights are float32, as pictures and masks are; else a copy whose weights are."""
    if all(parameter.dtype == torch.float32 for parameter in model.parameters() if parameter.is_floating_point()):
        return model
    return copy.deepcopy(unwrapped(model)).float()


@dataclass
class Outcome:
    """What one way comes to: logits (B, 2, H, W), named scalar losses, and named maps for figures."""

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    maps: Features = field(default_factory=dict)


class OneWayModel(FewShotModel):
    """A method of two output channels, background and object.

    With N > 1 ways each way is run by itself, with its own binary query label: channel w of the logits is then
    object − background of way w, channel 0 is 0, and the losses are means over the ways. Maps of several ways are
    stacked behind the batch axis.
    """

    @abstractmethod
    def features(self, episode: Episode) -> tuple[Features, Features]:
        """What all ways share: query features (B, …) and support features (B, N, K, …) by name."""

    def shared(self, episode: Episode) -> tuple[Features, Features]:
        """`features`, and whatever else a subclass hands to `segment`."""
        return self.features(episode)

    @abstractmethod
    def segment(self, query: Features, support: Features, masks: Tensor, labels: Tensor | None, learn: bool) -> Outcome:
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
        query, support = self.shared(episode)
        outcomes = []
        for w in range(episode.way):
            labels = episode.query_masks
            if labels is not None:
                labels = torch.where(labels == IGNORE, IGNORE, (labels == w + 1).long())
            this_way = {name: value[:, w] for name, value in support.items()}
            outcomes.append(self.segment(query, this_way, episode.support_masks[:, w], labels, learn))
        return outcomes


def joined_width(backbone: nn.Module, method: str) -> int:
    """Channels of what `joined` makes of the backbone's features. Raises ModelError where it ends before layer3."""
    if "layer3" not in backbone.channels:
        raise ModelError(f"{method} needs layer2 and layer3; {backbone.name} ends at {backbone.deepest}.")
    return backbone.channels["layer3"] + backbone.channels["layer2"]


def joined(features: dict[str, Tensor]) -> Tensor:
    """layer3 and layer2 (in this order) as one map; a larger layer2 (VGG) is resized to layer3's grid."""
    deep, shallow = features["layer3"], features["layer2"]
    return torch.cat([deep, resize(shallow, tuple(deep.shape[-2:]))], 1)


def enriched_losses(logits: Tensor, inner: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """`main`, the loss of logits (B, 2, H, W) against labels (B, H, W), and `aux`, the mean of those of the context
    module's inner logits (B, 2, rows, columns), enlarged."""
    levels = [segmentation(resize(level.float(), tuple(labels.shape[-2:])), labels) for level in inner]
    return {"main": segmentation(logits, labels), "aux": torch.stack(levels).mean()}
