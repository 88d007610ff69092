"""Draw your own support: an image to mark with brush, eraser, box, polygon and scribbles, and its mask."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from ..data.pictures import image_tensor
from ..errors import DatasetError
from ..plots.pixels import rim
from . import strokes
from .live import AnyWidget, live_view
from .snapshot import bundle

if TYPE_CHECKING:
    from PIL import Image

    from ..data.pictures import Picture

HERE = Path(__file__).parent
ROOM = 400, 640  # CSS pixels, height and width, that a picture takes by default
SENT = 1280  # longest side, in pixels, of the picture that travels to the browser
STILL = 360  # longest side of the picture that stands in when no kernel runs
INK = {1: (0xD5, 0x5E, 0x00), 0: (0x00, 0x72, 0xB2)}  # object, background; as in painter.js, told apart by everybody
STRIPE = 0x56, 0xB4, 0xE9  # background is striped: colour alone must not tell the two apart


class SupportPainter(AnyWidget):
    """A picture to draw on, with the mouse, a finger, a pen or the keyboard alone; everything stays on the machine.

    The drawing is `document`, strokes in image pixels as JSON (see `fsslib.widgets.strokes`): read it, assign it,
    `save` and `load` it. `mask` is computed from it in Python, so that a recorded drawing gives the same mask wherever
    it is replayed; what the browser shows is a preview of it.

    Args:
        image: a path, PIL image, array (H, W, 3) or tensor (3, H, W), see `fsslib.data.pictures.image_tensor`.
        document: strokes to begin with; None: an empty drawing.
        height: of the picture on the screen, in CSS pixels; None: about 400. It shrinks where there is no room.
    Raises DatasetError: an image that cannot be read, a malformed document, or one drawn on a picture of another size.
    """

    _esm = "".join((HERE / name).read_text("utf-8") for name in ("page.js", "painter.js"))
    _css = HERE / "painter.css"
    document = traitlets.Dict().tag(sync=True)
    _photo = traitlets.Bytes().tag(sync=True)
    _shape = traitlets.List().tag(sync=True)  # height, width of the image; height, width on the screen
    _summary = traitlets.Unicode().tag(sync=True)

    def __init__(self, image: "Picture", document: dict | None = None, height: int | None = None, **options: Any):
        self._image = image_tensor(image)
        rows, columns = self._image.shape[1:]
        if height is None:
            scale = min(ROOM[0] / rows, ROOM[1] / columns)
            height = rows * max(int(scale), min(scale, 1))  # whole pixels stay square when a small picture grows
        elif isinstance(height, bool) or not isinstance(height, (int, float)) or not 1 <= height < 1e5:
            raise DatasetError(f"height={height!r}: expected the picture's height on the screen in pixels, or None.")
        document = strokes.empty(rows, columns) if document is None else document
        shape = [rows, columns, max(1, round(height)), max(1, round(height * columns / rows))]
        super().__init__(document=document, _photo=_jpeg(self._image), _shape=shape, **options)

    @property
    def image(self) -> Tensor:
        """The picture, (3, H, W) uint8 RGB."""
        return self._image

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8: 1 object, 0 background, 255 neither; the rules are those of `strokes.rasterise`."""
        return strokes.rasterise(self.document, *self._image.shape[1:])

    def mask_tensor(self) -> Tensor:
        """The mask as (H, W) long in the encoding of support masks: 1 object, 0 background, 255 neither."""
        return torch.from_numpy(self.mask).long()

    def undo(self) -> None:
        """Take the last stroke back; nothing happens where there is none."""
        self.document = strokes.undo(self.document)

    def redo(self) -> None:
        """Bring back the stroke that was undone last; nothing happens where there is none."""
        self.document = strokes.redo(self.document)

    def clear(self) -> None:
        """Start again with an empty drawing; can be undone."""
        self.document = strokes.clear(self.document)

    def save(self, path: str | Path) -> Path:
        """Write the drawing as JSON, whole or not at all."""
        return strokes.save(self.document, path)

    def load(self, path: str | Path) -> None:
        """Show the drawing of a file. Raises DatasetError naming the file when it is none, or of another size."""
        document = strokes.load(path)
        try:
            self.document = document
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error

    @traitlets.validate("document")
    def _accept(self, proposal: Any) -> dict:
        document = strokes.check(proposal["value"])
        size = list(self._image.shape[1:])
        if document["size"] is None:
            document["size"] = size
        strokes.rasterise({**document, "history": [], "cursor": 0}, *size)  # refuses strokes of another picture
        return document

    @traitlets.observe("document")
    def _summarise(self, _: Any) -> None:
        self._summary = self._words()

    def _words(self) -> str:
        mask = self.mask
        shares = {name: (mask == value).mean() for name, value in (("background", 0), ("unlabelled", 255))}
        marked = [f"{name} {share:.1%}" for name, share in shares.items() if share]
        return ", ".join([f"object {1 - sum(shares.values()):.1%}", *marked])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The live view, and for everything that cannot show one a picture of the drawing as it is now, with words.

        JupyterLab takes the picture in notebooks it does not trust yet, such as those of a clone; in one's own it
        insists on the live view, which asks for running the cell again.
        """
        rows, columns = self._image.shape[1:]
        alt = f"A picture of {columns} × {rows} pixels to draw a support mask on; marked: {self._words()}."
        live, notes = live_view(super()._repr_mimebundle_(**kwargs))
        still = _still(self._image, self.mask)
        data, metadata = bundle(still, alt, still.width, quality=75, colours=128)
        return {**live, **data}, {**notes, **metadata}


def _jpeg(image: Tensor) -> bytes:
    """The picture as it travels to the browser; small ones keep all their colour, JPEG would blur it."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((SENT, SENT), Image.Resampling.LANCZOS)
    buffer, small = io.BytesIO(), max(picture.size) <= 256
    picture.save(buffer, "JPEG", quality=92 if small else 80, subsampling=0 if small else 2)
    return buffer.getvalue()


def _still(image: Tensor, mask: np.ndarray) -> "Image.Image":
    """The picture with the object in its colour, and background where it stands out from unlabelled pixels."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    factor = STILL / max(picture.size)
    factor = max(int(factor), min(factor, 1))
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    out = np.array(picture.resize(size, way)).astype(np.float32)
    shown = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 8 < 3
    for value in (1, 0) if (mask == 255).any() else (1,):
        inside = shown == value
        colour = np.where((stripes & (value == 0))[..., None], STRIPE, INK[value])
        out[inside] = (0.35 * out + 0.65 * colour)[inside]
        out[rim(inside, mode="edge")] = 255  # a light rim, as in the live view
    return Image.fromarray(out.round().astype(np.uint8))
