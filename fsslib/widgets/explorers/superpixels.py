"""`explore_superpixels`: how many prototypes an object gets, where they lie, and who is given which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...data import load_dataset
from ...data.base import SegmentationDataset
from ...episode import Episode, Prediction
from ...models.asgnet import ASGNet
from ...ops import strongest
from .. import board, panels
from ..board import Bars
from ..episode_controls import EpisodeControls
from ..explained_models import Memo, only
from ..explorer import Explorer, Scene, dropdown, slider, switch

SHOWN = 8  # prototypes that bars and guide map have room for


def explore_superpixels(
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    model: ASGNet | str | Path | None = None,
    *,
    size: int | None = None,
    shots: int = 1,
) -> Explorer:
    """ASGNet with its options in your hand: superpixels of the supports, guide map, probability map and prediction.

    Trained is the decoder alone; what the controls change has no parameters. Still, the decoder knows only the setting
    it was trained with. Point at the query to compare one position with every prototype.

    Args:
        dataset: see `EpisodeControls`; None: Shapes-5i, with objects of one part and of three.
        model: an ASGNet or a file of `save_model`; None: the shipped weights.
        size: pixels a side; None: what suits the model's backbone.
        shots: supports at first.
    Returns:
        an `Explorer` with the controls of `Picks` and `superpixels` (1..10 of one support), `adaptive`, `iterations`,
        `reach`, `seeds`, `allocation`, `similarity` and `shot_merge` (see `ASGNet`), which start as the model has them.
        Prototypes are numbered over all supports, from 1. Facts: `iou` and `single`, the IoU of one prototype per
        support, else alike; `used`, how many prototypes; `counts`, those of each support; `alike`, the mean cosine
        between them (1 for a single one); `guide` (h, w) number of each position's prototype; `shares` (P,) of the
        query that each gets; `cosines` (P,) at the position pointed at; `parts`, how many the true objects have, and
        `purity` and `largest`: the share of a superpixel's weight that lies on one true part, and the area of the
        largest part, means over the superpixels (None where the data set knows no parts).
    Raises ModelError: a model that is no ASGNet.
    """
    bench, memo = only("asgnet", ASGNet, model, "explore_superpixels"), Memo()
    net = bench(0).model
    data = _shapes() if dataset is None else dataset
    picks = EpisodeControls(data, size=lambda: size or bench(picks.fold).size, shots=shots)
    own = {
        "superpixels": slider("Superpixels at most", net.max_superpixels, 1, max(10, net.max_superpixels)),
        "adaptive": switch("Fewer for small objects", net.adaptive),
        "iterations": slider("Iterations", net.iterations[1], 1, max(15, net.iterations[1])),
        "reach": slider("Reach r, cells", float(net.reach), min(0.5, net.reach), max(30.0, net.reach), 0.5),
        "seeds": dropdown("Seeds", ("published", "clean"), net.seeds),
        "allocation": dropdown("Allocation", ("guided", "expand"), net.allocation),
        "similarity": dropdown("Probability map", ("sum", "mean"), net.similarity),
        "shot_merge": dropdown("Shots", ("pool", "average"), net.shot_merge),
    }

    def draw(superpixels, adaptive, iterations, reach, seeds, allocation, similarity, shot_merge, point, **_) -> Scene:
        episode, asked = picks.episode(), bench(picks.fold)
        decoder = {"allocation": allocation, "similarity": similarity, "shot_merge": shot_merge}

        def run(most: int, **clustering: object) -> Prediction:
            options = {"max_superpixels": most, **clustering, **decoder}
            return memo((picks.key, *options.values()), lambda: asked(episode, **options))

        steps = (asked.model.iterations[0], iterations)
        several = run(superpixels, adaptive=adaptive, iterations=steps, reach=reach, seeds=seeds)
        single = run(1) if superpixels > 1 else several
        found = _Found(episode, several.maps)
        facts = found.facts(point) | _parts(found.weights, found.owner, picks)
        query, truth = episode.query_images[0], episode.query_masks[0]
        mask, facts["iou"] = panels.prediction("prediction", "Prediction", query, strongest(several.logits)[0], truth)
        facts["single"] = panels.iou(strongest(single.logits)[0], truth)
        shown = found.supports(picks.name) + found.query(facts, allocation == "guided")
        shown += [mask, panels.photo("truth", "True mask", query, truth), found.bars(facts)]
        return Scene(shown, f"{_words(facts)} {asked.note(episode.shot)}".strip(), facts)

    return Explorer({**picks.controls, **own}, draw, label="Superpixel explorer", prepare=picks.prepare)


class _Found:
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
        rows, columns = self.guide.shape
        high, wide = episode.query_images.shape[-2:]
        self.cell, self.grid = (high / rows, wide / columns), (rows, columns)

    def supports(self, name: str) -> list:
        """Per support the picture, and its object enlarged: regions, seeds as numbers, centres as rings."""
        shown = []
        for k, (image, mask) in enumerate(zip(self.episode.support_images[0, 0], self.episode.support_masks[0, 0])):
            mine = (self.owner == k).nonzero().flatten()
            weights, first, several = self.weights[mine], int(mine[0]), len(mine) > 1
            labels = (weights.argmax(0) + first + 1) * (weights.sum(0) > 0)
            (top, bottom), (left, right) = spans = [_span(labels > 0, axis) for axis in (1, 0)]
            high, wide = (slice(round(low * side), round(up * side)) for (low, up), side in zip(spans, self.cell))
            ends = [self._pixel(row - top, column - left) for row, column in _centres(weights)]
            # A masked average starts nowhere.
            starts = [self._pixel(row - top, column - left) for row, column in self.seeds[mine].tolist()]
            marks = [panels.cross(*at) for at in ends] if several else []
            marks += [(*at, str(first + n), "badge") for n, at in enumerate(starts if several else ends, 1)]
            caption = f"Its {len(mine)} superpixels; numbers: seeds, rings: centres" if several else "Its one prototype"
            labels, near = labels[top:bottom, left:right], image[:, high, wide]
            shown += [
                panels.photo(f"support {k}", f"Support {k + 1}: {name}", image, mask, width=board.WIDTH // 2),
                panels.regions(f"regions {k}", caption, labels, near, marks=marks),
            ]
        return shown

    def query(self, facts: Mapping, guided: bool) -> list:
        """The query, its guide map with numbers and its probability map."""
        image, best = self.episode.query_images[0], []
        for i in facts["shares"].argsort(descending=True, stable=True)[:SHOWN].tolist():
            region = self.guide == i + 1
            if region.any():
                at = int(self.similarity[i].masked_fill(~region, -torch.inf).argmax())
                best.append((*self._pixel(*divmod(at, self.grid[1])), str(i + 1), "badge"))
        x, y = self._pixel(*facts["position"])
        probability = self.maps["probability"][0, 0]
        guide = "the most similar prototype" if guided else "not handed out, all get the mean"
        caption = f"Probability map, {probability.min():.2f} to {probability.max():.2f}"
        return [
            panels.photo("query", "Query; the ring is compared below", image, marks=[panels.cross(x, y)], pick=True),
            panels.regions("guide", f"Guide map: {guide}", self.guide, image, marks=best),
            panels.heat("probability", caption, probability, image, mask=self.episode.query_masks[0]),
        ]

    def facts(self, point: Mapping) -> dict:
        """What does not depend on the prediction."""
        count = len(self.prototypes)
        unit = F.normalize(self.prototypes, dim=-1)
        row, column = self._position(point)
        return {
            "used": count,
            "counts": torch.bincount(self.owner, minlength=self.episode.shot).tolist(),
            "alike": float(((unit @ unit.T).sum() - count) / (count * count - count)) if count > 1 else 1.0,
            "guide": self.guide,
            "shares": torch.bincount(self.guide.flatten(), minlength=count + 1)[1:] / self.guide.numel(),
            "position": (row, column),
            "cosines": self.similarity[:, row, column],
        }

    def bars(self, facts: Mapping) -> Bars:
        """Cosines at the ring, and what each prototype is given of the query."""
        order = sorted(facts["cosines"].argsort(descending=True, stable=True)[:SHOWN].tolist())
        rows = {
            f"Prototype {i + 1}": {"cosine": float(facts["cosines"][i]), "share": float(facts["shares"][i])}
            for i in order
        }
        left = facts["used"] - len(order)
        caption = "Cosine at the ring; share of the query it is given"
        return Bars("bars", caption + f" (without {left} less similar ones)" * bool(left), rows)

    def _position(self, point: Mapping) -> tuple[int, int]:
        """Row and column of the cell pointed at, or that of the largest probability."""
        high, wide = self.episode.query_images.shape[-2:]
        x, y = point.get("x", -1), point.get("y", -1)
        if point.get("panel") == "query" and 0 <= x < wide and 0 <= y < high:
            return int(y / self.cell[0]), int(x / self.cell[1])
        return divmod(int(self.maps["probability"][0, 0].argmax()), self.grid[1])

    def _pixel(self, row: float, column: float) -> tuple[float, float]:
        """The middle of a cell as x and y in pixels."""
        return (column + 0.5) * self.cell[1] - 0.5, (row + 0.5) * self.cell[0] - 0.5


def _span(inside: Tensor, axis: int, margin: int = 1) -> tuple[int, int]:
    """First cell and the one behind the last that (h, w) holds along an axis, with a margin; all where it is empty."""
    at = inside.any(axis).nonzero().flatten()
    if not len(at):
        return 0, inside.shape[1 - axis]
    return max(0, int(at[0]) - margin), min(inside.shape[1 - axis], int(at[-1]) + 1 + margin)


def _centres(weights: Tensor) -> list[tuple[float, float]]:
    """Row and column of (P, h, w) weights' centres of gravity: for superpixels, where their last iteration ended."""
    total = weights.sum((1, 2)).clamp_min(1e-12)
    rows, columns = (torch.arange(side, dtype=weights.dtype) for side in weights.shape[1:])
    return list(zip((weights.sum(2) @ rows / total).tolist(), (weights.sum(1) @ columns / total).tolist()))


def _parts(weights: Tensor, owner: Tensor, picks: EpisodeControls) -> dict:
    """How the superpixels (P, h, w) lie on the true parts of their supports, where the data set knows those."""
    data, found = picks.dataset, {"parts": None, "purity": None, "largest": None}
    if not hasattr(data, "truth"):
        return found
    pure, largest, parts = [], [], []
    for k, index in enumerate(picks.indices()[0]):
        truth = data.truth(index)
        own = torch.where(truth.clean_mask == truth.target, truth.parts, 0)
        rows, columns = (torch.linspace(0, n - 1, m).round().long() for n, m in zip(own.shape, weights.shape[1:]))
        mine, own = weights[owner == k], F.one_hot(own[rows][:, columns].long())[..., 1:].float()
        parts.append(int(own.sum((0, 1)).count_nonzero()))
        on_part = torch.einsum("phw,hwn->pn", mine, own) / mine.sum((1, 2)).clamp_min(1e-12)[:, None]
        if on_part.shape[1]:
            pure += on_part.amax(1).tolist()
            largest += [float(own.sum((0, 1)).max() / own.sum().clamp_min(1))] * len(mine)
    if pure:
        found = {"purity": sum(pure) / len(pure), "largest": sum(largest) / len(largest)}
    return {**found, "parts": max(parts)}


def _words(facts: Mapping) -> str:
    """The scene in a few sentences."""
    if facts["used"] == 1:
        said = f"One prototype, the masked average, finds {facts['iou']:.0%} (IoU)."
    else:
        said = f"{facts['used']} prototypes, alike by a mean cosine of {facts['alike']:.2f}, find {facts['iou']:.0%} "
        said += f"(IoU); one per support finds {facts['single']:.0%}."
    if facts["used"] > 1 and facts["parts"] not in (None, 1):
        said += f" {facts['purity']:.0%} of a superpixel's weight lies on one true part; the largest part is "
        said += f"{facts['largest']:.0%} of the object."
    return said


def _shapes() -> dict:
    """Shapes-5i as it is, and with objects of three parts."""
    return {
        "Shapes-5i": lambda fold: load_dataset("shapes", fold=fold, split="test"),
        "Objects of 3 parts": lambda fold: load_dataset("shapes", fold=fold, split="test", knobs={"parts": 3}),
    }
