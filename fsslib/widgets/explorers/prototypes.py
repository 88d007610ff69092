"""`explore_prototypes`: move the prototype, and see the cosine maps and the mask follow."""

from collections.abc import Mapping

import ipywidgets
import torch
import torch.nn.functional as F
import traitlets
from torch import Tensor, nn

from ...data.base import IGNORE, SegmentationDataset
from ...data.shapes.dataset import Shapes5i
from ...data.transforms import Resize, denormalise
from ...data.weak_annotations import ANNOTATIONS, annotate
from ...models.panet import PANet
from ...ops import cosine_maps, strongest, upsample
from .. import panels, strokes
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import Memo, only
from ..explorer import Explorer, Scene, dropdown, slider
from ..painter import SupportPainter

SOURCES = {
    "mask": "the whole mask", "scribble": "a scribble on object and background", "box": "a box",
    "inside": "the mask without its rim", "left half": "the object's left half",
    "right half": "the object's right half", "one cell": "a single cell", "drawing": "your drawing",
}  # fmt: skip
SURE = 0.9
EASEL = 290  # CSS pixels, about: the height of the picture to draw on


def explore_prototypes(
    dataset: Datasets = None, model: PANet | str | None = None, *, size: int | None = None, shots: int = 1,
    fold: int = 0, source: str = "mask", scale: float | None = None,
) -> Explorer:  # fmt: skip
    """Choose what the object's prototype is averaged from, and see what it finds in the query.

    A click on a support takes the feature of that one cell for the prototype.

    Args:
        dataset, size, shots: see `explore_episode`.
        model: a PANet, a file of one, or a function fold -> PANet; None: the shipped weights of the chosen fold.
        fold, source, scale: first values of the controls; scale None: the model's own.
    Returns: an `Explorer` with the controls of `EpisodeControls`, and

        * `source`: what is pooled. `"mask"`; `"scribble"` and `"box"` as `annotate` makes them; `"inside"`, half a cell
          away from the outline; `"left half"`, `"right half"`, or where Shapes-5i draws parts `"part 1"`…; `"one
          cell"`, the one that was pointed at; `"drawing"`, strokes of your own on the first support. What a source
          leaves out of the object is pooled nowhere.
        * `drawing`: those strokes, see `fsslib.widgets.strokes`; kept for every picture.
        * `scale`: the temperature α. `stage`: the backbone's stage, where nothing was trained behind it.

        Facts (C channels on h x w cells, K supports): `iou` (0..1), `prototype`, `background` (C,), `cosine` (2, h, w)
        with background and object, `probability` (H, W) of the object, `prediction` (H, W), `masks` (K, H, W) that
        were pooled, `moved` (cosine with the whole mask's prototype), `sure` (share of the pixels above 0.9),
        `episode` (the `Episode`).
    Raises ModelError: a model that is no PANet.
    """
    model_of, memo, pooled = only("panet", PANet, model, "explore_prototypes"), Memo(8), Memo()
    picks = EpisodeControls(dataset, model_of, size=size, shots=shots, fold=fold)
    first, easel = model_of(fold).model, Easel()
    alpha = first.scale if scale is None else scale
    alpha, step = (int(alpha), 1) if float(alpha).is_integer() else (alpha, 0.1)
    controls = {
        "source": dropdown("Prototype from", _sources(picks.dataset), source),
        "scale": slider("Temperature α", alpha, min(1, alpha), max(40, alpha), step),
    }
    if isinstance(first.project, nn.Identity):
        controls["stage"] = dropdown("Stage", list(first.backbone.channels), first.stage)

    def prepare(changed: str | None) -> None:
        picks.prepare(changed)
        choice, offered = controls["source"], _sources(picks.dataset)
        # A hand on a support or on the easel says what is wanted.
        chosen = {"point": "one cell", "drawing": "drawing"}.get(changed, choice.value)
        if list(choice.options) != offered:
            choice.options = offered
        choice.value = chosen if chosen in offered else "mask"
        picture = picks.dataset, picks.indices()[0][0], picks.key[-1]
        easel.place(picture, denormalise(picks.episode().support_images[0, 0, 0]))
        easel.layout.display = None if choice.value == "drawing" else "none"

    def draw(source: str, scale: float, point: dict, stage: str | None = None, **_) -> Scene:
        episode, explained = picks.episode(), picks.model
        net, given = explained.model, episode.support_masks
        stage = stage or net.stage
        maps = memo((picks.key, stage), lambda: explained(episode, stage=stage).maps)
        query, supports = maps["query_features"], maps["support_features"]
        cells, pixels, marks = tuple(supports.shape[-2:]), tuple(given.shape[-2:]), {}
        if source == "drawing":
            masks = given.clone()
            masks[0, 0, 0] = easel.painter.mask_tensor()
        elif source == "one cell":
            k, x, y = _pixel(point, given[0, 0])
            (row, column), marks[k] = panels.cell_at(x, y, pixels, cells), [panels.cross(x, y)]
            masks = torch.where(given == 1, IGNORE, given)
            down, right = (torch.arange(side) * count // side for side, count in zip(pixels, cells))
            masks[0, 0, k][(down == row)[:, None] & (right == column)] = 1
        else:
            rim = -(-pixels[0] // cells[0]) // 2  # pixels: half a cell
            masks = pooled((picks.key, source, rim), lambda: _marked(picks, given, source, rim))
        background, prototype = net.prototypes(supports, masks)[0]
        if marks:
            prototype = supports[0, 0, k, :, row, column]  # pooling would mix it with its neighbours
        cosine = cosine_maps(query, torch.stack([background, prototype])[None], 1.0)
        logits = upsample(scale * cosine, pixels)
        moved = F.cosine_similarity(prototype, net.prototypes(supports, given)[0, 1], dim=0)
        probability, mask = logits.softmax(1)[0], strongest(logits)[0]
        sure = float((probability.amax(0) > SURE).float().mean())
        image, truth = episode.query_images[0], episode.query_masks[0]
        ends = (float(cosine.min()), float(cosine.max()))
        shades = f"{ends[0]:.2f} (dark) to {ends[1]:.2f} (bright)"
        predicted, score = panels.prediction("prediction", "Prediction", image, mask, truth)
        shown = panels.supports(episode, "what is pooled", masks, marks, pick=True)
        shown.append(panels.photo("query", "Query", image))
        for key, values in (("object", cosine[0, 1]), ("background", cosine[0, 0])):
            shown.append(panels.heat(key, f"Cosine, {key}: {shades}", values, image, limits=ends))
        caption = f"Object's probability, α = {scale:g}"
        shown += [panels.heat("probability", caption, probability[1], image, limits=(0, 1)), predicted]
        shown.append(panels.photo("truth", f"True mask: {picks.name}", image, truth))
        facts = {"iou": score, "prototype": prototype, "background": background, "moved": float(moved), "sure": sure}
        facts |= {"cosine": cosine[0], "probability": probability[1], "prediction": mask, "masks": masks[0, 0]}
        words = _words(source, facts, upsample(cosine, pixels)[0, :, truth == 1])
        words += f" At α = {scale:g} the model is more than {SURE:.0%} sure of {sure:.0%} of the pixels."
        if stage != net.stage:
            words += f" The model itself matches {net.stage}, not {stage}."
        return Scene(shown, f"{words} {explained.note(episode.shot)}".strip(), {**facts, "episode": episode})

    every = {**picks.controls, **controls, "drawing": easel}
    return Explorer(every, draw, label="Prototype explorer", prepare=prepare, above=(easel,), hidden=("drawing",))


class Easel(ipywidgets.VBox):
    """A painter for one picture after another. `value`: the strokes on the present one; those on others are kept."""

    value = traitlets.Dict()

    def __init__(self):
        super().__init__()
        self._drawings, self._key = {}, None

    def place(self, key: object, image: Tensor) -> None:
        """Put another picture (3, H, W) uint8 up, with what has been drawn on it; nothing for the present `key`."""
        if key != self._key:
            self._drawings[self._key] = self.value
            for painter in self.children:
                painter.close()
            self.children, self._key, self._image = (), key, image
            self.value = self._drawings.get(key, {})

    @property
    def painter(self) -> SupportPainter:
        """The painter of the present picture, made when it is first wanted."""
        if not self.children:
            side, strokes_kept = self._image.shape[1], self._drawings.get(self._key)
            painter = SupportPainter(self._image, strokes_kept or None, height=side * max(1, EASEL // side))
            painter.observe(lambda change: setattr(self, "value", change["new"]), "document")
            self.children = (painter,)
        return self.children[0]

    @traitlets.validate("value")
    def _accept(self, proposal: dict) -> dict:
        if proposal["value"] or self.children:
            self.painter.document = proposal["value"] or strokes.empty()  # refuses strokes of another picture
        return self.painter.document if self.children else {}


def _sources(data: SegmentationDataset) -> list[str]:
    """Names of the sources that a data set offers."""
    count = data.knobs.parts if isinstance(data, Shapes5i) else 1
    parts = [f"part {number}" for number in range(1, count + 1)] if count > 1 else ["left half", "right half"]
    return ["mask", "scribble", "box", "inside", *parts, "one cell", "drawing"]


def _marked(picks: EpisodeControls, masks: Tensor, source: str, margin: int) -> Tensor:
    """Support masks (1, 1, K, H, W) as a source marks them; what it leaves out of the object is 255."""
    if source in ANNOTATIONS:
        return torch.stack([annotate(mask, source) for mask in masks[0, 0]])[None, None]
    objects = masks == 1
    if source == "inside":
        rim = F.max_pool2d((~objects[0]).float(), 2 * margin + 1, 1, margin)[None] > 0
        kept = objects & ~rim
        kept = torch.where(kept.any(-1).any(-1)[..., None, None], kept, objects)  # a thin object keeps its mask
    elif source in SOURCES:
        columns = torch.arange(masks.shape[-1])
        middles = [columns.expand(mask.shape)[mask].median() if mask.any() else 0 for mask in objects[0, 0]]
        left = (columns <= torch.tensor(middles)[:, None, None])[None, None]
        kept = objects & (left if source == "left half" else ~left)
    else:
        data, shape, (indices, _) = picks.dataset, Resize(picks.key[-1]), picks.indices()
        parts = [shape(data[index][0], data.truth(index).parts)[1] for index in indices]
        kept = objects & (torch.stack(parts) == int(source.split()[1]))
    return torch.where(objects & ~kept, IGNORE, masks)


def _pixel(point: dict, masks: Tensor) -> tuple[int, int, int]:
    """Support, x and y that were pointed at; else the object's pixel nearest to its middle in the first support."""
    shot, height, width = masks.shape
    if spot := panels.pointed(point, [f"support {k}" for k in range(shot)], (height, width)):
        return int(spot[0].split()[1]), int(spot[1]), int(spot[2])
    inside = (masks[0] == 1).nonzero()
    inside = inside if len(inside) else torch.tensor([[height // 2, width // 2]])
    y, x = inside[(inside - inside.double().mean(0)).square().sum(1).argmin()].tolist()
    return 0, x, y


def _words(source: str, facts: Mapping, on_object: Tensor) -> str:
    """What the prototype is, and what the query makes of it: (2, n) cosines on the true object."""
    count = int((facts["masks"] == 1).sum())
    if not count:
        hint = "draw on the picture above" if source == "drawing" else "choose another support or source"
        return f"Nothing is marked as object: its prototype is zero, and so is every cosine with it; {hint}."
    near = "" if source == "mask" else f", cosine {facts['moved']:.2f} to the whole mask's"
    words = f"Prototype from {SOURCES.get(source, source)}, {count} pixels{near}: IoU {facts['iou']:.0%}."
    if on_object.shape[1]:
        background, prototype = on_object.mean(1).tolist()
        words += f" On the true object the mean cosine is {prototype:.2f} to it, {background:.2f} to the background's."
    return words
