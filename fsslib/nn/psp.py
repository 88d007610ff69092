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


class PSPHead(nn.Module):
    """PSPNet's head in the two parts that HDMNet uses: a feature of context, and the classes.

    Args:
        inputs: channels of the backbone's deepest stage. width: channels of the feature (512 in the paper).
        classes: of the output, background included.
    """

    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        branch = max(1, inputs // len(BINS))
        self.pooling = PyramidPooling(inputs, branch)
        joined = inputs + len(BINS) * branch
        self.level5 = nn.Sequential(nn.Conv2d(joined, width, 3, padding=1, bias=False), BatchNorm2d(width))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def features(self, deepest: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, width, h, w), before the ReLU: may be negative."""
        return self.level5(self.pooling(deepest))

    def forward(self, deepest: Tensor) -> Tensor:
        """(B, inputs, h, w) to logits (B, classes, h, w)."""
        return self.classifier(self.features(deepest))
