"""Matching: frozen features, every class a density around its support's cells, refined by the query's own likeness.

Nothing is trained: what a method learns on photographs has to beat this. The ideas, in equations of our own: several
prototypes a class, and a Gram matrix that refines, are those of FSSDINO (Mohd Zakir, Ho: "Revealing the Semantic
Selection Gap in DINOv3 through Training-Free Few-Shot Segmentation", arXiv 2602.07550); that what was found is carried
on to what resembles it in the query, of INSID3 (Cuttano et al.: "INSID3: Training-Free In-Context Segmentation with
DINOv3", CVPR 2026, arXiv 2603.28480) and of SSP (Fan et al.: "Self-Support Few-Shot Semantic Segmentation", ECCV 2022,
arXiv 2207.11549). One prototype a class is PANet's way (arXiv 1908.06391).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import Positive, check_options, choose
from ..episode import Episode, Prediction
from ..errors import ModelError
from ..losses import segmentation
from ..ops import EPS_NORM, cosine_maps, full_precision, project_mask, resize, upsample
from .base import Features, FewShotModel

LEAST = 1e-30  # added to a density, which is 0 for a class without a single cell
CELLS = 2048  # of the supports, compared at once: all cosines would not fit where images are large and shots are many


class Matching(FewShotModel):
    """Training-free matching; without any layer of its own.

    Symbols: q a cell of the query, s_j the cells of the supports, w_cj the share of cell j in class c (background, or a
    way), α = `scale`, λ = `ridge`.

    1. First guess. A class is as likely at q as its cells are dense around it, all classes being equally likely
       beforehand: d_c(q) = Σ_j w_cj exp(α cos(q, s_j)), a von Mises-Fisher kernel on every cell. A small α makes one
       prototype of all, a large one leaves the nearest cell to decide. Logarithms are averaged over the `stages`.
    2. Refined. The guess g, a probability for each class and cell, is learned by a ridge regression on the query's own
       features and read off again: G (G + λ tr(G) I)⁻¹ g, with G the Gram matrix of the query's centred features. What
       looks alike in the query is so given the same answer, and what was found by chance is forgotten.

    Args:
        backbone: any `fsslib.nn.backbones.base.Backbone`.
        stages: whose features are matched; None takes layer3 and layer4, or the deepest where there is neither.
        scale: α; with "means" the temperature of PANet, which has 20.
        prototypes: "cells", every cell of the supports is one; "means", one a class as in PANet: α cos(q, p_c) with
            p_c the mean over all its cells.
        refine: whether the second step is taken. Without it "means" of one stage and one support are PANet's logits.
        ridge: λ, as a share of the features' whole variance: more gives smoother answers.
        freeze: keep the backbone's parameters as they are.
    """

    def __init__(
        self, backbone: nn.Module, *, stages: Sequence[str] | None = None, scale: Positive = 30.0,
        prototypes: Literal["cells", "means"] = "cells", refine: bool = True, ridge: Positive = 0.01,
        freeze: bool = True,
    ):  # fmt: skip
        super().__init__(backbone, freeze=freeze)
        check_options(Matching, locals(), "matching")
        stages = default_stages(backbone) if stages is None else stages
        if isinstance(stages, str) or not stages:
            raise ModelError(f"matching: stages={stages!r}: expected a list of names, e.g. ('layer3', 'layer4').")
        for stage in stages:
            choose(stage, tuple(backbone.channels), "matching: stage")
        self.stages = tuple(stages)
        self.scale, self.prototypes, self.refine, self.ridge = scale, prototypes, refine, ridge

    def forward(self, episode: Episode) -> Prediction:
        episode.validate(values=False)
        query, support = self.features(episode)
        how = {"scale": self.scale, "prototypes": self.prototypes, "refine": self.refine, "ridge": self.ridge}
        scores = matched(query, support, episode.support_masks, **how)
        last = self.scale * scores["refined"] if self.refine else scores["similarity"]
        logits = upsample(last, tuple(episode.query_images.shape[-2:]))
        maps = {f"query_features/{stage}": value for stage, value in query.items()} if self.explain else {}
        return Prediction(logits, self.keep(**scores, **maps))

    def losses(self, episode: Episode) -> dict[str, Tensor]:
        """`query`, the cross-entropy of the logits, and the same as `total`: to compare guesses by. It has a gradient
        only where somebody has unfrozen the backbone."""
        self.require_labels(episode)
        loss = segmentation(self(episode).logits, episode.query_masks)
        return {"query": loss, "total": loss}

    def features(self, episode: Episode) -> tuple[Features, Features]:
        """Features of the queries (B, C, h, w) and of the supports (B, N, K, C, h, w), by stage, on the last's grid."""
        sides = self.encode(episode, self.stages)
        grid = tuple(sides[0][self.stages[-1]].shape[-2:])
        return tuple({stage: resize(value, grid) for stage, value in side.items()} for side in sides)


def default_stages(backbone: nn.Module) -> list[str]:
    """The stages that are matched unless others are named."""
    return [stage for stage in ("layer3", "layer4") if stage in backbone.channels] or [backbone.deepest]


def matched(
    query: Features, support: Features, masks: Tensor, *, scale: float = 30.0, prototypes: str = "cells",
    refine: bool = True, ridge: float = 0.01,
) -> Features:  # fmt: skip
    """What `Matching` says of features by stage, all on one grid: (B, C, h, w) and (B, N, K, C, h, w).

    Args: masks: (B, N, K, H, W) long. Others as in `Matching`.
    Returns: `similarity`, the logits of the first step, and unless `refine` is off `guess`, their probabilities, and
        `refined`; all (B, 1 + N, h, w) float32.
    """
    shares = class_shares(masks, tuple(next(iter(query.values())).shape[-2:]))
    compared = log_densities if prototypes == "cells" else mean_similarities
    scores = {"similarity": sum(compared(query[s], support[s], shares, scale) for s in query) / len(query)}
    if refine:
        scores["guess"] = scores["similarity"].softmax(1)
        scores["refined"] = refined(torch.cat([*map(unit, query.values())], 1), scores["guess"], ridge)
    return scores


def unit(features: Tensor) -> Tensor:
    """Features (..., C, h, w) as float32 vectors of length 1; 0 stays 0."""
    return F.normalize(features.float(), dim=-3, eps=EPS_NORM)


def class_shares(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """How much each support cell counts for each class: as much as the class covers of it, in whichever image.

    Args: masks: (B, N, K, H, W) long; 255 counts for nothing. size: (h, w) of the cells.
    Returns: (B, 1 + N, N·K·h·w) float32, background first; sums to 1 over the cells, to 0 for an absent class.
    """
    way = masks.shape[1]
    background, objects = (project_mask((masks == value).float(), size).flatten(3) for value in (0, 1))
    own = torch.eye(way, device=masks.device).view(1, way, way, 1, 1)  # supports show the object of their own way
    areas = torch.cat([background[:, None], own * objects[:, None]], 1).flatten(2)
    return areas / areas.sum(-1, keepdim=True).clamp_min(EPS_NORM)


def support_cells(support: Tensor) -> Tensor:
    """(B, N, K, C, h, w) as a list of cells, (B, N·K·h·w, C), in the order of `class_shares`."""
    return support.flatten(4).transpose(3, 4).flatten(1, 3)


@full_precision
def log_densities(query: Tensor, support: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Logarithm of Σ_j w_cj exp(scale · cos(q, s_j)) at every cell q of the queries.

    Args: query: (B, C, h, w). support: (B, N, K, C, h, w). shares: w, (B, P, N·K·h·w), of `class_shares`.
    Returns: (B, P, h, w) float32; a class without cells has far less than any other.
    """
    cells = unit(query).flatten(2)
    best = cells.new_full((len(cells), 1, cells.shape[-1]), -1.0)
    densities = cells.new_zeros(*shares.shape[:2], cells.shape[-1])
    # Relative to the largest cosine so far, so that nothing vanishes however large the scale is.
    for some, weights in zip(support_cells(unit(support)).split(CELLS, 1), shares.split(CELLS, 2)):
        cosines = some @ cells
        before, best = best, torch.maximum(best, cosines.amax(1, keepdim=True))
        densities = densities * (scale * (before - best)).exp() + weights @ (scale * (cosines - best)).exp()
    return (scale * best + (densities + LEAST).log()).unflatten(-1, tuple(query.shape[-2:]))


@full_precision
def mean_similarities(query: Tensor, support: Tensor, shares: Tensor, scale: float) -> Tensor:
    """scale · cos(q, p_c) with p_c the mean of the class's cells; arguments and result as of `log_densities`."""
    return cosine_maps(query, shares @ support_cells(support.float()), scale)


@full_precision
def refined(features: Tensor, guess: Tensor, ridge: float) -> Tensor:
    """The guess as a ridge regression on the query's own features gives it back: G (G + λ tr(G) I)⁻¹ guess.

    Solved for cells or for channels, whichever are fewer: X Xᵀ (X Xᵀ + μI)⁻¹ = X (Xᵀ X + μI)⁻¹ Xᵀ.

    Args: features: (B, C, h, w). guess: (B, P, h, w). ridge: λ. Returns: (B, P, h, w) float32, of the same means.
    """
    cells = features.float().flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True)
    answers = guess.flatten(2).transpose(1, 2)
    means = answers.mean(1, keepdim=True)
    few = cells.shape[2] < cells.shape[1]
    gram = cells.transpose(1, 2) @ cells if few else cells @ cells.transpose(1, 2)
    penalty = ridge * gram.diagonal(dim1=1, dim2=2).sum(-1) + EPS_NORM  # features may all be the same
    gram_and_penalty = gram + penalty[:, None, None] * torch.eye(gram.shape[-1], device=gram.device)
    wanted = cells.transpose(1, 2) @ (answers - means) if few else answers - means
    solved = torch.cholesky_solve(wanted, torch.linalg.cholesky(gram_and_penalty))
    answer = (cells if few else gram) @ solved + means
    return answer.transpose(1, 2).unflatten(-1, tuple(features.shape[-2:]))
