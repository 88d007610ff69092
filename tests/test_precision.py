"""Models in half, bfloat16 and double precision segment, are scored, shown and saved like the one they were made of."""

import copy

import numpy as np
import pytest
import torch
from core_tools import built, panet, random_episode, shapes

from fsslib import load_model, save_model, segment
from fsslib.errors import ModelError
from fsslib.evaluation import evaluate
from fsslib.models.base import in_single_precision
from fsslib.protocol import Protocol
from fsslib.training import Schedule, fit
from fsslib.widgets.explained_models import ExplainedModel

KINDS = [torch.half, torch.bfloat16, torch.double]
RNG = np.random.default_rng(0)
QUERY, SUPPORT = RNG.integers(0, 255, (2, 40, 48, 3), np.uint8)
MASK = np.zeros((40, 48), np.uint8)
MASK[8:30, 10:30] = 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("method", ["asgnet", "hdmnet", "panet", "sdaanet"])
def test_every_method_segments_in_every_precision(method, kind):
    model = built(method, **({} if method == "panet" else {"width": 32})).to(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mask = segment(QUERY, SUPPORT, MASK, model=model, size=65)
    assert np.array_equal(mask, segment(QUERY, SUPPORT, MASK, model=copy.deepcopy(model).float(), size=65))
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    with pytest.raises(ModelError, match=r"call model\.float\(\)"):
        model(random_episode())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_other_door(kind, tmp_path):
    model, single = panet().to(kind), panet().to(kind).float()
    data, rules = shapes("test"), Protocol(input_size=33, episodes=4)
    for cache in (None, "memory"):
        scores = [evaluate(net, data, rules, cache=cache, progress=False).scores[1] for net in (model, single)]
        assert np.array_equal(scores[0].table, scores[1].table)
    episode = random_episode()
    assert torch.equal(ExplainedModel(model)(episode).logits, ExplainedModel(single)(episode).logits)
    back = load_model(save_model(model, tmp_path / "m.safetensors"))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in single.state_dict().items())
    with pytest.raises(ModelError, match=r"call model\.float\(\)"):
        fit(model, lambda step: random_episode(), Schedule(1, accelerator="cpu"), name="o", progress=False)
    assert in_single_precision(single) is single


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.compile, lambda m: torch.nn.DataParallel(m.half())])
def test_wrapped_models_segment(wrap):
    model = panet()
    mask = segment(QUERY, SUPPORT, MASK, model=wrap(model), size=65)
    assert np.array_equal(mask, segment(QUERY, SUPPORT, MASK, model=model, size=65))


def test_what_is_no_method_is_refused():
    for model in (torch.nn.Linear(1, 1), torch.nn.DataParallel(torch.nn.Linear(1, 1)), "panet"):
        with pytest.raises(ModelError, match="expected a method"):
            segment(QUERY, SUPPORT, MASK, model=model)
