"""Tensors to panels: pictures with masks, heat maps, regions."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from torch import Tensor

from ..plots.common import overlay, tinted
from .board import WIDTH, Panel

Mark = tuple[float, float, str, str]


def photo(key: str, caption: str, image: Tensor, mask: Tensor | None = None, *, alt: str = "", **how: object) -> Panel:
    """A normalised image (3, H, W); with a mask (H, W) what it marks stands out, as in the notebooks' figures."""
    if not alt:
        share = None if mask is None else float((mask > 0).logical_and(mask != 255).float().mean())
        alt = f"{caption}, a picture." if share is None else f"{caption}, {share:.0%} of the picture marked."
    return Panel(key, caption, alt, _bytes(overlay(image, mask)), **how)


def heat(
    key: str,
    caption: str,
    values: Tensor,
    image: Tensor,
    *,
    limits: tuple[float, float] | None = None,
    mask: Tensor | None = None,
    **how: object,
) -> Panel:
    """A map (h, w) in the colours of the notebooks' maps, cell by cell at the image's size.

    Args:
        limits: values of the darkest and the brightest colour; None: the map's own.
        mask: (H, W), whose object gets a white outline.
    """
    values = values.detach().float().cpu().numpy()
    low, high = limits or (float(values.min()), float(values.max()))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rows, columns = image.shape[-2:]
    shown = matplotlib.colormaps["cividis"](enlarged(scaled, rows, columns))[..., :3]
    if mask is not None:
        shown[_edge(mask.detach().cpu().numpy() == 1)] = 1
    brightest = np.unravel_index(values.argmax(), values.shape)
    where = f"column {(brightest[1] + 0.5) / values.shape[1]:.0%}, row {(brightest[0] + 0.5) / values.shape[0]:.0%}"
    alt = f"{caption}: a map from {values.min():.2f} (dark) to {values.max():.2f} (bright), largest at {where}."
    return Panel(key, caption, alt, _bytes(shown), **how)


def regions(key: str, caption: str, labels: Tensor, image: Tensor, **how: object) -> Panel:
    """Whole numbers (h, w), 0 for nothing, as coloured cells on the grey image."""
    found = np.asarray(labels.detach().cpu())
    alt = f"{caption}: {len(np.unique(found[found > 0]))} regions."
    return Panel(key, caption, alt, _bytes(tinted(found, image)), **how)


def prediction(
    key: str, caption: str, image: Tensor, predicted: Tensor, truth: Tensor | None = None, **how: object
) -> tuple[Panel, float | None]:
    """The predicted mask (H, W) and its IoU with the truth (H, W; 255 does not count), None where there is no truth."""
    score = None if truth is None else iou(predicted, truth)
    words = caption if score is None else f"{caption}, IoU {score:.0%}"
    return photo(key, words, image, predicted, **how), score


def iou(predicted: Tensor, truth: Tensor) -> float:
    """Intersection over union of the object, 1 where there is none in either."""
    counted = truth != 255
    own, true = (predicted > 0) & counted, (truth > 0) & counted
    union = int((own | true).sum())
    return int((own & true).sum()) / union if union else 1.0


def enlarged(cells: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(h, w) numbers at (rows, columns), without mixing them."""
    down, right = (np.arange(side) * n // side for side, n in zip((rows, columns), cells.shape))
    return cells[down][:, right]


def cross(x: float, y: float) -> Mark:
    """The mark of the point that was chosen."""
    return (x, y, "", "cross")


def badges(points: Sequence[tuple[float, float]]) -> list[Mark]:
    """Numbered marks, from 1."""
    return [(x, y, str(number), "badge") for number, (x, y) in enumerate(points, 1)]


def _edge(inside: np.ndarray) -> np.ndarray:
    padded = np.pad(inside, 1)
    return inside & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().clip(0, 255).astype(np.uint8)


__all__ = ["WIDTH", "badges", "cross", "enlarged", "heat", "iou", "photo", "prediction", "regions"]
