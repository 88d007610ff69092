"""The doors of pictures and masks, with files that went wrong on the way: a right result or a typed error, always.

`FSSLIB_FUZZ=2000` for many; -s shows the counts.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_tree import COLOURS, LABEL_MAPS, class_folders, disc, images_masks, label_map, photograph
from fuzzing import KEPT, mutated, nothing_written, outcome, tally
from PIL import Image

from fsslib.data.folder.check import check_folder
from fsslib.data.pictures import image_tensor, mask_tensor
from fsslib.errors import DatasetError
from fsslib.widgets.explorers.methods import File

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of what it skips
ENDINGS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp", "PPM": "ppm"}


def encoded(picture, form, **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def palette():
    picture = Image.fromarray(label_map(1))
    picture.putpalette(COLOURS.ravel().tolist())
    return picture


PHOTOGRAPHS = [encoded(photograph(at), form) for at, form in enumerate(ENDINGS)]
PHOTOGRAPHS += [
    encoded(photograph(7).convert("CMYK"), "JPEG"), encoded(photograph(8).convert("L"), "JPEG", progressive=True),
    encoded(photograph(9).convert("RGBA"), "PNG"), encoded(photograph(9).convert("LAB"), "TIFF"),
    encoded(photograph(9), "TIFF", compression="tiff_lzw"), encoded(photograph(9).quantize(16), "PNG", bits=4),
    encoded(photograph(9), "GIF", save_all=True, append_images=[photograph(10)]),
]  # fmt: skip
LABELS = [encoded(Image.fromarray(disc(at, 255)), form) for at, form in enumerate(("PNG", "BMP", "TIFF", "GIF", "PPM"))]
LABELS += [
    encoded(palette(), "PNG"), encoded(palette(), "GIF"), encoded(Image.fromarray(disc(3) > 0), "PNG"),
    encoded(Image.fromarray(disc(3).astype(np.uint16) * 300), "PNG"),
    encoded(Image.fromarray(disc(3).astype(np.float32)), "TIFF"), encoded(Image.fromarray(COLOURS[disc(3)]), "PNG"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Sizes beyond a few megapixels are what Pillow calls a bomb: no test needs a gigabyte."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**21)


def outcomes_of(file, examples, seed, work, count=KEPT):
    """What `work()` comes to for each of the damaged contents of `file`, beside which nothing is written."""
    file.parent.mkdir(exist_ok=True)
    with nothing_written(file.parent.parent, [file.parent]):
        outcomes = [outcome(lambda d=data: (file.write_bytes(d), work())) for data in mutated(examples, count, seed)]
    print(f"{file.name}: {tally(outcomes)}")
    assert outcomes.count("right") > 0
    return outcomes


def opened(file):
    try:
        return Image.open(file)
    except Exception:
        raise DatasetError("Pillow's own error, before we are asked: open another file") from None


DOORS = {"path": Path, "upload": lambda file: File("a.jpg", file.read_bytes()).picture(), "opened": opened}


@pytest.mark.parametrize("door", DOORS)
def test_damaged_photographs(tmp_path, door):
    file = tmp_path / "in" / f"{door}.jpg"

    def work():
        image = image_tensor(DOORS[door](file))
        assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.numel()

    assert "DatasetError" in outcomes_of(file, PHOTOGRAPHS, 1, work)


def test_damaged_masks(tmp_path):
    file = tmp_path / "in" / "a.png"

    def work():
        mask = mask_tensor(file)
        assert mask.dtype == torch.uint8 and mask.ndim == 2 and set(mask.unique().tolist()) <= {0, 1, 255}

    assert "DatasetError" in outcomes_of(file, LABELS, 2, work)


@pytest.mark.parametrize("layout", [images_masks, class_folders])
def test_damaged_files_are_problems_of_one_file(tmp_path, layout):
    """Ten damaged photographs and ten damaged masks at a time: everything else in the folder stays usable."""
    root = layout(tmp_path / "set")
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".jpg")
    masks = sorted(path for path in root.rglob("*.png"))
    sound, half = {path: path.read_bytes() for path in images + masks}, 4
    count = max(1, KEPT // 16)
    photographs, labels = mutated(PHOTOGRAPHS, count * half, 3), mutated(LABELS, count * half, 4)
    kinds = []
    with nothing_written(tmp_path, [root]):
        for _ in range(count):
            for path in images[:half]:
                path.write_bytes(next(photographs))
            for path in masks[half : 2 * half]:
                path.write_bytes(next(labels))
            report = check_folder(root, layout=layout.__name__)
            assert report.sound >= 12 - 2 * half
            assert all(problem.message and problem.cure for problem in report.problems)
            kinds += report.kinds
            for path, data in sound.items():
                path.write_bytes(data)
    print(f"folders ({layout.__name__}): {tally(kinds)}")
    assert not check_folder(root).problems and "unreadable image" in kinds and "unreadable mask" in kinds
    assert sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".JPG", ".png")) == sorted(sound)


MODES = "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA RGBX RGBa La I;16 I;16B I;16L I;16N".split()  # noqa: SIM905


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 9), (9, 1), (7, 5), (3000, 2)])
def test_odd_modes_and_sizes(size):
    for mode in MODES:
        picture = Image.new(mode, size)
        found = {outcome(lambda read=read, picture=picture: read(picture)) for read in (image_tensor, mask_tensor)}
        assert 0 not in size or found == {"DatasetError"}, mode


@pytest.mark.parametrize("kind", [
    np.uint8, np.int8, np.uint16, np.int64, np.uint64, np.float16, np.float64, bool, complex, object, "U3", "M8[s]",
])  # fmt: skip
def test_odd_arrays(kind):
    for shape in [(), (0,), (4,), (4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4), (3, 4, 5), (2, 3, 4, 5), (0, 5, 3)]:
        array = np.zeros(shape, kind)
        for read in (image_tensor, mask_tensor):
            outcome(lambda read=read, array=array: read(array))
            if array.dtype.kind in "bifu" and array.dtype != np.uint64:
                outcome(lambda read=read, array=array: read(torch.from_numpy(array)))


@pytest.mark.parametrize("thing", [
    None, 3, b"bytes", [], {}, Path("."), "", "\0", "x" * 5000, os.sep, object(), [[1, 2], [3]], lambda: 0,
], ids=lambda thing: type(thing).__name__)  # fmt: skip
def test_things_that_are_no_pictures(thing):
    for read in (image_tensor, mask_tensor):
        assert outcome(lambda read=read: read(thing)) == "DatasetError"


@pytest.mark.parametrize("name", ["labelmap.txt", "class_dict.csv", "_classes.csv", "label_colors.txt"])
def test_damaged_label_maps(tmp_path, name):
    """Read, named as not read, or refused with the file's name."""
    root = images_masks(tmp_path / "set", 3)
    (root / "classes.txt").unlink()

    def work():
        assert any(name in note for note in check_folder(root).notes)

    outcomes_of(root / name, [LABEL_MAPS[name]], 5, work, max(1, KEPT // 10))
