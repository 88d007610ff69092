"""The two VGG-16 variants of the papers (VGG: Simonyan and Zisserman 2015, arXiv 1409.1556)."""

import re

from torch import nn

from ...arguments import choose
from .base import STAGES, Backbone, Layers

_WIDTHS = (64, 128, 256, 512, 512)
_CONVS = (2, 2, 3, 3, 3)


class PANetVGG16(Backbone):
    """PANet's encoder (Wang et al., ICCV 2019, arXiv 1908.06391): 13 convolutions with bias, 14,714,688 parameters.

    Against the usual VGG-16: pools are 3x3 with padding 1, the fourth pool has stride 1, there is no fifth, the last
    three convolutions are dilated by 2, and no ReLU follows the last one (so features can be negative). No batch norm.

    `features` holds blocks and pools in the authors' order, so that names read `features.{0,2}.{0,2}.weight`,
    `features.{4,6,8}.{0,2,4}.weight`; stage i is the view of block 2i and the pool after it (layer4 has no pool).
    Strides 2, 4, 8, 8, 8; a 97-pixel image ends in 13x13 cells.

    Args:
        pool: `"3x3"` as published, or `"2x2"` for the three striding pools as in torchvision, rounded up so that the
            grid stays the same (the fourth pool stays 3x3: a 2x2 pool of stride 1 would shift the grid by half a cell).
        bn: accepted for uniformity; there is no batch norm. last: see `build_backbone`.
    Raises ModelError: another pool, stage or mode.
    """

    def __init__(self, *, pool: str = "3x3", bn: str = "frozen", last: str | None = None):
        choose(pool, ("3x3", "2x2"), "pool=")
        super().__init__("vgg16", _WIDTHS, (2, 4, 8, 8, 8), last)
        layers: list[nn.Module] = []
        inputs = 3
        for i, outputs in enumerate(self.channels.values()):
            block = _convs(inputs, outputs, _CONVS[i], reach=2 if i == 4 else 1)
            layers.append(nn.Sequential(*(block[:-1] if i == 4 else block)))
            if i < 3 and pool == "2x2":
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            elif i < 4:
                layers.append(nn.MaxPool2d(3, stride=2 if i < 3 else 1, padding=1))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self._finish(bn, fan="fan_in")

    def _stage(self, index: int) -> nn.Sequential:
        if STAGES[index] not in self.channels:
            raise AttributeError(STAGES[index])
        return self.features[2 * index : 2 * index + 2]

    layer0, layer1, layer2, layer3, layer4 = (property(lambda self, i=i: self._stage(i)) for i in range(5))

    def rename(self, key: str) -> str:
        return _from_torchvision(key, batch_norm=False)

    def stage_of(self, key: str) -> str:
        found = re.match(r"features\.(\d+)\.", key)
        return f"layer{int(found[1]) // 2}" if found else super().stage_of(key)


class VGG16BN(Backbone):
    """torchvision's VGG-16 with batch norm as SD-AANet and HDMNet split it: a pool ends each of layer0 to layer3.

    Pools are 2x2, stride 2, rounded up; layer4 has none. Strides 2, 4, 8, 16, 16 (97 pixels: 49, 25, 13, 7, 7 cells).
    Names restart inside each stage (`layer0.0.weight`, …), as in the published checkpoints.

    Args: bn, last: see `build_backbone`.
    Raises ModelError: another stage or mode.
    """

    def __init__(self, *, bn: str = "frozen", last: str | None = None):
        super().__init__("vgg16_bn", _WIDTHS, (2, 4, 8, 16, 16), last)
        inputs = 3
        for i, (stage, outputs) in enumerate(self.channels.items()):
            layers = _convs(inputs, outputs, _CONVS[i], norm=True)
            if i < 4:
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            self.add_module(stage, Layers(*layers))
            inputs = outputs
        self._finish(bn)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)

    def rename(self, key: str) -> str:
        return _from_torchvision(key, batch_norm=True)


def _convs(inputs: int, outputs: int, count: int, *, reach: int = 1, norm: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(count):
        layers.append(nn.Conv2d(outputs if i else inputs, outputs, 3, padding=reach, dilation=reach))
        layers += [nn.BatchNorm2d(outputs)] * norm + [nn.ReLU(inplace=True)]
    return layers


def _from_torchvision(key: str, batch_norm: bool) -> str:
    """`features.N.x` of torchvision's flat VGG-16 in our names; any other name comes back as it is."""
    flat = re.fullmatch(r"features\.(\d+)\.(\w+)", key)
    index = int(flat[1]) if flat else -1
    for i, convs in enumerate(_CONVS):
        length = convs * (3 if batch_norm else 2)
        if 0 <= index < length:
            return f"{f'layer{i}' if batch_norm else f'features.{2 * i}'}.{index}.{flat[2]}"
        index -= length + 1  # and the pool
    return key
