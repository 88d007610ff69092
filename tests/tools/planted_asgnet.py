"""Mistakes that a re-implementation of ASGNet is likely to make, each as a function (monkeypatch, model)."""

from dataclasses import replace
from functools import partial

import torch
from planted_tools import CORNERS, Error, function_of, levels_as_they_are, method, rolled, setting, turned

from fsslib.models import asgnet as module
from fsslib.ops import resize

ONE, FIVE, ASPP = "eval_1shot", "eval_5shot", "eval_1shot_aspp"
# Between the grids of the other files, enlarging and reducing again happens to change nothing.
BINS = "eval_1shot_pascalbins"
FILE, KEY = ONE, "logits"


function = partial(function_of, module)


def over_superpixels(patch, model):
    """A cell is shared among the superpixels (as SLIC does), then every superpixel is normalised."""
    softmax = torch.Tensor.softmax

    def shared(scores, dim):
        weights = softmax(scores, 1).nan_to_num(0.0)
        return weights / weights.sum(-1, keepdim=True)

    patch.setattr(torch.Tensor, "softmax", shared)


def guided_before_query(patch, model):
    """The merge reads the prototypes' half first."""
    width = model.down_conv[0].out_channels
    for level in range(4):
        order = torch.cat([torch.arange(width, 2 * width), torch.arange(width), torch.tensor([2 * width])])
        turned(f"context.merge.{level}.0", order)(patch, model)


def dilations_swapped(patch, model):
    """The ASPP's branches from far to near."""
    for branch, rate in zip(model.context.aspp.branches[2:], (18, 12, 6)):
        patch.setattr(branch[0], "dilation", (rate, rate))
        patch.setattr(branch[0], "padding", (rate, rate))


def identity_not_rectified(patch, model):
    """A residual block as everybody writes it: the ReLU in front of it belongs to the branch alone."""
    context = model.context

    def forward(features, shallow, *, inner=True):
        inside = context.merge(features)
        for block in context.blocks:
            inside = inside + block(inside.relu())
        inside = context.aspp(inside)
        outline = context.skip(shallow)
        both = torch.cat([resize(inside, tuple(outline.shape[-2:])), outline], 1)
        return context.classifier(context.decode(both)), [context.auxiliary(inside)]

    patch.setattr(context, "forward", forward)


def counted_as_placed(original):
    """The number of superpixels without the model's counting of coordinates that are not 0."""

    def seeds(masks, size, most, area):
        found = original(masks, size, most, area)
        rows, columns = (torch.arange(n) * m // n for n, m in zip(size, masks.shape[-2:]))
        cells = masks[:, rows][:, :, columns].sum((-2, -1)).double()
        return replace(found, counts=torch.round(cells / area).clamp_max(most).long())

    return seeds


def turned_seeds(original):
    """Column before row."""
    return lambda *args: replace(found := original(*args), points=found.points.flip(-1))


image_mean_last = rolled("context.aspp.fuse.0", lambda model: model.down_conv[0].out_channels)
outline_before_context = rolled("context.decode.0", lambda model: -model.down_conv[0].out_channels)
rectified = method("down_conv", "forward", lambda f: lambda maps: f(maps).relu())
early_layer2 = function("joined", lambda f: lambda s: f(s).roll(s["layer2"].shape[1], 1))
whole_image = function("masked_pool", lambda f: lambda x, m: f(x, torch.ones_like(m)))
scores = function("cosine_maps", lambda f: lambda q, p, scale: torch.einsum("bpc,bchw->bphw", p, q))


def floor(patch, model):
    patch.setattr(torch, "round", torch.floor)


def squared(patch, model):
    cdist = torch.cdist
    patch.setattr(torch, "cdist", lambda *args, **options: cdist(*args, **options) ** 2)


PLANTED = {
    "align_corners False": Error(CORNERS),
    "softmax over the superpixels": Error(over_superpixels, "sgc.b0.s0.assoc_iter1"),
    "prototypes of that softmax": Error(over_superpixels, "sgc.b0.s0.prototypes"),
    "positions divided by r instead of r²": Error(setting("", "reach", 10**0.5), "sgc.b0.s0.centers_iter1"),
    "positions left out": Error(setting("", "reach", 1e6), "sgc.b0.s0.prototypes"),
    "squared distance": Error(squared, "sgc.b0.s0.assoc_iter1"),
    "iterations of the training": Error(setting("", "iterations", (10, 10)), "sgc.b0.s0.assoc_last", file=FIVE),
    "floor instead of rounding": Error(floor, "num_sp"),
    "the paper's seeds": Error(setting("", "seeds", "clean"), "in.s_seed"),
    "column before row": Error(function("published_seeds", turned_seeds), "in.s_seed"),
    "masked average of the whole image": Error(whole_image, "prototypes.b1"),
    "mean prototype everywhere": Error(setting("", "allocation", "expand")),
    "mean of the cosines": Error(setting("", "similarity", "mean"), "prob_map"),
    "scores that are no cosines": Error(scores, "cos_sim.b0"),
    "shots averaged": Error(setting("", "shot_merge", "average"), file=FIVE),
    "ReLU behind the reduction": Error(rectified, "query_feat", features=True),
    "layer2 before layer3": Error(early_layer2, "query_feat", features=True),
    "prototype before query in the merge": Error(guided_before_query),
    "levels not enlarged in between": Error(levels_as_they_are, "alpha_conv.0", file=BINS),
    "identity past the ReLU": Error(identity_not_rectified, "ASPP", file=ASPP),
    "image mean last": Error(image_mean_last, "ASPP", file=ASPP),
    "dilations swapped": Error(dilations_swapped, "ASPP", file=ASPP),
    "outline before context": Error(outline_before_context, "decoder", file=ASPP),
}

# In training: the tensor that tells.
TRAINING = {
    "auxiliary weight of PFENet": (setting("", "aux_weight", 0.4), "loss.total"),
    "allocation without gradient": (
        function("allocate", lambda f: lambda q, *args, **options: f(q.detach(), *args, **options)), "grad_norms"),
    "one backbone call for all images": (lambda patch, model: patch.setattr(type(model), "batch_statistics", False),
        "query_layer1"),
}  # fmt: skip

soft_cells = function("cluster", lambda f: lambda x, masks, *rest, **options: f(x, masks.ceil(), *rest, **options))
REDUCED_TOO = {
    "seeds counted as placed": (function("published_seeds", counted_as_placed), "prototypes"),
    "cells that are half object": (soft_cells, "prototypes"),
    "scales only swapped": (setting("context", "scales", (9, 5, 3, 4)), "logits"),
    "align_corners False": "logits", "softmax over the superpixels": "prototypes",
    "positions divided by r instead of r²": "prototypes",
    "iterations of the training": "prototypes", "floor instead of rounding": "seeds", "the paper's seeds": "seeds",
    "column before row": "prototypes", "masked average of the whole image": "prototypes",
    "mean prototype everywhere": "logits", "mean of the cosines": "probability", "shots averaged": "logits",
    "ReLU behind the reduction": "prototypes", "layer2 before layer3": "prototypes",
    "prototype before query in the merge": "logits", "levels not enlarged in between": "logits",
    "identity past the ReLU": "aspp_logits", "image mean last": "aspp_logits", "dilations swapped": "aspp_logits",
    "outline before context": "aspp_logits",
}  # fmt: skip
