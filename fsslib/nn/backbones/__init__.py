"""What every backbone can do, and how one is built by name.

A backbone is a chain of up to five stages `layer0 … layer4` (the papers' names). A method asks for the stages it wants
and gets them from one pass; each stage is also an attribute, so that a method can run `backbone.layer4` on masked
layer3 features itself. Backbones never switch gradients off: whether they are frozen is the method's decision.
Names of stages and parameters are those of stored weights: keep them.
"""

import os
from collections.abc import Mapping
from functools import partial

from ...arguments import choose
from ...errors import ModelError
from .base import LITE, TIMM, WORDS, Backbone


def build_backbone(
    name: str, *, stem: str | None = None, bn: str = "frozen", last: str | None = None,
    weights: str | os.PathLike | Mapping | None = None, **options,
) -> Backbone:  # fmt: skip
    """Build a backbone by name.

    Args:
        name: `tiny`, `resnet18`, `resnet50`, `resnet101`, `vgg16` (PANet's, no batch norm), `vgg16_bn`,
            `efficientnet_lite0`, or `timm/<name>`: a convolutional network or ViT of timm, e.g. `timm/convnext_tiny` or
            `timm/vit_small_patch14_dinov2.lvd142m`. The last two need `pip install "fsslib[photographs]"`.
        stem: ResNets only: `"classic"` (7x7, also None) or `"deep"` (three 3x3, 64-64-128).
        bn: `"frozen"` or `"batch"`, see `Backbone.set_bn`.
        last: deepest stage to build, e.g. `"layer3"` for a method that never runs layer4; None builds all five.
        weights: None (random), `"imagenet"` (torchvision's own, downloaded once into torch.hub's cache),
            `"packaged"` (efficientnet_lite0's, installed with it: no download), `"pretrained"` (timm's own, which timm
            downloads), a `.pth` or `.safetensors` file, or a state dict; see `weights.load_weights`.
        options: tiny `stride=4|8`, `width=16`; resnet50, resnet101 `stride_on="3x3"|"1x1"`; vgg16 `pool="3x3"|"2x2"`;
            timm's: arguments of `timm.create_model`.
    Raises:
        ModelError: an unknown name, stage or option (with the nearest valid one), or options that exclude each other.
        CheckpointError: a weight file that is missing, damaged or made for another network.
    """
    from .resnet import DilatedResNet, TinyResNet
    from .vgg import VGG16BN, PANetVGG16
    from .weights import load_weights

    makers = {
        "tiny": (TinyResNet, ("stride", "width")), "resnet18": (partial(DilatedResNet, 18), ()),
        "resnet50": (partial(DilatedResNet, 50), ("stride_on",)),
        "resnet101": (partial(DilatedResNet, 101), ("stride_on",)), "vgg16": (PANetVGG16, ("pool",)),
        "vgg16_bn": (VGG16BN, ()),
    }  # fmt: skip
    of_timm = name == LITE or str(name).startswith(TIMM)
    if not of_timm:
        choose(name, (*makers, LITE, f"{TIMM}<name>"), "backbone")
        maker, known = makers[name]
        for option in options:
            if option not in known:
                choose(option, (*known, "stem", "bn", "last", "weights"), f"{name}: option")
    if str(name).startswith("resnet"):
        options["stem"] = stem or "classic"
    elif stem is not None:
        raise ModelError(f"stem={stem!r} concerns ResNets only; {name} has one stem: leave `stem` out.")
    word = weights if isinstance(weights, str) and weights in WORDS else None
    ready = of_timm and word == "pretrained"
    backbone = _of_timm(name, bn, last, ready, options) if of_timm else maker(bn=bn, last=last, **options)
    if weights is not None and not ready:
        load_weights(backbone, weights)
    backbone.weights = None if weights is None else word or "a file"
    return backbone


def _of_timm(name: str, bn: str, last: str | None, pretrained: bool, options: dict) -> Backbone:
    from .timm import Convolutional, family, network
    from .vit import FAMILIES, ViT

    kin = family(name)
    kind, needs = (ViT, FAMILIES[kin]) if kin in FAMILIES else (Convolutional, Convolutional.needs)
    return kind(name, network(name, pretrained, {**needs, **options}), last).set_bn(bn)
