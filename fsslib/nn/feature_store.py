"""Where cached features live: in memory, or memory-mapped on disk; both forget what was used longest ago."""

import contextlib
import os
import re
import time
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..files import atomic

# Keys are 24 bytes (an image and what was asked of it); whatever else lies in the folder is not ours.
_OWN, _PART = re.compile(r"[0-9a-f]{48}\.npy"), re.compile(r"[0-9a-f]{48}\.npy\.\d+\.part")
# Seconds after which a temporary file belongs to a process that was killed.
ABANDONED = 3600


class Store(Protocol):
    """A dictionary of features with a limit. `persistent` stores outlive the process and are shared by models."""

    persistent: bool
    max_bytes: int
    stored_bytes: int

    def get(self, key: bytes) -> Tensor | None:
        """The feature, or None; it counts as used."""

    def put(self, key: bytes, feature: Tensor) -> None:
        """Keep a feature, unless it alone exceeds the limit."""

    def clear(self) -> None:
        """Forget everything."""


class MemoryStore(Store):
    """Features in memory, at most `max_bytes` of them; what was used longest ago goes first."""

    persistent = False

    def __init__(self, max_bytes: int = 4 * 2**30):
        self.max_bytes = _checked(max_bytes)
        self.clear()

    def __len__(self) -> int:
        return len(self._features)

    def get(self, key: bytes) -> Tensor | None:
        if key in self._features:
            self._features.move_to_end(key)
        return self._features.get(key)

    def put(self, key: bytes, feature: Tensor) -> None:
        if feature.nbytes > self.max_bytes:
            return
        old = self._features.pop(key, None)
        self.stored_bytes += feature.nbytes - (old.nbytes if old is not None else 0)
        self._features[key] = feature
        while self.stored_bytes > self.max_bytes:
            self.stored_bytes -= self._features.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()
        self.stored_bytes = 0


class DiskStore(Store):
    """Features as memory-mapped files in `folder`, at most `max_bytes` of them; what was used longest ago goes first.

    Every file is written beside its name and renamed; one that cannot be read is deleted and counts as unknown. Files
    of other names are left alone. Several processes may share a folder; each keeps to the limit by what it has seen,
    so together they may exceed it until the next one opens the folder. Raises ModelError for a folder that cannot be
    written.
    """

    persistent = True

    def __init__(self, folder: str | Path, max_bytes: int = 20 * 2**30):
        if not str(folder):
            raise ModelError("features need a folder of their own: name one, '' is none.")
        self.folder, self.max_bytes = Path(folder).expanduser(), _checked(max_bytes)
        found = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):  # another process makes room
                    if _OWN.fullmatch(entry.name):
                        found.append((entry.stat(), entry.name))
                    elif _PART.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                        os.unlink(entry)
        except OSError as error:
            raise ModelError(f"features cannot be kept in {folder}: {error.strerror}. Name another folder.") from error
        found.sort(key=lambda item: item[0].st_mtime_ns)
        self._sizes = OrderedDict((name, stat.st_size) for stat, name in found)
        self.stored_bytes = sum(self._sizes.values())
        self._make_room()

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, key: bytes) -> Tensor | None:
        name = f"{key.hex()}.npy"
        path = self.folder / name
        try:
            # A copy out of the map: the file may be evicted while the tensor lives.
            feature = torch.from_numpy(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))
            os.utime(path)
            size = path.stat().st_size
        except FileNotFoundError:
            self._forget(name)
            return None
        except (OSError, ValueError, EOFError):
            path.unlink(missing_ok=True)
            self._forget(name)
            return None
        if name not in self._sizes:  # another process wrote it
            self._sizes[name] = size
            self.stored_bytes += size
        self._sizes.move_to_end(name)
        return feature

    def put(self, key: bytes, feature: Tensor) -> None:
        """Keep a feature, unless it alone exceeds the limit. Raises ModelError when the disk is full."""
        if feature.nbytes + 128 > self.max_bytes:
            return
        name = f"{key.hex()}.npy"
        try:
            with atomic(self.folder / name) as part, open(part, "wb") as file:
                np.save(file, feature.numpy(), allow_pickle=False)
                size = file.tell()
        except OSError as error:
            raise ModelError(
                f"features cannot be kept in {self.folder}: {error.strerror}. Free space, lower max_bytes, or use "
                "another folder."
            ) from error
        self._forget(name)
        self._sizes[name] = size
        self.stored_bytes += size
        self._make_room()

    def clear(self) -> None:
        """Delete every feature in the folder."""
        for name in list(self._sizes):
            (self.folder / name).unlink(missing_ok=True)
            self._forget(name)

    def _make_room(self) -> None:
        while self.stored_bytes > self.max_bytes:
            oldest = next(iter(self._sizes))
            (self.folder / oldest).unlink(missing_ok=True)
            self._forget(oldest)

    def _forget(self, name: str) -> None:
        self.stored_bytes -= self._sizes.pop(name, 0)


def _checked(max_bytes: int) -> int:
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
        raise ModelError(f"max_bytes={max_bytes!r}: expected bytes from 0.")
    return max_bytes
