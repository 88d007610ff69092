"""What every backbone is: five stages, features on a stride-8 grid, batch norm as asked for."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...arguments import choose
from ...errors import ModelError

STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")
BN_MODES = ("frozen", "batch")


class Box(NamedTuple):
    """Cells of a grid: rows from `top` to below `bottom`, columns from `left` to left of `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, chosen: Tensor) -> "Box | None":
        """The smallest box with all cells of `chosen` (h, w) bool; None where there is none. Waits for the device."""
        rows, columns = (chosen.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        return cls(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None

    def grown(self, cells: int, size: Sequence[int]) -> "Box":
        """The box with `cells` more to each side, as far as the grid (h, w) reaches."""
        top, left = max(0, self.top - cells), max(0, self.left - cells)
        return Box(top, min(size[0], self.bottom + cells), left, min(size[1], self.right + cells))

    def cut(self, maps: Tensor, outer: "Box | None" = None) -> Tensor:
        """This box out of maps (..., h, w), which show the box `outer`, or the whole grid."""
        top, left = (outer.top, outer.left) if outer else (0, 0)
        return maps[..., self.top - top : self.bottom - top, self.left - left : self.right - left]


class Backbone(nn.Module):
    """A chain of stages; subclasses add the stage modules named in `channels` and end with `self._finish(bn)`.

    Attributes:
        name: the name `build_backbone` knows it by.
        channels: stage name -> number of channels, shallow to deep; only stages that exist.
        strides: stage name -> image pixels per feature cell. A stride-s stage of an (8k+1)-pixel image has
            ceil(size / s) cells.
        bn: `"frozen"` (batch norm always uses running statistics) or `"batch"` (batch norm follows `.train()`).
    """

    def __init__(self, name: str, channels: Sequence[int], strides: Sequence[int], last: str | None):
        super().__init__()
        choose(last or STAGES[-1], STAGES, "stage last=")
        kept = STAGES[: STAGES.index(last or STAGES[-1]) + 1]
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

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        """Features of the wanted stages from one pass that stops at the deepest of them.

        Args: images: (B, 3, H, W) floating point, ImageNet-normalised. stages: names from `channels`.
        Returns: stage name -> (B, channels[name], ceil(H / strides[name]), ceil(W / strides[name])) for an image of
            8k + 1 pixels, in the order of `stages`.
        Raises ModelError: a stage that does not exist, or images of another shape or dtype.
        """
        self.check_request(images, stages)
        features: dict[str, Tensor] = {}
        wanted, feature = set(stages), images
        for name in self.channels:
            feature = getattr(self, name)(feature)
            if name in wanted:
                features[name] = feature
            if len(features) == len(wanted):
                break
        return {name: features[name] for name in stages}

    def deeper(self, features: Tensor, stage: str, box: Box | None = None) -> Tensor:
        """The features of `stage` from those of the stage before it, which a method may have masked; with `box` those
        of its cells alone, which spares some backbones the rest."""
        deep = getattr(self, stage)(features)
        return deep if box is None else box.cut(deep)

    def check_request(self, images: Tensor, stages: Sequence[str]) -> None:
        """Raise ModelError unless `forward(images, stages)` can work."""
        if isinstance(stages, str) or not stages:
            raise ModelError(f"stages={stages!r}: expected a list of stage names, e.g. ['layer2', 'layer3'].")
        for stage in stages:
            if stage in STAGES and stage not in self.channels:
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

    def rename(self, key: str) -> str:
        """Our name of a torchvision state-dict entry; any other name comes back as it is."""
        return key

    def stage_of(self, key: str) -> str:
        """The stage that a state-dict entry (our names) belongs to; the first part of the name if to none."""
        return key.split(".", 1)[0]
