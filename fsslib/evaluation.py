"""Evaluation on fixed episode lists: every score carries its protocol."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arguments import check_count
from .data.base import SegmentationDataset
from .data.episodes import EpisodeList, EpisodeSampler, EpisodeSpec
from .data.loading import begin_child, loaded
from .episode import Episode, Prediction
from .errors import ProtocolError, TrainingError
from .files import atomic, located, plain
from .metrics import FewShotIoU, Scores
from .models.base import FewShotModel, device_of, evaluating, in_single_precision
from .models.devices import packed, unpacked
from .models.shot_by_shot import RULES, ShotByShot
from .nn.backbones.base import Backbone
from .nn.backbones.cached import CachedBackbone, DiskStore, MemoryStore, Store
from .ops import strongest
from .progress import Silent, bar
from .protocol import Protocol

KEPT_IMAGES = 512 * 2**20  # bytes of resized images, of all loaders, where features are remembered too


@dataclass(frozen=True)
class Evaluation:
    """Scores by number of shots, with what they depend on.

    Attributes:
        scores: K -> Scores. protocol: with `list_hash` filled in. seconds: K -> seconds per episode, loading included.
        lists: one EpisodeList per seed, at the largest K.
    """

    scores: dict[int, Scores]
    protocol: Protocol
    seconds: dict[int, float]
    lists: tuple[EpisodeList, ...]

    def summary(self) -> dict[int, dict[str, float]]:
        """K -> mIoU with interval, FB-IoU (all in percent) and seconds per episode."""
        names, rows = ("miou", "low", "high", "fb_iou"), {}
        for shot, scores in self.scores.items():
            percent = (100 * value for value in (scores.miou, *scores.interval(), scores.fb_iou))
            rows[shot] = dict(zip(names, percent)) | {"seconds": self.seconds[shot]}
        return rows

    def save(self, path: str | Path) -> Path:
        """Write protocol and pixel counts of every episode to an `.npz` file, so that runs can be compared in pairs."""
        arrays = {}
        for shot, scores in self.scores.items():
            arrays |= {f"{shot}/table": scores.table, f"{shot}/classes": scores.classes, f"{shot}/runs": scores.runs}
        facts = json.dumps(plain({"protocol": self.protocol.as_dict(), "seconds": self.seconds}))
        with atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, facts=np.array(facts), **arrays)
        return located(path)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote (without the episode lists). Raises ProtocolError for a missing or broken file."""
        try:
            with np.load(located(path, "evaluation"), allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                shots = sorted({int(key.split("/")[0]) for key in file.files if "/" in key})
                scores = {k: Scores(*(file[f"{k}/{part}"] for part in ("table", "classes", "runs"))) for k in shots}
            protocol, seconds = Protocol(**facts["protocol"]), {int(k): v for k, v in facts["seconds"].items()}
        except Exception as error:  # zip, json and numpy errors alike mean the file is not ours or is cut short
            message = f"{path}: not a readable evaluation file ({error}): run the evaluation again."
            raise ProtocolError(message) from error
        return cls(scores, protocol, seconds, ())


def examples(
    evaluation: Evaluation, dataset: SegmentationDataset, *, shot: int, each: int = 2
) -> tuple[Episode, list[str]]:
    """The best, median and worst `each` episodes by their own IoU, and a note of its rank and IoU for each.
    Raises ProtocolError for an evaluation read from a file: it knows the counts, not the episodes."""
    if not evaluation.lists:
        raise ProtocolError("this evaluation holds no episode lists (it was read from a file): run evaluate() again.")
    ious = evaluation.scores[shot].episode_iou()
    order = np.argsort(-ious, kind="stable")
    order = order[~evaluation.scores[shot].absent[order]]  # where nothing is to be found, there is no IoU
    middle = max(0, (len(order) - each) // 2)
    picks = {"best": order[:each], "median": order[middle : middle + each], "worst": order[-each:]}
    specs = [spec for entry in evaluation.lists for spec in entry.shots(shot).specs]
    chosen = [(label, int(i)) for label, part in picks.items() for i in part]
    episode = EpisodeSampler(dataset, evaluation.protocol, shot=shot).build([specs[i] for _, i in chosen])
    return episode, [f"{label}: IoU {100 * ious[i]:.0f} %" for label, i in chosen]


def episode_lists(
    dataset: SegmentationDataset, protocol: Protocol, shots: Sequence[int], keep: int = 0
) -> tuple[EpisodeSampler, tuple[EpisodeList, ...], Protocol]:
    """The sampler (`keep`: see EpisodeSampler), one fixed list per protocol seed, drawn at the largest K, and the
    protocol with their hash."""
    if not shots or any(type(k) is not int or k < 1 for k in shots) or len(set(shots)) < len(shots):
        raise ProtocolError(f"shots={list(shots)}: expected whole numbers from 1, each only once, e.g. (1, 5).")
    # What the data set knows better than the protocol's defaults stands on the card.
    names = {"fold_scheme": "fold_scheme", "area_filter": "area_filter", "image_list": "images"}
    known = {field: getattr(dataset, name) for name, field in names.items() if hasattr(dataset, name)}
    protocol = protocol.replace(**known)
    sampler = EpisodeSampler(dataset, protocol, shot=max(shots), keep=keep)
    lists = tuple(sampler.fixed(protocol.episodes, seed) for seed in protocol.seeds)
    return sampler, lists, protocol.replace(list_hash="+".join(entry.hash for entry in lists))


def evaluate(
    model: FewShotModel, dataset: SegmentationDataset, protocol: Protocol | None = None, *,
    shots: Sequence[int] = (1,), batch: int = 8, device: torch.device | str | None = None,
    cache: str | Path | Store | None = None, workers: int = 0, progress: bool = True, shards: int | None = None,
    on: str | Executor | None = None,
) -> Evaluation:  # fmt: skip
    """Score `model` on `protocol.episodes` episodes of `dataset` for every seed of the protocol and every K in `shots`.

    All K share queries and classes, and the supports of a small K are the first of a larger one, so that
    `scores[5].difference(scores[1])` is paired. The model is left in the mode it came in.

    Args:
        batch: episodes per forward pass; changes the speed, and the score only where rounding turns a tie.
        device: where to run; None keeps the model where it is. Of several GPUs (`"cuda"`) the shards take turns.
        cache: remember the backbone's features of every image, which changes the speed, never the score: `"memory"`
            (up to 4 GiB, forgotten afterwards), a folder (memory-mapped files, up to 20 GiB, found again by the next
            evaluation with the same weights), or a store of `fsslib.nn.backbones.cached` with another limit. The
            shards of one machine share it; with `on="local:N"`, `"memory"` is a temporary folder.
        workers: processes that load episodes ahead, see `fsslib.data.loading.loaded`; they change the speed alone.
        shards: pieces that the list is cut into between two batches; counted apart and merged they give the same
            integers for any number. None: one, or with `on="local:N"` N of them.
        on: what counts the shards: None (this process, one after another), `"local:N"` (N processes of this machine)
            or an executor in the sense of `concurrent.futures`, such as `client.get_executor()` of Dask.
    Raises: DatasetError: too few classes or images for the ways and shots. ProtocolError: impossible `shots`, `batch`,
        `cache`, `workers`, `shards` or `on`. TrainingError: processes that do not start or are killed.
    """
    check_count(batch, "batch", unit="episodes", error=ProtocolError)
    check_count(workers, "workers", 0, unit="processes", error=ProtocolError)
    protocol = protocol or Protocol()
    keep = KEPT_IMAGES // max(workers, 1) if cache is not None else 0
    sampler, lists, protocol = episode_lists(dataset, protocol, shots, keep=keep)
    protocol = protocol.replace(backbone=getattr(getattr(model, "backbone", None), "about", ""))
    model = in_single_precision(model)
    chunks = [(r, e.specs[s : s + batch]) for r, e in enumerate(lists) for s in range(0, len(e.specs), batch)]
    total = protocol.episodes * len(lists)
    with _engine(on, cache) as (pool, most, cache):
        shards = most if shards is None else shards
        check_count(shards, "shards", error=ProtocolError)
        model.to(device := torch.device(device) if device else device_of(model))
        cuts = [len(chunks) * i // shards for i in range(shards + 1)]
        pieces = [range(*ends) for ends in pairwise(cuts) if ends[0] < ends[1]]
        counting = _Counting(model, sampler, chunks, tuple(shots), protocol, device, cache, workers)
        with contextlib.closing(bar(total=total, desc="episodes", show=progress)) as shown:
            counted = counting.apart(pool, pieces, shown) if pool else [counting(piece, shown) for piece in pieces]
    scores = {shot: _merged([of[shot] for of, _ in counted], lists) for shot in shots}
    return Evaluation(
        scores, protocol, {shot: sum(spent[shot] for _, spent in counted) / total for shot in shots}, lists
    )


@dataclass(frozen=True)
class _Counting:
    """Counts some of the batches `chunks` (number of the list, episodes) of an evaluation, here or anywhere else."""

    model: FewShotModel
    sampler: EpisodeSampler
    chunks: Sequence[tuple[int, Sequence[EpisodeSpec]]]
    shots: tuple[int, ...]
    protocol: Protocol
    device: torch.device
    cache: str | Path | Store | None
    workers: int

    def __call__(self, piece: range, shown: Silent) -> tuple[dict[int, Scores], dict[int, float]]:
        """By number of shots: the counts of the batches `piece`, and the seconds they took."""
        rule = self.protocol.k_merge
        judged = ShotByShot(self.model, rule) if rule in RULES else self.model
        meters = {shot: FewShotIoU(self.protocol.counting) for shot in self.shots}
        at = partial(_chunk, self.sampler, [specs for _, specs in self.chunks], self.protocol.label_size == "original")
        spent, lap = dict.fromkeys(self.shots, 0.0), _stopwatch()
        with (
            evaluating(self.model), remembering(self.model, self.cache), exact_float32(),
            loaded(at, piece, workers=self.workers, device=self.device) as batches,
        ):  # fmt: skip
            # Nothing here waits for a GPU: it computes while the next batch is drawn, and counts until the end.
            for (run, specs), (episode, labels) in zip((self.chunks[i] for i in piece), batches):
                loading = lap() / len(self.shots)
                for shot in self.shots:
                    _score(judged, episode.shots(shot), meters[shot], run, labels, self.sampler)
                    spent[shot] += lap() + loading
                shown.update(len(specs))
            scores = {shot: meter.compute() for shot, meter in meters.items()}
        # What was still to be waited for is shared out like the time before it.
        share = 1 + lap() / sum(spent.values())
        return scores, {shot: value * share for shot, value in spent.items()}

    def apart(self, pool: Executor, pieces: Sequence[range], shown: Silent) -> list:
        """What calls for all `pieces` return, made by `pool`."""
        order = packed(self, "on=None")
        try:
            waiting = [pool.submit(_count, order, number, piece) for number, piece in enumerate(pieces)]
            counted = []
            for piece, future in zip(pieces, waiting):
                counted.append(future.result())
                shown.update(sum(len(self.chunks[i][1]) for i in piece))
        except BrokenExecutor as error:
            cure = "count fewer shards at a time; a script must call evaluate() below `if __name__ == '__main__':`"
            raise TrainingError(f"a process that counts a shard died (killed, or out of memory): {cure}.") from error
        return counted


def _count(order: bytes, number: int, piece: range) -> tuple[dict[int, Scores], dict[int, float]]:
    """Count shard `number` in another process than the one that asks for it."""
    counting: _Counting = unpacked(order)
    device = counting.device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", number % torch.cuda.device_count())
    counting.model.to(device)
    return replace(counting, device=device)(piece, Silent())


def _merged(parts: Sequence[Scores], lists: Sequence[EpisodeList]) -> Scores:
    """The counts of all shards in the order of the lists. Raises ProtocolError unless each episode is there once."""
    whole = Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("table", "classes", "runs")))
    classes = [spec.classes for entry in lists for spec in entry.specs]
    runs = [run for run, entry in enumerate(lists) for _ in entry.specs]
    if not (np.array_equal(whole.classes, classes) and np.array_equal(whole.runs, runs)):
        raise ProtocolError("the shards that came back are not the episodes of the list: check what `on` does.")
    return whole


@contextlib.contextmanager
def _engine(
    on: str | Executor | None, cache: str | Path | Store | None
) -> Iterator[tuple[Executor | None, int, str | Path | Store | None]]:
    """The executor that `on` stands for, how many shards suit it, and the `cache` in a form that they share."""
    if on is None:
        yield None, 1, MemoryStore() if cache == "memory" else cache
        return
    if isinstance(cache, Store) and not cache.persistent:
        raise ProtocolError('cache: a store in memory ends with this process; give "memory", a folder, or on=None.')
    found = re.fullmatch(r"local:([1-9]\d*)", on) if isinstance(on, str) else None
    if not found and not hasattr(on, "submit"):
        raise ProtocolError(f'on={on!r}: expected None, "local:N" with N processes, or an executor.')
    if not found:
        yield on, 1, cache
        return
    most = int(found[1])
    with contextlib.ExitStack() as after:
        if cache == "memory":
            folder = after.enter_context(tempfile.TemporaryDirectory(prefix="fsslib-features-"))
            cache = DiskStore(folder, MemoryStore().max_bytes)
        # Not forked: a process that has used a GPU, or several threads, cannot be.
        begin = {"initializer": _begin_shards, "initargs": (max(1, torch.get_num_threads() // most),)}
        pool = after.enter_context(ProcessPoolExecutor(most, mp_context=get_context("spawn"), **begin))
        try:
            yield pool, most, cache
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.kill()  # nobody waits for its shard any more
            raise


def _begin_shards(threads: int) -> None:
    begin_child()
    torch.set_num_threads(threads)


def _stopwatch() -> Callable[[], float]:
    """Seconds since the last call."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        before, last = last, time.perf_counter()
        return last - before

    return lap


def _chunk(
    sampler: EpisodeSampler, chunks: Sequence[Sequence[EpisodeSpec]], original: bool, index: int
) -> tuple[Episode, list[Tensor]]:
    """The episodes of a batch, and with `original` the query masks at their own sizes."""
    specs = chunks[index]
    return sampler.build(specs), [sampler.label(spec) for spec in specs] if original else []


def _score(
    model: Callable[[Episode], Prediction], episode: Episode, meter: FewShotIoU, run: int, labels: Sequence[Tensor],
    sampler: EpisodeSampler,
) -> None:  # fmt: skip
    """Count the predictions for `episode`: at their own size, or where there are `labels` at theirs."""
    logits = model(episode).logits
    if not labels:
        meter.update(strongest(logits), episode.query_masks, episode.classes, run)
    for item, label in enumerate(labels):
        full = sampler.resize.undo(logits[item : item + 1], *label.shape)
        meter.update(strongest(full), label[None], episode.classes[item : item + 1], run)


@contextlib.contextmanager
def exact_float32(on: bool = True) -> Iterator[None]:
    """Without TF32 inside the block (unless `on` is false): cuDNN's convolutions keep all 23 bits of a number, where
    torch's default on GPUs keeps 10. Products of matrices do so by torch's default, which stays as it is."""
    try:
        before = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # set by `fp32_precision`: whoever did that has chosen
        on = False
    if not on:
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def remembering(model: FewShotModel, cache: str | Path | Store | None) -> Iterator[None]:
    """Let `model`, in eval mode, remember the features of every image inside the block; see `cache` of `evaluate`."""
    plain = getattr(model, "backbone", None)
    if not (cache is None or isinstance(cache, (str, Path)) or hasattr(cache, "put")):
        raise ProtocolError(f'cache={cache!r}: expected "memory", a folder, a store of features, or None.')
    if cache is None or not isinstance(plain, Backbone) or isinstance(plain, CachedBackbone):
        yield
        return
    if isinstance(cache, (str, Path)):
        cache = MemoryStore() if cache == "memory" else DiskStore(cache)
    # Single precision: with rounded features a pixel on the edge between two classes may change sides.
    model.backbone = CachedBackbone(plain, dtype=torch.float32, store=cache)
    try:
        yield
    finally:
        model.backbone = plain
