"""Pictures and masks from whatever people have: files, PIL images, arrays and tensors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..episode import IGNORE
from ..errors import DatasetError, FsslibError
from ..files import located

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | Path | Image.Image | np.ndarray | Tensor

ORIENTATION, TURNING = 0x0112, (5, 6, 7, 8)  # EXIF: the note, and its values that swap the sides
LOSSY = (".jpg", ".jpeg", ".jfif", ".webp", ".heic", ".heif", ".avif")
_ENOUGH = 2**19  # pixels of a mask that show whether it is soft
STEP = 24  # grey values that lie closer than this were not chosen to be told apart by eye: they are class ids
_DOUBTS = {
    "transparent": "its transparency differs from place to place, and colours or alpha channel may hold the shape. "
    "Pass the one that does, e.g. numpy.array(picture.convert('RGBA'))[..., 3] > 127.",
    "renumbered": "index 0 of its palette is coloured and another one is black, as programs save few colours. Compare "
    "colours instead: numpy.array(picture.convert('RGB')).any(-1) is what is not black.",
}


def trouble(error: Exception, what: str, name: str, again: str) -> tuple[str, str]:
    """What to say of anything that a decoder raises, and what to do: damaged files make Pillow raise a dozen types.
    `what` is an image or a mask; `name` is left out, since the sentence begins with it; `again`: the cure of damage."""
    # Pillow calls a file that is open already by its place in memory.
    said = re.sub(r"\s*<[^<>]* object at 0x[^<>]*>", "", str(error))
    text = said.replace(repr(name), "").replace(name, "").strip(". :") or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "is not there any more", f"Put the {what} back, or look again."
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
        return (
            f"cannot be read ({text})",
            "The file itself may be sound: mend what keeps it from being read, and look again.",
        )
    return f"cannot be decoded ({text})", again


@contextlib.contextmanager
def decoding(name: str, again: str = "Copy the file from the archive again.") -> Iterator[None]:
    """A DatasetError that names the picture in place of whatever Pillow raises, see `trouble`."""
    what, _, file = name.partition(" ")
    try:
        yield
    except FsslibError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {what} file {file}: check the path.") from error
    except Exception as error:
        words, cure = trouble(error, what, file, again)
        raise DatasetError(f"cannot decode {name}: it {words}. {cure}") from error


def open_picture(file: Path | IO[bytes], what: str = "image", name: str = "") -> Image.Image:
    """A decoded PIL image, turned upright as its EXIF note says.

    Args: file: a path, or an open file. what: `"image"`, or what else messages call it; anything but a photograph may
        have any number of bits. name: what messages call the file, if not by its path.
    Raises DatasetError naming the file, also for what decoding would drop: see `dropped`.
    """
    from PIL import Image, ImageOps

    name = name or f"{what} {file}"
    with decoding(name), Image.open(file) as picture:
        if words := dropped(picture, name.partition(" ")[2], what):
            raise DatasetError(f"{name}: {words[0]}. {words[1]}")
        ImageOps.exif_transpose(picture, in_place=True)
        return picture


def read_image(file: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 RGB. Raises DatasetError naming the file when it cannot be decoded, or holds 16
    bit or floating point numbers, or several pages."""
    with decoding(f"image {file}"):
        return rgb(open_picture(file))


def dropped(picture: Image.Image, file: str, what: str = "image") -> tuple[str, str] | None:
    """What Pillow would leave out of a picture that was opened and not decoded yet, and what to do; None if nothing.

    Pages after the first (but not the previews that a photograph brings along), and the lower half of 16 bits. A mask
    of one 16 bit number a pixel loses nothing. The code in the words keeps the file as it was under another name.
    """
    pages = page_count(picture)
    code = f"`from fsslib.data.folder.cures import shrink; shrink({file!r})` "
    if pages > 1 and what == "image":
        return f"holds {pages} pages, and a photograph is one picture", code + "keeps the first page."
    if pages > 1:
        return f"holds {pages} pages, and a mask is one picture", (
            "Save the page that is meant as a file of its own, or pass it: picture.seek(page), then picture.copy()."
        )
    if what == "image" and picture.mode.startswith(("I", "F")):
        return f"holds one {picture.mode} number a pixel, and photographs have 8 bit", code + "stretches it to 8 bit."
    if _deep_channels(picture):
        cure = code + "keeps their upper 8 bits." if what == "image" else "Export it again with 8 bit a pixel."
        return "holds 16 bit a channel, and only the upper 8 of them can be read", cure
    return None


def page_count(picture: Image.Image) -> int:
    """How many pictures a file holds; a preview of another size, or a second picture of a phone's camera, is none."""
    count = getattr(picture, "n_frames", 1)
    if count < 2 or picture.format == "MPO" or picture.tell():  # somebody who has turned the pages means this one
        return 1
    if picture.format != "TIFF":
        return count
    sizes = []
    for page in range(count):
        picture.seek(page)
        sizes.append(picture.size)
    picture.seek(0)
    return sizes.count(sizes[0])


def _deep_channels(picture: Image.Image) -> bool:
    """Whether colours (or grey and alpha) have 16 bit each: the decoder's arguments say so, the mode does not."""
    if picture.mode.startswith(("I", "F")):
        return False
    words = [part for tile in getattr(picture, "tile", ()) for part in np.atleast_1d(np.array(tile[3], object)).ravel()]
    most = [part for part in words if picture.format == "PPM" and isinstance(part, int)]
    return any(isinstance(part, str) and ";16" in part for part in words) or max(most, default=0) > 255


def rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a picture. In memory it is three planes, as tensors of images are."""
    colours = picture if picture.mode == "RGB" else picture.convert("RGB")
    return np.stack([np.asarray(plane) for plane in colours.split()]).transpose(1, 2, 0)


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of an upright photograph, without decoding it. Raises DatasetError naming the file."""
    return picture_sizes(file)[0]


def picture_sizes(file: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of a photograph upright and as stored, see `picture_size`."""
    from PIL import Image

    with decoding(f"image {file}"), Image.open(file) as picture:
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
        array = read_image(located(picture, name, DatasetError))
    elif hasattr(picture, "convert"):
        with decoding(f"image {name}", "Open it again, or save it as PNG."):
            array = rgb(_upright(picture, name))
    elif isinstance(picture, Tensor):
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
    return torch.from_numpy(np.array(array[..., :3].transpose(2, 0, 1), order="C"))


def _upright(picture: Image.Image, name: str, what: str = "image") -> Image.Image:
    """A PIL image of somebody's own, turned; see `open_picture`."""
    from PIL import ImageOps

    if not all(picture.size):
        raise DatasetError(
            f"{name}: found {picture.width}x{picture.height} pixels, expected at least one: open it again."
        )
    if words := dropped(picture, str(getattr(picture, "filename", "") or "picture.png"), what):
        where = "" if getattr(picture, "filename", "") else "With the picture saved as picture.png: "
        raise DatasetError(f"{name}: {words[0]}. {where}{words[1]}")
    return ImageOps.exif_transpose(picture)


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
    if read := isinstance(mask, (str, Path)):
        lossy = str(mask).lower().endswith(LOSSY)
        mask = open_picture(located(mask, name, DatasetError), "mask")
    if hasattr(mask, "convert"):
        with decoding(f"mask {name}", "Open it again, or save it as PNG."):
            array, doubt = mask_values(mask if read else _upright(mask, name, "mask"), "binary")
        if doubt in _DOUBTS:
            raise DatasetError(f"{name}: {_DOUBTS[doubt]}")
    elif isinstance(mask, Tensor):
        array = _array(mask)
    else:
        with decoding(f"mask {name}", "Expected a path, PIL image, array or tensor."):
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
    ids = grey and len(levels) > 1 and np.diff(levels).min() < STEP
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
