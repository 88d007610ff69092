"""Augmentation that needs the whole picture: it comes before the picture gets the size of the network's input."""

import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DatasetError
from .transforms import MEAN, _check_options, _check_pair, _pad, _resize, _turn

SCALE = (0.9, 1.1)  # on PASCAL; the same authors take 0.8 to 1.25 on COCO
DEGREES = 10
BLUR = 5  # pixels a side
KEPT = 0.85  # of the object's pixels a crop should hold
TRIES = 32  # crops that are drawn at most; the last one stays, whatever it holds
WHOLE = ("pfenet", "hdmnet")


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
        seed: a whole number; the result is a pure function of it and of the other arguments.
        kind: `"pfenet"` or `"hdmnet"`.
        size: pixels a side, at least 8.
        objects: class ids whose pixels together are the object of the 85 %; without any, the first crop is taken.
    Returns: (3, size, size) and (size, size) uint8.
    Raises DatasetError for an unknown kind, an impossible size or seed, or an image and a mask that do not fit.
    """
    from torchvision.transforms.v2.functional import gaussian_blur  # here, because it takes seconds to import

    if kind not in WHOLE:
        raise DatasetError(f"augmentation {kind!r} of whole pictures is unknown: use one of {', '.join(WHOLE)}.")
    _check_options(size, "squash")
    _check_pair(image, mask)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise DatasetError(f"seed={seed!r}: expected a whole number, the same one gives the same picture.")
    generator = torch.Generator().manual_seed(int(seed) % 2**63)
    # All there is to draw at once, always in the same order: what one step does moves no other.
    scale, turned, angle, blurred, flipped, *places = torch.rand(
        5 + 2 * TRIES, generator=generator, dtype=torch.float64
    ).tolist()
    factor = SCALE[0] + (SCALE[1] - SCALE[0]) * scale
    # In floating point up to the end: rounded once, the border is mean colour wherever it blends with the picture.
    pair = _resize(image.float(), mask, [max(1, round(side * factor)) for side in mask.shape])
    if turned < 0.5:
        pair = _turn(*pair, DEGREES * (2 * angle - 1), [255 * value for value in MEAN])
    if blurred < 0.5 and min(pair[1].shape) > BLUR // 2:  # a blur mirrors what lies beyond the border
        pair = gaussian_blur(pair[0], [BLUR, BLUR]), pair[1]
    if flipped < 0.5:
        pair = tuple(part.flip(-1) for part in pair)
    if kind == "hdmnet":
        pair = _resize(*pair, [size, size])
    else:
        pair = _crop(pair, size, objects, list(zip(places[::2], places[1::2])))
    image, mask = (part.contiguous() for part in pair)
    return image.round().clamp(0, 255).to(torch.uint8), mask


def _crop(pair: tuple, size: int, objects: Sequence[int], places: list[tuple[float, float]]) -> tuple:
    """The first crop that holds enough of the object, or the last; `places`: how far down and right, 0 to 1."""
    room = [max(0, size - side) for side in pair[1].shape]
    top, left = (side // 2 for side in room)
    image, mask = _pad(pair, left, top, room[1] - left, room[0] - top)
    target = torch.zeros_like(mask, dtype=torch.bool)
    for c in objects:
        target |= mask == c
    wanted = KEPT * int(target.sum())
    for down, right in places:
        top, left = (int(at * (side - size + 1)) for at, side in zip((down, right), mask.shape))
        if int(target[top : top + size, left : left + size].sum()) >= wanted:
            break
    return tuple(part[..., top : top + size, left : left + size] for part in (image, mask))
