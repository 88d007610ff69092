"""Somebody's own COCO annotation file: which images and annotations can be used, and what is wrong with the rest."""

from pathlib import Path

import numpy as np

from ...errors import DatasetError
from ..base import positions
from ..photographs.coco_label_maps import (
    EXPECTED,
    RENUMBER,
    UNLISTED,
    Annotations,
    CocoMasks,
    fault,
    open_masks,
    read_annotations,
)
from ..photographs.label_index import LabelIndex
from .layouts import Entry, Pairing, named_picture, pictures
from .pairs import image_size
from .problems import Fault


def coco_json(file: Path) -> tuple[Pairing, np.ndarray]:
    """The pairs of an annotation file, and (pairs, classes) pixels of every class id in them.

    Pairs are the images with at least one object. They are looked for by their `file_name` anywhere below the folder of
    the file (the folder above, if it lies in `annotations/`). A problem with an annotation leaves out the annotation,
    one with an image leaves out the image.
    """
    base = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    pairing = Pairing("coco_json", base, names={})
    try:
        masks, said = open_masks(file), read_annotations(file)
    except DatasetError as error:
        message = str(error).split(f"{file.name}: ", 1)[-1].removesuffix(f". {EXPECTED}").removesuffix(f". {RENUMBER}")
        cure = "Export it again as COCO instances: one object with 'images', 'categories' and 'annotations'."
        cure = RENUMBER if str(error).endswith(RENUMBER) else cure
        pairing.blame(file, "broken JSON", f"cannot be read: {message}", cure)
        return pairing, np.zeros((0, 1), np.int32)
    pairing.names = _used_names(said)
    photographs = pictures(base)
    for number, first in said.again.items():
        place, message = base / said.images[first].file, f"has the image ids {first} and {number} in {file.name}"
        cure = "All its outlines are drawn on one label map. Give it one id where that is not what they mean."
        pairing.blame(place, "same picture twice", message, cure)
    pairs, shown = [], _shown(file, said, masks, pairing)
    for number in sorted(shown, key=lambda number: (masks.images[number].file, number)):
        name = masks.images[number].file.replace("\\", "/")  # as exporters on Windows write it
        image = named_picture(photographs, base, name)
        if image:
            pairs.append((number, image))
        else:
            pairing.total += 1
            message, cure = f"is listed in {file.name}, but is not there", "Copy it there, or remove its entry."
            pairing.blame(base / name, "image file missing", message, cure)
    pairs = _fitting(file, pairs, masks, pairing)
    pairing.entries = [Entry(masks.images[number].file, image, masks.file_of(number)) for number, image in pairs]
    return pairing, masks.areas(pairs) if pairs else np.zeros((0, 1), np.int32)


def _shown(file: Path, said: Annotations, masks: CocoMasks, pairing: Pairing) -> set[int]:
    """The ids of the images with an object to draw; a problem for every annotation that cannot be drawn."""
    shown = set()
    for at, annotation in enumerate(said.annotations):
        reason = fault(annotation, masks.images, said.categories)
        image, category = annotation.get("image_id"), annotation.get("category_id")
        label = f"annotation {annotation.get('id', f'number {at}')}"
        if reason is None:
            if not annotation.get("iscrowd"):
                shown.add(image)
            continue
        if reason == UNLISTED or not (isinstance(image, int) and isinstance(category, int)):
            kind = "unknown image or category"
            message = f"{label} has image {image!r} and category {category!r}, which are not both listed"
            cure = "Add what 'images' or 'categories' lacks, or remove the annotation."
        else:
            kind, message = "no polygon", f"{label} on {masks.images[image].file}: one {reason}"
            cure = "Draw its outline as a polygon; boxes and points are no masks."
        pairing.blame(file, kind, message, cure)
    return shown


def _fitting(file: Path, pairs: list[tuple[int, Path]], masks: CocoMasks, pairing: Pairing) -> list[tuple[int, Path]]:
    """The images that can be decoded and have the size that the annotations were drawn at."""
    pairing.total += len(pairs)
    files = [(image, image) for _, image in pairs]
    table = LabelIndex("folder-sizes", pairing.base, _sides).counts(files, 4)
    good = []
    for (number, image), row in zip(pairs, table.tolist()):
        listed = masks.images[number]
        if not any(row):
            try:
                row = sum(image_size(image), ())
            except Fault as error:
                pairing.problems.append(error.problem)
                continue
        sizes = {tuple(row[0:2]), tuple(row[2:4])}
        if (listed.width, listed.height) in sizes:
            good.append((number, image))
        else:
            message = f"is {row[0]}x{row[1]} pixels, but {file.name} says {listed.width}x{listed.height}"
            cure = "Use the picture that was annotated; a resized one needs its annotations exported again."
            pairing.blame(image, "size mismatch", message, cure)
    return good


def _sides(image: Path, _: Path) -> dict[int, int]:
    """What the index keeps of an image: width and height upright (0, 1) and as stored (2, 3), or nothing."""
    try:
        return dict(enumerate(sum(image_size(image), ())))
    except Fault:
        return {}


def _used_names(said: Annotations) -> dict[int, str]:
    """Class names without the headings that some exporters list as categories: no object, and others' supercategory.
    Of categories with the same name all but the first are called "name (id 7)"."""
    used = [annotation.get("category_id") for annotation in said.annotations]
    used = {number for number in used if isinstance(number, int)}
    listed = sorted(said.categories)
    names: dict[int, str] = {}
    for number, cls in zip(listed, positions(len(listed)).tolist()):
        name = said.categories[number]
        if number in used or name not in said.headings:  # a class may well be its own supercategory
            while name in names.values():
                name += f" (id {number})"
            names[cls] = name
    return names
