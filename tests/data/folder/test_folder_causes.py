"""The one problem that an error quotes is a cause, never what follows from it."""

import json

import numpy as np
import pytest
from PIL import Image

from fsslib import load_dataset
from fsslib.data.folder import check_folder
from fsslib.data.folder.problems import PROBLEM_KINDS
from fsslib.errors import DatasetError

FOLLOWS = {"class with too few images", "listed but absent"}


def picture(file, values, kind="RGB"):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).convert(kind).save(file)


def pairs(root, mask=None, size=(48, 64)):
    """Three images with masks; `mask` makes one of its number, `size` is that of the masks."""
    for n in (1, 2, 3):
        picture(root / "images" / f"{n}.png", np.full((48, 64, 3), 40 * n))
        drawn = np.zeros(size)
        drawn[8:30, 8:30] = n
        picture(root / "masks" / f"{n}.png", drawn if mask is None else mask(drawn), "L")


def coco(root, polygon=(4, 4, 30, 4, 30, 30), category=1, there=True):
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in (1, 2, 3)]
    note = {"category_id": category, "iscrowd": 0, "segmentation": [list(polygon)]}
    notes = [{"id": n, "image_id": n, **note} for n in (1, 2, 3)]
    for n in (1, 2, 3) if there else ():
        picture(root / f"{n}.png", np.full((48, 64, 3), 40 * n))
    made = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "cat"}]}
    (root / "notes.json").write_text(json.dumps(made))


def spoilt(root):
    pairs(root)
    for file in (root / "images").iterdir():
        file.write_bytes(b"no picture")


CAUSES = {
    "image file missing": lambda root: coco(root, there=False), "no polygon": lambda root: coco(root, polygon=()),
    "unknown image or category": lambda root: coco(root, category=7), "unreadable image": spoilt,
    "size mismatch": lambda root: pairs(root, size=(40, 90)), "empty mask": lambda root: pairs(root, lambda m: m * 0),
    "unknown class id": lambda root: (pairs(root, lambda m: m + 9), (root / "classes.txt").write_text("cat\n")),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_the_first_problem_is_a_cause(tmp_path, cause):
    CAUSES[cause](tmp_path)
    report = check_folder(tmp_path)
    assert report.problems[0].kind == cause and report.kinds.get(cause) == 3, report
    lines = str(report).splitlines()
    assert any(line.startswith(cause) for line in lines)
    with pytest.raises(DatasetError, match="The first: ") as refused:
        load_dataset("folder", root=tmp_path, split="test")
    assert (
        report.problems[0].message in str(refused.value)
        and "usable image" not in str(refused.value).split("The first")[1]
    )


def test_what_follows_comes_last():
    assert set(PROBLEM_KINDS[-2:]) == FOLLOWS
