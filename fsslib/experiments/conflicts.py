"""Which valid parameters of an experiment exclude each other; every problem is a sentence that says what to do."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FsslibError

if TYPE_CHECKING:
    from .parameters import ExperimentParameters

CLASSES_PER_FOLD = 5
# What has a parameter of its own: arguments of `build_model`, and fields of a Schedule.
_OWN_OPTION = {"name": "method", "backbone": "backbone", "weights": "weights", "width": "width"} | {
    "freeze": "freeze_backbone",
    "shots": "train_shot",
}
_OWN_DETAIL = {name: name for name in ("batch", "lr", "precision", "accelerator", "seed")} | {"steps": "episodic_steps"}

Problem = tuple[set[str], str]


def conflicts(p: "ExperimentParameters") -> Iterator[Problem]:
    """The names involved in, and a sentence about, every combination of valid values that cannot work."""
    yield from _data(p)
    yield from _weights(p)
    yield from _model(p)
    yield from _training(p)
    yield from _selection(p)


def near(name: str, known: Any) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or all of them."""
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f", did you mean {found[0]}?" if found else f"; known: {', '.join(known)}"


def _data(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..data.shapes_knobs import ShapesKnobs  # imports torch, which only a check needs

    for name in ("shots", "seeds"):
        values, least = getattr(p, name), 1 if name == "shots" else 0
        if min(values) < least:
            yield {name}, f"{name}: {min(values)} is too small, each must be at least {least}"
        if len(set(values)) < len(values):
            yield {name}, f"{name}: {values} names a value twice"
    if p.dataset == "pascal" and p.root is None:
        yield {"dataset", "root"}, "root: the data set pascal needs the folder that holds its files"
    if p.dataset == "shapes" and p.root is not None:
        yield {"dataset", "root"}, "root: the data set shapes is generated and has no folder; leave root out"
    elif p.root is not None and not Path(p.root).expanduser().is_dir():
        yield {"root"}, f"root: there is no folder {p.root!r}"
    for name in ("knobs", "train_knobs"):
        if getattr(p, name) and p.dataset != "shapes":
            yield {"dataset", name}, f"{name}: only the generated data set shapes has knobs; leave {name} out"
        try:
            ShapesKnobs.of(getattr(p, name))
        except FsslibError as error:
            yield {name}, f"{name}: {str(error).removeprefix('Shapes-5i ').rstrip('.')}"
    if p.way > CLASSES_PER_FOLD:
        yield {"way"}, f"way: {p.way} classes are asked for, a fold has {CLASSES_PER_FOLD}"
    if p.protocol == "published" and (p.dataset == "shapes" or p.seeds != [0]):
        wrong = "has papers on photographs only" if p.dataset == "shapes" else "has the paper's own seeds"
        name = "dataset" if p.dataset == "shapes" else "seeds"
        change = "set dataset to pascal" if p.dataset == "shapes" else "leave seeds out"
        yield {"protocol", name}, f"{name}: the published protocol {wrong}; use protocol=honest, or {change}"


def _weights(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..checkpoints import read_note
    from ..models import available
    from ..recipe import checkpoint

    if p.backbone == "tiny" and p.weights is not None:
        yield {"backbone", "weights"}, "weights: the backbone tiny has none of its own; use checkpoint, or leave it out"
    elif p.weights not in (None, "imagenet") and not Path(p.weights).expanduser().is_file():
        yield {"weights"}, f"weights: there is no file {p.weights!r}; write imagenet to download the usual ones"
    if p.checkpoint == "shipped" and p.method in available():
        names = {"checkpoint", "method", "dataset", "fold"}
        try:
            held = read_note(checkpoint(vars(p)))["config"].get("backbone")
            if held != p.backbone:
                yield names, f"checkpoint: weights are shipped for {held}, not {p.backbone}; set null or a file"
        except FsslibError as error:
            yield names, f"checkpoint: {str(error).rstrip('.')}; set null or a file"
    elif p.checkpoint not in (None, "shipped") and not Path(p.checkpoint).expanduser().is_file():
        yield (
            {"checkpoint"},
            f"checkpoint: there is no file {p.checkpoint!r}; write shipped for the one that comes along",
        )
    if p.checkpoint is not None:
        for name in ("weights", "width", "options"):
            if getattr(p, name):
                yield {"checkpoint", name}, f"{name}: a checkpoint says how its model is built; leave {name} out"


def _model(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..models import available, options_of  # imports torch, which only a check needs

    if p.method not in available():
        yield {"method"}, f"method: {p.method!r} is unknown{near(p.method, available())}"
        return
    known, sound = options_of(p.method), True
    for name in sorted(p.options):
        if name in _OWN_OPTION:
            yield {"options"}, f"options: {name!r} is not an option, use the parameter {_OWN_OPTION[name]}"
        elif name not in known:
            yield {"options"}, f"options: {p.method} has no option {name!r}{near(name, known)}"
        sound &= name in known and name not in _OWN_OPTION
    if problem := _not_json(p.options):
        yield {"options"}, f"options: {problem}"
    elif sound and not (p.checkpoint and p.options):
        yield from _build(p)


def _build(p: "ExperimentParameters") -> Iterator[Problem]:
    """What only the model itself can tell; built without memory behind it."""
    import torch

    from .. import recipe
    from ..checkpoints import read_note
    from ..models import build_model

    names = {"method", "backbone", "options", "width", "checkpoint"}
    config = recipe.configuration(vars(p)) | {"weights": None}
    if p.checkpoint:
        try:
            config = read_note(recipe.checkpoint(vars(p)))["config"]
        except FsslibError:
            return  # said above, or by `load_model`
    try:
        with torch.device("meta"):
            net = build_model(**config)
    except Exception as error:  # options are free-form: whatever a constructor makes of them
        text = str(error).removeprefix(f"{p.method}: ")
        yield names, f"options: {p.method} cannot be built like this: {text}"
        return
    taught = p.checkpoint or p.weights or p.pretrain_steps
    if p.freeze_backbone is None and net.freeze and p.episodic_steps and not taught:
        yield (
            {*names, "weights", "pretrain_steps", "episodic_steps"},
            f"pretrain_steps: {p.method} keeps its backbone as it is, and this one would be random; "
            "set pretrain_steps, weights or checkpoint",
        )
    if p.freeze_backbone and p.pretrain_steps and net.base_learner is None:
        yield (
            {*names, "freeze_backbone", "pretrain_steps"},
            f"freeze_backbone: pre-training trains the backbone, and {p.method} has no base learner beside it; "
            f"set pretrain_steps to 0 (it is {p.pretrain_steps}), or leave freeze_backbone out",
        )
    net.backbone.freeze()
    if p.freeze_backbone and p.episodic_steps and not any(x.requires_grad for x in net.parameters()):
        yield (
            {*names, "freeze_backbone", "episodic_steps"},
            f"freeze_backbone: nothing would train, {p.method} is its backbone; set width, or episodic_steps to 0",
        )


def _training(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..protocol import Protocol
    from ..recipe import TRAINING
    from ..schedule import Schedule

    if p.freeze_backbone and p.options.get("bn") == "batch":
        yield (
            {"freeze_backbone", "options"},
            "options: bn=batch moves the statistics of a frozen backbone; leave it out",
        )
    if p.freeze_backbone and "augmentation" in p.training:
        yield (
            {"freeze_backbone", "training"},
            "training: features kept in memory belong to images as they are; leave augmentation or freeze_backbone out",
        )
    known = [field.name for field in fields(Schedule) if field.name not in _OWN_DETAIL] + list(TRAINING)
    for name, value in p.training.items():
        problem = None
        if name in _OWN_DETAIL:
            problem = f"{name!r} has a parameter of its own, {_OWN_DETAIL[name]}"
        elif name not in known:
            problem = f"{name!r} is unknown{near(name, known)}"
        elif name in ("validation_episodes", "epochs"):
            if type(value) is not int or value < 1:
                problem = f"{name}={value!r}: expected a whole number from 1"
        else:
            try:
                Protocol(augmentation=value) if name == "augmentation" else Schedule(1, **{name: value})
            except FsslibError as error:
                problem = str(error).removeprefix("Protocol.").rstrip(".")
        if problem:
            yield {"training"}, f"training: {problem}"
    if p.episodic_steps and "epochs" in p.training:
        yield (
            {"training", "episodic_steps"},
            "training: epochs say how long; set episodic_steps to 0, or leave epochs out",
        )
    for name, needs, value in (("momentum", "optimiser", "sgd"), ("power", "decay", "poly")):
        if name in p.training and p.training.get(needs) != value:
            yield {"training"}, f"training: {name} does nothing without {needs}={value}; set it, or leave {name} out"


def _selection(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..recipe import HELD_BACK

    if p.selection == "test_fold" and p.protocol != "published":
        yield (
            {"selection", "protocol"},
            "selection: test_fold picks the checkpoint on the classes it is scored on, which only protocol=published "
            "does; use val_classes or last",
        )
    if p.selection == "last":
        if p.validate_every:
            yield {"selection", "validate_every"}, "validate_every: nothing is selected; set selection to val_classes"
        if "validation_episodes" in p.training:
            yield {"selection", "training"}, "training: nothing is selected; leave validation_episodes out"
        return
    if not p.validate_every and "epochs" not in p.training:
        yield (
            {"selection", "validate_every"},
            f"validate_every: selection={p.selection} needs a number of steps above 0",
        )
    if not p.episodic_steps and "epochs" not in p.training:
        yield {"selection", "episodic_steps"}, "selection: nothing is trained; set episodic_steps, or selection to last"
    if p.selection == "val_classes" and p.checkpoint:
        yield (
            {"selection", "checkpoint"},
            "selection: trained weights know the validation classes; set checkpoint to null",
        )
    if p.selection == "val_classes" and p.way > HELD_BACK:
        yield {"selection", "way"}, f"way: selection=val_classes holds back {HELD_BACK} classes, {p.way} are asked for"


def _not_json(value: Any) -> str:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"only numbers, texts, lists and dictionaries can be passed on ({error})"
    return ""
