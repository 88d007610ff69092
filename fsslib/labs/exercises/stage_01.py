"""Exercises of notebook 01: prototypes, cosine maps, the temperature, inside and edge of a mask, boxes, alignment."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses import alignment
from ...ops import cosine_maps, masked_average, upsample
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "01_prototypes"


def _support(size: int = 9, grid: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, size, dtype=torch.long)
    mask[1:6, 2:7] = 1
    mask[6] = 255
    return torch.randn(5, grid, grid, generator=draw) + 1, mask


def _prototype_cases() -> Cases:
    features, mask = _support()
    wide = torch.zeros(6, 12, dtype=torch.long)
    wide[2:, 3:8] = 1
    return {
        "a mask with a border of 255": (features, mask),
        "an image that is wider than high": (torch.arange(24.0).view(4, 2, 3), wide),
        "a mask that covers everything": (features, torch.ones(9, 9, dtype=torch.long)),
        "an empty mask (the answer is the zero vector)": (features, torch.zeros(9, 9, dtype=torch.long)),
    }


def _rounded(features: Tensor, mask: Tensor) -> Tensor:
    small = F.interpolate((mask == 1).float()[None, None], features.shape[-2:], mode="nearest")[0, 0]
    return (features * small).sum((1, 2)) / small.sum().clamp_min(1e-5)


def _pooled(features: Tensor, weights: Tensor, area: Tensor | float) -> Tensor:
    return (upsample(features[None], tuple(weights.shape))[0] * weights).sum((1, 2)) / area


def _prototype_carries_gradients(answer) -> None:
    features, mask = _support()
    if not answer(features.requires_grad_(), mask).requires_grad:
        raise Wrong("detached", "No gradient reaches the features: the network could not learn through this prototype.")


@exercise(STAGE, _prototype_cases, tests=[_prototype_carries_gradients], slips={
    "mean over the whole image: The average runs over all pixels, the background included: "
    "where does the mask come in?": lambda f, m: f.mean((1, 2)),
    "divided by the image: Divide by the area of the mask, not by the number of all pixels: otherwise small objects "
    "get short prototypes.": lambda f, m: _pooled(f, (m == 1).float(), m.numel()),
    "normalised: The vector has length 1. An average keeps its length; the cosine normalises "
    "later.": lambda f, m: F.normalize(masked_average(f[None], (m == 1).float()[None, None])[0, 0], dim=0),
    "not divided: This is the sum. A mean is divided by the area of the mask: otherwise a large object gets a long "
    "prototype.": lambda f, m: _pooled(f, (m == 1).float(), 1.0),
    "255 counted as object: Pixels marked 255 are neither object nor background: leave them out. Ask for `mask == 1`, "
    "not for `mask > 0`.": lambda f, m: _pooled(f, (m > 0).float(), (m > 0).sum() + 1e-5),
    "255 used as a weight: The labels were used as weights, so that a pixel marked 255 counts 255 times. Ask for `mask "
    "== 1` first.": lambda f, m: _pooled(f, m.float(), m.float().sum() + 1e-5),
    "mask rounded: The mask was brought to the grid by nearest neighbours, which throws away thin parts. Enlarge the "
    "features to the mask instead.": _rounded,
    "mean over the wrong axis: This averages over the channels and leaves positions. A prototype keeps every channel: "
    "average over rows and columns.": lambda f, m: f.mean(0),
    "empty mask: On an empty mask the area is 0, and 0 / 0 is NaN: "
    "add a little to the area, as PANet does.": lambda f, m: _pooled(f, (m == 1).float(), (m == 1).sum()),
})  # fmt: skip
def prototype(features: Tensor, mask: Tensor) -> Tensor:
    return masked_average(features[None], (mask == 1).float()[None, None])[0, 0]


def _cosine_cases() -> Cases:
    draw = torch.Generator().manual_seed(2)
    features, vector = torch.randn(4, 3, 5, generator=draw) * 3, torch.randn(4, generator=draw) * 2
    dead = features.clone()
    dead[:, 0, 0] = 0
    return {
        "random features": (features, vector),
        "features with a zero cell (its cosine is 0)": (dead, vector),
        "an empty mask's prototype, the zero vector": (features, torch.zeros(4)),
    }


@exercise(STAGE, _cosine_cases, slips={
    "unnormalised: This is the dot product: long feature vectors win although they point elsewhere. Normalise both "
    "sides.": lambda f, p: torch.einsum("chw,c->hw", f, p),
    "only the prototype normalised: Only the prototype has length 1: bright cells still get large values. Normalise "
    "the features, too.": lambda f, p: torch.einsum("chw,c->hw", f, F.normalize(p, dim=0)),
    "only the features normalised: Only the features have length 1: the map still grows with the length of the "
    "prototype, and the temperature means something else for every "
    "support.": lambda f, p: torch.einsum("chw,c->hw", F.normalize(f, dim=0), p),
    "normalised over the positions: The features were normalised over the image. A cosine compares vectors of "
    "channels: dimension "
    "0.": lambda f, p: torch.einsum("chw,c->hw", F.normalize(f.flatten(1), dim=1).view_as(f), F.normalize(p, dim=0)),
    "temperature included: The map is 20 times too large: the temperature comes later, "
    "cosines lie between -1 and 1.": lambda f, p: cosine_maps(f[None], p[None, None])[0, 0],
    "Euclidean distance: This is a distance: it is small where the cosine is large, and it depends on the length of "
    "the vectors.": lambda f, p: (f - p[:, None, None]).norm(dim=0),
    "zero vector: A vector of length 0 gives 0 / 0: "
    "keep the lengths above a tiny number.": lambda f, p: torch.einsum("chw,c->hw", f / f.norm(dim=0), p / p.norm()),
})  # fmt: skip
def cosine_map(features: Tensor, prototype: Tensor) -> Tensor:
    return cosine_maps(features[None], prototype[None, None], scale=1.0)[0, 0]


def _temperature_undoes_softmax(answer) -> None:
    for margin, probability in ((0.1, 0.95), (0.02, 0.7), (0.5, 0.5)):
        scores = float(answer(margin, probability)) * torch.tensor([0.3, 0.3 - margin])
        if abs(float(scores.softmax(0)[0]) - probability) > 1e-3:
            raise Wrong("", f"With your α, a softmax over α·0.3 and α·{0.3 - margin:.2f} does not give {probability}.")


@exercise(STAGE, lambda: {
    "margin 0.1, probability 0.95": (0.1, 0.95),
    "margin 0.5, probability 0.6": (0.5, 0.6),
    "probability 0.5 (no confidence: α = 0)": (0.2, 0.5),
}, tests=[_temperature_undoes_softmax], slips={
    "logarithm of P alone: "
    "The two classes share the probability: the odds P / (1 - P) count, not P alone.": lambda d, p: math.log(p) / d,
    "times the margin: "
    "A smaller margin needs a *larger* α to become as clear: divide by it.": lambda d, p: math.log(p / (1 - p)) * d,
    "sign: The sign is wrong: "
    "this α makes the class with the *lower* cosine more probable.": lambda d, p: math.log((1 - p) / p) / d,
    "P / d: Softmax is exponential: solve P = 1 / (1 + exp(-α d)) for α.": lambda d, p: p / d,
    "base 10 or 2: The logarithm has the wrong base: softmax uses e.": lambda d, p: math.log10(p / (1 - p)) / d,
    "the margin is forgotten: "
    "These are the log odds, α times the margin: where is the margin?": lambda d, p: math.log(p / (1 - p)),
})  # fmt: skip
def temperature(margin: float, probability: float) -> float:
    return math.log(probability) / margin - math.log1p(-probability) / margin


def _inside_cases() -> Cases:
    mask = torch.zeros(2, 9, 9, dtype=torch.long)
    mask[0, 1:8, 1:8] = 1
    mask[1, 4, 1:8] = 1
    mask[1, 6, 6] = 255
    edge = torch.zeros(1, 7, 7, dtype=torch.long)
    edge[0, :, :4] = 1
    return {
        "a square, and a line that has no inside (it stays)": (mask,),
        "an object that touches the image's border": (edge,),
        "an empty mask": (torch.zeros(1, 6, 6, dtype=torch.long),),
    }


def _border(masks: Tensor, label: int = 255, thin: bool = True, reach: int = 5, grow: bool = False) -> Tensor:
    def near(side: Tensor) -> Tensor:
        return F.max_pool2d(side.float()[:, None], reach, 1, reach // 2)[:, 0] > 0

    if grow:
        return torch.where(near(masks == 1) & (masks != 1), label, masks)
    edge = near(masks != 1) & (masks == 1)
    if thin:
        edge &= ((masks == 1) & ~edge).flatten(1).any(1)[:, None, None]
    return torch.where(edge, label, masks)


@exercise(STAGE, _inside_cases, slips={
    "border made background: The border became 0. "
    "It is not background: mark it 255, so that neither prototype sees it.": lambda m: _border(m, label=0),
    "thin objects vanish: The line lost all its pixels, and its prototype would be zero: an object without an inside "
    "keeps its mask.": lambda m: _border(m, thin=False),
    "ring too narrow: "
    "The ring is one pixel wide; two are asked for: a window of 5 x 5 sees them.": lambda m: _border(m, reach=3),
    "ring outside: "
    "The ring lies outside the object. Here the object's own edge is to be left out.": lambda m: _border(m, grow=True),
    "ring kept, inside dropped: The inside became 255 and the ring stayed: "
    "it should be the other way round.": lambda m: torch.where((m == 1) & (_border(m, thin=False) == 1), 255, m),
})  # fmt: skip
def inside_only(masks: Tensor) -> Tensor:
    return _border(masks)


box_bias = essay(STAGE, "box_bias", terms=("bias", "background", "noise", "same"))


def _back_cases() -> Cases:
    draw = torch.Generator().manual_seed(5)
    query, support = torch.randn(2, 6, 3, 4, generator=draw) + 0.3
    scores = torch.randn(2, 3, 4, generator=draw)
    mask = torch.zeros(9, 12, dtype=torch.long)
    mask[2:6, 3:9], mask[6] = 1, 255
    return {
        "one episode, with a border of 255": (scores, query, support, mask),
        "a query in which nothing is predicted (the loss is 0)": (
            torch.stack([scores[0], scores[0] - 1]),
            query,
            support,
            mask,
        ),
        "features of another length (the same loss)": (scores, 3 * query, 0.5 * support, mask),
    }


def _there_and_back(
    scores: Tensor, query: Tensor, support: Tensor, mask: Tensor, sides: Tensor | None = None, scale: float = 20.0,
    unclear: int = 255,
) -> Tensor:  # fmt: skip
    """PAR with one of its ingredients exchanged, whether or not anything is predicted."""
    if sides is None:
        sides = F.one_hot(scores.argmax(0), 2).movedim(-1, 0).float()
    pooled = torch.einsum("chw,phw->pc", query, sides) / (sides.sum((1, 2))[:, None] + 1e-5)
    logits = upsample(cosine_maps(support[None], pooled[None], scale), tuple(mask.shape))
    return F.cross_entropy(logits, torch.where(mask == 255, unclear, mask)[None], ignore_index=255)


def _back_carries_gradients(answer) -> None:
    scores, query, support, mask = _back_cases()["one episode, with a border of 255"]
    if not answer(scores, query.requires_grad_(), support.requires_grad_(), mask).requires_grad:
        raise Wrong("detached", "No gradient reaches the features: no network could learn from this loss.")


@exercise(STAGE, _back_cases, tests=[_back_carries_gradients], slips={
    "soft mask: The prototypes were pooled under probabilities. PAR asks for the *predicted* mask: each cell is on "
    "one side.": lambda s, q, f, m: _there_and_back(s, q, f, m, sides=s.softmax(0)),
    "temperature forgotten: Without α = 20 no pixel can get a high probability, and the loss says little about "
    "the mask.": lambda s, q, f, m: _there_and_back(s, q, f, m, scale=1.0),
    "255 counted as background: Pixels marked 255 were scored as background. Nobody knows what they are: they do not "
    "count.": lambda s, q, f, m: _there_and_back(s, q, f, m, unclear=0),
    "pooled from the support: These prototypes come from the support itself. On the way back they come from the "
    "query.": lambda s, q, f, m: _there_and_back(s, f, f, m),
    "scored on the query: The query's prototypes segment the query here. On the way back they segment the "
    "support.": lambda s, q, f, m: _there_and_back(s, q, q, m),
    "nothing predicted: Where no cell of the query is predicted as the object, there is no way back: the loss is "
    "0.": lambda s, q, f, m: _there_and_back(s, q, f, m),
    "sum: This is the sum over the pixels. A loss that grows with the picture needs another learning rate for each "
    "size: take the mean.": lambda s, q, f, m: _there_and_back(s, q, f, m) * (m != 255).sum(),
    "sides exchanged: Background and object are exchanged: channel 0 is the "
    "background.": lambda s, q, f, m: _there_and_back(s.flip(0), q, f, m),
})  # fmt: skip
def way_back(scores: Tensor, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    return alignment(scores[None], query[None], support[None, None, None], mask[None, None, None])
