"""Exercises of notebook 04: the merge of SD-AANet, the factors of several shots, and the sum of the losses."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from ...models import build_model
from ..exercise import Cases, Wrong, essay, exercise
from .stage_02 import sdpm_of

STAGE = "04_sdaanet"


def factor_of(a: Tensor, rule: str) -> Tensor:
    """The query's factor (B, C) that SDPM makes of gates (B, K, C) by a rule of its `query_factor`."""
    module = sdpm_of(a.shape[-1], rule)
    module.gate = nn.Identity()  # the gates themselves come in
    return module(a)[2]


def gates(*shape: int) -> Tensor:
    """Random gates in 0..1, always the same."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def half(a: Tensor) -> Tensor:
    """Mixed with 1, one to one."""
    return 0.5 + 0.5 * a


@exercise(STAGE, lambda: {
    "all parts at 256 channels": (256, True, True, True),
    "32 channels without SDPM": (32, False, True, True),
    "16 channels without SAAM": (16, True, False, True),
    "16 channels without SDPM, SAAM and prior": (16, False, False, False),
}, slips={
    "SDPM adds a channel: SDPM re-weights the prototype and the query. Both are merged with or without "
    "it, and their width stays the same.": lambda width, sdpm, saam, prior: 2 * width + sdpm + saam + prior,
    "no prototype without SDPM: Without SDPM the prototype is not re-weighted, but it is still there: the pooled one "
    "takes its place.": lambda width, sdpm, saam, prior: width * (1 + sdpm) + saam + prior,
    "maps as wide as features: Prior and attention are single maps: "
    "one number per cell, not a vector.": lambda width, sdpm, saam, prior: width * (2 + saam + prior),
    "one of prototype and query: Two things of full width are merged: the prototype, spread over the grid, and the "
    "query's features.": lambda width, sdpm, saam, prior: width + saam + prior,
    "maps left out: The guides with one channel are missing: "
    "what do prior and SAAM bring along?": lambda width, sdpm, saam, prior: 2 * width,
    "maps always there: "
    "A part that is switched off brings no map, not even an empty one.": lambda width, sdpm, saam, prior: 2 * width + 2,
    "SAAM with two channels: SAAM's two logits are for the support, in training. "
    "The query gets a single map from it.": lambda width, sdpm, saam, prior: 2 * width + 2 * saam + prior,
    "prior left out: The prior mask is a guide, too, although it learns nothing: "
    "switched on, it brings one map.": lambda width, sdpm, saam, prior: 2 * width + saam,
    "all four grids: Each grid has a merge of its own: "
    "count the channels of one.": lambda width, sdpm, saam, prior: 4 * (2 * width + saam + prior),
})  # fmt: skip
@cache
def merge_channels(width: int, sdpm: bool, saam: bool, prior: bool) -> int:
    with torch.device("meta"):
        model = build_model("sdaanet", backbone="tiny", width=width, sdpm=sdpm, saam=saam, prior=prior)
    return model.enrichment.merge[0][0].in_channels


def _gates_learn(answer: Callable) -> None:
    a = gates(1, 2, 3).requires_grad_()
    factor = answer(a)
    if not factor.requires_grad:
        raise Wrong("no gradient", "No gradient reaches the gates: SDPM could not learn through the query.")
    (mine,), (right,) = (torch.autograd.grad(x.sum(), a) for x in (factor, factor_of(a, "product")))
    if not torch.allclose(mine, right, atol=1e-4):
        raise Wrong("wrong gradient", "The value is right, its gradient is not: a part of the factor is detached.")


@exercise(STAGE, lambda: {
    "one shot (step 4)": (gates(2, 1, 4),),
    "three shots": (gates(2, 3, 4),),
    "five open gates, a = 1 (the query stays as it is)": (torch.ones(1, 5, 3),),
    "two closed gates, a = 0 (half of a half, and three quarters of it)": (torch.zeros(1, 2, 3),),
}, tests=[_gates_learn], slips={
    "second factor missing: The gates are multiplied, and the query is multiplied once more, with their average: that "
    "is missing, also at K = 1.": lambda a: half(a).prod(1),
    "the repaired rule: This is the rule that repairs it: the gates are averaged. As published, each of them is "
    "multiplied in.": lambda a: factor_of(a, "average"),
    "the paper's mean: This is the average gate, the paper's reading. "
    "The authors' code does more, also at K = 1.": lambda a: factor_of(a, "mean"),
    "half of the original forgotten: The gate a was used where g belongs: half of the identity is mixed in before "
    "anything else.": lambda a: a.prod(1) * half(a.mean(1)),
    "average not mixed with 1: The average gate itself is the second factor here. It is mixed with 1 once more: two "
    "halvings in all.": lambda a: half(a).prod(1) * half(a).mean(1),
    "second factor for every shot: The second factor comes in with every shot. It comes once, after the loop over the "
    "shots.": lambda a: (half(a) * half(half(a))).prod(1),
    "second factor of the last shot: The second factor is made of one shot's gate. "
    "The average runs over all of them.": lambda a: half(a).prod(1) * half(half(a[:, -1])),
    "not halved: Open gates give 2 here: "
    "they should leave the query as it is. What is added to 1 is halved.": lambda a: 2 * factor_of(a, "product"),
    "product over the channels: The channels were merged. "
    "Each keeps its own factor; the shots are dimension 1.": lambda a: half(a).prod(-1) * half(half(a).mean(-1)),
    "shots not merged: There is a factor for each shot, but only one query: "
    "all shots act on it in turn.": lambda a: half(a) * half(half(a).mean(1, keepdim=True)),
})  # fmt: skip
def query_factor(a: Tensor) -> Tensor:
    return factor_of(a, "product")


def _factor_cases() -> Cases:
    # Every rule that lasts gives the same here, whatever it averages.
    return {
        "one support (the trained factor)": (gates(2, 1, 4),),
        "three supports with the same gate (the factor of one)": (gates(2, 1, 4).repeat(1, 3, 1),),
        "five open gates, a = 1 (the query stays as it is)": (torch.ones(1, 5, 3),),
    }


def _every_support_counts(answer: Callable) -> None:
    a = gates(2, 3, 4).requires_grad_()
    factor = answer(a)
    if not factor.requires_grad:
        raise Wrong("no gradient", "No gradient reaches the gates: the network could not learn them this way.")
    (slope,) = torch.autograd.grad(factor.sum(), a, materialize_grads=True)
    if bool((slope.abs() < 1e-6).any()):
        raise Wrong("not all supports count", "Some supports have no say in the factor. All of them were asked.")
    if not torch.allclose(factor, answer(a.flip(1)), atol=1e-4):
        raise Wrong("order of the supports", "The factor changes when the supports change places. They have no order.")


@exercise(STAGE, _factor_cases, tests=[_every_support_counts], slips={
    "product: This is the published product: right for one shot, but every further gate shrinks it. Three supports "
    "that agree should say what one of them says.": lambda a: factor_of(a, "product"),
    "all factors multiplied: Each support's whole factor is multiplied in: this shrinks with K even faster than the "
    "product of gates.": lambda a: (half(a) * half(half(a))).prod(1),
    "the paper's mean: This is the paper's rule. It keeps its size for every K, but at K = 1 it is not what these "
    "weights were trained with: what else is the query multiplied with?": lambda a: factor_of(a, "mean"),
    "mean squared: The mean is multiplied with itself. In the trained rule the second time counts half: it is mixed "
    "with 1.": lambda a: half(a).mean(1).square(),
    "half of the original forgotten: The gate a was used where g belongs: half of the original is kept, so that no "
    "channel is closed.": lambda a: a.mean(1) * half(a.mean(1)),
    "sum over the supports: The supports are added up: now the factor grows with K, which is as new to the network as "
    "shrinking.": lambda a: half(a).sum(1) * half(half(a).mean(1)),
    "supports not merged: There is a factor for each support, but only one query: merge them into one number per "
    "channel.": lambda a: half(a) * half(half(a)),
    "averaged over the channels: The average runs over the channels, which the gate is there to tell apart. The "
    "supports are dimension 1.": lambda a: half(a).mean(-1) * half(half(a).mean(-1)),
})  # fmt: skip
def lasting_factor(a: Tensor) -> Tensor:
    return factor_of(a, "average")


_WEIGHTS = {"main": 1.0, "aux": 1.0, "kd": 50.0, "saam": 0.5}


def _sum(main: Tensor, aux: Tensor, kd: Tensor, saam: Tensor, /, **other: float) -> Tensor:
    terms = {"main": main, "aux": aux, "kd": kd, "saam": saam}
    return sum((_WEIGHTS | other)[name] * value for name, value in terms.items())


def _weighted(**other: float) -> Callable:
    return lambda main, aux, kd, saam: _sum(main, aux, kd, saam, **other)


def _all_terms_train(answer: Callable) -> None:
    terms = torch.tensor([0.6, 0.7, 0.001, 0.4]).requires_grad_().unbind(0)
    total = answer(*terms)
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise Wrong("no gradient", "The total left the graph: a plain number cannot train anything.")
    for (name, weight), slope in zip(_WEIGHTS.items(), torch.autograd.grad(total, terms, materialize_grads=True)):
        if abs(float(slope) - weight) > 1e-3:
            raise Wrong("wrong gradient", f"The value is right, but the gradient of `{name}` is lost or changed.")


@exercise(STAGE, lambda: {
    "an untrained network": tuple(torch.tensor([0.59, 0.74, 0.0004, 0.8])),
    "a trained network": tuple(torch.tensor([0.12, 0.15, 0.00003, 0.09])),
    "distillation alone": tuple(torch.tensor([0.0, 0.0, 1.0, 0.0])),
    "attention alone": tuple(torch.tensor([0.0, 0.0, 0.0, 1.0])),
}, tests=[_all_terms_train], slips={
    "no weights: The four terms are added as they are. "
    "Two of them have weights, of very different sizes.": _weighted(kd=1.0, saam=1.0),
    "kd unweighted: kd has no weight. It is so small that a batch hardly shows it, but its gradient is 50 times too "
    "weak.": _weighted(kd=1.0),
    "saam unweighted: SAAM's own loss has a weight, too: here it counts as much as the masks.": _weighted(saam=1.0),
    "weights exchanged: "
    "The two weights are exchanged: the large one belongs to the small loss.": _weighted(kd=0.5, saam=50),
    "aux forgotten: The inner logits are trained, too: their loss is missing.": _weighted(aux=0.0),
    "kd forgotten: Without kd nobody distils: small does not mean unimportant.": _weighted(kd=0.0),
    "saam forgotten: SAAM's own loss is missing: nobody would tell it where the object is.": _weighted(saam=0),
    "aux counts less: "
    "Many networks give inner logits a smaller weight. Here they count as much as the fused ones.": _weighted(aux=0.4),
    "mean of the terms: A sum is asked for. Divided by the number of terms, "
    "every gradient is four times smaller.": lambda main, aux, kd, saam: _sum(main, aux, kd, saam) / 4,
})  # fmt: skip
def total_loss(main: Tensor, aux: Tensor, kd: Tensor, saam: Tensor) -> Tensor:
    return _sum(main, aux, kd, saam)


which_part = essay(STAGE, "which_part", terms=("interval", "training", "seed", "paired"))
