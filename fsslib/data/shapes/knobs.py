"""Shapes-5i: the knobs, each of which exposes one phenomenon of few-shot segmentation."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import DatasetError

# knob -> (smallest, largest, type)
RANGES = {"parts": (1, 4, int), "area": (0.25, 1.5, float), "backgrounds": (1, 4, int)}
RANGES |= dict.fromkeys(("gap", "co_occurrence", "thinness", "occlusion", "label_noise", "absent"), (0, 1, float))
# Debris and occluders give way where fewer pixels of the target would stay visible.
MIN_VISIBLE = 12
SWAPS = (None, "texture", "shape")


@dataclass(frozen=True)
class ShapesKnobs:
    """What makes Shapes-5i harder; the defaults are its standard difficulty.

    Each knob leaves everything else of image i as it was, so that images with and without it can be compared.

    Attributes:
        gap: 0..1, support/query gap. Half of each class's images belong to domain 0, half to domain 1
            (`Shapes5i.domain(i)`, `images_of(c, domain=0)`); domain d is shifted by (d - 1/2) * gap. At gap 1 domain 1
            has warmer light, 1.65 times larger objects, shapes and textures turned by 45 degrees and textures half a
            period on. Shape rotation, texture rotation and texture phase, free at gap 0, are then fixed within a
            domain: their spread is (1 - gap) of the full circle. Episodes that mix domains have the gap half of the
            time, those of `Shapes5i(across_domains=True)` always.
        parts: 1..4, one prototype is not enough. An object is cut into this many bands; band p has texture
            (class texture + p) mod 4 and colours of its own, the class's texture keeps the largest band.
        co_occurrence: 0..1, base-class bias. Probability that a distractor is drawn from the classes known from
            training ("test": the base classes, "val": the train classes) instead of from all this split shows.
            No effect on "train", which shows train classes only.
        area: 0.25..1.5, small objects. Multiplies every object's radius.
        thinness: 0..1, thin objects lost by strided masks. Objects keep their length, their width shrinks by up to
            80 %.
        backgrounds: 1..4, background is not one class. Number of texture families backgrounds are drawn from.
        occlusion: 0..1. A bar across every object, up to 1.1 radii wide at 1 (hides roughly 60 %). It gives way where
            fewer than 12 pixels of the target would stay visible.
        label_noise: 0..1, boundary noise of the masks that the data set returns; `truth(i).clean_mask` stays clean. At
            1 borders move by about 3 % of the image's side, at most 9 %; the masks of tiny objects may come out empty.
        absent: 0..1, for evaluating absent targets. Probability that an image listed for a class shows an object of
            another class in its place and none of its own; `truth(i).absent` and `plan(i).absent` tell.
        swap: which cue counts. "texture" draws every object with its class's shape and a random other texture, so
            that only the shape still tells the class (and an object may look like another class); "shape" draws a
            random other shape with its class's texture.

    Raises DatasetError that names the knob, the value and what is allowed.
    """

    gap: float = 0.0
    parts: int = 1
    co_occurrence: float = 0.0
    area: float = 1.0
    thinness: float = 0.0
    backgrounds: int = 4
    occlusion: float = 0.0
    label_noise: float = 0.0
    absent: float = 0.0
    swap: str | None = None

    def __post_init__(self):
        for name, (low, high, kind) in RANGES.items():
            value = getattr(self, name)
            good = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
            if not good or not low <= value <= high:  # NaN fails the comparison too
                what = "a whole number" if kind is int else "a number"
                raise DatasetError(f"Shapes-5i knob {name} is {value!r}: give {what} from {low} to {high}.")
            # 1 and 1.0 are the same knob and must have the same signature.
            object.__setattr__(self, name, kind(value))
        if self.swap not in SWAPS:
            raise DatasetError(f"Shapes-5i knob swap is {self.swap!r}: give None, 'texture' or 'shape'.")

    @classmethod
    def of(cls, knobs: "ShapesKnobs | Mapping") -> "ShapesKnobs":
        """`knobs` itself, or a mapping of fields (from a parameter file) as knobs; DatasetError for anything else."""
        if isinstance(knobs, ShapesKnobs):
            return knobs
        known = ", ".join(cls.__dataclass_fields__)
        if not isinstance(knobs, Mapping):
            raise DatasetError(f"shapes option knobs is {knobs!r}: give ShapesKnobs(...) or a mapping of {known}.")
        if unknown := sorted(set(knobs) - set(cls.__dataclass_fields__)):
            raise DatasetError(f"Shapes-5i has no knob {', '.join(map(repr, unknown))}; its knobs are {known}.")
        return cls(**knobs)
