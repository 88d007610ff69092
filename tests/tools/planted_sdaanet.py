"""Mistakes that a re-implementation of SD-AANet is likely to make, each as a function (monkeypatch, model)."""

from functools import partial

import torch
from planted_tools import CORNERS, SMOOTH, Error, function_of, levels_as_they_are, method, setting, turned

from fsslib.models import sdaanet as module
from fsslib.ops import resize

FIVE, EMPTY = "eval_r50_5shot", "eval_r50_2shot_emptymask"
FILE, KEY = FIVE, "out/logits"


function = partial(function_of, module)


def on_query(planted):
    """Another factor (B, C) on the query's channels, from the factors g_k (B, K, C)."""
    return method("sdpm", "forward", lambda f: lambda p: (*(gates := f(p))[:2], planted((gates[0] + 1) / 2)))


def query_first(patch, model):
    """PFENet's order of the merge: its first 256 input channels are the query's, the next the prototype's."""
    order = torch.cat([torch.arange(256, 512), torch.arange(256), torch.arange(512, 514)])
    for level in range(4):
        turned(f"enrichment.merge.{level}.0", order)(patch, model)


PLANTED = {
    "align_corners False": Error(CORNERS, known=3e-1, features=True),
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
    "teacher mask bilinear": Error(SMOOTH, "sdpm/kd_0", known=3e-3),
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
    "hard masks": (hard_masks, "logits"), "layer2 before layer3": "logits",
    "scales only swapped": (setting("enrichment", "scales", (9, 5, 3, 4)), "logits"),
    "align_corners False": "logits", "missing extra factor": "logits", "sigmoid on the attention": "logits",
    "levels not enlarged in between": "logits", "support unmasked before layer4": "prior",
    "attention='each_support'": "attention", "teacher mask bilinear": "eval_losses",
    "teacher_query='reweighted'": "eval_losses", "second mask of the prior dropped": "prior",
}  # fmt: skip
