"""Reading VOC and SBD masks, palette PNG and .mat, with an error that names whatever is broken."""

from pathlib import Path

import numpy as np

from ..errors import DatasetError
from .base import IGNORE
from .photographs import pixel_counts, same_size
from .pictures import open_picture, picture_size
from .voc_lists import NAMES


def voc_palette() -> np.ndarray:
    """VOC's colour map (256, 3) uint8: the bits of the class id, dealt to red, green and blue from the top bit down."""
    ids, colours = np.arange(256), np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def read_mask(file: Path) -> np.ndarray:
    """Label map (H, W) uint8 from a PNG (palette indices or grey values) or SBD .mat: 0..20 and 255, nothing else.

    Raises DatasetError for a broken file, a colour picture, a re-indexed palette or an unknown class id.
    """
    mask = _read_mat(file) if file.suffix == ".mat" else _read_png(file)
    found = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    wrong = [int(v) for v in found if v > len(NAMES) and v != IGNORE]
    if wrong:
        raise DatasetError(
            f"mask {file} has the values {wrong[:5]}; expected class ids 0 to 20, or 255 for ignored pixels. "
            "Map your ids to VOC's, or use the 'folder' data set for other classes."
        )
    return mask


def _read_mat(file: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        mask = loadmat(file)["GTcls"][0]["Segmentation"][0]
        return np.ascontiguousarray(mask, dtype=np.uint8)
    except Exception as error:  # scipy raises a dozen types on broken .mat files
        raise DatasetError(
            f"cannot read SBD mask {file}: {error!r}. Expected the field GTcls.Segmentation; unpack SBD's cls/ again."
        ) from error


def _read_png(file: Path) -> np.ndarray:
    picture = open_picture(file, "mask")
    mode, palette, mask = picture.mode, picture.getpalette(), np.array(picture)
    if mode not in ("P", "L"):
        raise DatasetError(
            f"mask {file} is a picture of mode {mode}; expected one 8-bit class id a pixel (palette or greyscale PNG). "
            "Convert: map each colour to its class id, then PIL.Image.fromarray(ids.astype('uint8')).save(FILE)."
        )
    if mode == "P":
        _check_palette(file, mask, np.array(palette, np.uint8).reshape(-1, 3))
    return mask


def _check_palette(file: Path, mask: np.ndarray, palette: np.ndarray) -> None:
    """Image editors renumber palettes on saving: the colours then contradict the indices, which nothing else shows."""
    known = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist()) if number <= 20}
    for index in np.unique(mask):
        meant = known.get(tuple(palette[index].tolist()), index) if index < len(palette) else index
        if meant != index:
            raise DatasetError(
                f"mask {file} has a re-indexed palette: index {index} is drawn in VOC's colour of class {meant}. "
                "An image editor saved it; restore the original, or renumber the pixels by their palette colour."
            )


def mask_counts(image: Path, mask: Path) -> dict[int, int]:
    """Pixels of each class id in `mask`, after its size was compared with the photograph's."""
    label = read_mask(mask)
    same_size(label, picture_size(image), (mask, image.name))
    return pixel_counts(label)
