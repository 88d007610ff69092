"""Networks of timm by name (github.com/huggingface/pytorch-image-models), on the same grid of 8 pixels as ours.

First how timm is asked, then what all its networks have in common, then the convolutional ones; ViTs are in `vit`. timm
is imported when such a backbone is built, never before.
"""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, ModelError
from .base import LITE, STAGES, TIMM, Backbone
from .packaged import LICENCE

CELL = 8  # pixels a side that a cell of the deeper stages stands for; cell (i, j) is centred on pixel (8i, 8j)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation that images arrive with
INSTALL = 'pip install "fsslib[photographs]"'
_SYMMETRIC = {"pad_type": ""}  # padding of EfficientNet-Lite0; on 8k + 1 pixels the published one is equal


def family(name: str) -> str:
    """The module of timm that makes the network of backbone `efficientnet_lite0` or `timm/<name>`.
    Raises ModelError: timm is not installed, or does not know the name."""
    timm, asked = _timm(name), _asked(name)
    base, _, tag = asked.partition(".")
    known, what = timm.list_models(), "timm has no network"
    if base in known and tag:
        base, known, what = asked, list(timm.models.get_arch_pretrained_cfgs(base)), "timm has no weights named"
    if base not in known:
        alike = difflib.get_close_matches(base, known, 3)
        hint = f"Did you mean {', '.join(TIMM + other for other in alike)}?" if alike else "See timm.list_models()."
        raise ModelError(f"backbone {name!r} is unknown: {what} {base!r}. {hint}")
    return timm.models.model_entrypoint(asked.partition(".")[0]).__module__.rpartition(".")[2]


def network(name: str, pretrained: bool, options: Mapping) -> nn.Module:
    """The network of a known name as timm builds it; `pretrained` with timm's own weights, which it downloads.
    Raises ModelError: it does not take the options, or has no weights. CheckpointError: a failed download."""
    timm, asked = _timm(name), _asked(name)
    options = {**(_SYMMETRIC if name == LITE else {}), **options}
    if pretrained and not timm.get_pretrained_cfg(asked).has_weights:
        raise ModelError(f"weights='pretrained': timm has none for {name}; give the path of a file, or leave it out.")
    try:
        return timm.create_model(asked, pretrained=pretrained, **options)
    except Exception as error:  # constructors of a hundred networks, connections, disks
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if pretrained:
            cure = "Check the connection (timm keeps what it loads in the Hugging Face cache), or give weights a path"
            raise CheckpointError(f"weights='pretrained': {name} could not be fetched ({reason}). {cure}.") from error
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        cure = "Try a network that can be dilated (resnet, regnet, convnext, efficientnet) or a plain ViT"
        raise ModelError(f"{name} cannot be built with {given} ({reason}). {cure}.") from error


def _asked(name: str) -> str:
    return "tf_efficientnet_lite0" if name == LITE else name.removeprefix(TIMM)


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"backbone={name!r} needs the package timm: {INSTALL}.") from error
    return timm


class Shift(NamedTuple):
    """How images are padded, and which cells are left out, so that cell i shows what lies at pixel `stride` i.

    Attributes: before: pixels replicated at the top and at the left. spare: cells more than needed. odd: padded sides
    have 8k + 1 pixels, else 8k. skipped: cells left out at the top and at the left, by stage; 0 for others.
    """

    before: int
    spare: int
    odd: bool
    skipped: Mapping[str, int]

    def side(self, side: int) -> int:
        """Pixels of a padded side."""
        return CELL * (-(-(side + self.before) // CELL) + self.spare) + self.odd


# Networks that cut patches: a cell covers the pixels from 8i on, and the dilated patches of ConvNeXt's layer3 reach one
# cell further. With 6 pixels before them, cells of layer1 to layer4 lie 0.5, 2.5, -1.5 and -1.5 pixels off.
PATCHES = Shift(6, 0, False, MappingProxyType({"layer1": 1}))
# EfficientNet-Lite0 was trained with padding at the right and at the bottom alone, and has learned to look to the upper
# left: on photographs (where gradients of a cell's features end) by 0.5, 0.7, 3.5, 5.7 and 10 pixels, layer0 to layer4.
LOOKING_LEFT = Shift(4, 1, True, MappingProxyType({"layer0": 2, "layer1": 1, "layer2": 1, "layer3": 1, "layer4": 2}))


class Enter(nn.Module):
    """Images normalised for ImageNet become images as a network was trained on, and are padded where it needs that.

    Args: mean, std: of the network, for values from 0 to 1. shift: None leaves images as large as they are.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], shift: Shift | None = None):
        super().__init__()
        self.same, self.shift = (tuple(mean), tuple(std)) == IMAGENET, shift
        factor = [ours / theirs for ours, theirs in zip(IMAGENET[1], std)]
        offset = [(ours - theirs) / wide for ours, theirs, wide in zip(IMAGENET[0], mean, std)]
        for name, value in (("factor", factor), ("offset", offset)):  # no weights, so in no state dict
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same, or padded."""
        if not self.same:
            images = torch.addcmul(self.offset, images, self.factor)
        if self.shift:
            first = self.shift.before
            last = [self.shift.side(side) - side - first for side in images.shape[-2:]]
            images = F.pad(images, (first, last[1], first, last[0]), mode="replicate")
        return images


class TimmBackbone(Backbone):
    """What networks of timm have in common.

    Args: net: of `network`. The others: as for `Backbone`.
    """

    def __init__(
        self, name: str, net: nn.Module, channels: Sequence[int], strides: Sequence[int], last: str | None,
        stages: Sequence[str],
    ):  # fmt: skip
        super().__init__(name, channels, strides, last, stages)
        self._facts = net.pretrained_cfg

    def normaliser(self) -> Enter:
        """What makes images like those that the network was trained on."""
        return Enter(self._facts["mean"], self._facts["std"])

    @property
    def about(self) -> str:
        licence = LICENCE if self.weights == "packaged" else self._facts.get("license") or "not stated by timm"
        if self.weights is None:
            return f"{self.name}, weights random or of a checkpoint"
        return f"{self.name}, weights {self.weights}, licence {licence}; {_seen(self.name, self._facts)}"


# What the training data of weights show, by words in their names; the first that fits.
_SEEN = {
    r"dino|lvd|eupe": "trained on web photographs, which show the test concepts",
    r"clip|laion|openai|webli|datacomp|dfn|cc12m": "trained on web photographs and texts, which name the test concepts",
    r"sam|sa1b": "trained on masks of objects, the test concepts among them",
    r"in1k|in12k|in21k|in22k|mae|lite0": "trained on ImageNet, whose classes cover most of the test concepts",
}


def _seen(name: str, facts: Mapping) -> str:
    words = f"{name} {facts.get('tag', '')} {facts.get('hf_hub_id', '')}"
    found = next((text for pattern, text in _SEEN.items() if re.search(pattern, words)), "")
    return found or "trained on data that may show the test concepts"


class Convolutional(TimmBackbone):
    """A convolutional network of timm with output stride 8, cut into stages where timm taps its features.

    Networks of five taps have layer0 to layer4, those of four (ConvNeXt) layer1 to layer4. Where cell i would not show
    what lies at pixel `stride` i, images are padded and cells at the border left out, see `Shift`.

    Args: name: see `build_backbone`. net: of `network` with what it `needs`. last: see `build_backbone`.
    Raises ModelError: a network that is no chain of stages, or whose cells cannot be brought onto the grid.
    """

    needs = MappingProxyType({"features_only": True, "output_stride": CELL})

    def __init__(self, name: str, net: nn.Module, last: str | None):
        parts = _parts(name, net)
        stages, info = STAGES[-len(parts) :], net.feature_info
        super().__init__(name, net, info.channels(), info.reduction(), last, stages)
        self._homes = {key: stage for stage, part in zip(self.channels, parts) for key in part}
        parts[0] = {"enter": self.normaliser()} | parts[0]
        for stage, part in zip(self.channels, parts):
            self.add_module(stage, nn.Sequential(OrderedDict(part)))
        self._names = frozenset(self.state_dict())
        self._find_grid()

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        features = super().forward(images, stages)
        if self.enter.shift:
            for stage, value in features.items():
                first, stride = self.enter.shift.skipped.get(stage, 0), self.strides[stage]
                height, width = (-(-side // stride) for side in images.shape[-2:])
                features[stage] = value[..., first : first + height, first : first + width]
        return features

    @property
    def enter(self) -> Enter:
        """What images go through first."""
        return getattr(self, next(iter(self.channels))).enter

    def rename(self, key: str) -> str | None:
        if key in self._names:
            return key
        parts = key.split(".")
        for length in (2, 1):  # timm's own extractors write `stages.0` as `stages_0`
            home = "_".join(parts[:length])
            if home in self._homes:
                return ".".join([self._homes[home], home, *parts[length:]])
        return None

    def _find_grid(self) -> None:
        """Whether images have to be padded. Raises ModelError if nothing brings the cells onto the grid."""
        side = 4 * CELL + 1
        for shift in (LOOKING_LEFT,) if self.name == LITE else (None, PATCHES):
            self.enter.shift, whole = shift, shift.side(side) if shift else side
            expected = {stage: (self.channels[stage], -(-whole // stride)) for stage, stride in self.strides.items()}
            try:
                found = self._grids(side)
            except Exception as error:  # whatever layers say to an image that does not suit them
                found = f"{type(error).__name__}: {error}"
            if found == expected:
                return
        raise ModelError(f"{self.name} has no grid of 8 pixels a cell: {side} pixels give {found}, not {expected}.")

    @torch.no_grad()
    def _grids(self, side: int) -> dict[str, tuple[int, int]]:
        """Channels and cells a side that each stage makes of an image of `side` pixels."""
        found, training = {}, self.training
        features = torch.zeros(1, 3, side, side, device=self.enter.factor.device)
        self.eval()
        for stage in self.channels:
            features = getattr(self, stage)(features)
            found[stage] = tuple(features.shape[1:3])
        self.train(training)
        return found


def _parts(name: str, net: nn.Module) -> list[dict[str, nn.Module]]:
    """Modules of a feature extractor by name, in the order they run, stage by stage.
    Raises ModelError: one that is no chain, or taps fewer than three or more than five stages."""
    if hasattr(net, "return_layers"):
        modules, ends = dict(net.items()), set(net.return_layers)
    elif hasattr(net, "conv_stem") and getattr(net, "feature_hooks", None) is None:  # EfficientNet and MobileNet
        stem = [key for key in ("conv_stem", "bn1", "act1") if hasattr(net, key)]
        modules = {key: getattr(net, key) for key in stem} | {f"blocks_{i}": b for i, b in enumerate(net.blocks)}
        at = [info["stage"] for info in net.feature_info.get_dicts()]
        ends = {f"blocks_{stage - 1}" if stage else stem[-1] for stage in at}
    else:
        raise ModelError(f"{name} cannot be run stage by stage ({type(net).__name__}): choose another network.")
    parts, part = [], {}
    for key, module in modules.items():
        part[key] = module
        if key in ends:
            parts.append(part)
            part = {}
    if not 3 <= len(parts) <= len(STAGES):
        raise ModelError(f"{name} has {len(parts)} stages, a backbone three to five: choose another network.")
    return parts
