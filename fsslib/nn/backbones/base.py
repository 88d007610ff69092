"""What every backbone is: five stages, features on a stride-8 grid, batch norm as asked for.

First how its convolutions are run at the speed of the machine, then the backbone.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...arguments import choose
from ...errors import ModelError
from ...ops import Box
from ..convolution import AVX512

Features = dict[str, Tensor]
STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")
BN_MODES = ("frozen", "batch")
LITE, TIMM = "efficientnet_lite0", "timm/"  # names of backbones that need timm, and how all others of it begin
WORDS = ("imagenet", "packaged", "pretrained")  # what `weights` may be besides files and state dicts
PIXELS = 2**18  # of the images of one call on a CPU: what lies between two layers then stays in the cache


class Layers(nn.Sequential):
    """Layers in a row; a convolution and the batch norm behind it run as one."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float through all layers."""
        layers = list(self)
        for i, layer in enumerate(layers):
            if isinstance(layer, _BatchNorm):
                features = conv_norm(layers[i - 1], layer, features)
            elif i + 1 == len(layers) or not isinstance(layers[i + 1], _BatchNorm):
                features = layer(features)
        return features


def conv_norm(conv: nn.Conv2d, norm: nn.Module, features: Tensor) -> Tensor:
    """`norm(conv(features))`; on a CPU, where no gradient is wanted and the statistics are fixed, as one convolution
    with the norm folded into its weights (1.06 times as fast; folding anew each time costs a fiftieth of that)."""
    learned = (features, conv.weight, norm.weight)
    learns = torch.is_grad_enabled() and any(part.requires_grad for part in learned)
    if features.device.type != "cpu" or norm.training or learns:
        return norm(conv(features))
    return conv._conv_forward(features, *folded(conv, norm))


def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what `conv` and the running statistics of `norm` do together."""
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * factor[:, None, None, None], norm.bias - shift * factor


class Backbone(nn.Module):
    """A chain of stages; subclasses add the stage modules named in `channels` and end with `self._finish(bn)`.

    Attributes:
        name: the name `build_backbone` knows it by.
        channels: stage name -> number of channels, shallow to deep; only stages that exist.
        strides: stage name -> image pixels per feature cell. A stride-s stage of an (8k+1)-pixel image has
            ceil(size / s) cells.
        bn: `"frozen"` (batch norm always uses running statistics) or `"batch"` (batch norm follows `.train()`).
        learns_in: memory layout in which a CPU trains it, and what stands behind it, fastest, see `layout`.
        counts_in: the same where batch norms look at the batch: in channels_last torch sums up less exactly.
        chained: whether a stage runs on (masked) features of the one before; where not, mask behind the deepest stage.
        weights: what `build_backbone` was told of them: None (random), a word such as `"packaged"`, or `"a file"`.
    """

    chained: bool = True
    weights: str | None = None
    learns_in: torch.memory_format = torch.channels_last if AVX512 else torch.contiguous_format
    counts_in: torch.memory_format = torch.contiguous_format

    def __init__(
        self, name: str, channels: Sequence[int], strides: Sequence[int], last: str | None,
        stages: Sequence[str] = STAGES,
    ):  # fmt: skip
        super().__init__()
        choose(last or stages[-1], stages, "stage last=")
        kept = stages[: stages.index(last or stages[-1]) + 1]
        self.name = name
        self.channels: dict[str, int] = dict(zip(kept, channels))
        self.strides: dict[str, int] = dict(zip(kept, strides))
        self.bn = "frozen"

    def _finish(self, bn: str, fan: str = "fan_out") -> None:
        """torchvision's initialisation (Kaiming-normal convolutions), and the batch-norm mode."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
        self.set_bn(bn)

    @property
    def deepest(self) -> str:
        """Name of the deepest stage that exists."""
        return next(reversed(self.channels))

    @property
    def about(self) -> str:
        """What a protocol says of the backbone: licence of the weights, and what they have seen. Our own: nothing."""
        return ""

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        """Features of the wanted stages from one pass that stops at the deepest of them.

        Args: images: (B, 3, H, W) floating point, ImageNet-normalised. stages: names from `channels`.
        Returns: stage name -> (B, channels[name], ceil(H / strides[name]), ceil(W / strides[name])) for an image of
            8k + 1 pixels, in the order of `stages`.
        Raises ModelError: a stage that does not exist, or images of another shape or dtype.
        """
        self.check_request(images, stages)

        def run(feature: Tensor) -> Features:
            features: Features = {}
            for name in self.channels:
                feature = getattr(self, name)(feature)
                if name in stages:
                    features[name] = feature
                if len(features) == len(set(stages)):
                    return features

        features = self._in_pieces(run, images, 1)
        return {name: features[name] for name in stages}

    def deeper(self, features: Tensor, stage: str, box: Box | None = None) -> Tensor:
        """The features of `stage` from those of the stage before it, which a method may have masked; with `box` those
        of its cells alone, which spares some backbones the rest."""
        before = STAGES[STAGES.index(stage) - 1]
        run = getattr(self, stage)
        deep = self._in_pieces(lambda part: {stage: run(part)}, features, self.strides[before])[stage]
        return deep if box is None else box.cut(deep)

    def layout(self, learns: bool) -> torch.memory_format:
        """The memory layout of images and features on a CPU.

        Measured in CPU seconds, one thread, 321 to 417 pixels: forward, channels_last is 1.1 to 1.5 times as fast;
        backward with AVX2 it takes 1.5 times as long (VGG-16), with AVX-512 a training step takes 0.96 to 1.05 times as
        long and less memory. `TinyResNet` at 97 pixels is 1.3 times as fast in channels_last in both directions.
        """
        return self.learns_in if learns else torch.channels_last

    def _in_pieces(self, run: Callable[[Tensor], Features], maps: Tensor, stride: int) -> Features:
        """`run` on images, or features (B, C, h, w) of `stride`, in the layout and the number that suit the machine.

        Measured on a CPU, six images of 321 pixels through ResNet-50: one call takes 1.1 to 1.25 times as long as calls
        of one or two. Of 417 pixels, two in a call through VGG-16 take 1.09 times as long as one by one with AVX-512,
        and the same with AVX2. Batch statistics need all images together.
        """
        if maps.device.type != "cpu":
            return run(maps)
        together = self.bn == "batch" and self.training
        learns = torch.is_grad_enabled() and (maps.requires_grad or any(p.requires_grad for p in self.parameters()))
        layout = self.counts_in if together else self.layout(learns)
        maps = maps.contiguous(memory_format=layout)
        count = len(maps) if together else max(1, PIXELS // max(1, maps[0, 0].numel() * stride**2))
        if count >= len(maps):
            return run(maps)
        if learns:
            parts = [run(part) for part in maps.split(count)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        results: Features = {}
        for start in range(0, len(maps), count):
            for name, part in run(maps[start : start + count]).items():
                if not start:  # written in place: parts beside their sum would take twice the memory
                    shape, how = (len(maps), *part.shape[1:]), {"memory_format": layout}
                    results[name] = torch.empty(shape, dtype=part.dtype, device=part.device, **how)
                results[name][start : start + count] = part
        return results

    def check_request(self, images: Tensor, stages: Sequence[str]) -> None:
        """Raise ModelError unless `forward(images, stages)` can work."""
        if isinstance(stages, str) or not stages:
            raise ModelError(f"stages={stages!r}: expected a list of stage names, e.g. ['layer2', 'layer3'].")
        for stage in stages:
            if stage in STAGES and STAGES.index(stage) > STAGES.index(self.deepest):
                reason = f"was built with last={self.deepest!r} and has no {stage}"
                raise ModelError(f"{self.name} {reason}; leave `last` out.")
            choose(stage, tuple(self.channels), f"{self.name}: stage")
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            expected = "(B, 3, H, W) floating point, normalised with the ImageNet mean and standard deviation"
            raise ModelError(f"{self.name}: images are {tuple(images.shape)} {images.dtype}, expected {expected}.")

    def train(self, mode: bool = True) -> "Backbone":
        """As in torch, except that batch norm stays on running statistics when `bn` is `"frozen"`."""
        super().train(mode)
        if self.bn == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def set_bn(self, mode: str) -> "Backbone":
        """Choose the batch-norm mode (`"frozen"` or `"batch"`) from now on; affine parameters stay as trainable as
        they were. A network trained from random weights needs `"batch"`: frozen statistics would stay 0 and 1."""
        choose(mode, BN_MODES, "batch-norm mode bn=")
        self.bn = mode
        return self.train(self.training)

    def freeze(self) -> "Backbone":
        """Switch off the gradients of all parameters; returns self."""
        return self.requires_grad_(False)

    def rename(self, key: str) -> str | None:
        """Our name of a torchvision state-dict entry (or timm's); any other name comes back as it is. None: of no use
        to a backbone, such as a classifier."""
        return key

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state dict whose names `rename` knows, from one that may be in another form: here the same."""
        return state

    def stage_of(self, key: str) -> str:
        """The stage that a state-dict entry (our names) belongs to; the first part of the name if to none."""
        return key.split(".", 1)[0]
