"""What an explorer shows: pictures, bars, and a sentence."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anywidget
import numpy as np
import traitlets

HERE = Path(__file__).parent
WIDTH = 176  # CSS pixels that a picture takes by default
PHOTO = 240  # pixels a side beyond which a picture travels as a JPEG


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        key: names it from one drawing to the next, and in `Board.point`.
        caption: one line below it. alt: what there is to see, for who cannot.
        pixels: (H, W, 3) uint8.
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
        crosses = [list(mark[:2]) for mark in self.marks if mark[3] == "cross"]
        at = {"at": crosses[0] if crosses else None}
        told = {"key": self.key, "caption": self.caption, "alt": self.alt, "pick": self.pick, "width": self.width}
        return {**told, **at, "image": image, "mime": mime, "size": list(self.pixels.shape[:2]),
                "marks": [list(mark) for mark in self.marks]}  # fmt: skip


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
        rows = (
            f"{label}: " + ", ".join(f"{name} {self.form.format(value)}" for name, value in values.items())
            for label, values in self.rows.items()
        )
        return f"{self.caption}. " + "; ".join(rows) + "."

    def message(self) -> dict:
        """What travels to the page."""
        rows = [
            {"label": label, "values": [
                {"name": name, "value": float(value), "text": self.form.format(value)} for name, value in row.items()]}
            for label, row in self.rows.items()
        ]  # fmt: skip
        told = {"key": self.key, "caption": self.caption, "alt": self.alt, "pick": False}
        return {**told, "width": self.width, "bars": rows}


class Board(anywidget.AnyWidget):
    """Panels side by side, with a sentence and room for a complaint. `point`: what was last pointed at on the page,
    `{"panel": key, "x": column, "y": row}`, in pixels of that picture."""

    _esm = HERE / "board.js"
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

    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(pixels.shape[:2]) > PHOTO:
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue(), "image/jpeg"
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"
