"""Figures that say in words what they show and how large it is; the box of claims that ends a lesson."""

import html
import io
import os
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..files import atomic, located

PAGE = 1000  # CSS pixels across a page, beyond which a browser shrinks a picture
QUALITY = 72  # of a JPEG
PALETTE_SIZE = 128  # palette of a quantised plot: a quarter of the bytes, no visible change


def width_of(content: bytes) -> int:
    """Pixels across an encoded picture."""
    from PIL import Image

    return Image.open(io.BytesIO(content)).width


def _check_alt(alt: str) -> str:
    alt = " ".join(str(alt).split())
    if len(alt.split()) < 3:
        raise FsslibError(f"a figure needs an alt text, found {alt!r}: say in a sentence what there is to see.")
    return alt


def picture(fig: Any, photo: bool = False, alt: str | None = None) -> bytes:
    """A matplotlib figure as bytes: a PNG with a palette, or a JPEG for photographs.
    The bytes depend on the drawing alone; no version or date is stored. `alt` becomes the PNG's description."""
    from PIL import Image, PngImagePlugin

    raw = io.BytesIO()
    fig.savefig(raw, format="png", dpi=100, facecolor="white", bbox_inches="tight")
    image, buffer = Image.open(raw).convert("RGB"), io.BytesIO()
    if photo:
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return buffer.getvalue()
    info = PngImagePlugin.PngInfo()
    if alt:
        info.add_itxt("Description", alt)
    image.quantize(PALETTE_SIZE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def legibility(fig: Any, width: int) -> dict[str, Any]:
    """What a reader has to be able to see of a drawn figure, in CSS pixels of a page of `PAGE`.

    Args: fig: a figure after `picture(fig)`, which lays it out. width: of that picture, in pixels.
    Returns: `panel`, the width of its narrowest picture (None without one), and `colliding`, pairs of titles and labels
        that run into each other.
    """
    scale = min(1, PAGE / width) * 100 / fig.dpi
    shown = [axis for axis in fig.axes if axis.get_visible()]
    panels = [scale * axis.get_window_extent().width for axis in shown if axis.images]
    words = [t for a in shown for t in (a.title, a._left_title, a._right_title, a.xaxis.label, a.yaxis.label)]
    words += [text for text in (fig._suptitle, fig._supxlabel, fig._supylabel) if text]
    boxes = [(t.get_text(), t.get_window_extent()) for t in words if t.get_text().strip() and t.get_visible()]
    colliding = [[a, b] for (a, one), (b, other) in combinations(boxes, 2) if _overlap(one, other)]
    return {"panel": round(min(panels)) if panels else None, "colliding": colliding}


def _overlap(one: Any, other: Any, slack: float = 1.0) -> bool:
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    return across > slack and min(one.y1, other.y1) - max(one.y0, other.y0) > slack


def table(frame: Any, index: bool = True, title: str = "") -> None:
    """Show a pandas DataFrame as HTML without line breaks, which would double the size of a stored notebook."""
    from IPython.display import display

    text = f"<b>{html.escape(title)}</b>" * bool(title)
    text += re.sub(r"\s*\n\s*", "", frame.to_html(border=0, index=index))
    words = f"{title}: a table of" if title else "A table of"
    words = f"{words} {len(frame)} rows with the columns {', '.join(map(str, frame.columns))}."
    display({"text/html": text, "text/plain": words}, raw=True)


def claims(*rows: tuple[str, str, str]) -> None:
    """Show the box that ends a lesson: what a paper claims, what was measured here, and why the two differ.

    Args: rows: three sentences each, the first two with their numbers and where those come from. Best made from the
        measured values with f-strings: fixed words lie when a parameter changes.
    """
    from IPython.display import display

    heads = ("the paper claims", "we measured", "why they differ")
    style = "text-align:left;vertical-align:top;white-space:normal;width:33%"
    lines = ["".join(f'<th scope="col" style="{style}">{head}</th>' for head in heads)]
    lines += ["".join(f'<td style="{style}">{html.escape(cell)}</td>' for cell in row) for row in rows]
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    words = "\n\n".join("\n".join(f"{head}: {cell}" for head, cell in zip(heads, row)) for row in rows)
    display({"text/html": f'<table style="width:100%">{table}</table>', "text/plain": words}, raw=True)


def bundle(fig: Any, alt: str, photo: bool = False) -> tuple[dict, dict]:
    """A figure as a notebook stores it, data and metadata by mime type; closes it: it would be displayed once more."""
    from matplotlib import pyplot as plt

    mime, content = ("image/jpeg" if photo else "image/png"), picture(fig, photo, alt)
    about = {"alt": alt, **legibility(fig, width_of(content))}
    plt.close(fig)
    return {mime: content, "text/plain": alt}, {mime: about}


def show(fig: Any, alt: str, data: Any = None, photo: bool = False) -> None:
    """Display a figure in a notebook with its alt text and a folded "Figure in words", and close it.

    Beside the alt text the picture's metadata keep its `legibility`, which a test of the stored notebooks reads.
    JupyterLab's picture view has no alt attribute, hence the folded words for screen readers; every other viewer takes
    the alt text from the picture's metadata. nbval compares the words, not the pixels.

    Args:
        fig: a matplotlib figure.
        alt: one or two sentences, best made from the data with an f-string: fixed words lie when a parameter changes.
        data: the numbers behind the figure, a pandas DataFrame or what `pandas.DataFrame` accepts; three decimals.
        photo: store a JPEG (photographs) instead of a PNG with a palette (plots).
    Raises FsslibError: fewer than three words of alt text.
    """
    import pandas as pd
    from IPython.display import display

    alt = _check_alt(alt)
    stored, about = bundle(fig, alt, photo)
    display(stored, raw=True, metadata=about)
    table = "" if data is None else pd.DataFrame(data).to_html(border=0, float_format="{:.3f}".format)
    words = f"<details><summary>Figure in words</summary><p>{html.escape(alt)}</p>{table}</details>"
    display({"text/html": words, "text/plain": alt}, raw=True)


def save(fig: Any, path: str | Path, alt: str) -> Path:
    """Write a figure to a file, whole or not at all, with the alt text inside the PNG; displays and closes nothing.

    A relative path is taken below the folder named by the environment variable FSSLIB_FIGURES, or the working folder:
    only a build of the notebooks renews the repository's figures, a report's stay in its own folder.
    Raises FsslibError for fewer than three words of alt text.
    """
    content = picture(fig, alt=_check_alt(alt))
    path = located(os.environ.get("FSSLIB_FIGURES") or ".", "FSSLIB_FIGURES") / located(path, "figure")
    with atomic(path) as part:
        part.write_bytes(content)
    return path
