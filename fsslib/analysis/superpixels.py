"""How different the superpixels of one object are: do several prototypes say more than one average?"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..episode import Episode
from ..models.asgnet import ASGNet, Superpixels
from ..models.base import evaluating

NAMES = ("prototypes", "cosine", "entropy", "cells in use")


def superpixel_measures(found: Superpixels) -> torch.Tensor:
    """Four numbers (N, 4) for each of the N supports with more than one prototype, in the order of `NAMES`.

    How many prototypes; the mean cosine between two of them; the entropy of a superpixel's weights over the M cells of
    the object, as a share of log M (1: the plain average, 0: a single cell); and exp(entropy) / M, the share of the
    cells that carry a superpixel. Entropy and cells are means over the superpixels.
    """
    count = found.used.sum(1)
    several = count > 1
    count, unit = count[several], F.normalize(found.prototypes[several], dim=-1)
    pairs = (unit.sum(1).square().sum(1) - count) / (count * (count - 1))  # unused prototypes are 0
    weights = found.assignment[several].flatten(2)
    cells = (weights > 0).any(1).sum(1)[:, None]
    entropy = torch.special.entr(weights).sum(2)  # (N, P), 0 where unused
    means = [value.sum(1) / count for value in (entropy / cells.log(), (entropy.exp() / cells) * found.used[several])]
    return torch.stack([count, pairs, *means], 1)


def superpixel_quality(net: ASGNet, episodes: Iterable[Episode]) -> dict[str, float]:
    """Means of `superpixel_measures` over all supports; of a model with one prototype the prototypes alone (1)."""
    rows = []
    with evaluating(net):
        for episode in episodes:
            features = net.features(episode)[1]["reduced"][:, 0]
            rows.append(superpixel_measures(net.superpixels(features, episode.support_masks[:, 0])[1]))
    rows = torch.cat(rows)
    if not len(rows):
        return {NAMES[0]: 1.0}
    return dict(zip(NAMES, rows.mean(0).tolist()))
