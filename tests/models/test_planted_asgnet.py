"""Would the golden comparison of ASGNet notice a mistake? Plant the likely ones and see that it fails."""

import copy

import pytest
import torch
from asgnet_tools import (
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
from golden_tools import ROOT_GOLDEN, read_golden
from planted_asgnet import ASPP, BINS, FIVE, ONE, PLANTED, REDUCED_TOO, TRAINING, counted_as_placed

from fsslib import load_official
from fsslib.models.asgnet import published_seeds


def copied(model, scales):
    """The same parameters at other scales."""
    model = copy.deepcopy(model)
    model.context.scales = tuple(scales)
    return model


@pytest.fixture(scope="module")
def scenes(shared):
    """Model, golden tensors, episode and true features by file; the features are costly and seldom in question."""
    models = {pyramid: official_model(shared, pyramid) for pyramid in (True, False)}
    kept = {}
    for name in (ONE, FIVE, ASPP, BINS):
        golden, facts, episode = golden_file(shared, name)
        model = models[name != ASPP] if name != BINS else copied(models[True], facts["ppm_scales"])
        with torch.no_grad():
            kept[name] = model, golden, episode, model.features(episode), record(model, episode, "forward")[1]
    return kept


@pytest.mark.parametrize("what", PLANTED)
@torch.no_grad()
def test_the_comparison_would_fail(what, scenes, monkeypatch):
    error = PLANTED[what]
    model, golden, episode, features, clean = scenes[error.file]
    assert excess({error.key: clean[error.key]}, golden)[error.key] <= 1, "before the mistake everything agrees"
    if not error.features:
        monkeypatch.setattr(model, "features", lambda _: features)
    error.plant(monkeypatch, model)
    found = record(model, episode, "forward")[1]
    off = excess({error.key: found[error.key]}, golden)[error.key]
    assert off > 5, "the mistake must stand out, not only just fail"


@pytest.mark.parametrize("what", TRAINING)
def test_the_comparison_of_the_training_would_fail(what, shared, scenes, monkeypatch):
    plant, key = TRAINING[what]
    model = scenes[ONE][0]
    golden, facts, episode = golden_file(shared, "train_1shot")
    plant(monkeypatch, model)
    try:
        losses, found = record(model.train(), episode, "losses")
        named = {model.official_name(n): p for n, p in model.named_parameters()}
        grads = torch.autograd.grad(losses["total"], [named[n] for n in facts["grad_names"]])
        found["grad_norms"] = torch.stack([grad.double().norm() for grad in grads])
    finally:
        load_official(model.eval(), official_state(shared, True))
    assert excess({key: found[key]}, golden)[key] > 5


def test_the_counting_of_the_seeds(shared):
    """The authors' seeds alone do not tell how many the model uses; the specification does."""
    golden, _ = read_golden(shared / "golden/asgnet/unit_seeds.safetensors")
    mask = golden["mask.border"][None] == 1
    counts = [
        int(place(mask, (60, 60), 5, 100.0).counts) for place in (published_seeds, counted_as_placed(published_seeds))
    ]
    assert counts == [4, 5]


@pytest.fixture(scope="module")
def reduced():
    """Stored numbers, episode, and model with true features of both variants."""
    stored, _ = read_golden(ROOT_GOLDEN / "asgnet.safetensors")
    episode, kept = reduced_episode(stored), {}
    for pyramid in (True, False):
        model = reduced_model(pyramid)
        with torch.no_grad():
            kept[pyramid] = model, model.features(episode)
    return stored, episode, kept


@pytest.mark.parametrize("what", REDUCED_TOO)
def test_the_reduced_file_notices_too(what, reduced, monkeypatch):
    """Where the authors' numbers are absent. That without a mistake all is well, test_golden_asgnet says."""
    plant, key = REDUCED_TOO[what]
    stored, episode, kept = reduced
    model, features = kept[not key.startswith("aspp_")]
    if what not in PLANTED or not PLANTED[what].features:
        monkeypatch.setattr(model, "features", lambda _: features)
    plant(monkeypatch, model)
    assert reduced_excess({key: reduced_evaluation(model, episode)[key]}, stored)[key] > 5
