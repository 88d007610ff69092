"""Convolutions of one cell by the faster of the two ways that torch has on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"


def pointwise(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d(features, weight, bias)` of a 1x1 kernel.

    With one thread torch leaves these to MKL, which on processors of other makers uses half of their vectors: 97
    against oneDNN's 190 GFLOP/s (channels_last 226) on an AMD EPYC with AVX-512, 256 and 1,024 channels on 41x41 cells,
    and 87 against 157 with the gradients. A dilation, which means nothing to a single cell, makes torch choose oneDNN,
    forward and backward. With AVX2 or few channels MKL is as fast, and spares a copy.
    """
    outputs, inputs = weight.shape[:2]
    wide = AVX512 and features.device.type == "cpu" and min(outputs, inputs) >= 64 and outputs * inputs >= 2**14
    return F.conv2d(features, weight, bias, dilation=2 if wide else 1)


class Conv2d(nn.Conv2d):
    """torch's layer, whose 1x1 kernels go through `pointwise`."""

    def _conv_forward(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size == self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding == (0, 0):
            return pointwise(features, weight, bias)
        return super()._conv_forward(features, weight, bias)
