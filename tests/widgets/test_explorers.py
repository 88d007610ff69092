"""What holds for every explorer: quick, in line with its controls, models left alone, and errors that help."""

import time

import pytest
import torch
from explorer_tools import as_made, keys

from fsslib import build_model, widgets
from fsslib.errors import FsslibError, ModelError

# Three changes of each.
CHANGES = {
    "explore_episode": [{"method": "ASGNet"}, {"query": 7}, {"shots": 2}],
    "explore_prototypes": [{"query": 7}, {"source": "one cell"}, {"scale": 11}],
    "explore_distillation": [{"temperature": 0.2}, {"query": 4}, {"alpha": 0.0}],
    "explore_attention": [{"query": 7}, {"guides": "prior only"}, {"point": {"panel": "query", "x": 30, "y": 30}}],
    "explore_superpixels": [{"iterations": 7}, {"query": 4}, {"superpixels": 2}],
    "explore_correlation": [{"temperature": 0.2}, {"query": 4}, {"stage": 2}],
    "compare_methods": [{"marked": "true mask"}, {"query": 4}, {"support": 1}],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_quick_and_told(name):
    explorer = as_made(name)
    before = {p.key: p.message() for p in explorer.scene.panels}
    start = time.process_time()
    for change in CHANGES[name]:
        shown, runs = explorer.board.panels, explorer.runs
        explorer.set(**change)
        assert explorer.runs == runs + 1 and explorer.board.panels != shown, change
    assert time.process_time() - start < 3
    assert explorer.board.words == explorer.scene.words and all(p.alt for p in explorer.scene.panels)
    assert len(set(keys(explorer))) == len(keys(explorer))
    assert {p.key: p.message() for p in as_made(name).scene.panels} == before, "settings that come back show the same"


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_value_is_refused_and_changes_nothing(name):
    explorer = as_made(name)
    scene = explorer.scene
    with pytest.raises(FsslibError, match="query="):
        explorer.set(query="many")
    with pytest.raises(FsslibError, match=r"has no control 'pencil'; there are: .*query, .*point"):
        explorer.set(pencil=1)
    assert explorer.scene is scene


REFUSED = [
    ("explore_prototypes", "sdaanet", {"width": 8}, "found SDAANet, expected PANet"),
    ("explore_distillation", "panet", {}, "found PANet, expected SD-AANet with its gate"),
    ("explore_distillation", "sdaanet", {"width": 8, "sdpm": False}, "found SDAANet, .* with its gate"),
    ("explore_attention", "panet", {}, "with prior and attention"),
    ("explore_attention", "sdaanet", {"width": 8, "saam": False}, "with prior and attention"),
    ("explore_attention", "sdaanet", {"width": 8, "prior": False}, "with prior and attention"),
    ("explore_superpixels", "panet", {}, "found PANet, expected ASGNet"),
    ("explore_correlation", "panet", {}, "found PANet, expected HDMNet"),
]


@pytest.mark.parametrize(("name", "model", "options", "said"), REFUSED)
def test_other_methods_are_refused(name, model, options, said):
    with pytest.raises(ModelError, match=said):
        getattr(widgets, name)(model=build_model(model, backbone="tiny", **options))


@pytest.mark.parametrize("name", sorted({name for name, *_ in REFUSED}))
@pytest.mark.parametrize(("model", "said"), [(3, "found int"), (torch.nn.Linear(2, 2), "Linear")])
def test_what_is_no_method_is_refused(name, model, said):
    with pytest.raises(ModelError, match=said):
        getattr(widgets, name)(model=model)
