"""Tensors to panels: pictures with masks, heat maps, regions; and which cell of a map a pixel belongs to."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from torch import Tensor

from ..episode import Episode
from ..plots.pixels import enlarged, overlay, rim, tinted
from .board import Panel

Mark = tuple[float, float, str, str]


def photo(key: str, caption: str, image: Tensor, mask: Tensor | None = None, **how: object) -> Panel:
    """A normalised image (3, H, W); with a mask (H, W) what it marks stands out, as in the notebooks' figures."""
    seen = "a picture"
    if mask is not None:
        seen = f"{float((mask > 0).logical_and(mask != 255).float().mean()):.0%} of the picture marked"
    return Panel(key, caption, f"{caption}, {seen}.", _bytes(overlay(image, mask)), **how)


def supports(
    episode: Episode, words: str, masks: Tensor | None = None, marks: Mapping[int, list] | None = None, **how: object
) -> list[Panel]:
    """Every support with its own mask, or those of (1, 1, K, H, W), and the marks of its number from 0."""
    masks, marks = episode.support_masks if masks is None else masks, marks or {}
    return [
        photo(f"support {k}", f"Support {k + 1}: {words}", image, mask, marks=marks.get(k, ()), **how)
        for k, (image, mask) in enumerate(zip(episode.support_images[0, 0], masks[0, 0]))
    ]


def heat(
    key: str, caption: str, values: Tensor, image: Tensor, *, limits: tuple[float, float] | None = None,
    mask: Tensor | None = None, **how: object,
) -> Panel:  # fmt: skip
    """A map (h, w) in the colours of the notebooks' maps, cell by cell at the image's size.

    Args:
        limits: values of the darkest and the brightest colour; None: the map's own.
        mask: (H, W), whose object gets a white outline.
    """
    values = values.detach().float().cpu().numpy()
    low, high = limits or (float(values.min()), float(values.max()))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    shown = matplotlib.colormaps["cividis"](enlarged(scaled, image))[..., :3]
    if mask is not None:
        shown[rim(mask.detach().cpu().numpy() == 1)] = 1
    brightest = np.unravel_index(values.argmax(), values.shape)
    where = f"column {(brightest[1] + 0.5) / values.shape[1]:.0%}, row {(brightest[0] + 0.5) / values.shape[0]:.0%}"
    alt = f"{caption}: a map from {values.min():.2f} (dark) to {values.max():.2f} (bright), largest at {where}."
    return Panel(key, caption, alt, _bytes(shown), **how)


def regions(key: str, caption: str, labels: Tensor, image: Tensor, **how: object) -> Panel:
    """Whole numbers (h, w), 0 for nothing, as coloured cells on the grey image."""
    numbers = np.asarray(labels.detach().cpu())
    alt = f"{caption}: {len(np.unique(numbers[numbers > 0]))} regions."
    return Panel(key, caption, alt, _bytes(tinted(numbers, image)), **how)


def prediction(key: str, caption: str, image: Tensor, predicted: Tensor, truth: Tensor) -> tuple[Panel, float]:
    """The predicted mask (H, W) and its IoU with the truth (H, W; 255 does not count)."""
    score = iou(predicted, truth)
    return photo(key, f"{caption}, IoU {score:.0%}", image, predicted), score


def iou(predicted: Tensor, truth: Tensor) -> float:
    """Intersection over union of the object, 1 where there is none in either."""
    counted = truth != 255
    predicted, truth = (predicted > 0) & counted, (truth > 0) & counted
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def cross(x: float, y: float) -> Mark:
    """The mark of the point that was chosen."""
    return (x, y, "", "cross")


def badges(points: Sequence[tuple[float, float]], first: int = 1) -> list[Mark]:
    """Numbered marks."""
    return [(x, y, str(number), "badge") for number, (x, y) in enumerate(points, first)]


def pointed(point: Mapping, keys: Sequence[str], pixels: tuple[int, int]) -> tuple[str, float, float] | None:
    """The board's point as (key, x, y) where it lies in one of these pictures (H, W), else None: it is out of date."""
    key, x, y = (point.get(name, -1) for name in ("panel", "x", "y"))
    return (key, x, y) if key in keys and 0 <= x < pixels[1] and 0 <= y < pixels[0] else None


def cell_at(x: float, y: float, pixels: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """Row and column, of (h, w) `cells` over (H, W) `pixels`, that a pixel belongs to."""
    return int(y * cells[0] / pixels[0]), int(x * cells[1] / pixels[1])


def middle(row: float, column: float, pixels: tuple[int, int], cells: tuple[int, int]) -> tuple[float, float]:
    """The pixel x, y in the middle of a cell."""
    return (column + 0.5) * pixels[1] / cells[1] - 0.5, (row + 0.5) * pixels[0] / cells[0] - 0.5


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().clip(0, 255).astype(np.uint8)
