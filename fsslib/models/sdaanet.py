"""SD-AANet: prototypes guided by self-distillation, and an attention map learned from the support."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..episode import Episode
from ..errors import ModelError
from ..losses import distillation, segmentation
from ..nn.backbones import STAGES, check_count, check_number, check_switch, choose
from ..nn.enrichment import SCALES, FeatureEnrichment
from ..nn.saam import SAAM
from ..nn.sdpm import SDPM
from ..ops import masked_pool, prior_mask, resize
from .one_way import OneWayModel, Outcome, joined

# Our names of modules and the authors'.
_OFFICIAL = {
    "backbone.": "",
    "sdpm.gate.": "se_supp.",
    "saam.reduce.": "simple_mask.",
    "saam.pyramid.": "simple_mask.2.",
    "saam.bottleneck.": "simple_mask.2.bottleneck.",
    "saam.support_logits.": "s_cls.",
    "saam.query_map.": "q_maskgeneration.",
    "enrichment.merge.": "init_merge.",
    "enrichment.alpha.": "alpha_conv.",
    "enrichment.beta.": "beta_conv.",
    "enrichment.inner.": "inner_cls.",
    "enrichment.classifier.": "cls.",
    "enrichment.": "",
}


class SDAANet(OneWayModel):
    """Zhao, Liu, Lyu, Chen: "A Self-Distillation Embedded Supervised Affinity Attention Model for Few-Shot
    Segmentation", arXiv 2108.06600 (IEEE TCDS 2024); built on PFENet (arXiv 2008.01449).

    Symbols: F_q, F_k reduced features of query and support k; p_k masked average of F_k; g_k channel factor, S_k,
    T_k student and teacher (SDPM); A attention map of the query (SAAM); R prior mask.
    L = L_main + L_aux + α·L_KD + β·L_saam.
    Without options it computes what the authors' code computes; "paper" below names the reading of the paper.

    Args:
        width: channels of the reduced features (256 in the paper); everything behind them scales along.
        scales: grids of the feature enrichment, see `FeatureEnrichment`.
        sdpm, saam, prior: switch off a part for an ablation: gate and distillation, attention, prior mask.
        alpha, beta, aux_weight: weights of the distillation, of the supervised attention and of the inner logits.
        temperature, kd_factor, kd_mean: see `losses.distillation`; paper: 1, 1, `"prototypes"`.
        teacher: `"prototypes"` (distribution of the averaged prototypes) or `"distributions"` (average of the two
            distributions; paper).
        teacher_query: `"original"` query features in the teacher, or `"reweighted"` by each support's gate (paper).
        teachers: `"separate"`, one per support with its own student, or `"integral"`, one for all.
        detach_teacher: stop the gradient into the teacher (paper: the teacher guides); the code lets it pass.
        query_factor: `"product"` of all factors and their average once more; `"average"`, the same with the averaged
            factor in place of the product (equal at one shot, of the same size at any); `"mean"` (paper); `"none"`.
        attention: query map from the `"mean_prototype"`, or the mean of the maps of `"each_support"` (paper).
        prior_masking: mask the support `"twice"`, before and after the deepest stage, or only `"after"` it, which saves
            a pass through that stage and lets cached features serve.
        dropout: channel dropout of the reduced features.
        freeze: keep the backbone's parameters as they are.
    Maps with `explain` (B episodes, K shots, C = width, on an h x w grid): `query_features`, `query_reweighted`
    (B, C, h, w), `support_features` (B, K, C, h, w), `pooled`, `gate`, `students`, `teacher` (B, K, C), `prototypes`,
    `query_factor`, `query_prototype` (B, C), `prior` and `attention` (B, 1, h, w), `prior_shots` (B, K, h, w),
    `support_attention` (B, K, 2, h, w), `inner/0`… (B, 2, rows, columns). `teacher` and `query_prototype` need query
    masks, `support_attention` the eval mode; what is switched off has no maps.

    Raises:
        ModelError: an unknown choice, an impossible number, or a backbone that ends before layer3.
    """

    official_prefixes = _OFFICIAL

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int = 256,
        scales: Sequence[float] = SCALES,
        sdpm: bool = True,
        saam: bool = True,
        prior: bool = True,
        alpha: float = 50.0,
        beta: float = 0.5,
        aux_weight: float = 1.0,
        temperature: float = 5.0,
        kd_factor: float = 0.9,
        kd_mean: str = "elements",
        teacher: str = "prototypes",
        teacher_query: str = "original",
        teachers: str = "separate",
        detach_teacher: bool = False,
        query_factor: str = "product",
        attention: str = "mean_prototype",
        prior_masking: str = "twice",
        dropout: float = 0.5,
        freeze: bool = True,
    ):
        super().__init__(backbone, freeze=bool(freeze))
        if "layer3" not in backbone.channels:
            raise ModelError(f"sdaanet needs layer2 and layer3; {backbone.name} ends at {backbone.deepest}.")
        check_count(width, "sdaanet: width")
        switches = {"sdpm": sdpm, "saam": saam, "prior": prior, "detach_teacher": detach_teacher, "freeze": freeze}
        for name, value in switches.items():
            check_switch(value, f"sdaanet: {name}")
        for name, value in {"alpha": alpha, "beta": beta, "aux_weight": aux_weight, "kd_factor": kd_factor}.items():
            check_number(value, f"sdaanet: {name}")
        check_number(temperature, "sdaanet: temperature", zero=False)
        check_number(dropout, "sdaanet: dropout", 1)
        choose(kd_mean, ("elements", "prototypes"), "sdaanet: kd_mean=")
        choose(attention, ("mean_prototype", "each_support"), "sdaanet: attention=")
        choose(prior_masking, ("twice", "after"), "sdaanet: prior_masking=")
        inputs = backbone.channels["layer3"] + backbone.channels["layer2"]
        self.down_query, self.down_supp = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.ReLU(), nn.Dropout2d(dropout)) for _ in range(2)
        )
        own = {"query_factor": query_factor, "teacher": teacher, "teacher_query": teacher_query}
        own |= {"teachers": teachers, "detach_teacher": detach_teacher}
        self.sdpm = SDPM(width, **own) if sdpm else None
        self.saam = SAAM(width) if saam else None
        maps = int(prior) + int(saam)
        self.enrichment = FeatureEnrichment(constant=width, pooled=width, resized=maps, width=width, scales=scales)
        self.prior, self.prior_masking, self.attention = prior, prior_masking, attention
        self.weights = {"main": 1.0, "aux": aux_weight, "kd": alpha, "saam": beta}
        self.distil = {"temperature": temperature, "factor": kd_factor, "mean": kd_mean}

    def features(self, episode: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`reduced` features (C = width) and, for the prior, those of the `deep`est stage."""
        deepest = self.backbone.deepest
        stages = ["layer2", "layer3"]
        if self.prior and self.prior_masking == "after" and deepest == "layer4":
            stages.append(deepest)
        query, support = self.encode(episode, stages)
        found = {"reduced": self.down_query(joined(query))}, {"reduced": self._reduced_supports(support)}
        if self.prior:
            for side, deep in zip(found, self._deep(episode, query, support)):
                side["deep"] = deep
        return found

    def segment(
        self, query: dict[str, Tensor], support: dict[str, Tensor], masks: Tensor, labels: Tensor | None, learn: bool
    ) -> Outcome:
        query_features, support_features = query["reduced"], support["reduced"]
        size, image = tuple(query_features.shape[-2:]), tuple(masks.shape[-2:])
        soft = resize((masks == 1).float(), size)
        prototypes = masked_pool(support_features, soft)
        maps = {"query_features": query_features, "support_features": support_features, "pooled": prototypes}
        losses: dict[str, Tensor] = {}
        guides = []
        if self.prior:
            # Masked here once more, also what was masked before the deepest stage.
            at_deep = resize((masks == 1).float(), tuple(support["deep"].shape[-2:]))
            shots = prior_mask(query["deep"], support["deep"], at_deep)
            maps |= {"prior_shots": shots, "prior": shots.mean(1, keepdim=True)}
            guides.append(resize(maps["prior"], size))
        if self.saam:
            # The support first: in training the running statistics of the head follow the order of its calls.
            if learn or (self.explain and not self.training):
                maps["support_attention"] = self.saam.support(support_features, prototypes)
            if learn:
                losses["saam"] = self._supervised(maps["support_attention"], masks)
            maps["attention"] = self._attention(query_features, prototypes)
            guides.append(maps["attention"].float())
        students, query_factor = prototypes, None
        if self.sdpm:
            gate, students, query_factor = self.sdpm(prototypes)
            maps |= {"gate": gate, "query_factor": query_factor}
            if labels is not None:
                nearest = nn.functional.interpolate((labels == 1).float()[:, None], size, mode="nearest")[:, 0]
                own = masked_pool(query_features, nearest)
                log_teacher, teacher = self.sdpm.log_teacher(gate, students, own, self.distil["temperature"])
                losses["kd"] = distillation(students, log_teacher, **self.distil)
                maps |= {"query_prototype": own, "teacher": teacher}
        if query_factor is not None:
            query_features = query_features * query_factor.to(query_features.dtype)[:, :, None, None]
        merged = students.mean(1)
        maps |= {"students": students, "prototypes": merged, "query_reweighted": query_features}
        small, inner = self.enrichment(merged, query_features, torch.cat(guides, 1) if guides else None)
        logits = resize(small.float(), image)
        maps |= {f"inner/{i}": level for i, level in enumerate(inner)}
        if learn:
            levels = [segmentation(resize(level.float(), image), labels) for level in inner]
            losses |= {"main": segmentation(logits, labels), "aux": torch.stack(levels).mean()}
            terms = {name: losses.get(name, logits.new_zeros(())) for name in ("main", "aux", "kd", "saam")}
            losses = terms | {"total": sum(self.weights[name] * value for name, value in terms.items())}
        return Outcome(logits, losses, maps)

    def _reduced_supports(self, support: dict[str, Tensor]) -> Tensor:
        both = joined({stage: value.flatten(0, 2) for stage, value in support.items()})
        return self.down_supp(both).unflatten(0, support["layer3"].shape[:3])

    @torch.no_grad()
    def _deep(self, episode: Episode, query: dict[str, Tensor], support: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features of the deepest stage for the prior: (B, C, h, w) and (B, N, K, C, h, w), without gradient."""
        deepest = self.backbone.deepest
        if self.prior_masking == "after":
            return query[deepest], support[deepest]
        before = STAGES[STAGES.index(deepest) - 1]
        masks = (episode.support_masks == 1).float()
        masked = support[before] * resize(masks, tuple(support[before].shape[-2:])).unsqueeze(3)
        shape, stage = masked.shape[:3], partial(self.backbone.deeper, stage=deepest)
        if self.batch_statistics:
            deep = query[deepest] if deepest in query else stage(query[before])
            calls = [stage(masked[:, w, k]) for w in range(shape[1]) for k in range(shape[2])]
            return deep, torch.stack(calls, 1).unflatten(1, shape[1:])
        if deepest in query:
            return query[deepest], stage(masked.flatten(0, 2)).unflatten(0, shape)
        both = stage(torch.cat([query[before], masked.flatten(0, 2).to(query[before].dtype)]))
        return both[: shape[0]], both[shape[0] :].unflatten(0, shape)

    def _supervised(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross entropy of (B, K, 2, h, w) with the support masks (B, K, H, W), mean over the shots."""
        size = tuple(masks.shape[-2:])
        shots = [
            segmentation(resize(own.float(), size), label) for own, label in zip(logits.unbind(1), masks.unbind(1))
        ]
        return torch.stack(shots).mean()

    def _attention(self, query: Tensor, prototypes: Tensor) -> Tensor:
        if self.attention == "mean_prototype":
            return self.saam.query(query, prototypes.mean(1))
        return torch.stack([self.saam.query(query, own) for own in prototypes.unbind(1)]).mean(0)
