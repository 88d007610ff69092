"""`explore_superpixels`: how many prototypes an object gets, where they lie, and who is given which."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...data import load_dataset
from ...episode import Episode
from ...models.asgnet import ASGNet
from ...ops import Box, strongest
from .. import board, panels
from ..board import Bars
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import Memo, only
from ..explorer import Explorer, Scene, dropdown, slider, steps, switch

SHARPNESS = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
SHOWN = 8  # prototypes that bars and guide map have room for


def explore_superpixels(
    dataset: Datasets = None, model: ASGNet | str | Path | None = None, *, size: int | None = None, shots: int = 1
) -> Explorer:
    """ASGNet with its options in your hand: superpixels of the supports, guide map, probability map and prediction.

    Trained is the decoder alone; what the controls change has no parameters. Still, the decoder knows only the setting
    it was trained with. Point at the query to compare one position with every prototype.

    Args:
        dataset, size, shots: see `explore_episode`; here Shapes-5i comes with objects of one part and of three.
        model: an ASGNet or a file of `save_model`; None: the shipped weights.
    Returns:
        an `Explorer` with the controls of `EpisodeControls` and `superpixels` (1..10 of one support), `adaptive`,
        `iterations`, `reach`, `sharpness` (0: as published), `seeds`, `allocation`, `similarity` and `shot_merge` (see
        `ASGNet`), which start as the model has them. Prototypes are numbered over all supports, from 1. Facts: `iou`
        and `single`, the IoU of one prototype per support, else alike; `used`, how many prototypes; `counts`, those of
        each support; `alike`, the mean cosine between them (1 for a single one); `guide` (h, w) number of each
        position's prototype; `shares` (P,) of the query that each gets; `position` pointed at and `cosines` (P,)
        there; `parts`, how many the true objects have, and `purity` and `largest`: the share of a superpixel's weight
        that lies on one true part, and the area of the largest part, means over the superpixels (None where the data
        set knows no parts).
    Raises ModelError: a model that is no ASGNet.
    """
    model_of, data = only("asgnet", ASGNet, model, "explore_superpixels"), _shapes() if dataset is None else dataset
    picks, memo, net = EpisodeControls(data, model_of, size=size, shots=shots), Memo(), model_of(0).model
    controls = {
        "superpixels": slider("Superpixels at most", net.max_superpixels, 1, max(10, net.max_superpixels)),
        "adaptive": switch("Fewer for small objects", net.adaptive),
        "iterations": slider("Iterations", net.iterations[1], 1, max(15, net.iterations[1])),
        "reach": slider("Reach r, cells", float(net.reach), min(0.5, net.reach), max(30.0, net.reach), 0.5),
        "sharpness": steps("Sharpness (0: as published)", SHARPNESS, net.sharpness or 0.0),
        "seeds": dropdown("Seeds", ("published", "clean"), net.seeds),
        "allocation": dropdown("Allocation", ("guided", "expand"), net.allocation),
        "similarity": dropdown("Probability map", ("sum", "mean", "max"), net.similarity),
        "shot_merge": dropdown("Shots", ("pool", "average"), net.shot_merge),
    }

    def draw(
        superpixels, adaptive, iterations, reach, sharpness, seeds, allocation, similarity, shot_merge, point, **_
    ) -> Scene:  # fmt: skip
        episode, explained = picks.episode(), picks.model
        one = {"max_superpixels": 1, "allocation": allocation, "similarity": similarity, "shot_merge": shot_merge}
        both = (explained.model.iterations[0], iterations)
        many = one | {"max_superpixels": superpixels, "adaptive": adaptive, "iterations": both, "reach": reach}
        many |= {"seeds": seeds, "sharpness": sharpness or None}
        several, single = (
            memo((picks.key, *options.values()), lambda options=options: explained(episode, **options))
            for options in (many, one if superpixels > 1 else many)
        )
        clusters = _Clusters(episode, several.maps)
        facts = clusters.facts(point) | _parts(clusters.weights, clusters.owner, picks)
        query, truth = episode.query_images[0], episode.query_masks[0]
        mask, facts["iou"] = panels.prediction("prediction", "Prediction", query, strongest(several.logits)[0], truth)
        facts["single"] = panels.iou(strongest(single.logits)[0], truth)
        shown = clusters.supports(picks.name) + clusters.query(facts, allocation == "guided")
        shown += [mask, panels.photo("truth", "True mask", query, truth), clusters.bars(facts)]
        return Scene(shown, f"{_words(facts)} {explained.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **controls}, draw, label="Superpixel explorer", prepare=picks.prepare)


class _Clusters:
    """The maps of one run, with the prototypes that are used numbered over all supports, from 1."""

    def __init__(self, episode: Episode, maps: Mapping[str, Tensor]):
        self.episode, self.maps = episode, maps
        used = maps["prototypes_used"][0].bool()
        self.number = used.cumsum(0) * used  # (K·P,), 0 for those that are not used
        self.owner = torch.arange(episode.shot).repeat_interleave(len(used) // episode.shot)[used]
        self.seeds = maps["seeds"][0].flatten(0, 1)[used]
        self.weights = maps["superpixels"][0].flatten(0, 1)[used]
        self.prototypes, self.similarity = maps["prototypes"][0][used], maps["similarity"][0][used]
        self.guide = self.number[maps["guide"][0, 0].long()]
        self.over = tuple(episode.query_images.shape[-2:]), tuple(self.guide.shape)  # pixels, cells

    def supports(self, name: str) -> list:
        """Per support the picture, and its object enlarged: regions, seeds as numbers, centres as rings."""
        shown = []
        for k, photo in enumerate(panels.supports(self.episode, name, width=board.WIDTH // 2)):
            mine = (self.owner == k).nonzero().flatten()
            weights, first, several = self.weights[mine], int(mine[0]) + 1, len(mine) > 1
            labels = (weights.argmax(0) + first) * (weights.sum(0) > 0)
            box = (Box.around(labels > 0) or Box(0, len(labels), 0, labels.shape[1])).grown(1, labels.shape)
            ends, starts = (
                [panels.middle(row - box.top, column - box.left, *self.over) for row, column in points]
                for points in (_centres(weights), self.seeds[mine].tolist())
            )
            marks, caption = panels.badges(ends, first), "Its one prototype"  # a masked average starts nowhere
            if several:
                marks = [panels.cross(*at) for at in ends] + panels.badges(starts, first)
                caption = f"Its {len(mine)} superpixels; numbers: seeds, rings: centres"
            sides = zip((box[:2], box[2:]), *self.over)
            pixels = Box(*(round(at * high / cells) for ends, high, cells in sides for at in ends))
            near = pixels.cut(self.episode.support_images[0, 0, k])
            regions = panels.regions(f"regions {k}", caption, box.cut(labels), near, marks=marks)
            shown += [photo, regions]
        return shown

    def query(self, facts: Mapping, guided: bool) -> list:
        """The query, its guide map with numbers and its probability map."""
        image, best = self.episode.query_images[0], []
        for i in facts["shares"].argsort(descending=True, stable=True)[:SHOWN].tolist():
            region = self.guide == i + 1
            if region.any():
                at = int(self.similarity[i].masked_fill(~region, -torch.inf).argmax())
                best += panels.badges([panels.middle(*divmod(at, region.shape[1]), *self.over)], i + 1)
        ring, probability = panels.cross(*panels.middle(*facts["position"], *self.over)), self.maps["probability"][0, 0]
        guide = "the most similar prototype" if guided else "not handed out, all get the mean"
        caption = f"Probability map, {probability.min():.2f} to {probability.max():.2f}"
        return [
            panels.photo("query", "Query; the ring is compared below", image, marks=[ring], pick=True),
            panels.regions("guide", f"Guide map: {guide}", self.guide, image, marks=best),
            panels.heat("probability", caption, probability, image, mask=self.episode.query_masks[0]),
        ]

    def facts(self, point: Mapping) -> dict:
        """What does not depend on the prediction."""
        count, unit = len(self.prototypes), F.normalize(self.prototypes, dim=-1)
        alike = float(((unit @ unit.T).sum() - count) / (count * count - count)) if count > 1 else 1.0
        shares = torch.bincount(self.guide.flatten(), minlength=count + 1)[1:] / self.guide.numel()
        counts = torch.bincount(self.owner, minlength=self.episode.shot).tolist()
        likeliest = divmod(int(self.maps["probability"][0, 0].argmax()), self.guide.shape[1])
        spot = panels.pointed(point, ("query",), self.over[0])
        row, column = panels.cell_at(*spot[1:], *self.over) if spot else likeliest
        facts = {"used": count, "counts": counts, "alike": alike, "guide": self.guide, "shares": shares}
        return {**facts, "position": (row, column), "cosines": self.similarity[:, row, column]}

    def bars(self, facts: Mapping) -> Bars:
        """Cosines at the ring, and what each prototype is given of the query."""
        order = sorted(facts["cosines"].argsort(descending=True, stable=True)[:SHOWN].tolist())
        values = {"cosine": facts["cosines"], "share": facts["shares"]}
        rows = {f"Prototype {i + 1}": {name: float(value[i]) for name, value in values.items()} for i in order}
        left = facts["used"] - len(order)
        without = f" (without {left} less similar ones)" * bool(left)
        return Bars("bars", f"Cosine at the ring; share of the query it is given{without}", rows)


def _centres(weights: Tensor) -> list[tuple[float, float]]:
    """Row and column of (P, h, w) weights' centres of gravity: for superpixels, where their last iteration ended."""
    total = weights.sum((1, 2)).clamp_min(1e-12)
    sides = (weights.sum(axis) for axis in (2, 1))
    return list(zip(*((side @ torch.arange(side.shape[1], dtype=side.dtype) / total).tolist() for side in sides)))


def _parts(weights: Tensor, owner: Tensor, picks: EpisodeControls) -> dict:
    """How the superpixels (P, h, w) lie on the true parts of their supports, where the data set knows those."""
    data, pure, largest, parts = picks.dataset, [], [], []
    if not hasattr(data, "truth"):
        return dict.fromkeys(("parts", "purity", "largest"))
    for k, index in enumerate(picks.indices()[0]):
        truth = data.truth(index)
        number = torch.where(truth.clean_mask == truth.target, truth.parts, 0)
        rows, columns = (torch.linspace(0, n - 1, m).round().long() for n, m in zip(number.shape, weights.shape[1:]))
        mine, part = weights[owner == k], F.one_hot(number[rows][:, columns].long())[..., 1:].float()
        areas = part.sum((0, 1))
        parts.append(int(areas.count_nonzero()))
        on_part = torch.einsum("phw,hwn->pn", mine, part) / mine.sum((1, 2)).clamp_min(1e-12)[:, None]
        if len(areas):
            pure += on_part.amax(1).tolist()
            largest += [float(areas.max() / areas.sum().clamp_min(1))] * len(mine)
    means = (sum(shares) / len(shares) if pure else None for shares in (pure, largest))
    return {"parts": max(parts), **dict(zip(("purity", "largest"), means))}


def _words(facts: Mapping) -> str:
    """The scene in a few sentences."""
    if facts["used"] == 1:
        return f"One prototype, the masked average, finds {facts['iou']:.0%} (IoU)."
    alike = f"{facts['used']} prototypes, alike by a mean cosine of {facts['alike']:.2f}"
    words = f"{alike}, find {facts['iou']:.0%} (IoU); one per support finds {facts['single']:.0%}."
    if facts["parts"] in (None, 1):
        return words
    pure = f"{facts['purity']:.0%} of a superpixel's weight lies on one true part"
    return f"{words} {pure}; the largest part is {facts['largest']:.0%} of the object."


def _shapes() -> dict:
    """Shapes-5i as it is, and with objects of three parts."""
    return {
        "Shapes-5i": lambda fold: load_dataset("shapes", fold=fold, split="test"),
        "Objects of 3 parts": lambda fold: load_dataset("shapes", fold=fold, split="test", knobs={"parts": 3}),
    }
