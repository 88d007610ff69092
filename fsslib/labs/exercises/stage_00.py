"""Exercises of notebook 00: the mask of a support, IoU, and a test of whether a model looks at its support."""

import torch
from torch import Tensor

from ...data.base import base_table
from ...metrics import FewShotIoU
from ..exercise import Cases, essay, exercise

STAGE = "00_start_here"


def _support_cases() -> Cases:
    labels = torch.zeros(6, 8, dtype=torch.uint8)
    labels[1:4, 1:3], labels[2:6, 5:7], labels[0, 4:] = 7, 1, 12
    labels[4, :4] = 255
    return {
        "class 7 in a picture with classes 1, 7 and 12": (labels, 7),
        "class 1 in the same picture": (labels.long(), 1),
        "a class that the picture does not show": (labels, 3),
    }


def _unclear(labels: Tensor, rest: Tensor) -> Tensor:
    """`rest`, with 255 where the labels have it."""
    return rest.long().masked_fill(labels == 255, 255)


@exercise(STAGE, _support_cases, slips={
    "255 became background: Pixels marked 255 became 0. They are not background either: no prototype may be made of "
    "them.": lambda m, c: (m == c).long(),
    "255 became object: Pixels marked 255 became 1. "
    "Nobody knows what they show: no prototype may be made of them.": lambda m, c: ((m == c) | (m == 255)).long(),
    "every object: Every object is marked. The support has to say *which* of them is meant: where does the class come "
    "in?": lambda m, c: _unclear(m, m > 0),
    "other classes kept: The other objects keep their class numbers. For this episode they are background like "
    "everything else.": lambda m, c: torch.where(m == c, 1, m),
    "other classes left out: The other objects became 255. But they are known not to be the class: "
    "they are background.": lambda m, c: torch.where(m == c, 1, torch.where(m == 0, 0, 255)),
    "class number kept: The object still has its class number. "
    "An episode calls its class 1, whatever its number is.": lambda m, c: m * ((m == c) | (m == 255)),
    "inverted: Object and background are exchanged: the object is 1.": lambda m, c: _unclear(m, m != c),
    "the label 1 mixed up with class 1: Class 1 of the data set was taken for the 1 of the new mask: compare the "
    "labels as they were given.": lambda m, c: (lambda x: x * ((x == 1) | (x == 255)))(torch.where(m == c, 1, m)),
})  # fmt: skip
def support_mask(labels: Tensor, class_id: int) -> Tensor:
    return base_table([class_id])[labels.long()]


def _iou_cases() -> Cases:
    marked, true = torch.zeros(2, 3, 8, 10, dtype=torch.long).unbind()
    true[0, 1:7, 1:7], marked[0, 3:8, 2:7] = 1, 1
    true[1, 2:4, 3:5], marked[1, 2:6, 4:9] = 1, 1
    true[2, 5, 1:9], marked[2, 4:6, 1:4] = 1, 1
    unclear = true.clone()
    unclear[0, 6], unclear[1, :, 5:7], unclear[2, :, 0:3] = 255, 255, 255
    none = torch.zeros(2, 8, 10, dtype=torch.long)
    none[:, 0] = 255
    some = torch.zeros_like(none)
    some[0, 0, 3:], some[1, 2:4, 3:7] = 1, 1
    return {
        "three masks": (marked, true),
        "three masks with pixels marked 255": (marked, unclear),
        "two targets without an object: one prediction is empty, too (IoU 1), the other is not (IoU 0)": (some, none),
    }


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """(B, H, W) bools twice -> (B,); ZeroDivisionError where there is nothing to divide by."""
    if not whole.any(-1).any(-1).all():
        raise ZeroDivisionError
    return part.sum((1, 2)) / whole.sum((1, 2))


def _sides(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return (p == 1) & (t != 255), t == 1


def _ious(p: Tensor, t: Tensor) -> Tensor:
    a, b = _sides(p, t)
    return _share(a & b, a | b)


def _pooled(p: Tensor, t: Tensor) -> Tensor:
    a, b = _sides(p, t)
    return (a & b).sum() / (a | b).sum()


def _filled(p: Tensor, t: Tensor, empty: float) -> Tensor:
    a, b = _sides(p, t)
    return ((a & b).sum((1, 2)) / (a | b).sum((1, 2))).nan_to_num(empty)


@exercise(STAGE, _iou_cases, slips={
    "one number for the batch: This is one number for all episodes together. Each has an IoU of its own: sum over its "
    "pixels.": _pooled,
    "255 counted: Predictions where the target is 255 count as wrong here. "
    "Such pixels belong to no union.": lambda p, t: _share((p == 1) & (t == 1), (p == 1) | (t == 1)),
    "255 counted as object: Pixels marked 255 were taken for the object. Ask which targets are 1, not which are more "
    "than 0.": lambda p, t: _share((p == 1) & (t > 0), (p == 1) | (t > 0)),
    "divided by the target: This is recall: marking the whole image would give 1. The union also holds what was marked "
    "outside the object.": lambda p, t: _share(_sides(p, t)[0] & (t == 1), t == 1),
    "divided by the prediction: This is precision: a single safe pixel would give 1. The union also holds what was "
    "missed.": lambda p, t: _share(_sides(p, t)[0] & (t == 1), _sides(p, t)[0]),
    "Dice: This is the Dice score (F1): it divides by the sum of the two areas. "
    "IoU divides by the union.": lambda p, t: 2 / (1 + 1 / _ious(p, t)),
    "pixel accuracy: This is the share of pixels that are right. Background is easy and large: an empty prediction "
    "would score high. IoU leaves out what both call background.": lambda p, t: _share((p == t) & (t != 255), t != 255),
    "two empty masks, NaN: Where both masks are empty, this is 0 / 0, and one NaN makes every mean NaN: handle this "
    "case.": lambda p, t: _filled(p, t, torch.nan),
    "two empty masks, 0: Two empty masks score 0 here, as if something had been missed. "
    "They agree in every pixel.": lambda p, t: _filled(p, t, 0.0),
})  # fmt: skip
def iou_of(prediction: Tensor, target: Tensor) -> Tensor:
    counts = FewShotIoU()
    counts.update(prediction, target, torch.zeros(len(target), 1, dtype=torch.long))
    ious, unions = counts.compute().episode_iou(), counts.compute().table[:, 1].sum(-1)
    return torch.from_numpy(ious).float().masked_fill(torch.from_numpy(unions) == 0, 1.0)


def _episode_cases() -> Cases:
    draw = torch.Generator().manual_seed(3)

    def supports(*sizes: int) -> tuple[Tensor, Tensor]:
        masks = torch.randint(0, 2, (*sizes, 4, 5), generator=draw)
        return torch.randn(*sizes, 3, 4, 5, generator=draw), masks

    return {
        "four episodes, 1-way 1-shot": supports(4, 1, 1),
        "four episodes, 2-way 3-shot": supports(4, 2, 3),
        "a batch of one (it can only keep its own)": supports(1, 1, 2),
    }


def _both(change):
    return lambda images, masks: (change(images), change(masks))


@exercise(STAGE, _episode_cases, slips={
    "nothing moved: Every episode still has its own support.": lambda i, m: (i, m),
    "masks stayed: The images moved, the masks stayed: "
    "each mask now lies on a foreign image. Image and mask belong together.": lambda i, m: (i.roll(-1, 0), m),
    "images stayed: The masks moved, the images stayed: "
    "each image now has a foreign mask. Image and mask belong together.": lambda i, m: (i, m.roll(-1, 0)),
    "the episode before: This is the support of the episode *before*. "
    "The first episode should get that of the second.": _both(lambda x: x.roll(1, 0)),
    "shifted by single values: All values moved by one place, across the borders of images. Move whole episodes: the "
    "first dimension.": _both(lambda x: x.roll(-1)),
    "shots exchanged: The shots changed places within their episode, which keeps its support. "
    "B is the first dimension.": _both(lambda x: x.roll(-1, 2)),
    "last one keeps its own: The last episode still has its own support: "
    "it should get that of the first.": _both(lambda x: torch.cat([x[1:], x[-1:]])),
})  # fmt: skip
def foreign_supports(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    order = [*range(1, len(images)), 0]
    return images[order], masks[order]


what_the_support_does = essay(STAGE, "what_the_support_does", terms=("class", "object", "oracle", "prototype"))
