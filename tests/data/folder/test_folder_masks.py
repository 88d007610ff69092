"""Your own masks that could be read in two ways: palettes, transparency, 255; and files that come and go."""

import errno
import json
import re

import numpy as np
import pytest
from folder_tree import COLOURS, H, W, class_folders, coco, disc, images_masks, label_map, write
from PIL import Image

from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.photographs import label_index as index
from fsslib.data.photographs.pascal import voc_palette
from fsslib.errors import DatasetError

VOC = voc_palette().ravel().tolist()


def cure(problem):
    for code in re.findall("`(.*?)`", problem.cure):
        exec(code, {})


def few_colours(mask, file):
    """Saved as drawing programs do it: a palette of the colours that occur, in an order of its own."""
    Image.fromarray(mask).convert("RGB").quantize(len(np.unique(mask))).save(file)


def test_grey_palettes_of_binary_masks(tmp_path):
    class_folders(tmp_path)
    for at in range(4):
        few_colours(disc(10 + at, 255), tmp_path / "cat" / f"p{at}.png")
    assert np.array(Image.open(tmp_path / "cat" / "p0.png"))[0, 0] == 1, "white is 0"
    data = Folder(tmp_path)
    assert not data.report.problems
    for at in range(4):
        assert np.array_equal(data[at][1].numpy(), disc(10 + at))


def test_label_maps_whose_palette_was_renumbered(tmp_path):
    images_masks(tmp_path)
    maps = {seed: np.minimum(label_map(seed), 3) if seed < 9 else label_map(seed) % 255 for seed in (0, 3, 6, 9)}
    for seed in (0, 3):
        few_colours(maps[seed], tmp_path / "masks" / f"n{seed:02}.png")
    for seed in (6, 9):
        Image.fromarray(COLOURS[maps[seed]]).quantize(4).save(tmp_path / "masks" / f"n{seed:02}.png")
    # Black stays 0, but grey 2 and 3 are numbered 1 and 2.
    order = Image.fromarray((disc(5, 1) + disc(5, 1, W, H)[::-1]).clip(0, 2))
    order.putpalette([0, 0, 0, 2, 2, 2, 3, 3, 3])
    order.save(tmp_path / "masks" / "n05.png")
    report = check_folder(tmp_path)
    renumbered = report.of("renumbered palette")
    assert [problem.file.name for problem in renumbered] == [f"n{seed:02}.png" for seed in (0, 3, 5, 6, 9)]
    assert report.sound == 7
    cures = {problem.file.name: problem.cure for problem in renumbered}
    assert "If the grey values are the class ids" in cures["n00.png"] and "every colour" in cures["n06.png"]
    for problem in renumbered:
        cure(problem)
    data = Folder(tmp_path)
    assert not data.report.problems
    for seed in (0, 3):
        assert np.array_equal(data[seed][1].numpy(), maps[seed])
    assert set(np.unique(data[5][1])) <= {0, 2, 3}


PALETTES = {
    "VOC's": VOC, "grey": [c for i in range(256) for c in (i, i, i)], "no colours": [0] * 768,
    "four greys to look at": [c for i in range(256) for c in (min(85 * i, 255),) * 3],
    "ignored in black": [c for i in range(255) for c in (90, 9 + i // 2, 80)] + [0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
def test_palettes_that_colour_class_ids(tmp_path, palette):
    images_masks(tmp_path)
    for seed in range(12):
        picture = Image.fromarray(label_map(seed))
        picture.putpalette(palette)
        picture.save(tmp_path / "masks" / f"n{seed:02}.png")
    data = Folder(tmp_path)
    assert not data.report.problems
    for seed in range(12):
        assert np.array_equal(data[seed][1].numpy(), label_map(seed))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("layout", [class_folders, images_masks])
def test_shapes_in_the_alpha_channel(tmp_path, mode, layout):
    file = layout(tmp_path) / ("cat/p0.png" if layout is class_folders else "masks/n00.png")
    white = Image.new("L", (W, H), 255)
    Image.merge("LA", [white, Image.fromarray(disc(10, 255))]).convert(mode).save(file)
    (problem,) = check_folder(tmp_path).problems
    assert (problem.file, problem.kind) == (file, "transparent mask")
    cure(problem)
    data = Folder(tmp_path)
    assert not data.report.problems and np.array_equal(data[0][1].numpy(), disc(10))
    hidden = Image.fromarray(disc(10))
    hidden.putpalette([0, 0, 0, 200, 0, 0])
    hidden.save(file, transparency=0)  # a background that is not shown hides nothing
    assert not check_folder(tmp_path).problems


class Failing:
    """`Image.open` that fails `times` times for one file."""

    def __init__(self, name, error, times):
        self.name, self.error, self.times, self.open = name, error, times, Image.open

    def __call__(self, file, *args, **options):
        if str(file).endswith(self.name) and self.times:
            self.times -= 1
            raise self.error
        return self.open(file, *args, **options)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EMFILE, "Too many"), MemoryError()]
)
@pytest.mark.parametrize(
    ("layout", "name"), [(class_folders, "cat/p0.JPG"), (images_masks, "masks/n00.png"), (coco, "images/c0.jpg")]
)
def test_a_file_that_could_not_be_read_once(tmp_path, monkeypatch, layout, name, error):
    layout(tmp_path)
    monkeypatch.setattr(Image, "open", Failing(name, error, 99))
    report = check_folder(tmp_path)
    assert report.sound == report.pairs - 1 and [p.kind[:10] for p in report.problems] == ["unreadable"]
    assert "cannot be read" in report.problems[0].message and "may be sound" in report.problems[0].cure
    monkeypatch.undo()
    for again in (lambda: None, index._KNOWN.clear):  # a new process knows nothing but the index on disk
        again()
        report = check_folder(tmp_path)
        assert not report.problems and report.sound == report.pairs
        data = Folder(tmp_path)
        assert len(data) == report.pairs and all(
            data.shows(i, int(data[i][1][data[i][1] % 255 > 0][0])) for i in (0, 1)
        )


def test_a_file_that_cannot_be_read_for_a_moment(tmp_path, monkeypatch):
    class_folders(tmp_path)
    monkeypatch.setattr(Image, "open", Failing("cat/p0.png", PermissionError(errno.EACCES, "no"), 1))
    assert check_folder(tmp_path).sound == 12


def test_masks_edited_after_loading(tmp_path):
    class_folders(tmp_path / "a")
    images_masks(tmp_path / "b")
    other_size = r"0\.png is 10x10 pixels but image .*0\.\w+ is 48x32.*Resize both alike"
    for root, name in (("a", "cat/p0.png"), ("b", "masks/n00.png")):
        data, file = Folder(tmp_path / root, cache=False), tmp_path / root / name
        Image.fromarray(disc(0)).resize((10, 10), 0).save(file)
        with pytest.raises(DatasetError, match=other_size):
            data[0]
        file.unlink()
        with pytest.raises(DatasetError, match=r"0\.png: is not there any more.*Put the mask back"):
            data[0]


def test_other_json_files_hide_no_class_folders(tmp_path):
    class_folders(tmp_path)
    for name, text in {
        "viewer.json": json.dumps({"images": ["a", "b"], "title": "x"}),
        "labels.json": json.dumps({"images": 3, "annotations": 4, "categories": {}}),
        "broken.json": '{"images": [], "annotations": [], "categories": [',
        "list.json": '["images", "annotations", "categories"]',
    }.items():
        (tmp_path / name).write_text(text)
        report = check_folder(tmp_path)
        assert report.layout == "class_folders" and not report.problems, name
    file, _ = coco(tmp_path / "only")
    file.write_bytes(file.read_bytes()[:-9])
    report = check_folder(tmp_path / "only")
    assert [problem.kind for problem in report.problems] == ["broken JSON"], "nothing else is there"


def test_categories_of_the_same_name(tmp_path):
    file, document = coco(tmp_path)
    for category in document["categories"]:
        category["name"] = category["name"].replace("dog", "cat")
    report = check_folder(write(file, document))
    assert report.classes == {"cat": 4, "cat (id 11)": 4} and not report.problems
    assert Folder(file, 0, "test", novel_classes=["cat (id 11)"]).classes == (3,)
