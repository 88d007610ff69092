"""Pictures and masks from whatever people have: files, PIL images, arrays and tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..episode import IGNORE
from ..errors import DatasetError
from ..files import located

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | Path | Image.Image | np.ndarray | Tensor

ORIENTATION, TURNING = 0x0112, (5, 6, 7, 8)  # EXIF: the note, and its values that swap the sides
LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".heic", ".heif", ".avif")
_ENOUGH = 2**19  # pixels of a mask that show whether it is soft
_STEP = 24  # grey values that lie closer than this were not chosen to be told apart by eye: they are class ids
_DOUBTS = {
    "transparent": "its transparency differs from place to place, and colours or alpha channel may hold the shape. "
    "Pass the one that does, e.g. numpy.array(picture.convert('RGBA'))[..., 3] > 127.",
    "renumbered": "index 0 of its palette is coloured and another one is black, as programs save few colours. Compare "
    "colours instead: numpy.array(picture.convert('RGB')).any(-1) is what is not black.",
}


@contextlib.contextmanager
def _decoding(file: Path, what: str) -> Iterator[None]:
    """A DatasetError that names the file in place of what Pillow raises."""
    from PIL import Image

    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {what} file {file}: check the path.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot decode {what} {file}: {error}. Copy the file from the archive again.") from error


def open_picture(file: Path, what: str = "image") -> Image.Image:
    """A decoded PIL image, turned upright as its EXIF note says. Raises DatasetError naming the file."""
    from PIL import Image, ImageOps

    with _decoding(file, what), Image.open(file) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        return picture


def read_image(file: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 RGB. Raises DatasetError naming the file when it cannot be decoded, or holds 16
    bit or floating point numbers."""
    return _colours(open_picture(file), f"image {file}", f"Image.open({str(file)!r})", repr(str(file)))


def deep_words(mode: str, opened: str, saved: str) -> tuple[str, str] | None:
    """What is wrong with a photograph of a PIL `mode` with more than 8 bit, and code that mends it; None if nothing is.
    `opened` and `saved` are Python source: the picture, and the file that it becomes. Pillow itself would clip it."""
    if not mode.startswith(("I", "F")):
        return None
    cure = f"`from PIL import Image; import numpy as np; a = np.array({opened}).astype(float); "
    cure += f"Image.fromarray((255 * (a - a.min()) / max(np.ptp(a), 1)).astype('uint8')).save({saved})` "
    return f"holds one {mode} number a pixel, and photographs have 8 bit", cure + "stretches it to 8 bit."


def _colours(picture: Image.Image, name: str, opened: str = "picture", saved: str = "'picture.png'") -> np.ndarray:
    words = deep_words(picture.mode, opened, saved)
    if words:
        raise DatasetError(f"{name}: {words[0]}. {words[1]}")
    return rgb(picture)


def rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a decoded picture. In memory it is three planes, as tensors of images are."""
    colours = picture if picture.mode == "RGB" else picture.convert("RGB")
    return np.stack([np.asarray(plane) for plane in colours.split()]).transpose(1, 2, 0)


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of an upright photograph, without decoding it. Raises DatasetError naming the file."""
    return picture_sizes(file)[0]


def picture_sizes(file: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of a photograph upright and as stored, see `picture_size`."""
    from PIL import Image

    with _decoding(file, "image"), Image.open(file) as picture:
        turned = picture.getexif().get(ORIENTATION) in TURNING
        return picture.size[::-1] if turned else picture.size, picture.size


def image_tensor(picture: Picture, name: str = "image") -> Tensor:
    """Any picture as (3, H, W) uint8 RGB.

    Args:
        picture: a path; a PIL image; an array (H, W, 3), (H, W, 4) or grey (H, W); a tensor (3, H, W). Numbers are
            uint8, or floating point (of any width) from 0 to 1.
        name: what messages call it.
    Raises DatasetError for anything else, such as pictures of 16 bit.
    """
    if isinstance(picture, (str, Path)):
        return torch.from_numpy(read_image(located(picture, name, DatasetError))).permute(2, 0, 1).contiguous()
    if hasattr(picture, "convert"):
        from PIL import ImageOps

        return torch.from_numpy(_colours(ImageOps.exif_transpose(picture), name)).permute(2, 0, 1).contiguous()
    if isinstance(picture, Tensor):
        array = _array(picture)
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise DatasetError(f"{name}: found {type(picture).__name__}, expected a path, PIL image, array or tensor.")
    array = array[..., None].repeat(3, -1) if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (3, 4) or not array.size:
        shape = tuple(picture.shape)
        raise DatasetError(f"{name}: found shape {shape}, expected (H, W, 3) in arrays, (3, H, W) in tensors.")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DatasetError(f"{name}: floating point pictures hold values from 0 to 1; this one does not.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DatasetError(f"{name}: found {array.dtype}, expected uint8, or floating point from 0 to 1.")
    return torch.from_numpy(np.ascontiguousarray(array[..., :3])).permute(2, 0, 1).contiguous()


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16


def mask_tensor(mask: Picture, name: str = "mask") -> Tensor:
    """Any mask of one object as (H, W) uint8: 1 object, 0 background, 255 neither.

    What is not 0 is object. 255 means "neither" where the mask has other non-zero values too; in a mask of nothing but
    0 and 255, as most drawing programs save it, 255 is the object. Of palettes see `mask_values`.

    Args: mask: a path, PIL image, array (H, W) or tensor (H, W), of bool or whole numbers; colour pictures only when
        they are grey. name: what messages call it.
    Raises DatasetError for anything else, and for masks that leave open what belongs: soft edges, a shape in the alpha
    channel, more pixels of 255 than of other values.
    """
    lossy = getattr(mask, "format", None) in ("JPEG", "WEBP")
    if isinstance(mask, (str, Path)):
        lossy = str(mask).lower().endswith(LOSSY)
        mask = open_picture(located(mask, name, DatasetError), "mask")
    if hasattr(mask, "convert"):
        array, doubt = mask_values(mask, "binary")
        if doubt in _DOUBTS:
            raise DatasetError(f"{name}: {_DOUBTS[doubt]}")
    elif isinstance(mask, Tensor):
        array = _array(mask)
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


# What the pixels of a mask mean: palette indices or grey values, smoothed edges, and 255.


def mask_values(picture: Image.Image, kind: str) -> tuple[np.ndarray, str]:
    """The whole numbers that a decoded mask stands for, one a pixel, and what leaves them open.

    Palette indices are class ids where the palette merely colours them, as VOC's does. A drawing program that saves few
    colours numbers them as it likes (white is often 0): where all of them are grey, a mask of one object means the
    greys. A label map may mean either.

    Args: picture: upright, in any mode. kind: `"binary"` for a mask of one object, `"ids"` for a label map.
    Returns (H, W) numbers and `""`; or RGB colours (H, W, 3) and `"colour"`, `"transparent"` (the shape may be in the
    alpha channel) or `"renumbered"` (the order of the palette contradicts its colours).
    """
    alpha, values = _alpha(picture), None
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        values = np.array(picture)
        values = values.astype(np.uint8) if values.dtype == bool else values
    elif picture.mode == "P":
        values = _palette_values(picture, kind)
        if values is None:
            return np.array(picture.convert("RGB")), "renumbered"
    else:
        colours = np.array(picture.convert("RGB"))
        if (colours == colours[..., :1]).all():
            values = np.ascontiguousarray(colours[..., 0])
    # A file without an alpha channel may well call its background transparent: nothing is hidden there.
    if alpha is not None and (picture.mode[-1] in "Aa" or (values is not None and ((alpha > 0) != (values > 0)).any())):
        return np.array(picture.convert("RGB")), "transparent"
    return (colours, "colour") if values is None else (values, "")


def _alpha(picture: Image.Image) -> np.ndarray | None:
    """(H, W) opacity, if it differs from place to place."""
    coloured = picture.palette is not None and picture.palette.mode == "RGBA"
    if picture.mode[-1] in "Aa" or coloured or "transparency" in picture.info:
        alpha = np.array(picture.convert("RGBA"))[..., 3]
        return alpha if alpha.size and alpha.min() != alpha.max() else None
    return None


def _palette_values(picture: Image.Image, kind: str) -> np.ndarray | None:
    """Indices or grey values, whichever is meant; None if that is open."""
    indices, palette = np.array(picture), np.zeros(768, int)
    listed = picture.getpalette("RGB") or []
    palette[: len(listed)] = listed
    palette = palette.reshape(256, 3)
    used = np.flatnonzero(np.bincount(indices.ravel()))
    shown = palette[used]
    if len(used) > 1 and (shown == shown[0]).all():
        return indices  # the colours say nothing
    grey = (shown == shown[:, :1]).all()
    if kind == "binary" and grey:
        return palette[indices, 0].astype(np.uint8)
    black = used[~shown.any(1)]
    # Some data sets draw ignored pixels in black.
    void = kind == "ids" and len(used) > 2 and black.tolist() == [IGNORE]
    if palette[0].any() and 0 in used and len(black) and not void:
        return None
    levels = np.unique(np.append(shown[:, 0], 0))
    ids = grey and len(levels) > 1 and np.diff(levels).min() < _STEP
    return None if ids and (shown[:, 0] != used).any() else indices


def soft(label: np.ndarray, values: np.ndarray, kind: str, lossy: bool = False) -> bool:
    """Whether a mask has values that no one drew: smoothed edges, or what JPEG leaves around them.

    Such values come in thin lines and specks, and most lie between the values on their two sides.

    Args:
        label: (H, W) uint8. values: those of the mask besides 0, sorted. kind: as for `mask_values`.
        lossy: the file's format changes values.
    """
    if len(values) < 2:
        return False
    if lossy and len(values) > 2:
        return True
    if min(label.shape) < 3:
        return len(values) > 8
    if label.size > _ENOUGH:  # bands of 16 rows show as much
        label = label[np.arange(len(label)) // 16 % (label.size // _ENOUGH + 1) == 0]
    inner, left, right = label[1:-1, 1:-1], label[1:-1, :-2], label[1:-1, 2:]
    above, below = label[:-2, 1:-1], label[2:, 1:-1]
    between = [(a < inner) & (inner < b) for a, b in ((left, right), (right, left), (above, below), (below, above))]
    parts = (inner.ravel(), inner[(inner == right) & (inner == below)], inner[np.logical_or.reduce(between)])
    pixels, flat, ramp = (np.bincount(part, minlength=256)[values] for part in parts)
    thin = flat < pixels / 4
    if len(values) > 8:
        return bool(thin.sum() > len(values) / 2 or len(values) > 64)
    edge = thin & (ramp > pixels / 2)
    if kind == "binary":
        # 255 would be taken for "neither" and its edge for the object.
        return bool(values[-1] == IGNORE and edge[:-1].all())
    return bool(edge.sum() >= 2 and edge.sum() > len(values) / 2)


def void_outweighs(label: np.ndarray) -> bool:
    """Whether a mask of one object has other values besides 0 and 255, but fewer such pixels than 255.
    What is "neither" is a thin border; this much of it is the object itself."""
    void = int((label == IGNORE).sum())
    return 0 < int((label != 0).sum()) - void < void
