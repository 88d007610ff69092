"""An experiment's parameters turned into data sets, protocol, model, training and scores.

The notebook `experiment` calls one of these after the other; so does whoever wants the same without a notebook.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..checkpoints import load_model, without_memory
from ..data import load_dataset
from ..data.base import SegmentationDataset
from ..data.episodes import EpisodeSampler
from ..errors import CheckpointError
from ..evaluation import KEPT_IMAGES, Evaluation, evaluate
from ..models import build_model
from ..models.base import FewShotModel
from ..names import __version__
from ..nn.backbones.base import LITE, TIMM
from ..nn.backbones.cached import CachedBackbone
from ..pretraining import pretrain
from ..protocol import Protocol
from ..training import History, Schedule, Selection, fabric, train_episodes, validation_score

if TYPE_CHECKING:
    from .parameters import ExperimentParameters

# What the parameter `training` may hold besides details of the Schedule, and what stands for it when it does not.
TRAINING = {"augmentation": "dataset", "validation_episodes": None, "epochs": None}
# Base classes that `selection="val_classes"` keeps out of training: enough for one-way episodes that mean something.
HELD_BACK = 3


def datasets(p: ExperimentParameters) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Training and test split of parameters `p`.
    All base classes train, unless the checkpoint is selected on some that are held back for it."""
    return _split(p, "train", p.train_size or p.size), _split(p, "test", p.size)


def _split(p: ExperimentParameters, split: str, size: int) -> SegmentationDataset:
    rules = protocol(p)
    val_classes = HELD_BACK if p.selection == "val_classes" else 0
    options = {"min_area": rules.area_filter, "novel": rules.novel_pixels, "val_classes": val_classes}
    if p.dataset == "shapes":
        knobs = p.train_knobs if split == "train" else p.knobs
        options = {"size": size, "knobs": knobs, "val_classes": val_classes, "novel": p.novel_pixels or "drop"}
    elif p.dataset == "fss1000":  # every image shows one class, and the validation classes are fixed
        options = {"min_area": rules.area_filter}
    return load_dataset(p.dataset, split=split, root=p.root, fold=p.fold, **options | p.data_options)


def protocol(p: ExperimentParameters) -> Protocol:
    """The protocol of parameters `p`: ours, or with `protocol="published"` the habits of the method's paper."""
    changes = {key: getattr(p, key) for key in ("episodes", "way", "annotation", "train_size", "selection")}
    changes |= {"input_size": p.size, "bn": p.built_with.get("bn", "frozen")}
    # A cached feature belongs to one picture: with a frozen backbone every image is used as it is.
    changes["augmentation"] = "none" if p.freeze_backbone else {**TRAINING, **p.training}["augmentation"]
    changes["backbone"] = _about(p)
    if p.novel_pixels:
        changes["novel_pixels"] = p.novel_pixels
    if p.protocol == "published":
        return Protocol.published(p.method, **changes)
    base = {"shapes": Protocol.shapes5i, "pascal": Protocol.pascal5i, "coco": Protocol.coco20i}.get(p.dataset)
    base = base or partial(Protocol.pascal5i, name=p.dataset, fold_scheme="the data set's own")
    return base(**changes, seeds=tuple(p.seeds))


def _about(p: ExperimentParameters) -> str:
    """What the card says of a backbone of timm; nothing of ours."""
    if p.backbone != LITE and not p.backbone.startswith(TIMM):
        return ""
    backbone = without_memory(p.built_with).backbone
    backbone.weights = p.built_with.get("weights")
    return backbone.about


def model(p: ExperimentParameters) -> FewShotModel:
    """The model of parameters `p`, seeded; with a frozen backbone its features are cached.
    Raises CheckpointError when `checkpoint` holds another method or backbone than the parameters say."""
    torch.manual_seed(p.seed)
    if p.start:
        built = load_model(p.start)
        for name, asked in (("name", p.method), ("backbone", p.backbone)):
            if built.config[name] != asked:
                raise CheckpointError(f"{p.start} holds {name} {built.config[name]!r}, the parameters say {asked!r}.")
    else:
        built = build_model(**p.configuration)
    if p.freeze_backbone:
        built.backbone.freeze()
        built.freeze = True
        built.backbone = CachedBackbone(built.backbone)
    return built


def features_only(trained: FewShotModel) -> FewShotModel:
    """Prototype matching on the backbone of `trained` as it is now, without any layer of the method: the reference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stage = getattr(trained, "stage", None)
        same = {"backbone": trained.backbone, "bn": trained.backbone.bn, "freeze": trained.freeze}
        return build_model("panet", **same, stage=stage).eval()


def train(
    p: ExperimentParameters, net: FewShotModel, data: SegmentationDataset, folder: str | Path | None = None,
    stage: str = "both", watch: Callable[[int, torch.nn.Module], None] | None = None,
) -> dict[str, History]:  # fmt: skip
    """Base pre-training, then episodic training (or only the one `stage`: `"pretrain"` or `"episodic"`).

    Unless `selection` is `"last"`, the net ends with the state that scored best on its validation episodes, and the
    episodic History says which. With `folder`, both resume where they were stopped. `watch` is a callback of the
    episodic training where nothing is selected, e.g. `plots.live.Watch`. Raises TrainingError when a loss is not
    finite.
    """
    where = {"folder": folder, "workers": p.workers, "logger": p.logger}
    common = {"batch": p.batch, "precision": p.precision, "accelerator": p.accelerator, "seed": p.seed}
    common |= {"devices": p.devices, "nodes": p.nodes}
    done = {}
    if stage != "episodic" and p.pretrain_steps:
        schedule = Schedule(p.pretrain_steps, **{**common, "batch": 2 * p.batch}, lr=p.pretrain_lr)
        done["base pre-training"] = _pretrain(net, data, schedule, size=p.train_size or p.size, **where)
    if stage != "pretrain" and (p.episodic_steps or p.training.get("epochs")):
        rules = protocol(p).replace(annotation="mask", input_size=p.train_size or p.size)
        keep = KEPT_IMAGES if p.freeze_backbone else 0  # where features are remembered, reading images is half the work
        sampler = EpisodeSampler(data, rules, shot=p.train_shot, seed=p.seed, augment=not p.freeze_backbone, keep=keep)
        details = {name: value for name, value in p.training.items() if name not in TRAINING}
        epoch = len(sampler.images) // p.batch
        steps = p.training.get("epochs", 0) * epoch or p.episodic_steps
        schedule = Schedule(steps, **common, lr=p.lr, **details)
        chosen = selection(p, steps, p.validate_every or epoch)
        begun = {}
        if p.selection == "val_classes":  # the state it begins with may be the best
            begun = {"start": chosen(-1, net.to(fabric(p.accelerator, "32").device))[chosen.name]}
        history = train_episodes(net, sampler, schedule, callback=chosen or watch, **where)
        if chosen:
            chosen.restore(net)
            history.selected = chosen.summary() | begun
        done["episodic training"] = history
    return done


def _pretrain(net: FewShotModel, data: SegmentationDataset, schedule: Schedule, **where) -> History:
    """Base pre-training of the backbone (or of the method's base learner), also where episodic training keeps it."""
    thaw = net.freeze and not isinstance(net.backbone, CachedBackbone)
    if thaw:
        net.backbone.requires_grad_(True)
    try:
        return pretrain(net.backbone, data, schedule, learner=getattr(net, "base_learner", None), **where)
    finally:
        if thaw:
            net.backbone.freeze()


def selection(p: ExperimentParameters, steps: int | None = None, every: int | None = None) -> Selection | None:
    """What chooses the checkpoint of `p`, or of a training of other length; None where the last state stays.

    Validation is an evaluation with the same protocol on one list (the first of `seeds`, `validation_episodes` long):
    of base classes held back from training, or as some papers have it of the test fold itself.
    """
    if p.selection == "last":
        return None
    rules = protocol(p)
    episodes = {**TRAINING, **p.training}["validation_episodes"] or p.episodes
    rules = rules.replace(episodes=episodes, seeds=rules.seeds[:1])
    data = _split(p, "test" if p.selection == "test_fold" else "val", p.size)
    score, identity = validation_score(data, rules, shot=p.train_shot, batch=p.batch, workers=p.workers)
    return Selection(score, every=every or p.validate_every, steps=steps or p.episodic_steps, rules=identity)


def score(p: ExperimentParameters, net: FewShotModel, data: SegmentationDataset) -> Evaluation:
    """Evaluate on the test split `data` for every K in `shots`, on the device that training uses."""
    device = fabric(p.accelerator, "32").device
    how = {"shots": p.shots, "batch": p.batch, "workers": p.workers}
    return evaluate(net, data, protocol(p), device=device, cache="memory", **how)


def table(evaluations: Mapping[str, Evaluation], shots: Sequence[int]) -> list[dict]:
    """One row per shot and evaluation: mIoU with interval, FB-IoU, and the paired difference to the first one."""
    rows = []
    for shot in shots:
        first = next(iter(evaluations.values())).scores[shot]
        for label, entry in evaluations.items():
            gain = [100 * value for value in entry.scores[shot].difference(first)]
            row = {"shots": shot, "model": label, **entry.summary()[shot]}
            rows.append(row | dict(zip(("gain", "gain_low", "gain_high"), gain)))
    return rows


def versions() -> dict[str, str]:
    """Versions that the numbers may depend on."""
    known = {"fsslib": __version__, "torch": torch.__version__, "numpy": np.__version__}
    known |= {"torchvision": version("torchvision"), "python": platform.python_version()}
    return {name: text.split("+")[0] for name, text in known.items()}


def result(
    p: ExperimentParameters, evaluations: Mapping[str, Evaluation], names: Mapping[int, str], began: float,
    histories: Mapping[str, History] | None = None,
) -> dict:  # fmt: skip
    """What `result.json` holds. The last evaluation is the score, the first the reference it is compared with.

    Args:
        began: `time.time()` at the start of the run.
        histories: what `train` returned; says which step was selected, by which validation score.
    """
    label, last = list(evaluations.items())[-1]
    rows, scores = table(evaluations, p.shots), {}
    for row in rows:
        if row["model"] == label:
            # A class without a single counted pixel has no IoU.
            ious = last.scores[row["shots"]].per_class.items()
            per_class = {names[c]: None if np.isnan(v) else round(100 * v, 2) for c, v in ious}
            scores[str(row["shots"])] = {k: round(v, 4) for k, v in row.items() if k not in ("shots", "model")}
            scores[str(row["shots"])]["per_class"] = per_class
    selected = [history.selected for history in (histories or {}).values() if history.selected]
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    rule = {"rule": p.selection, **(selected[-1] if selected else {})}
    made = {"scores": scores, "selection": rule, "rows": rows, "protocol": last.protocol.as_dict()}
    made |= {"versions": versions(), "seed": p.seed, "list_hash": last.protocol.list_hash}
    return made | {"duration_s": round(time.time() - began, 1), "parameters": p.model_dump()}
