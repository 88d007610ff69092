"""How far the prototypes of SD-AANet lie apart: of one class, of two classes, and of one picture."""

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F

from ..episode import Episode
from ..models.base import evaluating
from ..models.sdaanet import SDAANet


def prototype_distances(net: SDAANet, episodes: Iterable[Episode]) -> dict[str, float]:
    """Mean cosine distances, 0 to 2, between the student S of an episode and prototypes t of queries (true masks).

    `"same class"`: of S and the t of its own query. `"other class"`: of S and the t of queries of other classes.
    `"same picture"`: of t and the S that the very query would have as its own support: what the two projections and
    the gate alone put between them.
    Args: net: one with SDPM. episodes: 1-way ones with query masks; only the first support counts.
    """
    rows, twins, explain = [], [], net.explain
    net.explain = True
    with evaluating(net):
        for episode in episodes:
            episode = episode.shots(1)
            own = replace(
                episode, support_images=episode.query_images[:, None, None],
                support_masks=episode.query_masks[:, None, None],
            )  # fmt: skip
            maps, twin = net(episode).maps, net(own).maps
            rows.append((maps["students"][:, 0], maps["query_prototype"], episode.classes[:, 0]))
            twins.append(1 - F.cosine_similarity(twin["students"][:, 0], twin["query_prototype"]))
    net.explain = explain
    students, queries, classes = map(torch.cat, zip(*rows))
    apart = 1 - F.normalize(students, dim=1) @ F.normalize(queries, dim=1).T
    other = classes[:, None] != classes
    means = {"same class": apart.diagonal(), "other class": apart[other], "same picture": torch.cat(twins)}
    return {name: float(values.mean()) for name, values in means.items()}
