"""Every method beside its authors' code: sizes, names of parameters, and our own numbers, stored when all agreed."""

import asgnet_tools
import hdmnet_tools
import pytest
import sdaanet_tools
import torch
from golden_tools import ROOT_GOLDEN, assert_loads_strictly, assert_within, read_golden, reduced_numbers, reduced_panet

from fsslib import build_model, load_official
from fsslib.analysis import costs
from fsslib.errors import CheckpointError


@pytest.mark.parametrize(("method", "options", "trainable", "total"), [
    ("panet", {"backbone": "vgg16"}, 14_714_688, 14_714_688), ("sdaanet", {"backbone": "resnet50"}, 21_341_261, 44.85),
    ("sdaanet", {"backbone": "resnet101"}, 21_341_261, 63.84), ("sdaanet", {"backbone": "vgg16_bn"}, 20_948_045, 35.67),
    ("asgnet", {"backbone": "resnet50"}, 10_423_818, 34_055_626),
    ("asgnet", {"backbone": "resnet50", "pyramid": False}, 9_278_852, None),
    ("hdmnet", {"backbone": "resnet50"}, 4_161_734, 50_875_542),
    ("hdmnet", {"backbone": "vgg16_bn"}, 3_768_518, 23_482_646),
])  # fmt: skip
def test_parameter_counts(method, options, trainable, total):
    """As the papers or the authors' code give them, some in millions."""
    with torch.device("meta"):
        model = build_model(method, **options)
    every = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    assert total in (None, every, round(every / 1e6, 2))
    if "pyramid" not in options:
        assert costs.published_parameters(method, options["backbone"]) == (every, trainable)
    if method == "asgnet":
        assert len(model.state_dict()) == (368 if "pyramid" in options else 364)
    assert method != "hdmnet" or getattr(model.backbone, "stem", "deep") == "deep"


ALPHA, WIDE = ("alpha_conv.1.0.weight", ".*alpha"), torch.zeros(256, 515, 1, 1)
STRICT = {
    "sdaanet": (ALPHA, ("simple_mask.2.stages.4.1.weight", r"simple_mask\.2\.stages\.4"),
        ("init_merge.0.0.weight", WIDE)),
    "asgnet": (ALPHA, ("simple_mask.weight", r"simple_mask\.weight"), ("corr_conv.0.0.weight", WIDE)),
    "asgnet layer3": (ALPHA, ("simple_mask.weight", r"simple_mask\.weight"), ("corr_conv.0.0.weight", WIDE)),
    "hdmnet": (("gram_merge.weight", r"ensemble\.scene"), ("kshot_rw.0.bias", r"kshot_rw\.0\.bias"),
        ("base_learnear.2.weight", torch.zeros(61, 512, 1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("what", STRICT)
def test_official_checkpoints_load_strictly(shared, what):
    method, *last = what.split()
    if method == "sdaanet":
        state = sdaanet_tools.official_state(shared, "vgg16_bn")
    elif method == "asgnet":
        state = asgnet_tools.official_state(shared, True)
    else:
        state = hdmnet_tools.official_state(shared, "vgg16_pascal_1shot")
        assert len(state) == 386
    backbone = "resnet50" if method == "asgnet" else "vgg16_bn"
    model = build_model(method, backbone=backbone, last=last[0] if last else None)
    if not last:
        assert {model.official_name(name) for name in model.state_dict()} == set(state)
    assert_loads_strictly(model, state, *STRICT[what])
    if method == "asgnet":
        with pytest.raises(CheckpointError, match="unexpected"):
            load_official(model, asgnet_tools.official_state(shared, False))


@pytest.mark.parametrize("tools", [sdaanet_tools, asgnet_tools, hdmnet_tools], ids=["sdaanet", "asgnet", "hdmnet"])
def test_reduced_vector_file_guards_parity_everywhere(tools):
    """Our own numbers from the day the golden files passed: two ways, two shots, void, an empty mask, soft masks."""
    method = tools.__name__.removesuffix("_tools")
    stored, _ = read_golden(ROOT_GOLDEN / f"{method}.safetensors")
    numbers = reduced_numbers(tools, stored)
    assert_within(tools.reduced_excess(numbers, stored), numbers.keys())
    assert stored.keys() - numbers.keys() == set(getattr(tools, "REDUCED", tools.golden_tools.FIELDS))


def test_reduced_vector_file_guards_panet_everywhere():
    """Two ways, two shots, void pixels."""
    stored, _ = read_golden(ROOT_GOLDEN / "panet.safetensors")
    numbers = reduced_panet(stored)
    for key, rtol, atol in (("losses", 1e-5, 0), ("gradnorms", 1e-3, 0), ("logits", 0, 1e-4)):
        torch.testing.assert_close(numbers[key], stored[key], rtol=rtol, atol=atol)
