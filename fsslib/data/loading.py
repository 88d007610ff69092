"""Batches in their order, made in this process or by loader processes: the same ones, bit for bit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..errors import TrainingError
from ..files import shorten_sockets

ALONE = "workers=0, which loads without other processes"
GRACE = 10  # seconds in which a loader process whose parent was killed may end by itself


@contextlib.contextmanager
def loaded(
    batch_at: Callable[[int], Any], steps: Sequence[int], *, workers: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Iterator[Any]]:
    """An iterator over `batch_at(step)` for every step of `steps`, on `device`, as long as the block lasts.

    Without workers a batch is made when it is asked for. Loader processes are two batches each ahead; they have one
    thread each, leave Ctrl-C to this process and end with it. Their batches come through shared memory. Copies to a
    GPU come from pinned memory, and nothing waits for them.

    Args:
        batch_at: must depend on the step alone; with workers what it returns must pickle, and (where processes do not
            fork) so must it. An error that it raises in a loader process is raised here.
        workers: number of loader processes.
    Raises TrainingError: loader processes that do not start or are killed, or batches that cannot be sent.
    """
    if workers:
        shorten_sockets()
    loader = DataLoader(
        _Steps(batch_at), batch_size=None, sampler=steps, collate_fn=_as_it_is, num_workers=min(workers, len(steps)),
        worker_init_fn=begin_child, generator=torch.Generator(),  # leaves the global one alone
    )  # fmt: skip
    batches = _started(loader)
    try:
        yield (_placed(_opened(batch), torch.device(device)) for batch in batches)
    except RuntimeError as error:
        # Wherever the main process is when a child dies, torch raises this.
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(_cause_of_death(f"{error} {error.__cause__}")) from error
    finally:
        # Not when the last reference goes: an error that somebody keeps would keep the processes.
        getattr(batches, "_shutdown_workers", lambda: None)()


class _Steps(Dataset):
    """What `batch_at` makes of a step; of a loader process as bytes that stand for tensors in shared memory."""

    def __init__(self, batch_at: Callable[[int], Any]):
        self.batch_at = batch_at

    def __getitem__(self, step: int) -> Any:
        if get_worker_info() is None:
            return self.batch_at(step)
        try:
            return _Packed(self.batch_at(step))
        except Exception as error:  # whatever it was, it belongs into the main process as it is
            error.add_note("".join(traceback.format_exception(error)))
            return _Packed(error)


class _Packed:
    """A batch or an error on its way to the main process. Packed at once, because the thread that sends would drop what
    cannot be sent, and the main process would wait for it for ever."""

    def __init__(self, content: Any):
        try:
            self.packed = bytes(ForkingPickler.dumps(content))
        except Exception as error:
            full = "shared memory" in str(error) or "No space left" in str(error)
            reason = _SHARED.format(_shared_memory()) if full else f"{content!r:.200} cannot be sent ({error}): "
            self.packed = pickle.dumps(TrainingError(f"loader process: {reason}use {ALONE}."))


_SHARED = "shared memory is full ({}): enlarge it (in a container e.g. --shm-size=4g), use fewer workers, or "


def _shared_memory() -> str:
    try:
        return f"/dev/shm holds {shutil.disk_usage('/dev/shm').total / 2**20:.0f} MiB"
    except OSError:
        return "/dev/shm"


def _opened(item: Any) -> Any:
    if not isinstance(item, _Packed):
        return item
    try:
        content = pickle.loads(item.packed)
    except (OSError, EOFError) as error:  # whose tensors it is has died
        time.sleep(1)  # time for torch to hear of it, and to raise what it was
        raise RuntimeError(f"DataLoader worker: its batch cannot be fetched, {error}") from error
    if isinstance(content, Exception):
        raise content
    return content


def _placed(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, (tuple, list)):
        return [_placed(part, device) for part in batch]
    if device.type == "cuda" and hasattr(batch, "pin_memory"):
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True) if isinstance(batch, torch.Tensor) else batch.to(device)


def _as_it_is(batch: Any) -> Any:
    return batch


def begin_child(worker: int = 0) -> None:
    """What a process of `multiprocessing` does first: leave Ctrl-C to its parent, and end soon after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # torch asks who the parent is when a loader process has started: one that was killed before is waited for for ever.
    multiprocessing.parent_process().join()
    time.sleep(GRACE)
    os._exit(1)


def _started(loader: DataLoader) -> Iterator[Any]:
    try:
        return iter(loader)
    except Exception as error:
        if not loader.num_workers:
            raise
        cure = "give batches by a function of a module or a functools.partial of one, no lambda"
        raise TrainingError(f"loader processes do not start ({error}): {cure}, or use {ALONE}.") from error


def _cause_of_death(text: str) -> str:
    if "Bus error" in text:
        return f"a loader process was killed: {_SHARED.format(_shared_memory())}use {ALONE}."
    detail = text.partition(" Details are lost")[0].removesuffix(" None").strip(". ")
    return f"a loader process died ({detail}), often for want of memory: use fewer workers, or {ALONE}."
