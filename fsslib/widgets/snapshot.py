"""An explorer as one picture, for where no kernel runs: stored notebooks, reports, pages."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from .board import WIDTH, Bars, Panel

SIDE, COLUMNS = 160, 5  # pixels of a picture, pictures in a row
TEXT = 10  # height of the letters
SERIES = ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73))  # as in board.css


def bundle(sheet: Any, alt: str, panel: int, quality: int, colours: int) -> tuple[dict, dict]:
    """A PIL image and its words, as a notebook stores them: data and metadata by mime type.

    Args: panel: pixels across its narrowest picture. quality: of a JPEG, or colours: of a PNG, whichever is smaller.
    """
    from PIL import Image

    photo, chart = io.BytesIO(), io.BytesIO()
    sheet.save(photo, "JPEG", quality=quality, optimize=True)
    sheet.quantize(colours, dither=Image.Dither.NONE).save(chart, "PNG", optimize=True)
    pair = ("image/jpeg", photo.getvalue()), ("image/png", chart.getvalue())
    mime, content = min(pair, key=lambda kind: len(kind[1]))
    data = {mime: base64.b64encode(content).decode(), "text/plain": alt}
    return data, {mime: {"alt": alt, "panel": panel, "colliding": []}}


def still(panels: Sequence[Panel | Bars]) -> Any:
    """A PIL image of the panels in rows, with their captions: what stands in where no kernel runs."""
    from PIL import Image

    rows: list[list] = [[]]
    for cell in map(_cell, panels):  # bars are wider than pictures
        if rows[-1] and sum(c.width for c in rows[-1]) + cell.width > COLUMNS * (SIDE + 10):
            rows.append([])
        rows[-1].append(cell)
    width = max(sum(c.width + 10 for c in row) for row in rows)
    height = sum(max(c.height for c in row) + 6 for row in rows)
    sheet, top = Image.new("RGB", (width, height), "white"), 0
    for row in rows:
        left = 0
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + 10
        top += max(c.height for c in row) + 6
    return sheet


def _cell(panel: Panel | Bars) -> Any:
    """A panel with its caption, as a PIL image."""
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageDraw, ImageFont

    # Pillow's own letters are Latin only; these come with matplotlib and know Greek.
    font = ImageFont.truetype(findfont("DejaVu Sans"), TEXT - 1)
    if isinstance(panel, Panel):
        width = max(SIDE, SIDE * panel.width // WIDTH)
        high = width * panel.pixels.shape[0] // panel.pixels.shape[1]
    else:
        width, high = 2 * SIDE, sum(6 + 13 * len(values) for values in panel.rows.values())
    lines = _wrapped(panel.caption, font, width)
    cell = Image.new("RGB", (width, high + 4 + (TEXT + 3) * len(lines)), "white")
    pen = ImageDraw.Draw(cell)
    if isinstance(panel, Panel):
        cell.paste(Image.fromarray(panel.pixels).resize((width, high), Image.Resampling.BICUBIC))
        for x, y, text, kind in panel.marks:
            spot = [(value + 0.5) * width / panel.pixels.shape[1] for value in (x, y)]
            _mark(pen, spot, text, kind, font)
    else:
        _chart(pen, panel, width, font)
    for number, line in enumerate(lines):
        pen.text((0, high + 3 + (TEXT + 3) * number), line, fill=(60, 60, 60), font=font)
    return cell


def _chart(pen: Any, panel: Bars, width: int, font: Any) -> None:
    top, y = max([1e-9, *(abs(v) for values in panel.rows.values() for v in values.values())]), 2
    for label, values in panel.rows.items():
        pen.text((0, y), label, fill=(0, 0, 0), font=font)
        for colour, value in zip(SERIES, values.values()):
            long = 0.42 * width * abs(value) / top
            pen.rectangle([0.36 * width, y + 1, 0.36 * width + long, y + 10], fill=colour)
            pen.text((0.36 * width + long + 4, y - 1), panel.form.format(value), fill=(0, 0, 0), font=font)
            y += 13
        y += 6


def _mark(pen: Any, spot: Sequence[float], text: str, kind: str, font: Any) -> None:
    for colour, radius in (("black", 7.0), ("white", 5.5)):
        corners = [place + way for way in (-radius, radius) for place in spot]
        pen.ellipse(corners, fill=colour if kind == "badge" else None, outline=colour, width=2)
    if kind == "badge":
        pen.text(spot, text, fill="black", font=font, anchor="mm")


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
