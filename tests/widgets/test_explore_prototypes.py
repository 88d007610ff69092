"""explore_prototypes: what is on display is what PANet computes, and every control moves what it names."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from explorer_tools import by_model, counted, document, keys, overlap, own, panel

from fsslib import load_dataset
from fsslib.data.weak_annotations import annotate
from fsslib.errors import DatasetError
from fsslib.models.panet import PANet
from fsslib.ops import upsample
from fsslib.widgets import explore_prototypes, strokes

EXPLORER, METHOD = "explore_prototypes", "panet"
BOX = {"tool": "box", "label": 1, "points": [[60, 12], [84, 36]]}
DRAWING = document(BOX, size=(97, 97))


def test_at_first_it_shows_what_the_model_computes(explorer, net):
    facts = explorer.scene.facts
    found = by_model(net, facts["episode"])
    assert torch.equal(facts["prediction"], found.masks()[0])
    torch.testing.assert_close(facts["probability"], found.logits.softmax(1)[0, 1])
    torch.testing.assert_close(facts["prototype"], found.maps["prototypes"][0, 1])
    torch.testing.assert_close(facts["background"], found.maps["prototypes"][0, 0])
    torch.testing.assert_close(20 * facts["cosine"], found.maps["similarity"][0])
    assert facts["iou"] == pytest.approx(overlap(found.masks()[0], facts["episode"].query_masks[0]))
    assert facts["moved"] == pytest.approx(1, abs=1e-5) and f"IoU {facts['iou']:.0%}" in explorer.scene.words
    assert keys(explorer) == ["support 0", "query", "object", "background", "probability", "prediction", "truth"]


@pytest.mark.parametrize("source", ["scribble", "box"])
def test_weak_annotations_are_those_of_the_library(explorer, net, source):
    facts = explorer.set(shots=2, source=source).scene.facts
    episode = facts["episode"]
    masks = torch.stack([annotate(mask, source) for mask in episode.support_masks[0, 0]])
    found = by_model(net, replace(episode, support_masks=masks[None, None]))
    assert torch.equal(facts["masks"], masks) and torch.equal(facts["prediction"], found.masks()[0])
    assert facts["moved"] < 0.999


def test_what_a_source_leaves_out_is_pooled_nowhere(explorer):
    whole = explorer.scene.facts["masks"][0]
    halves = [explorer.set(source=f"{side} half").scene.facts["masks"][0] for side in ("left", "right")]
    left, right = (half == 1 for half in halves)
    assert torch.equal(left | right, whole == 1) and not (left & right).any()
    assert left.nonzero()[:, 1].max() < right.nonzero()[:, 1].min()
    assert (halves[0][right] == 255).all() and torch.equal(halves[0] == 0, whole == 0)
    assert 0.4 < left.sum() / (whole == 1).sum() < 0.6
    inside = explorer.set(source="inside").scene.facts["masks"][0]
    assert 0 < (inside == 1).sum() < (whole == 1).sum()
    near = F.max_pool2d((whole != 1).float()[None, None], 5, 1, 2)[0, 0] > 0  # half a cell is two pixels here
    assert not (near & (inside == 1)).any() and ((whole == 1) & ~near == (inside == 1)).all()


def test_a_click_takes_the_feature_of_that_cell(explorer, net):
    facts = explorer.set(shots=2, point={"panel": "support 1", "x": 33, "y": 70}).scene.facts
    assert explorer.controls["source"].value == "one cell"
    features = by_model(net, facts["episode"]).maps["support_features"]
    torch.testing.assert_close(facts["prototype"], features[0, 0, 1, :, 18, 8])
    assert (facts["masks"][0] != 1).all() and facts["masks"][1, 70, 33] == 1 and (facts["masks"][1] == 1).sum() <= 25
    assert panel(explorer, "support 1").pick and panel(explorer, "support 1").message()["at"] == [33, 70]
    beside, far = ({"panel": "support 1", "x": x, "y": y} for x, y in ((34, 71), (60, 20)))
    assert torch.equal(explorer.set(point=beside).scene.facts["prototype"], facts["prototype"]), "the same cell"
    assert not torch.allclose(explorer.set(point=far).scene.facts["prototype"], facts["prototype"])


@pytest.mark.parametrize("point", [{"panel": "support 4", "x": 1, "y": 1}, {"panel": "support 0", "x": 97, "y": 1}, {}])
def test_a_point_out_of_date_is_the_middle_of_the_object(explorer, point):
    facts = explorer.set(point=point, source="one cell").scene.facts
    given = facts["episode"].support_masks[0, 0, 0] == 1
    middle = given.nonzero().double().mean(0)
    cell = (facts["masks"][0] == 1).nonzero().double()
    assert cell.shape[0] and (cell.mean(0) - middle).norm() < 6, "its cell is about where the object's middle is"


def test_a_drawing_is_the_support_mask(explorer, net):
    explorer.set(source="drawing")
    assert "draw" in explorer.scene.words and not explorer.scene.facts["prototype"].any()
    assert explorer.controls["drawing"].layout.display is None
    explorer.set(drawing=DRAWING)
    facts, episode = explorer.scene.facts, explorer.scene.facts["episode"]
    mask = torch.from_numpy(strokes.rasterise(DRAWING, 97, 97)).long()
    found = by_model(net, replace(episode, support_masks=mask[None, None, None]))
    assert torch.equal(facts["masks"][0], mask) and torch.equal(facts["prediction"], found.masks()[0])
    explorer.set(source="box")
    assert explorer.controls["drawing"].layout.display == "none"


def test_strokes_on_the_page_draw_again_and_belong_to_their_picture(explorer):
    easel = explorer.set(source="drawing").controls["drawing"]
    runs, first = explorer.runs, easel.painter
    first.document = DRAWING
    assert explorer.runs == runs + 1 and (explorer.scene.facts["masks"][0] == 1).sum() == 24 * 24
    explorer.set(support=3)
    assert not (explorer.scene.facts["masks"][0] == 1).any(), "another picture has nothing on it"
    assert easel.painter is not first and len(easel.children) == 1
    shown = explorer.scene.facts["episode"].support_images[0, 0, 0]
    assert (easel.painter.image.float().mean((1, 2))[0] - 255 * (0.229 * shown[0].mean() + 0.485)).abs() < 1
    explorer.set(support=4, source="mask")
    explorer.set(support=3, source="drawing")
    assert not easel.painter.mask.any()
    explorer.set(query=9, support=0)
    assert (explorer.scene.facts["masks"][0] == 1).sum() == 24 * 24, "the drawing has come back with its picture"
    with pytest.raises(DatasetError, match="50 x 50"):
        explorer.set(drawing=document(BOX, size=(50, 50)))


def test_alpha_moves_confidence_and_runs_no_model(explorer, net, monkeypatch):
    calls = counted(monkeypatch, PANet, "forward")
    explorer.set(source="mask")
    sharp, prediction = explorer.scene.facts["sure"], explorer.scene.facts["prediction"]
    explorer.set(scale=5)
    facts = explorer.scene.facts
    assert facts["sure"] < sharp and torch.equal(facts["prediction"], prediction)
    torch.testing.assert_close(facts["probability"], by_model(net, facts["episode"], scale=5).logits.softmax(1)[0, 1])
    calls.clear()
    for change in ({"scale": 7}, {"source": "box"}, {"source": "one cell"}, {"drawing": DRAWING}):
        explorer.set(**change)
    assert not calls, "only the episode and the stage call for the model"
    explorer.set(query=6)
    explorer.set(stage="layer3")
    assert len(calls) == 2


def test_another_stage_is_matched(explorer, net):
    facts = explorer.set(stage="layer2").scene.facts
    found = by_model(net, facts["episode"], stage="layer2")
    assert torch.equal(facts["prediction"], found.masks()[0]) and len(facts["prototype"]) == 32
    assert "layer4, not layer2" in explorer.scene.words


def test_class_fold_and_query_change_the_episode(explorer):
    for change in ({"cls": 6}, {"query": 11}, {"support": 4}, {"fold": 1}):
        before = explorer.scene.facts
        after = explorer.set(**change).scene.facts
        assert not torch.equal(before["cosine"], after["cosine"]), change
    assert len(explorer.set(shots=3).scene.facts["masks"]) == 3
    assert keys(explorer)[:3] == [f"support {k}" for k in range(3)]


def test_parts_are_those_that_were_drawn():
    data = load_dataset("shapes", fold=0, split="test", knobs={"parts": 2})
    both = {"two parts": data, "one part": load_dataset("shapes", fold=0, split="test")}
    explorer = explore_prototypes(both, source="part 2")
    facts, index = explorer.scene.facts, data.images_of(data.classes[0])[0]
    wanted = (data.truth(index).parts == 2) & (facts["episode"].support_masks[0, 0, 0] == 1)
    assert torch.equal(facts["masks"][0] == 1, wanted) and wanted.any()
    assert "left half" not in explorer.controls["source"].options
    explorer.set(data="one part")
    assert explorer.controls["source"].value == "mask" and "left half" in explorer.controls["source"].options


def test_own_model_and_data():
    mine, model = own("explore_prototypes", "panet", width=8, scale=12.5)
    facts = mine.scene.facts
    assert mine.values["scale"] == 12.5
    assert "stage" not in mine.controls, "a projection was made for one stage"
    assert facts["prediction"].shape == (65, 65) and len(facts["prototype"]) == 8
    with torch.no_grad():
        scores = model.eval()(facts["episode"]).logits
    torch.testing.assert_close(upsample(12.5 * facts["cosine"][None], (65, 65)), scores)
