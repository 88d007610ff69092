"""Episodes from a data set: a draw is a pure function of seed and index, and a fixed list has a hash."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_count
from ..episode import IGNORE, Episode
from ..errors import DatasetError
from ..protocol import Protocol
from .base import SegmentationDataset, base_table
from .transforms import WHOLE, Resize, augment, augment_whole, normalise, vanished
from .weak_annotations import annotate

NAMED = 5  # supports without an object at the network's size that are named in a warning


@dataclass(frozen=True)
class EpisodeSpec:
    """Which images make an episode: class ids (N), N lists of K support indices, and the query's index."""

    classes: tuple[int, ...]
    supports: tuple[tuple[int, ...], ...]
    query: int


@dataclass(frozen=True)
class EpisodeList:
    """A fixed list of episodes; `hash` identifies list and data."""

    specs: tuple[EpisodeSpec, ...]
    hash: str

    def shots(self, count: int) -> EpisodeList:
        """The same queries and classes with the first `count` supports each, so that K can be compared in pairs.
        Raises DatasetError when the list holds fewer."""
        held = len(self.specs[0].supports[0]) if self.specs else count
        if not 1 <= count <= held:
            raise DatasetError(f"shots({count}): the list was drawn with {held} supports a class, ask for 1 to {held}.")
        cut = tuple(EpisodeSpec(s.classes, tuple(w[:count] for w in s.supports), s.query) for s in self.specs)
        return EpisodeList(cut, self.hash)


class EpisodeSampler:
    """Draws N-way K-shot episodes from a data set.

    Args:
        dataset: any SegmentationDataset; episodes target its `classes`.
        protocol: input size, resizing, void policy, ways, query order, annotation of the supports, augmentation.
        shot: K. seed: base of the training batches; fixed lists have seeds of their own.
        augment: random changes of the protocol's kind, drawn per image (training only).
        keep: bytes of resized images to keep in memory.
    Attributes:
        resize: what brings image and mask to the input size.
        vanished: (image, class) of the supports met so far whose object is gone at the input size.
        images: indices of the images that can be queries, each once: an epoch of `queries="every_image"`.
    Raises:
        DatasetError: fewer usable classes than ways. A class with fewer than K + 1 images is left out with a warning.
    """

    def __init__(
        self, dataset: SegmentationDataset, protocol: Protocol | None = None, *, shot: int = 1, seed: int = 0,
        augment: bool = False, keep: int = 0,
    ):  # fmt: skip
        self.dataset, self.protocol = dataset, protocol or Protocol()
        self.shot, self.seed, self.augment = shot, seed, augment
        check_count(shot, "shot", error=DatasetError)
        check_count(seed, "seed", 0, error=DatasetError)
        self._copies = dataset.copies()
        pools = {c: np.array(dataset.different(dataset.supports_of(c)), np.int64) for c in dataset.classes}
        self.supports = {c: pool for c, pool in pools.items() if len(pool) > shot}
        self.pools = {c: np.array(dataset.queries_of(c), np.int64) for c in self.supports}
        self._room, self._kept = keep, {}
        self.vanished: set[tuple[int, int]] = set()
        self.resize = Resize(self.protocol.input_size, self.protocol.resize)
        lacking = ", ".join(f"{dataset.names[c]} ({len(pool)})" for c, pool in pools.items() if c not in self.pools)
        if len(self.pools) < self.protocol.way:
            raise DatasetError(
                f"{dataset.name} fold {dataset.fold} {dataset.split}: {self.protocol.way}-way {shot}-shot episodes "
                f"need {self.protocol.way} classes with at least {shot + 1} images; {len(self.pools)} have them"
                f"{'; too few images: ' + lacking if lacking else ''}. Use fewer ways or shots, or add images."
            )
        if lacking:
            warnings.warn(f"{shot}-shot episodes need {shot + 1} images a class; left out: {lacking}.", stacklevel=2)
        holders = sorted({(image, c) for c, pool in self.pools.items() for image in pool.tolist()})
        self._classes_in: dict[int, list[int]] = {}
        for image, c in holders:
            self._classes_in.setdefault(image, []).append(c)
        self.images = tuple(self._classes_in)
        kind = self.protocol.augmentation
        self._kind = dataset.augmentation if kind == "dataset" else kind
        self._epoch: tuple[int, np.ndarray] | None = None

    def draw(self, seed: int, index: int) -> EpisodeSpec:
        """Episode `index` of the endless sequence `seed`."""
        generator = np.random.default_rng([seed, index])
        known = list(self.pools)
        if self.protocol.queries == "every_image":
            query = self.images[index % len(self.images)]
            first = _pick(self._classes_in[query], generator)
        else:
            first = _pick(known, generator)
            query = _pick(self.pools[first], generator)
        others = [c for c in generator.permutation(known).tolist() if c != first][: self.protocol.way - 1]
        # The query's class may stand in any slot, else "the query shows way 1" would be a shortcut.
        classes = generator.permutation([first, *others]).tolist()
        if self.protocol.absent and generator.random() < self.protocol.absent:
            query = self._without(classes, generator)
        supports = []
        for c in classes:
            pool = self.supports[c][self.supports[c] != query]
            if (picture := self._copies.get(query)) is not None:
                pool = np.array([image for image in pool.tolist() if self._copies.get(image) != picture], np.int64)
            supports.append(tuple(generator.permutation(pool)[: self.shot].tolist()))
        return EpisodeSpec(tuple(classes), tuple(supports), query)

    def _without(self, classes: Sequence[int], generator: np.random.Generator) -> int:
        """A query that shows none of `classes`."""
        for query in generator.permutation(self.images).tolist():
            if not any(self.dataset.shows(query, c) for c in classes):
                return query
        names = ", ".join(self.dataset.names[c] for c in classes)
        raise DatasetError(
            f"{self.dataset.name} fold {self.dataset.fold} {self.dataset.split}: absent={self.protocol.absent} needs "
            f"queries without {names}, and every image shows it. Use absent=0, fewer ways, or add images."
        )

    def fixed(self, episodes: int, seed: int = 0) -> EpisodeList:
        """The first `episodes` draws of `seed`, with a hash over the draws and the data."""
        check_count(seed, "seed", 0, error=DatasetError)
        check_count(episodes, "fixed: episodes", unit="episodes", error=DatasetError)
        specs = tuple(self.draw(seed, index) for index in range(episodes))
        text = json.dumps([self.dataset.hash(), [[s.classes, s.supports, s.query] for s in specs]])
        return EpisodeList(specs, hashlib.sha256(text.encode()).hexdigest()[:12])

    def build(self, specs: Sequence[EpisodeSpec], augment_seed: int | None = None, first: int = 0) -> Episode:
        """Load the images of `specs` (all with the same N and K) into one Episode; with `augment_seed` they change at
        random, as those from number `first` on of a batch. Raises DatasetError when a support image holds no pixel of
        its class."""
        shapes = {(len(spec.classes), len(spec.supports), len(pool)) for spec in specs for pool in spec.supports}
        if len(shapes) != 1:
            raise DatasetError("build() needs at least one spec, and the same number of ways and shots in all of them.")
        queries, supports, size = (len(specs),), (len(specs), *shapes.pop()[1:]), (self.protocol.input_size,) * 2
        images, support_images = _empty(np.float32, (*queries, 3, *size), (*supports, 3, *size))
        masks, base, support_masks = _empty(np.int64, (*queries, *size), (*queries, *size), (*supports, *size))
        for i, spec in enumerate(specs):
            seed = None if augment_seed is None else augment_seed * 1009 + first + i
            image, label = self._load(spec.query, seed, spec.classes)
            normalise(image, images[i])
            masks[i] = self._query_mask(label, spec.classes)
            if self._base_table is not None:
                base[i] = torch.from_numpy(self._base_table.take(label.numpy()))
            self._load_supports(spec, seed, support_images[i], support_masks[i])
        classes = torch.tensor([spec.classes for spec in specs])
        base = None if self._base_table is None else base
        return Episode(images, masks, support_images, support_masks, classes, base, self._class_index(classes))

    def batch(self, step: int, size: int, part: tuple[int, int] = (0, 1)) -> Episode:
        """The training batch of `step`: a pure function of the sampler's seed and the step. Of its `size` episodes the
        `part` (number, of how many). With `queries="every_image"` each epoch has an order of its own."""
        items = share(size, part)
        specs = [self.draw(self.seed, self._shuffled(step * size + item)) for item in items]
        augment_seed = self.seed * 1_000_003 + step if self.augment else None
        return self.build(specs, augment_seed, first=items.start)

    def _shuffled(self, index: int) -> int:
        """`index` itself, or when every image has its turn another one of the same epoch."""
        if self.protocol.queries != "every_image":
            return index
        epoch, place = divmod(index, len(self.images))
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, 321]).permutation(len(self.images))
            self._epoch = epoch, order
        return epoch * len(self.images) + int(self._epoch[1][place])

    def label(self, spec: EpisodeSpec) -> Tensor:
        """(H, W) long query mask at the image's original size."""
        return self._query_mask(self.dataset[spec.query][1], spec.classes).long()

    def _load(self, index: int, seed: int | None, objects: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image and mask at the input size; `objects` are the classes that a random crop should not lose."""
        if seed is not None and self._kind in WHOLE:
            return augment_whole(*self.dataset[index], seed, self._kind, self.protocol.input_size, objects)
        if index in self._kept:
            image, mask = self._kept[index]
        else:
            image, mask = self.resize(*self.dataset[index])
            if image.nbytes + mask.nbytes <= self._room:
                self._room -= image.nbytes + mask.nbytes
                self._kept[index] = image, mask
        if seed is None:
            return image, mask
        return augment(image, mask, seed, self._kind)

    def _load_supports(self, spec: EpisodeSpec, seed: int | None, images: Tensor, masks: Tensor) -> None:
        """Write the supports of `spec` to `images` (N, K, 3, S, S) and `masks` (N, K, S, S)."""
        for way, (c, pool) in enumerate(zip(spec.classes, spec.supports)):
            for k, index in enumerate(pool):
                own = None if seed is None else seed + 7919 * (way * len(pool) + k + 1)
                image, mask = self._load(index, own, (c,))
                normalise(image, images[way, k])
                masks[way, k] = self._support_mask(mask, c, spec, index)

    @cached_property
    def _base_table(self) -> np.ndarray | None:
        """Class id -> position in the sorted base classes, from 1 (0 what is none, 255 kept): the queries' annotation.
        More base classes than labels can hold have none."""
        if len(self.dataset.base_classes) >= IGNORE:
            return None
        return base_table(self.dataset.base_classes, self.dataset.names).numpy()

    def _class_index(self, classes: Tensor) -> Tensor | None:
        """(B,) positions, from 0, of the base classes of one-way episodes; None where there is no such annotation."""
        if self._base_table is None or not self.dataset.base_classes or classes.shape[1] != 1:
            return None
        positions = torch.from_numpy(self._base_table[classes[:, 0].numpy()])
        return positions - 1 if bool((positions > 0).all()) else None

    def _query_mask(self, mask: Tensor, classes: Sequence[int]) -> Tensor:
        return _renumbered(mask, {IGNORE: IGNORE} | {c: way for way, c in enumerate(classes, 1)})

    def _support_mask(self, mask: Tensor, cls: int, spec: EpisodeSpec, index: int) -> Tensor:
        if not (mask == cls).any():
            self._check_object(cls, index)
        values = {IGNORE: IGNORE if self.protocol.void == "ignore" else 0}
        out = _renumbered(mask, values | {other: 1 if other == cls else IGNORE for other in spec.classes})
        return annotate(out, self.protocol.annotation, seed=index) if self.protocol.annotation != "mask" else out

    def _check_object(self, cls: int, index: int) -> None:
        """Of a support whose mask is empty at the network's size: an error if it always was, else one warning a pair.
        With augmentation a crop may have lost the object too; that is no fault of the image."""
        marked = self.dataset[index][1] == cls
        name = f"class {cls} ({self.dataset.names.get(cls, 'unknown')})"
        if not marked.any():
            raise DatasetError(
                f"{self.dataset.name}: image {index} was asked for as a support of {name} but holds no pixel of it. "
                f"Draw supports from images_of({cls})."
            )
        if (index, cls) in self.vanished or (self.resize(*self.dataset[index])[1] == cls).any():
            return
        self.vanished.add((index, cls))
        if len(self.vanished) <= NAMED:
            ids = getattr(self.dataset, "ids", ())
            title = f"{self.dataset.name}: image {index}{f' ({ids[index]})' if ids else ''} as a support of {name}"
            more = " Further images are counted in .vanished, not named; min_area leaves them out." * (
                len(self.vanished) == NAMED
            )
            warnings.warn(vanished(title, marked, self.resize) + more, stacklevel=5)


def share(size: int, part: tuple[int, int]) -> range:
    """Which of the `size` items of a batch are those of `part` (number, of how many)."""
    number, parts = part
    return range(size * number // parts, size * (number + 1) // parts)


def _empty(dtype: type, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Tensors in one piece of memory, to be filled. For a piece of 4 MiB or more NumPy asks the system for large pages;
    torch does not, and touching a batch of small pages first may take as long as everything computed for it."""
    sizes = [math.prod(shape) for shape in shapes]
    parts = torch.from_numpy(np.empty(sum(sizes), dtype)).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes)]


def _pick(things: Sequence[int], generator: np.random.Generator) -> int:
    """What `generator.choice(things)` draws, without the time it takes."""
    return int(things[generator.integers(len(things))])


def _renumbered(mask: Tensor, numbers: Mapping[int, int]) -> Tensor:
    """(H, W) uint8: `numbers[c]` (0 to 255) where a label map shows class c, 0 where it shows any other."""
    label, out = mask.numpy(), np.zeros(tuple(mask.shape), np.uint8)
    for c, number in numbers.items():
        out |= (label == c) * np.uint8(number)
    return torch.from_numpy(out)
