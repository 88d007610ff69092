"""Tensor functions that the papers share. Each fast form has a plain twin in the tests that it must equal."""

from collections.abc import Sequence
from functools import wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4  # channels up to which maps are resized by matrices on CPUs
EPS_AREA = 1e-5  # PANet adds it to the mask area, so that an empty mask gives the zero vector
EPS_NORM = 1e-8  # torch's cosine similarity clamps each norm here
EPS_SOFT_AREA = 5e-4  # PFENet's methods add it to the area of the resized mask
EPS_PRIOR = 1e-7  # PFENet's prior adds it to products of norms and to the range of the similarities; so does BAM


def full_precision(function):
    """Run `function` outside autocast: cosines and areas lose digits in bfloat16 that the arg-max needs."""

    @wraps(function)
    def wrapped(tensor: Tensor, *args, **kwargs):
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *args, **kwargs)

    return wrapped


def may_wait(tensor: Tensor) -> bool:
    """Whether numbers may be read out of `tensor` to save work: only on a CPU, and not while `torch.compile` looks on.

    A GPU would first have to finish all that is queued, and a compiled graph would end here. There the dense form is
    the faster one: the same result for shapes that do not depend on the data.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def object_cells(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of each object, for what has to be computed for them alone.

    Args: masks: (M, n) bool.
    Returns: numbers of cells (M, most) long, the object's first and in their order, and whether each is the object's
        (M, most) bool; `most` is the size of the largest object (at least 1), or n where that `may_wait` not be read.
    """
    if not may_wait(masks):
        return torch.arange(masks.shape[1], device=masks.device).expand_as(masks), masks
    order = masks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    order = order[:, : max(1, int(masks.sum(-1).max()))]
    return order, masks.gather(1, order)


class Box(NamedTuple):
    """Cells of a grid: rows from `top` to below `bottom`, columns from `left` to left of `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, chosen: Tensor) -> "Box | None":
        """The smallest box with all cells of `chosen` (h, w) bool; None where there is none. Waits for the device."""
        rows, columns = (chosen.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        return cls(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None

    def grown(self, cells: int, size: Sequence[int]) -> "Box":
        """The box with `cells` more to each side, as far as the grid (h, w) reaches."""
        top, left = max(0, self.top - cells), max(0, self.left - cells)
        return Box(top, min(size[0], self.bottom + cells), left, min(size[1], self.right + cells))

    def cut(self, maps: Tensor, outer: "Box | None" = None) -> Tensor:
        """This box out of maps (..., h, w), which show the box `outer`, or the whole grid."""
        top, left = (outer.top, outer.left) if outer else (0, 0)
        return maps[..., self.top - top : self.bottom - top, self.left - left : self.right - left]


def conv_in_boxes(features: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor) -> Tensor:
    """A 3x3 convolution, padded with zeros, in each image's box around the wanted positions; 0 outside.

    Args: features: (B, C, h, w) float. weight: (D, C, 3, 3) float. bias: (D,) or None. wanted: (B, h, w) bool; its
        values are read, which pays where one `may_wait`.
    Returns: (B, D, h, w) float.
    """
    result, weight = features.new_zeros(len(features), len(weight), *features.shape[-2:]), weight.contiguous()
    for image, where, into in zip(features, wanted, result):
        if box := Box.around(where):
            seen = Box(box.top, box.bottom + 2, box.left, box.right + 2).cut(F.pad(image.contiguous(), (1, 1, 1, 1)))
            box.cut(into).copy_(F.conv2d(seen[None], weight, bias)[0])
    return result


def precise(tensor: Tensor) -> Tensor:
    """In double precision, where the device has it (Apple's GPUs do not)."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def _norms(features: Tensor, least: float = 0.0) -> Tensor:
    """(B, 1, …) Euclidean norms, at least `least`, across the channels of (B, C, …); where they are 0 and have a
    gradient, `least` must not be. On CPUs six times as fast as `norm`, which is slow along any axis but the last."""
    return features.square().sum(1, keepdim=True).clamp_min(least**2).sqrt()


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to `size`, PANet's convention (`align_corners=False`); see `resize`."""
    return _bilinear(maps, size, corners=False)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (..., h, w) to `size`, PFENet's convention (`align_corners=True`): the corner cells' centres
    stay on the corners, which fits images of 8k + 1 pixels. SD-AANet, ASGNet and HDMNet use it everywhere."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:]) if maps.ndim != 4 else maps
    resized = _bilinear(flat, size, corners=True)
    return resized.reshape(*maps.shape[:-2], *size)


def _bilinear(maps: Tensor, size: tuple[int, int], corners: bool) -> Tensor:
    """`F.interpolate`; where a few float32 maps (logits, masks) grow on a CPU two products with matrices instead, which
    take 0.2 to 0.7 of its time, gradient included (two channels, 97 or 321 pixels; a tie at 473)."""
    small, large = tuple(maps.shape[-2:]), tuple(size)
    grows = small[0] <= large[0] and small[1] <= large[1]
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or maps.shape[1] > FEW or not grows:
        return F.interpolate(maps, large, mode="bilinear", align_corners=corners)
    rows, columns = (_resize_matrix(*sides, maps.device, corners) for sides in zip(small, large))
    with torch.autocast("cpu", enabled=False):
        return rows @ (maps.contiguous() @ columns.T)


def _resize_matrix(small: int, large: int, device: torch.device, corners: bool = False) -> Tensor:
    """(large, small) matrix of one-dimensional linear resizing: `large_signal = matrix @ small_signal`."""
    unit = torch.eye(small, device=device)[None, None]
    return F.interpolate(unit, (large, small), mode="bilinear", align_corners=corners)[0, 0]


def project_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights that pool a small feature map exactly as `masks` pool its bilinear enlargement.

    Upsampling is linear, so sum(upsample(F) * m) equals sum(F * adjoint(m)): instead of enlarging hundreds of feature
    channels to the size of the mask, the one mask is carried down once.

    Args: masks: (..., H, W) float. size: (h, w) of the feature map.
    Returns: (..., h, w) float; sums to the same total as `masks`.
    """
    rows = _resize_matrix(size[0], masks.shape[-2], masks.device)
    columns = _resize_matrix(size[1], masks.shape[-1], masks.device)
    return rows.T @ masks.to(rows.dtype) @ columns


@full_precision
def masked_average(features: Tensor, masks: Tensor, eps: float = EPS_AREA) -> Tensor:
    """Masked average pooling, late fusion (PANet, ICCV 2019, eq. 1): mean of the enlarged features under each mask.

    Args:
        features: (B, C, h, w) float. masks: (B, M, H, W) float weights, M masks per image, at image resolution.
        eps: added to the area.
    Returns: (B, M, C) float32; the zero vector for an empty mask.
    """
    weights = project_mask(masks, tuple(features.shape[-2:]))
    pooled = torch.einsum("bchw,bmhw->bmc", features.float(), weights)
    return pooled / (masks.sum((-2, -1)).float() + eps).unsqueeze(-1)


@full_precision
def cosine_maps(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """Scaled cosine similarity of every position with every prototype (PANet, ICCV 2019, eq. 3).

    Args: features: (B, C, h, w) float. prototypes: (B, P, C) float. scale: softmax temperature α; 20 in the paper.
    Returns: (B, P, h, w) float32 in [-scale, scale]; exactly 0 for a zero prototype.
    """
    features = features.float()
    directions = scale * F.normalize(prototypes.float(), dim=-1, eps=EPS_NORM)
    # Divided afterwards: a few maps instead of hundreds of channels.
    return torch.einsum("bpc,bchw->bphw", directions, features) / _norms(features, EPS_NORM)


@full_precision
def masked_pool(features: Tensor, masks: Tensor, eps: float = EPS_SOFT_AREA) -> Tensor:
    """Masked average pooling at the resolution of the features (PFENet, arXiv 2008.01449; "GAP" in SD-AANet).

    Args:
        features: (..., C, h, w) float. masks: (..., h, w) float weights; may be fractional where a mask was resized.
        eps: added to the area.
    Returns: (..., C) float32; the zero vector for an empty mask.
    """
    masks = masks.float()
    total = torch.einsum("...chw,...hw->...c", features.float(), masks)
    return total / (masks.sum((-2, -1)) + eps).unsqueeze(-1)


@full_precision
def prior_mask(query: Tensor, support: Tensor, masks: Tensor, *, stretch: bool = True) -> Tensor:
    """How much every query position resembles its most similar support object position (PFENet, arXiv 2008.01449, 3.2).

    Training-free, so no gradient passes. Only the support positions under the mask are compared: every other one has
    zero features after masking and a cosine of exactly 0.

    Args:
        query: (B, C, h, w) float, features of the deepest stage. support: (B, K, C, h', w') float, of the same stage.
        masks: (B, K, h', w') float in [0, 1]; the features are multiplied by it.
        stretch: min-max normalise every map to [0, 1].
    Returns: (B, K, h, w) float32, one map per shot; all zero for an empty mask.
    """
    with torch.no_grad():
        rows, columns, weights = query.float().flatten(2), support.flatten(3), masks.float().flatten(2)
        norms = _norms(rows)
        closest = _closest_object_cell if may_wait(weights) else _closest
        # One shot at a time: all matrices together would not fit where images are large and shots are many.
        shots = zip(columns.unbind(1), weights.unbind(1))
        best = torch.stack([closest(rows, norms, *one) for one in shots], 1)
        if stretch:
            low, high = best.amin(-1, keepdim=True), best.amax(-1, keepdim=True)
            best = (best - low) / (high - low + EPS_PRIOR)
        return best.unflatten(-1, tuple(query.shape[-2:]))


def _closest(rows: Tensor, norms: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """The largest cosine (B, N) of every row (B, C, N), of these norms (B, 1, N), with columns (B, C, n) that are
    multiplied by weights (B, n)."""
    columns = columns.float() * weights[:, None]
    scales = _norms(columns).transpose(1, 2) * norms + EPS_PRIOR
    return (columns.transpose(1, 2) @ rows).div_(scales).amax(1)


def _closest_object_cell(rows: Tensor, norms: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """`_closest`, without what the weights of 0 would multiply."""
    best = torch.zeros_like(norms[:, 0])
    for b, weight in enumerate(weights):
        chosen = weight.nonzero()[:, 0]
        if len(chosen):
            one = slice(b, b + 1)
            best[b] = _closest(rows[one], norms[one], columns[one, :, chosen], weights[one, chosen])[0]
        if len(chosen) < len(weight):
            best[b].clamp_min_(0)  # the cosine of a cell that is masked out
    return best


@full_precision
def strongest(logits: Tensor) -> Tensor:
    """The channel of the largest value at every position, (B, C, H, W) to (B, H, W) long; ties: the lower channel.
    Equal to `argmax(1)`, which on CPUs takes tens of times as long for a few channels."""
    best, winner = logits[:, 0], torch.zeros_like(logits[:, 0], dtype=torch.long)
    for channel in range(1, logits.shape[1]):
        higher = logits[:, channel] > best
        winner.masked_fill_(higher, channel)
        best = torch.where(higher, logits[:, channel], best)
    return winner


def gram_distance(query: Tensor, support: Tensor) -> Tensor:
    """Distance of two scenes: of the cosines between all pairs of channels (BAM, arXiv 2203.07615, section 3.4).

    ψ = ‖G(query) − G(support)‖ / C with G_ab the cosine of channels a and b over the image, and the Frobenius norm.

    Args: query: (B, C, h, w) float. support: (B, K, C, h', w') float.
    Returns: (B, K) float32, from 0 (same texture).
    """
    difference = gram(query)[:, None] - gram(support.flatten(0, 1)).unflatten(0, support.shape[:2])
    return difference.flatten(2).norm(dim=-1) / query.shape[1]


@full_precision
def gram(features: Tensor) -> Tensor:
    """Cosines between all pairs of channels: (B, C, h, w) float to (B, C, C) float32."""
    rows = features.float().flatten(2)
    norms = rows.norm(dim=-1, keepdim=True)
    return rows @ rows.transpose(1, 2) / (norms @ norms.transpose(1, 2) + EPS_PRIOR)
