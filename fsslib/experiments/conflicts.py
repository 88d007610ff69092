"""Which valid parameters of an experiment exclude each other; every problem is a sentence that says what to do."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FsslibError
from .model_conflicts import CLASSES, Problem, model_conflicts, near

if TYPE_CHECKING:
    from .parameters import ExperimentParameters

# What has a parameter of its own: options of load_dataset, and fields of a Schedule.
OWN_DATA_OPTION = {name: name for name in ("root", "fold", "size", "knobs")}
OWN_DATA_OPTION |= {"novel": "novel_pixels", "min_area": "protocol"}
_OWN_DETAIL = {name: name for name in ("batch", "lr", "precision", "accelerator", "seed")} | {"steps": "episodic_steps"}


def conflicts(p: "ExperimentParameters") -> Iterator[Problem]:
    """The names involved in, and a sentence about, every combination of valid values that cannot work."""
    yield from _data(p)
    yield from _weights(p)
    yield from model_conflicts(p)
    yield from _training(p)
    yield from _selection(p)


def _data(p: "ExperimentParameters") -> Iterator[Problem]:
    from ..data import options_of  # imports torch, which only a check needs
    from ..data.shapes_knobs import ShapesKnobs
    from ..data.voc_lists import IMAGE_LISTS
    from ..protocol import Protocol

    for name in ("shots", "seeds"):
        values, least = getattr(p, name), 1 if name == "shots" else 0
        if min(values) < least:
            yield {name}, f"{name}: {min(values)} is too small, each must be at least {least}"
        if len(set(values)) < len(values):
            yield {name}, f"{name}: {values} names a value twice"
    if p.dataset != "shapes" and p.root is None:
        yield {"dataset", "root"}, f"root: the data set {p.dataset} needs the folder that holds its files"
    if p.dataset == "shapes" and p.root is not None:
        yield {"dataset", "root"}, "root: the data set shapes is generated and has no folder; leave root out"
    elif p.root is not None and not (_folder(p.root) or (p.dataset == "folder" and Path(p.root).suffix == ".json")):
        yield {"root"}, f"root: there is no folder {p.root!r}"
    if p.novel_pixels and p.dataset == "shapes":
        yield (
            {"dataset", "novel_pixels"},
            "novel_pixels: training images of shapes show no novel class; leave novel_pixels out",
        )
    for name in ("knobs", "train_knobs"):
        if getattr(p, name) and p.dataset != "shapes":
            yield {"dataset", name}, f"{name}: only the generated data set shapes has knobs; leave {name} out"
        try:
            ShapesKnobs.of(getattr(p, name))
        except FsslibError as error:
            yield {name}, f"{name}: {str(error).removeprefix('Shapes-5i ').rstrip('.')}"
    novel = CLASSES.get(p.dataset, (None, None))[1]
    if novel and p.way > novel:
        yield {"way", "dataset"}, f"way: {p.way} classes are asked for, a fold has {novel}"
    if p.dataset == "fss1000" and (p.fold or p.novel_pixels):
        name = "fold" if p.fold else "novel_pixels"
        yield {"dataset", name}, f"{name}: fss1000 has one split, and every image shows one class; leave {name} out"
    known = [name for name in options_of(p.dataset) if name not in ("root", "fold", "split")]
    for name, value in sorted(p.data_options.items()):
        if name in OWN_DATA_OPTION:
            own = OWN_DATA_OPTION[name]
            yield {"data_options"}, f"data_options: {name!r} is not an option here, use the parameter {own}"
        elif name not in known:
            yield {"data_options", "dataset"}, f"data_options: {p.dataset} has no option {name!r}{near(name, known)}"
        elif name == "images" and p.dataset == "pascal" and value not in IMAGE_LISTS:
            yield (
                {"data_options", "dataset"},
                f"data_options: the list {value!r} would serve training and test; use one of {', '.join(IMAGE_LISTS)}",
            )
    if p.protocol == "published" and (p.dataset != "pascal" or p.seeds != [0]):
        other = p.dataset != "pascal"
        wrong = "is that of the papers' PASCAL-5i numbers" if other else "has the paper's own seeds"
        name, change = ("dataset", "set dataset to pascal") if other else ("seeds", "leave seeds out")
        yield {"protocol", name}, f"{name}: the published protocol {wrong}; use protocol=honest, or {change}"
    elif p.protocol == "published":
        try:
            Protocol.published(p.method)
        except FsslibError as error:
            yield {"protocol", "method"}, f"protocol: {str(error).rstrip('.')}; use protocol=honest"


def _folder(name: str) -> bool:
    return Path(name).expanduser().is_dir()


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
