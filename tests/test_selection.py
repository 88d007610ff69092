"""Selection: the best validated state is kept, comes back after whatever stopped the training, and is put in place."""

import pytest
import torch
from core_tools import QUIET, SIZE, TEN, Line, at, panet, shapes

from fsslib import Protocol
from fsslib.errors import TrainingError
from fsslib.experiments import check_parameters, recipe
from fsslib.nn.backbones.cached import CachedBackbone
from fsslib.training import Selection, fit, validation_score

SMALL = {"checkpoint": None, "size": 33, "batch": 2, "episodes": 4, "shots": [1], "accelerator": "cpu"}


class Scripted:
    """Scores 1, 5, 2, 5, 4 for the model after steps 2, 4 ... 10, told apart by the buffer that counts steps."""

    def __init__(self, fails: int | None = None):
        self.fails, self.seen = fails, []

    def __call__(self, model):
        step = int(model.moved)
        self.seen.append(step)
        if step == self.fails:
            self.fails = None
            raise KeyboardInterrupt
        return {2: 1.0, 4: 5.0, 6: 2.0, 8: 5.0, 10: 4.0}[step]


def chosen(score, **how):
    return Selection(score, **{"every": 2, "steps": 10, **how})


def whole():
    model, selection = Line(), chosen(Scripted())
    history = fit(model, at, TEN, callback=selection, **QUIET)
    last = model.weight.detach().clone()
    selection.restore(model)
    return model, selection, history.rows, last


def test_the_first_of_the_best_states_is_restored():
    model, selection, rows, last = whole()
    four = {}
    fit(Line(), at, TEN, callback=lambda step, net: four.update({step: net.weight.detach().clone()}), **QUIET)
    assert torch.equal(model.weight, four[3])
    assert selection.summary() == {"step": 4, "val_miou": 5.0} and int(model.moved) == 4
    assert [i for i, row in enumerate(rows, 1) if "val_miou" in row] == [2, 4, 6, 8, 10]
    assert not torch.equal(model.weight, last), "the training itself went on from its last state"


@pytest.mark.parametrize("fails", [2, 4, 8, 10])
def test_a_validation_that_broke_is_made_up_for(tmp_path, fails):
    model, selection, rows, _ = whole()
    again, second = Line(), chosen(Scripted(fails))
    with pytest.raises(KeyboardInterrupt):
        fit(again, at, TEN, callback=second, folder=tmp_path, **QUIET)
    again, second = Line(), chosen(Scripted())
    history = fit(again, at, TEN, callback=second, folder=tmp_path, **QUIET)
    assert second.score.seen[0] == fails and history.rows == rows
    second.restore(again)
    assert torch.equal(model.weight, again.weight) and second.summary() == selection.summary()
    third = chosen(lambda model: pytest.fail("validated again")) if fails != 10 else chosen(Scripted())
    fit(Line(), at, TEN, callback=third, folder=tmp_path, **QUIET)
    assert third.summary() == selection.summary(), "a finished training still knows"


def test_a_run_is_not_resumed_with_another_selection(tmp_path):
    fit(Line(), at, TEN, callback=chosen(Scripted(), rules="a"), folder=tmp_path, **QUIET)
    for other in (None, chosen(Scripted(), rules="b"), chosen(Scripted(), rules="a", every=5)):
        with pytest.raises(TrainingError, match=r"another run \(other callback\)"):
            fit(Line(), at, TEN, callback=other, folder=tmp_path, **QUIET)


def test_odd_scores_and_lengths():
    scores = iter([float("nan"), 3.0, float("nan")])
    selection = Selection(lambda model: next(scores), every=4, steps=10)
    rows = fit(Line(), at, TEN, callback=selection, **QUIET).rows
    assert [i for i, row in enumerate(rows, 1) if "val_miou" in row] == [4, 8, 10], "the last state is validated too"
    assert selection.summary()["step"] == 8
    for every in (0, 2.0, True):
        with pytest.raises(TrainingError, match="whole number"):
            chosen(Scripted(), every=every)
    with pytest.raises(TrainingError, match="no state was validated"):
        chosen(Scripted()).restore(Line())


def test_validation_leaves_the_model_as_it_was():
    model = panet(bn="batch").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score, identity = validation_score(shapes("test"), Protocol(input_size=SIZE, episodes=3), shot=2)
    first = score(model)
    assert first == score(model) and 0 <= first <= 100 and model.training and model.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    other = validation_score(shapes("test"), Protocol(input_size=SIZE, episodes=4), shot=2)[1]
    assert identity != other


def test_validation_classes_take_no_part_in_the_training():
    p = check_parameters({**SMALL, "selection": "val_classes", "validate_every": 2, "episodic_steps": 5})
    train_set, test_set = recipe.datasets(p)
    plain = recipe.datasets(check_parameters(SMALL))
    held_back = set(plain[0].classes) - set(train_set.classes)
    assert len(held_back) == recipe.HELD_BACK and test_set.hash() == plain[1].hash()
    seen = {value for i in range(60) for value in train_set[i][1].unique().tolist()}
    assert not seen & held_back and "selection     val_classes" in recipe.protocol(p).card()
    net = recipe.model(p)
    history = recipe.train(p, net, train_set)["episodic training"]
    found = {i: row["val_miou"] for i, row in enumerate(history.rows, 1) if "val_miou" in row}
    assert list(found) == [2, 4, 5]
    begun = history.selected.pop("start")
    assert begun == recipe.selection(p).score(recipe.model(p)), "the start is validated, too"
    found = {0: begun, **found}
    best = max(found.values())
    assert history.selected == {"step": min(i for i in found if found[i] == best), "val_miou": round(best, 4)}
    assert recipe.selection(p).score(net) == best, "the net that comes back is the one that scored best"


def test_a_training_that_only_harms_is_undone(monkeypatch):
    """Every validation is worse than the one before: what is selected is the model as it began."""
    scores = iter([30.0, 20.0, 10.0])
    monkeypatch.setattr(recipe, "validation_score", lambda *args, **how: (lambda model: next(scores), "falling"))
    rules = {"selection": "val_classes", "validate_every": 2, "episodic_steps": 4, "freeze_backbone": True, "width": 8}
    p = check_parameters(SMALL | rules)
    net, untrained = recipe.model(p), recipe.model(p)
    history = recipe.train(p, net, recipe.datasets(p)[0])["episodic training"]
    assert history.selected == {"step": 0, "val_miou": 30.0, "start": 30.0}
    assert torch.equal(net.project.weight, untrained.project.weight)


def test_selection_keeps_the_features_of_a_frozen_backbone():
    rules = {"selection": "val_classes", "validate_every": 1, "episodic_steps": 2, "freeze_backbone": True, "width": 4}
    p = check_parameters(SMALL | rules)
    net = recipe.model(p)
    assert isinstance(net.backbone, CachedBackbone) and recipe.protocol(p).augmentation == "none"
    recipe.train(p, net, recipe.datasets(p)[0])
    misses = net.backbone.misses
    recipe.selection(p).score(net)
    assert net.backbone.misses == misses > 0
