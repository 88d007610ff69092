"""`explore_attention`: what a query cell matched in the support, and which map SD-AANet's decoder listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...data.base import SegmentationDataset
from ...episode import Episode
from ...models.sdaanet import SDAANet
from ...ops import EPS_PRIOR, resize, strongest
from .. import panels
from ..board import Panel
from ..episode_controls import EpisodeControls
from ..explained_models import ExplainedModel, Memo, only
from ..explorer import Explorer, Scene, dropdown, slider

MARGIN = 12  # percent of the picture around an object that is looked at closely
# Which map is exchanged for its stand-in.
GUIDES = {"both": (), "prior only": ("attention",), "attention only": ("prior",), "neither": ("prior", "attention")}
FILLERS = {
    "its mean": lambda values: values.mean((2, 3), keepdim=True).expand_as(values),
    "zeros": torch.zeros_like,
}


def explore_attention(
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    model: SDAANet | str | None = None,
    *,
    size: int | None = None,
    shots: int = 1,
    fold: int = 0,
    top: int = 5,
    guides: str = "both",
) -> Explorer:
    """Point at a query cell and see its best matches in the supports; exchange the maps that the decoder is given.

    Args:
        dataset: see `EpisodeControls`: one data set, several by label, or None for Shapes-5i.
        model: an SD-AANet with prior and attention, a file of one, or a function fold -> SDAANet; None: the shipped
            weights, of fold 0.
        size: pixels a side; None: what suits the model's backbone.
        shots, fold, top, guides: first values of the controls.
    Returns:
        an `Explorer` with the controls of `Picks`, and

        * `top`: how many matches are numbered in every support.
        * `shot`: the support whose match map is shown: its object cells' cosines with the query cell. Its colours mean
          the same for every query cell.
        * `masking`: the supports are masked `"twice"`, before and after the deepest stage, or only `"after"` it.
        * `guides`: what the trained decoder gets: `"both"`, `"prior only"`, `"attention only"`, `"neither"`. A map
          it does not get has a stand-in, `instead`: the map's mean in every cell, or zeros. Nothing is trained anew.

        The board's point, on the query or one of its maps, chooses the cell; at first it is the cell of the true
        object with the best match. Facts (h x w cells of the prior, K supports): `cell` (row, column), `best` (K,) its
        best cosines, `matches` (K lists of (row, column, cosine), best first), `prior` (h, w), `attention` (h', w'),
        `iou` and `prediction` (H, W) with the maps as chosen, `iou_both` with both, `episode`.
    Raises ModelError: a model that is no SD-AANet, or lacks one of the maps.
    """
    guided = lambda net: net.saam is not None and net.prior  # noqa: E731
    bench = only("sdaanet", SDAANet, model, "explore_attention", guided, " with prior and attention")
    picks = EpisodeControls(dataset, size=lambda: size or bench(picks.fold).size, shots=shots, fold=fold)
    runs, decoded, masking = Memo(4), Memo(), bench(fold).model.prior_masking

    own = {
        "top": slider("Matches", top, 1, 9),
        "shot": slider("Match map of support", 1, 1, 1),
        "masking": dropdown("Supports masked", {"twice": "twice", "only after": "after"}, masking),
        "guides": dropdown("Decoder gets", list(GUIDES), guides),
        "instead": dropdown("Instead", list(FILLERS)),
    }

    def prepare(changed: str | None) -> None:
        picks.prepare(changed)
        own["shot"].max = len(picks.indices()[0])
        own["shot"].disabled = own["shot"].max == 1

    def draw(top: int, shot: int, masking: str, guides: str, instead: str, point: dict, **_) -> Scene:
        episode, net = picks.episode(), bench(picks.fold)
        image, truth = episode.query_images[0], episode.query_masks[0]
        run = runs((picks.key, masking), lambda: Run.of(net, episode, masking))
        x, y, row, column = run.chosen(point, truth)

        swapped = GUIDES[guides]
        key = (picks.key, masking, guides, instead)
        logits, inner = decoded(key, lambda: run.decode(net, swapped, FILLERS[instead])) if swapped else run.plain
        found, both = strongest(logits)[0], panels.iou(strongest(run.plain[0])[0], truth)
        predicted, score = panels.prediction("prediction", f"Prediction: {guides}", image, found, truth)
        matches = [run.best(k, row, column, top) for k in range(episode.shot)]
        here = {"pick": True, "marks": [panels.cross(x, y)]}
        shown = [panels.photo("query", "Query: point at a cell", image, **here)]
        for k, (own_image, mask) in enumerate(zip(episode.support_images[0, 0], episode.support_masks[0, 0])):
            marks = panels.badges([run.centre(*match[:2]) for match in matches[k]])
            said = f"best match {matches[k][0][2]:.2f}" if matches[k] else "no object to match"
            panel = panels.photo(f"support {k}", f"Support {k + 1}: {said}", own_image, mask, marks=marks)
            shown.append(_closer(panel, mask))
        values, ends = run.over(shot - 1, row, column)
        caption = f"Cosine of support {shot}'s object with that cell: {ends[0]:.2f} (dark) to {ends[1]:.2f} (bright)"
        support, mask = episode.support_images[0, 0, shot - 1], episode.support_masks[0, 0, shot - 1]
        shown.append(_closer(panels.heat("matches", caption, values, support, limits=ends, mask=mask), mask))
        prior, attention = run.maps["prior"][0, 0], run.maps["attention"][0, 0]
        at = {"prior": float(prior[row, column]), "attention": float(resize(attention, prior.shape)[row, column])}
        for name, values, ends in (("prior", prior, (0, 1)), ("attention", attention, None)):
            held = ", kept from the decoder" if name in swapped else ""
            shown.append(
                panels.heat(name, f"{name.capitalize()}: {at[name]:.2f} here{held}", values, image, limits=ends, **here)
            )
        caption = f"Inner prediction on {inner.shape[2]} x {inner.shape[3]} cells: object's probability"
        shown += [panels.heat("inner", caption, inner.softmax(1)[0, 1], image, limits=(0, 1)), predicted]
        shown.append(panels.photo("truth", f"True mask: {picks.name}", image, truth))
        facts = {"cell": (row, column), "best": run.peaks()[:, row, column], "matches": matches, "prior": prior}
        facts |= {"attention": attention, "iou": score, "iou_both": both, "prediction": found}
        words = _words(run, facts, at, bool(truth[int(y), int(x)] == 1), swapped, instead)
        return Scene(shown, f"{words} {net.note(episode.shot)}".strip(), {**facts, "episode": episode})

    return Explorer({**picks.controls, **own}, draw, label="Attention explorer", prepare=prepare)


@dataclass(frozen=True)
class Run:
    """What the model computed for one episode, on the CPU.

    Attributes:
        maps: see `SDAANet`. plain: its logits (1, 2, H, W) and the first inner ones.
        grid: (h, w) of the prior.
        cells: for every support the numbers (n,) of the cells that hold some of the object.
        cosines: for every support (n, h*w), of these cells with those of the query, as `ops.prior_mask` has them.
    """

    maps: dict[str, Tensor]
    plain: tuple[Tensor, Tensor]
    grid: tuple[int, int]
    cells: list[Tensor]
    cosines: list[Tensor]

    @classmethod
    def of(cls, net: ExplainedModel, episode: Episode, masking: str) -> Run:
        """Run the model, its supports masked `"twice"` or only `"after"` the deepest stage."""
        with net.ready(prior_masking=masking, explain=False) as model:  # SAAM on the supports is not looked at
            own = episode.to(next(model.parameters()).device)
            query, supports = model.features(own)
            supports = {name: value[:, 0] for name, value in supports.items()}
            way = model.segment(query, supports, own.support_masks[:, 0], None, learn=False)
        maps = {name: value.float().cpu() for name, value in way.maps.items()}
        query, supports = query["deep"][0].float().cpu(), supports["deep"][0].float().cpu()
        weights = resize((episode.support_masks[0, 0] == 1).float(), tuple(supports.shape[-2:])).flatten(1)
        cells = [(own > 0).nonzero()[:, 0] for own in weights]
        rows, cosines = query.flatten(1), []
        for k, chosen in enumerate(cells):
            objects = supports[k].flatten(1)[:, chosen] * weights[k, chosen]
            norms = objects.norm(dim=0)[:, None] * rows.norm(dim=0)
            cosines.append(objects.T @ rows / (norms + EPS_PRIOR))
        return cls(maps, (way.logits.cpu(), maps["inner/0"]), tuple(query.shape[-2:]), cells, cosines)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return tuple(self.plain[0].shape[-2:])

    def decode(self, net: ExplainedModel, swapped: Sequence[str], fill: Callable) -> tuple[Tensor, Tensor]:
        """As `plain`, with the maps named in `swapped` exchanged for what `fill` makes of them."""
        given = [fill(self.maps[name]) if name in swapped else self.maps[name] for name in ("prior", "attention")]
        features = self.maps["query_reweighted"]
        guides = torch.cat([resize(one, tuple(features.shape[-2:])) for one in given], 1)
        with net.ready() as model:
            inputs = [one.to(next(model.parameters()).device) for one in (self.maps["prototypes"], features, guides)]
            small, inner = model.enrichment(*inputs)
        return resize(small.float(), self.size).cpu(), inner[0].float().cpu()

    def peaks(self) -> Tensor:
        """(K, h, w): the best cosine of every query cell in each support, as the prior has it before stretching."""
        best = torch.zeros(len(self.cells), self.grid[0] * self.grid[1])
        for k, own in enumerate(self.cosines):
            if len(own):
                best[k] = own.amax(0) if len(own) == best.shape[1] else own.amax(0).clamp_min(0)
        return best.unflatten(1, self.grid)

    def chosen(self, point: dict, truth: Tensor) -> tuple[float, float, int, int]:
        """Pixel x, y and the row and column of the cell that was pointed at; else the best matched of the object."""
        (height, width), (rows, columns) = self.size, self.grid
        x, y = point.get("x", -1), point.get("y", -1)
        if point.get("panel") in ("query", "prior", "attention") and 0 <= x < width and 0 <= y < height:
            return x, y, int(y) * rows // height, int(x) * columns // width
        share = resize((truth == 1).float()[None], self.grid)[0]
        best = self.peaks().mean(0).masked_fill(share < share.max(), -1)
        row, column = divmod(int(best.argmax()), columns)
        return *self.centre(row, column), row, column

    def centre(self, row: int, column: int) -> tuple[float, float]:
        """The pixel x, y in the middle of a cell."""
        x, y = ((at + 0.5) * side / n for at, side, n in zip((column, row), self.size[::-1], self.grid[::-1]))
        return x - 0.5, y - 0.5

    def over(self, k: int, row: int, column: int) -> tuple[Tensor, tuple[float, float]]:
        """Cosines (h, w) of support k's object cells with a query cell, and the ends of all cosines of the episode."""
        known = [own for own in self.cosines if own.numel()]
        ends = (min(float(own.min()) for own in known), max(float(own.max()) for own in known)) if known else (0.0, 1.0)
        values = torch.full((self.grid[0] * self.grid[1],), ends[0])
        values[self.cells[k]] = self.cosines[k][:, row * self.grid[1] + column]
        return values.view(self.grid), ends

    def best(self, k: int, row: int, column: int, top: int) -> list[tuple[int, int, float]]:
        """(row, column, cosine) of support k's best matches for a query cell, best first; neighbours of a better one
        are left out, or all would lie side by side."""
        values, found = self.cosines[k][:, row * self.grid[1] + column], []
        for at in values.argsort(descending=True, stable=True).tolist():
            spot = divmod(int(self.cells[k][at]), self.grid[1])
            if len(found) < top and all(max(abs(spot[0] - r), abs(spot[1] - c)) > 1 for r, c, _ in found):
                found.append((*spot, float(values[at])))
        return found


def _closer(panel: Panel, mask: Tensor) -> Panel:
    """The square around a support's object: in the whole picture numbers on it would cover each other."""
    spots = (mask == 1).nonzero()
    if not len(spots):
        return panel
    low, high = spots.amin(0), spots.amax(0) + 1
    side = min(int((high - low).max()) + MARGIN * min(mask.shape) // 100, *mask.shape)
    middle = ((low + high - side) // 2).tolist()
    top, left = (min(max(at, 0), whole - side) for at, whole in zip(middle, mask.shape))
    marks = [(x - left, y - top, *rest) for x, y, *rest in panel.marks]
    pixels = np.ascontiguousarray(panel.pixels[top : top + side, left : left + side])
    return replace(panel, pixels=pixels, marks=marks, alt=f"{panel.alt} Shown is the square around the object.")


def _words(run: Run, facts: Mapping, at: Mapping, inside: bool, swapped: Sequence[str], instead: str) -> str:
    row, column = (value + 1 for value in facts["cell"])
    best = " and ".join(f"{value:.2f}" for value in facts["best"].tolist())
    words = (
        f"The query cell in row {row}, column {column}, {'on' if inside else 'off'} the object, has a best cosine of "
        f"{best}; stretched, its prior is {at['prior']:.2f}. "
    )
    if not swapped:
        return words + f"Given both maps, the decoder reaches IoU {facts['iou']:.0%}."
    stand_ins = {name: "zeros" if instead == "zeros" else f"its mean ({run.maps[name].mean():.2f})" for name in swapped}
    told = " and ".join(f"the {name} by {stand_in}" for name, stand_in in stand_ins.items())
    both = f"with both maps {facts['iou_both']:.0%}"
    return f"{words}Replacing {told}, the decoder reaches IoU {facts['iou']:.0%}; {both}."
