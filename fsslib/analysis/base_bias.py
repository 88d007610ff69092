"""Base-class bias: how much of the base objects a model marks, at any share of the wanted objects that it finds.

A model that marks less everywhere also marks fewer base objects. So HDMNet's two answers, that of its matching network
alone and that of the ensemble with the base learner, are compared where both find as much of the wanted objects.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.base import SegmentationDataset
from ..episode import IGNORE, Episode
from ..evaluation import Evaluation, episode_lists, remembering
from ..metrics import FewShotIoU
from ..models.base import evaluating
from ..models.hdmnet import HDMNet
from ..nn.backbones.cached import Store
from ..ops import resize
from ..protocol import Protocol

ANSWERS = ("ensemble", "matching alone")
REGIONS = ("wanted object", "base objects", "rest")
BINS = 200  # of the certainty from 0 to 1; the decision, 0.5, is the edge of one


class Marked(NamedTuple):
    """What the two answers mark in E one-way one-shot episodes.

    Attributes:
        evaluations: answer -> Evaluation, both of the same forward passes.
        counts: answer -> (E, 3, BINS) pixels of every region by certainty that they belong to the wanted object.
        probability: (3,) mean probability of all base classes together in every region, by the base learner.
    """

    evaluations: dict[str, Evaluation]
    counts: dict[str, np.ndarray]
    probability: np.ndarray


def marked(
    net: HDMNet, dataset: SegmentationDataset, protocol: Protocol, known: Sequence[int], *, batch: int = 8,
    cache: str | Path | Store | None = None,
) -> Marked:  # fmt: skip
    """Run `net` on the protocol's one-shot episodes of a test (or validation) split.

    Args:
        known: ids of the classes that the net was trained on: base objects show one of these. batch: episodes at once.
        cache: see `evaluate`.
    """
    of_base = torch.isin(torch.tensor([0, *dataset.base_classes]), torch.tensor(known))
    sampler, lists, protocol = episode_lists(dataset, protocol, [1])
    meters, counts = {name: FewShotIoU() for name in ANSWERS}, {name: [] for name in ANSWERS}
    total, summed = np.zeros(3), np.zeros(3)
    chunks = [
        (run, own.specs[at : at + batch]) for run, own in enumerate(lists) for at in range(0, len(own.specs), batch)
    ]
    with evaluating(net, explain=True), remembering(net, cache):
        for run, specs in chunks:
            episode = sampler.build(specs)
            certain, base = _certainties(net, episode)
            target, valid = episode.query_masks == 1, episode.query_masks != IGNORE
            others = of_base[episode.base_masks.where(valid, 0)] & ~target
            regions = torch.stack([target, others & valid, ~others & ~target & valid], 1)
            for name, map_ in certain.items():
                meters[name].update((map_ > 0.5).long(), episode.query_masks, episode.classes, run)
                counts[name].append(_histogram(map_, regions))
            total += regions.sum((0, 2, 3)).numpy()
            summed += (regions * base[:, None]).sum((0, 2, 3)).double().numpy()
    found = {name: Evaluation({1: meter.compute()}, protocol, {}, lists) for name, meter in meters.items()}
    return Marked(found, {name: np.concatenate(parts) for name, parts in counts.items()}, summed / total)


def _certainties(net: HDMNet, episode: Episode) -> tuple[dict[str, Tensor], Tensor]:
    """Answer -> (B, H, W) certainty, above 0.5 where it marks the object; and the base probability (B, H, W)."""
    out, size = net(episode), tuple(episode.query_masks.shape[-2:])
    alone, base = (resize(out.maps[name], size) for name in ("meta", "base_map"))
    answers = ((out.logits[:, 1] - out.logits[:, 0]).sigmoid(), alone[:, 1] / alone.sum(1))
    return dict(zip(ANSWERS, answers)), base[:, 0]


def _histogram(certain: Tensor, regions: Tensor) -> np.ndarray:
    """(B, H, W) in [0, 1] and (B, R, H, W) bool to (B, R, BINS) pixels: bin i holds (i / BINS, (i + 1) / BINS]."""
    bins = (certain * BINS).ceil().long().sub(1).clamp(0, BINS - 1).flatten(1)
    found = [
        torch.stack([torch.bincount(b[r], minlength=BINS) for r in part]) for b, part in zip(bins, regions.flatten(2))
    ]
    return torch.stack(found).numpy().astype(np.int32)


def shares_at(counts: np.ndarray, recall: float | np.ndarray) -> np.ndarray:
    """Share of every region's pixels that is marked where `recall` of the wanted objects' pixels is.

    Args: counts: (..., 3, BINS) pixels, summed over episodes. recall: (...) in 0..1.
    Returns: (..., 3) in 0..1. Within a bin the shares are interpolated.
    """
    above = counts[..., ::-1].cumsum(-1)
    above = np.concatenate([np.zeros_like(above[..., :1]), above], -1).astype(float)
    shares = above / np.maximum(above[..., -1:], 1)
    flat, asked = shares.reshape(-1, *shares.shape[-2:]), np.broadcast_to(recall, shares.shape[:-2]).ravel()
    found = [[np.interp(r, one[0], region) for region in one] for r, one in zip(asked, flat)]
    return np.array(found).reshape(shares.shape[:-1])


def recall_of(counts: np.ndarray) -> np.ndarray:
    """Share of the wanted objects' pixels with a certainty above 0.5: (..., 3, BINS) pixels to (...)."""
    wanted = counts[..., 0, :]
    return wanted[..., BINS // 2 :].sum(-1) / np.maximum(wanted.sum(-1), 1)


def equal_recall(trainings: Sequence[dict[str, np.ndarray]], draws: int = 1000, seed: int = 0) -> dict[str, object]:
    """Ensemble and matching alone, where both find as much of the wanted objects as the matching alone does.

    Args: trainings: the `counts` of each training, all on the same episodes.
    Returns: `"matching alone"`, `"ensemble"` and `"difference"`: the share of the base objects' pixels that is marked;
        `"IoU difference"`: of the IoU over all pixels. Each is (mean over the trainings, low, high) with the 95 %
        interval over episodes; the same names with ` per seed` hold one number for each training.
    """
    episodes = len(next(iter(trainings[0].values())))
    weights = np.random.default_rng(seed).multinomial(episodes, np.full(episodes, 1 / episodes), draws)
    weights = np.concatenate([np.ones((1, episodes)), weights])
    per_seed: dict[str, list] = {name: [] for name in ("matching alone", "ensemble", "difference", "IoU difference")}
    for counts in trainings:
        summed = {name: np.tensordot(weights, own.astype(float), 1) for name, own in counts.items()}
        recall = recall_of(summed["matching alone"])
        marks = {name: shares_at(own, recall) for name, own in summed.items()}
        area = summed["ensemble"].sum(-1)
        ious = {n: recall * area[:, 0] / (area[:, 0] + (m * area)[:, 1:].sum(1)) for n, m in marks.items()}
        for name, own in marks.items():
            per_seed[name].append(own[:, 1])
        per_seed["difference"].append(marks["ensemble"][:, 1] - marks["matching alone"][:, 1])
        per_seed["IoU difference"].append(ious["ensemble"] - ious["matching alone"])
    rows: dict[str, object] = {}
    for name, own in per_seed.items():
        mean = np.mean(own, 0)
        rows[name] = (mean[0], *np.quantile(mean[1:], [0.025, 0.975]))
        rows[f"{name} per seed"] = [values[0] for values in own]
    return rows
