"""ASGNet: as many prototypes as the object has superpixels, and for every query position the best of them.

Li, Jampani, Sevilla-Lara, Sun, Kim, Kim: "Adaptive Prototype Learning and Allocation for Few-Shot Segmentation", CVPR
2021, arXiv 2104.01893; the authors' code is github.com/Reagan1311/ASGNet. Its context module, in `nn.context`, is
PFENet's (arXiv 2008.01449).

In the order of the paper: where superpixels start, superpixel-guided clustering (3.2), guided prototype allocation
(3.3), and the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import Positive, Share, check_count, check_number, check_options
from ..episode import Episode
from ..errors import ModelError
from ..nn.context import SCALES, ASPPContext, FeatureEnrichment, averaged, conv_relu
from ..nn.convolution import Conv2d, pointwise
from ..ops import cosine_maps, full_precision, masked_pool, object_cells, precise, resize
from .base import Features, Outcome, enriched_losses, joined, joined_width
from .start import Start, StartedModel

# Section 3.2, the start: seeds spread over the object by farthest-point sampling.

_FAR = 1 << 30  # a squared distance beyond every grid


@dataclass(frozen=True)
class Seeds:
    """Initial superpixel centres of M support images."""

    points: Tensor  # (M, P, 2) long, row and column on the feature grid; rows from `counts` on are 0 and unused
    counts: Tensor  # (M,) long, number of superpixels; 0 or 1 means masked average pooling instead


@torch.no_grad()
def published_seeds(masks: Tensor, size: tuple[int, int], most: int = 5, area: float = 100.0) -> Seeds:
    """The seeds of the authors' data loader, with its quirks, for a whole batch at once.

    The mask is sampled on a grid of its own (source index ⌊i·H/h⌋, so a seed may lie beside the mask of the features).
    P = min(round(cells / area), most), halves to even. The first seed lies farthest from the background inside the
    object's bounding box (neither box nor image border count as background), each further one farthest from background
    and earlier seeds. A box without background is measured from a point above its left corner, as scipy does.
    Then the model counts seeds by their non-zero coordinates, once in rows and once in columns, and takes the larger
    count: where every seed has a 0 in neither, none is lost; the last one is where both counts fall short.

    Args:
        masks: (M, H, W) bool, the object. size: grid (h, w) of the features.
        most: largest number of superpixels N_max. area: cells per superpixel S_sp.
    """
    rows, columns = (torch.arange(n, device=masks.device) * m // n for n, m in zip(size, masks.shape[-2:]))
    grid = masks[:, rows][:, :, columns]
    cells = grid.sum((-2, -1))
    # Halves to even; no more than there are cells.
    counts = torch.minimum(torch.round(precise(cells) / area).clamp_max(most).long(), cells)
    inside = _span(grid.any(2))[:, :, None] & _span(grid.any(1))[:, None]  # the bounding box
    distance = _squared_distance(inside & ~grid)
    # scipy's transform of an image without background.
    full = ~(inside & ~grid).flatten(1).any(1)
    top, left = (inside.any(axis).to(torch.uint8).argmax(-1) for axis in (2, 1))
    virtual = _squared_to(torch.stack([top - 1, left], -1), size)
    distance = torch.where(full[:, None, None], virtual, distance)
    points = _farthest(torch.where(grid, distance, -1), most, forget=full)
    used = (torch.arange(most, device=masks.device) < counts[:, None]) & (counts >= 2)[:, None]
    points = torch.where(used[..., None], points, 0)
    counted = (points > 0).sum(1).amax(-1)
    return Seeds(points, torch.where(counts >= 2, counted, counts))


@torch.no_grad()
def clean_seeds(masks: Tensor, size: tuple[int, int], most: int = 5, area: float = 100.0) -> Seeds:
    """Seeds as the paper describes them: ⌊cells / area⌋ of them, on the very cells that are clustered.

    The first lies farthest from the background, the image border included; no seed is lost on the way.
    Arguments as in `published_seeds`.
    """
    grid = resize(masks.float(), size) == 1
    cells = grid.sum((-2, -1))
    counts = torch.minimum((precise(cells) / area).floor().clamp_max(most).long(), cells)
    framed = F.pad(grid, (1, 1, 1, 1))
    distance = _squared_distance(~framed)[:, 1:-1, 1:-1]
    points = _farthest(torch.where(grid, distance, -1), most)
    used = torch.arange(most, device=masks.device) < counts[:, None]
    return Seeds(torch.where(used[..., None], points, 0), counts)


def _span(some: Tensor) -> Tensor:
    """(M, n) bool: from the first true value of each row to the last."""
    return (some.cumsum(-1) > 0) & (some.flip(-1).cumsum(-1) > 0).flip(-1)


def _squared_distance(background: Tensor) -> Tensor:
    """Exact squared Euclidean distance of every cell to the nearest true cell of (M, h, w), long; `_FAR` without one.
    Separable: first along columns, then along rows."""
    i, j = (torch.arange(n, device=background.device) for n in background.shape[-2:])
    along, across = (i[:, None] - i) ** 2, (j[:, None] - j) ** 2
    column = torch.where(background[:, None], along[:, :, None], _FAR).amin(2)
    return (column[:, :, None] + across).amin(-1).clamp_max(_FAR)


def _squared_to(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Squared distance (M, h, w) long of every cell of a grid `size` to its image's point (M, 2)."""
    i, j = (torch.arange(n, device=points.device) for n in size)
    return ((i - points[:, :1]) ** 2)[:, :, None] + ((j - points[:, 1:]) ** 2)[:, None]


def _farthest(distance: Tensor, count: int, forget: Tensor | None = None) -> Tensor:
    """`count` cells (M, count, 2), each the first maximum of the distance to background and earlier points.

    Args:
        distance: (M, h, w) long, squared; -1 where no point may lie.
        forget: (M,) bool: after the first point only the distance to points counts.
    """
    size = tuple(distance.shape[-2:])
    allowed, points = distance >= 0, []
    for step in range(count):
        best = distance.flatten(1).argmax(1)
        points.append(torch.stack([best // size[1], best % size[1]], -1))
        to_point = _squared_to(points[-1], size)
        if step == 0 and forget is not None:
            distance = distance.masked_fill(forget[:, None, None], _FAR)
        distance = torch.where(allowed, torch.minimum(distance, to_point), -1)
    return torch.stack(points, 1)


# Section 3.2, superpixel-guided clustering: from the seeds to the prototypes.


@dataclass(frozen=True)
class Superpixels:
    """Prototypes of M support images."""

    prototypes: Tensor  # (M, P, C) float32; unused ones are 0
    used: Tensor  # (M, P) bool; at least the first of every image
    assignment: Tensor  # (M, P, h, w) float32, weight of each cell in each prototype; of a clustered one the sum is 1


@full_precision
def cluster(
    features: Tensor, masks: Tensor, seeds: Seeds, *, iterations: int = 5, reach: float = 10.0,
    sharpness: float | None = None,
) -> Superpixels:  # fmt: skip
    """Superpixel-guided clustering of all images at once; no gradient passes.

    Cells and centres are compared by D = √(‖features‖² + ‖position‖² / r²); a centre becomes the mean of all object
    cells, weighted by exp(−D) (for every centre by itself, so the clusters overlap). Images with fewer than two seeds
    get the masked average instead.

    Args:
        features: (M, C, h, w) float. masks: (M, h, w) float; cells of exactly 1 are clustered.
        seeds: where the centres start. iterations: T. reach: r, cells that weigh as much as one unit of features.
        sharpness: None as published. A number makes it exp(−sharpness · D / σ), with the standard deviation σ of the
            object's cells (all channels and the position together), so that the length of the features is of no matter.
    """
    with torch.no_grad():
        count, channels, height, width = features.shape
        features, masks = features.float(), masks.float()
        inside = (masks == 1).flatten(1)
        order, valid = object_cells(inside)
        clustered = (seeds.counts >= 2) & inside.any(1)
        # In double precision: from round to round exp(-D) magnifies the last digits.
        cells = precise(_cells(features, order, reach))
        centres = precise(_cells(features, seeds.points[..., 0] * width + seeds.points[..., 1], reach))
        scale = 1.0 if sharpness is None else _deviation(cells, valid) / sharpness
        for _ in range(iterations):
            # Direct differences: the expanded square would lose 1e-4 near a distance of 0.
            distance = torch.cdist(centres, cells, compute_mode="donot_use_mm_for_euclid_dist")
            distance = distance.masked_fill(~valid[:, None], torch.inf)
            # The softmax is exp(-D) over its sum, without its underflow where every distance is large.
            weights = torch.where(clustered[:, None, None], -distance / scale, 0.0).softmax(-1)
            centres = weights @ cells
        centres, weights = centres.float(), weights.float()
        spread = torch.zeros(count, centres.shape[1], height * width, device=features.device)
        spread.scatter_(2, order[:, None].expand_as(weights), weights)
        number = torch.arange(centres.shape[1], device=features.device)[:, None]
        used = number < torch.where(clustered, seeds.counts, 1)[:, None, None]
        # Images that are not clustered have one prototype, the masked average.
        average, whole = masked_pool(features, masks)[:, None], masks.flatten(1)[:, None]
        prototypes = torch.where(clustered[:, None, None], centres[..., :channels], average) * used
        assignment = torch.where(clustered[:, None, None], spread, whole) * used
        return Superpixels(prototypes, used[..., 0], assignment.unflatten(-1, (height, width)))


def _cells(features: Tensor, order: Tensor, reach: float) -> Tensor:
    """Features and scaled position (M, n, C + 2) of the cells `order` (M, n), numbered row by row."""
    channels, _, width = features.shape[1:]
    rows = features.flatten(2).transpose(1, 2).gather(1, order[..., None].expand(-1, -1, channels))
    position = torch.stack([order // width, order % width], -1).float() / reach
    return torch.cat([rows, position], -1)


def _deviation(cells: Tensor, valid: Tensor) -> Tensor:
    """Root mean square distance (M, 1, 1) of the valid ones of (M, n, C + 2) cells from their mean; never 0."""
    share = valid[..., None] / valid.sum(1).clamp_min(1)[:, None, None]
    middle = (cells * share).sum(1, keepdim=True)
    return ((cells - middle).square() * share).sum((1, 2), keepdim=True).sqrt().clamp_min(1e-6)


# Section 3.3, guided prototype allocation: every query position chooses.


@dataclass(frozen=True)
class Allocation:
    """What every query position is told about the support."""

    prototypes: Tensor  # (B, P, C)
    shares: Tensor  # (B, P, h, w) float32, how much of each; 1 of the one that a position is most similar to
    similarity: Tensor  # (B, P, h, w) cosines
    probability: Tensor  # (B, 1, h, w), sum (or mean) of the cosines
    guide: Tensor  # (B, h, w) long, index of the prototype

    @property
    def features(self) -> Tensor:
        """(B, C, h, w), the prototypes laid out over the query."""
        return torch.einsum("bpc,bphw->bchw", self.prototypes, self.shares)


@full_precision
def allocate(query: Tensor, prototypes: Tensor, used: Tensor, *, merge: str = "sum") -> Allocation:
    """Guided prototype allocation. Gradients reach the query only.

    Args:
        query: (B, C, h, w) float. prototypes: (B, P, C) float. used: (B, P) bool.
        merge: `"sum"` of the cosines as published (it grows with the number of prototypes), their `"mean"` or `"max"`.
    """
    similarity = cosine_maps(query, prototypes, scale=1.0)
    ignored = ~used[:, :, None, None]
    probability = similarity.masked_fill(ignored, 0.0).sum(1, keepdim=True)
    if merge == "mean":
        probability = probability / used.sum(1).clamp_min(1)[:, None, None, None]
    if merge == "max":
        probability = similarity.masked_fill(ignored, -1.0).amax(1, keepdim=True)
    with torch.no_grad():
        # In double precision: two prototypes may lie so close that the order of a summation would choose.
        # The norm of the query is left out, which is the same for all of them.
        nearest = F.normalize(precise(prototypes), dim=-1) @ precise(query).flatten(2)
        nearest = nearest.masked_fill(~used[..., None], -torch.inf)
        guide = nearest.argmax(1).unflatten(-1, tuple(query.shape[-2:]))
        numbers = torch.arange(prototypes.shape[1], device=query.device)[:, None, None]
        shares = (guide[:, None] == numbers).float()
    return Allocation(prototypes, shares, similarity, probability, guide)


class AllocatedEnrichment(FeatureEnrichment):
    """Feature enrichment of features (pooled) with what is allocated to them (first argument) and its probability map
    (resized). The merge is linear: it meets the few prototypes, not the maps that they are laid out to. With None in
    place of the allocation its maps are among the pooled ones."""

    def _merge(self, level: int, grid: tuple[int, int], told: Allocation | None, pooled: Tensor, resized: Tensor):
        if told is None:
            return super()._merge(level, grid, None, pooled, resized)
        conv, relu = self.merge[level]
        own, theirs, last = conv.weight.flatten(1).split([pooled.shape[1], told.prototypes.shape[-1], 1], 1)
        (features,), (shares,) = (averaged(maps, [grid]) for maps in (pooled, told.shares))
        columns = torch.cat([told.prototypes @ theirs.T, last.T.expand(len(pooled), 1, -1)], 1)
        maps = torch.cat([shares, resize(resized, grid)], 1)
        return relu(pointwise(features, own[..., None, None]) + torch.einsum("bpc,bphw->bchw", columns, maps))


# The network. First our names of modules and the authors'; the ASPP variant has other modules behind some of theirs.

_PYRAMID = {
    "context.merge.": "corr_conv.", "context.alpha.": "alpha_conv.", "context.beta.": "beta_conv.",
    "context.inner.": "inner_cls.", "context.classifier.": "cls.", "context.": "",
}  # fmt: skip
_ASPP = {
    "context.aspp.branches.": "ASPP.layer6_", "context.aspp.fuse.": "ASPP.layer7.", "context.merge.": "corr_conv.",
    **{f"context.blocks.{i}.{j}.": f"skip{i + 1}.{j + 1}." for i in range(3) for j in (0, 2)},
    "context.skip.0.": "decoder.conv1.", "context.skip.1.": "decoder.bn1.", "context.decode.": "decoder.last_conv.",
    "context.classifier.": "cls.", "context.auxiliary.": "cls_aux.",
}  # fmt: skip


class ASGNet(StartedModel):
    """ASGNet (CVPR 2021, arXiv 2104.01893).

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
        seeds: `"published"` placement and counting, or `"clean"` (paper), see `published_seeds`.
        iterations: of the clustering in training and in evaluation. reach: r, weight of the distance in cells.
        sharpness: None for the weights exp(−D) of the paper; a number divides D by the features' scale, see `cluster`.
        allocation: `"guided"`, or `"expand"`: the mean of all prototypes at every position.
        similarity: Π is the `"sum"` of the cosines, their `"mean"`, which does not grow with the prototypes, or the
            cosine of the best one (`"max"`); a sum asks only for the sum of the unit prototypes, as if there were one.
        shot_merge: `"pool"` the prototypes of all supports, or `"average"` what each support alone would allocate.
        fusion: merge F_q, s_G and Π at every scale (`"scales"`), or by one 1x1 convolution before (`"once"`, paper).
        aux_weight: weight of the auxiliary logits' loss. dropout: channel dropout of the reduced features.
        freeze: keep the backbone's parameters as they are. start: see `StartedModel`.
    Maps with `explain` (B episodes, K shots, P = max_superpixels, C = width): `query_features` (B, C, h, w),
    `prototypes` (B, K·P, C), `prototypes_used` (B, K·P) 0 or 1, `seeds` (B, K, P, 2) row and column, `superpixels`
    (B, K, P, h, w) weights of the cells in each centroid, `similarity` (B, K·P, h, w), `probability` (B, 1, h, w),
    `guide` (B, 1, h, w) index into the prototypes, `guide_features` (B, C, h, w), `inner/0`… (B, 2, rows, columns).

    Raises ModelError: an unknown choice, an impossible number, or a backbone that ends before layer3.
    """

    stem = "deep"

    def __init__(
        self, backbone: nn.Module, *, width: int = 256, pyramid: bool = True, scales: Sequence[float] = SCALES,
        max_superpixels: int = 5, superpixel_area: Positive = 100.0, adaptive: bool = True,
        seeds: Literal["published", "clean"] = "published", iterations: Sequence[int] = (10, 5),
        reach: Positive = 10.0, sharpness: float | None = None, allocation: Literal["guided", "expand"] = "guided",
        similarity: Literal["sum", "mean", "max"] = "sum", shot_merge: Literal["pool", "average"] = "pool",
        fusion: Literal["scales", "once"] = "scales", aux_weight: float = 1.0, dropout: Share = 0.5,
        freeze: bool = True, start: Start = "random",
    ):  # fmt: skip
        super().__init__(backbone, freeze=freeze)
        check_options(ASGNet, locals(), "asgnet")
        if sharpness is not None:
            check_number(sharpness, "asgnet: sharpness", zero=False)
        if not isinstance(iterations, Sequence) or isinstance(iterations, str) or len(iterations) != 2:
            raise ModelError(f"asgnet: iterations={iterations!r}: expected two numbers, of training and evaluation.")
        for value in iterations:
            check_count(value, "asgnet: iterations")
        # No ReLU: the cosine shall use the whole range from -1 to 1.
        reduce = Conv2d(joined_width(backbone, "asgnet"), width, 1, bias=False)
        self.down_conv = nn.Sequential(reduce, nn.Dropout2d(dropout))
        self.fuse = nn.Sequential(*conv_relu(2 * width + 1, width, 1)) if fusion == "once" else None
        pooled, resized = (width, 0) if self.fuse else (2 * width, 1)
        if pyramid:
            enrichment = FeatureEnrichment if self.fuse else AllocatedEnrichment
            self.context = enrichment(constant=0, pooled=pooled, resized=resized, width=width, scales=scales)
        else:
            shallow = backbone.channels["layer1"]
            self.context = ASPPContext(inputs=pooled + resized, shallow=shallow, width=width, dropout=dropout)
        self.begin(start, self.context.classifier[-1])
        self.pyramid, self.aux_weight = pyramid, aux_weight
        self.max_superpixels, self.superpixel_area, self.adaptive = max_superpixels, superpixel_area, adaptive
        self.seeds, self.iterations, self.reach, self.sharpness = seeds, tuple(iterations), reach, sharpness
        self.allocation, self.similarity, self.shot_merge = allocation, similarity, shot_merge

    @property
    def official_prefixes(self) -> dict[str, str]:
        """Both context modules have names of their own."""
        return {"backbone.": ""} | (_PYRAMID if self.pyramid else _ASPP)

    @property
    def official_unused(self) -> tuple[str, ...]:
        """The authors build and save layer4, and never run it; here it may be left out with `last="layer3"`."""
        return () if "layer4" in self.backbone.channels else ("layer4.",)

    def features(self, episode: Episode) -> tuple[Features, Features]:
        """`reduced` features (C = width), and for the ASPP decoder the query's `shallow` ones."""
        query, support = self.encode(episode, ["layer2", "layer3"] + ["layer1"] * (not self.pyramid))
        query_side = {"reduced": self.down_conv(joined(query))}
        if not self.pyramid:
            query_side["shallow"] = query["layer1"]
        flat = {stage: value.flatten(0, 2) for stage, value in support.items()}
        with torch.no_grad():  # prototypes are constants
            reduced = self.down_conv(joined(flat)).unflatten(0, support["layer3"].shape[:3])
        return query_side, {"reduced": reduced}

    def segment(self, query: Features, support: Features, masks: Tensor, labels: Tensor | None, learn: bool) -> Outcome:
        features = query["reduced"]
        seeds, superpixels = self.superpixels(support["reduced"], masks)
        told = self.allocate(features, superpixels, masks.shape[1])
        together = features.float()
        if self.fuse or not self.pyramid:
            together = torch.cat([together, told.features, told.probability], 1)
            together = self.fuse(together) if self.fuse else together
        if self.pyramid:
            given = (None, together, None) if self.fuse else (told, together, told.probability)
            small, inner = self.context(*given, inner=learn or self.explain)
        else:
            small, inner = self.context(together, query["shallow"], inner=learn or self.explain)
        image = tuple(masks.shape[-2:])
        logits = resize(small.float(), image) + self.first_logits(query, support, masks, image)
        split = masks.shape[:2]
        maps = {"query_features": features, "seeds": seeds.points.unflatten(0, split)}
        maps["superpixels"] = superpixels.assignment.unflatten(0, split)
        maps["prototypes"] = superpixels.prototypes.unflatten(0, split).flatten(1, 2)
        maps["prototypes_used"] = superpixels.used.unflatten(0, split).flatten(1)
        maps |= {"similarity": told.similarity, "probability": told.probability}
        maps |= {"guide": told.guide[:, None]} | ({"guide_features": told.features} if self.explain else {})
        maps |= {f"inner/{i}": level for i, level in enumerate(inner)}
        losses = enriched_losses(logits, inner, labels) if learn else {}
        if learn:
            losses["total"] = losses["main"] + self.aux_weight * losses["aux"]
        return Outcome(logits, losses, maps)

    def superpixels(self, features: Tensor, masks: Tensor) -> tuple[Seeds, Superpixels]:
        """Cluster the objects of all supports at once.

        Args: features: (B, K, C, h, w) float. masks: (B, K, H, W) long, 1 object.
        Returns: seeds and prototypes of the B·K support images.
        """
        flat, objects = features.flatten(0, 1), (masks == 1).flatten(0, 1)
        size = tuple(flat.shape[-2:])
        place = published_seeds if self.seeds == "published" else clean_seeds
        area = self.superpixel_area if self.adaptive else self.superpixel_area * 1e-9
        seeds = place(objects, size, self.max_superpixels, area)
        iterations = self.iterations[0] if self.training else self.iterations[1]
        small = resize(objects.float(), size)
        how = {"iterations": iterations, "reach": self.reach, "sharpness": self.sharpness}
        return seeds, cluster(flat, small, seeds, **how)

    def allocate(self, query: Tensor, superpixels: Superpixels, shot: int) -> Allocation:
        """Tell every position of the query (B, C, h, w) about the superpixels of its B·K supports."""
        shots = [of.unflatten(0, (len(query), shot)) for of in (superpixels.prototypes, superpixels.used)]
        pooled = [of.flatten(1, 2) for of in shots]
        if self.shot_merge == "pool":
            return self._allocate(query, *pooled)
        parts = [self._allocate(query, *one) for one in zip(*(of.unbind(1) for of in shots))]
        shares = torch.cat([part.shares for part in parts], 1) / shot
        probability = torch.stack([part.probability for part in parts]).mean(0)
        similarity = torch.cat([part.similarity for part in parts], 1)
        return Allocation(pooled[0], shares, similarity, probability, allocate(query, *pooled).guide)

    def _allocate(self, query: Tensor, prototypes: Tensor, used: Tensor) -> Allocation:
        guided = allocate(query, prototypes, used, merge=self.similarity)
        if self.allocation == "guided":
            return guided
        shares = used / used.sum(1, keepdim=True)
        return replace(guided, shares=shares[..., None, None].expand_as(guided.shares))
