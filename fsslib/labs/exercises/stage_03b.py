"""Exercises of notebook 03b: the supervision of SAAM, a map from its supervised layer, which map to trust."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses import segmentation
from ...ops import resize
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "03b_affinity_attention"


def _loss_cases() -> Cases:
    logits = 2 * torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    masks = torch.zeros(2, 13, 13, dtype=torch.long)
    masks[0, 2:8, 3:9], masks[0, 8:10], masks[1, :5], masks[1, 5] = 1, 255, 1, 255
    return {
        "two supports with borders of 255": (logits, masks),
        "one support, without 255": (logits[:1], masks[:1] % 255),
        "an empty mask": (logits[1:], 0 * masks[1:]),
        "a mask that is 255 everywhere (the loss is 0)": (logits[1:], torch.full_like(masks[1:], 255)),
    }


def _entropy(logits: Tensor, masks: Tensor, **options) -> Tensor:
    """As PyTorch has it; ValueError where nothing counts, where most slips say nothing of their own."""
    if not (masks != 255).any():
        raise ValueError
    return F.cross_entropy(resize(logits, tuple(masks.shape[-2:])), masks, ignore_index=255, **options)


def _learns(answer) -> None:
    logits, masks = next(iter(_loss_cases().values()))
    if not getattr(answer(logits.requires_grad_(), masks), "requires_grad", False):
        raise Wrong("detached", "No gradient reaches the logits: the head would learn nothing from this supervision.")


@exercise(STAGE, _loss_cases, tests=[_learns], slips={
    "softmax before the cross entropy: Probabilities went into the cross entropy. It takes logits and applies the "
    "softmax itself.": lambda x, m: _entropy(resize(x, tuple(m.shape[-2:])).softmax(1), m),
    "255 counted as background: Pixels marked 255 are trained as background, "
    "although nobody knows what they show.": lambda x, m: _entropy(x, (m == 1).long()),
    "255 counted as object: Pixels marked 255 are trained as object, "
    "although nobody knows what they show.": lambda x, m: _entropy(x, (m > 0).long()),
    "classes exchanged: Channel 0 of the logits is the background.": lambda x, m: _entropy(x.flip(1), m),
    "divided by all pixels: Ignored pixels are missing above the line, but not below it: a broad border weakens the "
    "supervision.": lambda x, m: _entropy(x, m, reduction="sum") / m.numel(),
    "sum: The loss is a mean: larger pictures weigh no more.": lambda x, m: _entropy(x, m, reduction="sum"),
    "mean over nothing: Where every pixel is 255, the mean is 0 / 0. One such support would turn all weights into "
    "NaN.": lambda x, m: F.cross_entropy(resize(x, tuple(m.shape[-2:])), m, ignore_index=255),
})  # fmt: skip
def attention_loss(logits: Tensor, masks: Tensor) -> Tensor:
    return segmentation(resize(logits, tuple(masks.shape[-2:])), masks)


def _map_cases() -> Cases:
    draw = torch.Generator().manual_seed(6)
    features, prototypes = (torch.rand(*size, generator=draw) for size in ((2, 6, 3, 4), (2, 3, 6)))
    weight, bias = (2 * torch.randn(*size, generator=draw) for size in ((2, 12), (2,)))
    empty = prototypes.clone()
    empty[0, 1], empty[1, ::2] = 0, 0
    return {
        "one support": (features, prototypes[:, :1], weight, bias),
        "three supports": (features, prototypes, weight, bias),
        "supports with an empty mask, whose prototype is 0": (features, empty, weight, bias),
        "no support with an object (the map is 0)": (features, 0 * prototypes, weight, bias),
    }


def _logits(features: Tensor, prototypes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, K, 2, h, w) of a 1x1 convolution on every feature beside every prototype."""
    beside = prototypes[..., None, None].expand(*prototypes.shape, *features.shape[-2:])
    both = torch.cat([features[:, None].expand_as(beside), beside], 2)
    return torch.einsum("oc,bkchw->bkohw", weight, both) + bias[:, None, None]


def _averaged(maps: Tensor, prototypes: Tensor, least: int = 1) -> Tensor:
    """Mean of maps (B, K, h, w) over the supports that have an object."""
    there = (prototypes != 0).any(-1).float()
    return (maps * there[..., None, None]).sum(1) / there.sum(1).clamp_min(least)[:, None, None]


def _from_mean_logits(features: Tensor, prototypes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    both = _logits(features, prototypes, weight, bias)
    object_ = torch.stack([_averaged(both[:, :, c], prototypes) for c in range(2)], 1).softmax(1)[:, 1]
    return object_ * (prototypes != 0).any(-1).any(1)[:, None, None]


@exercise(STAGE, _map_cases, slips={
    "channel of the background: Channel 0 of the logits is the background: the map is upside "
    "down.": lambda f, p, w, b: _averaged(_logits(f, p, w, b).softmax(2)[:, :, 0], p),
    "logits, not probabilities: This is the logit of the object. Without the background's logit beside it, it says "
    "little: take the softmax of the two.": lambda f, p, w, b: _averaged(_logits(f, p, w, b)[:, :, 1], p),
    "difference of the logits: This is object minus background logit: it ranks the cells in the same way, but lies "
    "outside 0..1.": lambda f, p, w, b: _averaged(_logits(f, p, w, b).diff(dim=2)[:, :, 0], p),
    "softmax over the picture: The softmax runs over the cells, so that the map adds up to 1. It decides between "
    "background and object, cell by cell.": lambda f, p, w, b: _averaged(
        _logits(f, p, w, b).flatten(3).softmax(3).unflatten(3, f.shape[-2:])[:, :, 1], p
    ),
    "averaged too early: Prototypes or logits are averaged before the softmax (for a linear head that is the same). "
    "Average the probabilities.": _from_mean_logits,
    "empty supports count: A support without an object has a prototype of zeros. It knows nothing and must not "
    "count.": lambda f, p, w, b: _logits(f, p, w, b).softmax(2)[:, :, 1].mean(1),
    "sum over the supports: The maps are added up: with three supports the map reaches "
    "3.": lambda f, p, w, b: (_logits(f, p, w, b).softmax(2)[:, :, 1] * (p != 0).any(-1)[..., None, None]).sum(1),
    "prototype before the feature: The weights expect the feature first and the prototype behind it: [F, "
    "p].": lambda f, p, w, b: _averaged(_logits(f, p, w.roll(w.shape[1] // 2, 1), b).softmax(2)[:, :, 1], p),
    "no support at all: Where no support shows the object the mean is 0 / 0: give "
    "0.": lambda f, p, w, b: _averaged(_logits(f, p, w, b).softmax(2)[:, :, 1], p, least=0),
})  # fmt: skip
def supervised_map(features: Tensor, prototypes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _averaged(_logits(features, prototypes, weight, bias).softmax(2)[:, :, 1], prototypes)


_TERMS = ("stretch", "prototype", "gradient", "sign", "mask")
prior_or_attention = essay(STAGE, "prior_or_attention", terms=_TERMS)
