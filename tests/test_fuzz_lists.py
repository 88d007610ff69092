"""Lists and JSON as nobody would write them: each is a right result, or a typed error that says what to do.

FSSLIB_FUZZ=2000 tries as many of each kind; by default there are a hundred.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fuzzing import mutated, nothing_written, outcome, tally
from PIL import Image

from fsslib.data import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.labelme import label_map as labelme_map
from fsslib.data.folder.layouts import Entry
from fsslib.data.folder.names_and_lists import class_names, listed, split_list
from fsslib.data.folder.yolo import label_map as yolo_map
from fsslib.data.photographs import coco_label_maps
from fsslib.data.photographs.pascal import read_list
from fsslib.experiments.parameters import read_parameters

OUTLINE, RUNS = [[4, 4, 30, 4, 30, 30]], {"size": [48, 64], "counts": [3072]}
DOCUMENT = {
    "images": [{"id": at, "file_name": f"{'abc'[at - 1]}.jpg", "width": 64, "height": 48} for at in (1, 2, 3)],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": k, "image_id": 1 + k % 3, "category_id": 1 + k % 2, "iscrowd": k // 5, "segmentation": shape}
        for k, shape in enumerate([OUTLINE] * 5 + [RUNS])
    ],
}
PARAMETERS = {
    "fold": 1,
    "shots": [1, 5],
    "knobs": {"size": 0.5},
    "lr": 1e-3,
    "root": None,
    "options": {"a": [True, "x"]},
}
SHAPES = [
    {"label": "cat", "points": [[4, 4], [30, 4], [30, 30]], "shape_type": "polygon", "group_id": None, "flags": {}},
    {"label": "__ignore__", "points": [[40, 40], [50, 40]], "shape_type": "circle", "group_id": 1},
    {"label": "dog", "points": [[4.5, 4], [9, 8]], "shape_type": "rectangle", "group_id": 1},
]
LABELME = {"version": "5.4.1", "shapes": SHAPES, "imagePath": "a.jpg", "imageData": None, "imageHeight": 48}
LABELME |= {"imageWidth": 64, "flags": {}}
YOLO = "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.25 0.25 0.75 .25 0.7515 0.515625 1 1\r\n"
DATA = "path: ../x\ntrain: images/train\nval: [images/val]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
YAML = (
    "# a recipe\nfold: 1\nshots: [1, 5]\nlr: 1e-3\ntraining: {clip: 1.0, decay: poly}\nroot: ~\nknobs:\n  size: 0.5\n"
)
CLASSES = "# classes\nbackground\ncat\ncafé\nowl # at night\n"
NUMBERED = "0: background\n1: cat\n2: dog\n3. owl\n"
VOC = "# list\n2007_000033\nJPEGImages/2007_000039.jpg SegmentationClassAug/2007_000039.png\r\n2007_000063\n"
SPLIT = "a\nb.jpg\n/images/c.jpg /masks/c.png\n# end\ncafé\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three photographs; the cache lies beside them."""
    monkeypatch.setenv("FSSLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_label_maps, "_OPEN", {})
    inside = tmp_path / "own"
    inside.mkdir()
    for at, name in enumerate("abc"):
        noise = np.random.default_rng(at).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(inside / f"{name}.jpg")
    return inside


def coco_door(file: Path) -> None:
    report = check_folder(file)
    assert 0 <= report.sound <= report.pairs and all(p.message and p.cure for p in report.problems)
    assert all(type(name) is str and name for name in report.classes)
    data = Folder(file)  # refused where nothing is sound
    assert report.sound and {tuple(mask.shape) for _, mask in data} == {(48, 64)}
    assert {*np.unique([mask.numpy() for _, mask in data]).tolist()} <= {0, 255, *data.names}


def outline_door(file: Path, draw, **known: int) -> None:
    """One label file is drawn or refused; the folder with it is judged, whatever it holds."""
    report = check_folder(file.parent, layout="yolo" if draw is yolo_map else "labelme")
    assert report.sound <= report.pairs <= 3 and all(p.message and p.cure for p in report.problems)
    mask = draw(file, (64, 48), (64, 48), known or {0: 1, 1: 2})
    assert mask.shape == (48, 64) and mask.dtype == np.uint8 and {*np.unique(mask).tolist()} <= {0, 1, 2, 255}
    assert report.sound or report.problems or not mask.any()


def description_door(file: Path) -> None:
    report = check_folder(file)
    assert report.layout == "yolo" and all(type(name) is str and name.strip() == name for name in report.classes)


def class_door(file: Path) -> None:
    names = class_names(file, file.parent)
    assert all(type(number) is int and 0 < number < 255 for number in names)
    assert all(name and name.strip() == name for name in names.values()) and len(set(names.values())) == len(names)


def split_door(file: Path) -> None:
    entries = [Entry(name, file.parent / "images" / f"{name}.jpg", file) for name in ("a", "b", "c", "caf\u00e9")]
    place, names = split_list({"train": file}, "train", file.parent)
    hits, lost = listed(names, entries, file.parent)
    assert place == file and hits == sorted(set(hits)) and len(hits) + len(lost) <= len(names)


def parameter_door(file: Path) -> None:
    values = read_parameters(file)
    assert json.loads(json.dumps(values, ensure_ascii=False).encode()) == values


def voc_door(file: Path) -> None:
    entries = read_list(file)
    assert entries and all(name and "/" not in name for name in entries)


DRAWN = partial(outline_door, draw=labelme_map, cat=1, dog=2, __ignore__=255)
DOORS = {
    "coco.json": (coco_door, DOCUMENT), "coco text.json": (coco_door, json.dumps(DOCUMENT)),
    "a.txt": (partial(outline_door, draw=yolo_map), YOLO), "data.yaml": (description_door, DATA),
    "a.json": (DRAWN, LABELME), "b.json": (DRAWN, json.dumps(LABELME)),
    "classes.txt": (class_door, CLASSES), "numbered.txt": (class_door, NUMBERED),
    "classes.json": (class_door, {"0": "background", "1": "cat", "2": "dog"}),
    "names.json": (class_door, {"cat": 1, "dog": 2, "list": ["a"]}),
    "voc.txt": (voc_door, VOC), "split.txt": (split_door, SPLIT), "p.yaml": (parameter_door, YAML),
    "p.json": (parameter_door, PARAMETERS), "p text.json": (parameter_door, json.dumps(PARAMETERS)),
}  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_every_input_is_read_or_refused(folder, name, tmp_path):
    (door, content), file, outcomes = DOORS[name], folder / name, []
    with nothing_written(tmp_path, [file, tmp_path / "cache"]):
        for at, raw in enumerate(mutated([content], seed=len(name))):
            file.write_bytes(raw)
            try:
                outcomes.append(outcome(lambda: door(file)))
            except Exception as error:
                raise AssertionError(f"input {at} of {name}: {raw[:3000]!r}") from error
    print(f"{name}: {tally(outcomes)}")
    assert 0 < outcomes.count("right") < len(outcomes)
