"""Pyramid pooling (PSPNet) and a batch norm that survives a single value per channel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops import resize

BINS = (1, 2, 3, 6)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a batch holds one value per channel.

    torch refuses to train on such a batch (one image pooled to 1x1), since its variance is not defined.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) normalised; with B = h = w = 1 in training by the running statistics, which then stay."""
        if self.training and features.numel() == features.shape[1]:
            return nn.functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(features)


class PyramidPooling(nn.Module):
    """PSPNet's pooling module (arXiv 1612.01105, section 3.2): context of the image at several grid sizes.

    For every bin: adaptive average pooling, 1x1 convolution, batch norm, ReLU, resized back; concatenated behind the
    input. (B, inputs, h, w) -> (B, inputs + len(bins)·width, h, w).

    Args:
        inputs: channels of the input. width: channels of each branch. bins: sizes of the pooled grids.
    """

    def __init__(self, inputs: int, width: int, bins: Sequence[int] = BINS):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size), nn.Conv2d(inputs, width, 1, bias=False), BatchNorm2d(width), nn.ReLU()
            )
            for size in bins
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, inputs + len(bins)·width, h, w)."""
        size = tuple(features.shape[-2:])
        return torch.cat([features, *(resize(stage(features), size) for stage in self.stages)], 1)
