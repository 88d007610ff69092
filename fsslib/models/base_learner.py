"""PSPNet on the base classes: what BAM (arXiv 2203.07615) and HDMNet train first, and keep as it is from then on.

Zhao, Shi, Qi, Wang, Jia: "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105; its head is in `nn.context`.
"""

from types import MappingProxyType

from torch import Tensor, nn

from ..episode import IGNORE, Episode
from ..errors import EpisodeError
from ..losses import segmentation
from ..nn.context import PSPHead
from ..ops import may_wait, resize
from .base import translated


class BaseLearner(nn.Module):
    """PSPNet without its auxiliary head.

    It shares its parts with the method that owns it, so that training it, or loading the authors' PSPNet with
    `load_official(model.base_learner, path)`, changes the method. Trained by itself the batch norms of its head follow
    `.train()`, those of the backbone its mode.

    Args: backbone: a Backbone. head: the classifier over background and base classes.
    """

    # The authors' files hold the backbone twice, under `encoder` once more.
    official_unused = ("encoder.",)
    official_prefixes = MappingProxyType({
        "head.pooling.stages.": "ppm.features.", "head.level5.": "cls.", "head.classifier.2.": "cls.4.",
        "backbone.": "",
    })  # fmt: skip

    def __init__(self, backbone: nn.Module, head: PSPHead):
        super().__init__()
        self.backbone, self.head = backbone, head

    @property
    def classes(self) -> int:
        """Number of base classes, background not counted."""
        return self.head.classifier[-1].out_channels - 1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, 1 + base classes, h, w) logits at feature resolution."""
        stage = self.backbone.deepest
        return self.head(self.backbone(images, [stage])[stage])

    def losses(self, batch) -> dict[str, Tensor]:
        """Cross entropy of a `pretraining.LabelledImages` at full resolution, as `"total"`."""
        logits = self(batch.images)
        return {"total": segmentation(resize(logits.float(), tuple(batch.masks.shape[-2:])), batch.masks)}

    def official_name(self, name: str) -> str:
        """The name that parameter `name` has in the authors' checkpoints."""
        return translated(name, self.official_prefixes)


def check_annotation(episode: Episode, classes: int) -> None:
    """Raise EpisodeError unless `episode` says what the base learner is trained with: the base annotation of its
    queries, and for one way the position of its class. The values are read only where no GPU has to be waited for."""
    needed = ["base_masks", "class_index"] if episode.way == 1 else ["base_masks"]
    missing = [name for name in needed if getattr(episode, name) is None]
    if missing:
        raise EpisodeError(
            f"{', '.join(missing)}: found None: HDMNet.losses needs the base annotation of the query. "
            "EpisodeSampler fills both for training splits; otherwise pass Episode(…, base_masks=…, class_index=…)."
        )
    for name, low, high in (("base_masks", 0, classes), ("class_index", 0, classes - 1)):
        values = getattr(episode, name)
        if values is None or not may_wait(values):
            continue
        wrong = (values < low) | (values > high)
        if name == "base_masks":
            wrong &= values != IGNORE
        if wrong.any():
            raise EpisodeError(
                f"{name}: found {int(values[wrong][0])}, expected {low}..{high}: the model has {classes} base classes; "
                "build it with base_classes=… as the data has them."
            )
