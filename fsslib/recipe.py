"""An experiment's parameters turned into data sets, protocol, model, training and scores.

The notebook `experiment` calls one of these after the other; so does whoever wants the same without a notebook.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision

from . import __version__
from .checkpoints import load_model, shipped
from .data import load_dataset
from .data.base import SegmentationDataset
from .data.episodes import EpisodeSampler
from .errors import CheckpointError
from .evaluation import Evaluation, evaluate
from .models import build_model
from .models.base import FewShotModel
from .nn.feature_cache import CachedBackbone
from .pretraining import pretrain
from .protocol import Protocol
from .training import History, Schedule, fabric, train_episodes


def datasets(p: Mapping) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Training and test split of parameters `p`; all base classes train, since nothing is selected on validation."""
    options = {"size": p["size"]} if p["dataset"] == "shapes" else {}
    if p["dataset"] != "shapes":
        published = protocol(p)
        options = {"min_area": published.area_filter, "novel": published.novel_pixels}
    where = {"root": p["root"], "fold": p["fold"], "val_classes": 0}
    return tuple(load_dataset(p["dataset"], split=split, **where, **options) for split in ("train", "test"))


def protocol(p: Mapping) -> Protocol:
    """The protocol of parameters `p`: ours, or with `protocol="published"` the habits of the method's paper."""
    changes = {key: p[key] for key in ("episodes", "way", "annotation")} | {"input_size": p["size"]}
    changes["bn"] = p["options"].get("bn", "frozen")
    if p["protocol"] == "published":
        return Protocol.published(p["method"], **changes)
    base = Protocol.shapes5i if p["dataset"] == "shapes" else Protocol.pascal5i
    return base(**changes, seeds=tuple(p["seeds"]))


def model(p: Mapping) -> FewShotModel:
    """The model of parameters `p`, seeded; with a frozen backbone its features are cached.

    Raises CheckpointError when `checkpoint` holds another method or backbone than the parameters say.
    """
    torch.manual_seed(p["seed"])
    if p["checkpoint"]:
        path = shipped(p["method"], p["dataset"], p["fold"]) if p["checkpoint"] == "shipped" else p["checkpoint"]
        built = load_model(path)
        for key, name in (("method", "name"), ("backbone", "backbone")):
            if built.config[name] != p[key]:
                raise CheckpointError(f"{path} holds {name} {built.config[name]!r}, the parameters say {p[key]!r}.")
    else:
        own = {"width": p["width"], "freeze": p["freeze_backbone"]}
        options = {key: value for key, value in own.items() if value} | p["options"]
        built = build_model(p["method"], backbone=p["backbone"], shots=p["train_shot"], weights=p["weights"], **options)
    built.to(memory_format=torch.channels_last)  # as in training; a later change would empty the feature cache
    if p["freeze_backbone"]:
        built.backbone.freeze()
        built.freeze = True
        built.backbone = CachedBackbone(built.backbone)
    return built


def features_only(trained: FewShotModel) -> FewShotModel:
    """Prototype matching on the backbone of `trained` as it is now, without any layer of the method: the reference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stage = getattr(trained, "stage", None)
        return build_model("panet", backbone=trained.backbone, freeze=trained.freeze, stage=stage).eval()


def train(
    p: Mapping, net: FewShotModel, data: SegmentationDataset, folder: str | Path | None = None, stage: str = "both"
) -> dict[str, History]:
    """Base pre-training, then episodic training (or only the one `stage`: `"pretrain"` or `"episodic"`).

    With `folder`, both resume where they were stopped. Raises TrainingError when a loss is not finite.
    """
    common = {"batch": p["batch"], "precision": p["precision"], "accelerator": p["accelerator"], "seed": p["seed"]}
    done = {}
    if stage != "episodic" and p["pretrain_steps"]:
        schedule = Schedule(p["pretrain_steps"], **{**common, "batch": 2 * p["batch"]}, lr=p["pretrain_lr"])
        done["base pre-training"] = pretrain(net.backbone, data, schedule, size=p["size"], folder=folder)
    if stage != "pretrain" and p["episodic_steps"]:
        # A cached feature belongs to one picture: with a frozen backbone every image is used as it is.
        rules = protocol(p).replace(annotation="mask", queries="uniform_class")
        sampler = EpisodeSampler(data, rules, shot=p["train_shot"], seed=p["seed"], augment=not p["freeze_backbone"])
        schedule = Schedule(p["episodic_steps"], **common, lr=p["lr"])
        done["episodic training"] = train_episodes(net, sampler, schedule, folder=folder)
    return done


def score(p: Mapping, net: FewShotModel, data: SegmentationDataset) -> Evaluation:
    """Evaluate on the test split `data` for every K in `shots`, on the device that training uses."""
    device = fabric(p["accelerator"], "32").device
    return evaluate(net, data, protocol(p), shots=p["shots"], batch=p["batch"], device=device)


def table(evaluations: Mapping[str, Evaluation], shots: Sequence[int]) -> list[dict]:
    """One row per shot and evaluation: mIoU with interval, FB-IoU, and the paired difference to the first one."""
    rows = []
    for shot in shots:
        first = next(iter(evaluations.values())).scores[shot]
        for label, entry in evaluations.items():
            gain = [100 * value for value in entry.scores[shot].difference(first)]
            numbers = entry.summary()[shot]
            rows.append(
                {"shots": shot, "model": label, **numbers, "gain": gain[0], "gain_low": gain[1], "gain_high": gain[2]}
            )
    return rows


def versions() -> dict[str, str]:
    """Versions that the numbers may depend on."""
    known = {"fsslib": __version__, "torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    return known | {"torchvision": torchvision.__version__.split("+")[0], "python": platform.python_version()}


def result(p: Mapping, evaluations: Mapping[str, Evaluation], names: Mapping[int, str], began: float) -> dict:
    """What `result.json` holds. The last evaluation is the score, the first the reference it is compared with.

    Args:
        began: `time.time()` at the start of the run.
    """
    label, last = list(evaluations.items())[-1]
    rows, scores = table(evaluations, p["shots"]), {}
    for row in rows:
        if row["model"] == label:
            # A class without a single counted pixel has no IoU.
            ious = last.scores[row["shots"]].per_class.items()
            per_class = {names[c]: None if np.isnan(v) else round(100 * v, 2) for c, v in ious}
            numbers = {key: round(v, 4) for key, v in row.items() if key not in ("shots", "model")}
            scores[str(row["shots"])] = numbers | {"per_class": per_class}
    return {
        "scores": scores,
        "rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
        "protocol": last.protocol.as_dict(),
        "versions": versions(),
        "seed": p["seed"],
        "list_hash": last.protocol.list_hash,
        "duration_s": round(time.time() - began, 1),
        "parameters": dict(p),
    }
