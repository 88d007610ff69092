"""Would the golden comparison of SD-AANet notice a mistake? Plant the likely ones and see that it fails."""

import pytest
import torch
from golden_tools import ROOT_GOLDEN, read_golden
from planted_sdaanet import EMPTY, FIVE, PLANTED, REDUCED_TOO
from sdaanet_tools import (
    excess,
    golden_file,
    official_model,
    official_state,
    record,
    reduced_episode,
    reduced_evaluation,
    reduced_excess,
    reduced_model,
)

from fsslib import load_official
from fsslib.models.base import FewShotModel
from fsslib.ops import masked_pool


@pytest.fixture(scope="module")
def model(shared):
    return official_model(shared, "resnet50")


@pytest.fixture(scope="module")
def scene(shared, model):
    """Golden tensors, episode and true features of the two files; the features are costly and seldom in question."""
    kept = {}
    with torch.no_grad():
        for name in (FIVE, EMPTY):
            golden, _, episode = golden_file(shared, name)
            kept[name] = golden, episode, model.features(episode)
    return kept


@pytest.mark.parametrize("what", PLANTED)
@torch.no_grad()
def test_the_comparison_would_fail(what, model, scene, monkeypatch):
    error = PLANTED[what]
    golden, episode, features = scene[error.file]
    if not error.features:
        monkeypatch.setattr(model, "features", lambda _: features)
    clean = excess(record(model, episode, "forward")[1], golden, train=False)
    assert max(clean.values()) <= 1, "before the mistake everything agrees"
    error.plant(monkeypatch, model)
    off = excess(record(model, episode, "forward")[1], golden, train=False)[error.key]
    assert off > 5, "the mistake must stand out, not only just fail"
    if error.known:
        tolerance = 1e-4 if error.key.startswith("sdpm/kd_") else 1e-5
        # The README gives one digit.
        assert 0.6 * error.known < off * tolerance < 1.6 * error.known


def test_the_divisor_of_the_pooling(shared):
    """In the logits 1e-5 instead of 5e-4 hides; a mask of a single pixel shows it."""
    units, _ = read_golden(shared / "golden/sdaanet/units.safetensors")
    features, mask, expected = (units[f"units/gap_{k}"] for k in ("feat", "mask_single", "out_single"))
    for eps, agrees in ((5e-4, True), (1e-5, False), (1e-3, False)):
        off = (masked_pool(features, mask[:, 0], eps)[..., None, None] - expected).abs().max()
        assert bool(off <= 1e-5 * expected.abs().max()) == agrees


@pytest.fixture(scope="module")
def reduced():
    stored, _ = read_golden(ROOT_GOLDEN / "sdaanet.safetensors")
    return stored, reduced_model(), reduced_episode(stored)


@pytest.mark.parametrize("what", REDUCED_TOO)
def test_the_reduced_file_notices_too(what, reduced, monkeypatch):
    """Where the authors' numbers are absent. That without a mistake all is well, test_golden_sdaanet says."""
    plant, key = REDUCED_TOO[what]
    stored, model, episode = reduced
    plant(monkeypatch, model)
    assert reduced_excess(reduced_evaluation(model, episode), stored)[key] > 5


@pytest.mark.parametrize("what", ["detached teacher", "one backbone call for all images"])
def test_the_comparison_of_the_training_would_fail(what, shared, model, monkeypatch):
    golden, facts, episode = golden_file(shared, "train_r50_1shot")
    model.backbone.set_bn("batch")
    if what == "detached teacher":
        monkeypatch.setattr(model.sdpm, "detach_teacher", True)
    else:
        monkeypatch.setattr(FewShotModel, "batch_statistics", False)
    try:
        losses, found = record(model.train(), episode, "losses")
        off = excess(found, golden, train=True)
        named = {model.official_name(n): p for n, p in model.named_parameters()}
        order = facts["gradnorm_names"]
        grads = torch.autograd.grad(losses["kd"], [named[n] for n in order], allow_unused=True)
    finally:
        model.eval().backbone.set_bn("frozen")
        load_official(model, official_state(shared / "specs/sdaanet_state.json", "resnet50"))
    if what == "detached teacher":
        assert max(off.values()) <= 1, "no value shows it"
        at = order.index("down_query.0.weight")
        assert grads[at] is None and golden["gradnorm/kd"][at] > 0
    else:
        assert off["feat/query_layer0"] > 5 and off["saam/query_attention"] > 5
