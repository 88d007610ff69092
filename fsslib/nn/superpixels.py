"""Superpixel-guided clustering and guided prototype allocation (ASGNet, arXiv 2104.01893, sections 3.2 and 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import cosine_maps, full_precision, masked_pool, precise
from .seeds import Seeds


@dataclass(frozen=True)
class Superpixels:
    """Prototypes of M support images.

    Attributes:
        prototypes: (M, P, C) float32; unused ones are 0.
        used: (M, P) bool; at least the first of every image.
        assignment: (M, P, h, w) float32, how much each cell weighs in each prototype; sums to 1 over the cells of a
            clustered prototype.
    """

    prototypes: Tensor
    used: Tensor
    assignment: Tensor


@full_precision
def cluster(features: Tensor, masks: Tensor, seeds: Seeds, *, iterations: int = 5, reach: float = 10.0) -> Superpixels:
    """Superpixel-guided clustering (section 3.2) of all images at once; no gradient passes.

    Cells and centres are compared by D = √(‖features‖² + ‖position‖² / r²); a centre becomes the mean of all object
    cells, weighted by exp(−D) (for every centre by itself, so the clusters overlap). Images with fewer than two seeds
    get the masked average instead.

    Args:
        features: (M, C, h, w) float. masks: (M, h, w) float; cells of exactly 1 are clustered.
        seeds: where the centres start. iterations: T. reach: r, cells that weigh as much as one unit of features.
    """
    with torch.no_grad():
        count, channels, height, width = features.shape
        features, masks = features.float(), masks.float()
        inside = (masks == 1).flatten(1)
        cells, order = _cells(features, inside, reach)
        valid = inside.gather(1, order)
        clustered = (seeds.counts >= 2) & inside.any(1)
        index = seeds.points[..., 0] * width + seeds.points[..., 1]
        start = torch.stack([seeds.points[..., 0], seeds.points[..., 1]], -1).float() / reach
        feature = features.flatten(2).transpose(1, 2).gather(1, index[..., None].expand(-1, -1, channels))
        # In double precision: from round to round exp(-D) magnifies the last digits.
        centres, cells = precise(torch.cat([feature, start], -1)), precise(cells)
        for _ in range(iterations):
            # Direct differences: the expanded square would lose 1e-4 near a distance of 0.
            distance = torch.cdist(centres, cells, compute_mode="donot_use_mm_for_euclid_dist")
            distance = distance.masked_fill(~valid[:, None], torch.inf)
            # The softmax is exp(-D) over its sum, without its underflow where every distance is large.
            weights = torch.where(clustered[:, None, None], -distance, 0.0).softmax(-1)
            centres = weights @ cells
        centres, weights = centres.float(), weights.float()
        spread = torch.zeros(count, centres.shape[1], height * width, device=features.device)
        spread.scatter_(2, order[:, None].expand_as(weights), weights)
        average = masked_pool(features, masks)
        used = torch.arange(centres.shape[1], device=features.device) < seeds.counts[:, None].clamp_min(1)
        first = torch.zeros_like(used)
        first[:, 0] = True
        used = torch.where(clustered[:, None], used, first)
        single = torch.where(first[..., None], average[:, None], 0.0)
        prototypes = torch.where(clustered[:, None, None], centres[..., :channels], single)
        alone = torch.where(first[..., None], masks.flatten(1)[:, None], 0.0)
        assignment = torch.where(clustered[:, None, None], spread, alone)
        keep = used[..., None]
        assignment = (assignment * keep).unflatten(-1, (height, width))
        return Superpixels(prototypes * keep, used, assignment)


def _cells(features: Tensor, inside: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Features and scaled position (M, most, C + 2) of the object's cells, then of others; their index (M, most)."""
    width = features.shape[-1]
    # The object's cells first; one synchronisation tells how many the largest object has.
    order = inside.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    most = max(1, int(inside.sum(-1).max()))
    order = order[:, :most]
    rows = features.flatten(2).transpose(1, 2).gather(1, order[..., None].expand(-1, -1, features.shape[1]))
    position = torch.stack([order // width, order % width], -1).float() / reach
    return torch.cat([rows, position], -1), order


@dataclass(frozen=True)
class Allocation:
    """What every query position is told about the support.

    Attributes:
        features: (B, C, h, w) the prototype each position is most similar to. similarity: (B, P, h, w) cosines.
        probability: (B, 1, h, w) sum (or mean) of the cosines. guide: (B, h, w) long, index of the prototype.
    """

    features: Tensor
    similarity: Tensor
    probability: Tensor
    guide: Tensor


@full_precision
def allocate(query: Tensor, prototypes: Tensor, used: Tensor, *, merge: str = "sum") -> Allocation:
    """Guided prototype allocation (section 3.3). Gradients reach the query only.

    Args:
        query: (B, C, h, w) float. prototypes: (B, P, C) float. used: (B, P) bool.
        merge: `"sum"` of the cosines as published (it grows with the number of prototypes), or their `"mean"`.
    """
    similarity = cosine_maps(query, prototypes, scale=1.0)
    ignored = ~used[:, :, None, None]
    probability = similarity.masked_fill(ignored, 0.0).sum(1, keepdim=True)
    if merge == "mean":
        probability = probability / used.sum(1).clamp_min(1)[:, None, None, None]
    with torch.no_grad():
        # In double precision: two prototypes may lie so close that the order of a summation would choose.
        flat, unit = precise(query).flatten(2), F.normalize(precise(prototypes), dim=-1)
        nearest = (unit @ F.normalize(flat, dim=1)).masked_fill(~used[..., None], -torch.inf)
        guide = nearest.argmax(1).unflatten(-1, tuple(query.shape[-2:]))
    chosen = prototypes.transpose(1, 2).gather(2, guide.flatten(1)[:, None].expand(-1, prototypes.shape[-1], -1))
    return Allocation(chosen.unflatten(-1, guide.shape[-2:]), similarity, probability, guide)
