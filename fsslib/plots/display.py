"""Figures that say in words what they show: an alt text in every notebook, report and picture file."""

import html
import io
import os
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..files import atomic, located

PALETTE_SIZE = 128  # palette of a quantised plot: a quarter of the bytes, no visible change


def _check_alt(alt: str) -> str:
    alt = " ".join(str(alt).split())
    if len(alt.split()) < 3:
        raise FsslibError(f"a figure needs an alt text, found {alt!r}: say in a sentence what there is to see.")
    return alt


def picture(fig: Any, photo: bool = False, alt: str | None = None) -> bytes:
    """A matplotlib figure as bytes: a PNG with a palette, or a JPEG (quality 80) for photographs.
    The bytes depend on the drawing alone; no version or date is stored. `alt` becomes the PNG's description."""
    from PIL import Image, PngImagePlugin

    raw = io.BytesIO()
    fig.savefig(raw, format="png", dpi=100, facecolor="white", bbox_inches="tight")
    image, buffer = Image.open(raw).convert("RGB"), io.BytesIO()
    if photo:
        image.save(buffer, "JPEG", quality=80, optimize=True)
        return buffer.getvalue()
    info = PngImagePlugin.PngInfo()
    if alt:
        info.add_itxt("Description", alt)
    image.quantize(PALETTE_SIZE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def show(fig: Any, alt: str, data: Any = None, photo: bool = False, widget: Any = None) -> None:
    """Display a figure in a notebook with its alt text and a folded "Figure in words", and close it.

    JupyterLab's picture view has no alt attribute, hence the folded words for screen readers; every other viewer takes
    the alt text from the picture's metadata. nbval compares the words, not the pixels.

    Args:
        fig: a matplotlib figure.
        alt: one or two sentences, best made from the data with an f-string: fixed words lie when a parameter changes.
        data: the numbers behind the figure, a pandas DataFrame or what `pandas.DataFrame` accepts; three decimals.
        photo: store a JPEG (photographs) instead of a PNG with a palette (plots).
        widget: a live view shown instead of the picture while a kernel runs.
    Raises FsslibError: fewer than three words of alt text.
    """
    import pandas as pd
    from IPython.display import display
    from matplotlib import pyplot as plt

    alt = _check_alt(alt)
    mime, content = ("image/jpeg" if photo else "image/png"), picture(fig, photo, alt)
    plt.close(fig)  # an open figure would be displayed once more at the end of the cell
    live = widget._repr_mimebundle_() if widget is not None else {}
    display({**live, mime: content, "text/plain": alt}, raw=True, metadata={mime: {"alt": alt}})
    table = "" if data is None else pd.DataFrame(data).to_html(border=0, float_format="{:.3f}".format)
    words = f"<details><summary>Figure in words</summary><p>{html.escape(alt)}</p>{table}</details>"
    display({"text/html": words, "text/plain": alt}, raw=True)


def save(fig: Any, path: str | Path, alt: str, photo: bool = False) -> Path:
    """Write a figure to a file, whole or not at all, with the alt text inside the PNG; displays and closes nothing.

    A relative path is taken below the folder named by the environment variable FSSLIB_FIGURES, or the working folder:
    only a build of the notebooks renews the repository's figures, a report's stay in its own folder.
    Raises FsslibError for fewer than three words of alt text.
    """
    content = picture(fig, photo, _check_alt(alt))
    path = located(os.environ.get("FSSLIB_FIGURES") or ".", "FSSLIB_FIGURES") / located(path, "figure")
    with atomic(path) as part:
        part.write_bytes(content)
    return path
