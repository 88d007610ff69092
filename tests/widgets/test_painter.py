"""The Python half of SupportPainter: what it takes and refuses, its mask, and the picture that stands in for it."""

import base64
import io
import subprocess
import sys
from functools import partial

import explorer_tools
import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.episode import Episode
from fsslib.errors import DatasetError
from fsslib.widgets import SupportPainter, strokes

GREY = np.full((40, 60, 3), 128, np.uint8)
OBJECT = {"tool": "box", "label": 1, "points": [[10, 5], [30, 25]]}
TRIANGLE = {"tool": "polygon", "label": 1, "points": [[0, 0], [20, 0], [0, 20]]}
HINT = {"tool": "scribble", "label": 0, "width": 4, "points": [[50, 5], [50, 35]]}


@pytest.fixture
def painter():
    return SupportPainter(GREY)


document = partial(explorer_tools.document, size=(40, 60))


def test_the_mask_follows_the_document(painter):
    assert painter.mask.shape == (40, 60) and painter.mask.dtype == np.uint8 and not painter.mask.any()
    painter.document = document(OBJECT)
    assert (painter.mask[5:25, 10:30] == 1).all() and painter.mask.sum() == 400
    painter.document = document(OBJECT, HINT)
    mask = painter.mask_tensor()
    assert mask.dtype == torch.long and mask.tolist() == strokes.rasterise(painter.document, 40, 60).tolist()
    assert mask[20, 50] == 0 and mask[20, 40] == 255 and mask[10, 20] == 1
    image, cls = torch.zeros(1, 1, 1, 3, 40, 60), torch.ones(1, 1, dtype=torch.long)
    Episode(image[:, 0, 0], None, image, mask[None, None, None], cls).validate()
    painter.document = document(TRIANGLE)
    assert painter.mask.sum() == 190 and painter.mask[5, 5] == 1 and "object 7.9%" in painter._summary
    with pytest.raises(DatasetError, match="three or more corners"):
        painter.document = {**document(), "history": [{**TRIANGLE, "points": [[0, 0], [20, 0]]}]}


def test_undo_redo_clear(painter):
    painter.undo()
    painter.document = document(OBJECT, HINT)
    painter.undo()
    assert painter.document["cursor"] == 1 and 255 not in painter.mask
    painter.redo()
    painter.redo()
    assert painter.document == document(OBJECT, HINT)
    painter.clear()
    assert not painter.mask.any()
    painter.undo()
    assert painter.document["cursor"] == 2 and painter.mask[10, 20] == 1
    painter.document = {**document(OBJECT), "size": None}
    assert painter.document["size"] == [40, 60], "a document of any size takes the picture's"


WRONG = {"drawn on 60 x 40": {**document(), "size": [60, 40]}, "cursor 3": {**document(), "cursor": 3}, "found": {}}


@pytest.mark.parametrize(("said", "wrong"), WRONG.items())
def test_refused_documents_change_nothing(painter, wrong, said):
    painter.document = document(OBJECT)
    with pytest.raises(DatasetError, match=said):
        painter.document = wrong
    assert painter.document == document(OBJECT)
    with pytest.raises(DatasetError, match=said):
        SupportPainter(GREY, wrong)


def test_saved_here_loaded_there(painter, tmp_path):
    painter.document = document(OBJECT, HINT)
    file = painter.save(tmp_path / "drawing.json")
    other = SupportPainter(GREY)
    other.load(file)
    assert other.document == painter.document and np.array_equal(other.mask, painter.mask)
    turned = SupportPainter(GREY.transpose(1, 0, 2))
    with pytest.raises(DatasetError, match=r"drawing\.json: strokes: drawn on 40 x 60 pixels"):
        turned.load(file)


def test_pictures_of_every_kind(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    for picture in (tmp_path / "grey.png", Image.fromarray(GREY), torch.from_numpy(GREY).permute(2, 0, 1), GREY / 255):
        made = SupportPainter(picture)
        assert made.image.shape == (3, 40, 60) and made.image.dtype == torch.uint8
        assert np.array_equal(made.image.numpy(), GREY.transpose(2, 0, 1))
    with pytest.raises(DatasetError, match="list"):
        SupportPainter([1, 2])


def test_room_on_the_screen():
    """Small pictures grow by whole factors; large ones shrink; the picture's proportions stay."""
    assert SupportPainter(GREY)._shape == [40, 60, 400, 600]
    assert SupportPainter(np.zeros((97, 97, 3), np.uint8))._shape[2:] == [388, 388]
    assert SupportPainter(np.zeros((300, 1280, 3), np.uint8))._shape[2:] == [150, 640]
    assert SupportPainter(GREY, height=200)._shape[2:] == [200, 300]
    for height in (0, -5, "200", True, float("nan")):
        with pytest.raises(DatasetError, match="height"):
            SupportPainter(GREY, height=height)


def test_the_photograph_travels_small():
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)
    large = np.array(Image.fromarray(noise).resize((2000, 1500), Image.Resampling.BICUBIC))
    sent = SupportPainter(large)
    picture = Image.open(io.BytesIO(sent._photo))
    assert picture.format == "JPEG" and picture.size == (1280, 960) and len(sent._photo) < 250_000
    assert sent.mask.shape == (1500, 2000), "the drawing keeps the picture's own pixels"
    assert "image/jpeg" in sent._repr_mimebundle_()[0], "a PNG of a photograph would be larger"


def test_a_picture_stands_in(painter):
    painter.document = document(OBJECT, HINT)
    data, metadata = painter._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == painter.model_id
    alt = data["text/plain"]
    assert metadata["image/png"] == {"alt": alt, "panel": 360, "colliding": []}
    assert all(told in alt for told in ("60 × 40", "object 16.7%", "unlabelled 77.8%"))
    still = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")).astype(int)
    assert still.shape == (240, 360, 3)
    assert still[90, 120, 0] > still[90, 120, 2] + 50, "object is orange"
    assert still[120, 300, 2] > still[120, 300, 0] + 50, "background is blue"
    assert np.ptp(still[120, 200]) < 10, "unlabelled pixels keep their colour"
    assert len(data["image/png"]) < 20_000


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 3)])
def test_odd_pictures(shape):
    painter = SupportPainter(np.zeros((*shape, 3), np.uint8))
    painter.document = strokes.add(painter.document, {"tool": "brush", "label": 1, "width": 1, "points": [[0, 0]]})
    assert painter.mask[0, 0] == 1 and "image/png" in painter._repr_mimebundle_()[0] and min(painter._shape) >= 1


def test_imported_on_demand_and_a_still_without_anywidget():
    code = """
import sys, fsslib, fsslib.widgets.strokes
assert not {"anywidget", "ipywidgets", "IPython"} & set(sys.modules)
sys.modules["ipywidgets"] = None
try:
    fsslib.widgets.SupportPainter
except ImportError as error:
    assert "notebooks" in str(error), error
else:
    raise SystemExit("no error without ipywidgets")
del sys.modules["ipywidgets"]
sys.modules["anywidget"] = None
import numpy
from fsslib.widgets.board import Panel
from fsslib.widgets.explorer import Scene
picture = numpy.zeros((40, 60, 3), numpy.uint8)
scene = Scene([Panel("one", "a picture", "black", picture)], "", {"seen": 1})
for shown in (fsslib.widgets.SupportPainter(picture), fsslib.widgets.Explorer({}, lambda point: scene, label="Trial")):
    data, _ = shown._repr_mimebundle_()
    assert data.keys() == {"image/png", "text/plain"}, data.keys()
assert shown.scene.facts == {"seen": 1}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.decode().count("pip install anywidget") == 2, "a sentence beside each still"
