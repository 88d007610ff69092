"""An experiment's steps outside a notebook: what is trained, what the card says, what a result may hold."""

import itertools
import time
import warnings

import numpy as np
import pytest
import torch
from coco_tree import make_coco
from folder_tree import class_folders, coco, images_masks

from fsslib import EpisodeSampler, Protocol, build_model, load_dataset
from fsslib.analysis.baselines import baselines
from fsslib.errors import ParameterError, TrainingError
from fsslib.evaluation import Evaluation, episode_lists
from fsslib.experiments import check_parameters, recipe
from fsslib.experiments.results import check_result
from fsslib.metrics import Scores
from fsslib.nn.backbones import build_backbone
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.pretraining import pretrain
from fsslib.training import Schedule, fabric, train_episodes

SMALL = {"checkpoint": None, "size": 33, "batch": 2, "episodes": 4, "shots": [1], "accelerator": "cpu"}


def parameters(**given):
    return check_parameters(SMALL | given)


def made(**given):
    """Parameters, training and test split, and the model."""
    p = parameters(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that a small data set lacks
        return p, *recipe.datasets(p), recipe.model(p)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_projection_learns_on_cached_features(precision):
    p, train_set, test_set, net = made(freeze_backbone=True, width=8, episodic_steps=2, precision=precision)
    assert isinstance(net.backbone, CachedBackbone)
    before = net.project.weight.detach().clone()
    recipe.score(p, recipe.features_only(net), test_set)
    known = net.backbone.hits + net.backbone.misses
    recipe.train(p, net, train_set)
    assert not torch.equal(before, net.project.weight)
    misses = net.backbone.misses
    recipe.score(p, net, test_set)
    assert net.backbone.misses == misses and known > 0, "training must not empty the cache of the test features"


def test_options_reach_the_model_the_reference_and_the_card():
    p, _, test_set, net = made(options={"align": False, "last": "layer3", "bn": "batch", "stage": "layer2"})
    reference = recipe.features_only(net)
    assert (net.align, net.backbone.deepest, recipe.protocol(p).bn) == (False, "layer3", "batch")
    assert net.stage == reference.stage == "layer2"
    assert recipe.score(p, reference, test_set).protocol.bn == "batch"


def test_a_card_does_not_lie():
    for given in ({"protocol": "published"}, {"freeze_backbone": True, "width": 4, "options": {"bn": "batch"}}):
        with pytest.raises(ParameterError, match=r"leave|set dataset"):
            parameters(**given)
    # The data set knows better what its folds are.
    data = load_dataset("shapes", fold=4, split="test", fold_scheme="held_out_shape", size=33, pool=40)
    _, _, protocol = episode_lists(data, Protocol(input_size=33, episodes=2), (1,))
    assert protocol.fold_scheme == "held_out_shape"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said_in_our_words():
    with pytest.raises(TrainingError, match=r"'gpu' is not usable here.*take 'cpu'"):
        fabric("gpu", "32")


def test_pre_training_depends_on_its_schedule_alone():
    data = load_dataset("shapes", size=33, pool=40, val_classes=0)
    torch.manual_seed(0)
    start = build_backbone("tiny").state_dict()
    ends = []
    for chance in (1, 2):
        backbone = build_backbone("tiny")
        backbone.load_state_dict(start)
        torch.manual_seed(chance)
        pretrain(backbone, data, Schedule(2, batch=2), size=33, progress=False)
        ends.append(backbone.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)


def test_pre_training_thaws_what_the_method_keeps_frozen():
    options = {"scales": [4, 2]}
    p, train_set, _, net = made(method="sdaanet", width=4, options=options, pretrain_steps=1, episodic_steps=1)
    assert net.freeze
    states = [{name: value.clone() for name, value in net.backbone.state_dict().items()}]
    for stage in ("pretrain", "episodic"):
        assert recipe.train(p, net, train_set, stage=stage)
        states.append({name: value.clone() for name, value in net.backbone.state_dict().items()})
        assert not any(x.requires_grad for x in net.backbone.parameters())
    moved = [any(not torch.equal(value, b[name]) for name, value in a.items()) for a, b in itertools.pairwise(states)]
    assert moved == [True, False], "the backbone learns in the pre-training and in it alone"


def test_training_and_test_may_have_sizes_of_their_own(monkeypatch):
    training = {"decay": "poly", "clip": None, "warmup": 0}
    p, train_set, test_set, net = made(train_size=41, episodic_steps=1, training=training)
    assert (train_set[0][0].shape[-1], test_set[0][0].shape[-1]) == (41, 33)
    seen = []

    def spy(net, sampler, schedule, **how):
        seen.append((sampler.batch(0, 1).query_images.shape[-1], schedule.decay, schedule.clip, schedule.warmup))
        return train_episodes(net, sampler, schedule, **how)

    monkeypatch.setattr(recipe, "train_episodes", spy)
    recipe.train(p, net, train_set)
    assert seen == [(41, "poly", None, 0)] and recipe.score(p, net, test_set).protocol.card().count(" 41 ") == 1


def test_a_class_without_a_counted_pixel_does_not_spoil_the_result():
    table = np.array([[[50, 5, 5], [10, 5, 5]], [[60, 0, 0], [0, 0, 0]]])
    scores = Scores(table, np.array([[1], [2]]), np.zeros(2, int))
    entry = Evaluation({1: scores}, Protocol(list_hash="x"), {1: 0.1}, ())
    result = recipe.result(parameters(), {"trained": entry}, {1: "one", 2: "two"}, time.time())
    check_result(result)
    assert result["scores"]["1"]["per_class"] == {"one": 50.0, "two": None}


def test_alignment_uses_the_temperature_of_the_model():
    data = load_dataset("shapes", size=33, pool=40)
    episode = EpisodeSampler(data, Protocol(input_size=33)).batch(0, 2)
    model = build_model("panet", backbone="tiny").train()
    low, high = (model.losses(episode)["align"].item() for model.scale in (1.0, 20.0))
    assert low != high


def test_baselines_count_like_the_protocol_and_need_no_more_shots_than_asked():
    data = load_dataset("shapes", split="test", size=33, pool=10, val_classes=0)  # two images a class
    scores = baselines(data, Protocol(input_size=33, episodes=20), shots=(1,))
    values = [s.miou for s in scores.values()]
    assert values == sorted(values), "each oracle knows more than the one before"


@pytest.mark.parametrize("layout", [images_masks, class_folders, coco])
def test_an_experiment_on_pictures_of_ones_own(tmp_path, layout):
    """From parameters to a result, through every step of the notebook."""
    layout(tmp_path)
    p, train_set, test_set, net = made(dataset="folder", root=str(tmp_path), pretrain_steps=2, episodic_steps=2)
    histories = recipe.train(p, net, train_set)
    assert len(histories["episodic training"].rows) == 2
    found = {"trained": recipe.score(p, net, test_set)}
    result = recipe.result(p, found, test_set.names, time.time(), histories)
    check_result(result)
    assert result["protocol"]["fold_scheme"] == "own classes, none held out" and result["protocol"]["name"] == "folder"
    assert "own classes" in found["trained"].protocol.card()


def test_an_experiment_on_coco(tmp_path):
    make_coco(tmp_path)
    options = {"fold_scheme": "contiguous"}
    p, train_set, test_set, net = made(dataset="coco", root=str(tmp_path), data_options=options)
    card = recipe.score(p, net, test_set).protocol
    assert card.fold_scheme == "category order, 20 a fold" and set(test_set.classes) <= set(range(1, 21))
    assert not set(train_set.classes) & set(test_set.classes)
