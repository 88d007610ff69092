"""Where superpixels start: points spread over the object by farthest-point sampling (ASGNet, arXiv 2104.01893, 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import precise, resize

_FAR = 1 << 30


@dataclass(frozen=True)
class Seeds:
    """Initial superpixel centres of M support images.

    Attributes:
        points: (M, P, 2) long, row and column on the feature grid; rows from `counts` on are 0 and unused.
        counts: (M,) long, number of superpixels; 0 or 1 means masked average pooling instead.
    """

    points: Tensor
    counts: Tensor


@torch.no_grad()
def published_seeds(masks: Tensor, size: tuple[int, int], most: int = 5, area: float = 100.0) -> Seeds:
    """The seeds of the authors' data loader, with its quirks, for a whole batch at once.

    The mask is sampled on a grid of its own (source index ⌊i·H/h⌋, so a seed may lie beside the mask of the features).
    P = min(round(cells / area), most), halves to even. The first seed lies farthest from the background inside the
    object's bounding box (neither box nor image border count as background), each further one farthest from background
    and earlier seeds. A box without background is measured from a point above its left corner, as scipy does.
    Then the model counts seeds by their non-zero coordinates, once in rows and once in columns, and takes the larger
    count: where every seed has a 0 in neither, none is lost; the last one is where both counts fall short.

    Args:
        masks: (M, H, W) bool, the object. size: grid (h, w) of the features.
        most: largest number of superpixels N_max. area: cells per superpixel S_sp.
    """
    rows, columns = (torch.arange(n, device=masks.device) * m // n for n, m in zip(size, masks.shape[-2:]))
    grid = masks[:, rows][:, :, columns]
    cells = grid.sum((-2, -1))
    # Halves to even; no more than there are cells.
    counts = torch.minimum(torch.round(precise(cells) / area).clamp_max(most).long(), cells)
    inside = _bounding_box(grid)
    distance = _squared_distance(inside & ~grid)
    # scipy's transform of an image without background.
    full = ~(inside & ~grid).flatten(1).any(1)
    top, left = (inside.any(axis).to(torch.uint8).argmax(-1) for axis in (2, 1))
    i, j = torch.arange(size[0], device=masks.device), torch.arange(size[1], device=masks.device)
    virtual = ((i - top[:, None] + 1) ** 2)[:, :, None] + ((j - left[:, None]) ** 2)[:, None]
    distance = torch.where(full[:, None, None], virtual, distance)
    points = _farthest(torch.where(grid, distance, -1), most, forget=full)
    points = torch.where((torch.arange(most, device=masks.device) < counts[:, None])[..., None], points, 0)
    points = torch.where((counts >= 2)[:, None, None], points, 0)
    counted = (points > 0).sum(1).amax(-1)
    return Seeds(points, torch.where(counts >= 2, counted, counts))


@torch.no_grad()
def clean_seeds(masks: Tensor, size: tuple[int, int], most: int = 5, area: float = 100.0) -> Seeds:
    """Seeds as the paper describes them: ⌊cells / area⌋ of them, on the very cells that are clustered.

    The first lies farthest from the background, the image border included; no seed is lost on the way.
    Arguments as in `published_seeds`.
    """
    grid = resize(masks.float(), size) == 1
    cells = grid.sum((-2, -1))
    counts = torch.minimum((precise(cells) / area).floor().clamp_max(most).long(), cells)
    framed = torch.nn.functional.pad(grid, (1, 1, 1, 1))
    distance = _squared_distance(~framed)[:, 1:-1, 1:-1]
    points = _farthest(torch.where(grid, distance, -1), most)
    used = torch.arange(most, device=masks.device) < counts[:, None]
    return Seeds(torch.where(used[..., None], points, 0), counts)


def _bounding_box(grid: Tensor) -> Tensor:
    """(M, h, w) bool: the tight box around the true cells."""

    def span(some: Tensor) -> Tensor:
        return (some.cumsum(-1) > 0) & (some.flip(-1).cumsum(-1) > 0).flip(-1)

    return span(grid.any(2))[:, :, None] & span(grid.any(1))[:, None]


def _squared_distance(background: Tensor) -> Tensor:
    """Exact squared Euclidean distance of every cell to the nearest true cell of (M, h, w), long; `_FAR` without one.

    Separable: first along columns, then along rows.
    """
    h, w = background.shape[-2:]
    i, j = torch.arange(h, device=background.device), torch.arange(w, device=background.device)
    along = (i[:, None] - i) ** 2
    column = torch.where(background[:, None], along[:, :, None], _FAR).amin(2)
    across = (j[:, None] - j) ** 2
    return (column[:, :, None] + across).amin(-1).clamp_max(_FAR)


def _farthest(distance: Tensor, count: int, forget: Tensor | None = None) -> Tensor:
    """`count` cells (M, count, 2), each the first maximum of the distance to background and earlier points.

    Args:
        distance: (M, h, w) long, squared; -1 where no point may lie.
        forget: (M,) bool: after the first point only the distance to points counts.
    """
    h, w = distance.shape[-2:]
    i, j = torch.arange(h, device=distance.device), torch.arange(w, device=distance.device)
    allowed, points = distance >= 0, []
    for step in range(count):
        best = distance.flatten(1).argmax(1)
        point = torch.stack([best // w, best % w], -1)
        points.append(point)
        own = ((i - point[:, :1]) ** 2)[:, :, None] + ((j - point[:, 1:]) ** 2)[:, None]
        nearest = torch.minimum(distance, own)
        if step == 0 and forget is not None:
            nearest = torch.where(forget[:, None, None], own, nearest)
        distance = torch.where(allowed, nearest, -1)
    return torch.stack(points, 1)
