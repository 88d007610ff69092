"""Features of a frozen backbone, computed once per image: what makes thousands of evaluation episodes cheap."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ModelError
from .backbones import Backbone


class CachedBackbone(Backbone):
    """A frozen backbone that remembers the features of every image it has seen; same interface as the backbone.

    Features are addressed by content: a 128-bit hash of the image's bytes, dtype and shape, plus the stage and whether
    autocast was on. An image whose stages are all known is a hit; the others of the batch go through the backbone
    together, once. Features live on the CPU in `dtype` and come back on the images' device in the dtype the backbone
    computed. A hit and a miss return the same rounded values, so a result never depends on what was cached before,
    except that a backbone's last bits may depend on the size of the batch an image was first computed in: with
    `dtype=torch.float32` the values are bitwise those of the plain backbone when the batches are the same.

    The wrapper shares the backbone's stages, so the names in `state_dict` and `load_state_dict` are exactly the
    backbone's and no cached tensor is among them; deep copies and pickles start with an empty cache. Whenever a weight,
    a buffer or the device changes, the next call empties the cache. Images that require a gradient pass by the cache.

    Args:
        backbone: built with `bn="frozen"` and frozen (`backbone.freeze()`).
        max_bytes: limit of the stored features; the least recently used go first.
        dtype: storage type; float16 halves the memory and keeps 3 decimal digits.
    Attributes:
        hits, misses: images (not stages) answered from the cache / computed, since it was last emptied.
        stored_bytes: size of the stored features.
    Raises:
        ModelError: the backbone is no `Backbone`, trainable or in batch-norm mode `"batch"` (also when it becomes so
            later), `max_bytes` or `dtype` make no sense, or features do not fit into float16.
    """

    def __init__(self, backbone: Backbone, max_bytes: int = 4 * 2**30, dtype: torch.dtype = torch.float16):
        if not isinstance(backbone, Backbone) or isinstance(backbone, CachedBackbone):
            raise ModelError(f"CachedBackbone wraps a plain Backbone, not {type(backbone).__name__}.")
        if not isinstance(max_bytes, int) or max_bytes < 0 or not dtype.is_floating_point:
            raise ModelError(
                f"max_bytes={max_bytes!r}, dtype={dtype}: expected bytes from 0 and a floating point type."
            )
        channels, strides = tuple(backbone.channels.values()), tuple(backbone.strides.values())
        super().__init__(backbone.name, channels, strides, backbone.deepest)
        for name, child in backbone.named_children():
            self.add_module(name, child)
        # Past nn.Module's registration, or every name would get a prefix; the stages themselves are registered.
        object.__setattr__(self, "plain", backbone)
        self.max_bytes, self.dtype = max_bytes, dtype
        self._seen: tuple | None = None
        self.clear()
        self._check_frozen()
        self.train(backbone.training)

    def clear(self) -> None:
        """Forget all features and counts."""
        self._store: OrderedDict[tuple, Tensor] = OrderedDict()
        self.hits = self.misses = self.stored_bytes = 0

    def forward(self, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
        """As `Backbone.forward`; the features carry no gradient."""
        self.check_request(images, stages)
        self._check_frozen()
        if len(images) == 0 or (torch.is_grad_enabled() and images.requires_grad):
            return self.plain(images, stages)
        self._forget_if_changed()
        mode = _autocast(images.device.type)
        keys = [[(digest, mode, stage) for stage in stages] for digest in _digests(images)]
        missing = [i for i, row in enumerate(keys) if any(key not in self._store for key in row)]
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        # Collected before anything is stored: storing may evict what this very batch needs.
        known = set(range(len(keys))).difference(missing)
        rows = {i: [self._recall(key) for key in keys[i]] for i in sorted(known)}
        if missing:
            rows |= self._compute(images, missing, keys, stages)
        native = mode or images.dtype
        found = {}
        for s, stage in enumerate(stages):
            # Converted one by one: autocast on a CPU refuses to stack float16.
            feature = torch.stack([rows[i][s].to(images.device, native) for i in range(len(keys))])
            found[stage] = feature.contiguous(memory_format=_layout(images))
        return found

    def _compute(
        self, images: Tensor, missing: list[int], keys: list, stages: Sequence[str]
    ) -> dict[int, list[Tensor]]:
        with torch.no_grad():
            fresh = self.plain(images if len(missing) == len(keys) else images[missing], stages)
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
                self._keep(key, feature)
        return rows

    def _recall(self, key: tuple) -> Tensor:
        self._store.move_to_end(key)
        return self._store[key]

    def _keep(self, key: tuple, feature: Tensor) -> None:
        if feature.nbytes > self.max_bytes:
            return
        old = self._store.pop(key, None)
        self.stored_bytes += feature.nbytes - (old.nbytes if old is not None else 0)
        self._store[key] = feature
        while self.stored_bytes > self.max_bytes:
            self.stored_bytes -= self._store.popitem(last=False)[1].nbytes

    def _check_frozen(self) -> None:
        why = None
        if any(p.requires_grad for p in self.plain.parameters()):
            why = (
                "its parameters require gradients, so they will change and the features with them: call freeze() first"
            )
        elif self.plain.bn != "frozen" or self.bn != "frozen":
            why = "bn='batch' makes an image's features depend on the rest of its batch: call set_bn('frozen') first"
        if why:
            raise ModelError(f"features of {self.name} cannot be cached: {why}, or use the plain backbone.")

    def _forget_if_changed(self) -> None:
        tensors = [*self.plain.parameters(), *self.plain.buffers()]
        # torch counts in-place changes (loaded weights, an optimiser step); a move to another device changes addresses.
        state = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if state != self._seen:
            self.clear()
            self._seen = state

    def set_bn(self, mode: str) -> Backbone:
        if mode == "batch":
            raise ModelError(f"features of {self.name} are cached, which bn='batch' excludes; use the plain backbone.")
        return super().set_bn(mode)

    def rename(self, key: str) -> str:
        return self.plain.rename(key)

    def stage_of(self, key: str) -> str:
        return self.plain.stage_of(key)

    def __getattr__(self, name: str):
        # PANetVGG16's stages are properties, and options like `stem` plain attributes of the wrapped backbone.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "plain" not in self.__dict__:
                raise
            return getattr(self.__dict__["plain"], name)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_store": OrderedDict(), "hits": 0, "misses": 0, "stored_bytes": 0, "_seen": None}


def _digests(images: Tensor) -> list[bytes]:
    """One 128-bit hash per image, over its bytes, dtype and shape."""
    rows = images.detach().contiguous().flatten(1).cpu().view(torch.uint8).numpy()
    found = []
    for row in rows:
        # blake2b is the fastest of hashlib's that needs no special processor instructions: under 1 ms a megabyte.
        digest = hashlib.blake2b(f"{images.dtype} {tuple(images.shape[1:])}".encode(), digest_size=16)
        digest.update(row.data)
        found.append(digest.digest())
    return found


def _autocast(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _layout(images: Tensor) -> torch.memory_format:
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
