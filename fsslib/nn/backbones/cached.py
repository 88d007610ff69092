"""Features of a frozen backbone, computed once per image: what makes thousands of evaluation episodes cheap.

First where they live (in memory or memory-mapped on disk; both forget what was used longest ago), then the backbone.
"""

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...arguments import check_count
from ...errors import ModelError
from ...files import atomic, clear_abandoned, located
from ...ops import Box
from .base import Backbone

# Keys are 24 bytes (an image and what was asked of it); whatever else lies in the folder is not ours.
_FEATURE = re.compile(r"[0-9a-f]{48}\.npy")


class Store:
    """A dictionary of features, at most `max_bytes` of them; what was used longest ago goes first.
    `persistent` stores outlive the process and are shared by models."""

    persistent = False

    def __init__(self, max_bytes: int):
        check_count(max_bytes, "max_bytes", 0, unit="bytes")
        self.max_bytes, self.stored_bytes = max_bytes, 0
        self._sizes: OrderedDict = OrderedDict()  # in the order of their last use

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, key: bytes) -> Tensor | None:
        """The feature, or None; it counts as used."""
        raise NotImplementedError

    def put(self, key: bytes, feature: Tensor) -> None:
        """Keep a feature, unless it alone exceeds the limit."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget everything."""
        for name in list(self._sizes):
            self._delete(name)

    def _count(self, name: bytes | str, size: int) -> None:
        self.stored_bytes += size - self._sizes.pop(name, 0)
        self._sizes[name] = size

    def _make_room(self) -> None:
        while self.stored_bytes > self.max_bytes:
            self._delete(next(iter(self._sizes)))

    def _delete(self, name: bytes | str) -> None:
        self.stored_bytes -= self._sizes.pop(name, 0)


class MemoryStore(Store):
    """Features in memory."""

    def __init__(self, max_bytes: int = 4 * 2**30):
        super().__init__(max_bytes)
        self._features: dict[bytes, Tensor] = {}

    def get(self, key: bytes) -> Tensor | None:
        if key in self._features:
            self._sizes.move_to_end(key)
        return self._features.get(key)

    def put(self, key: bytes, feature: Tensor) -> None:
        if feature.nbytes <= self.max_bytes:
            self._features[key] = feature
            self._count(key, feature.nbytes)
            self._make_room()

    def _delete(self, name: bytes) -> None:
        super()._delete(name)
        del self._features[name]


class DiskStore(Store):
    """Features as memory-mapped files in `folder`.

    Every file is written beside its name and renamed; one that cannot be read is deleted and counts as unknown. Files
    of other names are left alone. Several processes may share a folder; each keeps to the limit by what it has seen,
    so together they may exceed it until the next one opens the folder. Raises ModelError for a folder that cannot be
    written, or a full disk.
    """

    persistent = True

    def __init__(self, folder: str | Path, max_bytes: int = 20 * 2**30):
        super().__init__(max_bytes)
        self.folder = located(folder, "the folder of features", ModelError)
        features = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):  # another process makes room
                    if _FEATURE.fullmatch(entry.name):
                        features.append((entry.stat(), entry.name))
        except OSError as error:
            raise ModelError(f"features cannot be kept in {folder}: {error.strerror}. Name another folder.") from error
        clear_abandoned(self.folder, _FEATURE.pattern)
        for stat, name in sorted(features, key=lambda item: item[0].st_mtime_ns):
            self._count(name, stat.st_size)
        self._make_room()

    def get(self, key: bytes) -> Tensor | None:
        name = f"{key.hex()}.npy"
        path = self.folder / name
        try:
            # A copy out of the map: the file may be evicted while the tensor lives.
            feature = torch.from_numpy(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))
            os.utime(path)
            self._count(name, path.stat().st_size)  # another process may have written it
        except (OSError, ValueError, EOFError):  # unknown, or unreadable
            self._delete(name)
            return None
        return feature

    def put(self, key: bytes, feature: Tensor) -> None:
        if feature.nbytes + 128 > self.max_bytes:
            return
        name = f"{key.hex()}.npy"
        try:
            with atomic(self.folder / name) as part, open(part, "wb") as file:
                np.save(file, feature.numpy(), allow_pickle=False)
                size = file.tell()
        except OSError as error:
            cure = "Free space, lower max_bytes, or use another folder."
            raise ModelError(f"features cannot be kept in {self.folder}: {error.strerror}. {cure}") from error
        self._count(name, size)
        self._make_room()

    def _delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        super()._delete(name)


class CachedBackbone(Backbone):
    """A backbone that remembers the features of every image it has seen; same interface as the backbone.

    Features are addressed by content: a 128-bit hash of the image's bytes, dtype and shape, plus the stage and whether
    autocast was on. So an image that a method masks is another image for every class. An image whose stages are all
    known is a hit; the others of the batch go through the backbone together, once. Features are stored in `dtype` and
    come back on the images' device in the dtype the backbone computed; hits and misses return the same rounded values.
    Only a backbone's last bits may depend on the batch an image was first computed in: with `dtype=torch.float32` they
    are those of the plain backbone when the batches are the same.

    The wrapper shares the backbone's stages, so the names in `state_dict` and `load_state_dict` are exactly the
    backbone's and no cached tensor is among them; deep copies and pickles start with an empty cache in memory.
    Whenever a weight, a buffer or the device changes in a way that torch counts (not through `.data`, not in inference
    mode), what was stored no longer counts. Images that require a gradient pass by the cache.

    Args:
        backbone: with `bn="frozen"`, and frozen (`backbone.freeze()`) unless it is only evaluated: in eval mode
            without gradients nothing changes a backbone.
        max_bytes: limit of the features in memory. store: where they live instead, e.g. a `DiskStore`.
        dtype: storage type; float16 halves the memory and keeps 3 decimal digits.
    Attributes: hits, misses: images (not stages) answered from the cache / computed, since it was last emptied.
    Raises: ModelError: the backbone is no `Backbone`, trainable or in batch-norm mode `"batch"` (also when it becomes
        so later), `max_bytes` or `dtype` make no sense, or features do not fit into float16.
    """

    def __init__(
        self, backbone: Backbone, max_bytes: int = 4 * 2**30, dtype: torch.dtype = torch.float16,
        store: Store | None = None,
    ):  # fmt: skip
        if not isinstance(backbone, Backbone) or isinstance(backbone, CachedBackbone):
            raise ModelError(f"CachedBackbone wraps a plain Backbone, not {type(backbone).__name__}.")
        if not dtype.is_floating_point:
            raise ModelError(f"dtype={dtype}: expected a floating point type.")
        channels, strides = tuple(backbone.channels.values()), tuple(backbone.strides.values())
        super().__init__(backbone.name, channels, strides, None, tuple(backbone.channels))
        for name, child in backbone.named_children():
            self.add_module(name, child)
        # Past nn.Module's registration, or every name would get a prefix; the stages themselves are registered.
        object.__setattr__(self, "plain", backbone)
        self.dtype, self.learns_in, self.chained = dtype, backbone.learns_in, backbone.chained
        self.weights = backbone.weights
        self.store: Store = MemoryStore(max_bytes) if store is None else store
        self.hits = self.misses = 0
        self._seen: tuple | None = None
        self._weights = ""
        self.train(backbone.training)
        self._check_frozen()

    @property
    def stored_bytes(self) -> int:
        """Size of the stored features."""
        return self.store.stored_bytes

    @property
    def about(self) -> str:
        return self.plain.about

    def clear(self) -> None:
        """Forget all features and counts."""
        self.store.clear()
        self.hits = self.misses = 0

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        """As `Backbone.forward`; the features carry no gradient."""
        self.check_request(images, stages)
        return self._remembered(images, stages, self.plain)

    def deeper(self, features: Tensor, stage: str, box: Box | None = None) -> Tensor:
        """As `Backbone.deeper`, remembered by the content of `features` (masked ones are others for every class)."""

        def compute(masked: Tensor, _: Sequence[str]) -> dict[str, Tensor]:
            return {stage: self.plain.deeper(masked, stage, box)}

        kind = "from features" if box is None else f"from features {tuple(box)}"
        return self._remembered(features, [stage], compute, kind)[stage]

    def _remembered(
        self, images: Tensor, stages: Sequence[str], compute: Callable[..., dict[str, Tensor]], kind: str = ""
    ) -> dict[str, Tensor]:
        self._check_frozen()
        if len(images) == 0 or (torch.is_grad_enabled() and images.requires_grad):
            return compute(images, stages)
        self._forget_if_changed()
        mode = f"{images.device.type} {_autocast(images.device.type)}"
        ends = [_short(f"{kind}{stage} {mode} {self.dtype} {self._weights}") for stage in stages]
        keys = [[digest + end for end in ends] for digest in _digests(images)]
        rows: dict[int, list[Tensor]] = {}
        first: dict[bytes, int] = {}  # where each unknown image stands; a repeat of it is not computed again
        for i, row in enumerate(keys):
            # Collected before anything is stored: storing may evict what this very batch needs.
            stored = [self.store.get(key) for key in row]
            if all(feature is not None for feature in stored):
                rows[i] = stored
            else:
                first.setdefault(row[0], i)
        missing = list(first.values())
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        if missing:
            rows |= self._compute(images, missing, keys, stages, compute)
            rows |= {i: rows[first[row[0]]] for i, row in enumerate(keys) if i not in rows}
        native = _autocast(images.device.type) or images.dtype
        layout = self.layout(learns=False) if images.device.type == "cpu" else torch.contiguous_format
        how = {"dtype": native, "device": images.device, "memory_format": layout}
        together = {stage: torch.empty((len(keys), *one.shape), **how) for stage, one in zip(stages, rows[0])}
        for i, row in rows.items():
            for stage, feature in zip(stages, row):
                together[stage][i] = feature  # stacked, it would be turned to another layout and back
        return together

    def _compute(
        self, images: Tensor, missing: list[int], keys: list, stages: Sequence[str], compute: Callable
    ) -> dict[int, list[Tensor]]:
        with torch.no_grad():
            fresh = compute(images if len(missing) == len(keys) else images[missing], stages)
        rows: dict[int, list[Tensor]] = {i: [] for i in missing}
        for stage in stages:
            stored = fresh[stage].detach().to("cpu", self.dtype)
            if not torch.isfinite(stored).all() and torch.isfinite(fresh[stage]).all():
                raise ModelError(f"{self.name} {stage}: features exceed {self.dtype}; use dtype=torch.float32.")
            for i, feature in zip(missing, stored):
                # A copy: a view would keep the whole batch alive after its neighbours are evicted.
                rows[i].append(feature.clone())
        for i in missing:
            for key, feature in zip(keys[i], rows[i]):
                self.store.put(key, feature)
        return rows

    def _check_frozen(self) -> None:
        if not self.training and not torch.is_grad_enabled():
            return  # it is only evaluated
        if any(p.requires_grad for p in self.plain.parameters()):
            why = "its parameters require gradients, so they and the features will change: call freeze() first"
        elif self.plain.bn != "frozen" or self.bn != "frozen":
            why = "bn='batch' makes an image's features depend on the rest of its batch: call set_bn('frozen') first"
        else:
            return
        raise ModelError(f"features of {self.name} cannot be cached: {why}, or use the plain backbone.")

    def _forget_if_changed(self) -> None:
        tensors = [*self.plain.parameters(), *self.plain.buffers()]
        # torch counts in-place changes (loaded weights, an optimiser step); a move to another device changes addresses.
        state = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if state == self._seen:
            return
        if self._seen is not None and not self.store.persistent:
            self.clear()  # features of former weights would only take room; on disk somebody may still want them
        # Options without weights (strides, pooling) show in the modules' description.
        self._seen, self._weights = state, f"{self.name} {_digest_of(tensors)} {_short(repr(self.plain)).hex()}"

    def set_bn(self, mode: str) -> Backbone:
        if mode == "batch":
            raise ModelError(f"features of {self.name} are cached, which bn='batch' excludes; use the plain backbone.")
        return super().set_bn(mode)

    def rename(self, key: str) -> str | None:
        return self.plain.rename(key)

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.plain.translated(state)

    def stage_of(self, key: str) -> str:
        return self.plain.stage_of(key)

    def __getattr__(self, name: str):
        # PANetVGG16's stages are properties, and options like `stem` plain attributes of the wrapped backbone.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "plain" in self.__dict__:
                return getattr(self.plain, name)
            raise

    def __getstate__(self) -> dict:
        store = self.store if self.store.persistent else MemoryStore(self.store.max_bytes)
        return self.__dict__ | {"store": store, "hits": 0, "misses": 0, "_seen": None}


def _digests(images: Tensor) -> list[bytes]:
    """One 128-bit hash per image, over its bytes, dtype and shape."""
    rows = images.detach().contiguous().flatten(1).cpu().view(torch.uint8).numpy()
    kind = f"{images.dtype} {tuple(images.shape[1:])}".encode()
    # blake2b is the fastest of hashlib's that needs no special processor instructions: under 1 ms a megabyte.
    return [hashlib.blake2b(kind + row.tobytes(), digest_size=16).digest() for row in rows]


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _digest_of(tensors: Sequence[Tensor]) -> str:
    """A hash of weights and buffers, for features that outlive the process."""
    digest = hashlib.blake2b(digest_size=16)
    for value in tensors:
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _autocast(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
