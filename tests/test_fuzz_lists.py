"""Lists and JSON as nobody would write them: each is a right result, or a typed error that says what to do.

FSSLIB_FUZZ=2000 tries as many of each kind; by default there are a hundred.
"""

import copy
import json
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fuzzing import KEPT
from PIL import Image

from fsslib.data import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.labelme import label_map as labelme_map
from fsslib.data.folder.layouts import Entry
from fsslib.data.folder.names_and_lists import class_names, listed, split_list
from fsslib.data.folder.yolo import label_map as yolo_map
from fsslib.data.photographs import coco_label_maps
from fsslib.data.photographs.pascal import read_list
from fsslib.errors import FsslibError
from fsslib.experiments.parameters import read_parameters

STRANGE = [
    None, True, False, -1, 0, 1, 2, 255, 1.0, 1.5, float("nan"), float("inf"), 10**30, "1", "2", "a.jpg", "b.jpg", "",
    " ", "cat", "e\u0301", "\u00e9", "\ud800", "a\0b", "../x", "x" * 5000, [], {}, [[]], [1], {"a": 1}, [[1, 2] * 3],
    {"size": [48, 64], "counts": "0"}, {"size": [48, 64], "counts": [3072]}, -(2**63), 2**31, "None", "1e3",
]  # fmt: skip
SIGNS = [
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\r", b"\r\n", b"#", b" # ", b"\t", b":", b"-", b"1. ", b"{", b"}",
    b"[", b"]", b'"', b"'", b"\\ud800", b"\\u0000", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!timestamp ", b"!!set ", b"%",
    b"? ", b"e\xcc\x81", b"\xc3\xa9", b"\xe2\x80\xa8", b"1e400", b"1_0", b"12:30", b".nan", b"2020-13-01", b"~",
    b"9" * 5000,
]  # fmt: skip
CODES = ("utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32", "cp1252")


def changed_bytes(raw: bytes, chance: random.Random) -> bytes:
    """A text with one to four changes: signs put in, parts left out or doubled, lines moved, another encoding."""
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.choices(range(len(raw) + 1), k=2))
        lines = raw.split(b"\n")
        match chance.randrange(7):
            case 0 | 1:
                raw = raw[:at] + chance.choice(SIGNS) + raw[at:]
            case 2:
                raw = raw[:at] + raw[min(to, at + chance.randint(1, 12)) :]
            case 3:
                raw = raw[:to] + raw[at:to] + raw[to:]
            case 4:
                raw = raw[:at] if chance.random() < 0.3 else raw
            case 5:
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
                raw = b"\n".join(lines)
            case 6:
                raw = raw.decode("utf-8", "replace").encode(chance.choice(CODES), "replace")
    return raw


def changed_json(document, chance: random.Random) -> bytes:
    """JSON with one to three values exchanged, left out or doubled; now and then a key twice."""
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        spots, waiting = [], [document]
        while waiting:
            part = waiting.pop()
            keys = list(part) if isinstance(part, dict) else range(len(part))
            spots += [(part, key) for key in keys]
            waiting += [part[key] for key in keys if isinstance(part[key], dict | list)]
        if not spots:
            break
        part, key = chance.choice(spots)
        match chance.randrange(5):
            case 0 | 1 | 2:
                part[key] = copy.deepcopy(chance.choice(STRANGE))
            case 3:
                del part[key]
            case 4 if isinstance(part, list):
                part.insert(key, copy.deepcopy(part[key]))
            case 4:
                part[f"{key}"] = copy.deepcopy(part[chance.choice(list(part))])
    text = json.dumps(document)
    if chance.random() < 0.1:
        text = text.replace("{", '{"id": 1, "fold": 0, ', 1)
    return text.encode()


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
YOLO = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.25 0.25 0.75 .25 0.7515 0.515625 1 1\r\n"
DATA = b"path: ../x\ntrain: images/train\nval: [images/val]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
YAML = (
    b"# a recipe\nfold: 1\nshots: [1, 5]\nlr: 1e-3\ntraining: {clip: 1.0, decay: poly}\nroot: ~\nknobs:\n  size: 0.5\n"
)
CLASSES = b"# classes\nbackground\ncat\ncaf\xc3\xa9\nowl # at night\n"
NUMBERED = b"0: background\n1: cat\n2: dog\n3. owl\n"
VOC = b"# list\n2007_000033\nJPEGImages/2007_000039.jpg SegmentationClassAug/2007_000039.png\r\n2007_000063\n"
SPLIT = b"a\nb.jpg\n/images/c.jpg /masks/c.png\n# end\ncaf\xc3\xa9\n"


# What begins the part of a message that says what to do.
CURE = re.compile("[Ee]xpected |Give |Leave |leave it out|Save |[Ww]rite |Number every|[Pp]ut one|[Pp]ass |Use |Lower ")


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
    if report.sound:
        data = Folder(file)
        assert {tuple(mask.shape) for _, mask in data} == {(48, 64)}
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


BYTES, JSON, LABELS = changed_bytes, changed_json, {"cat": 1, "dog": 2, "__ignore__": 255}
DOORS = {
    "coco.json": (coco_door, JSON, DOCUMENT), "coco text.json": (coco_door, BYTES, json.dumps(DOCUMENT).encode()),
    "a.txt": (partial(outline_door, draw=yolo_map), BYTES, YOLO), "data.yaml": (description_door, BYTES, DATA),
    "a.json": (partial(outline_door, draw=labelme_map, **LABELS), JSON, LABELME),
    "b.json": (partial(outline_door, draw=labelme_map, **LABELS), BYTES, json.dumps(LABELME).encode()),
    "classes.txt": (class_door, BYTES, CLASSES), "numbered.txt": (class_door, BYTES, NUMBERED),
    "classes.json": (class_door, JSON, {"0": "background", "1": "cat", "2": "dog"}),
    "names.json": (class_door, JSON, {"cat": 1, "dog": 2, "list": ["a"]}),
    "voc.txt": (voc_door, BYTES, VOC), "split.txt": (split_door, BYTES, SPLIT),
    "p.yaml": (parameter_door, BYTES, YAML), "p.json": (parameter_door, JSON, PARAMETERS),
    "p text.json": (parameter_door, BYTES, json.dumps(PARAMETERS).encode()),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DOORS)
def test_every_input_is_read_or_refused(folder, name, tmp_path):
    door, change, content = DOORS[name]
    chance, counts = random.Random(name), {"read": 0, "refused": 0}
    before = set(tmp_path.iterdir())
    for at in range(KEPT):
        file = folder / name
        file.write_bytes(raw := change(content, chance))
        try:
            door(file)
            counts["read"] += 1
        except FsslibError as error:
            counts["refused"] += 1
            assert CURE.search(str(error)) and " object at 0x" not in str(error), f"no cure: {error}"
        except Exception as error:
            raise AssertionError(f"input {at} of {name}: {raw[:3000]!r}") from error
    assert counts["read"] and counts["refused"]
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "cache"}
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "b.jpg", "c.jpg", name}
    print(name, counts)
