"""FSS-1000 on made-up class folders, whole and in part."""

import hashlib
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from voc_tree import quietly

from fsslib import EpisodeSampler, Protocol
from fsslib.data.photographs.fss1000 import Fss1000, official_test_classes
from fsslib.errors import DatasetError

SIDE = 12
PUBLISHED = official_test_classes()


def pair(folder: Path, number: int, columns: int = 4, soft: bool = False, side: int = SIDE) -> None:
    """Object: the first `columns` columns; `soft` adds grey values on both sides of the border."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((side, side), np.uint8)
    mask[:, :columns] = 255
    if soft:
        mask[:, columns - 1], mask[:, columns] = 128, 127
    Image.fromarray(mask).save(folder / f"{number}.png")
    Image.fromarray(np.full((SIDE, SIDE, 3), 40 + number, np.uint8)).save(folder / f"{number}.jpg")


def tree(root: Path, names, images: int = 2, copy=os.link) -> Path:
    """The same pictures in every folder; as links, a thousand are quick."""
    first = root / names[0]
    for number in range(1, images + 1):
        pair(first, number)
    for name in names[1:]:
        shutil.copytree(first, root / name, copy_function=copy)
    return root


quiet = partial(quietly, Fss1000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    others = [f"{chr(97 + number % 26)}_{number}" for number in range(760)]
    return tree(tmp_path_factory.mktemp("fss") / "fewshot_data", [*PUBLISHED, *others])


@pytest.fixture
def part(tmp_path) -> Path:
    """Four test classes and eight others, ten images each."""
    return tree(tmp_path / "part", [*PUBLISHED[:4], *[f"other_{n}" for n in range(8)]], images=10, copy=shutil.copy2)


def test_split_of_the_whole(whole):
    data = {split: quiet(whole.parent, 0, split) for split in ("train", "val", "test")}
    assert {split: len(part.classes) for split, part in data.items()} == {"train": 520, "val": 240, "test": 240}
    assert {split: len(part) for split, part in data.items()} == {"train": 1040, "val": 480, "test": 480}
    names = {split: {part.names[c] for c in part.classes} for split, part in data.items()}
    assert names["test"] == set(PUBLISHED) and sorted(PUBLISHED) == PUBLISHED and "abe's_flyingfish" in PUBLISHED
    ranked = sorted(names["train"] | names["val"], key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    assert len(ranked) == 760 and set(ranked[:240]) == names["val"]
    test = data["test"]
    assert list(test.names.values()) == sorted(test.names.values()) and len(test.names) == 1000
    assert min(test.names) == 1 and max(test.names) == 1001 and 255 not in test.names
    assert test.base_classes == tuple(sorted({*data["train"].classes, *data["val"].classes}))
    assert len({part.hash() for part in data.values()}) == 3
    assert "240 by sha256" in test.fold_scheme and test.area_filter == 0
    with pytest.warns(UserWarning, match=r"1000 classes have other than 10 pairs .*: a_0 \(2\), .* and 990 more"):
        Fss1000(whole)


def test_ids_above_255(whole):
    data = quiet(whole, 0, "test")
    large = [c for c in data.classes if c > 255]
    assert len(large) > 100
    image, mask = data[data.images_of(large[-1])[0]]
    assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.uint8 and mask.dtype == torch.int16
    assert (mask[:, :4] == large[-1]).all() and not mask[:, 4:].any()
    assert all(data.ids[i].startswith(data.names[large[0]] + "/") for i in data.images_of(large[0]))
    rules = Protocol(input_size=17)
    episode = EpisodeSampler(data, rules, augment=True).batch(0, 8).validate()
    assert (episode.classes > 255).any() and (episode.support_masks == 1).flatten(1).any(1).all()
    assert (episode.query_masks == 1).flatten(1).any(1).all()
    train = EpisodeSampler(quiet(whole, 0, "train"), rules).batch(0, 4).validate()
    assert (train.support_masks == 1).flatten(1).any(1).all() and (train.classes > 255).any()
    assert train.base_masks is None  # 760 base classes do not fit between background and 255


def test_a_part_works_and_is_counted(part):
    words = "12 of 1000 class folders are there; 236 published test classes have no folder"
    with pytest.warns(UserWarning, match=words):
        data = Fss1000(part, 0, "test")
    assert [data.names[c] for c in data.classes] == PUBLISHED[:4] and len(data) == 40 and not data.incomplete
    assert data[0][1].dtype == torch.uint8
    val, train = quiet(part, 0, "val"), quiet(part, 0, "train")
    assert len(val.classes) == 3 and len(train.classes) == 5  # 24 of 76, rounded
    assert not set(val.classes) & set(train.classes) and val.base_classes == train.base_classes
    assert quiet(part, 0, "test", min_area=4 * SIDE).classes == data.classes
    with pytest.raises(DatasetError, match="no usable class"):
        quiet(part, 0, "test", min_area=4 * SIDE + 1)
    for name in [data.names[c] for c in data.base_classes]:
        shutil.rmtree(part / name)
    assert len(quiet(part, 0, "test").classes) == 4  # nothing but test classes
    with pytest.raises(DatasetError, match="no class of split 'train' is among the 4"):
        quiet(part)


def test_names_that_differ(part):
    """Punctuation and case do not matter; another name counts as one of the 760, and the lost one is said."""
    (part / "abe's_flyingfish").rename(part / "Abes-FlyingFish")
    data = quiet(part, 0, "test")
    assert "Abes-FlyingFish" in {data.names[c] for c in data.classes} and len(data.classes) == 4
    (part / "accordion").rename(part / "akkordeon")
    words = r"237 published test classes have no folder \(under another name.*: accordion,"
    with pytest.warns(UserWarning, match=words):
        data = Fss1000(part, 0, "test")
    assert len(data.classes) == 3
    base = {data.names[c] for c in data.base_classes}
    assert "akkordeon" in base and "Abes-FlyingFish" not in base


def test_masks_of_many_kinds(part):
    folder = part / "accordion"
    pair(folder, 1, soft=True)
    grey = Image.open(folder / "2.png")
    for number, mode in ((2, "RGB"), (3, "RGBA"), (4, "1"), (5, "P")):
        grey.convert(mode).save(folder / f"{number}.png")
    data = quiet(part, 0, "test", cache=False)
    number = next(c for c in data.classes if data.names[c] == "accordion")
    for index in data.images_of(number):
        assert (data[index][1][:, :4] == number).all() and not data[index][1][:, 4:].any()
    assert len(data.images_of(number)) == 10


def test_pairs_that_cannot_be_used(part):
    pair(part / "accordion", 8, side=2 * SIDE)  # as peregine_falcon/8 in the published archive
    pair(part / "accordion", 7, columns=0)
    (part / "accordion" / "6.png").unlink()
    (part / "accordion" / "5.jpeg").write_bytes(b"stray")
    (part / ".hidden").mkdir()
    (part / "papers").mkdir()
    with pytest.warns(UserWarning) as said:
        data = Fss1000(part, 0, "test")
    text = " ".join(str(warning.message) for warning in said)
    assert "2 classes have other than 10 pairs of image and mask: accordion (9), papers (0)" in text
    assert "leaves out 2 images: accordion/7 (no object pixel), accordion/8 (mask of another size)" in text
    assert data.incomplete == {"accordion": 9, "papers": 0} and set(data.unusable) == {"accordion/7", "accordion/8"}
    assert len(data) == 37 and "accordion/10" in data.ids and "accordion/6" not in data.ids
    (part / "accordion" / "1.png").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"cannot decode mask .*accordion/1.png"):
        quiet(part, 0, "test")
    assert quiet(part, 0, "train").classes  # other classes' files are not read


def test_validation_list(part, tmp_path):
    file = tmp_path / "val.txt"
    file.write_text("other_3\n\nother_5\n# comment\n")
    val, train = quiet(part, 0, "val", val_list=file), quiet(part, 0, "train", val_list=file)
    assert [val.names[c] for c in val.classes] == ["other_3", "other_5"] and len(train.classes) == 6
    assert val.fold_scheme.endswith("list val.txt")
    file.write_text("other_3\nother_99\n")
    with pytest.warns(UserWarning, match=r"1 of 2 classes in .* have no folder .*: other_99"):
        Fss1000(part, 0, "val", val_list=file)
    for text, said in (
        ("other_3\naccordion", "holds test classes: accordion"),
        ("nothing", "holds none, or all"),
        ("\n".join(f"other_{n}" for n in range(8)), "holds none, or all"),
    ):
        file.write_text(text)
        with pytest.raises(DatasetError, match=said):
            quiet(part, val_list=file)
    with pytest.raises(DatasetError, match="cannot read the list"):
        quiet(part, val_list=tmp_path / "none.txt")


def test_parents_and_refusals(part):
    inside = part.parent / "data" / "FSS-1000" / "fewshot_data"
    inside.parent.mkdir(parents=True)
    part.rename(inside)
    data = quiet(part.parent / "data", 0, "test")
    assert data.root == inside and quiet(inside.parent, 0, "test").hash() == data.hash()
    for options, message in (
        ({"root": inside / "accordion"}, r"no FSS-1000 folder at .*download=True"), ({"root": None}, "root=PATH"),
        ({"fold": 1}, "fold 1 does not exist"), ({"split": "all"}, "split 'all'"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=message):
            Fss1000(**{"root": inside, **options})
