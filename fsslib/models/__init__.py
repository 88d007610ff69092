"""The methods by name, and one paper in one file: `panet`, `sdaanet`, `asgnet`, `hdmnet`; `base` holds what all share.

Without options a method is the authors' code, and golden vectors say so: a new habit is a new option. `matching` is no
paper's: a baseline that is not trained.
"""

import hashlib
import inspect
import os
import sys
import threading
import types
from collections.abc import Callable, Mapping

from torch import nn

from ..arguments import check_count, meant
from ..errors import ModelError
from ..files import located
from ..nn.backbones import build_backbone
from ..nn.backbones.base import WORDS, Backbone
from .asgnet import ASGNet
from .base import FewShotModel
from .hdmnet import HDMNet
from .matching import Matching
from .panet import PANet
from .sdaanet import SDAANet

_METHODS: dict[str, type[FewShotModel]] = {}
_LOCK = threading.RLock()


def register(name: str) -> Callable[[type[FewShotModel]], type[FewShotModel]]:
    """Class decorator: make a method known to `build_model` under `name`."""

    def add(method: type[FewShotModel]) -> type[FewShotModel]:
        _METHODS[name] = method
        return method

    return add


def available() -> tuple[str, ...]:
    """Names that `build_model` accepts."""
    return tuple(_METHODS)


def use(path: str | os.PathLike) -> tuple[str, ...]:
    """Run a Python file of your own that registers methods; returns their names. A second call runs it anew.
    Raises ModelError: no such file, an error inside it, nothing registered, or a name that is taken."""
    path = located(path, "plugin", ModelError).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise ModelError(f"{path} is no Python file: give one that registers a method with @fsslib.register.")
    name = f"fsslib_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    with _LOCK:
        before, earlier = dict(_METHODS), sys.modules.get(name)
        others = {key for key, method in before.items() if method.__module__ != name}
        for key in before.keys() - others:
            del _METHODS[key]
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # so that its classes can be pickled
        try:
            # Not by the import system, which would keep compiled code and may miss that the file has changed.
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
            registered = tuple(key for key, method in _METHODS.items() if method.__module__ == name)
            taken = [key for key in registered if key in others]
            if not registered:
                raise ModelError("it registers no method: write @fsslib.register('its name') above the class")
            if taken:
                raise ModelError(f"the name {', '.join(taken)} is taken: choose another one")
        except (Exception, SystemExit) as error:  # whatever a file of one's own may raise
            _METHODS.clear()
            _METHODS.update(before)
            sys.modules[name] = earlier
            if earlier is None:
                del sys.modules[name]
            reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            raise ModelError(f"{path} cannot be used: {reason}.") from error
    return registered


def options_of(name: str) -> tuple[str, ...]:
    """Names of the options that `build_model(name, …)` takes: the common ones and the method's own."""
    its_own = [option for option in inspect.signature(_METHODS[name]).parameters if option != "backbone"]
    return tuple(dict.fromkeys(("shots", "stem", "bn", "last", "weights", "backbone_options", *its_own)))


for _method in (PANet, SDAANet, ASGNet, HDMNet, Matching):
    register(_method.__name__.lower())(_method)


def build_model(
    name: str, *, backbone: str | nn.Module, shots: int = 1, stem: str | None = None, bn: str = "frozen",
    last: str | None = None, weights: str | os.PathLike | Mapping | None = None, backbone_options: dict | None = None,
    **options,
) -> FewShotModel:  # fmt: skip
    """Build a method; without options it computes what the authors' code computes with its PASCAL configuration.

    Args:
        name: one of `available()`.
        backbone: `tiny`, `resnet18`, `resnet50`, `resnet101`, `vgg16`, `vgg16_bn`, `efficientnet_lite0`, `timm/<name>`
            (see `build_backbone`), or a ready Backbone.
        shots: K of the training episodes; only sizes parameters of methods that learn a weight per shot.
        stem: `"classic"` or `"deep"` (ResNets); None takes the stem of the method's paper.
        bn: `"frozen"` (running statistics, also in training) or `"batch"` (follows `.train()`).
        last: deepest stage to build, e.g. `"layer3"`; None builds all.
        weights: backbone weights: None (random), `"packaged"` (efficientnet_lite0's), `"imagenet"` or `"pretrained"`
            (torchvision's or timm's: downloads), a path or a state dict.
        backbone_options: further arguments of `build_backbone`, e.g. `{"stride": 8}`.
        options: the method's own options; see its class.
    Raises ModelError: unknown method, backbone or option (with the nearest valid name), or options that exclude others.
    """
    if name not in _METHODS:
        hint = meant(name, _METHODS, "known methods")
        raise ModelError(f"method {name!r} is unknown: {hint} A method of your own: fsslib.models.use('its file.py').")
    method = _METHODS[name]
    known = options_of(name)
    for option in [option for option in options if option not in known]:
        raise ModelError(f"{name} has no option {option!r}: {meant(option, known, 'its options')}")
    check_count(shots, "shots")
    if not isinstance(backbone, (str, Backbone)):
        raise ModelError(f"backbone={backbone!r}: expected a name, e.g. 'tiny', or a Backbone of fsslib.nn.backbones.")
    given = {"weights": weights, "stem": stem, "last": last, "backbone_options": backbone_options}
    spare = [option for option, value in given.items() if value] + ["bn"] * (bn != getattr(backbone, "bn", bn))
    if spare and not isinstance(backbone, str):
        raise ModelError(f"{', '.join(spare)}: the backbone is built already; give its name, or leave them out.")
    config = {"name": name, "shots": shots, "bn": bn, "last": last, "stem": stem, **options}
    if isinstance(backbone, str):
        extra = backbone_options or {}
        config |= {"backbone": backbone, "backbone_options": extra}
        if stem is None and backbone.startswith("resnet"):
            stem = method.stem
        backbone = build_backbone(backbone, stem=stem, bn=bn, last=last, weights=weights, **extra)
        if backbone.about and backbone.weights in WORDS:
            config["weights"] = backbone.weights  # the card says where they come from, also of a checkpoint
    if "shots" in inspect.signature(method).parameters:
        options["shots"] = shots
    model = method(backbone, **options)
    model.config = config
    return model
