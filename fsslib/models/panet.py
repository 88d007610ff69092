"""PANet: prototypes from the support, cosine matching in the query, and alignment back from query to support.

Wang, Liew, Zou, Zhou, Feng: "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", ICCV 2019, arXiv
1908.06391; the authors' code is github.com/kaixin96/PANet. Pooling and matching are in `ops`, the losses in `losses`.
"""

from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..arguments import Positive, check_count, check_options, choose
from ..episode import Episode, Prediction
from ..losses import alignment, segmentation
from ..ops import cosine_maps, masked_average, upsample
from .base import FewShotModel


class PANet(FewShotModel):
    """PANet (ICCV 2019).

    Symbols of the paper: F features, M mask, p_c prototype of class c (eq. 1) and of the background (eq. 2), α = 20,
    the score α·cos(F(x, y), p_c) (eq. 3), L = L_seg + λ·L_PAR (section 3.4). There is no decoder: without `width` the
    backbone is all there is to train.

    Args:
        backbone: any `fsslib.nn.backbones.base.Backbone`; the paper uses VGG-16 up to its dilated fifth block.
        stage: which stage's features are matched; None takes the deepest.
        align, align_weight: prototype alignment regularisation in training mode and its weight λ.
        scale: the temperature α.
        width: channels of an optional 1x1 projection of the features (not in the paper): what trains when the
            backbone is frozen.
        freeze: keep the backbone's parameters as they are.
    """

    official_prefixes = MappingProxyType({"": "encoder."})

    def __init__(
        self, backbone: nn.Module, *, stage: str | None = None, align: bool = True, align_weight: float = 1.0,
        scale: Positive = 20.0, width: int | None = None, freeze: bool = False,
    ):  # fmt: skip
        super().__init__(backbone, freeze=freeze)
        check_options(PANet, locals(), "panet")
        self.stage = stage or backbone.deepest
        choose(self.stage, tuple(backbone.channels), "panet: stage")
        self.align, self.align_weight, self.scale = align, align_weight, scale
        self.project = nn.Identity()
        if width is not None:
            check_count(width, "panet: width", unit="channels")
            self.project = nn.Conv2d(backbone.channels[self.stage], width, 1, bias=False)
            # An orthogonal start keeps the angles between features, which are all that the matching looks at.
            nn.init.orthogonal_(self.project.weight)

    def forward(self, episode: Episode) -> Prediction:
        episode.validate(values=False)
        return self._predict(episode, *self.features(episode))[0]

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """`query`, `align` (0 in eval mode or with `align=False`) and `total`, scalars."""
        episode.validate(values=False)
        self.require_labels(episode)
        query, support = self.features(episode)
        prediction, scores = self._predict(episode, query, support)
        terms = {"query": segmentation(prediction.logits, episode.query_masks)}
        if self.align and self.training:
            terms["align"] = alignment(scores, query, support, episode.support_masks, self.scale)
        else:
            terms["align"] = torch.zeros_like(terms["query"])
        return {**terms, "total": terms["query"] + self.align_weight * terms["align"]}

    def features(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Matched features of the queries (B, C, h, w) and of the supports (B, N, K, C, h, w)."""
        query, support = (side[self.stage] for side in self.encode(episode, [self.stage]))
        return self.project(query), self.project(support.flatten(0, 2)).unflatten(0, support.shape[:3])

    def prototypes(self, features: Tensor, masks: Tensor) -> Tensor:
        """Prototypes of the background and of every way (eq. 1 and 2): (B, 1 + N, C).

        Args: features: (B, N, K, C, h, w). masks: (B, N, K, H, W) long; 255 belongs to neither average.
        """
        batch, way, shot = masks.shape[:3]
        pair = torch.stack([masks == 0, masks == 1], 3).flatten(0, 2).float()
        pooled = masked_average(features.flatten(0, 2), pair).view(batch, way, shot, 2, -1).mean(2)
        return torch.cat([pooled[:, :, 0].mean(1, keepdim=True), pooled[:, :, 1]], 1)

    def _predict(self, episode: Episode, query: Tensor, support: Tensor) -> tuple[Prediction, Tensor]:
        prototypes = self.prototypes(support, episode.support_masks)
        scores = cosine_maps(query, prototypes, self.scale)
        logits = upsample(scores, tuple(episode.query_images.shape[-2:]))
        maps = self.keep(prototypes=prototypes, similarity=scores, query_features=query, support_features=support)
        return Prediction(logits, maps), scores
