"""Tensor functions that the papers share. Each fast form has a plain twin in the tests that it must equal."""

from functools import lru_cache, wraps

import torch
import torch.nn.functional as F
from torch import Tensor

EPS_AREA = 1e-5  # PANet adds it to the mask area, so that an empty mask gives the zero vector
EPS_NORM = 1e-8  # torch's cosine similarity clamps each norm here


def full_precision(function):
    """Run `function` outside autocast: cosines and areas lose digits in bfloat16 that the arg-max needs."""

    @wraps(function)
    def wrapped(tensor: Tensor, *args, **kwargs):
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *args, **kwargs)

    return wrapped


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to `size`, PANet's convention (`align_corners=False`).

    PFENet-family methods use `align_corners=True`: they call `F.interpolate` themselves, on purpose.
    """
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=64)
def _resize_matrix(small: int, large: int, device: torch.device) -> Tensor:
    """(large, small) matrix of one-dimensional linear resizing: `large_signal = matrix @ small_signal`."""
    unit = torch.eye(small, device=device)
    return F.interpolate(unit[None], large, mode="linear", align_corners=False)[0].T.contiguous()


def project_mask(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights that pool a small feature map exactly as `masks` pool its bilinear enlargement.

    Upsampling is linear, so sum(upsample(F) * m) equals sum(F * adjoint(m)): instead of enlarging hundreds of feature
    channels to the size of the mask, the one mask is carried down once.

    Args:
        masks: (..., H, W) float.
        size: (h, w) of the feature map.
    Returns: (..., h, w) float; sums to the same total as `masks`.
    """
    rows = _resize_matrix(size[0], masks.shape[-2], masks.device)
    columns = _resize_matrix(size[1], masks.shape[-1], masks.device)
    return rows.T @ masks.to(rows.dtype) @ columns


@full_precision
def masked_average(features: Tensor, masks: Tensor, eps: float = EPS_AREA) -> Tensor:
    """Masked average pooling, late fusion (PANet, ICCV 2019, eq. 1): mean of the enlarged features under each mask.

    Args:
        features: (B, C, h, w) float.
        masks: (B, M, H, W) float weights, M masks per image, at image resolution.
        eps: added to the area.
    Returns: (B, M, C) float32; the zero vector for an empty mask.
    """
    weights = project_mask(masks, tuple(features.shape[-2:]))
    pooled = torch.einsum("bchw,bmhw->bmc", features.float(), weights)
    return pooled / (masks.sum((-2, -1)).float() + eps).unsqueeze(-1)


@full_precision
def cosine_maps(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """Scaled cosine similarity of every position with every prototype (PANet, ICCV 2019, eq. 3).

    Args:
        features: (B, C, h, w) float.
        prototypes: (B, P, C) float.
        scale: softmax temperature α; 20 in the paper.
    Returns: (B, P, h, w) float32 in [-scale, scale]; exactly 0 for a zero prototype.
    """
    features, prototypes = features.float(), prototypes.float()
    feature_norm = features.norm(dim=1, keepdim=True).clamp_min(EPS_NORM)
    prototypes = prototypes / prototypes.norm(dim=-1, keepdim=True).clamp_min(EPS_NORM)
    return scale * torch.einsum("bpc,bchw->bphw", prototypes, features / feature_norm)
