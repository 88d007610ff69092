"""The episode: the one thing that flows through every part of the library, and what a model returns for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from .errors import EpisodeError

IGNORE = 255
# The axes of every field; "3" is three channels, the others are what an episode may choose.
_AXES = {
    "query_images": "B 3 H W", "query_masks": "B H W", "support_images": "B N K 3 H W", "support_masks": "B N K H W",
    "classes": "B N", "base_masks": "B H W", "class_index": "B",
}  # fmt: skip
_SHAPES = {name: f"({', '.join(axes.split())}{',' * (axes == 'B')})" for name, axes in _AXES.items()}


@dataclass(frozen=True, eq=False)  # comparing tensors has no single answer
class Episode:
    """A batch of B few-shot tasks with N ways and K shots.

    Attributes:
        query_images: (B, 3, H, W) float32, ImageNet-normalised.
        query_masks: (B, H, W) long: 0 background, 1..N the way, 255 ignored; None when only a prediction is wanted.
        support_images: (B, N, K, 3, H, W) float32, ImageNet-normalised.
        support_masks: (B, N, K, H, W) long: 1 this way's object, 0 background, 255 neither.
        classes: (B, N) long, the data set's class ids.
        base_masks: (B, H, W) long, annotation of the base classes (0 background, 1..N_base, 255); only HDMNet's losses.
        class_index: (B,) long, 0-based position of the class in the sorted base classes; only HDMNet's losses.
    """

    query_images: Tensor
    query_masks: Tensor | None
    support_images: Tensor
    support_masks: Tensor
    classes: Tensor
    base_masks: Tensor | None = None
    class_index: Tensor | None = None

    @property
    def batch(self) -> int:
        """Number of episodes B."""
        return self.query_images.shape[0]

    @property
    def way(self) -> int:
        """Number of classes N per episode."""
        return self.support_images.shape[1]

    @property
    def shot(self) -> int:
        """Number of support images K per class."""
        return self.support_images.shape[2]

    def to(self, device: torch.device | str) -> Episode:
        """The same episode with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Episode:
        """The same episode in pinned memory, from where a copy to a GPU needs no waiting."""
        return self._map(Tensor.pin_memory)

    def select(self, items: Sequence[int] | slice) -> Episode:
        """The episodes `items` of the batch, as an Episode of their own."""
        # A list, because a tuple would index several axes.
        items = items if isinstance(items, slice) else list(items)
        return self._map(lambda tensor: tensor[items])

    def shots(self, count: int) -> Episode:
        """The same queries with only the first `count` support images per way."""
        if not 1 <= count <= self.shot:
            raise EpisodeError(f"shots({count}): the episode holds {self.shot} shots, ask for 1 to {self.shot}.")
        masks = self.support_masks[:, :, :count]
        return replace(self, support_images=self.support_images[:, :, :count], support_masks=masks)

    @staticmethod
    def stack(episodes: Sequence[Episode]) -> Episode:
        """Join episodes of equal shapes along the batch axis."""
        if not episodes:
            raise EpisodeError("stack() needs at least one episode, found none.")
        together = {}
        for name in _SHAPES:
            parts = [getattr(episode, name) for episode in episodes]
            if len({None if part is None else part.shape[1:] for part in parts}) > 1:
                shapes = sorted({"None" if part is None else str(tuple(part.shape)) for part in parts})
                raise EpisodeError(f"stack(): {name} differs between the episodes: {', '.join(shapes)}.")
            together[name] = None if parts[0] is None else torch.cat(parts)
        return Episode(**together)

    def validate(self, values: bool = True) -> Episode:
        """Check shapes and dtypes, and with `values` the numbers too; returns the episode itself.

        Raises EpisodeError naming the field, what was found and what was expected. `values=False` reads no tensor
        contents, so it never waits for a GPU. An empty support mask and an all-255 query are legal.
        """
        self._check_types()
        self._check_shapes()
        if values:
            self._check_values()
        return self

    def _check_types(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.name in ("query_masks", "base_masks", "class_index"):
                continue
            if not isinstance(value, Tensor):
                raise EpisodeError(f"{item.name}: found {type(value).__name__}, expected a torch.Tensor.")
            dtype = torch.float32 if item.name.endswith("images") else torch.long
            if value.dtype != dtype:
                cure = "Use fsslib.data.transforms.normalise." if dtype == torch.float32 else "Call .long() on it."
                raise EpisodeError(f"{item.name}: found dtype {value.dtype}, expected {dtype}. {cure}")
            if value.ndim != len(_AXES[item.name].split()):
                raise EpisodeError(f"{item.name}: found shape {tuple(value.shape)}, expected {_SHAPES[item.name]}.")

    def _check_shapes(self) -> None:
        b, _, h, w = query = tuple(self.query_images.shape)
        _, n, k, _, *pixels = support = tuple(self.support_images.shape)
        device = self.query_images.device
        for name, axes in _AXES.items():
            value = getattr(self, name)
            if value is None:
                continue
            sizes = {"B": b, "3": 3, "N": n, "K": k, "H": h, "W": w}
            if name.startswith("support"):
                sizes |= dict(zip("HW", pixels))
            shape, expected = tuple(value.shape), tuple(sizes[axis] for axis in axes.split())
            if shape != expected:
                # Either side may be the wrong one, so the images that set the expectation are named too.
                images = f"query_images {query}, support_images {support}"
                raise EpisodeError(f"{name}: found shape {shape}, expected {expected} as {_SHAPES[name]} for {images}.")
            if value.device != device:
                where = f"found on {value.device}, expected {device} as for query_images"
                raise EpisodeError(f"{name}: {where}. Call episode.to(device).")
        if pixels != [h, w]:
            raise EpisodeError(f"support_images: found {tuple(pixels)} pixels, expected {(h, w)} as in query_images.")
        if 0 in (b, n, k, h, w):
            raise EpisodeError(f"query_images/support_images: found B={b}, N={n}, K={k}, {h}x{w}; none may be 0.")

    def _check_values(self) -> None:
        for name in ("query_images", "support_images"):
            if not torch.isfinite(getattr(self, name)).all():
                raise EpisodeError(f"{name}: found NaN or infinite pixels, expected finite ImageNet-normalised values.")
        tops = {"query_masks": self.way, "support_masks": 1, "base_masks": IGNORE - 1}
        for name, top in tops.items():
            value = getattr(self, name)
            if value is None:
                continue
            wrong = value[((value < 0) | (value > top)) & (value != IGNORE)]
            if wrong.numel():
                first = sorted(set(wrong.flatten()[:1000].tolist()))[:5]
                raise EpisodeError(f"{name}: found values {first}, expected 0..{top} and {IGNORE} (ignored).")
        for name in ("classes", "class_index"):
            value = getattr(self, name)
            if value is not None and (value < 0).any():
                raise EpisodeError(f"{name}: found {int(value.min())}, expected numbers from 0 upwards.")

    def _map(self, function) -> Episode:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return Episode(**{name: None if value is None else function(value) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about an episode.

    Attributes:
        logits: (B, 1 + N, H, W) float32; channel 0 is background.
        maps: named intermediate results for figures, detached; filled only when `model.explain` is true.
    """

    logits: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)

    def masks(self) -> Tensor:
        """(B, H, W) long, the most likely channel of every pixel (ties: the lower channel)."""
        return self.logits.argmax(1)
