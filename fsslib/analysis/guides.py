"""What the maps that a decoder is given are worth: how well they rank the query's pixels, and whether they are used."""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from ..episode import IGNORE, Episode
from ..metrics import FewShotIoU
from ..models.base import evaluating
from ..models.sdaanet import SDAANet
from ..ops import resize

GUIDES = ("prior", "attention")


def auc(score: Tensor, mask: Tensor) -> float:
    """P(an object pixel scores higher than another) + half of P(equal): 0.5 is chance, below it the map is upside down.

    Args: score: (H, W) float. mask: (H, W) integers, 1 object, 0 elsewhere, 255 does not count.
    Returns: from 0 to 1; NaN where one side has no pixel.
    """
    mask = mask.flatten()
    ranks, inside = rankdata(score.flatten()[mask != IGNORE].float()), (mask[mask != IGNORE] == 1).numpy()
    ones, zeros = inside.sum(), (~inside).sum()
    return float((ranks[inside].sum() - ones * (ones + 1) / 2) / (ones * zeros)) if ones and zeros else float("nan")


def aucs(maps: Tensor, masks: Tensor) -> np.ndarray:
    """(B,) AUC of every map (B, h, w), enlarged to the size of its mask (B, H, W)."""
    large = resize(maps[:, None].float(), tuple(masks.shape[-2:]))[:, 0]
    return np.array([auc(*pair) for pair in zip(large, masks)])


def guide_aucs(net: SDAANet, episodes: Iterable[Episode]) -> dict[str, float]:
    """The mean AUC of each map that the network gives its decoder (`GUIDES`), on 1-way episodes with query masks.
    A map that never was there, or a query without its object, is left out."""
    found = {name: [] for name in GUIDES}
    with evaluating(net, explain=True):
        for episode in episodes:
            maps = net(episode).maps
            for name in maps.keys() & found.keys():
                found[name].extend(aucs(maps[name][:, 0].cpu(), episode.query_masks.cpu()))
    return {name: float(np.nanmean(values)) for name, values in found.items() if len(values)}


def guide_use(net: SDAANet, episodes: Iterable[Episode]) -> dict[str, float]:
    """The points of mIoU that the trained network loses when a map (`GUIDES`) is exchanged for its mean, on 1-way
    episodes. An intervention: trained without the map the network might have found other ways."""
    meters = {}
    with evaluating(net, explain=True):
        for episode in episodes:
            out = net(episode)
            held = {name: out.maps[name] for name in GUIDES if name in out.maps}
            size = tuple(out.maps["query_reweighted"].shape[-2:])
            predicted = {"": out.masks()}
            for name in held:
                given = held | {name: held[name].mean((2, 3), keepdim=True).expand_as(held[name])}
                guides = torch.cat([resize(given[guide], size) for guide in held], 1)
                small, _ = net.enrichment(out.maps["prototypes"], out.maps["query_reweighted"], guides)
                predicted[name] = resize(small.float(), tuple(out.logits.shape[-2:])).argmax(1)
            for name, masks in predicted.items():
                meter = meters.setdefault(name, FewShotIoU())
                meter.update(masks, episode.query_masks, episode.classes)
    mious = {name: 100 * meter.compute().miou for name, meter in meters.items()}
    return {name: mious[""] - miou for name, miou in mious.items() if name}
