"""A button that takes a picture from the reader's machine."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ipywidgets

from ..errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

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
