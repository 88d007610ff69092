"""Mistakes that a re-implementation of HDMNet is likely to make, each as a function (monkeypatch, model)."""

from functools import partial
from unittest import mock

import torch
from planted_tools import Error, everywhere, features, function_of, method, setting
from torch import nn

from fsslib import ops
from fsslib.models import hdmnet as module

ONE, FIVE, TRAIN = "eval_1shot", "eval_5shot", "train_1shot"
FILE, KEY = ONE, "logits"


function = partial(function_of, module)


def swap_priors(query, support):
    for side in (query, support):
        side["deep"], side["context"] = side["context"], side["deep"]


def rectify(query, support):
    for side in (query, support):
        side["context"] = side["context"].relu()


def scene_of(stage):
    def change(query, support):
        for side in (query, support):
            side["scene"] = side[stage]

    return change


def own_class_kept(query, support):
    support["own"] = torch.zeros_like(support["own"])


def interleaved(patch, model):
    def split(self, tokens):
        return tokens.unflatten(-1, (-1, self.heads)).movedim(-1, 1)

    def join(self, values):
        return self.dropout(self.out(values.movedim(1, -1).flatten(2)))

    patch.setattr(module.Attention, "split", split)
    patch.setattr(module.Attention, "join", join)


def no_depthwise(patch, model):
    for layer in model.transformer.modules():
        if isinstance(layer, module.MixFFN):
            patch.setitem(layer._modules, "1", nn.Identity())


def keys_not_normed(patch, model):
    for layer in model.transformer.modules():
        if isinstance(layer, module.Attention) and layer.norm is not None:
            patch.setitem(layer._modules, "norm", nn.Identity())


def rectified_between(patch, model):
    """An activation between the decoder's convolutions, as everybody writes them."""

    def forward(self, features):
        for place, part in enumerate(self):
            features = part(features).relu() if place in (1, 3) else part(features)
        return features

    patch.setattr(module.LinearConvs, "forward", forward)


def support_not_normed(patch, model):
    """The layer norm in front of the correlation applied to the query alone."""

    def match(self, tokens, source, masks, size):
        found, weight = self.attention(self.norm1(tokens), source, masks)
        return self._mix(tokens + found, size), weight

    patch.setattr(module.EncoderLayer, "match", match)


def renormalised(original):
    """What the object positions give divided by their number, as masked attention usually ends."""

    def correlate(query, key, value, masks, *how):
        found, weight = original(query, key, value, masks, *how)
        return found / masks.sum(1).clamp_min(1)[:, None, None, None], weight

    return correlate


def attached(original):
    """Distillation whose teachers learn, too."""

    def distil(*args, **kwargs):
        with mock.patch.object(torch.Tensor, "detach", lambda tensor: tensor):
            return original(*args, **kwargs)

    return distil


def truth_of(value):
    """The ground truth with another number outside the object."""

    def wrap(original):
        def distil(*args, **kwargs):
            where = torch.where
            with mock.patch.object(torch, "where", lambda condition, one, _: where(condition, one, value)):
                return original(*args, **kwargs)

        return distil

    return wrap


def reversed_divergence(original):
    def distil(labels, correlations, **how):
        found = original(labels, correlations, **how)
        for i in (1, 2):
            teacher = ops.upsample(correlations[i - 1][:, None].detach(), tuple(correlations[i].shape[-2:]))
            t, s = teacher.flatten(1).softmax(-1), correlations[i].flatten(1).softmax(-1)
            found[i] = (s * (s.log() - t.log())).sum(-1).mean()
        return found

    return distil


def batch_norm_learns(patch, model):
    """`fix_bn` forgotten; the running statistics stay, since other mistakes follow on the same model."""
    everywhere(nn.BatchNorm2d, "track_running_stats", False)(patch, model)
    everywhere(nn.BatchNorm2d, "training", True)(patch, model)


def shared_reduction(patch, model):
    patch.setitem(model._modules, "down_supp", model.down_query)


def raw_scenes(original):
    return lambda features: features.flatten(2) @ features.flatten(2).transpose(1, 2) / features[0, 0].numel()


distil = "correlation_distillation"
PLANTED = {
    "temperature 1": Error(everywhere(module.Correlation, "temperature", 1.0), "stage2.match_attn"),
    "softmax over the support": Error(everywhere(module.Correlation, "softmax", "support"), "stage2.match_attn"),
    "attention also to the background": Error(
        function("block_mask", lambda f: lambda m, size: torch.ones_like(f(m, size))), "stage2.match_attn"
    ),
    "attention divided by the object's size": Error(function("correlate", renormalised), "stage2.match_attn"),
    "align_corners in the decoder": Error(function("upsample", lambda f: ops.resize), "meta_lowres"),
    "f4's prior first": Error(features(swap_priors), "query_merge"),
    "prior weight 1": Error(lambda patch, model: patch.setattr(module, "PRIOR_WEIGHT", 1.0), "query_merge"),
    "priors stretched": Error(function("prior_mask", lambda f: lambda *a, **k: f(*a)), "similarity"),
    "ReLU before f5's prior": Error(features(rectify), "similarity_ppm"),
    "heads interleaved": Error(interleaved, "stage0.query"),
    "MixFFN without depthwise convolution": Error(no_depthwise, "stage0.query"),
    "norm of the reduced keys missing": Error(keys_not_normed, "sa0_first_query"),
    "scores over the root of all channels": Error(
        function("attend", lambda f: lambda q, k, v, scale: f(q, k, v, 1 / 8)), "sa0_first_query"
    ),
    "layer norm of the query alone": Error(support_not_normed, "stage2.match_attn"),
    "ReLU between the decoder's convolutions": Error(rectified_between, "stage2.parse"),
    "Gram matrices of layer4": Error(features(scene_of("deep")), "est_map"),
    "Gram matrices without norms": Error(function_of(ops, "gram", raw_scenes), "est_map"),
    "support image not masked": Error(setting("", "mask_support", "features"), "supp_layer2", features=True),
    "one reduction for both sides": Error(shared_reduction, "down_supp", features=True),
    "weights put back to their shots": Error(setting("ensemble", "matched", True), "est_map", FIVE),
    "mean of the scene distances": Error(
        method("ensemble", "distance", lambda f: lambda scenes: scenes.mean(1)), "est_map", FIVE
    ),
    "best prior instead of their mean": Error(
        function("prior_mask", lambda f: lambda *a, **k: f(*a, **k).amax(1, keepdim=True).expand(-1, 5, -1, -1)),
        *("similarity", FIVE),
    ),
    "class_index not left out": Error(features(own_class_kept), "merged_bg_in", TRAIN),
    "no -1e9 outside the object": Error(function(distil, truth_of(0.0)), "loss.distill_terms", TRAIN),
    "divergence the other way round": Error(function(distil, reversed_divergence), "loss.distill_terms", TRAIN),
    "batch statistics in the decoder": Error(batch_norm_learns, "stage2.match_conv", TRAIN),
}
ATTACHED = function(distil, attached)  # visible in gradients alone
EPS = everywhere(nn.LayerNorm, "eps", 1e-5)  # everything stays within the tolerance of single values

REDUCED_TOO = {
    "temperature 1": "correlation/2", "softmax over the support": "logits",
    "attention also to the background": "logits", "align_corners in the decoder": "logits", "f4's prior first": "prior",
    "prior weight 1": "logits", "priors stretched": "prior", "ReLU before f5's prior": "prior",
    "heads interleaved": "logits", "MixFFN without depthwise convolution": "logits",
    "norm of the reduced keys missing": "logits", "layer norm of the query alone": "logits",
    "ReLU between the decoder's convolutions": "logits", "Gram matrices without norms": "scene_distance",
    "support image not masked": "scene_distance", "one reduction for both sides": "logits",
    "weights put back to their shots": "logits", "class_index not left out": "eval_losses",
    "no -1e9 outside the object": "eval_losses", "divergence the other way round": "eval_losses",
    "batch statistics in the decoder": "merged/background",
}  # fmt: skip
