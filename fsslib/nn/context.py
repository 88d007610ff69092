"""What gives features their context, in the order of age: PSPNet's pyramid pooling (arXiv 1612.01105; in SAAM and
HDMNet's base learner), DeepLabv3's atrous pooling (arXiv 1706.05587; in ASGNet's second decoder) and PFENet's feature
enrichment (arXiv 2008.01449; in SD-AANet and ASGNet)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..ops import conv_in_boxes, full_precision, resize
from .convolution import Conv2d, pointwise

BINS, RATES, SCALES = (1, 2, 3, 6), (6, 12, 18), (60, 30, 15, 8)

# Blocks that several of the modules are made of.


def conv_relu(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """A convolution without bias that keeps the grid, and its ReLU."""
    return [Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.ReLU(inplace=True)]


def conv_norm(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """A convolution without bias that keeps the grid, and its batch norm."""
    return [Conv2d(inputs, outputs, size, padding=size // 2, bias=False), BatchNorm2d(outputs)]


def _two_convs(width: int) -> nn.Sequential:
    return nn.Sequential(*conv_relu(width, width, 3), *conv_relu(width, width, 3))


def classifier(width: int) -> nn.Sequential:
    """Logits of background and object: 3x3 convolution, ReLU, channel dropout, 1x1 convolution with bias."""
    return nn.Sequential(*conv_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, 2, 1))


def beside_constant(conv: nn.Conv2d, constant: Tensor, features: Sequence[Tensor]) -> Tensor:
    """`conv(torch.cat([constant, *features], 1))` of a 1x1 convolution, with `constant` (B, C) the same everywhere: a
    bias of the image, which need not be spread over the grid (h, w) of the features (B, Cᵢ, h, w)."""
    first, rest = conv.weight.tensor_split([constant.shape[1]], 1)
    bias = F.linear(constant, first[:, :, 0, 0], conv.bias)
    return pointwise(torch.cat(features, 1), rest).add_(bias[:, :, None, None])


def _spreading(small: int, large: int, device: torch.device) -> Tensor:
    """(large, 3·small) matrix: what tap t of a 3-cell kernel, padded with zeros, has of small cell a at each position
    once the cells are resized to `large`; column 3a + t. One dimension of `convolved_together`."""
    unit = torch.eye(small, device=device)
    cells = F.interpolate(unit[None], large, mode="linear", align_corners=True)[0].T
    padded = F.pad(cells, (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + large] for tap in range(3)], -1).flatten(1)


def convolved_together(
    conv: nn.Conv2d, features: Tensor, small: Sequence[Tensor], wanted: Tensor | None = None
) -> Tensor:
    """`conv(torch.cat([features, *(resize(maps, size) for maps in small)], 1))` without enlarging the small maps.

    Both steps are linear: the nine taps of the kernel meet the few small cells first, and two matrices spread what
    they say over the grid, with the zeros that the padding brings at its borders. A prototype is a map of one cell.

    Args: conv: 3x3 with padding 1. features: (B, C, h, w) float. small: maps (B, Cᵢ, rows, columns) float. wanted:
        (B, h, w) bool, where the result is needed, see `conv_in_boxes`; None: everywhere.
    Returns: (B, conv.out_channels, h, w), in the dtype of the convolution; anything where it is not wanted.
    """
    height, width = features.shape[-2:]
    own, *others = conv.weight.split([maps.shape[1] for maps in (features, *small)], 1)
    # At a stride of 3 nothing overlaps: tap (i, j) of cell (a, b) is element (3a + i, 3b + j).
    taps = [F.conv_transpose2d(maps, weight.transpose(0, 1), stride=3) for maps, weight in zip(small, others)]
    if wanted is None:
        result = F.conv2d(features, own, conv.bias, padding=1)
    else:
        result = conv_in_boxes(features, own, conv.bias, wanted)
    with torch.autocast(features.device.type, enabled=False):
        taps = [tap.to(torch.promote_types(tap.dtype, torch.float32)) for tap in taps]
        rows, columns = (
            [_spreading(tap.shape[side] // 3, length, tap.device).to(tap.dtype) for tap in taps]
            for side, length in ((-2, height), (-1, width))
        )
        across = torch.cat([tap @ column.T for tap, column in zip(taps, columns)], -2)
        return result.add_((torch.cat(rows, 1) @ across).to(result.dtype))


def _averaging(large: int, small: int, device: torch.device) -> Tensor:
    """(large, small) matrix of adaptive average pooling in one dimension."""
    return F.adaptive_avg_pool1d(torch.eye(large, device=device)[None], small)[0]


@full_precision
def averaged(maps: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
    """`F.adaptive_avg_pool2d(maps, grid)` of (B, C, h, w) float for every grid; on CPUs by matrices, columns first, two
    to three times as fast with the gradient."""
    if maps.device.type != "cpu" or maps.dtype != torch.float32:
        return [F.adaptive_avg_pool2d(maps, grid) for grid in grids]
    height, width = maps.shape[-2:]
    columns = maps @ torch.cat([_averaging(width, grid[1], maps.device) for grid in grids], 1)
    parts = columns.split([grid[1] for grid in grids], -1)
    return [_averaging(height, grid[0], maps.device).T @ part for grid, part in zip(grids, parts)]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a batch holds one value per channel.
    torch refuses to train on such a batch (one image pooled to 1x1), since its variance is not defined."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) normalised; with B = h = w = 1 in training by the running statistics, which then stay."""
        if self.training and features.numel() == features.shape[1]:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(features, *statistics, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(features)


# PSPNet: the image's context at several grid sizes.


class PyramidPooling(nn.Module):
    """PSPNet's pooling module (section 3.2): context of the image at several grid sizes.

    For every bin: adaptive average pooling, 1x1 convolution to `width` channels, batch norm, ReLU, resized back;
    concatenated behind the input.
    """

    def __init__(self, inputs: int, width: int, bins: Sequence[int] = BINS):
        super().__init__()
        branches = ([nn.AdaptiveAvgPool2d(size), *conv_norm(inputs, width, 1), nn.ReLU()] for size in bins)
        self.stages = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def maps(self, features: Tensor) -> list[Tensor]:
        """The branches before they are resized: (B, width, bin, bin) of every bin, of features (B, inputs, h, w)."""
        bins = [(stage[0].output_size,) * 2 for stage in self.stages]
        maps = averaged(features, bins)
        for position in (1, 2, 3):  # convolution, norm, ReLU
            maps = [stage[position](one) for stage, one in zip(self.stages, maps)]
        return maps

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, inputs + len(bins)·width, h, w). What a 3x3 convolution reads next need not be
        enlarged: see `convolved_together`."""
        size = tuple(features.shape[-2:])
        return torch.cat([features, *(resize(maps, size) for maps in self.maps(features))], 1)


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
        self.level5 = nn.Sequential(*conv_norm(joined, width, 3))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def features(self, deepest: Tensor, wanted: Tensor | None = None) -> Tensor:
        """(B, inputs, h, w) to (B, width, h, w), before the ReLU: may be negative; right at least where `wanted`
        (B, h, w) bool says, None everywhere."""
        conv, norm = self.level5
        return norm(convolved_together(conv, deepest, self.pooling.maps(deepest), wanted))

    def forward(self, deepest: Tensor) -> Tensor:
        """(B, inputs, h, w) to logits (B, classes, h, w)."""
        return self.classifier(self.features(deepest))


# DeepLabv3, and ASGNet's second context module around it: residual blocks before, a decoder with skip features behind.


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling without batch norm.

    Branches: the image's mean, a 1x1 convolution, and 3x3 convolutions of the dilations `rates`. `dropout`: channel
    dropout behind every convolution.
    """

    def __init__(self, width: int, dropout: float = 0.5, rates: tuple[int, ...] = RATES):
        super().__init__()

        def branch(inputs: int, size: int = 1, rate: int = 1) -> nn.Sequential:
            conv = Conv2d(inputs, width, size, padding=rate * (size // 2), dilation=rate)
            return nn.Sequential(conv, nn.ReLU(), nn.Dropout2d(dropout))

        dilated = (branch(width, 3, rate) for rate in rates)
        self.branches = nn.ModuleList([branch(width), branch(width), *dilated])
        self.fuse = branch(width * len(self.branches))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, h, w) float to the same shape."""
        image, *local = self.branches
        whole = image(F.adaptive_avg_pool2d(features, 1)).flatten(1)
        conv, relu, dropout = self.fuse
        return dropout(relu(beside_constant(conv, whole, [branch(features) for branch in local])))


class ASPPContext(nn.Module):
    """The context module of ASGNet's `pyramid=False`: merge, three residual blocks, ASPP, decoder, two classifiers.

    Args:
        inputs: channels of the query features with everything allocated to them.
        shallow: channels of the shallow stage that sharpens the outline. width: channels inside.
        dropout: of the merged features, the ASPP's branches and the decoder.
    """

    def __init__(self, *, inputs: int, shallow: int, width: int, dropout: float = 0.5):
        super().__init__()
        self.merge = nn.Sequential(*conv_relu(inputs, width, 3), nn.Dropout2d(dropout))
        # Two convolutions each; a ReLU in front that the identity path passes, too, and none behind.
        self.blocks = nn.ModuleList(_two_convs(width)[:-1] for _ in range(3))
        self.aspp = ASPP(width, dropout)
        skip = max(1, width // 4)
        self.skip = nn.Sequential(*conv_norm(shallow, skip, 1), nn.ReLU())
        self.decode = nn.Sequential(*conv_norm(skip + width, width, 3), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = classifier(width)
        self.auxiliary = classifier(width)

    def forward(self, features: Tensor, shallow: Tensor, *, inner: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 2, h', w') on the shallow grid, and the auxiliary ones (B, 2, h, w) as a list of one.

        Args: features: (B, inputs, h, w) float. shallow: (B, shallow, h', w') float. inner: whether the auxiliary
            logits are wanted.
        """
        context = self.merge(features)
        for block in self.blocks:
            rectified = context.relu()
            context = rectified + block(rectified)
        context = self.aspp(context)
        outline = self.skip(shallow)
        both = torch.cat([resize(context, tuple(outline.shape[-2:])), outline], 1)
        return self.classifier(self.decode(both)), [self.auxiliary(context)] if inner else []


# PFENet: a pyramid that passes information from one scale to the next, then a decoder.


class FeatureEnrichment(nn.Module):
    """Feature enrichment module (section 3.3), with the decoder behind it.

    At every scale the inputs are brought to a grid and merged, the result of the scale before is added, and logits of
    that scale are predicted (they are supervised too).

    Args:
        constant, pooled, resized: channels of the three kinds of input, in the order of the merge: one value for the
            whole image (the prototype), average-pooled maps (features), interpolated maps (prior, attention).
        width: channels inside.
        scales: grid sizes, coarse order as listed: all whole numbers above 1 (cells a side, whatever the image) or all
            fractions up to 1 (of the features' grid).
    Raises ModelError: scales that mix both kinds or are none of them.
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
        self.scales = tuple(scales)
        levels = range(len(scales))
        merged = constant + pooled + resized
        self.merge = nn.ModuleList(nn.Sequential(*conv_relu(merged, width, 1)) for _ in levels)
        self.alpha = nn.ModuleList(nn.Sequential(*conv_relu(2 * width, width, 1)) for _ in levels[1:])
        self.beta = nn.ModuleList(_two_convs(width) for _ in levels)
        self.inner = nn.ModuleList(classifier(width) for _ in levels)
        self.res1 = nn.Sequential(*conv_relu(len(scales) * width, width, 1))
        self.res2 = _two_convs(width)
        self.classifier = classifier(width)

    def grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Grid (rows, columns) of every scale for features of `size`; at least one cell."""
        return [
            (int(s), int(s)) if s > 1 else (max(1, int(size[0] * s)), max(1, int(size[1] * s))) for s in self.scales
        ]

    def forward(
        self, constant: Tensor | None, pooled: Tensor, resized: Tensor | None, *, inner: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 2, h, w) and the inner logits (B, 2, *grid) of every scale.

        Args:
            constant: (B, constant) float or None. pooled: (B, pooled, h, w) float.
            resized: (B, resized, h', w') float or None.
            inner: whether the inner logits are wanted; a quarter of the work, of which the others do not depend.
        """
        size = tuple(pooled.shape[-2:])
        levels, predicted = [], []
        for i, grid in enumerate(self.grids(size)):
            merged = self._merge(i, grid, constant, pooled, resized)
            if i:
                merged = self.alpha[i - 1](torch.cat([merged, resize(levels[-1], grid)], 1)) + merged
            merged = self.beta[i](merged) + merged
            if inner:
                predicted.append(self.inner[i](merged))
            # The next scale reads this enlarged version, as the authors' code does.
            levels.append(resize(merged, size))
        fused = self.res1(torch.cat(levels, 1))
        return self.classifier(self.res2(fused) + fused), predicted

    def _merge(self, level: int, grid: tuple[int, int], constant, pooled: Tensor, resized) -> Tensor:
        inputs = averaged(pooled, [grid])
        if resized is not None:
            inputs.append(resize(resized, grid).to(inputs[0].dtype))
        conv, relu = self.merge[level]
        return relu(conv(torch.cat(inputs, 1)) if constant is None else beside_constant(conv, constant, inputs))
