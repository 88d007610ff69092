"""`compare_methods`: several methods on a support that you draw and a photograph that you upload."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ipywidgets
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ... import files
from ...data.pictures import image_tensor, open_picture
from ...data.transforms import Resize, normalise
from ...errors import DatasetError
from ...inference import infer, supports
from ...plots.pixels import enlarged
from .. import panels, strokes
from ..board import Panel
from ..episode_controls import Datasets, EpisodeControls
from ..explained_models import ExplainedModel, Memo, ModelChoice, Models
from ..explorer import Explorer, Scene, dropdown
from ..painter import SupportPainter

if TYPE_CHECKING:
    from PIL import Image

    from ...data.pictures import Picture

DRAWING, TRUTH = "your drawing", "true mask"
RECORDED = files.data_folder() / "strokes" / "disc-stripes.json"  # on the first support of Shapes-5i, fold 0
SLOW = 0.3  # seconds that pictures wait for each other
SHOWN = 320  # longest side, in pixels, of the pictures on display
LARGEST = 10 * 2**20  # bytes of an uploaded file; a notebook server refuses messages a little beyond this
SIDES = ("support", "query")


def compare_methods(
    models: Models = None, dataset: Datasets = None, *, support: Picture | None = None, query: Picture | None = None,
    document: dict | None = None, size: int | None = None, height: int | None = None,
) -> Explorer:  # fmt: skip
    """Draw a support, choose or upload a query, and see what several methods make of the same drawing.

    Args:
        models: see `ModelChoice`; None: the shipped four, which know drawn shapes only. Your own
            for photographs, e.g. `{"PANet": build_model("panet", backbone="resnet50", weights="imagenet")}`.
        dataset: where example pictures come from, see `EpisodeControls`; None: Shapes-5i.
        support, query: pictures of your own to begin with (paths, PIL images, arrays, tensors).
        document: strokes on the support to begin with, see `fsslib.widgets.strokes`; None: a recorded drawing where the
            library's own example comes first, else nothing.
        size: pixels a side that the networks see; None: what suits each.
        height: of the picture to draw on, in CSS pixels; None: about 400.
    Returns:
        an `Explorer` with the controls of the examples, `marked` (your drawing, or the true mask of an example),
        `support_file` and `query_file`; `explorer.painter` is the SupportPainter, `explorer.use(support=…, query=…)`
        takes pictures from Python. Facts: `masks` and `iou` (where the truth is known) by method, `support_mask`.
    Raises DatasetError: a picture that cannot be read, or a drawing for one of another size.
    """
    if document is None and dataset is None and support is None and RECORDED.is_file():
        document = strokes.load(RECORDED)
    return _Comparison(ModelChoice(models), dataset, {"support": support, "query": query}, document, size, height)


class _Comparison(Explorer):
    """The explorer, with the painter of the moment and a way to hand it pictures."""

    def __init__(self, models, dataset, pictures, document, size, height):
        self._models, self._memo, self._size, self._height = models, Memo(64), size, height
        self._picks = EpisodeControls(dataset, show=("data", "fold", "cls", *SIDES))
        # By side: picture (3, H, W) uint8, its mask (H, W) 0, 1 and 255 where that is known, what it is called.
        self._laid: dict[str, tuple[Tensor, Tensor | None, str]] = {}
        self._easel = ipywidgets.Box(layout={"overflow": "visible"})
        self._marked = dropdown("Support mask", [DRAWING, TRUTH])
        self._take_examples(SIDES)
        self._take(pictures, document)
        controls = {**self._picks.controls, "marked": self._marked}
        controls |= {f"{side}_file": Upload(f"Own {side} …") for side in SIDES}
        how = {"label": "Comparison of methods", "prepare": self._settle, "beside": [self._easel]}
        super().__init__(controls, self._seen, **how)

    @property
    def painter(self) -> SupportPainter:
        """On the support of the moment."""
        return self._easel.children[0]

    def use(self, support: Picture | None = None, query: Picture | None = None, document: dict | None = None) -> None:
        """Take pictures of your own, and strokes on the support. Raises DatasetError for one that cannot be read."""
        self._take({"support": support, "query": query}, document)
        self.refresh()

    def _settle(self, changed: str | None) -> None:
        """An example that is chosen replaces what was there, and so does an upload: the last action counts."""
        self._picks.prepare(changed)
        if changed in ("data", "fold", "cls", *SIDES):
            self._take_examples([changed] if changed in SIDES else SIDES)
        file = getattr(self.controls.get(changed), "latest", None)
        if file is not None:
            self._lay(changed.removesuffix("_file"), image_tensor(file.picture()), None, file.name)

    def _take_examples(self, sides: Sequence[str]) -> None:
        """From the data set."""
        (first, *_), query = self._picks.indices()
        for side in sides:
            image, mask = self._picks.dataset[query if side == "query" else first]
            self._lay(side, image, self._picks.object_in(mask), f"{self._picks.name}, {self._picks.dataset.name}")

    def _take(self, pictures: Mapping[str, Picture | None], document: dict | None) -> None:
        """Somebody's own; None changes nothing."""
        for side, picture in pictures.items():
            if picture is not None:
                self._lay(side, image_tensor(picture, side), None, "picture")
        if document is not None:
            self._paint(document)

    def _lay(self, side: str, image: Tensor, truth: Tensor | None, name: str) -> None:
        """Exchange a picture; a new support gets an empty drawing."""
        self._laid[side] = image, truth, name
        if side == "support":
            self._marked.options = [DRAWING] if truth is None else [DRAWING, TRUTH]
            self._paint(None)

    def _paint(self, document: dict | None) -> None:
        """A painter on the support of the moment."""
        before = self._easel.children
        self._easel.children = [SupportPainter(self._laid["support"][0], document, self._height)]
        self.follow(self.painter, "document")
        for widget in before:
            widget.close()

    def _seen(self, marked: str, **_) -> Scene:
        (support, support_truth, support_name), (query, truth, name) = (self._laid[side] for side in SIDES)
        mask = support_truth if marked == TRUTH else torch.from_numpy(self.painter.mask)
        drawn = bool((mask == 1).any())
        caption = f"Support: {support_name}" + ", nothing marked yet" * (not drawn)
        shown = [_photo("support", caption, support, mask if drawn else None), _photo("query", f"Query: {name}", query)]
        facts: dict = {"support_mask": mask, "masks": {}, "iou": {}}
        if not drawn:
            hint = "Mark the object in the upper picture: every method starts from the same drawing."
            return Scene(shown, hint, facts)
        key, start = tuple(map(_digest, (query, support, mask))), time.monotonic()
        for number, label in enumerate(self._models.labels):
            if time.monotonic() - start > SLOW:
                self._show_known(shown, self._models.labels[number:])
            model = self._models(label, self._picks.fold)
            predicted = self._memo((label, self._picks.fold, key), lambda model=model: self._segmented(model, mask))
            facts["masks"][label], covered = predicted, float((predicted > 0).float().mean())
            caption = f"{label}, {covered:.0%} of the picture"
            if truth is not None:
                facts["iou"][label] = panels.iou(predicted, truth)
                caption = f"{label}, IoU {facts['iou'][label]:.0%}"
            shown.append(_photo(label, caption, query, predicted))
        return Scene(shown, self._words(facts, marked), facts)

    def _show_known(self, shown: list[Panel], waiting: Sequence[str]) -> None:
        """What is known so far: with slow models nobody should wait for the last to see the first."""
        last = {panel.key: panel for panel in self.scene.panels}
        rest = [replace(last[label], caption=f"{label}, computing …") for label in waiting if label in last]
        self.board.panels = [panel.message() for panel in [*shown, *rest]]

    def _segmented(self, explained: ExplainedModel, mask: Tensor) -> Tensor:
        """(H, W) uint8 of one method."""
        shape = Resize(self._size or explained.size)
        with explained.ready() as model:
            return infer(model, self._laid["query"][0], [supports(shape, [self._laid["support"][0]], [mask])], shape)

    def _words(self, facts: dict, marked: str) -> str:
        scores, sentences, truths = facts["iou"], [], [self._laid[side][1] for side in SIDES]
        if truths[0] is not None and marked == DRAWING:
            agreed = panels.iou(facts["support_mask"] == 1, truths[0])
            sentences.append(f"Your drawing overlaps the object with {agreed:.0%} IoU.")
        if scores:
            best = max(scores, key=scores.get)
            sentences.append(f"Best on this query: {best} with {scores[best]:.0%} IoU.")
        notes = [self._models(label, self._picks.fold).note(1) for label in self._models.labels]
        sentences += [note for note in dict.fromkeys(notes) if note]
        if self._models.shipped and any(truth is None for truth in truths):
            sentences.append(
                "The shipped models were trained on drawn shapes: on photographs they show little but texture."
            )
        return " ".join(sentences)


@dataclass(frozen=True)
class File:
    """What was uploaded."""

    name: str
    content: bytes

    def picture(self) -> Image.Image:
        """The picture, upright. Raises DatasetError naming the file when it cannot be decoded."""
        if len(self.content) > LARGEST:
            size = len(self.content) / 2**20
            raise DatasetError(f"{self.name}: {size:.0f} MB, pictures up to {LARGEST >> 20} MB are taken: shrink it.")
        try:
            return open_picture(io.BytesIO(self.content), name=f"image {self.name}").copy()
        except DatasetError as error:
            raise DatasetError(f"{self.name}: no picture that can be read ({error}) JPEG and PNG work.") from error


class Upload(ipywidgets.FileUpload):
    """A button that takes one picture file from the reader's machine; `latest` is what was chosen last."""

    def __init__(self, label: str):
        super().__init__(accept="image/*", multiple=False, description=label, tooltip=f"{label}: a JPEG or PNG file")
        self.layout.width = "auto"

    @property
    def latest(self) -> File | None:
        """The file, None before there is one."""
        return File(self.value[0]["name"], bytes(self.value[0]["content"])) if self.value else None


def _photo(key: str, caption: str, image: Tensor, mask: Tensor | None = None) -> Panel:
    longest = max(image.shape[-2:])
    if longest > SHOWN:
        size = [max(1, round(side * SHOWN / longest)) for side in image.shape[-2:]]
        image = interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0].to(torch.uint8)
        if mask is not None:
            mask = torch.from_numpy(enlarged(mask, image))
    return panels.photo(key, caption, normalise(image), mask)


def _digest(tensor: Tensor) -> str:
    text = f"{tuple(tensor.shape)}".encode()
    return hashlib.blake2b(text + tensor.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
