"""Shapes-5i: what an image will show (its plan, known without drawing) and what it did show (its ground truth)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .shapes_knobs import ShapesKnobs

SLOTS = 4
EMPTY = 0.2


class ShapesPlan(NamedTuple):
    """What image i will show, known without drawing it."""

    target: int  # the class the image is listed for
    classes: tuple[int, ...]  # class in each of the four slots, 0 empty; slot 0 is the target's place, drawn on top
    domain: int  # 0 or 1, see ShapesKnobs.gap
    absent: bool  # slot 0 holds another class

    def shift(self, knobs: ShapesKnobs) -> float:
        """Where the image stands in the support/query gap, in [-gap / 2, gap / 2]."""
        return (self.domain - 0.5) * knobs.gap


@dataclass(frozen=True)
class ShapesTruth:
    """Ground truth of one image.

    Attributes:
        target: class id the image is listed for.
        instances: (H, W) uint8, 0 background, k + 1 the object in slot k; 1 is the target (or what replaces it).
        parts: (H, W) uint8, 0 background, 1.. the parts of each object; 1 carries the class's texture.
        clean_mask: (H, W) uint8 class ids without label noise.
        area: visible fraction of the image's pixels that the target class covers; 0 when absent.
        shift: the image's shift, (domain - 1/2) * gap.
        classes: class id of each instance 1..4, 0 where the slot is empty.
        drawn: (shape, texture) numbers each instance was drawn with (differs from its class under `swap`), or None.
        absent: the target class is not in the image.
    """

    target: int
    instances: Tensor
    parts: Tensor
    clean_mask: Tensor
    area: float
    shift: float
    classes: tuple[int, ...]
    drawn: tuple[tuple[int, int] | None, ...]
    absent: bool


def draw_plan(
    target: int,
    shown: tuple[int, ...],
    known: tuple[int, ...],
    domain: int,
    knobs: ShapesKnobs,
    rng: np.random.Generator,
) -> ShapesPlan:
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
