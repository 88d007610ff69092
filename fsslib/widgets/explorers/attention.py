"""`explore_attention`: what a query cell matched in the support, and which map SD-AANet's decoder listens to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...episode import Episode
from ...models.base import joined
from ...models.sdaanet import SDAANet
from ...ops import EPS_PRIOR, resize, strongest
from .. import panels
from ..board import Panel
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import ExplainedModel, Memo, only
from ..explorer import Explorer, Scene, dropdown, slider

MARGIN = 12  # percent of the picture around an object that is looked at closely
# Which map is exchanged for its stand-in.
GUIDES = {"both": (), "prior only": ("attention",), "attention only": ("prior",), "neither": ("prior", "attention")}
FILLERS = {"its mean": lambda map_: map_.mean((2, 3), keepdim=True).expand_as(map_), "zeros": torch.zeros_like}


def explore_attention(
    dataset: Datasets = None, model: SDAANet | str | None = None, *, size: int | None = None, shots: int = 1,
    fold: int = 0, top: int = 5, guides: str = "both",
) -> Explorer:  # fmt: skip
    """Point at a query cell and see its best matches in the supports; exchange the maps that the decoder is given.

    Args:
        dataset, size, shots: see `explore_episode`.
        model: an SD-AANet with prior and attention, a file of one, or a function fold -> SDAANet; None: the shipped
            weights, of fold 0.
        fold, top, guides: first values of the controls.
    Returns: an `Explorer` with the controls of `EpisodeControls`, and

        * `top`: how many matches are numbered in every support.
        * `shot`: the support whose match map is shown: its object cells' cosines with the query cell. Its colours mean
          the same for every query cell.
        * `masking`: the supports are masked `"twice"`, before and after the deepest stage, or only `"after"` it.
        * `guides`: what the trained decoder gets: `"both"`, `"prior only"`, `"attention only"`, `"neither"`. A map
          it does not get has a stand-in, `instead`: the map's mean in every cell, or zeros. Nothing is trained anew.

        The board's point, on the query or one of its maps, chooses the cell; at first it is the cell of the true
        object with the best match. Facts (h x w cells of the prior, K supports): `cell` (row, column), `best` (K,) its
        best cosines, `matches` (K lists of (row, column, cosine), best first), `prior` (h, w), `attention` (h', w'),
        `taught` (1, h', w'), what SAAM's supervised layer says of the query (None where the decoder gets just that),
        `iou` and `prediction` (H, W) with the maps as chosen, `iou_both` with both, `episode`.
    Raises ModelError: a model that is no SD-AANet, or lacks one of the maps.
    """
    fits, needs = lambda net: net.saam is not None and net.prior, " with prior and attention"
    model_of = only("sdaanet", SDAANet, model, "explore_attention", fits, needs)
    picks = EpisodeControls(dataset, model_of, size=size, shots=shots, fold=fold)
    runs, decoded, masking = Memo(4), Memo(), model_of(fold).model.prior_masking
    controls = {
        "top": slider("Matches", top, 1, 9), "shot": slider("Match map of support", 1, 1, 1),
        "masking": dropdown("Supports masked", {"twice": "twice", "only after": "after"}, masking),
        "guides": dropdown("Decoder gets", list(GUIDES), guides), "instead": dropdown("Instead", list(FILLERS)),
    }  # fmt: skip

    def prepare(changed: str | None) -> None:
        picks.prepare(changed)
        controls["shot"].max = len(picks.indices()[0])
        controls["shot"].disabled = controls["shot"].max == 1

    def draw(top: int, shot: int, masking: str, guides: str, instead: str, point: dict, **_) -> Scene:
        episode, explained = picks.episode(), picks.model
        image, truth = episode.query_images[0], episode.query_masks[0]
        run = runs((picks.key, masking), lambda: Run.of(explained, episode, masking))
        x, y, row, column = run.chosen(point, truth)
        swapped = GUIDES[guides]
        key = (picks.key, masking, guides, instead)
        logits, inner = decoded(key, lambda: run.decode(explained, swapped, FILLERS[instead])) if swapped else run.plain
        predicted, both = strongest(logits)[0], panels.iou(strongest(run.plain[0])[0], truth)
        answer, score = panels.prediction("prediction", f"Prediction: {guides}", image, predicted, truth)
        matches = [run.best(k, row, column, top) for k in range(episode.shot)]
        here = {"pick": True, "marks": [panels.cross(x, y)]}
        shown = [panels.photo("query", "Query: point at a cell", image, **here)]
        images, masks = episode.support_images[0, 0], episode.support_masks[0, 0]
        for k, best in enumerate(matches):
            marks = panels.badges([panels.middle(*match[:2], *run.over) for match in best])
            caption = f"Support {k + 1}: " + (f"best match {best[0][2]:.2f}" if best else "no object to match")
            shown.append(_closer(panels.photo(f"support {k}", caption, images[k], masks[k], marks=marks), masks[k]))
        values, ends = run.matched(shot - 1, row, column)
        caption = f"Cosine of support {shot}'s object with that cell: {ends[0]:.2f} (dark) to {ends[1]:.2f} (bright)"
        mask = masks[shot - 1]
        shown.append(_closer(panels.heat("matches", caption, values, images[shot - 1], limits=ends, mask=mask), mask))
        prior, attention = run.maps["prior"][0, 0], run.maps["attention"][0, 0]
        at = {"prior": float(prior[row, column]), "attention": float(resize(attention, prior.shape)[row, column])}
        for name, values, ends in (("prior", prior, (0, 1)), ("attention", attention, None)):
            caption = f"{name.capitalize()}: {at[name]:.2f} here" + ", kept from the decoder" * (name in swapped)
            shown.append(panels.heat(name, caption, values, image, limits=ends, **here))
        if "taught" in run.maps:
            caption = "P(object) of the layer that the supports' masks teach; no decoder gets it"
            shown.append(panels.heat("taught", caption, run.maps["taught"][0], image, limits=(0, 1), **here))
        caption = f"Inner prediction on {inner.shape[2]} x {inner.shape[3]} cells: object's probability"
        shown += [panels.heat("inner", caption, inner.softmax(1)[0, 1], image, limits=(0, 1)), answer]
        shown.append(panels.photo("truth", f"True mask: {picks.name}", image, truth))
        facts = {"cell": (row, column), "best": run.peaks()[:, row, column], "matches": matches, "prior": prior}
        facts |= {"attention": attention, "taught": run.maps.get("taught"), "prediction": predicted}
        facts |= {"iou": score, "iou_both": both}
        words = _words(run, facts, at, bool(truth[int(y), int(x)] == 1), swapped, instead)
        return Scene(shown, f"{words} {explained.note(episode.shot)}".strip(), {**facts, "episode": episode})

    return Explorer({**picks.controls, **controls}, draw, label="Attention explorer", prepare=prepare)


@dataclass(frozen=True)
class Run:
    """What the model computed for one episode, on the CPU.

    Attributes:
        maps: see `SDAANet`; `taught` (B, h, w), the object's probability of SAAM's supervised layer on the query,
            where the decoder gets another one. plain: its logits (1, 2, H, W) and the first inner ones.
        over: (H, W) of the images and (h, w) of the prior.
        cells: for every support the numbers (n,) of the cells that hold some of the object.
        cosines: for every support (n, h*w), of these cells with those of the query, as `ops.prior_mask` has them.
    """

    maps: dict[str, Tensor]
    plain: tuple[Tensor, Tensor]
    over: tuple[tuple[int, int], tuple[int, int]]
    cells: list[Tensor]
    cosines: list[Tensor]

    @classmethod
    def of(cls, explained: ExplainedModel, episode: Episode, masking: str) -> "Run":
        """Run the model, its supports masked `"twice"` or only `"after"` the deepest stage."""
        with explained.ready(prior_masking=masking) as model:
            query, supports = model.features(episode.to(explained.device))
            supports = {name: value[:, 0] for name, value in supports.items()}
            way = model.segment(query, supports, episode.support_masks[:, 0].to(explained.device), None, learn=False)
            if model.saam.query_map is not None:
                features = model.down_supp(joined(model.encode(episode.to(explained.device), ["layer2", "layer3"])[0]))
                taught = model.saam.support_logits(model.saam(features, way.maps["pooled"].mean(1))).softmax(1)[:, 1]
                way.maps["taught"] = taught
        maps = {name: value.float().cpu() for name, value in way.maps.items()}
        query, supports = query["deep"][0].float().cpu(), supports["deep"][0].float().cpu()
        weights = resize((episode.support_masks[0, 0] == 1).float(), tuple(supports.shape[-2:])).flatten(1)
        cells = [(weight > 0).nonzero()[:, 0] for weight in weights]
        rows, cosines = query.flatten(1), []
        for support, weight, chosen in zip(supports.flatten(2), weights, cells):
            objects = support[:, chosen] * weight[chosen]
            cosines.append(objects.T @ rows / (objects.norm(dim=0)[:, None] * rows.norm(dim=0) + EPS_PRIOR))
        over = tuple(episode.query_images.shape[-2:]), tuple(query.shape[-2:])
        return cls(maps, (way.logits.cpu(), maps["inner/0"]), over, cells, cosines)

    def decode(self, explained: ExplainedModel, swapped: Sequence[str], fill: Callable) -> tuple[Tensor, Tensor]:
        """As `plain`, with the maps named in `swapped` exchanged for what `fill` makes of them."""
        given = [fill(self.maps[name]) if name in swapped else self.maps[name] for name in ("prior", "attention")]
        features = self.maps["query_reweighted"]
        guides = torch.cat([resize(guide, tuple(features.shape[-2:])) for guide in given], 1)
        with explained.ready() as model:
            inputs = (self.maps["prototypes"], features, guides)
            small, inner = model.enrichment(*(tensor.to(explained.device) for tensor in inputs))
        return resize(small.float(), self.over[0]).cpu(), inner[0].float().cpu()

    def peaks(self) -> Tensor:
        """(K, h, w): the best cosine of every query cell in each support, as the prior has it before stretching."""
        count = self.over[1][0] * self.over[1][1]
        best = torch.zeros(len(self.cells), count)
        for k, values in enumerate(self.cosines):
            if len(values):  # a cell without any of the object has cosine 0
                best[k] = values.amax(0) if len(values) == count else values.amax(0).clamp_min(0)
        return best.unflatten(1, self.over[1])

    def chosen(self, point: dict, truth: Tensor) -> tuple[float, float, int, int]:
        """Pixel x, y and the row and column of the cell that was pointed at; else the best matched of the object."""
        if spot := panels.pointed(point, ("query", "prior", "attention", "taught"), self.over[0]):
            return *spot[1:], *panels.cell_at(*spot[1:], *self.over)
        share = resize((truth == 1).float()[None], self.over[1])[0]
        best = self.peaks().mean(0).masked_fill(share < share.max(), -1)
        row, column = divmod(int(best.argmax()), best.shape[1])
        return *panels.middle(row, column, *self.over), row, column

    def matched(self, k: int, row: int, column: int) -> tuple[Tensor, tuple[float, float]]:
        """Cosines (h, w) of support k's object cells with a query cell, and the ends of all cosines of the episode."""
        every = torch.cat([values.flatten() for values in self.cosines])
        ends = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
        rows, columns = self.over[1]
        values = torch.full((rows * columns,), ends[0])
        values[self.cells[k]] = self.cosines[k][:, row * columns + column]
        return values.view(rows, columns), ends

    def best(self, k: int, row: int, column: int, top: int) -> list[tuple[int, int, float]]:
        """(row, column, cosine) of support k's best matches for a query cell, best first; neighbours of a better one
        are left out, or all would lie side by side."""
        columns, matches = self.over[1][1], []
        values = self.cosines[k][:, row * columns + column]
        for at in values.argsort(descending=True, stable=True).tolist():
            spot = divmod(int(self.cells[k][at]), columns)
            if len(matches) < top and all(max(abs(spot[0] - r), abs(spot[1] - c)) > 1 for r, c, _ in matches):
                matches.append((*spot, float(values[at])))
        return matches


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
    pixels = panel.pixels[top : top + side, left : left + side].copy()
    return replace(panel, pixels=pixels, marks=marks, alt=f"{panel.alt} Shown is the square around the object.")


def _words(run: Run, facts: Mapping, at: Mapping, inside: bool, swapped: Sequence[str], instead: str) -> str:
    row, column = (value + 1 for value in facts["cell"])
    best = " and ".join(f"{value:.2f}" for value in facts["best"].tolist())
    where = f"The query cell in row {row}, column {column}, {'on' if inside else 'off'} the object"
    words = f"{where}, has a best cosine of {best}; stretched, its prior is {at['prior']:.2f}."
    reached = f"the decoder reaches IoU {facts['iou']:.0%}"
    if not swapped:
        return f"{words} Given both maps, {reached}."
    stand_ins = {name: "zeros" if instead == "zeros" else f"its mean ({run.maps[name].mean():.2f})" for name in swapped}
    swaps = " and ".join(f"the {name} by {stand_in}" for name, stand_in in stand_ins.items())
    return f"{words} Replacing {swaps}, {reached}; with both maps {facts['iou_both']:.0%}."
