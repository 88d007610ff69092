"""The capstone: starter and worked example are methods like any other, and the notebook runs at a small size."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("matplotlib").use("agg")
pytest.importorskip("IPython")

from core_tools import panet  # noqa: E402

from fsslib import EpisodeSampler, Protocol, build_model, files, load_dataset, models  # noqa: E402
from tools import build  # noqa: E402

FOLDER = files.data_folder() / "capstone"
NAMES = {"starter": "starter.py", "mixture": "mixture.py"}


@pytest.fixture
def registered():
    before = dict(models._METHODS)
    for file in NAMES.values():
        models.use(FOLDER / file)
    yield
    models._METHODS.clear()
    models._METHODS.update(before)


@pytest.fixture
def episode():
    return EpisodeSampler(load_dataset("shapes", split="test", pool=40), Protocol(), shot=2).batch(0, 2)


def seeded(name, idea):
    torch.manual_seed(3)
    return build_model(name, backbone=panet().backbone, idea=idea).eval()


def test_without_its_idea_a_module_is_the_starter(registered, episode):
    """One switch, and it changes nothing else: the same start, the same answers."""
    plain = seeded("starter", False)(episode).logits
    assert torch.equal(seeded("starter", True)(episode).logits, plain), "the starter has no idea yet"
    assert torch.equal(seeded("mixture", False)(episode).logits, plain)
    with_idea = seeded("mixture", True)
    assert (with_idea(episode).logits - plain).abs().max() > 0.1
    with torch.no_grad():
        with_idea.mix.fill_(-40.0)  # w = 0
        assert torch.allclose(with_idea(episode).logits, plain, atol=1e-4)
        with_idea.mix.fill_(40.0)  # w = 1: on a support's own picture every object cell finds itself
        own = EpisodeSampler(load_dataset("shapes", split="test", pool=40), Protocol(), shot=1).batch(0, 2)
        own = replace(own, query_images=own.support_images[:, 0, 0], query_masks=own.support_masks[:, 0, 0])
        found = with_idea(own).masks()
    assert (found[own.query_masks == 1] == 1).float().mean() > 0.9


def test_it_learns_its_weight(registered, episode):
    net = seeded("mixture", True).train()
    net.losses(episode)["total"].backward()
    learned = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert learned == {"project.weight", "mix"} and float(net.mix.grad) != 0, "the backbone stays as it is"


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_at_a_small_size(registered, capsys, name):
    """Its cells, in one room, with two trainings of two steps; the page says what was measured."""
    space = {}
    for cell in build.load(build.SOURCES / "11_capstone.py").cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "<capstone>", "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                own = {"method": name, "plugin": str(FOLDER / NAMES[name])}
                space |= {"seeds": [0, 1], "steps": 2, "episodes": 6} | own
    (value, low, high), each = space["gains"]["ground"]
    assert low <= value <= high and len(each) == 2 and abs(sum(each) / 2 - value) < 1e-6
    assert (
        f"{value:+.1f} points of mIoU ({low:.1f} to {high:.1f}" in space["page"] and space["verdict"] in space["page"]
    )
    if name == "starter":
        assert (value, *each) == (0, 0, 0) and space["verdict"] == "not confirmed", "an idea that is not there"
    assert "2 trainings of 2 steps" in space["page"] and "hash" in capsys.readouterr().out
