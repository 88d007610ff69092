"""How far the prototypes of SD-AANet lie apart (of one class, two, one picture), and what a perfect one is worth."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..episode import Episode
from ..metrics import FewShotIoU
from ..models.base import evaluating, joined
from ..models.sdaanet import SDAANet
from ..ops import masked_pool, resize

STAGES = ("layer2", "layer3")  # what the projections read


def prototype_distances(net: SDAANet, episodes: Iterable[Episode]) -> dict[str, float]:
    """Mean cosine distances, 0 to 2, between the student S of an episode and prototypes t of queries (true masks).

    `"same class"`: of S and the t of its own query. `"other class"`: of S and the t of queries of other classes.
    `"same picture"`: of t and the S that the very query would have as its own support: what the two projections and
    the gate alone put between them.
    Args: net: one with SDPM. episodes: 1-way ones with query masks; only the first support counts.
    """
    rows = []
    with evaluating(net):
        for e in episodes:
            query, mask = e.query_images, e.query_masks
            features = net.down_query(joined(net.backbone(query, STAGES)))
            nearest = F.interpolate((mask == 1).float()[:, None], features.shape[-2:], mode="nearest")[:, 0]
            student, twin = (
                net.sdpm(_prototypes(net, *side))[1][:, 0]
                for side in ((e.support_images[:, 0, 0], e.support_masks[:, 0, 0]), (query, mask))
            )
            rows.append((student, twin, masked_pool(features, nearest), e.classes[:, 0]))
    students, twins, queries, classes = map(torch.cat, zip(*rows))
    apart = 1 - F.normalize(students, dim=1) @ F.normalize(queries, dim=1).T
    other = classes[:, None] != classes
    means = {"same class": apart.diagonal(), "other class": apart[other]}
    means["same picture"] = 1 - F.cosine_similarity(twins, queries)
    return {name: float(values.mean()) for name, values in means.items()}


def prototype_worth(net: SDAANet, episodes: Iterable[Episode]) -> dict[str, float]:
    """What the prototype is worth: mIoU in percent `"as it is"`, with the `"own prototype"` (of the query's own picture
    under its true mask, the most that any distillation could bring), and with a `"foreign prototype"`, of an episode of
    another class. Everything else, the prior too, stays as it is.

    Args: as in `prototype_distances`, batches of at least two classes; with SAAM only the decoder's part is measured.
    """
    meters = {name: FewShotIoU() for name in ("as it is", "own prototype", "foreign prototype")}
    with evaluating(net):
        for episode in episodes:
            episode = episode.shots(1)
            sides = ((episode.query_images, episode.query_masks),
                     (episode.support_images[:, 0, 0], episode.support_masks[:, 0, 0]))  # fmt: skip
            own, plain = (_prototypes(net, *side) for side in sides)
            kinds = episode.classes[:, 0]
            foreign = plain[(kinds[:, None] != kinds).int().argmax(1)]  # the first of another class
            for meter, prototypes in zip(meters.values(), (plain, own, foreign)):
                with net.sdpm.register_forward_pre_hook(lambda sdpm, given, x=prototypes: x):
                    meter.update(net(episode).masks(), episode.query_masks, kinds[:, None])
    return {name: 100 * meter.compute().miou for name, meter in meters.items()}


def _prototypes(net: SDAANet, images: Tensor, masks: Tensor) -> Tensor:
    """(B, 1, C) prototypes of pictures under masks, as supports have them."""
    features = net.down_supp(joined(net.backbone(images, STAGES)))
    return masked_pool(features, resize((masks == 1).float(), tuple(features.shape[-2:])))[:, None]
