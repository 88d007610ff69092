"""A made-up COCO folder for the tests."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from voc_tree import quietly

from fsslib.data.photographs import coco_label_maps as coco_masks
from fsslib.data.photographs.coco import Coco20i

W, H = 24, 16
# Category ids have gaps, as COCO's: class 1 is 1, class 8 is 9, class 80 is 90.
CATEGORY = {number: number + number // 8 for number in range(1, 81)}
# Image id -> class -> columns it fills. Interleaved, fold 0 tests 1, 5, 9, ...; contiguous, 1 to 20.
TRAIN = {2: {2: 6}, 3: {2: 4, 5: 3}, 4: {3: 9}, 9: {3: 2, 78: 6}, 11: {78: 5, 30: 1}, 12: {30: 7, 79: 2}, 13: {79: 4}}
VAL = {21: {1: 8}, 22: {1: 3, 5: 4}, 23: {5: 8}, 24: {9: 2}, 25: {13: 3, 2: 4}, 26: {13: 2}, 27: {2: 3}}


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def thing(image: int, cls: int, segmentation, **more) -> dict:
    return {"image_id": image, "category_id": CATEGORY.get(cls, cls), "segmentation": segmentation, **more}


def label(classes: dict[int, int]) -> np.ndarray:
    """What `columns` draws."""
    mask, at = np.zeros((H, W), np.uint8), 0
    for cls, count in classes.items():
        mask[2:, at : at + count] = cls
        at += count
    return mask


def columns(image: int, classes: dict[int, int]) -> list[dict]:
    things, at = [], 0
    for cls, count in classes.items():
        things.append(thing(image, cls, box(at, 2, at + count, H)))
        at += count
    return things


def document(images, annotations, size=(H, W), names=CATEGORY, stem="{:012d}") -> dict:
    return {
        "images": [
            {"id": i, "file_name": f"{stem.format(i)}.jpg", "height": size[0], "width": size[1]} for i in images
        ],
        "categories": [{"id": names[n], "name": f"class {n}"} for n in sorted(names, reverse=True)],
        "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations)],
    }


def photograph(file: Path, size=(W, H), **options) -> None:
    colour = np.random.default_rng(len(file.name)).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(colour).save(file, **options)


def make_set(root: Path, name: str, images: dict[int, dict[int, int]], inside: str = "") -> Path:
    """One image set; returns its annotation file."""
    stem = f"COCO_{name}_{{:012d}}" if name.endswith("2014") else "{:012d}"
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / inside / name).mkdir(parents=True)
    for image in images:
        photograph(root / inside / name / f"{stem.format(image)}.jpg")
    everything = [entry for image, classes in images.items() for entry in columns(image, classes)]
    file = root / "annotations" / f"instances_{name}.json"
    file.write_text(json.dumps(document(images, everything, stem=stem)))
    return file


def make_coco(root: Path, year: int = 2017, inside: str = "") -> Path:
    make_set(root, f"train{year}", TRAIN, inside)
    make_set(root, f"val{year}", VAL, inside)
    return root


def masks_of(folder: Path, annotations, size=(H, W), **options) -> coco_masks.CocoMasks:
    """The label maps of a file with one image, number 1."""
    file = folder / f"{len(os.listdir(folder))}.json"
    file.write_text(json.dumps(document([1], annotations, size, **options)))
    return coco_masks.open_masks(file)


quiet = partial(quietly, Coco20i, val_classes=0)
