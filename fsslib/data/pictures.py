"""Pictures and masks from whatever people have: files, PIL images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .base import IGNORE

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
        raise DatasetError(f"there is no {what} file {file}.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot decode {what} {file}: {error}. Copy the file from the archive again.") from error


def read_image(file: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 RGB. Raises DatasetError naming the file when it cannot be decoded."""
    return np.array(open_picture(file).convert("RGB"))


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
            uint8, or floating point from 0 to 1.
        name: what messages call it.
    Raises DatasetError for anything else.
    """
    if isinstance(picture, (str, Path)):
        return torch.from_numpy(read_image(Path(picture).expanduser())).permute(2, 0, 1).contiguous()
    if hasattr(picture, "convert"):
        from PIL import ImageOps

        return torch.from_numpy(np.array(ImageOps.exif_transpose(picture).convert("RGB"))).permute(2, 0, 1).contiguous()
    if isinstance(picture, Tensor):
        array = picture.detach().cpu()
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
    0 and 255, as most drawing programs save it, 255 is the object.

    Args:
        mask: a path, PIL image, array (H, W) or tensor (H, W), of bool or whole numbers; colour pictures only when
            they are grey. name: what messages call it.
    Raises DatasetError for anything else, such as half-transparent edges that leave it open what belongs.
    """
    if isinstance(mask, (str, Path)):
        mask = open_picture(Path(mask).expanduser(), "mask")
    if hasattr(mask, "convert"):
        array = np.array(mask if mask.mode in ("1", "L", "P", "I", "I;16") else mask.convert("RGB"))
    else:
        array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.ndim == 3 and array.shape[-1] == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "bui":
        raise DatasetError(
            f"{name}: found {array.dtype} {array.shape}, expected (H, W) of bool or whole numbers, 0 for background. "
            "Of a colour picture, compare with the object's colour first: (picture == colour).all(-1)."
        )
    values = np.unique(array)
    if len(values) > 8 and array.dtype.kind != "b" and values[0] == 0 and values[-1] == IGNORE:
        raise DatasetError(
            f"{name}: {len(values)} grey values, as soft edges or JPEG leave them: say what belongs, e.g. mask > 127."
        )
    out = (array != 0).astype(np.uint8)
    if set(values.tolist()) - {0, IGNORE} and array.dtype.kind != "b":
        out[array == IGNORE] = IGNORE
    return torch.from_numpy(out)
