"""ResNets with output stride 8, as few-shot segmentation uses them."""

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...arguments import check_count, choose
from ...errors import ModelError
from ...ops import Box
from ..convolution import Conv2d
from .base import Backbone, Layers, conv_norm, folded

Convs = list[tuple[int, int, int, int]]  # kernel, channels, stride, dilation


class _Block(nn.Module):
    """A residual block with torchvision's names: `convN`, `bnN` for every convolution."""

    def __init__(self, inputs: int, convs: Convs, downsample: nn.Module | None = None):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.depth = len(convs)
        for i, (kernel, outputs, stride, dilation) in enumerate(convs, start=1):
            conv = Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        result = features
        for i in range(1, self.depth + 1):
            result = conv_norm(getattr(self, f"conv{i}"), getattr(self, f"bn{i}"), result)
            if i < self.depth:
                result = self.relu(result)
        result += features if self.downsample is None else self.downsample(features)
        return self.relu(result)

    @property
    def reach(self) -> int:
        """How many cells away an output sees."""
        return sum(getattr(self, f"conv{i}").padding[0] for i in range(1, self.depth + 1))

    def within(self, features: Tensor, shown: Box, wanted: Box, size: Sequence[int]) -> Tensor:
        """`forward` of features that show one box of a grid (h, w), in another that lies `reach` cells inside it or at
        the grid's borders: no convolution computes a cell that the wanted ones do not see. Without strides."""
        result, covered, left = features, shown, self.reach
        for i in range(1, self.depth + 1):
            conv = getattr(self, f"conv{i}")
            step = conv.padding[0]
            needed, left = wanted.grown(left, size), left - step
            result, covered = needed.cut(result, covered), wanted.grown(left, size)
            # Zeros only where the grid ends.
            missing = [step - abs(inner - outer) for inner, outer in zip(covered, needed)]
            result = F.pad(result, missing[2:] + missing[:2]) if any(missing) else result
            run = partial(F.conv2d, dilation=conv.dilation) if step else conv._conv_forward
            result = run(result, *folded(conv, getattr(self, f"bn{i}")))
            if i < self.depth:
                result = self.relu(result)
        features = wanted.cut(features, shown)
        result += features if self.downsample is None else self.downsample(features)
        return self.relu(result)


def _basic(planes: int, stride: int, dilation: int) -> Convs:
    """Two 3x3 convolutions (ResNet-18); the first strides."""
    return [(3, planes, stride, dilation), (3, planes, 1, dilation)]


def _bottleneck(planes: int, stride: int, dilation: int) -> Convs:
    """1x1, 3x3 and 1x1 convolutions (ResNet-50 and -101); the 3x3 strides."""
    return [(1, planes, 1, 1), (3, planes, stride, dilation), (1, 4 * planes, 1, 1)]


_DEPTHS = {18: (_basic, 1, (2, 2, 2, 2)), 50: (_bottleneck, 4, (3, 4, 6, 3)), 101: (_bottleneck, 4, (3, 4, 23, 3))}
# Inputs, outputs, kernel and stride of the convolutions in front of the pool.
_STEMS = {"classic": ((3, 64, 7, 2),), "deep": ((3, 64, 3, 2), (64, 64, 3, 1), (64, 128, 3, 1))}
# Deep-stem files number the stem's layers conv1 bn1 conv2 bn2 conv3 bn3; a classic stem has the first pair only.
_STEM_INDEX = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


def residual_stage(
    block: Callable[[int, int, int], Convs], inputs: int, planes: int, blocks: int, *, stride: int, dilation: int = 1
) -> nn.Sequential:
    """`blocks` residual blocks; only the first strides, every 3x3 convolution is dilated (the first block's too)."""
    first, others = block(planes, stride, dilation), block(planes, 1, dilation)
    outputs = first[-1][1]
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = Layers(Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    more = (_Block(outputs, others) for _ in range(blocks - 1))
    return nn.Sequential(_Block(inputs, first, shortcut), *more)


def _conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class DilatedResNet(Backbone):
    """ResNet-18, -50 or -101 with strides 4, 4, 8, 8, 8: dilation 2 in layer3 and 4 in layer4 replace their strides.

    The dilation is uniform (first block included), as in PFENet and the methods built on it; torchvision's
    `replace_stride_with_dilation` leaves each first block at the smaller dilation and computes something else.
    State-dict names are those of SD-AANet's, ASGNet's and HDMNet's published checkpoints (`layer0.0.weight`, …).

    Args:
        depth: 18, 50 or 101.
        stem: `"classic"` = 7x7, 64 channels (He et al. 2016, arXiv 1512.03385; SD-AANet); `"deep"` = three 3x3,
            64-64-128 channels (PSPNet, arXiv 1612.01105; PFENet, ASGNet, HDMNet).
        stride_on: which convolution of layer2's first bottleneck strides: `"3x3"` (torchvision and all four methods)
            or `"1x1"` (first-generation ResNets, Caffe weights). The tensors of both have the same names and shapes,
            so a weight file cannot tell: if its source says the stride sits in the 1x1, this option must say so too,
            or the features are silently wrong.
        bn, last: see `build_backbone`.
    Raises ModelError: unknown stem, stage or mode, or `stride_on="1x1"` for ResNet-18, which has no 1x1 to stride on.
    """

    def __init__(
        self, depth: int, *, stem: str = "classic", bn: str = "frozen", last: str | None = None, stride_on: str = "3x3"
    ):
        choose(stem, tuple(_STEMS), "stem=")
        choose(stride_on, ("3x3", "1x1"), "stride_on=")
        block, expansion, blocks = _DEPTHS[depth]
        if stride_on == "1x1" and block is _basic:
            raise ModelError("stride_on='1x1' needs bottleneck blocks; resnet18 has none: leave it out.")
        channels = (_STEMS[stem][-1][1], *(planes * expansion for planes in (64, 128, 256, 512)))
        super().__init__(f"resnet{depth}", channels, (4, 4, 8, 8, 8), last)
        self.stem, self.stride_on = stem, stride_on
        layers = [layer for conv in _STEMS[stem] for layer in _conv_norm_relu(*conv)]
        self.layer0 = Layers(*layers, nn.MaxPool2d(3, stride=2, padding=1))
        for i, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
            if f"layer{i}" in self.channels:
                of = block, channels[i - 1], channels[i] // expansion, blocks[i - 1]
                self.add_module(f"layer{i}", residual_stage(*of, stride=stride, dilation=dilation))
        if stride_on == "1x1" and "layer2" in self.channels:
            first = self.layer2[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
        self._finish(bn)

    def deeper(self, features: Tensor, stage: str, box: Box | None = None) -> Tensor:
        blocks, size = getattr(self, stage), features.shape[-2:]
        strides = any(conv.stride != (1, 1) for conv in blocks.modules() if isinstance(conv, nn.Conv2d))
        if box is None or strides:
            return super().deeper(features, stage, box)
        features = features.contiguous(memory_format=self.layout(learns=False))
        left, shown = sum(block.reach for block in blocks), Box(0, size[0], 0, size[1])
        for block in blocks:
            left -= block.reach
            wanted = box.grown(left, size)
            features, shown = block.within(features, shown, wanted, size), wanted
        return features

    def rename(self, key: str) -> str:
        found = re.fullmatch(r"(conv[123]|bn[123])\.(\w+)", key)
        return f"layer0.{_STEM_INDEX[found[1]]}.{found[2]}" if found else key


# A ResNet small enough to learn Shapes-5i within minutes on one CPU core.


class TinyResNet(Backbone):
    """A 5x5 stride-2 stem and four basic blocks of widths w, 2w, 4w, 4w; w = 16 has 152,144 parameters.

    | stage | content | channels | stride (stride=4) | stride (stride=8) |
    |---|---|---|---|---|
    | layer0 | conv 5x5/2, BN, ReLU | w | 2 | 2 |
    | layer1 | basic block | w | 2 | 2 |
    | layer2 | basic block, strides | 2w | 4 | 4 |
    | layer3 | basic block (strides if stride=8) | 4w | 4 | 8 |
    | layer4 | basic block | 4w | 4 | 8 |

    A 97-pixel image gives 25x25 cells at stride 4 (layer2 to layer4 share this grid, as in the ResNets) and 13x13 at
    stride 8 (layer2 then has 25x25, as a method for VGG-16-BN has to expect anyway).

    Args:
        stride: output stride, 4 or 8; 8 trains twice as fast, 4 draws finer outlines.
        width: w, a positive whole number. bn, last: see `build_backbone`.
    Raises ModelError: another stride, width, stage or mode.
    """

    learns_in = counts_in = torch.channels_last

    def __init__(self, *, stride: int = 4, width: int = 16, bn: str = "frozen", last: str | None = None):
        if stride not in (4, 8):
            raise ModelError(f"tiny: stride={stride!r}: expected the output stride 4 or 8.")
        check_count(width, "tiny: width")
        channels = (width, width, 2 * width, 4 * width, 4 * width)
        super().__init__("tiny", channels, (2, 2, 4, stride, stride), last)
        self.layer0 = Layers(*_conv_norm_relu(3, width, 5, 2))
        for i, step in enumerate((1, 2, stride // 4, 1), start=1):
            if f"layer{i}" in self.channels:
                self.add_module(f"layer{i}", residual_stage(_basic, channels[i - 1], channels[i], 1, stride=step))
        self._finish(bn)
