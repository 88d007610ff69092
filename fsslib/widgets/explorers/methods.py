"""`compare_methods`: several methods on a support that you draw and a photograph of your own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ipywidgets

from ...errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ... import files
from ...data.base import SegmentationDataset
from ...data.pictures import image_tensor
from ...data.transforms import Resize, normalise
from ...inference import infer, supports
from ...models.base import FewShotModel
from .. import panels, strokes
from ..board import Panel
from ..episode_controls import EpisodeControls
from ..explained_models import Memo, ModelChoice
from ..explorer import Explorer, Scene, dropdown
from ..painter import SupportPainter

if TYPE_CHECKING:
    from ...data.pictures import Picture


# A button that takes a picture from the reader's machine.


LARGEST = 10 * 2**20  # bytes; a notebook server refuses messages a little beyond this


@dataclass(frozen=True)
class File:
    """What was uploaded."""

    name: str
    content: bytes

    def picture(self) -> Image.Image:
        """The picture, upright. Raises DatasetError naming the file when it cannot be decoded."""
        from PIL import Image, ImageOps

        if len(self.content) > LARGEST:
            size = len(self.content) / 2**20
            raise DatasetError(f"{self.name}: {size:.0f} MB, pictures up to {LARGEST >> 20} MB are taken: shrink it.")
        try:
            picture = Image.open(io.BytesIO(self.content))
            picture.load()
            return ImageOps.exif_transpose(picture)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{self.name}: no picture that can be read ({error}). JPEG and PNG work.") from error


class Upload(ipywidgets.FileUpload):
    """One picture file; `latest` is what was chosen last."""

    def __init__(self, label: str):
        super().__init__(accept="image/*", multiple=False, description=label, tooltip=f"{label}: a JPEG or PNG file")
        self.layout.width = "auto"

    @property
    def latest(self) -> File | None:
        """The file, None before there is one."""
        return File(self.value[0]["name"], bytes(self.value[0]["content"])) if self.value else None


DRAWING, TRUTH = "your drawing", "true mask"


RECORDED = files.data_folder() / "strokes" / "disc-stripes.json"  # on the first support of Shapes-5i, fold 0


SLOW = 0.3  # seconds that pictures wait for each other


SHOWN = 320  # longest side, in pixels, of the pictures on display


def compare_methods(
    models: FewShotModel | Mapping[str, object] | None = None,
    dataset: SegmentationDataset | Mapping[str, object] | None = None,
    *,
    support: Picture | None = None,
    query: Picture | None = None,
    document: dict | None = None,
    size: int | None = None,
    height: int | None = None,
) -> Explorer:
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
    table = _Table(models, dataset, support, query, document, size, height)
    return table.explorer


class _Comparison(Explorer):
    """The explorer, with the painter of the moment and a way to hand it pictures."""

    painter: SupportPainter

    def use(self, support: Picture | None = None, query: Picture | None = None, document: dict | None = None) -> None:
        """Take pictures of your own, and strokes on the support. Raises DatasetError for one that cannot be read."""
        self.table.take("support", support, "picture")
        self.table.take("query", query, "picture")
        if document is not None:
            self.table.paint(document)
        self.refresh()


class _Table:
    """What lies on the table: the support, the query, and where each came from."""

    def __init__(self, models, dataset, support, query, document, size, height):
        self.benches, self.memo, self.size, self.height = ModelChoice(models), Memo(64), size, height
        self.picks = EpisodeControls(dataset, show=("data", "fold", "cls", "support", "query"))
        self.pictures: dict[str, Tensor] = {}  # (3, H, W) uint8
        self.truths: dict[str, Tensor | None] = {}  # (H, W) 0 and 1, 255
        self.names: dict[str, str] = {}
        self.stale = {"support", "query"}
        self.holder = ipywidgets.Box(layout={"overflow": "visible"})
        self.marked = dropdown("Support mask", [DRAWING, TRUTH])
        self.files = {name: Upload(f"Own {name} …") for name in ("support", "query")}
        controls = {**self.picks.controls, "marked": self.marked}
        controls |= {f"{name}_file": upload for name, upload in self.files.items()}
        self.explorer = None
        self.examples({"support", "query"})
        for name, picture in (("support", support), ("query", query)):
            self.take(name, picture, "picture")
        self.paint(document)
        self.explorer = _Comparison(
            controls, self.draw, label="Comparison of methods", prepare=self.prepare, beside=[self.holder]
        )
        self.explorer.table, self.explorer.painter = self, self.holder.children[0]
        self.explorer.follow(self.explorer.painter, "document")

    def prepare(self, changed: str | None) -> None:
        """An example that is chosen replaces what was there, and so does an upload: the last action counts."""
        self.picks.prepare(changed)
        if changed in ("data", "fold", "cls"):
            self.examples({"support", "query"})
        elif changed in ("support", "query"):
            self.examples({changed})
        elif changed in ("support_file", "query_file"):
            name = changed.removesuffix("_file")
            file = self.files[name].latest
            if file is not None:
                self.take(name, file.picture(), file.name)

    def examples(self, which: set[str]) -> None:
        """Take support and query from the data set."""
        supports, query = self.picks.indices()
        data, cls = self.picks.dataset, self.picks.cls
        for name, index in (("support", supports[0]), ("query", query)):
            if name in which:
                image, mask = data[index]
                truth = torch.where(mask == 255, 255, (mask == cls).to(torch.uint8)).to(torch.uint8)
                self.put(name, image, truth, f"{self.picks.name}, {data.name}")

    def take(self, name: str, picture: Picture | None, label: str) -> None:
        """Take a picture of somebody's own; None changes nothing."""
        if picture is not None:
            self.put(name, image_tensor(picture, name), None, label)

    def put(self, name: str, image: Tensor, truth: Tensor | None, label: str) -> None:
        """Lay a picture on the table; a new support gets an empty drawing."""
        self.pictures[name], self.truths[name], self.names[name] = image, truth, label
        if name == "support":
            self.marked.options = [DRAWING] if truth is None else [DRAWING, TRUTH]
            if self.explorer is not None:
                self.paint(None)

    def paint(self, document: dict | None) -> None:
        """A painter on the support of the moment."""
        old = self.holder.children
        painter = SupportPainter(self.pictures["support"], document, self.height)
        self.holder.children = [painter]
        if self.explorer is not None:
            self.explorer.painter = painter
            self.explorer.follow(painter, "document")
        for widget in old:
            widget.close()

    def support_mask(self) -> Tensor:
        """(H, W) uint8: 1 object, 0 background, 255 neither."""
        if self.marked.value == TRUTH:
            return self.truths["support"]
        return torch.from_numpy(self.holder.children[0].mask)

    def draw(self, **_) -> Scene:
        mask, query, truth = self.support_mask(), self.pictures["query"], self.truths["query"]
        drawn = bool((mask == 1).any())
        own = f"Support: {self.names['support']}" + ("" if drawn else ", nothing marked yet")
        shown = [_photo("support", own, self.pictures["support"], mask if drawn else None)]
        shown.append(_photo("query", f"Query: {self.names['query']}", query))
        facts: dict = {"support_mask": mask, "masks": {}, "iou": {}}
        if not drawn:
            words = "Mark the object in the upper picture: every method starts from the same drawing."
            return Scene(shown, words, facts)
        key = (_digest(query), _digest(self.pictures["support"]), _digest(mask))
        start = time.monotonic()
        for number, label in enumerate(self.benches.labels):
            if time.monotonic() - start > SLOW:
                self.show(shown, self.benches.labels[number:])
            found = self.memo((label, self.picks.fold, key), lambda label=label: self.segmented(label, mask))
            score = None if truth is None else panels.iou(found, truth)
            said = f"{float((found > 0).float().mean()):.0%} of the picture" if score is None else f"IoU {score:.0%}"
            facts["masks"][label] = found
            if score is not None:
                facts["iou"][label] = score
            shown.append(_photo(label, f"{label}, {said}", query, found))
        return Scene(shown, self.words(facts), facts)

    def show(self, shown: list[Panel], waiting: Sequence[str]) -> None:
        """What is known so far: with slow models nobody should wait for the last to see the first."""
        if self.explorer is not None:
            last = {panel.key: panel for panel in self.explorer.scene.panels}
            rest = [replace(last[label], caption=f"{label}, computing …") for label in waiting if label in last]
            self.explorer.board.panels = [panel.message() for panel in [*shown, *rest]]

    def segmented(self, label: str, mask: Tensor) -> Tensor:
        """(H, W) uint8 of one method."""
        bench = self.benches(label, self.picks.fold)
        shape = Resize(self.size or bench.size)
        with bench.ready() as model:
            return infer(model, self.pictures["query"], [supports(shape, [self.pictures["support"]], [mask])], shape)

    def words(self, facts: dict) -> str:
        scores = facts["iou"]
        said = []
        if self.truths["support"] is not None and self.marked.value == DRAWING:
            agreed = panels.iou(facts["support_mask"] == 1, self.truths["support"])
            said.append(f"Your drawing overlaps the object with {agreed:.0%} IoU.")
        if scores:
            best = max(scores, key=scores.get)
            said.append(f"Best on this query: {best} with {scores[best]:.0%} IoU.")
        notes = [self.benches(label, self.picks.fold).note(1) for label in self.benches.labels]
        said += [note for note in dict.fromkeys(notes) if note]
        if self.benches.shipped and None in self.truths.values():
            said.append("The shipped models were trained on drawn shapes: on photographs they show little but texture.")
        return " ".join(said)


def _photo(key: str, caption: str, image: Tensor, mask: Tensor | None = None):
    longest = max(image.shape[-2:])
    if longest > SHOWN:
        rows, columns = (max(1, round(side * SHOWN / longest)) for side in image.shape[-2:])
        image = torch.nn.functional.interpolate(
            image[None].float(), (rows, columns), mode="bilinear", antialias=True, align_corners=False
        )[0].to(torch.uint8)
        if mask is not None:
            mask = torch.from_numpy(panels.enlarged(np.asarray(mask), rows, columns))
    return panels.photo(key, caption, normalise(image), mask)


def _digest(tensor: Tensor) -> str:
    text = f"{tuple(tensor.shape)}".encode()
    return hashlib.blake2b(text + tensor.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
