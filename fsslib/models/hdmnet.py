"""HDMNet: features that refine themselves before they meet, correlation at three scales, and a base learner."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..episode import IGNORE, Episode
from ..errors import EpisodeError, ModelError
from ..losses import correlation_distillation, segmentation
from ..nn.backbones import check_count, check_number, check_switch, choose
from ..nn.ensemble import Ensemble
from ..nn.matching import STAGES, MatchingPyramid
from ..nn.psp import PSPHead
from ..ops import gram_distance, masked_pool, prior_mask, resize
from .base_learner import BaseLearner, check_annotation
from .hdmnet_names import OFFICIAL
from .one_way import OneWayModel, Outcome, joined

PRIOR_WEIGHT = 10.0  # of the prior maps beside the query's features
SMALLEST = STAGES[0][1]  # cells a side: one square of the finest stage's reduced keys


class HDMNet(OneWayModel):
    """Peng, Tian, Wu, Wang, Liu, Su, Jia: "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation",
    CVPR 2023, arXiv 2303.14652; ensemble and base learner are BAM's (Lang et al., CVPR 2022, arXiv 2203.07615).

    Symbols: f5 context feature of the base learner; q, s reduced features; p prototype; w_i correlation map of stage i
    (0 fine, 2 coarse); ψ scene distance. L = L_main + L_distill + L_base, with L_main the cross entropies of the merged
    and of the matching network's own logits. The base learner, backbone included, is trained before (base
    pre-training) and kept. All batch norms behind the backbone always use their running statistics, as published.
    Without options it computes what the authors' code computes.

    Args:
        base_classes: outputs of the base learner besides background. shots: K that the ensemble learns weights for.
        width: channels of the reduced features (256 in the paper), a multiple of 32; the transformer has a quarter of
            it, the base learner's context feature twice as many.
        stages: scales of the pyramid, 1 to 3. self_attention: whether each side attends to itself first.
        match_softmax: attention sums to one over the `"query"` positions (published) or over the `"support"` ones.
        match_temperature: of the cosines. mask_support: hide the background in the support `"image"` (published), or
            only in its `"features"`, so that cached features serve.
        distil_weight, distil_truth: of the distillation, and whether the ground truth teaches the coarsest map.
        base_weight: of the base learner's loss (constant, unless the backbone is trained).
        ensemble: merge with the base learner; off, the matching network's probabilities are the result.
        shot_weights: `"published"` (see `Ensemble`; not trained) or `"matched"` to their shots, and trained.
        shot_hidden: channels inside the weights of the shots.
        transformer_lr: learning rate of the transformer, as a part of that of all other layers.
        dropout: channel dropout of the reduced features; attention_dropout: in the transformer.
        freeze: keep the backbone's parameters as they are.
    Maps with `explain` (B episodes, K shots, C = width): `query_features` (B, C, h, w), `pooled` (B, K, C), `prior`
    (B, 2, h, w) of f5 and of the deepest stage; by stage i `correlation/i` (B, hᵢ, wᵢ), `query/i`, `matched/i`,
    `decoded/i` (B, C / 4, hᵢ, wᵢ) and `support/i` (B, K, C / 4, hᵢ, wᵢ); `meta` (B, 2, h, w) probabilities of the
    matching network, `base` (B, 1 + base classes, h, w) those of the base learner, `base_map` (B, 1, h, w) what of them
    counts as background; `scene_distance` (B, K), `scene/background`, `scene/object`, `merged/background` (B, 1, h, w).

    Raises:
        ModelError: an unknown choice, an impossible number, or a backbone that ends before layer3.
    """

    stem = "deep"
    official_prefixes = OFFICIAL

    def __init__(
        self,
        backbone: nn.Module,
        *,
        base_classes: int = 15,
        shots: int = 1,
        width: int = 256,
        stages: int = 3,
        self_attention: bool = True,
        match_softmax: str = "query",
        match_temperature: float = 0.1,
        mask_support: str = "image",
        distil_weight: float = 1.0,
        distil_truth: bool = True,
        base_weight: float = 1.0,
        ensemble: bool = True,
        shot_weights: str = "published",
        shot_hidden: int = 2,
        transformer_lr: float = 0.1,
        dropout: float = 0.5,
        attention_dropout: float = 0.1,
        freeze: bool = True,
    ):
        super().__init__(backbone, freeze=freeze)
        if "layer3" not in backbone.channels:
            raise ModelError(f"hdmnet needs layer2 and layer3; {backbone.name} ends at {backbone.deepest}.")
        switches = {"self_attention": self_attention, "distil_truth": distil_truth, "ensemble": ensemble}
        for name, value in (switches | {"freeze": freeze}).items():
            check_switch(value, f"hdmnet: {name}")
        for name, value in {"base_classes": base_classes, "width": width, "stages": stages}.items():
            check_count(value, f"hdmnet: {name}")
        if width % 32 or stages > len(STAGES):
            raise ModelError(f"hdmnet: width={width}, stages={stages}: expected a multiple of 32, and 1 to 3 stages.")
        numbers = {"distil_weight": distil_weight, "base_weight": base_weight, "transformer_lr": transformer_lr}
        for name, value in numbers.items():
            check_number(value, f"hdmnet: {name}")
        if shot_hidden != 0 or type(shot_hidden) is not int:
            check_count(shot_hidden, "hdmnet: shot_hidden")
        check_number(match_temperature, "hdmnet: match_temperature", zero=False)
        for name, value in {"dropout": dropout, "attention_dropout": attention_dropout}.items():
            check_number(value, f"hdmnet: {name}", 1)
        choose(match_softmax, ("query", "support"), "hdmnet: match_softmax=")
        choose(mask_support, ("image", "features"), "hdmnet: mask_support=")
        choose(shot_weights, ("published", "matched"), "hdmnet: shot_weights=")
        self.base_head = PSPHead(backbone.channels[backbone.deepest], 2 * width, 1 + base_classes).requires_grad_(False)
        inputs = backbone.channels["layer3"] + backbone.channels["layer2"]
        self.down_query, self.down_supp = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.ReLU(), nn.Dropout2d(dropout)) for _ in range(2)
        )
        tokens = width // 4
        self.supp_merge = nn.Sequential(nn.Conv2d(2 * width, tokens, 1, bias=False), nn.ReLU())
        self.query_merge = nn.Sequential(nn.Conv2d(2 * width + 2, tokens, 1, bias=False), nn.ReLU())
        how = {"temperature": match_temperature, "softmax": match_softmax, "dropout": attention_dropout}
        self.transformer = MatchingPyramid(tokens, width, stages=stages, self_attention=self_attention, **how)
        self.ensemble = Ensemble(shots, shot_hidden, shot_weights == "matched") if ensemble else None
        self.mask_support, self.distil_truth, self.transformer_lr = mask_support, distil_truth, transformer_lr
        self.self_attention = self_attention
        self.weights = {"main": 1.0, "distill": distil_weight, "base": base_weight}

    @property
    def base_learner(self) -> BaseLearner:
        """PSPNet of this model's backbone and head: for base pre-training, and for loading the authors' own."""
        return BaseLearner(self.backbone, self.base_head)

    def train(self, mode: bool = True) -> "HDMNet":
        """As in torch, except that batch norms behind the backbone always use their running statistics; those of the
        backbone follow its mode `bn` (as published: `"frozen"`)."""
        super().train(mode)
        inside = set(self.backbone.modules())
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module not in inside:
                module.eval()
        return self

    def lr_factor(self, name: str) -> float:
        if name.startswith("ensemble.reweight") and not self.ensemble.matched:
            return 0.0  # in no group of the authors' optimiser: it keeps its random values
        return self.transformer_lr if name.startswith("transformer.") else 1.0

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """`main`, `distill`, `base` and their weighted sum `total`.

        Raises EpisodeError without `base_masks`, or for one way without `class_index`: in training the episode's own
        class is known to the base learner, and no background.
        """
        check_annotation(episode, self.base_learner.classes)
        return super().losses(episode)

    def features(self, episode: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`reduced` (C = width), `deep` and `context` features of both sides, `scene` for the ensemble, and the base
        learner's `base` logits; for the losses the query's `base_masks` and each way's `own` base class (0: none)."""
        deepest, seen = self.backbone.deepest, episode
        if self.mask_support == "image":
            masks = (episode.support_masks == 1).unsqueeze(3)
            seen = replace(episode, support_images=episode.support_images * masks)
        query, support = self.encode(seen, list(dict.fromkeys(["layer2", "layer3", deepest])))
        split = episode.support_images.shape[:3]
        support = {stage: value.flatten(0, 2) for stage, value in support.items()}
        found = []
        for side, reduce in ((query, self.down_query), (support, self.down_supp)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
                context = self.base_head.features(side[deepest])
            grid = tuple(side["layer3"].shape[-2:])
            own = {"reduced": reduce(joined(side)), "deep": side[deepest], "context": context}
            found.append(own | {"scene": resize(side["layer2"], grid)})
        found[0]["base"] = self.base_head.classifier(found[0]["context"])
        found[1] = {name: value.unflatten(0, split) for name, value in found[1].items()}
        if episode.base_masks is not None:
            found[0]["base_masks"] = episode.base_masks
            found[1]["own"] = _own_classes(episode)
        return found[0], found[1]

    def segment(
        self, query: dict[str, Tensor], support: dict[str, Tensor], masks: Tensor, labels: Tensor | None, learn: bool
    ) -> Outcome:
        size, image = tuple(query["reduced"].shape[-2:]), tuple(masks.shape[-2:])
        if self.self_attention and min(size) < SMALLEST:
            raise EpisodeError(
                f"query_images: found {image} pixels, a grid of {size} cells; HDMNet's self-attention needs at least "
                f"{SMALLEST} cells a side. Use larger images, a backbone of smaller stride, or self_attention=False."
            )
        prototypes = masked_pool(support["reduced"], resize((masks == 1).float(), size))
        nearest = F.interpolate((masks == 1).float(), tuple(support["deep"].shape[-2:]), mode="nearest")
        priors = [
            prior_mask(query[name], support[name], nearest, stretch=False).mean(1, keepdim=True)
            for name in ("context", "deep")
        ]
        prior = torch.cat(priors, 1)
        own = self._merged(self.query_merge, query["reduced"], prototypes.mean(1), PRIOR_WEIGHT * prior)
        keys = self._merged(self.supp_merge, support["reduced"].flatten(0, 1), prototypes.flatten(0, 1))
        small, correlations, maps = self.transformer(own, keys.unflatten(0, masks.shape[:2]), masks, prior)
        meta, base = small.float().softmax(1), query["base"].float().softmax(1)
        others = base
        if learn:
            # The episode's class is a base class here, and no background.
            own_channel = support["own"][:, None, None, None].expand(-1, 1, *size)
            others = base.scatter(1, own_channel, 0.0)
        base_map, merged = others[:, 1:].sum(1, keepdim=True), meta
        if self.ensemble is not None:
            scenes = gram_distance(query["scene"], support["scene"])
            # Probabilities are the logits of the loss here: bfloat16 would leave them two digits.
            with torch.autocast(meta.device.type, enabled=False):
                merged, inside = self.ensemble(meta, base_map, self.ensemble.distance(scenes))
            maps |= {"scene_distance": scenes, **inside}
        logits = resize(merged, image)
        maps |= {"query_features": query["reduced"], "pooled": prototypes, "prior": prior}
        maps |= {"meta": meta, "base": base, "base_map": base_map}
        losses: dict[str, Tensor] = {}
        if learn:
            main = segmentation(logits, labels) + segmentation(resize(small.float(), image), labels)
            distilled = correlation_distillation(labels, correlations, truth=self.distil_truth)
            known = segmentation(resize(query["base"].float(), image), query["base_masks"])
            distill = torch.stack(distilled).mean() if distilled else main.new_zeros(())
            losses = {"main": main, "distill": distill, "base": known}
            losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
        return Outcome(logits, losses, maps)

    @staticmethod
    def _merged(merge: nn.Sequential, features: Tensor, prototypes: Tensor, *more: Tensor) -> Tensor:
        tiled = prototypes[:, :, None, None].expand(-1, -1, *features.shape[-2:])
        return merge(torch.cat([features.float(), tiled, *more], 1))


def _own_classes(episode: Episode) -> Tensor:
    """(B, N) long: the base learner's channel of each way's class; 0 where a query of several ways does not show it."""
    if episode.way == 1:
        index = episode.class_index
        return (index[:, None] + 1) if index is not None else torch.zeros_like(episode.classes)
    if episode.query_masks is None:
        return torch.zeros_like(episode.classes)
    ways = torch.arange(1, episode.way + 1, device=episode.query_masks.device)[:, None, None]
    shown = (episode.query_masks[:, None] == ways) & (episode.base_masks[:, None] != IGNORE)
    return torch.where(shown, episode.base_masks[:, None], 0).amax((-2, -1))
