"""Every method learns on tiny backbones: extreme episodes, every backbone, what moves in a step and what must not."""

import pytest
import torch
from method_tools import LOSSES, SPOILED, TINY, blind, legal, spoiled

RELATIVE = (1.0, 0.5, 0.25, 0.125)
SHOTS, STRIDE, PLAIN = {"shots": 2}, {"backbone_options": {"stride": 8}}, {"pyramid": False}
PAPER = {"teacher": "distributions", "teacher_query": "reweighted", "detach_teacher": True, "query_factor": "mean"}
PAPER |= {"attention": "each_support", "temperature": 1.0, "kd_factor": 1.0, "kd_mean": "prototypes"}
# Options, and an episode: its shape (batch, ways, shots, height, width), or what is wrong with it.
COMMON = {what: ({}, what) for what in SPOILED}
COMMON |= {
    "7 shots": ({}, (2, 1, 7)), "40 pixels": ({}, (2, 1, 1, 40, 40)), "97 x 129": ({}, (2, 1, 1, 97, 129)),
    "a batch of one": ({}, (1, 1, 1)), "three ways": ({}, (2, 3, 1)),
    "batch statistics": ({"bn": "batch"}, (2, 2, 2)), "a trained backbone": ({"freeze": False}, ()),
    "resnet18": ({"backbone": "resnet18", "last": "layer3"}, ()),
    "dropout": ({"dropout": 0.5}, ()), "stride 8": (STRIDE, ()),
}  # fmt: skip
OWN = {
    "panet": {},
    "sdaanet": {
        "9 pixels": ({}, (2, 1, 1, 9, 9)), "97 x 129, relative": ({"scales": RELATIVE}, (2, 1, 1, 97, 129)),
        "a batch of one, relative": ({"scales": RELATIVE}, (1, 1, 2)), "no layer4": ({"last": "layer3"}, ()),
        "no layer4, masked after": ({"last": "layer3", "prior_masking": "after"}, ()),
        "masked after": ({"prior_masking": "after"}, ()), "stride 8, no layer4": (STRIDE | {"last": "layer3"}, ()),
        "batch statistics, masked after": ({"bn": "batch", "prior_masking": "after"}, (2, 1, 2)),
        "batch statistics, no layer4": ({"bn": "batch", "last": "layer3"}, (2, 2, 1)),
        "vgg16_bn": ({"backbone": "vgg16_bn"}, ()), "vgg16": ({"backbone": "vgg16"}, ()), "paper": (PAPER, (2, 1, 3)),
    },
    "asgnet": {
        "9 pixels": ({}, (1, 1, 1, 9, 9)), "empty supports, ASPP": (PLAIN, "empty supports"),
        "void query, ASPP": (PLAIN, "void query"), "97 x 129, relative": ({"scales": RELATIVE}, (1, 1, 2, 97, 129)),
        "stride 8, small superpixels": (STRIDE | {"superpixel_area": 2.0}, ()),
        "vgg16_bn": ({"backbone": "vgg16_bn", "superpixel_area": 1.0}, ()),
        "ASPP": (PLAIN | {"dropout": 0.5}, (2, 2, 2)),
        "ASPP, resnet18": (PLAIN | {"backbone": "resnet18", "last": "layer3"}, (1, 1, 1)),
        "ASPP, 97 x 129": (PLAIN | {"fusion": "once"}, (2, 1, 2, 97, 129)),
        "paper": ({"seeds": "clean", "fusion": "once", "similarity": "mean", "dropout": 0.5}, (2, 1, 3)),
        "one average": ({"max_superpixels": 1, "allocation": "expand", "shot_merge": "average"}, (2, 1, 3)),
    },
    "hdmnet": {
        "13 pixels": ({}, (2, 1, 1, 13, 13)), "void base annotation": (SHOTS, "void base annotation"),
        "5 shots": ({"shots": 5}, (2, 1, 5)), "no layer4": ({"last": "layer3"}, ()),
        "stride 8, 97 pixels": (STRIDE, (1, 1, 1, 97, 97)), "stride 8, no layer4": (STRIDE | {"last": "layer3"}, ()),
        "a trained backbone with batch statistics": ({"freeze": False, "bn": "batch"}, ()),
        "one stage": ({"stages": 1}, ()), "one stage without truth": ({"stages": 1, "distil_truth": False}, ()),
        "no self-attention, 9 pixels": ({"self_attention": False}, (2, 1, 1, 9, 9)),
        "no ensemble": ({"ensemble": False} | SHOTS, (2, 1, 2)),
        "usual softmax": ({"match_softmax": "support"} | SHOTS, "an empty support"),
        "usual softmax without support": ({"match_softmax": "support"} | SHOTS, "empty supports"),
        "features masked": ({"mask_support": "features"} | SHOTS, (2, 1, 2)),
        "matched weights": ({"shot_weights": "matched"} | SHOTS, (2, 1, 2)),
        "linear weights": ({"shot_hidden": 0, "shot_weights": "matched"} | SHOTS, (2, 1, 2)),
        "resnet18 with layer4": ({"backbone": "resnet18"}, ()),
        "vgg16_bn": ({"backbone": "vgg16_bn"}, (2, 1, 1, 49, 49)),
        "dropout in the attention, too": ({"dropout": 0.5, "attention_dropout": 0.1}, ()),
    },
}  # fmt: skip
RUNS = [(m, what) for m, own in OWN.items() for what in COMMON | own if (m, what) != ("panet", "dropout")]


def stepped(model, episode, method: str, steps: int, precision: torch.dtype) -> set[str]:
    """The entries of the state dict that a few steps of training move; everything stays finite on the way."""
    before = {name: value.clone() for name, value in model.train().state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3, momentum=0.9)
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            losses = model.losses(episode)
        assert set(losses) == set(LOSSES[method]) and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
        assert all(value.dtype == torch.float32 for value in losses.values())
        optimiser.zero_grad()
        losses["total"].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimiser.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.filterwarnings("ignore:.* shots, but the weights")
@pytest.mark.parametrize(("method", "run"), RUNS)
def test_training_stays_finite_and_moves_only_what_it_should(method, run):
    options, shape = (COMMON | OWN[method])[run]
    episode = spoiled(method, shape) if isinstance(shape, str) else legal(method, *shape)
    model = TINY[method](**options)
    moved = stepped(model, episode, method, 2, torch.float32)
    void = "void query" in run
    silent = (void and method in ("asgnet", "hdmnet")) or (method, run) == ("panet", "void supports")
    if method == "asgnet":  # whose clusters are the most easily upset
        moved |= stepped(model, episode, method, 1, torch.bfloat16)
        assert void or {"context.classifier.3.bias", "down_conv.0.weight"} <= moved
        assert not void or (model.losses(episode)["total"] == 0 and not moved & dict(model.named_parameters()).keys())
    assert method != "panet" or not void or model.losses(episode)["query"] == 0
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers() if method != "hdmnet" or name.startswith("backbone.")}
    assert moved <= learning | buffers and (silent or moved & learning)
    trained = (not model.freeze and not (silent and method == "panet")) or model.backbone.bn == "batch"
    assert any(name.startswith("backbone.") for name in moved) == trained
    if method == "hdmnet":
        assert not any(name.startswith("base_head.") for name in moved)
        assert void or any(name.startswith("transformer.") for name in moved)
    with torch.no_grad():
        logits = model.eval()(blind(episode)).logits
    assert logits.shape == (episode.batch, 1 + episode.way, *episode.query_images.shape[-2:])
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32
