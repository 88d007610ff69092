"""A made-up VOC folder of twelve pictures for the tests."""

import warnings
from functools import partial

import numpy as np
from PIL import Image

from fsslib.data.photographs.base import Photographs
from fsslib.data.photographs.pascal import Pascal5i, voc_palette

W, H = 40, 32
# id -> class ids and the number of columns each fills; fold 0 tests 1..5.
TRAIN = {
    "2008_000001": {6: 8}, "2008_000002": {6: 10, 1: 4}, "2008_000003": {7: 8}, "2008_000004": {7: 2, 20: 6},
    "2008_000005": {20: 9}, "2008_000006": {19: 8}, "2008_000007": {19: 12, 2: 1},
}  # fmt: skip
VAL = {"2008_000011": {1: 8}, "2008_000012": {1: 2, 6: 9}, "2008_000013": {2: 8}, "2008_000014": {2: 5}, "x_15": {3: 7}}


def label(columns: dict[int, int], scale: int = 1) -> np.ndarray:
    mask, at = np.zeros((H, W), np.uint8), 1
    for cls, count in columns.items():
        mask[4:, at : at + count] = cls
        at += count + 1
    mask[:4, :5] = 255
    return mask.repeat(scale, 0).repeat(scale, 1)


def save_mask(mask: np.ndarray, file, palette=None) -> None:
    picture = Image.fromarray(mask)
    picture.putpalette((voc_palette() if palette is None else palette).tobytes())
    picture.save(file)


def make_voc(tmp_path, scale: int = 1):
    """A VOC folder with seven train and five val images of 40 x 32 pixels, times `scale`."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, columns in {**TRAIN, **VAL}.items():
        colour = np.random.default_rng(len(columns)).integers(0, 256, (scale * H, scale * W, 3)).astype(np.uint8)
        Image.fromarray(colour).save(root / "JPEGImages" / f"{name}.jpg")
        save_mask(label(columns, scale), root / "SegmentationClass" / f"{name}.png")
    for part, ids in (("train", TRAIN), ("val", VAL)):
        (root / "ImageSets/Segmentation" / f"{part}.txt").write_text("\n".join(ids) + "\n")
    return root


def quietly(load: type, *args, **options) -> Photographs:
    """A data set loaded without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(*args, **options)


# With all base classes in training unless a test says otherwise.
quiet = partial(quietly, Pascal5i, val_classes=0)


def list_of(voc, ids, name="list.txt"):
    (voc / name).write_text("\n".join(ids))
    return voc / name
