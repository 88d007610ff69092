"""Would the golden comparisons notice a mistake? Plant the likely ones and see that they fail."""

import copy

import asgnet_tools
import hdmnet_tools
import planted_asgnet
import planted_hdmnet
import planted_sdaanet
import pytest
import sdaanet_tools
import torch
from golden_tools import ROOT_GOLDEN, gradient_norms, officially_named, read_golden
from hdmnet_tools import TYPICAL, typical_error
from planted_asgnet import BINS, TRAINING
from planted_hdmnet import ATTACHED, EPS, ONE, TRAIN

from fsslib import load_official
from fsslib.models.base import FewShotModel
from fsslib.ops import masked_pool

TOOLS = {"sdaanet": sdaanet_tools, "asgnet": asgnet_tools, "hdmnet": hdmnet_tools}
MISTAKES = {"sdaanet": planted_sdaanet, "asgnet": planted_asgnet, "hdmnet": planted_hdmnet}
# Of those that the reduced file notices, too, the authors' numbers are asked where it is known by how much they move.
PLANTED = [
    (method, what)
    for method, planted in MISTAKES.items()
    for what, error in planted.PLANTED.items()
    if what not in planted.REDUCED_TOO or error.known
]
REDUCED_TOO = [(method, what) for method, planted in MISTAKES.items() for what in planted.REDUCED_TOO]
# How far a mistake must move the tensor that tells, in units of the tolerance: it shall not only just fail.
CLEAR, CLEAR_REDUCED = {"sdaanet": 5, "asgnet": 5, "hdmnet": 100}, {"sdaanet": 5, "asgnet": 5, "hdmnet": 15}


def called(method, model, episode, name):
    """Everything inside a forward pass, or with a file of the training inside the losses."""
    return TOOLS[method].record(model, episode, "losses" if name == TRAIN else "forward")


@pytest.fixture(scope="module")
def scene(shared):
    """Method and file -> golden tensors, metadata, episode, model, and true features: costly and seldom in question.

    That without a mistake all is well, test_golden_METHOD says.
    """
    models, scenes = {}, {}

    @torch.no_grad()
    def one(method, name):
        if (method, name) not in scenes:
            tools = TOOLS[method]
            golden, facts, episode = tools.golden_file(shared, name)
            told = {"sdaanet": "resnet50", "asgnet": facts.get("pyramid"), "hdmnet": facts}[method]
            variant = method, facts.get("shot") if method == "hdmnet" else told
            model = models[variant] = models.get(variant) or tools.official_model(shared, told)
            if name == BINS:
                model = copy.deepcopy(model)
                model.context.scales = tuple(facts["ppm_scales"])
            model.train(name == TRAIN)
            scenes[method, name] = golden, facts, episode, model, model.features(episode)
        return scenes[method, name]

    return one


@pytest.mark.parametrize(("method", "what"), PLANTED)
@torch.no_grad()
def test_the_comparison_would_fail(method, what, scene, monkeypatch):
    planted, tools = MISTAKES[method], TOOLS[method]
    error = planted.PLANTED[what]
    key, name = error.key or planted.KEY, error.file or planted.FILE
    golden, _, episode, model, features = scene(method, name)
    if not error.features:
        monkeypatch.setattr(model, "features", lambda _: features)
    error.plant(monkeypatch, model.train(name == TRAIN))
    off = tools.excess({key: called(method, model, episode, name)[1][key]}, golden)[key]
    assert off > CLEAR[method]
    if error.known:
        tolerance = 1e-4 if key.startswith("sdpm/kd_") else 1e-5
        # The README gives one digit.
        assert 0.6 * error.known < off * tolerance < 1.6 * error.known


@pytest.mark.parametrize("what", TRAINING)
def test_the_comparison_of_asgnet_s_training_would_fail(what, shared, scene, monkeypatch):
    plant, key = TRAINING[what]
    model = scene("asgnet", planted_asgnet.ONE)[3]
    golden, facts, episode = asgnet_tools.golden_file(shared, "train_1shot")
    plant(monkeypatch, model)
    try:
        losses, found = called("asgnet", model.train(), episode, TRAIN)
        found["grad_norms"] = gradient_norms(losses["total"], officially_named(model, facts["grad_names"]))
    finally:
        load_official(model.eval(), asgnet_tools.official_state(shared, True))
    assert asgnet_tools.excess({key: found[key]}, golden)[key] > 5


@pytest.mark.parametrize("what", ["detached teacher", "one backbone call for all images"])
def test_the_comparison_of_sdaanet_s_training_would_fail(what, shared, scene, monkeypatch):
    golden, facts, episode = sdaanet_tools.golden_file(shared, "train_r50_1shot")
    model = scene("sdaanet", planted_sdaanet.FILE)[3]
    model.backbone.set_bn("batch")
    if what == "detached teacher":
        monkeypatch.setattr(model.sdpm, "detach_teacher", True)
    else:
        monkeypatch.setattr(FewShotModel, "batch_statistics", False)
    try:
        losses, found = called("sdaanet", model.train(), episode, TRAIN)
        off = sdaanet_tools.excess(found, golden, train=True)
        order = facts["gradnorm_names"]
        norms = gradient_norms(losses["kd"], officially_named(model, order))
    finally:
        model.eval().backbone.set_bn("frozen")
        load_official(model, sdaanet_tools.official_state(shared, "resnet50"))
    if what == "detached teacher":
        assert max(off.values()) <= 1, "no value shows it"
        at = order.index("down_query.0.weight")
        assert norms[at] == -1 and golden["gradnorm/kd"][at] > 0
    else:
        assert off["feat/query_layer0"] > 5 and off["saam/query_attention"] > 5


def test_the_divisor_of_sdaanet_s_pooling(shared):
    """In the logits 1e-5 instead of 5e-4 hides; a mask of a single pixel shows it."""
    units, _ = read_golden(shared / "golden/sdaanet/units.safetensors")
    features, mask, expected = (units[f"units/gap_{k}"] for k in ("feat", "mask_single", "out_single"))
    for eps, agrees in ((5e-4, True), (1e-5, False), (1e-3, False)):
        off = (masked_pool(features, mask[:, 0], eps)[..., None, None] - expected).abs().max()
        assert bool(off <= 1e-5 * expected.abs().max()) == agrees


@torch.no_grad()
def test_a_wrong_epsilon_shows_in_hdmnet_s_typical_error(scene, monkeypatch):
    golden, _, episode, model, features = scene("hdmnet", ONE)
    monkeypatch.setattr(model, "features", lambda _: features)
    before = typical_error(called("hdmnet", model.eval(), episode, ONE)[1], golden)
    EPS(monkeypatch, model)
    after = typical_error(called("hdmnet", model, episode, ONE)[1], golden)
    assert after > max(1.3 * TYPICAL, 2 * before)


def test_a_learning_teacher_shows_in_hdmnet_s_gradients(scene, monkeypatch):
    golden, facts, episode, model, _ = scene("hdmnet", TRAIN)
    ATTACHED(monkeypatch, model)
    losses, found = called("hdmnet", model.train(), episode, TRAIN)
    assert max(hdmnet_tools.excess(found, golden).values()) <= 1, "no value shows it"
    found = {"grad_norms": gradient_norms(losses["total"], officially_named(model, facts["grad_names"]))}
    assert hdmnet_tools.excess(found, golden)["grad_norms"] > 5


@pytest.fixture(scope="module")
def reduced():
    """Method (of ASGNet, with the decoder) -> stored numbers, episode, model and true features."""
    kept = {}

    @torch.no_grad()
    def one(method, aspp):
        if (method, aspp) not in kept:
            stored, _ = read_golden(ROOT_GOLDEN / f"{method}.safetensors")
            model, episode = TOOLS[method].reduced_model(*[False] * aspp), TOOLS[method].reduced_episode(stored)
            kept[method, aspp] = stored, episode, model, model.features(episode)
        return kept[method, aspp]

    return one


@pytest.mark.parametrize(("method", "what"), REDUCED_TOO)
def test_the_reduced_file_notices_too(method, what, reduced, monkeypatch):
    """Where the authors' numbers are absent. That without a mistake all is well, test_golden_all says."""
    key, error, tools = MISTAKES[method].REDUCED_TOO[what], MISTAKES[method].PLANTED.get(what), TOOLS[method]
    plant, key = (error.plant, key) if isinstance(key, str) else key
    stored, episode, model, features = reduced(method, key.startswith("aspp_"))
    if error and not error.features:
        monkeypatch.setattr(model, "features", lambda _: features)
    plant(monkeypatch, model.eval())
    with torch.no_grad():
        moved = model.features(episode)  # once for all that an evaluation asks
    monkeypatch.setattr(model, "features", lambda _: moved)
    off = tools.reduced_excess({key: tools.reduced_evaluation(model, episode)[key]}, stored)[key]
    assert off > CLEAR_REDUCED[method]


@pytest.mark.parametrize("what", ["a learning teacher", "class_index not left out"])
def test_hdmnet_s_reduced_training_notices_too(what, reduced, monkeypatch):
    stored, episode, model, _ = reduced("hdmnet", False)
    planted = planted_hdmnet.PLANTED
    (planted[what].plant if what in planted else ATTACHED)(monkeypatch, model)
    off = hdmnet_tools.reduced_excess(hdmnet_tools.reduced_training(model, episode), stored)
    if what == "a learning teacher":
        assert off.pop("gradnorms_way_distill") > 5 and off.pop("gradnorms_ways_total") > 5
        assert max(off.values()) <= 1, "no value shows it"
    else:
        assert off["way_losses"] > 15 and off["gradnorms_way_main"] > 5 and off["gradnorms_way_distill"] <= 1
