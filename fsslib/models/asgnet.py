"""ASGNet: as many prototypes as the object has superpixels, and for every query position the best of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..episode import Episode
from ..errors import ModelError
from ..losses import segmentation
from ..nn.aspp import ASPPContext
from ..nn.backbones import check_count, check_number, check_switch, choose
from ..nn.enrichment import SCALES, FeatureEnrichment, conv_relu
from ..nn.seeds import Seeds, clean_seeds, published_seeds
from ..nn.superpixels import Allocation, Superpixels, allocate, cluster
from ..ops import resize
from .one_way import OneWayModel, Outcome, joined

# The ASPP variant has other modules behind some of the authors' names.
_PYRAMID = {
    "context.merge.": "corr_conv.",
    "context.alpha.": "alpha_conv.",
    "context.beta.": "beta_conv.",
    "context.inner.": "inner_cls.",
    "context.classifier.": "cls.",
    "context.": "",
}
_ASPP = {
    "context.aspp.branches.": "ASPP.layer6_",
    "context.aspp.fuse.": "ASPP.layer7.",
    "context.merge.": "corr_conv.",
    "context.blocks.0.0.": "skip1.1.",
    "context.blocks.0.2.": "skip1.3.",
    "context.blocks.1.0.": "skip2.1.",
    "context.blocks.1.2.": "skip2.3.",
    "context.blocks.2.0.": "skip3.1.",
    "context.blocks.2.2.": "skip3.3.",
    "context.skip.0.": "decoder.conv1.",
    "context.skip.1.": "decoder.bn1.",
    "context.decode.": "decoder.last_conv.",
    "context.classifier.": "cls.",
    "context.auxiliary.": "cls_aux.",
}


class ASGNet(OneWayModel):
    """Li, Jampani, Sevilla-Lara, Sun, Kim, Kim: "Adaptive Prototype Learning and Allocation for Few-Shot Segmentation",
    CVPR 2021, arXiv 2104.01893; its context module is PFENet's (arXiv 2008.01449).

    Symbols: F_q, F_k features of query and support k; s_i superpixel centroids of all supports together; c_i cosine of
    s_i and F_q; Π = Σ c_i probability map; G = argmax c_i guide map; s_G guide features. [F_q; s_G; Π] is enriched and
    classified. L = L_main + L_aux. The backbone is frozen; clustering and allocation have no parameters.
    Without options it computes what the authors' code computes; "paper" below names the reading of the paper.

    Args:
        width: channels of the reduced features (256 in the paper); everything behind them scales along.
        pyramid: PFENet's feature enrichment, or an ASPP decoder (in the code, without a published configuration).
        scales: grids of the feature enrichment, see `FeatureEnrichment`.
        max_superpixels: N_max, largest number of prototypes of one support image; 1 is masked average pooling.
        superpixel_area: S_sp, object cells per prototype. adaptive: off gives every object N_max of them.
        seeds: `"published"` placement and counting, or `"clean"` (paper), see `nn.seeds`.
        iterations: of the clustering in training and in evaluation. reach: r, weight of the distance in cells.
        allocation: `"guided"`, or `"expand"`: the mean of all prototypes at every position.
        similarity: Π is the `"sum"` of the cosines, or their `"mean"`, which does not grow with the prototypes.
        shot_merge: `"pool"` the prototypes of all supports, or `"average"` what each support alone would allocate.
        fusion: merge F_q, s_G and Π at every scale (`"scales"`), or by one 1x1 convolution before (`"once"`, paper).
        aux_weight: weight of the auxiliary logits' loss. dropout: channel dropout of the reduced features.
        freeze: keep the backbone's parameters as they are.
    Maps with `explain` (B episodes, K shots, P = max_superpixels, C = width): `query_features` (B, C, h, w),
    `prototypes` (B, K·P, C), `prototypes_used` (B, K·P) 0 or 1, `seeds` (B, K, P, 2) row and column, `superpixels`
    (B, K, P, h, w) weights of the cells in each centroid, `similarity` (B, K·P, h, w), `probability` (B, 1, h, w),
    `guide` (B, 1, h, w) index into the prototypes, `guide_features` (B, C, h, w), `inner/0`… (B, 2, rows, columns).

    Raises:
        ModelError: an unknown choice, an impossible number, or a backbone that ends before layer3.
    """

    stem = "deep"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int = 256,
        pyramid: bool = True,
        scales: Sequence[float] = SCALES,
        max_superpixels: int = 5,
        superpixel_area: float = 100.0,
        adaptive: bool = True,
        seeds: str = "published",
        iterations: Sequence[int] = (10, 5),
        reach: float = 10.0,
        allocation: str = "guided",
        similarity: str = "sum",
        shot_merge: str = "pool",
        fusion: str = "scales",
        aux_weight: float = 1.0,
        dropout: float = 0.5,
        freeze: bool = True,
    ):
        super().__init__(backbone, freeze=freeze)
        if "layer3" not in backbone.channels:
            raise ModelError(f"asgnet needs layer2 and layer3; {backbone.name} ends at {backbone.deepest}.")
        for name, value in {"pyramid": pyramid, "adaptive": adaptive, "freeze": freeze}.items():
            check_switch(value, f"asgnet: {name}")
        check_count(width, "asgnet: width")
        check_count(max_superpixels, "asgnet: max_superpixels")
        if not isinstance(iterations, Sequence) or isinstance(iterations, str) or len(iterations) != 2:
            raise ModelError(f"asgnet: iterations={iterations!r}: expected two numbers, of training and evaluation.")
        for value in iterations:
            check_count(value, "asgnet: iterations")
        for name, value in {"superpixel_area": superpixel_area, "reach": reach}.items():
            check_number(value, f"asgnet: {name}", zero=False)
        check_number(aux_weight, "asgnet: aux_weight")
        check_number(dropout, "asgnet: dropout", 1)
        choose(seeds, ("published", "clean"), "asgnet: seeds=")
        choose(allocation, ("guided", "expand"), "asgnet: allocation=")
        choose(similarity, ("sum", "mean"), "asgnet: similarity=")
        choose(shot_merge, ("pool", "average"), "asgnet: shot_merge=")
        choose(fusion, ("scales", "once"), "asgnet: fusion=")
        inputs = backbone.channels["layer3"] + backbone.channels["layer2"]
        # No ReLU: the cosine shall use the whole range from -1 to 1.
        self.down_conv = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.Dropout2d(dropout))
        self.fuse = nn.Sequential(*conv_relu(2 * width + 1, width, 1)) if fusion == "once" else None
        pooled, resized = (width, 0) if self.fuse else (2 * width, 1)
        if pyramid:
            self.context = FeatureEnrichment(constant=0, pooled=pooled, resized=resized, width=width, scales=scales)
        else:
            self.context = ASPPContext(
                inputs=pooled + resized, shallow=backbone.channels["layer1"], width=width, dropout=dropout
            )
        self.pyramid, self.aux_weight = pyramid, aux_weight
        self.max_superpixels, self.superpixel_area, self.adaptive = max_superpixels, superpixel_area, adaptive
        self.seeds, self.iterations, self.reach = seeds, tuple(iterations), reach
        self.allocation, self.similarity, self.shot_merge = allocation, similarity, shot_merge

    @property
    def official_prefixes(self) -> dict[str, str]:
        """Both context modules have names of their own."""
        return {"backbone.": ""} | (_PYRAMID if self.pyramid else _ASPP)

    @property
    def official_unused(self) -> tuple[str, ...]:
        """The authors build and save layer4, and never run it; here it may be left out with `last="layer3"`."""
        return () if "layer4" in self.backbone.channels else ("layer4.",)

    def features(self, episode: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`reduced` features (C = width), and for the ASPP decoder the query's `shallow` ones."""
        query, support = self.encode(episode, ["layer2", "layer3"] + ["layer1"] * (not self.pyramid))
        found = {"reduced": self._reduced(query)}
        if not self.pyramid:
            found["shallow"] = query["layer1"]
        flat = {stage: value.flatten(0, 2) for stage, value in support.items()}
        with torch.no_grad():  # prototypes are constants
            return found, {"reduced": self._reduced(flat).unflatten(0, support["layer3"].shape[:3])}

    def segment(
        self, query: dict[str, Tensor], support: dict[str, Tensor], masks: Tensor, labels: Tensor | None, learn: bool
    ) -> Outcome:
        features, image = query["reduced"], tuple(masks.shape[-2:])
        seeds, superpixels = self.superpixels(support["reduced"], masks)
        found = self.allocate(features, superpixels, masks.shape[1])
        together, probability = torch.cat([features.float(), found.features], 1), found.probability
        if self.fuse or not self.pyramid:
            together, probability = torch.cat([together, probability], 1), None
        if self.fuse:
            together = self.fuse(together)
        if self.pyramid:
            small, inner = self.context(None, together, probability)
        else:
            small, inner = self.context(together, query["shallow"])
        logits = resize(small.float(), image)
        split = masks.shape[:2]
        maps = {"query_features": features, "seeds": seeds.points.unflatten(0, split)}
        maps |= {"superpixels": superpixels.assignment.unflatten(0, split)}
        maps |= {"prototypes": superpixels.prototypes.unflatten(0, split).flatten(1, 2)}
        maps |= {"prototypes_used": superpixels.used.unflatten(0, split).flatten(1)}
        maps |= {"similarity": found.similarity, "probability": found.probability}
        maps |= {"guide": found.guide[:, None], "guide_features": found.features}
        maps |= {f"inner/{i}": level for i, level in enumerate(inner)}
        losses: dict[str, Tensor] = {}
        if learn:
            levels = [segmentation(resize(level.float(), image), labels) for level in inner]
            losses = {"main": segmentation(logits, labels), "aux": torch.stack(levels).mean()}
            losses["total"] = losses["main"] + self.aux_weight * losses["aux"]
        return Outcome(logits, losses, maps)

    def superpixels(self, features: Tensor, masks: Tensor) -> tuple[Seeds, Superpixels]:
        """Cluster the objects of all supports at once.

        Args:
            features: (B, K, C, h, w) float. masks: (B, K, H, W) long, 1 object.
        Returns: seeds and prototypes of the B·K support images.
        """
        flat, objects = features.flatten(0, 1), (masks == 1).flatten(0, 1)
        size = tuple(flat.shape[-2:])
        place = published_seeds if self.seeds == "published" else clean_seeds
        area = self.superpixel_area if self.adaptive else self.superpixel_area * 1e-9
        seeds = place(objects, size, self.max_superpixels, area)
        iterations = self.iterations[0] if self.training else self.iterations[1]
        small = resize(objects.float(), size)
        return seeds, cluster(flat, small, seeds, iterations=iterations, reach=self.reach)

    def allocate(self, query: Tensor, superpixels: Superpixels, shot: int) -> Allocation:
        """Tell every position of the query (B, C, h, w) about the superpixels of its B·K supports."""
        split = (len(query), shot)
        prototypes = superpixels.prototypes.unflatten(0, split)
        used = superpixels.used.unflatten(0, split)
        if self.shot_merge == "pool":
            return self._allocate(query, prototypes.flatten(1, 2), used.flatten(1))
        parts = [self._allocate(query, *own) for own in zip(prototypes.unbind(1), used.unbind(1))]
        features = torch.stack([part.features for part in parts]).mean(0)
        probability = torch.stack([part.probability for part in parts]).mean(0)
        similarity = torch.cat([part.similarity for part in parts], 1)
        guide = allocate(query, prototypes.flatten(1, 2), used.flatten(1)).guide
        return Allocation(features, similarity, probability, guide)

    def _allocate(self, query: Tensor, prototypes: Tensor, used: Tensor) -> Allocation:
        found = allocate(query, prototypes, used, merge=self.similarity)
        if self.allocation == "guided":
            return found
        mean = prototypes.sum(1) / used.sum(1, keepdim=True)
        return replace(found, features=mean[:, :, None, None].expand_as(found.features))

    def _reduced(self, features: dict[str, Tensor]) -> Tensor:
        return self.down_conv(joined(features))
