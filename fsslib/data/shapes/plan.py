"""Shapes-5i: the twenty classes and which of them each fold holds out, then what an image will show (its plan, known
without drawing) and what it did show (its ground truth)."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...arguments import choose
from ...errors import DatasetError
from ..base import check_fold
from .knobs import ShapesKnobs

SHAPES = ("disc", "square", "triangle", "star", "ring")
TEXTURES = ("stripes", "checker", "dots", "marble")
# Folds per scheme: each scheme partitions the 20 classes into its folds.
FOLD_SCHEMES = {"crossed": 4, "held_out_shape": 5, "held_out_texture": 4}
SLOTS = 4  # objects in an image, the target first
EMPTY = 0.2  # share of the other slots that stay empty


def class_id(shape: int, texture: int) -> int:
    """Id 1..20 of the class with shape number `shape` (0..4) and texture number `texture` (0..3)."""
    return 1 + shape * len(TEXTURES) + texture


def shape_texture(cls: int) -> tuple[int, int]:
    """The inverse of `class_id`: shape number and texture number of class `cls`."""
    return divmod(cls - 1, len(TEXTURES))


NAMES = {class_id(s, t): f"{shape}/{tex}" for s, shape in enumerate(SHAPES) for t, tex in enumerate(TEXTURES)}


class ClassTable(NamedTuple):
    """Sorted class ids: `novel` + `base` are all twenty, `train` + `val` are `base`."""

    novel: tuple[int, ...]
    base: tuple[int, ...]
    train: tuple[int, ...]
    val: tuple[int, ...]


def class_table(fold: int, scheme: str, val_classes: int) -> ClassTable:
    """The classes of one fold.

    * `"crossed"` (4 folds, 5 novel classes): shape s with texture (s + fold) mod 4. Every shape and every texture
      stays among the base classes, novel classes are new combinations.
    * `"held_out_shape"` (5 folds, 4 novel classes): shape number `fold` with every texture.
    * `"held_out_texture"` (4 folds, 5 novel classes): texture number `fold` on every shape.

    Raises DatasetError for an unknown scheme, a fold outside it, or more validation classes than base classes allow.
    """
    choose(scheme, tuple(FOLD_SCHEMES), "fold_scheme", DatasetError)
    check_fold(fold, FOLD_SCHEMES[scheme], f"folds of fold_scheme {scheme!r}")
    held_out = {
        "crossed": lambda s, t: t == (s + fold) % len(TEXTURES),
        "held_out_shape": lambda s, t: s == fold,
        "held_out_texture": lambda s, t: t == fold,
    }[scheme]
    novel = tuple(c for c in NAMES if held_out(*shape_texture(c)))
    base = tuple(c for c in NAMES if c not in novel)
    if type(val_classes) is not int or not 0 <= val_classes < len(base):
        raise DatasetError(
            f"val_classes is {val_classes!r}: give 0 to {len(base) - 1}, so that of the {len(base)} base classes "
            "at least one is left to train on."
        )
    val = _spread(base, val_classes)
    return ClassTable(novel, base, tuple(c for c in base if c not in val), val)


def _spread(base: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` base classes that repeat shapes and textures as little as possible, so that training keeps them all."""
    chosen, shapes, textures = [], Counter(), Counter()
    for _ in range(count):
        rest = [c for c in base if c not in chosen]
        pick = min(rest, key=lambda c: (shapes[shape_texture(c)[0]] + textures[shape_texture(c)[1]], c))
        chosen.append(pick)
        shapes[shape_texture(pick)[0]] += 1
        textures[shape_texture(pick)[1]] += 1
    return tuple(sorted(chosen))


class ShapesPlan(NamedTuple):
    """What image i will show, known without drawing it."""

    target: int  # the class the image is listed for
    classes: tuple[int, ...]  # class in each of the four slots, 0 empty; slot 0 is the target's place, drawn on top
    domain: int  # 0 or 1, see ShapesKnobs.gap
    absent: bool  # slot 0 holds another class

    def shift(self, knobs: ShapesKnobs) -> float:
        """Where the image stands in the support/query gap, in [-gap / 2, gap / 2]."""
        return (self.domain - 0.5) * knobs.gap


class ShapesTruth(NamedTuple):
    """Ground truth of one image."""

    target: int  # the class the image is listed for
    instances: Tensor  # (H, W) uint8, 0 background, k + 1 the object in slot k; 1 is the target (or what replaces it)
    parts: Tensor  # (H, W) uint8, 0 background, 1.. the parts of each object; 1 carries the class's texture
    clean_mask: Tensor  # (H, W) uint8 class ids without label noise
    area: float  # visible fraction of the image's pixels that the target class covers; 0 when absent
    shift: float  # the image's, (domain - 1/2) * gap
    classes: tuple[int, ...]  # class id of each instance 1..4, 0 where the slot is empty
    drawn: tuple[tuple[int, int] | None, ...]  # (shape, texture) numbers each was drawn with, see `swap`; or None
    absent: bool  # the target class is not in the image


def draw_plan(
    target: int, shown: tuple[int, ...], known: tuple[int, ...], domain: int, knobs: ShapesKnobs,
    rng: np.random.Generator,
) -> ShapesPlan:  # fmt: skip
    """Fill the slots: the target (or, where absent, another class), then three distractors of other classes.

    Distractors come from `shown`, or with probability `knobs.co_occurrence` from `known`; a fifth of their slots stays
    empty. Takes a fixed number of draws from `rng`, so that a knob changes only what it names.
    """
    others = tuple(c for c in shown if c != target)
    favoured = tuple(c for c in known if c != target) or others
    draws = rng.random((SLOTS, 3)).tolist()
    absent = draws[0][0] < knobs.absent
    slots = []
    for slot, (gate, co, pick) in enumerate(draws):
        choice = favoured if co < knobs.co_occurrence else others
        filled = choice and (slot == 0 or gate >= EMPTY)
        slots.append(choice[int(pick * len(choice))] if filled else 0)
    if not absent:
        slots[0] = target
    return ShapesPlan(target, tuple(slots), domain, absent)
