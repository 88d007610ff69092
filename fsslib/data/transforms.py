"""Resizing and augmenting image and mask together, and ImageNet normalisation.

Every transform takes and returns an image (3, H, W) uint8 RGB and a mask (H, W) uint8 or int16. Masks are resampled by
nearest neighbour; what a transform invents is mean colour (zero once normalised), and 255 (ignored) in the mask.
First comes what all need, then augmentation of what has the network's size already (`augment`), then augmentation that
needs the whole picture (`augment_whole`); both work on the CPU, in whole numbers between one step and the next.
"""

import math
import numbers
import platform
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import choose
from ..episode import IGNORE
from ..errors import DatasetError
from .base import check_seed

MEAN = (0.485, 0.456, 0.406)  # ImageNet, as every pre-trained backbone of torchvision expects
STD = (0.229, 0.224, 0.225)
MEAN_COLOUR = [round(255 * m) for m in MEAN]
_MEAN, _STD = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
MODES = ("squash", "pad")  # to a square, or keep the aspect ratio
# What leaves a class what it is depends on the data: a mirrored dog is a dog, a mirrored letter may be another letter.
AUGMENTATIONS = {
    "photo": {},
    "flip": {"scale": (1.0, 1.0), "rotate": 0},
    "sdaanet": {"scale": (1.0, 1.0), "rotate": 10, "rotated": 0.5, "blurred": 0.5},
    "none": {"scale": (1.0, 1.0), "rotate": 0, "flip": False},
}
# Of whole pictures. Scales are those on PASCAL; the same authors take 0.8 to 1.25 on COCO.
WHOLE = ("pfenet", "hdmnet")
SCALE, DEGREES, BLUR = (0.9, 1.1), 10, 5  # BLUR: pixels a side
KEPT = 0.85  # of the object's pixels a crop should hold
TRIES = 32  # crops that are drawn at most; the last one stays, whatever it holds


def _check_pair(image: Tensor, mask: Tensor) -> None:
    shape = tuple(image.shape)
    if image.dtype != torch.uint8 or len(shape) != 3 or shape[0] != 3:
        raise DatasetError(
            f"image: found {image.dtype} {shape}, expected uint8 (3, H, W). Augment first and normalise last."
        )
    if mask.dtype not in (torch.uint8, torch.int16) or tuple(mask.shape) != shape[1:] or not mask.numel():
        raise DatasetError(
            f"mask: found {mask.dtype} {tuple(mask.shape)}, expected uint8 (or int16) {shape[1:]} like its image, at "
            "least one pixel. Load both from the same data set."
        )


def _draws(seed: int, count: int) -> list[float]:
    """All there is to draw at once, always in the same order, so that what one step does moves no other."""
    check_seed(seed)
    generator = torch.Generator().manual_seed(int(seed) % 2**63)
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def _resize(image: Tensor, mask: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
    """Both at `size`, the image bit for bit as torchvision resizes it: in 8 bits where this is fast.

    "Exact" takes the centre of a cell, as PIL does; "nearest" its corner, which moves the mask by up to half a pixel.
    """
    if list(mask.shape) == size:
        return image, mask
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    kept = fast and image.device.type == "cpu"
    resized = F.interpolate((image if kept else image.float())[None], size, mode="bilinear", antialias=True)[0]
    label = mask if mask.dtype == torch.uint8 else mask.float()
    mask = F.interpolate(label[None, None], size, mode="nearest-exact")[0, 0].to(mask.dtype)
    return resized if kept else resized.round().to(image.dtype), mask


def _target(height: int, width: int, longest: int, mode: str) -> list[int]:
    if mode == "squash":
        return [longest, longest]
    return [max(1, round(side * longest / max(height, width))) for side in (height, width)]


def _pad(pair: tuple, left: int, top: int, right: int, bottom: int) -> tuple:
    """Grow by mean colour and 255; contiguous tensors, and new ones unless there is nothing to add."""
    if not any((left, top, right, bottom)):
        return tuple(part.contiguous() for part in pair)
    image, mask = pair
    mask = F.pad(mask, (left, right, top, bottom), value=IGNORE).contiguous()
    grown = image.new_tensor(MEAN_COLOUR)[:, None, None].repeat(1, *mask.shape)
    grown[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return grown, mask


def _turn(image: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Both turned anticlockwise about their centre, sizes kept; the border blends with mean colour as in OpenCV."""
    height, width = mask.shape
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right, down = (torch.arange(side) - (side - 1) / 2 for side in (width, height))  # from the centre
    # Where each pixel comes from, -1 to 1 from edge to edge of the picture.
    places = torch.empty(2, height, width)
    torch.add(right * (2 / width * cosine), down[:, None], alpha=-2 / width * sine, out=places[0])
    torch.add(right * (2 / height * sine), down[:, None], alpha=2 / height * cosine, out=places[1])
    grid = places.permute(1, 2, 0)[None]
    # What lies beyond the picture is taken for zero: therefore the differences from what shall be there.
    colour = torch.tensor(MEAN_COLOUR, dtype=torch.float32)[:, None, None]
    image = F.grid_sample(image.float().sub_(colour)[None], grid, align_corners=False)[0]
    label = mask.float().sub_(IGNORE)[None, None]
    label = F.grid_sample(label, grid, mode="nearest", align_corners=False)[0, 0].add_(IGNORE)
    image = image.add_(colour + 0.5).numpy().astype(np.uint8)  # which NumPy does four times as fast
    return torch.from_numpy(image), label.to(mask.dtype)


def _blur(image: Tensor) -> Tensor:
    """OpenCV's Gaussian of 5 x 5 pixels: (1, 4, 6, 4, 1) / 16 down and across, what is beyond the border mirrored.

    Adding neighbours four times gives these weights in whole numbers below 2**16, so it is rounded once, at the end.
    Pictures too small to be mirrored stay what they are.
    """
    height, width = image.shape[1:]
    if min(height, width) <= BLUR // 2:
        return image
    blurred = np.empty(tuple(image.shape), np.uint8)
    for channel, out in zip(image.numpy(), blurred):
        sums = np.empty((height + 4, width + 4), np.uint16)
        sums[2:-2, 2:-2] = channel
        sums[:, [0, 1, -2, -1]] = sums[:, [4, 3, -4, -5]]
        sums[[0, 1, -2, -1]] = sums[[4, 3, -4, -5]]
        for _ in range(4):
            sums = sums[1:] + sums[:-1]
        for _ in range(4):
            sums = sums[:, 1:] + sums[:, :-1]
        sums += 128
        sums >>= 8
        out[...] = sums
    return torch.from_numpy(blurred)


def _stats(image: Tensor, fits: bool, kind: str) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and std beside an image, after it was checked."""
    if image.ndim < 3 or image.shape[-3] != 3 or not fits:
        raise DatasetError(f"image: found {image.dtype} {tuple(image.shape)}, expected {kind} (..., 3, H, W).")
    return _MEAN.to(image.device), _STD.to(image.device)


def normalise(image: Tensor, out: Tensor | None = None) -> Tensor:
    """(..., 3, H, W) uint8 RGB to float32: scaled to [0, 1], minus ImageNet mean, divided by ImageNet std.
    `out`: a float32 tensor of this shape to write to, such as an image's place in a batch."""
    mean, std = _stats(image, image.dtype == torch.uint8, "uint8")
    out = torch.empty(image.shape, device=image.device) if out is None else out
    return out.copy_(image).div_(255).sub_(mean).div_(std)


def denormalise(image: Tensor) -> Tensor:
    """The inverse of `normalise` for figures: (..., 3, H, W) float to uint8 RGB, clipped and rounded."""
    mean, std = _stats(image, image.is_floating_point(), "floating point")
    return ((image.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


class Resize:
    """Image and mask to `size` x `size`.

    Args:
        size: pixels a side, at least 8.
        mode: `"squash"` ignores the aspect ratio (PANet, SD-AANet); `"pad"` makes the long side `size` and fills up at
            the right and at the bottom (PFENet's layout, without its rounding to multiples of 8).
    Raises DatasetError for an impossible size or mode, and for images and masks that do not belong together.
    """

    def __init__(self, size: int, mode: str = "squash"):
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 8:
            raise DatasetError(f"size={size!r}: expected whole pixels, 8 or more (8k+1 suits stride 8: 97, 417).")
        choose(mode, MODES, "mode=", DatasetError)
        self.size, self.mode = int(size), mode

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        _check_pair(image, mask)
        height, width = _target(*mask.shape, self.size, self.mode)
        return _pad(_resize(image, mask, [height, width]), 0, 0, self.size - width, self.size - height)

    def undo(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Scores (B, C, size, size) of a resized image at its original size, bilinearly: (B, C, height, width)."""
        if self.mode == "pad":
            # The image fills the top left part of the square; the same arithmetic as above, or halves round apart.
            inner = _target(height, width, self.size, self.mode)
            scores = scores[..., : inner[0], : inner[1]]
        return F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)

    def __repr__(self) -> str:
        return f"Resize({self.size}, mode={self.mode!r})"


def vanished(name: str, marked: Tensor, shape: Resize) -> str:
    """The warning that an object (H, W) bool of the picture `name` has no pixel left once it is resized."""
    (height, width), count = marked.shape, int(marked.sum())
    rows, columns = (int(marked.any(side).sum()) for side in (1, 0))
    need = max(shape.size + 1, -(-max(height, width) // max(1, min(rows, columns))))
    return (
        f"{name}: the object has {count} pixels of {width}x{height}, and none is left at the network's {shape.size} "
        f"pixels a side: its mask is empty, and nothing can be found by it. Crop the picture around the object, "
        f"take a larger size (from about {need}), or leave the picture out."
    )


def _changed(
    image: Tensor, mask: Tensor, seed: int, flip: bool = True, scale: tuple[float, float] = SCALE,
    rotate: float = DEGREES, rotated: float = 1.0, blurred: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A square pair scaled by a random factor, turned, blurred, flipped, and cropped or filled up to its size again.

    Args: flip: half of the pairs. scale: smallest and largest factor. rotate: largest angle in degrees, either way;
    rotated, blurred: share of the pairs that are turned, and whose image gets a Gaussian blur of 5 x 5 pixels.
    """
    size, draw = len(mask), _draws(seed, 10)
    low, high = scale
    longest = max(1, round(size * (low + (high - low) * draw[0])))
    pair = _resize(image, mask, [longest, longest])
    angle = rotate * (2 * draw[1] - 1)
    if angle and draw[8] < rotated:
        pair = _turn(*pair, angle)
    if draw[9] < blurred:
        pair = _blur(pair[0]), pair[1]
    if flip and draw[2] < 0.5:
        pair = tuple(part.flip(-1) for part in pair)
    # Crop where it is too large, fill up where it is too small, at a random place.
    top, left = (int(at * (abs(longest - size) + 1)) for at in draw[3:5])
    if longest < size:
        pair = _pad(pair, left, top, size - longest - left, size - longest - top)
        top = left = 0
    return tuple(part[..., top : top + size, left : left + size].contiguous() for part in pair)


def augment(image: Tensor, mask: Tensor, seed: int, kind: str = "photo") -> tuple[Tensor, Tensor]:
    """Random scale, rotation, blur, flip and crop of a square image, with the settings of `kind`.

    No global random state is read or moved: the seed feeds a generator of its own.

    Args:
        image, mask: (3, S, S) and (S, S) uint8, as `Resize` returns them.
        seed: a whole number; the result is a pure function of it and of the pair.
        kind: a data set's `augmentation`: `"photo"` (scale 0.9 to 1.1, 10 degrees, flips), `"flip"`, `"symmetry"` (see
            `symmetry`) or `"none"`; or `"sdaanet"`: half of the images turned by up to 10 degrees, half blurred, half
            flipped, as SD-AANet's code does (PFENet's own besides scales and crops).
    Raises DatasetError for an unknown kind or an image that is not square.
    """
    choose(kind, (*AUGMENTATIONS, "symmetry"), "augmentation", DatasetError)
    _check_pair(image, mask)
    if mask.shape[0] != mask.shape[1]:
        raise DatasetError(f"augment needs a square image, found {tuple(mask.shape)}: apply Resize(size) first.")
    if kind == "symmetry":
        return symmetry(image, mask, seed)
    return _changed(image, mask, seed, **AUGMENTATIONS[kind])


def symmetry(image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """One of the eight symmetries of the square, shuffled colour channels and up to 20 % more or less light.

    For pictures without an up, a left or a meaning of colour, such as Shapes-5i; no pixel is interpolated.
    Shapes, dtypes and purity as in `augment`.
    """
    generator = np.random.default_rng(seed)
    turns, mirrored = generator.integers(4), generator.integers(2)
    pixels, label = (np.rot90(part, turns, (-2, -1))[..., :: -1 if mirrored else 1] for part in (image, mask))
    light = np.float32(generator.uniform(0.8, 1.2))
    pixels = np.multiply(pixels[generator.permutation(3)], light, order="C")
    pixels = np.minimum(pixels, 255, out=pixels).astype(np.uint8)
    return torch.from_numpy(pixels), torch.from_numpy(np.ascontiguousarray(label))


def augment_whole(
    image: Tensor, mask: Tensor, seed: int, kind: str, size: int, objects: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """The training transforms of PFENet's family (arXiv 2008.01449), as the authors' code has them.

    The picture is scaled by 0.9 to 1.1; half of the pictures are turned by up to 10 degrees about their centre; half
    blurred (Gaussian, 5 x 5, the mask stays sharp); half flipped left to right. It then becomes `size` x `size`. With
    `"pfenet"` (PFENet, ASGNet) by a crop at a random place, after padding both sides alike where it is too small; the
    crop is drawn again, up to 31 times, until it holds at least 85 % of the object's pixels. With `"hdmnet"` by
    resizing, whatever its aspect ratio. What is invented is mean colour in the image and 255 in the mask.

    Args:
        image, mask: (3, H, W) and (H, W) uint8 of any size, as a data set returns them; class ids stay what they are.
        seed: as for `augment`. size: pixels a side of what is returned, at least 8.
        objects: class ids whose pixels together are the object of the 85 %; without any, the first crop is taken.
    Raises DatasetError for an unknown kind, an impossible size or seed, or an image and a mask that do not fit.
    """
    choose(kind, WHOLE, "augmentation of whole pictures", DatasetError)
    square = Resize(size)
    _check_pair(image, mask)
    scale, turned, angle, blurred, flipped, *places = _draws(seed, 5 + 2 * TRIES)
    factor = SCALE[0] + (SCALE[1] - SCALE[0]) * scale
    pair = _resize(image, mask, [max(1, round(side * factor)) for side in mask.shape])
    if turned < 0.5:
        pair = _turn(*pair, DEGREES * (2 * angle - 1))
    if blurred < 0.5:
        pair = _blur(pair[0]), pair[1]
    if flipped < 0.5:
        pair = tuple(part.flip(-1) for part in pair)
    pair = square(*pair) if kind == "hdmnet" else _crop(pair, size, objects, list(zip(places[::2], places[1::2])))
    return tuple(part.contiguous() for part in pair)


def _crop(pair: tuple, size: int, objects: Sequence[int], places: list[tuple[float, float]]) -> tuple:
    """The first crop that holds enough of the object, or the last; `places`: how far down and right, 0 to 1."""
    room = [max(0, size - side) for side in pair[1].shape]
    top, left = (side // 2 for side in room)
    image, mask = _pad(pair, left, top, room[1] - left, room[0] - top)
    target = np.isin(mask.numpy(), list(objects))
    wanted = KEPT * np.count_nonzero(target)
    for down, right in places:
        top, left = (int(at * (side - size + 1)) for at, side in zip((down, right), mask.shape))
        if np.count_nonzero(target[top : top + size, left : left + size]) >= wanted:
            break
    return tuple(part[..., top : top + size, left : left + size] for part in (image, mask))
