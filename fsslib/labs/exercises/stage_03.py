"""Exercises of notebook 03: the prior map, a score for maps, a prior that trusts no single match."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import prior_mask, resize
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "03_prior_mask"


def _case(draw: torch.Generator, masks: Tensor, height: int, width: int) -> tuple:
    """Features as behind a ReLU, of very different lengths, and the masks."""
    sides = torch.randn(2, len(masks), 6, height, width, generator=draw).relu() + 0.2
    return *(sides * (1 + 4 * torch.rand(2, len(masks), 1, height, width, generator=draw))), masks


def _prior_cases() -> Cases:
    case = partial(_case, torch.Generator().manual_seed(3))
    masks, wide = torch.zeros(2, 14, 14, dtype=torch.long), torch.zeros(1, 9, 14, dtype=torch.long)
    masks[0, 3:9, 2:8], masks[0, 9:12], masks[1, 8, :11] = 1, 255, 1
    wide[0, 2:7, 5:12] = 1
    return {
        "two episodes, one with a border of 255 and one with a thin object": case(masks, 4, 4),
        "a picture that is wider than high": case(wide, 3, 5),
        "a full mask": case(torch.ones(1, 14, 14, dtype=torch.long), 4, 4),
        "an empty mask (the prior is 0 everywhere)": case(torch.zeros(1, 14, 14, dtype=torch.long), 4, 4),
    }


def _grid(query: Tensor, inside: Tensor) -> Tensor:
    """The mask on the grid, (B, 1, h, w); ValueError for an empty one, where most slips say nothing of their own."""
    if not inside.any():
        raise ValueError
    return resize(inside.float()[:, None], tuple(query.shape[-2:]))


def _pairs(query: Tensor, support: Tensor, masks: Tensor, unit: bool = True) -> Tensor:
    """Cosines (or dot products) of the masked support's cells, rows, with the query's cells, columns."""
    sides = [F.normalize(x, dim=1) if unit else x for x in (support * _grid(query, masks == 1), query)]
    return torch.einsum("bcs,bcq->bsq", *(x.flatten(2) for x in sides))


def _stretched(maps: Tensor, like: Tensor, eps: float = 1e-7) -> Tensor:
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return ((maps - low) / (high - low + eps)).unflatten(-1, tuple(like.shape[-2:]))


def _best(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    return prior_mask(query, support[:, None], _grid(query, masks == 1), stretch=False)[:, 0]


@exercise(STAGE, _prior_cases, atol=1e-3, slips={
    "mean of the matches: All matches are averaged. The prior keeps the best one: one similar piece of the object is "
    "enough.": lambda q, s, m: _stretched(_pairs(q, s, m).mean(1), q),
    "softmax of the cosines: A softmax makes every match depend on the others. The prior takes the largest cosine as "
    "it is.": lambda q, s, m: _stretched(_pairs(q, s, m).softmax(1).amax(1), q),
    "dot products: These are dot products: long vectors win although they point elsewhere. "
    "Give both sides length 1.": lambda q, s, m: _stretched(_pairs(q, s, m, unit=False).amax(1), q),
    "maximum over the query: The maximum runs over the query. Every query cell looks for its best partner in the "
    "*support*.": lambda q, s, m: _stretched(_pairs(q, s, m).amax(2), q),
    "background takes part: The support's background is compared, too: where does the mask come "
    "in?": lambda q, s, m: _stretched(_pairs(q, s, torch.ones_like(m)).amax(1) + 0 * _grid(q, m == 1).sum(), q),
    "not stretched: The last step is missing: every map is brought to 0..1.": _best,
    "stretched over the batch: One minimum and one maximum serve the whole batch: an episode's prior then depends on "
    "its neighbours.": lambda q, s, m: (
        lambda best: _stretched(best.flatten(), best.flatten()).view_as(best)
    )(_best(q, s, m)),
    "minimum not subtracted: The maximum is 1, but the minimum is not 0: stretching needs both "
    "ends.": lambda q, s, m: (lambda best: best / best.amax((1, 2), keepdim=True))(_best(q, s, m)),
    "255 counted as object: Pixels marked 255 are neither object nor background. "
    "Ask for `masks == 1`.": lambda q, s, m: prior_mask(q, s[:, None], _grid(q, m > 0))[:, 0],
    "mask rounded: The mask came "
    "to the grid by nearest neighbours, which may lose thin objects: resize it bilinearly.": lambda q, s, m: prior_mask(
        q, s[:, None], F.interpolate((m == 1).float()[:, None], q.shape[-2:])
    )[:, 0],
    "empty mask: On an empty mask all matches are equal, and stretching divides 0 by 0: add a little to the "
    "divisor.": lambda q, s, m: _stretched(_pairs(q, s, m).amax(1) if m.any() else 0 * q[:, 0].flatten(1), q, eps=0),
})  # fmt: skip
def my_prior(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    inside = resize((masks == 1).float()[:, None], tuple(query.shape[-2:]))
    return prior_mask(query, support[:, None], inside)[:, 0]


def _contrast_cases() -> Cases:
    # As large as the notebook's pictures: whether a variance divides by n or n - 1 makes no difference here.
    score = torch.randn(120, 100, generator=torch.Generator().manual_seed(4)) * 0.3 + 0.2
    mask = torch.zeros(120, 100, dtype=torch.long)
    mask[20:60, 30:70] = 1
    score[20:60] += 0.4
    return {
        "a map that is higher on the object": (score, mask),
        "a map that is lower on the object": (2 - 3 * score, mask),
        "a map of zeros (its contrast is 0)": (torch.zeros(120, 100), mask),
    }


def _contrast(score: Tensor, mask: Tensor, spread: Tensor | float, weigh: bool = False) -> float:
    sides = [(score * (mask == label)).mean() if weigh else score[mask == label].mean() for label in (1, 0)]
    return float((sides[0] - sides[1]) / spread)


def _leaves_out_255(answer) -> None:
    score, mask = next(iter(_contrast_cases().values()))
    mask[60:70] = 255
    expected = contrast.reference(score, mask)
    for value in (0.0, 5.0):
        if abs(float(answer(torch.where(mask == 255, value, score), mask)) - expected) > 1e-2:
            raise Wrong("255 counts", "The values under 255 matter: leave them out of both means and of the spread.")


@exercise(STAGE, _contrast_cases, atol=1e-3, tests=[_leaves_out_255], slips={
    "not divided by the spread: This is the difference of the means: it doubles when the map doubles. Measure it in "
    "standard deviations.": lambda s, m: _contrast(s, m, 1.0),
    "divided by the variance: This divides by the variance, whose unit is squared: then the scale of the map still "
    "matters.": lambda s, m: _contrast(s, m, s.var() + 1e-7),
    "sign: Higher on the object means a positive contrast.": lambda s, m: -_contrast(s, m, s.std() + 1e-7),
    "means over all pixels: Products with the mask are averaged over *all* pixels. Divide by the number of pixels of "
    "each side.": lambda s, m: _contrast(s, m, s.std() + 1e-7, weigh=True),
    "no spread: A map of zeros has no spread, and 0 / 0 is NaN: "
    "add a little to the divisor.": lambda s, m: _contrast(s, m, s.std()),
})  # fmt: skip
def contrast(score: Tensor, mask: Tensor) -> float:
    valid, weight = score[mask != 255].double(), (mask[mask != 255] == 1).double()
    gap = (valid * weight).sum() / weight.sum() - (valid * (1 - weight)).sum() / (1 - weight).sum()
    return float(gap / valid.var(correction=0).sqrt().clamp_min(1e-6))


def _robust_cases() -> Cases:
    case = partial(_case, torch.Generator().manual_seed(8))
    masks, wide = torch.zeros(2, 14, 14, dtype=torch.long), torch.zeros(1, 9, 14, dtype=torch.long)
    masks[0, 2:4, 2:4], masks[0, 10:], masks[1, 2:12, 2:11], wide[0, 1:8, 3:12] = 1, 255, 1, 1
    return {
        "two episodes, one of a tiny object with fewer cells than `count`": (*case(masks, 7, 7), 5),
        "a picture that is wider than high": (*case(wide, 5, 7), 3),
        "more matches than the grid has cells": (*case(wide, 3, 4), 100),
        "an empty mask (0 everywhere)": (*case(0 * wide, 3, 4), 4),
    }


def _top(query: Tensor, support: Tensor, masks: Tensor, count: int, unit: bool = True) -> tuple[Tensor, Tensor]:
    """The `count` best matches (B, count, h*w) with the object's cells, 0 where it has fewer; its cells (B, 1)."""
    inside = resize((masks == 1).float()[:, None], tuple(query.shape[-2:])).flatten(1) > 0
    sides = [F.normalize(x, dim=1) if unit else x for x in (support, query)]
    pairs = torch.einsum("bcs,bcq->bsq", *(x.flatten(2) for x in sides)) * inside[:, :, None]
    return pairs.topk(min(count, pairs.shape[1]), 1).values, inside.sum(1, keepdim=True)


def _mean_of_best(query, support, masks, count, unit=True, held=lambda n, count: n.clamp(1, count)) -> Tensor:
    best, n = _top(query, support, masks, count, unit)
    return (best.sum(1) / held(n, count)).unflatten(-1, tuple(query.shape[-2:]))


@exercise(STAGE, _robust_cases, atol=1e-3, slips={
    "maximum alone: Only the best match counts here: one wrong pixel of the mask is enough to mislead "
    "it.": lambda q, s, m, n: _mean_of_best(q, s, m, 1),
    "divided by count: Tiny objects have fewer cells than `count`: divide by the number that took "
    "part.": lambda q, s, m, n: _mean_of_best(q, s, m, n, held=lambda held, count: count),
    "mean of all matches: Every cell of the object takes part. Keep the best `count`: the object's other parts look "
    "different.": lambda q, s, m, n: _mean_of_best(q, s, m, s[0, 0].numel()),
    "dot products: These are dot products: long vectors win although they point elsewhere. "
    "Give both sides length 1.": lambda q, s, m, n: _mean_of_best(q, s, m, n, unit=False),
    "background takes part: The support's background is compared, too: where does the mask come "
    "in?": lambda q, s, m, n: _mean_of_best(q, s, torch.ones_like(m), n),
    "stretched: Do not stretch: the task is a map that may stay low where nothing "
    "matches.": lambda q, s, m, n: _stretched(_mean_of_best(q, s, m, n).flatten(1), q),
    "best over the query: The best matches run over the query. Every query cell looks for partners in the "
    "*support*.": lambda q, s, m, n: _mean_of_best(s * _grid(q, m == 1), q, torch.ones_like(m), n),
    "255 counted as object: Pixels marked 255 are neither object nor background. "
    "Ask for `masks == 1`.": lambda q, s, m, n: _mean_of_best(q, s, (m > 0).long(), n),
    "empty mask: An empty mask divides by 0 cells: give it the value "
    "0.": lambda q, s, m, n: _mean_of_best(q, s, m, n, held=lambda held, count: held.clamp(max=count)),
})  # fmt: skip
def robust_prior(query: Tensor, support: Tensor, masks: Tensor, count: int) -> Tensor:
    return _mean_of_best(query, support, masks, count)


_TERMS = ("stretch", "maximum", "match", "mask")
prior_in_practice = essay(STAGE, "prior_in_practice", terms=_TERMS)
