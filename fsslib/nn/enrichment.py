"""PFENet's feature enrichment: a pyramid that passes information from one scale to the next, then a decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..ops import resize

SCALES = (60, 30, 15, 8)


def conv_relu(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """A convolution without bias that keeps the grid, and its ReLU."""
    return [nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.ReLU()]


def classifier(width: int) -> nn.Sequential:
    """Logits of background and object: 3x3 convolution, ReLU, channel dropout, 1x1 convolution with bias."""
    return nn.Sequential(*conv_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))


class FeatureEnrichment(nn.Module):
    """Feature enrichment module (PFENet, arXiv 2008.01449, section 3.3), with the decoder behind it.

    At every scale the inputs are brought to a grid and merged, the result of the scale before is added, and logits of
    that scale are predicted (they are supervised too).

    Args:
        constant, pooled, resized: channels of the three kinds of input, in the order of the merge: one value for the
            whole image (the prototype), average-pooled maps (features), interpolated maps (prior, attention).
        width: channels inside.
        scales: grid sizes, coarse order as listed: all whole numbers above 1 (cells a side, whatever the image) or all
            fractions up to 1 (of the features' grid).
    Raises:
        ModelError: scales that mix both kinds or are none of them.
    """

    def __init__(self, *, constant: int, pooled: int, resized: int, width: int, scales: Sequence[float] = SCALES):
        super().__init__()
        if not isinstance(scales, Sequence) or isinstance(scales, str):
            raise ModelError(f"scales={scales!r}: expected a list of numbers, e.g. (60, 30, 15, 8).")
        absolute = [s > 1 and float(s).is_integer() for s in scales if isinstance(s, (int, float))]
        good = len(absolute) == len(scales) > 0 and all(s > 0 for s in scales)
        if not good or not (all(absolute) or all(s <= 1 for s in scales)):
            raise ModelError(
                f"scales={tuple(scales)}: expected whole numbers above 1, e.g. (60, 30, 15, 8), or fractions up to 1 "
                "of the feature grid, e.g. (1.0, 0.5, 0.25, 0.125), not both."
            )
        self.scales, self.parts = tuple(scales), (constant, pooled, resized)
        levels = range(len(scales))
        merged = constant + pooled + resized
        self.merge = nn.ModuleList(nn.Sequential(*conv_relu(merged, width, 1)) for _ in levels)
        self.alpha = nn.ModuleList(nn.Sequential(*conv_relu(2 * width, width, 1)) for _ in levels[1:])
        self.beta = nn.ModuleList(
            nn.Sequential(*conv_relu(width, width, 3), *conv_relu(width, width, 3)) for _ in levels
        )
        self.inner = nn.ModuleList(classifier(width) for _ in levels)
        self.res1 = nn.Sequential(*conv_relu(len(scales) * width, width, 1))
        self.res2 = nn.Sequential(*conv_relu(width, width, 3), *conv_relu(width, width, 3))
        self.classifier = classifier(width)

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Grid (rows, columns) of every scale for features of `size`; at least one cell."""
        return [
            (int(s), int(s)) if s > 1 else (max(1, int(size[0] * s)), max(1, int(size[1] * s))) for s in self.scales
        ]

    def forward(self, constant: Tensor | None, pooled: Tensor, resized: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 2, h, w) and the inner logits (B, 2, *grid) of every scale.

        Args:
            constant: (B, constant) float or None. pooled: (B, pooled, h, w) float.
            resized: (B, resized, h', w') float or None.
        """
        size = tuple(pooled.shape[-2:])
        levels: list[Tensor] = []
        inner: list[Tensor] = []
        for i, grid in enumerate(self.grids(size)):
            merged = self._merge(i, grid, constant, pooled, resized)
            if i:
                before = resize(levels[-1], grid)
                merged = self.alpha[i - 1](torch.cat([merged, before], 1)) + merged
            merged = self.beta[i](merged) + merged
            inner.append(self.inner[i](merged))
            # The next scale reads this enlarged version, as the authors' code does.
            levels.append(resize(merged, size))
        fused = self.res1(torch.cat(levels, 1))
        return self.classifier(self.res2(fused) + fused), inner

    def _merge(self, level: int, grid: tuple[int, int], constant, pooled: Tensor, resized) -> Tensor:
        inputs = [F.adaptive_avg_pool2d(pooled, grid)]
        if resized is not None:
            inputs.append(resize(resized, grid).to(inputs[0].dtype))
        conv, relu = self.merge[level]
        if constant is None:
            return relu(conv(torch.cat(inputs, 1)))
        # A constant map through a 1x1 convolution is a bias of the image: no need to spread it over the grid.
        split = self.parts[0]
        bias = F.linear(constant, conv.weight[:, :split, 0, 0])
        return relu(F.conv2d(torch.cat(inputs, 1), conv.weight[:, split:]) + bias[:, :, None, None])
