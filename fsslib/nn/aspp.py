"""ASGNet's second context module: residual blocks, atrous spatial pyramid pooling and a decoder with skip features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import resize
from .enrichment import classifier, conv_relu

RATES = (6, 12, 18)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabv3, arXiv 1706.05587) without batch norm.

    Branches: the image's mean, a 1x1 convolution, and 3x3 convolutions of the given dilations. (B, C, h, w) to the
    same shape, C = `width`. `dropout`: channel dropout behind every convolution.
    """

    def __init__(self, width: int, dropout: float = 0.5, rates: tuple[int, ...] = RATES):
        super().__init__()

        def branch(inputs: int, size: int = 1, rate: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(inputs, width, size, padding=rate * (size // 2), dilation=rate)
            return nn.Sequential(conv, nn.ReLU(), nn.Dropout2d(dropout))

        dilated = (branch(width, 3, rate) for rate in rates)
        self.branches = nn.ModuleList([branch(width), branch(width), *dilated])
        self.fuse = branch(width * len(self.branches))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float to the same shape."""
        image, *local = self.branches
        whole = image(F.adaptive_avg_pool2d(features, 1)).expand_as(features)
        return self.fuse(torch.cat([whole, *(branch(features) for branch in local)], 1))


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
        self.blocks = nn.ModuleList(
            nn.Sequential(*conv_relu(width, width, 3), nn.Conv2d(width, width, 3, padding=1, bias=False))
            for _ in range(3)
        )
        self.aspp = ASPP(width, dropout)
        skip = max(1, width // 4)
        self.skip = nn.Sequential(nn.Conv2d(shallow, skip, 1, bias=False), nn.BatchNorm2d(skip), nn.ReLU())
        joined = nn.Conv2d(skip + width, width, 3, padding=1, bias=False)
        self.decode = nn.Sequential(joined, nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = classifier(width)
        self.auxiliary = classifier(width)

    def forward(self, features: Tensor, shallow: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 2, h', w') on the shallow grid, and the auxiliary ones (B, 2, h, w) as a list of one.

        Args:
            features: (B, inputs, h, w) float. shallow: (B, shallow, h', w') float.
        """
        context = self.merge(features)
        for block in self.blocks:
            rectified = context.relu()
            context = rectified + block(rectified)
        context = self.aspp(context)
        outline = self.skip(shallow)
        both = torch.cat([resize(context, tuple(outline.shape[-2:])), outline], 1)
        return self.classifier(self.decode(both)), [self.auxiliary(context)]
