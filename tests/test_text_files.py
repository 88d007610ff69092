"""The one reader of texts, at every door that takes a list or JSON of somebody's own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsslib.data.folder.names_and_lists import class_names, split_list
from fsslib.data.photographs.coco_label_maps import read_annotations
from fsslib.data.photographs.fss1000 import Fss1000
from fsslib.data.photographs.pascal import read_list
from fsslib.errors import DatasetError, ParameterError
from fsslib.experiments.parameters import read_parameters
from fsslib.files import comparable, composed, read_json

CAFE = "caf\u00e9"
COCO = {
    "images": [{"id": 1, "file_name": f"{CAFE}.jpg", "width": 4, "height": 3}],
    "categories": [{"id": 1, "name": CAFE}], "annotations": [],
}  # fmt: skip


def validation_classes(file: Path) -> list[str]:
    root = file.parent / "fss"
    for name in (CAFE, "other"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for at in (1, 2):
            Image.fromarray(np.full((8, 8, 3), 40 * at, np.uint8)).save(root / name / f"{at}.jpg")
            Image.fromarray(np.full((8, 8), 255, np.uint8)).save(root / name / f"{at}.png")
    data = Fss1000(root, 0, "val", val_list=file)
    return [data.names[cls] for cls in data.classes]


DOORS = {
    "classes.txt": (f"# all\n{CAFE}\nowl\n", lambda file: class_names(file, file.parent), {1: CAFE, 2: "owl"}),
    "numbers.txt": (f"1: {CAFE}\n3: owl\n", lambda file: class_names(file, file.parent), {1: CAFE, 3: "owl"}),
    "classes.json": (f'["{CAFE}"]\n', lambda file: class_names(file, file.parent), {1: CAFE}),
    "split.txt": (f"{CAFE}.jpg\nb\n", lambda f: split_list({"test": f}, "test", f.parent)[1], [f"{CAFE}.jpg", "b"]),
    "voc.txt": (f"{CAFE}.JPG\nb m/b.png\n", read_list, {CAFE: None, "b": "m/b.png"}),
    "val.txt": (f"# mine\n{CAFE}\n", validation_classes, [CAFE]),
    "p.yaml": (f"fold: 1\nroot: {CAFE}\n", read_parameters, {"fold": 1, "root": CAFE}),
    "p.JSON": (f'{{"fold": 1,\n"root": "{CAFE}"}}', read_parameters, {"fold": 1, "root": CAFE}),
    "coco.json": (json.dumps(COCO, ensure_ascii=False, indent=1), lambda f: read_annotations(f).categories, {1: CAFE}),
}  # fmt: skip
each = pytest.mark.parametrize("name", DOORS)


@pytest.mark.filterwarnings("ignore:FSS-1000")
@each
def test_marks_and_line_ends_change_nothing(tmp_path, name):
    text, read, wanted = DOORS[name]
    file = tmp_path / name
    crlf = text.replace("\n", "\r\n")
    forms = [text.encode(code) for code in ("utf-8", "utf-8-sig", "utf-16", "utf-32")]
    for raw in (*forms, crlf.encode(), crlf.encode("utf-16"), text.replace("\n", "\r").encode()):
        file.write_bytes(raw)
        assert read(file) == wanted


@each
def test_what_is_no_such_text_is_named(tmp_path, name):
    text, read, _ = DOORS[name]
    file = tmp_path / name
    error = ParameterError if name.startswith("p.") else DatasetError
    line = text[: text.index(CAFE)].count("\n") + 1
    for raw, words in (
        (text.encode("latin-1"), rf"line {line} is not UTF-8; in Latin-1 .*{CAFE}.*Save the file as UTF-8"),
        (text.encode("utf-16-le"), "not a text file"), (b"\x89PNG\r\n\x1a\n\0\xff", "not a text file"),
        (b"\xff\xfea", "not a text file"),
    ):  # fmt: skip
        file.write_bytes(raw)
        with pytest.raises(error, match=words):
            read(file)
    file.unlink()
    with pytest.raises(error, match="No such file"):
        read(file)
    file.mkdir()
    with pytest.raises(error, match="directory"):
        read(file)


@pytest.mark.parametrize("name", ["classes.json", "p.JSON", "coco.json"])
def test_json_says_everything_once(tmp_path, name):
    _, read, _ = DOORS[name]
    file = tmp_path / name
    for text, words in (
        ('{"a": {"1": 2, "1": 3}}', "1 is given twice"), ('{"a": 1', "line 1 column"), ("[" * 99999, "too deeply"),
        ('{"a": "\\ud800"}', "half a character"), ('{"a": ' + "9" * 5000 + "}", "digits"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises((DatasetError, ParameterError), match=rf"{re.escape(name)}.*{words}.*[Ee]xpected"):
            read(file)
    file.write_text('{"a": "\\ud83d\\ude00", "b": NaN}')
    assert read_json(file, "it from", "Expected JSON.")["a"] == "\U0001f600"


def test_names_in_one_form():
    assert composed("cafe\u0301") == composed(CAFE) == CAFE and composed("plain") == "plain"
    assert comparable("cafe\u0301.JPG") == comparable(f"{CAFE}.jpg") != comparable("CAFE.jpg")
