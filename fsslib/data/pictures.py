"""Pictures and masks from whatever people have: files, PIL images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .base import IGNORE
from .masks import LOSSY, mask_values, soft, void_outweighs

ORIENTATION = 0x0112  # EXIF

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | Path | Image.Image | np.ndarray | Tensor


def open_picture(file: Path, what: str = "image") -> Image.Image:
    """A decoded PIL image, turned upright as its EXIF note says. Raises DatasetError naming the file."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {what} file {file}: check the path.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot decode {what} {file}: {error}. Copy the file from the archive again.") from error


def read_image(file: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 RGB. Raises DatasetError naming the file when it cannot be decoded, or holds 16
    bit or floating point numbers."""
    return _colours(open_picture(file), f"image {file}", f"Image.open({str(file)!r})", repr(str(file)))


def deep_words(mode: str, opened: str, saved: str) -> tuple[str, str] | None:
    """What is wrong with a photograph of a PIL `mode` with more than 8 bit, and code that mends it; None if nothing is.

    `opened` and `saved` are Python source: the picture, and the file that it becomes. Pillow itself would clip it.
    """
    if not mode.startswith(("I", "F")):
        return None
    cure = f"`from PIL import Image; import numpy as np; a = np.array({opened}).astype(float); "
    cure += f"Image.fromarray((255 * (a - a.min()) / max(np.ptp(a), 1)).astype('uint8')).save({saved})` "
    return f"holds one {mode} number a pixel, and photographs have 8 bit", cure + "stretches it to 8 bit."


def _colours(picture: Image.Image, name: str, opened: str = "picture", saved: str = "'picture.png'") -> np.ndarray:
    words = deep_words(picture.mode, opened, saved)
    if words:
        raise DatasetError(f"{name}: {words[0]}. {words[1]}")
    return np.array(picture.convert("RGB"))


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of an upright photograph, without decoding it. Raises DatasetError naming the file."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return picture.size[::-1] if turned else picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot decode image {file}: {error}. Copy the file from the archive again.") from error


def image_tensor(picture: Picture, name: str = "image") -> Tensor:
    """Any picture as (3, H, W) uint8 RGB.

    Args:
        picture: a path; a PIL image; an array (H, W, 3), (H, W, 4) or grey (H, W); a tensor (3, H, W). Numbers are
            uint8, or floating point (of any width) from 0 to 1.
        name: what messages call it.
    Raises DatasetError for anything else, such as pictures of 16 bit.
    """
    if isinstance(picture, (str, Path)):
        return torch.from_numpy(read_image(Path(picture).expanduser())).permute(2, 0, 1).contiguous()
    if hasattr(picture, "convert"):
        from PIL import ImageOps

        return torch.from_numpy(_colours(ImageOps.exif_transpose(picture), name)).permute(2, 0, 1).contiguous()
    if isinstance(picture, Tensor):
        array = picture.detach().cpu()
        array = array.float() if array.is_floating_point() else array  # NumPy has no bfloat16
        array = array.permute(1, 2, 0).numpy() if array.ndim == 3 else array.numpy()
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise DatasetError(f"{name}: found {type(picture).__name__}, expected a path, PIL image, array or tensor.")
    array = array[..., None].repeat(3, -1) if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (3, 4) or not array.size:
        found = tuple(picture.shape)
        raise DatasetError(f"{name}: found shape {found}, expected (H, W, 3) in arrays, (3, H, W) in tensors.")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DatasetError(f"{name}: floating point pictures hold values from 0 to 1; this one does not.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DatasetError(f"{name}: found {array.dtype}, expected uint8, or floating point from 0 to 1.")
    return torch.from_numpy(np.ascontiguousarray(array[..., :3])).permute(2, 0, 1).contiguous()


def mask_tensor(mask: Picture, name: str = "mask") -> Tensor:
    """Any mask of one object as (H, W) uint8: 1 object, 0 background, 255 neither.

    What is not 0 is object. 255 means "neither" where the mask has other non-zero values too; in a mask of nothing but
    0 and 255, as most drawing programs save it, 255 is the object. Of palettes see `mask_values`.

    Args:
        mask: a path, PIL image, array (H, W) or tensor (H, W), of bool or whole numbers; colour pictures only when
            they are grey. name: what messages call it.
    Raises DatasetError for anything else, and for masks that leave open what belongs: soft edges, a shape in the alpha
    channel, more pixels of 255 than of other values.
    """
    lossy = getattr(mask, "format", None) in ("JPEG", "WEBP")
    if isinstance(mask, (str, Path)):
        lossy = str(mask).lower().endswith(LOSSY)
        mask = open_picture(Path(mask).expanduser(), "mask")
    if hasattr(mask, "convert"):
        array, doubt = mask_values(mask, "binary")
        if doubt in _DOUBTS:
            raise DatasetError(f"{name}: {_DOUBTS[doubt]}")
    elif isinstance(mask, Tensor):
        array = mask.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    else:
        array = np.asarray(mask)
    if array.ndim == 3 and array.shape[-1] == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "bui":
        raise DatasetError(
            f"{name}: found {array.dtype} {array.shape}, expected (H, W) of bool or whole numbers, 0 for background. "
            "Of a colour picture, compare with the object's colour first: (picture == colour).all(-1)."
        )
    out = (array != 0).astype(np.uint8)
    if array.dtype.kind == "b":
        return torch.from_numpy(out)
    values = np.unique(array)
    if values[0] >= 0 and values[-1] <= IGNORE:
        unclear = soft(array.astype(np.uint8), values[values != 0], "binary", lossy)
    else:  # of numbers that no byte holds, the order says as much
        ranks = np.flatnonzero(values)
        unclear = len(values) > 256 or soft(np.searchsorted(values, array).astype(np.uint8), ranks, "binary", lossy)
    if unclear:
        raise DatasetError(
            f"{name}: {len(values)} grey values, as soft edges or JPEG leave them: say what belongs, e.g. mask > 127."
        )
    if void_outweighs(array):
        raise DatasetError(
            f"{name}: most of what is drawn is 255, but there are other values too. If 255 is the object (and they are "
            "its soft rim), pass mask > 127; if 255 means neither, there is more of it than of the object: save it as "
            "0, or as a border only."
        )
    if set(values.tolist()) - {0, IGNORE}:
        out[array == IGNORE] = IGNORE
    return torch.from_numpy(out)


_DOUBTS = {
    "transparent": "its transparency differs from place to place, and colours or alpha channel may hold the shape. "
    "Pass the one that does, e.g. numpy.array(picture.convert('RGBA'))[..., 3] > 127.",
    "renumbered": "index 0 of its palette is coloured and another one is black, as programs save few colours. Compare "
    "colours instead: numpy.array(picture.convert('RGB')).any(-1) is what is not black.",
}
