"""Shapes-5i, the embedded data set: 20 classes, 5 shapes x 4 textures, drawn on demand from a seed, no files.

A class is a shape with a texture; colour says nothing about it. Backgrounds carry the same textures, other objects
stand around, so neither texture nor "everything that is an object" gives the answer.
"""

from collections.abc import Mapping
from dataclasses import asdict
from operator import index as as_index

import numpy as np
import torch
from torch import Tensor

from ...arguments import check_switch, choose
from ...episode import IGNORE
from ...errors import DatasetError
from ..base import NOVEL, SPLITS, SegmentationDataset
from .drawing import Scene, draw_scene
from .knobs import ShapesKnobs
from .plan import FOLD_SCHEMES, NAMES, ShapesPlan, ShapesTruth, class_table, draw_plan

__all__ = ["ENDLESS", "Shapes5i", "ShapesKnobs", "ShapesPlan", "ShapesTruth"]

# Length of a data set with pool=None: it can draw any index, but lists of indices have to end somewhere.
ENDLESS = 2**18
# Part of the signature: raise it whenever the drawing changes.
VERSION = 1


class ShapesIndexError(DatasetError, IndexError):
    """An index beyond the data set (also an IndexError, so that plain iteration ends)."""


class Shapes5i(SegmentationDataset):
    """Image i is a pure function of (seed, split, fold, options, i); nothing is drawn before it is asked for.

    Between kinds of CPU a pixel may differ by one grey level (the last bit of a sine).

    Args:
        fold, split: held-out fold; "train" shows train classes only, "val" targets the held-back base classes among
            all base classes, "test" targets the novel classes among all twenty. Splits and folds share no images.
        fold_scheme: "crossed" (4 folds of 5 novel classes), "held_out_shape" (5 of 4) or "held_out_texture" (4 of 5).
        size: side in pixels, 33 to 1025; 8k + 1 fits stride-8 grids exactly. Everything scales with it.
        pool: number of images, or None for any index (`len` is then ENDLESS). Images do not depend on it.
        seed: non-negative whole number. knobs: a ShapesKnobs (or a mapping of its fields).
        val_classes: how many base classes are held back from "train" for "val"; 0 trains on all of them.
        novel: novel and held-back classes in the images of "train": `"drop"` (they are never drawn), or all twenty
            classes stand around, and the masks call these `"background"` (as in PASCAL-5i) or `"ignore"` them (255).
        across_domains: episodes take their supports from domain 0 and their queries from domain 1 of the knob `gap`.
        cache: keep drawn images (uint8, 4 * size**2 bytes each). Has no effect with pool=None.

    Raises DatasetError for options outside these.
    """

    name = "shapes"
    augmentation = "symmetry"

    def __init__(
        self, fold: int = 0, split: str = "train", *, fold_scheme: str = "crossed", size: int = 97,
        pool: int | None = 3000, seed: int = 0, knobs: ShapesKnobs | Mapping = ShapesKnobs(),  # noqa: B008 (frozen)
        val_classes: int = 3, novel: str = "drop", across_domains: bool = False, cache: bool = True,
    ):  # fmt: skip
        table = class_table(fold, fold_scheme, val_classes)
        check_switch(across_domains, "across_domains", error=DatasetError)
        choose(split, SPLITS, "split", DatasetError)
        choose(novel, NOVEL, "novel", DatasetError)
        _whole("size", size, 33, 1025)
        _whole("seed", seed, 0, 2**63 - 1)
        if pool is not None:
            _whole("pool", pool, 1, 2**31)
        self.fold, self.split, self.names = fold, split, dict(NAMES)
        self.fold_scheme, self.size, self.pool, self.seed, self.val_classes = fold_scheme, size, pool, seed, val_classes
        self.knobs, self.across_domains = ShapesKnobs.of(knobs), across_domains
        self.base_classes = table.base
        self.classes = {"train": table.train, "val": table.val, "test": table.novel}[split]
        if not self.classes:
            raise DatasetError("split 'val' of shapes is empty with val_classes=0: hold back at least one class.")
        # What distractors are drawn from, and the classes known from training that co_occurrence favours.
        everything = tuple(NAMES)
        self._shown = {"train": table.train, "val": table.base, "test": everything}[split]
        self.novel, self._relabel = "drop", None
        if split == "train" and novel != "drop":
            self.novel, self._shown = novel, everything
            self._relabel = np.arange(256, dtype=np.uint8)
            self._relabel[[c for c in everything if c not in table.train]] = IGNORE if novel == "ignore" else 0
        self._known = table.base if split == "test" else table.train
        self._stream = (seed, SPLITS.index(split), list(FOLD_SCHEMES).index(fold_scheme), fold)
        self.cache = bool(cache) and pool is not None
        self._store: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return ENDLESS if self.pool is None else self.pool

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, S, S) uint8 and mask (S, S) uint8 with the class id of every object, 0 background."""
        index = self._index(index)
        if index in self._store:
            image, mask = self._store[index]
            return image.clone(), mask.clone()
        scene = self._scene(index)
        labels = scene.mask if self._relabel is None else self._relabel[scene.mask]
        image, mask = torch.from_numpy(scene.image), torch.from_numpy(labels)
        if self.cache:
            self._store[index] = image.clone(), mask.clone()
        return image, mask

    def images_of(self, cls: int, domain: int | None = None) -> list[int]:
        """Images whose target is `cls`: always visible there (12 pixels or more), unless `absent` says otherwise.

        Class number k of n owns every n-th index, so nothing is drawn. `domain` 0 or 1 selects one side of the
        support/query gap. Images that show `cls` only as a distractor are not listed.
        """
        self.check_class(cls)
        if domain not in (None, 0, 1):
            raise DatasetError(f"domain {domain!r} is unknown: give None, 0 or 1.")
        images = range(self.classes.index(cls), len(self), len(self.classes))
        return [i for i in images if domain is None or self.domain(i) == domain]

    def supports_of(self, cls: int) -> list[int]:
        """The images of `cls` without those that the knob `absent` has emptied: they serve as queries only."""
        images = self.images_of(cls, 0) if self.across_domains else self.images_of(cls)
        return [i for i in images if not self.plan(i).absent] if self.knobs.absent else images

    def queries_of(self, cls: int) -> list[int]:
        return self.images_of(cls, 1) if self.across_domains else self.images_of(cls)

    def shows(self, index: int, cls: int) -> bool:
        """Whether an object of `cls` was placed in the image (debris may hide all of a distractor)."""
        return cls in self.plan(index).classes

    def domain(self, index: int) -> int:
        """0 or 1: the images of each class alternate between the two domains of the gap."""
        return self._index(index) // len(self.classes) % 2

    def plan(self, index: int) -> ShapesPlan:
        """What image `index` will show, without drawing it."""
        return self._plan(self._index(index))[0]

    def truth(self, index: int) -> ShapesTruth:
        """Ground truth of image `index`, by the same drawing (not cached)."""
        index = self._index(index)
        plan, scene = self.plan(index), self._scene(index)
        instances, parts, clean = map(torch.from_numpy, (scene.instances, scene.parts, scene.clean_mask))
        area = float((clean == plan.target).double().mean())
        shift = plan.shift(self.knobs)
        return ShapesTruth(plan.target, instances, parts, clean, area, shift, plan.classes, scene.drawn, plan.absent)

    def signature(self) -> str:
        # Test images do not depend on how the base classes are divided.
        divided = "" if self.split == "test" else f" val_classes={self.val_classes}"
        divided += "" if self.novel == "drop" else f" novel={self.novel}"
        across = " across_domains" if self.across_domains else ""
        return (
            f"shapes v{VERSION} fold={self.fold} split={self.split} scheme={self.fold_scheme} size={self.size} "
            f"pool={self.pool} seed={self.seed}{divided} knobs={asdict(self.knobs)}{across}"
        )

    def _index(self, index: int) -> int:
        index = as_index(index)
        if index < 0 or (self.pool is not None and index >= self.pool):
            raise ShapesIndexError(f"shapes has no image {index}: its images are numbered 0 to {len(self) - 1}.")
        return index

    def _plan(self, index: int) -> tuple[ShapesPlan, np.random.Generator]:
        """The plan, and the image's random stream as it stands after it."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self._stream, index))))
        target = self.classes[index % len(self.classes)]
        return draw_plan(target, self._shown, self._known, self.domain(index), self.knobs, rng), rng

    def _scene(self, index: int) -> Scene:
        plan, rng = self._plan(index)
        return draw_scene(plan.classes, plan.shift(self.knobs), self.knobs, self.size, rng)

    def __getstate__(self) -> dict:
        """Loader processes start with an empty cache instead of a copy of it."""
        return {**self.__dict__, "_store": {}}


def _whole(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise DatasetError(f"shapes option {name} is {value!r}: give a whole number from {low} to {high}.")
