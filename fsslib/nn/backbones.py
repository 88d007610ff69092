"""What every backbone can do, and how one is built by name.

A backbone is a chain of up to five stages `layer0 … layer4` (the papers' names). A method asks for the stages it wants
and gets them from one pass; each stage is also an attribute, so that a method can run `backbone.layer4` on masked
layer3 features itself. Backbones never switch gradients off: whether they are frozen is the method's decision.
"""

import difflib
import os
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ModelError

STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")
BN_MODES = ("frozen", "batch")


def choose(value: object, valid: Sequence[str], what: str) -> None:
    """Raise ModelError unless `value` is one of `valid`; the message names the nearest valid value and all of them."""
    if value not in valid:
        near = difflib.get_close_matches(str(value), valid, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        gap = "" if what.endswith("=") else " "
        raise ModelError(f"{what}{gap}{value!r} is unknown.{hint} Valid: {', '.join(map(repr, valid))}.")


def check_number(value: object, what: str, most: float = float("inf"), *, zero: bool = True) -> None:
    """Raise ModelError unless `value` is a finite number from 0 (above it without `zero`) to `most`."""
    good = type(value) in (int, float) and value < float("inf") and (0 < value <= most or (zero and value == 0))
    if not good:
        limit = "" if most == float("inf") else f" to {most}"
        raise ModelError(f"{what}={value!r}: expected a number {'from' if zero else 'above'} 0{limit}.")


def check_count(value: object, what: str) -> None:
    """Raise ModelError unless `value` is a whole number from 1."""
    if type(value) is not int or value < 1:
        raise ModelError(f"{what}={value!r}: expected a whole number from 1.")


def check_switch(value: object, what: str) -> None:
    """Raise ModelError unless `value` is True or False: a text would count as True."""
    if type(value) is not bool:
        raise ModelError(f"{what}={value!r}: expected True or False.")


class Backbone(nn.Module):
    """A chain of stages; subclasses add the stage modules named in `channels` and end with `self.set_bn(bn)`.

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

    @property
    def deepest(self) -> str:
        """Name of the deepest stage that exists."""
        return next(reversed(self.channels))

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        """Features of the wanted stages from one pass that stops at the deepest of them.

        Args:
            images: (B, 3, H, W) floating point, ImageNet-normalised.
            stages: names from `channels`.
        Returns:
            Stage name -> (B, channels[name], ceil(H / strides[name]), ceil(W / strides[name])) for an (8k+1)-pixel
            image, in the order of `stages`.
        Raises:
            ModelError: a stage that does not exist, or images of another shape or dtype.
        """
        self.check_request(images, stages)
        found: dict[str, Tensor] = {}
        wanted, feature = set(stages), images
        for name in self.channels:
            feature = getattr(self, name)(feature)
            if name in wanted:
                found[name] = feature
            if len(found) == len(wanted):
                break
        return {name: found[name] for name in stages}

    def deeper(self, features: Tensor, stage: str) -> Tensor:
        """The features of `stage` from those of the stage before it, which a method may have masked."""
        return getattr(self, stage)(features)

    def check_request(self, images: Tensor, stages: Sequence[str]) -> None:
        """Raise ModelError unless `forward(images, stages)` can work."""
        if isinstance(stages, str) or not stages:
            raise ModelError(f"stages={stages!r}: expected a list of stage names, e.g. ['layer2', 'layer3'].")
        for stage in stages:
            if stage in STAGES and stage not in self.channels:
                raise ModelError(
                    f"{self.name} was built with last={self.deepest!r} and has no {stage}; leave `last` out."
                )
            choose(stage, tuple(self.channels), f"{self.name}: stage")
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ModelError(
                f"{self.name}: images are {tuple(images.shape)} {images.dtype}, expected (B, 3, H, W) floating point, "
                "normalised with the ImageNet mean and standard deviation."
            )

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


def build_backbone(
    name: str,
    *,
    stem: str | None = None,
    bn: str = "frozen",
    last: str | None = None,
    weights: str | os.PathLike | None = None,
    **options,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: `tiny`, `resnet18`, `resnet50`, `resnet101`, `vgg16` (PANet's, no batch norm) or `vgg16_bn`.
        stem: ResNets only: `"classic"` (7x7, also None) or `"deep"` (three 3x3, 64-64-128).
        bn: `"frozen"` or `"batch"`, see `Backbone.set_bn`.
        last: deepest stage to build, e.g. `"layer3"` for a method that never runs layer4; None builds all five.
        weights: None (random), `"imagenet"` (torchvision's own, downloaded once into torch.hub's cache) or a `.pth` or
            `.safetensors` file; see `fsslib.nn.weights.load_weights`.
        options: tiny `stride=4|8`, `width=16`; resnet50, resnet101 `stride_on="3x3"|"1x1"`; vgg16 `pool="3x3"|"2x2"`.
    Raises:
        ModelError: an unknown name, stage or option (with the nearest valid one), or options that exclude each other.
        CheckpointError: a weight file that is missing, damaged or made for another network.
    """
    from .resnet import DilatedResNet  # here, because these modules need the Backbone class above
    from .tiny import TinyResNet
    from .vgg import VGG16BN, PANetVGG16
    from .weights import load_weights

    makers = {
        "tiny": (TinyResNet, ("stride", "width")),
        "resnet18": (partial(DilatedResNet, 18), ()),
        "resnet50": (partial(DilatedResNet, 50), ("stride_on",)),
        "resnet101": (partial(DilatedResNet, 101), ("stride_on",)),
        "vgg16": (PANetVGG16, ("pool",)),
        "vgg16_bn": (VGG16BN, ()),
    }
    choose(name, tuple(makers), "backbone")
    maker, known = makers[name]
    for option in options:
        if option not in known:
            choose(option, (*known, "stem", "bn", "last", "weights"), f"{name}: option")
    if name.startswith("resnet"):
        options["stem"] = stem or "classic"
    elif stem is not None:
        raise ModelError(f"stem={stem!r} concerns ResNets only; {name} has one stem: leave `stem` out.")
    backbone = maker(bn=bn, last=last, **options)
    if weights is not None:
        load_weights(backbone, weights)
    return backbone
