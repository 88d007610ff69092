"""Exercises of notebook 05: soft clustering, guided allocation, numbers of superpixels, a merge rule for supports."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.asgnet import allocate
from ..exercise import Cases, Wrong, essay, exercise

STAGE = "05_superpixels"


def _assign_cases() -> Cases:
    draw = torch.Generator().manual_seed(1)
    centres, cells = torch.randn(3, 4, generator=draw), torch.randn(6, 4, generator=draw)
    return {
        "three centres and six cells": (centres, cells),
        "two centres, one of them on a cell": (cells[1:3] + torch.tensor([[0.0], [0.3]]), cells),
        "centres far from every cell": (centres + 100, cells),
    }


def _close(centres: Tensor, cells: Tensor) -> Tensor:
    """exp(-D); ValueError where it would be 0, so that the other cases decide."""
    weights = torch.exp(-torch.cdist(centres, cells))
    if not weights.any():
        raise ValueError("too far")
    return weights


def _shared(weights: Tensor, axis: int = 1) -> Tensor:
    return weights / weights.sum(axis, keepdim=True)


@exercise(STAGE, _assign_cases, slips={
    "sum over the superpixels: The weights of a *cell* sum to 1, as in soft k-means. In ASGNet the weights of a "
    "*superpixel* sum to 1, over the cells.": lambda s, x: _shared(_close(s, x), 0),
    "not divided: A centre becomes a *mean*: its weights have to sum to 1. Do they?": _close,
    "far cells weigh most: "
    "A far cell gets a large weight: the exponent has a sign.": lambda s, x: _shared(1 / _close(s, x)),
    "squared distance: The exponent holds the squared distance, a Gaussian. "
    "ASGNet takes the distance itself.": lambda s, x: _shared(torch.exp(_close(s, x).log() * torch.cdist(s, x))),
    "nearest centre only: Each cell belongs to one centre, as in k-means. Here every cell counts in every centre, far "
    "cells with a small weight.": lambda s, x: F.one_hot(torch.cdist(s, x).argmin(0), len(s)).T.float(),
    "underflow: Far from all cells every exp(-D) is 0 in float32, and 0 / 0 is NaN. "
    "A well-known function avoids it.": lambda s, x: _shared(torch.exp(-torch.cdist(s, x))),
})  # fmt: skip
def soft_assign(centres: Tensor, cells: Tensor) -> Tensor:
    away = torch.cdist(centres, cells, compute_mode="donot_use_mm_for_euclid_dist")
    return _shared(torch.exp(away.amin(1, keepdim=True) - away))


def _allocation_cases() -> Cases:
    draw = torch.Generator().manual_seed(2)
    query, prototypes = torch.randn(2, 4, 3, 5, generator=draw) * 2, torch.randn(2, 3, 4, generator=draw) * 3
    query[0, :, 0, 0] = -F.normalize(prototypes[0, :2], dim=1).sum(0)  # both cosines are negative
    zero, filled = prototypes.clone(), prototypes.clone()
    zero[:, 2], filled[0, 2] = 0, -prototypes[0, :2].sum(0)
    spare = torch.tensor([[True, True, False]])
    return {
        "two episodes, all prototypes in use": (query, prototypes, torch.ones(2, 3, dtype=torch.bool)),
        "a prototype that is not used and zero": (query, zero, spare.expand(2, 3)),
        "a prototype that is not used and not zero": (query[:1], filled[:1], spare),
    }


def _guided(query: Tensor, vectors: Tensor, used: Tensor, unit=(1, 1), mask=-1e9, rest=0.0, hand=0) -> tuple:
    """Allocation with one thing changed. unit: are prototypes and query normalised? mask: the cosine of spare
    prototypes where the best is chosen (None: their own), rest: in the sum. hand: 1 hands out unit vectors."""
    a, b = (F.normalize(t, dim=d) if n else t for t, d, n in zip((vectors, query), (2, 1), unit))
    match = (a @ b.flatten(2)).unflatten(2, query.shape[2:])
    spare = (torch.zeros_like(used) if mask is None else ~used)[:, :, None, None]
    choice = match.masked_fill(spare, mask or 0.0).argmax(1).flatten(1)
    given = torch.gather((vectors, a)[hand], 1, choice[..., None].expand(-1, -1, query.shape[1]))
    return given.transpose(1, 2).reshape(query.shape), match.masked_fill(spare, rest).sum(1, keepdim=True)


def _other(**changes) -> Callable:
    return lambda q, p, u: _guided(q, p, u, **changes)


def _best(query: Tensor, vectors: Tensor, used: Tensor) -> Tensor:
    return allocate(query, vectors, used).similarity.masked_fill(~used[:, :, None, None], -torch.inf).amax(1, True)


def _learns(answer, query: Tensor, prototypes: Tensor, used: Tensor) -> None:
    found = answer(query.requires_grad_(), prototypes, used)
    if not (found[1] if isinstance(found, tuple) else found).requires_grad:
        raise Wrong("detached", "No gradient passes from Π to the query: the reduction learns through this map.")


def _query_learns(answer) -> None:
    _learns(answer, *_allocation_cases()["two episodes, all prototypes in use"])


def _query_learns_from_many(answer) -> None:
    _learns(answer, *_merge_cases()["two episodes"])


@exercise(STAGE, _allocation_cases, tests=[_query_learns], slips={
    "dot products: A long prototype wins everywhere: a cosine compares directions alone.": _other(unit=(0, 0)),
    "only the prototypes normalised: Π grows with the length of the query's features.": _other(unit=(1, 0)),
    "zero beats negative: A prototype that is not used has the value 0 where the best is chosen, above a negative "
    "cosine: it must lose against everything.": _other(mask=0.0),
    "unused prototypes count: `used` changes nothing: which prototypes exist at all?": _other(mask=None),
    "infinite sum: Π became infinite: "
    "-∞ keeps a prototype from being chosen, but in a sum it has to count as 0.": _other(rest=-torch.inf),
    "unit vectors handed out: Length 1 serves the comparison, not what is handed out.": _other(hand=1),
    "mean: This map is the mean of the cosines; published is their "
    "sum.": lambda q, p, u: (allocate(q, p, u).features, allocate(q, p, u, merge="mean").probability),
    "maximum: The map holds the best cosine only. "
    "Π adds up what all prototypes say.": lambda q, p, u: (allocate(q, p, u).features, _best(q, p, u)),
})  # fmt: skip
def my_allocation(query: Tensor, prototypes: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    allocation = allocate(query, prototypes, used)
    return allocation.features, allocation.probability


def _total(areas, area, most, low: float = 1, to=torch.round) -> float:
    return float(to(torch.tensor(areas, dtype=torch.double) / area).clamp(low, most).sum())


def _count(count: Callable) -> Callable:
    """The range of another number of prototypes."""
    return lambda a, s, n: (count(a, s, n), -count(a, s, n), count(a, s, n))


@exercise(STAGE, lambda: {
    "five supports, S = 15": ([30, 45, 62, 110, 20], 15, 5),
    "two objects too small for a superpixel": ([6, 3, 50], 15, 5),
    "halves, which become even": ([25, 35, 45], 10, 5),
    "N_max = 1, a plain average each": ([40, 80, 20], 15, 1),
}, slips={
    "none for small objects: An object that is too small gets one plain average.": _count(lambda *x: _total(*x, low=0)),
    "rounded down: The paper rounds down; the code takes the nearest.": _count(lambda *x: _total(*x, to=torch.floor)),
    "no upper limit: A large object has at most N_max superpixels.": _count(lambda a, s, n: _total(a, s, 10**6)),
    "one limit for all: N_max limits each support by itself.": _count(lambda a, s, n: min(_total(a, s, 1e6), n)),
    "N_max for every object: The number adapts to the object's size.": _count(lambda a, s, n: len(a) * n),
    "one for each support: A larger object has several superpixels.": _count(lambda a, s, n: len(a)),
    "range of a single cosine: One cosine lies between -1 and 1, and so does a mean. "
    "Π is a sum over all prototypes.": lambda a, s, n: (_total(a, s, n), -1, 1),
    "not below zero: A cosine may be negative: "
    "the reduced features pass no ReLU, for this very reason.": lambda a, s, n: (_total(a, s, n), 0, _total(a, s, n)),
})  # fmt: skip
def guide_range(areas: list[int], superpixel_area: float, most: int) -> tuple[float, float, float]:
    number = _total(areas, superpixel_area, most)
    return number, -number, number


def _merge_cases() -> Cases:
    draw = torch.Generator().manual_seed(3)
    query, prototypes = torch.randn(2, 4, 3, 2, generator=draw), torch.randn(2, 2, 3, 4, generator=draw)
    query[0, :, 0, 0] = -F.normalize(prototypes[0, 0], dim=1).sum(0)
    some = torch.tensor([[[True, True, True], [True, False, False]], [[True, True, False], [True, True, True]]])
    return {
        "two supports with three prototypes and with one": (query[:1], prototypes[:1] * some[:1, ..., None], some[:1]),
        "two episodes": (query, prototypes * some[..., None], some),
        "one support": (query, prototypes[:, :1], some[:, :1]),
    }


def _merge(rule: Callable) -> Callable:
    """Makes something else of the cosines (B, K, P, h, w) and `used` (B, K, P, 1, 1)."""

    def answer(query: Tensor, prototypes: Tensor, used: Tensor) -> Tensor:
        unit = F.normalize(prototypes, dim=-1)
        return rule(torch.einsum("bkpc,bchw->bkphw", unit, F.normalize(query, dim=1)), used[..., None, None])

    return answer


def _best_of_each(c: Tensor, used: Tensor) -> Tensor:
    return c.masked_fill(~used, -1).amax(2).mean(1, keepdim=True)


def _equal_supports(answer) -> None:
    query, prototypes, used = _merge_cases()["one support"]
    once, often = (answer(query, prototypes.repeat(1, k, 1, 1), used.repeat(1, k, 1)) for k in (1, 5))
    if not torch.allclose(once, often, atol=1e-4):
        raise Wrong("grows with the supports", "The same support five times changes the map: its range depends on K.")


@exercise(STAGE, _merge_cases, tests=[_equal_supports, _query_learns_from_many], slips={
    "sum: This is the published sum: give each support twice and it doubles.": _merge(
        lambda c, u: (c * u).sum((1, 2)).unsqueeze(1)),
    "mean of all prototypes: A mean over all prototypes knows one vector only, as the sum does, and a large support "
    "with many prototypes outvotes a small one.": _merge(
        lambda c, u: ((c * u).sum((1, 2)) / u.sum((1, 2))).unsqueeze(1)),
    "mean within the support: Within a support the *best* prototype has the say, not their mean.": _merge(
        lambda c, u: ((c * u).sum(2) / u.sum(2)).mean(1, keepdim=True)),
    "best of all supports: One unlucky support decides everywhere: average over the supports.": _merge(
        lambda c, u: c.masked_fill(~u, -1).amax((1, 2)).unsqueeze(1)),
    "sum over the supports: The map still grows with the number of supports.": _merge(
        lambda c, u: c.masked_fill(~u, -1).amax(2).sum(1, keepdim=True)),
    "zero beats negative: A prototype that is not used has the value 0, above a negative cosine: it must lose against "
    "everything.": _merge(lambda c, u: (c * u).amax(2).mean(1, keepdim=True)),
    "one axis short: The map lacks its channel: (B, 1, h, w).": _merge(lambda c, u: _best_of_each(c, u)[:, 0]),
})  # fmt: skip
def best_per_support(query: Tensor, prototypes: Tensor, used: Tensor) -> Tensor:
    return _merge(_best_of_each)(query, prototypes, used)


several_pay = essay(STAGE, "several_pay", terms=("similar", "background", "differ", "specific", "cosine", "sharp"))
