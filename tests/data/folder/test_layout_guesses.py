"""A layout that is guessed is tested: folders that part a data set are no classes, masks of several ids speak against
class folders, and files that explain the data are read or named."""

import numpy as np
import pytest
from folder_tree import COLOURS, LABEL_MAPS, class_folders, disc, images_masks, label_map, photograph
from PIL import Image

from fsslib import load_dataset
from fsslib.data.__main__ import main
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.data.folder.layouts import split_of
from fsslib.errors import DatasetError

# Splits of four images lack a class here and there.
pytestmark = pytest.mark.filterwarnings("ignore:folder fold")


def parted(root, names, kind="beside", labels=label_map, count=4, save=Image.fromarray):
    """A folder for each of `names`, with images and label maps in folders of their own or side by side."""
    for at, name in enumerate(names):
        images, masks = ("images", "masks") if kind == "folders" else (".", ".")
        for folder in (images, masks):
            (root / name / folder).mkdir(parents=True, exist_ok=True)
        for seed in range(count):
            photograph(10 * at + seed).save(root / name / images / f"{name[:2]}{seed}.jpg")
            ending = "_mask.png" if kind == "suffix" else ".png"
            save(labels(10 * at + seed)).save(root / name / masks / f"{name[:2]}{seed}{ending}")
    return root


@pytest.mark.parametrize("kind", ["folders", "beside", "suffix"])
@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Train2017", "val_set", "TESTING"), ("training", "dev")]
)
def test_splits_are_splits(tmp_path, names, kind):
    parted(tmp_path, names, kind)
    report = check_folder(tmp_path)
    assert not report.problems and report.layout == "images_masks" and report.sound == 4 * len(names)
    assert set(report.classes) == {"class 1", "class 2", "class 3"}
    assert any("into splits: train 4" in note for note in report.notes)
    for name in names:
        data = load_dataset("folder", root=tmp_path, split=split_of(name.lower()))
        assert {path.relative_to(tmp_path).parts[0] for path, _ in data._files} == {name}
    if len(names) == 2:
        with pytest.raises(DatasetError, match="has folders for train and val, and none for 'test'"):
            Folder(tmp_path, split="test")
    one = Folder(tmp_path / names[0], split="test")  # everything of one folder
    assert len(one) == 4
    listed = Folder(tmp_path, split="test", lists={"test": [f"{names[0]}/{names[0][:2]}{at}" for at in range(4)]})
    assert len(listed) == 4


def test_splits_within_the_folders_of_images(tmp_path):
    for name in ("train", "test"):
        images_masks(tmp_path, 6, f"images/{name}", f"masks/{name}")
    for seed in range(6):  # the same photograph on both sides is refused
        photograph(50 + seed).save(tmp_path / "images" / "test" / f"n{seed:02}.jpg")
    assert {name.split("/")[0] for name in Folder(tmp_path, split="test").ids} == {"test"}


@pytest.mark.parametrize(("names", "labels", "save", "words"), [
    (("alpha", "beta"), label_map, Image.fromarray, "holds 1, 2"),  # in one mask
    (("alpha", "beta"), lambda seed: disc(seed, 1 + seed % 2), Image.fromarray, "those of alpha hold 1, 2"),
    (("alpha", "beta"), label_map, lambda ids: Image.fromarray(COLOURS[ids % 255 % 4]), r"holds \(\d+, "),
    (("alpha", "beta"), lambda seed: (label_map(seed) % 255).astype(np.uint16), Image.fromarray, "holds"),
])  # fmt: skip
def test_several_ids_speak_against_class_folders(tmp_path, capsys, names, labels, save, words):
    parted(tmp_path, names, "suffix", labels, 6, save)
    for load in (check_folder, Folder):
        with pytest.raises(
            DatasetError, match=rf"several ids: .*{words}.*layout='images_masks'.*layout='class_folders'"
        ):
            load(tmp_path)
    assert main(["check", str(tmp_path)]) == 2 and "several ids" in capsys.readouterr().err
    parts = check_folder(tmp_path, layout="images_masks")
    assert not set(names) & set(parts.classes)
    assert set(check_folder(tmp_path, layout="class_folders").classes) == set(names)


@pytest.mark.parametrize("name", ["fold_1", "batch2", "part-3", "split0"])
def test_parts_of_any_kind_are_no_classes(tmp_path, name):
    parted(tmp_path, (name, name[:-1] + "9"), labels=lambda seed: disc(seed, 7))
    report = check_folder(tmp_path)
    assert report.classes == {"class 7": 8} and len(Folder(tmp_path, split="test")) == 8


def test_class_folders_stay_what_they_are(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "owl").rename(tmp_path / "train")  # a vehicle
    assert Folder(tmp_path).names == {1: "cat", 2: "dog", 3: "train"}


@pytest.mark.parametrize("name", LABEL_MAPS)
@pytest.mark.parametrize("place", [".", "masks"])
def test_files_that_say_what_the_classes_are_are_read_or_named(tmp_path, name, place):
    images_masks(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / place / name).write_text(LABEL_MAPS[name])
    (tmp_path / "notes.txt").write_text("2 is a cat with stripes")
    report = check_folder(tmp_path)
    assert not report.problems
    read = any(name in note and "says what the classes are" in note for note in report.notes)
    assert read == (set(report.classes) == {"cat", "dog", "owl"})
    assert read or any("not read" in note and name in note for note in report.notes)
    assert read or place != ".", "it lies where it is looked for"
    assert any("not read" in note and "notes.txt" in note for note in report.notes)
    assert f"Note: not read: {''}" in str(report) and "notes.txt" in report._repr_html_()


def test_label_maps_in_the_folders_of_splits(tmp_path):
    """As Roboflow exports them."""
    parted(tmp_path, ("train", "valid", "test"), "suffix", lambda seed: label_map(seed) % 255)
    for name in ("train", "valid", "test"):
        (tmp_path / name / "_classes.csv").write_text(LABEL_MAPS["_classes.csv"])
    (tmp_path / "README.dataset.txt").write_text("exported")
    report = check_folder(tmp_path)
    assert set(report.classes) == {"cat", "dog", "owl"} and not report.problems
    assert any("README.dataset.txt" in note for note in report.notes)


def test_notes_beside_class_folders(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "labelmap.txt").write_text(LABEL_MAPS["labelmap.txt"])
    report = check_folder(tmp_path)
    assert not report.problems and any("not read: labelmap.txt" in note for note in report.notes)
