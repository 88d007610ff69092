"""Evaluation on fixed episode lists: every score carries its protocol."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arguments import check_count
from .data.base import SegmentationDataset
from .data.episodes import EpisodeList, EpisodeSampler, EpisodeSpec
from .data.loading import loaded
from .episode import Episode, Prediction
from .errors import ProtocolError
from .files import atomic, located, plain
from .metrics import FewShotIoU, Scores
from .models.base import FewShotModel, device_of, evaluating, in_single_precision
from .models.shot_by_shot import RULES, ShotByShot
from .nn.backbones.base import Backbone
from .nn.backbones.cached import CachedBackbone, DiskStore, MemoryStore, Store
from .ops import strongest
from .progress import bar
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
    cache: str | Path | Store | None = None, workers: int = 0, progress: bool = True,
) -> Evaluation:  # fmt: skip
    """Score `model` on `protocol.episodes` episodes of `dataset` for every seed of the protocol and every K in `shots`.

    All K share queries and classes, and the supports of a small K are the first of a larger one, so that
    `scores[5].difference(scores[1])` is paired. The model is left in the mode it came in.

    Args:
        batch: episodes per forward pass; changes the speed, and the score only where rounding turns a tie.
        device: where to run; None keeps the model where it is.
        cache: remember the backbone's features of every image, which changes the speed, never the score: `"memory"`
            (up to 4 GiB, forgotten afterwards), a folder (memory-mapped files, up to 20 GiB, found again by the next
            evaluation with the same weights), or a store of `fsslib.nn.backbones.cached` with another limit.
        workers: processes that load episodes ahead, see `fsslib.data.loading.loaded`; they change the speed alone.
    Raises: DatasetError: too few classes or images for the ways and shots. ProtocolError: impossible `shots`, `batch`,
        `cache` or `workers`. TrainingError: loader processes that do not start or are killed.
    """
    check_count(batch, "batch", unit="episodes", error=ProtocolError)
    check_count(workers, "workers", 0, unit="processes", error=ProtocolError)
    protocol = protocol or Protocol()
    keep = KEPT_IMAGES // max(workers, 1) if cache is not None else 0
    sampler, lists, protocol = episode_lists(dataset, protocol, shots, keep=keep)
    protocol = protocol.replace(backbone=getattr(getattr(model, "backbone", None), "about", ""))
    model = in_single_precision(model)
    model.to(device := torch.device(device) if device else device_of(model))
    judged = ShotByShot(model, protocol.k_merge) if protocol.k_merge in RULES else model
    meters = {shot: FewShotIoU(protocol.counting) for shot in shots}
    chunks = [(r, e.specs[s : s + batch]) for r, e in enumerate(lists) for s in range(0, len(e.specs), batch)]
    at = partial(_chunk, sampler, [specs for _, specs in chunks], protocol.label_size == "original")
    spent, total = dict.fromkeys(shots, 0.0), protocol.episodes * len(lists)
    shown, lap = bar(total=total, desc="episodes", show=progress), _stopwatch()
    with (
        contextlib.closing(shown), evaluating(model), remembering(model, cache), exact_float32(),
        loaded(at, range(len(chunks)), workers=workers, device=device) as batches,
    ):  # fmt: skip
        # Nothing here waits for a GPU: it computes while the next batch is drawn, and counts until the end.
        for (run, specs), (episode, labels) in zip(chunks, batches):
            loading = lap() / len(shots)
            for shot in shots:
                _score(judged, episode.shots(shot), meters[shot], run, labels, sampler)
                spent[shot] += lap() + loading
            shown.update(len(specs))
        scores = {shot: meter.compute() for shot, meter in meters.items()}
    # What was still to be waited for is shared out like the time before it.
    share = (1 + lap() / sum(spent.values())) / total
    return Evaluation(scores, protocol, {shot: value * share for shot, value in spent.items()}, lists)


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
