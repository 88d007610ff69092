"""Mistakes that a re-implementation of SD-AANet is likely to make, each as a function (monkeypatch, model)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fsslib.models import sdaanet as module
from fsslib.nn import context as enrichment
from fsslib.ops import resize

FIVE, EMPTY = "eval_r50_5shot", "eval_r50_2shot_emptymask"


def resized(planted):
    """An error in every resize, planted below all of them: `planted` changes the keywords of `F.interpolate`."""

    def plant(patch, model):
        original = F.interpolate
        patch.setattr(F, "interpolate", lambda maps, size, **keywords: original(maps, size, **planted(keywords)))

    return plant


def on_query(planted):
    """Another factor (B, C) on the query's channels, from the factors g_k (B, K, C)."""

    def plant(patch, model):
        original = model.sdpm.forward
        patch.setattr(model.sdpm, "forward", lambda p: (*(own := original(p))[:2], planted((own[0] + 1) / 2)))

    return plant


def setting(owner: str, name: str, value):
    """An option that the authors' code does not have."""
    return lambda patch, model: patch.setattr(model.get_submodule(owner), name, value)


def method(owner: str, name: str, wrap):
    """Method `name` of a module, replaced by `wrap(original)`."""

    def plant(patch, model):
        target = model.get_submodule(owner)
        patch.setattr(target, name, wrap(getattr(target, name)))

    return plant


def function(name: str, wrap):
    """A function that the model's file uses, replaced by `wrap(original)`."""
    return lambda patch, model: patch.setattr(module, name, wrap(getattr(module, name)))


def turned(owner: str, order: torch.Tensor):
    """The input channels of a convolution read in another order."""

    def plant(patch, model):
        conv = model.get_submodule(owner)
        patch.setitem(conv._parameters, "weight", torch.nn.Parameter(conv.weight[:, order]))

    return plant


def query_first(patch, model):
    """PFENet's order of the merge: its first 256 input channels are the query's, the next the prototype's."""
    order = torch.cat([torch.arange(256, 512), torch.arange(256), torch.arange(512, 514)])
    for level in range(4):
        turned(f"enrichment.merge.{level}.0", order)(patch, model)


def levels_as_they_are(patch, model):
    """The next scale reads the scale before directly, not its enlarged version."""
    origins = {}

    def remembering(maps, size):
        source, _ = origins.get(id(maps), (maps, None))
        result = resize(source, size)
        origins[id(result)] = maps, result
        return result

    patch.setattr(enrichment, "resize", remembering)


def corners(keywords):
    return keywords | ({"align_corners": False} if keywords["mode"] == "bilinear" else {})


def smooth(keywords):
    return {"mode": "bilinear", "align_corners": True}


class Error(NamedTuple):
    """`plant(monkeypatch, model)` makes the mistake; tensor `key` of `file` tells, and moves by `known` of its largest
    value, where the golden README knows such a number; `features`: the mistake concerns the features too."""

    plant: Callable
    key: str = "out/logits"
    known: float | None = None
    features: bool = False
    file: str = FIVE


PLANTED = {
    "align_corners False": Error(resized(corners), known=3e-1, features=True),
    "query before prototype in the merge": Error(query_first, known=3e-1),
    "gates averaged instead of multiplied": Error(on_query(lambda g: g.mean(1) * (g.mean(1) + 1) / 2), known=1e-1),
    "missing extra factor": Error(on_query(lambda g: g.prod(1)), known=1e-2),
    "query_factor='mean'": Error(setting("sdpm", "query_factor", "mean")),
    "query_factor='none'": Error(setting("sdpm", "query_factor", "none")),
    "sigmoid on the attention": Error(method("saam", "query", lambda f: lambda *a: f(*a).sigmoid()), known=4e-2),
    "levels not enlarged in between": Error(levels_as_they_are, known=3e-2),
    "support unmasked before layer4": Error(setting("", "prior_masking", "after"), known=3e-3, features=True),
    "attention='each_support'": Error(setting("", "attention", "each_support"), known=1e-4),
    "best prior instead of their mean": Error(
        function("prior_mask", lambda f: lambda *a: f(*a).amax(1, keepdim=True).expand(-1, 5, -1, -1))
    ),
    "layer2 before layer3": Error(
        function("joined", lambda f: lambda s: f(s).roll(512, 1)), "feat/query_reduced", features=True
    ),
    "prototype before feature in the attention": Error(
        turned("saam.reduce.0", torch.arange(512).roll(256)), "saam/query_attention"
    ),
    "teacher mask bilinear": Error(resized(smooth), "sdpm/kd_0", known=3e-3),
    "teacher_query='reweighted'": Error(setting("sdpm", "teacher_query", "reweighted"), "sdpm/kd_0", known=2e-1),
    "teacher='distributions'": Error(setting("sdpm", "teacher", "distributions"), "sdpm/kd_0"),
    "teachers='integral'": Error(setting("sdpm", "teachers", "integral"), "sdpm/kd_0"),
    "second mask of the prior dropped": Error(
        function("prior_mask", lambda f: lambda q, s, m: f(q, s, torch.ones_like(m))), "prior/shot0", file=EMPTY
    ),
}


def hard_masks(patch, model):
    """Masks on the features' grid rounded; at the golden files' 97 pixels they are never soft."""

    def rounding(maps, size):
        return resize(maps, size).round() if torch.isin(maps, torch.tensor([0.0, 1.0])).all() else resize(maps, size)

    patch.setattr(module, "resize", rounding)


REDUCED_TOO = {
    "hard masks": (hard_masks, "logits"),
    "layer2 before layer3": (function("joined", lambda f: lambda s: f(s).roll(512, 1)), "logits"),
    "scales only swapped": (setting("enrichment", "scales", (9, 5, 3, 4)), "logits"),
    **{
        name: (PLANTED[name].plant, key)
        for name, key in (
            ("align_corners False", "logits"),
            ("missing extra factor", "logits"),
            ("sigmoid on the attention", "logits"),
            ("levels not enlarged in between", "logits"),
            ("support unmasked before layer4", "prior"),
            ("attention='each_support'", "attention"),
            ("teacher mask bilinear", "eval_losses"),
            ("teacher_query='reweighted'", "eval_losses"),
            ("second mask of the prior dropped", "prior"),
        )
    },
}
