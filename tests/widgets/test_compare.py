"""The comparison of methods on a drawn support: sources of pictures, drawings, uploads, errors."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

import fsslib
from fsslib import build_model, files, load_dataset, load_model
from fsslib.checkpoints import shipped
from fsslib.errors import DatasetError
from fsslib.widgets import compare_methods, strokes
from fsslib.widgets.explorers import methods as compare

BOX = {"tool": "box", "label": 1, "points": [[5.0, 5.0], [40.0, 30.0]]}


def photograph(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def uploaded(picture=None, name="cat.png", content=None):
    """What ipywidgets hands over when a file was chosen."""
    if content is None:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        content = buffer.getvalue()
    told = {"name": name, "type": "image/png", "size": len(content), "last_modified": datetime.now(UTC)}
    return ({**told, "content": memoryview(content)},)


@pytest.fixture(scope="module")
def four():
    return {name: load_model(shipped(name)) for name in ("panet", "sdaanet", "asgnet", "hdmnet")}


def test_all_methods_get_the_drawing(four):
    found = compare_methods(four)
    recorded = strokes.load(files.data_folder() / "strokes" / "disc-stripes.json")
    assert found.painter.document == recorded, "the first example comes with a recorded drawing"
    facts = found.scene.facts
    assert list(facts["masks"]) == list(four) == list(facts["iou"])
    data = load_dataset("shapes", fold=0, split="test")
    support, query = (data[data.images_of(1)[i]][0] for i in (0, found.controls["query"].value))
    for name, model in four.items():
        wanted = fsslib.segment(query, support, found.painter, model=model)
        assert torch.equal(facts["masks"][name], torch.from_numpy(wanted)), name
    assert set(np.unique(facts["support_mask"])) == {0, 1, 255}
    assert "Your drawing overlaps the object" in found.scene.words


def test_a_stroke_changes_the_answer_and_the_true_mask_is_at_hand(four):
    found = compare_methods({"PANet": four["panet"]})
    before = found.scene.facts["masks"]["PANet"]
    found.painter.document = strokes.add(strokes.empty(97, 97), BOX)
    assert not torch.equal(found.scene.facts["masks"]["PANet"], before)
    assert found.scene.facts["support_mask"].sum() == 35 * 25
    data = load_dataset("shapes", fold=0, split="test")
    marked = found.set(marked="true mask").scene.facts["support_mask"]
    assert torch.equal(marked == 1, data[data.images_of(1)[0]][1] == 1)
    found.set(marked="your drawing")
    found.painter.clear()
    assert found.scene.facts["masks"] == {} and "Mark the object" in found.scene.words


def test_the_last_action_decides_where_a_picture_comes_from(four):
    found = compare_methods({"PANet": four["panet"]})
    painter = found.painter
    found.controls["query_file"].value = uploaded(photograph(60, 80))
    assert found.scene.facts["masks"]["PANet"].shape == (60, 80) and found.scene.facts["iou"] == {}
    assert "cat.png" in found.scene.panels[1].caption and found.painter is painter
    found.controls["support_file"].value = uploaded(photograph(50, 70, 1), "dog.png")
    assert found.painter is not painter and found.painter.image.shape == (3, 50, 70)
    assert "nothing marked yet" in found.scene.panels[0].caption
    assert found.controls["marked"].options == ("your drawing",), "nobody knows the truth of an upload"
    found.painter.document = strokes.add(found.painter.document, BOX)
    assert found.scene.facts["masks"]["PANet"].shape == (60, 80)
    found.set(query=11)
    assert found.scene.facts["masks"]["PANet"].shape == (97, 97) and found.scene.facts["iou"]
    assert found.painter.image.shape == (3, 50, 70), "the support stays"
    found.set(support=2)
    assert found.painter.image.shape == (3, 97, 97) and found.controls["marked"].options[1] == "true mask"
    found.set(fold=1)
    assert "disc/checker" in found.scene.panels[0].caption


def test_pictures_from_python(four):
    shape = {"tool": "brush", "label": 1, "width": 9, "points": [[20, 20], [40, 22]]}
    drawing = strokes.add(strokes.empty(50, 70), shape)
    pictures = {"support": photograph(50, 70), "query": photograph(400, 600, 2), "document": drawing}
    found = compare_methods({"PANet": four["panet"]}, **pictures)
    assert found.scene.facts["masks"]["PANet"].shape == (400, 600)
    assert max(found.scene.panels[1].pixels.shape) <= 320, "large pictures are shown smaller"
    found.use(query=photograph(30, 30))
    assert found.scene.facts["masks"]["PANet"].shape == (30, 30)
    found.use(support=photograph(20, 20), document=strokes.add(strokes.empty(20, 20), {**shape, "points": [[9, 9]]}))
    assert found.scene.facts["support_mask"].shape == (20, 20)
    with pytest.raises(DatasetError, match=r"no-such-file\.jpg"):
        found.use(support="no-such-file.jpg")
    with pytest.raises(DatasetError, match="drawn on 50 x 70"):
        compare_methods({"PANet": four["panet"]}, support=photograph(20, 20), document=drawing)


def test_an_upload_that_is_no_picture_is_told_and_changes_nothing(four):
    found = compare_methods({"PANet": four["panet"]})
    before = found.scene
    with pytest.raises(DatasetError, match=r"notes\.txt"):
        found.controls["query_file"].value = uploaded(name="notes.txt", content=b"not a picture")
    assert "notes.txt: no picture that can be read" in found.board.trouble and found.scene is before
    with pytest.raises(DatasetError, match="11 MB"):
        found.controls["query_file"].value = uploaded(name="huge.png", content=b"0" * (11 * 2**20))
    found.set(query=12)
    assert found.board.trouble == ""


def test_photographs_and_shipped_models_are_commented():
    found = compare_methods(query=photograph())
    assert "were trained on drawn shapes" in found.scene.words
    own = compare_methods({"mine": build_model("panet", backbone="tiny")}, query=photograph())
    assert "drawn shapes" not in own.scene.words


def test_slow_methods_do_not_hold_up_the_others(four, monkeypatch):
    """What is ready is shown, what is not keeps its last picture and says so."""
    monkeypatch.setattr(compare, "SLOW", 0)
    found, seen = compare_methods({"PANet": four["panet"], "ASGNet": four["asgnet"]}), []
    found.board.observe(lambda change: seen.append([panel["caption"] for panel in change["new"]]), "panels")
    found.set(query=9)
    waiting = [[seen[-1][-2], "ASGNet, computing …"]]
    assert [captions[-2:] for captions in seen[:-1]] == [["PANet, computing …", "ASGNet, computing …"], *waiting]
    assert "IoU" in seen[-1][-1] and "IoU" in seen[-1][-2]
