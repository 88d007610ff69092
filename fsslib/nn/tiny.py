"""A ResNet small enough to learn Shapes-5i within minutes on one CPU core."""

from torch import nn

from ..errors import ModelError
from .backbones import Backbone
from .resnet import BasicBlock, init_residual, residual_stage


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
        width: w, a positive whole number.
        bn, last: see `build_backbone`.
    Raises:
        ModelError: another stride, width, stage or mode.
    """

    def __init__(self, *, stride: int = 4, width: int = 16, bn: str = "frozen", last: str | None = None):
        if stride not in (4, 8):
            raise ModelError(f"tiny: stride={stride!r}: expected the output stride 4 or 8.")
        if not isinstance(width, int) or width < 1:
            raise ModelError(f"tiny: width={width!r}: expected a whole number from 1.")
        channels = (width, width, 2 * width, 4 * width, 4 * width)
        super().__init__("tiny", channels, (2, 2, 4, stride, stride), last)
        conv = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.layer0 = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        for i, step in enumerate((1, 2, stride // 4, 1), start=1):
            if f"layer{i}" in self.channels:
                self.add_module(f"layer{i}", residual_stage(BasicBlock, channels[i - 1], channels[i], 1, stride=step))
        init_residual(self)
        self.set_bn(bn)
