"""Pictures as arrays: masks and regions in colour. Nothing is drawn here: only NumPy and torch are needed."""

import numpy as np
from torch import Tensor

from ..data.transforms import denormalise
from ..episode import IGNORE

Array = np.ndarray | Tensor
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442"]  # areas: classes, parts
HUES = ["#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73"]  # light enough for black letters


def overlay(image: Tensor, mask: Tensor | None = None, tint: float = 0.2) -> np.ndarray:
    """(H, W, 3) picture in 0..1 of a normalised (3, H, W) image; with a (H, W) mask, what it marks stands out.
    Everything else turns pale grey. Ways 1.. get a tint and an outline in their colour; 255 turns dark grey."""
    picture = denormalise(image.detach().cpu()).permute(1, 2, 0).numpy() / 255
    if mask is None:
        return picture
    mask = mask.detach().cpu().numpy()
    shown = grey(picture)
    shown[mask == IGNORE] = 0.3
    for value in np.unique(mask[(mask > 0) & (mask != IGNORE)]):
        inside, colour = mask == value, rgb(COLOURS[(value - 1) % len(COLOURS)])
        shown[inside] = (1 - tint) * picture[inside] + tint * colour
        shown[rim(inside)] = colour
    return shown


def tinted(labels: Array, image: Tensor, strength: float = 0.65) -> np.ndarray:
    """(H, W, 3) grey picture with whole numbers 1, 2, … in the colours of `HUES`, which start again after five.

    Args: labels: (h, w) whole numbers, 0 for nothing; enlarged cell by cell. image: (3, H, W) normalised.
    """
    labels, shown = enlarged(labels, image).astype(int), grey(overlay(image))
    for value in np.unique(labels[labels > 0]):
        colour = rgb(HUES[(value - 1) % len(HUES)])
        shown[labels == value] = (1 - strength) * shown[labels == value] + strength * colour
    return shown


def enlarged(cells: Array, image: Tensor) -> np.ndarray:
    """(h, w) numbers at the size of the image, without mixing them."""
    rows, columns = (np.arange(side) * n // side for side, n in zip(image.shape[-2:], cells.shape))
    return np.asarray(cells)[rows][:, columns]


def rim(inside: np.ndarray, **how: str) -> np.ndarray:
    """The pixels of a (H, W) bool mask with a neighbour outside; `how` `np.pad` is to go on beyond the border."""
    padded = np.pad(inside, 1, **how)
    return inside & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def grey(picture: np.ndarray, white: float = 0.45, share: float = 0.4) -> np.ndarray:
    """(H, W, 3) pale grey picture: `white`, and the `share` of the picture's own brightness."""
    return white + share * picture.mean(-1, keepdims=True).repeat(3, -1)


def rgb(colour: str) -> np.ndarray:
    """(3,) in 0..1 of a colour "#RRGGBB"."""
    return np.array([*bytes.fromhex(colour[1:])]) / 255
