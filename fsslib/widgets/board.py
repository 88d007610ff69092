"""What an explorer shows: pictures, bars, and a sentence."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import traitlets

from .live import AnyWidget

HERE = Path(__file__).parent
WIDTH = 176  # CSS pixels that a picture takes by default
PHOTO = 240  # pixels a side beyond which a picture travels as a JPEG


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        key: names it from one drawing to the next, and in `Board.point`.
        caption: one line below it. alt: what there is to see, for who cannot. pixels: (H, W, 3) uint8.
        marks: (x, y, text, kind) in pixels; kind `"cross"`, or `"badge"` for a text of one or two letters.
        pick: whether it can be pointed at; the point is then its first cross.
    """

    key: str
    caption: str
    alt: str
    pixels: np.ndarray
    marks: Sequence[tuple[float, float, str, str]] = ()
    pick: bool = False
    width: int = WIDTH

    def message(self) -> dict:
        """What travels to the page."""
        image, mime = _encoded(self.pixels)
        marks = [list(mark) for mark in self.marks]
        at = next((mark[:2] for mark in marks if mark[3] == "cross"), None)
        words = {"key": self.key, "caption": self.caption, "alt": self.alt, "pick": self.pick, "width": self.width}
        return {**words, "at": at, "image": image, "mime": mime, "size": list(self.pixels.shape[:2]), "marks": marks}


@dataclass(frozen=True)
class Bars:
    """A bar chart: label of a row -> series -> number. Rows share one scale; `form` writes the numbers."""

    key: str
    caption: str
    rows: Mapping[str, Mapping[str, float]]
    form: str = "{:.2f}"
    width: int = 2 * WIDTH

    @property
    def alt(self) -> str:
        """Every number, in words."""
        numbers = {label: [f"{n} {self.form.format(v)}" for n, v in row.items()] for label, row in self.rows.items()}
        return f"{self.caption}. " + "; ".join(f"{label}: " + ", ".join(row) for label, row in numbers.items()) + "."

    def message(self) -> dict:
        """What travels to the page."""
        bars = []
        for label, row in self.rows.items():
            values = [{"name": n, "value": float(v), "text": self.form.format(v)} for n, v in row.items()]
            bars.append({"label": label, "values": values})
        words = {"key": self.key, "caption": self.caption, "alt": self.alt, "pick": False}
        return {**words, "width": self.width, "bars": bars}


class Board(AnyWidget):
    """Panels side by side, with a sentence and room for a complaint. `point`: what was last pointed at on the page,
    `{"panel": key, "x": column, "y": row}`, in pixels of that picture."""

    _esm = "".join((HERE / name).read_text("utf-8") for name in ("page.js", "board.js"))
    _css = HERE / "board.css"
    panels = traitlets.List().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool().tag(sync=True)
    label = traitlets.Unicode("Explorer").tag(sync=True)
    point = traitlets.Dict().tag(sync=True)


def _encoded(pixels: np.ndarray) -> tuple[bytes, str]:
    """Small pictures without loss, photographs as JPEG."""
    from PIL import Image

    kind, buffer = "jpeg" if max(pixels.shape[:2]) > PHOTO else "png", io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=85, compress_level=1)  # each takes its own
    return buffer.getvalue(), f"image/{kind}"
