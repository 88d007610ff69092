"""Your own pictures: the three layouts, what is read from them, and episodes of it."""

import os
import shutil
from functools import partial

import folder_tree as tree
import numpy as np
import pytest
import torch
from core_tools import SIZE, panet
from folder_tree import H, W, class_folders, coco, images_masks
from PIL import Image
from voc_tree import quietly

from fsslib import EpisodeSampler, Protocol, evaluate, load_dataset
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.dataset import Folder
from fsslib.errors import DatasetError

RULES = Protocol(input_size=SIZE, episodes=4)


@pytest.mark.parametrize("layout", ["class_folders", "images_masks", "coco_json", "yolo", "labelme"])
def test_five_lines_from_pictures_to_a_score(tmp_path, layout):
    getattr(tree, layout.removesuffix("_json"))(tmp_path)
    data = load_dataset("folder", root=tmp_path, split="test")
    sampler = EpisodeSampler(data, RULES)
    episode = sampler.build([sampler.draw(0, 0), sampler.draw(0, 1)])
    episode.validate()
    assert data.report.layout == layout and (episode.support_masks == 1).any((-2, -1)).all()
    result = evaluate(panet(), data, RULES, progress=False)
    assert 0 <= result.scores[1].miou <= 100 and result.protocol.fold_scheme == "own classes, none held out"


def test_shapes_written_to_disk_come_back(tmp_path):
    shapes = load_dataset("shapes", split="test", size=SIZE, pool=24, val_classes=0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(len(shapes)):
        image, mask = shapes[index]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{index:03}.png")
        Image.fromarray(mask.numpy()).save(tmp_path / "masks" / f"{index:03}.png")
    load = partial(quietly, Folder, tmp_path, names=shapes.names, novel_classes=shapes.classes)
    data, train = load(split="test"), load()  # some distractors are shown once
    assert len(data) == 24 and data.classes == shapes.classes and data.names == shapes.names
    for index in range(24):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(data[index], shapes[index]))
    for cls in shapes.classes:
        assert data.images_of(cls) == [i for i in range(24) if (shapes[i][1] == cls).any()]
        assert not any((train[i][1] == cls).any() for i in range(24))


def test_class_folders_read_every_kind_of_binary_mask(tmp_path):
    class_folders(tmp_path)
    void = tree.disc(11, 9)
    void[:2] = 255
    Image.fromarray(void).save(tmp_path / "cat" / "p1.png")
    data = Folder(tmp_path)
    assert data.names == {1: "cat", 2: "dog", 3: "owl"} and data.ids[:2] == ["cat/p0", "cat/p1"]
    for index, name in enumerate(data.ids):
        cls = 1 + index // 4
        expected = cls * tree.disc(10 * cls + index % 4)
        if name == "cat/p1":
            expected[:2] = 255
        image, mask = data[index]
        assert mask.dtype == torch.uint8 and np.array_equal(mask.numpy(), expected)
        assert torch.equal(data[index][1], mask)  # the cache hands out the same
        assert data.images_of(cls) == list(range(4 * cls - 4, 4 * cls)) and data.shows(index, cls)
        seen = np.array(Image.open(tmp_path / f"{name}.JPG").convert("RGB"))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), seen)


def test_one_class_drawn_in_white(tmp_path):
    for folder in ("imgs", "masks"):
        (tmp_path / folder).mkdir()
    for seed in range(4):
        tree.photograph(seed).save(tmp_path / "imgs" / f"{seed}.jpg")
        Image.fromarray(tree.disc(seed, 255)).save(tmp_path / "masks" / f"{seed}_mask.png")
    for names, number in ((None, 1), ({5: "leaf"}, 5)):
        data = Folder(tmp_path, names=names)
        assert not data.report.problems and data.classes == (number,)
        assert np.array_equal(data[2][1].numpy(), tree.disc(2, number))
    # With several classes to choose from, 255 cannot mean one of them.
    with pytest.raises(DatasetError, match=r"4 empty mask.*255 only, which means ignored"):
        Folder(tmp_path, names=["leaf", "stem"])


def test_coco_images_are_found_by_their_paths(tmp_path):
    file, document = coco(tmp_path, 4, place="labels")
    for n, entry in enumerate(document["images"]):
        folder = tmp_path / "labels" / ("a", "b")[n % 2]
        folder.mkdir(exist_ok=True)
        (tmp_path / "images" / f"c{n}.jpg").rename(folder / "same.jpg" if n < 2 else folder / f"c{n}.jpg")
        entry["file_name"] = ("a/same.jpg", "b\\same.jpg", "elsewhere/c2.jpg", "b/c3.jpg")[n]
    data = Folder(tree.write(file, document))
    assert [path.relative_to(tmp_path / "labels").as_posix() for path, _ in data._files] == [
        "a/same.jpg", "b/c3.jpg", "b/same.jpg", "a/c2.jpg",
    ]  # fmt: skip


def test_folders_one_level_deeper_and_below(tmp_path):
    images_masks(tmp_path / "download" / "mydata", 6, "images/one", "masks/one")
    images_masks(tmp_path / "download" / "mydata", 4, "images/two", "masks/two")
    data = Folder(tmp_path / "download")
    assert len(data) == 10 and data.ids[0] == "one/n00" and data.ids[-1] == "two/n03"
    assert data.report.kinds == {"same picture twice": 4}, "the second folder holds the pictures of the first again"
    class_folders(tmp_path / "other", "folders")
    assert Folder(tmp_path / "other").report.layout == "class_folders"
    # One folder with images/ and masks/ is an unpacked archive, unless somebody says otherwise.
    class_folders(tmp_path / "single", "folders")
    for name in ("dog", "owl"):
        for file in sorted((tmp_path / "single" / name).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (tmp_path / "single" / name).rmdir()
    assert check_folder(tmp_path / "single").layout == "images_masks"
    assert Folder(tmp_path / "single", layout="class_folders").names == {1: "cat"}


def test_classes_with_too_few_images_are_left_out_with_one_warning(tmp_path):
    class_folders(tmp_path)
    for at in (1, 2, 3):
        (tmp_path / "dog" / f"p{at}.JPG").unlink()
        (tmp_path / "dog" / f"p{at}.png").unlink()
    with pytest.warns(UserWarning, match=r"goes on with 2 of 3 classes.*2 dog \(1\)") as seen:
        data = Folder(tmp_path)
    assert len(seen) == 1 and seen[0].filename == __file__ and data.classes == (1, 3) and data.missing == {2: 1}
    (tmp_path / "cat" / "p0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="8 of 9 pairs are usable") as seen:
        Folder(tmp_path, novel_classes=["dog"])
    assert len(seen) == 1 and seen[0].filename == __file__


def test_nothing_usable_is_an_error_with_the_first_problem(tmp_path):
    images_masks(tmp_path, 3)
    for file in (tmp_path / "masks").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"0 of 3 pairs are usable; 6 problems: 3 empty file.*n00\.png: the"):
        Folder(tmp_path)


def test_photographs_turned_by_their_note(tmp_path):
    class_folders(tmp_path)
    for at in range(4):
        tree.turned_photograph(at, tmp_path / "cat" / f"p{at}.JPG")
        Image.fromarray(tree.disc(at, 255, H + 8, W)[:, :H]).save(tmp_path / "cat" / f"p{at}.png")
    data = Folder(tmp_path)
    assert not data.report.problems and data[0][0].shape == (3, W, H) and data[0][1].shape == (W, H)


def test_more_classes_than_a_byte_holds(tmp_path):
    first = tmp_path / "c000"
    first.mkdir()
    for at in range(2):
        Image.new("RGB", (16, 16), (9, at, 0)).save(first / f"{at}.bmp")
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(first / f"{at}.png")
    for number in range(1, 256):
        shutil.copytree(first, tmp_path / f"c{number:03}", copy_function=os.link)
    data = Folder(tmp_path, split="test", novel_classes=["c253", "c254", "c255"])
    assert data.classes == (254, 256, 257) and len(data) == 512
    mask = data[data.images_of(256)[1]][1]
    assert mask.dtype == torch.int16 and mask.unique().tolist() == [0, 256]
    sampler = EpisodeSampler(data, RULES)
    episode = sampler.build([sampler.draw(0, index) for index in range(3)])
    episode.validate()
    assert (episode.query_masks == 1).any() and not (episode.query_masks == 255).any()


@pytest.mark.parametrize("name", ["voc-subset", "coco128"])
def test_real_photographs_are_not_accused(shared, name):
    root = shared / "data" / name
    if name == "voc-subset":
        from fsslib.data.folder.layouts import images_masks as pairs
        from fsslib.data.folder.pairs import examine

        entries = pairs(root).entries
        assert len(entries) == 1802
        for entry in entries[::40]:
            assert examine(entry.image, entry.mask, "ids")
    else:
        report = check_folder(root)
        assert set(report.kinds) == {"class with too few images"} and report.sound == report.pairs == 126
