"""Checks the parameters of an experiment; every problem is a sentence that says what to do.

Combinations of valid values that cannot work are found as pairs: the names involved beside the one that the sentence
begins with, and the sentence. Checks import torch, so that `help` and `status` need not.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from ..arguments import check_count, near
from ..errors import FsslibError, ModelError, ParameterError
from ..files import located
from .parameters import ExperimentParameters

Problem = tuple[str, str]
# Base and novel classes of a fold, where the data set alone says it.
CLASSES = {"shapes": (15, 5), "pascal": (15, 5), "coco": (60, 20), "fss1000": (760, 240)}
# What has a parameter of its own: arguments of `build_model`, options of `load_dataset`, and fields of a Schedule.
_OWN_OPTION = {"name": "method", "backbone": "backbone", "weights": "weights", "width": "width"}
_OWN_OPTION |= {"freeze": "freeze_backbone", "shots": "train_shot"}
OWN_DATA_OPTION = {"root": "root", "fold": "fold", "size": "size", "knobs": "knobs"}
OWN_DATA_OPTION |= {"novel": "novel_pixels", "min_area": "protocol"}
_OWN_DETAIL = {name: name for name in ("batch", "lr", "precision", "accelerator", "seed", "devices", "nodes")}
_OWN_DETAIL |= {"steps": "episodic_steps"}
# What pydantic calls a wrong type, in plain words.
_EXPECTED = {"string_type": "a text", "int_type": "a whole number", "float_type": "a number", "list_type": "a list"}
_EXPECTED |= {"finite_number": "a finite number", "bool_type": "true or false", "dict_type": "a dictionary"}


def check_parameters(given: dict[str, Any], *, opening: bool = False) -> ExperimentParameters:
    """All parameters of an experiment, the defaults filled in.

    Args: opening: where nothing else is wrong, also read the files that they name: data, weights and checkpoint.
    Raises: ParameterError: lists every problem: unknown names (with the nearest valid one), wrong types, impossible
        combinations, and files that do not serve.
    """
    problems, bad = [], set()
    try:
        checked = ExperimentParameters.model_validate(given)
    except ValidationError as error:
        known = ExperimentParameters.model_fields
        problems = [plain(e, known) for e in error.errors()]
        bad = {str(e["loc"][0]) for e in error.errors()}
        # The rest is checked against the defaults, so that one attempt shows everything there is to mend.
        valid = {name: value for name, value in given.items() if name in known and name not in bad}
        checked = ExperimentParameters.model_construct(**valid)
    if "plugin" not in bad and checked.plugin:
        from ..models import use

        try:
            use(checked.plugin)
        except ModelError as error:
            problems, bad = [*problems, f"plugin: {error}"], bad | {"method", "options"}
    combined = conflicts(checked)
    problems += [text for others, text in combined if not bad & {text.partition(":")[0], *others.split()}]
    if opening and not problems:
        problems = list(unreadable(checked))
    if problems:
        raise ParameterError("\n".join(problems))
    return checked


def plain(error: Any, known: Any) -> str:
    """One of pydantic's error entries as a line in plain words; `known` holds the valid names."""
    name, *inside = map(str, error["loc"])
    place = name + "".join(f"[{i}]" for i in inside if i.isdigit())
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown parameter{near(name, known)}"
    if error["type"] == "too_short":
        return f"{place}: the list is empty"
    value = repr(error["input"])
    message = error["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if error["type"] in _EXPECTED:
        message = f"expected {_EXPECTED[error['type']]}"
    return f"{place}: {message}, found {value[:60]}{'…' if len(value) > 60 else ''}"


def conflicts(p: ExperimentParameters) -> Iterator[Problem]:
    """Every combination of valid values that cannot work."""
    for part in (_data, _data_options, _protocol, _weights, _model, _training, _selection):
        yield from part(p)


def _data(p: ExperimentParameters) -> Iterator[Problem]:
    from ..data.shapes.knobs import ShapesKnobs

    for name, values in (("shots", p.shots), ("seeds", p.seeds)):
        if len(set(values)) < len(values):
            yield "", f"{name}: {values} names a value twice"
    if p.dataset == "shapes":
        if p.root is not None:
            yield "dataset", "root: the data set shapes is generated and has no folder; leave root out"
    elif p.root is None:
        yield "dataset", f"root: the data set {p.dataset} needs the folder that holds its files"
    else:
        yield from _root(p)
    for name in ("knobs", "train_knobs"):
        if getattr(p, name) and p.dataset != "shapes":
            yield "dataset", f"{name}: only the generated data set shapes has knobs; leave {name} out"
        try:
            ShapesKnobs.of(getattr(p, name))
        except FsslibError as error:
            yield "", f"{name}: {str(error).removeprefix('Shapes-5i ').rstrip('.')}"
    novel = CLASSES.get(p.dataset, (None, None))[1]
    if novel and p.way > novel:
        yield "dataset", f"way: {p.way} classes are asked for, a fold has {novel}"
    if p.dataset == "fss1000" and (p.fold or p.novel_pixels):
        name = "fold" if p.fold else "novel_pixels"
        yield "dataset", f"{name}: fss1000 has one split, and every image shows one class; leave {name} out"


def _root(p: ExperimentParameters) -> Iterator[Problem]:
    try:
        root = located(p.root, "root", ParameterError)
    except ParameterError as error:
        yield "", str(error).rstrip(".")
        return
    if p.dataset == "folder" and root.suffix.lower() == ".json":
        if not root.is_file():
            yield "", f"root: there is no annotation file {p.root!r}"
    elif not root.is_dir():
        yield "", f"root: there is no folder {p.root!r}"


def _data_options(p: ExperimentParameters) -> Iterator[Problem]:
    from ..data import options_of
    from ..data.photographs.pascal import IMAGE_LISTS

    known = [name for name in options_of(p.dataset) if name not in ("root", "fold", "split")]
    for name, value in sorted(p.data_options.items()):
        if name in OWN_DATA_OPTION:
            yield "", f"data_options: {name!r} is not an option here, use the parameter {OWN_DATA_OPTION[name]}"
        elif name not in known:
            yield "dataset", f"data_options: {p.dataset} has no option {name!r}{near(name, known)}"
        elif name == "images" and p.dataset == "pascal" and value not in IMAGE_LISTS:
            lists = ", ".join(IMAGE_LISTS)
            yield "dataset", f"data_options: the list {value!r} would serve training and test; use one of {lists}"


def _protocol(p: ExperimentParameters) -> Iterator[Problem]:
    from ..protocol import Protocol

    if p.protocol != "published":
        return
    ways_out = "use protocol=honest"
    if p.dataset != "pascal":
        wrong = "the published protocol is that of the papers' PASCAL-5i numbers"
        yield "protocol", f"dataset: {wrong}; {ways_out}, or set dataset to pascal"
    elif p.seeds != [0]:
        yield "protocol", f"seeds: the published protocol has the paper's own seeds; {ways_out}, or leave seeds out"
    else:
        try:
            Protocol.published(p.method)
        except FsslibError as error:
            yield "method", f"protocol: {str(error).rstrip('.')}; {ways_out}"


def _weights(p: ExperimentParameters) -> Iterator[Problem]:
    from ..models import available
    from ..nn.backbones.base import LITE, TIMM, WORDS

    if p.backbone == "tiny" and p.weights in WORDS:
        yield "backbone", f"weights: tiny has no {p.weights} ones; name a file, or leave it out"
    elif p.weights in WORDS:
        of_timm = "timm" if p.backbone.startswith(TIMM) else LITE if p.backbone == LITE else "torchvision"
        has = {"timm": ("pretrained",), LITE: ("packaged", "pretrained"), "torchvision": ("imagenet",)}[of_timm]
        if p.weights not in has:
            yield "backbone", f"weights: {p.backbone} has no {p.weights} ones; write {' or '.join(has)}, or name a file"
    elif p.weights is not None and not _is_file(p.weights):
        yield "", f"weights: there is no file {p.weights!r}; write imagenet to download the usual ones"
    if p.checkpoint not in (None, "shipped") and not _is_file(p.checkpoint):
        yield "", f"checkpoint: there is no file {p.checkpoint!r}; write shipped for the one that comes along"
    elif p.checkpoint is not None and p.method in available():
        try:
            held, verb = p.built_with, "shipped" if p.checkpoint == "shipped" else "held"
            pairs = (held.get("name"), p.method), (held.get("backbone"), p.backbone)
            wrong = next((f"weights are {verb} for {has}, not {asked}" for has, asked in pairs if has != asked), "")
        except FsslibError as error:
            wrong = str(error).rstrip(".")
        if wrong:
            yield "method dataset fold backbone", f"checkpoint: {wrong}; set null or a file"
    if p.checkpoint is not None:
        for name in ("weights", "width", "options"):
            if getattr(p, name):
                yield "checkpoint", f"{name}: a checkpoint says how its model is built; leave {name} out"


def _is_file(path: str) -> bool:
    try:
        return located(path).is_file()
    except FsslibError:
        return False


def _model(p: ExperimentParameters) -> Iterator[Problem]:
    """Method and options by themselves, then what only the built model can tell."""
    from ..models import available, options_of

    if p.method not in available():
        yield "", f"method: {p.method!r} is unknown{near(p.method, available())}"
        return
    known = options_of(p.method)
    for name in sorted(p.options):
        if name in _OWN_OPTION:
            yield "", f"options: {name!r} is not an option, use the parameter {_OWN_OPTION[name]}"
        elif name not in known:
            yield "", f"options: {p.method} has no option {name!r}{near(name, known)}"
    try:
        json.dumps(p.options, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield "", f"options: only numbers, texts, lists and dictionaries can be passed on ({error})"
        return
    if p.options.keys() <= set(known) - set(_OWN_OPTION) and not (p.checkpoint and p.options):
        yield from _build(p)


def _build(p: ExperimentParameters) -> Iterator[Problem]:
    """What only the model itself can tell."""
    from ..models import options_of

    names = "method backbone options width checkpoint"
    try:
        arguments = p.built_with
    except FsslibError:
        return  # said above, or by `load_model`
    from ..checkpoints import without_memory

    try:
        net = without_memory(arguments)
    except Exception as error:  # options are free-form: whatever a constructor makes of them
        text = str(error).removeprefix(f"{p.method}: ")
        yield names, f"options: {p.method} cannot be built like this: {text}"
        return
    taught = p.checkpoint or p.weights or p.pretrain_steps
    if p.freeze_backbone is None and net.freeze and p.episodic_steps and not taught:
        wrong = f"pretrain_steps: {p.method} keeps its backbone as it is, and this one would be random"
        yield f"{names} weights episodic_steps", f"{wrong}; set pretrain_steps, weights or checkpoint"
    learner = getattr(net, "base_learner", None)
    if learner is not None and not (p.checkpoint or p.pretrain_steps):
        wrong = f"the base learner of {p.method} would stay random"
        yield names, f"pretrain_steps: {wrong}; set pretrain_steps or checkpoint"
    base = CLASSES.get(p.dataset, (None,))[0]
    if learner is not None and p.pretrain_steps and base and learner.classes != base:
        wrong = f"the base learner has {learner.classes} classes, a fold of {p.dataset} has {base} base classes"
        yield f"{names} dataset pretrain_steps", f"options: {wrong}; set base_classes to {base}"
    if p.freeze_backbone and p.pretrain_steps and learner is None:
        wrong = f"pre-training trains the backbone, and {p.method} has no base learner beside it"
        way_out = f"set pretrain_steps to 0 (it is {p.pretrain_steps}), or leave freeze_backbone out"
        yield f"{names} pretrain_steps", f"freeze_backbone: {wrong}; {way_out}"
    net.backbone.freeze()
    if (p.freeze_backbone or net.freeze) and p.episodic_steps and not any(x.requires_grad for x in net.parameters()):
        wrong = f"freeze_backbone: nothing would train, {p.method} is its backbone"
        width = "set width, or " * ("width" in options_of(p.method))
        yield f"{names} episodic_steps", f"{wrong}; {width or 'set '}episodic_steps to 0"


def _training(p: ExperimentParameters) -> Iterator[Problem]:
    from ..protocol import Protocol
    from ..training import Schedule
    from .recipe import TRAINING

    if p.freeze_backbone and p.options.get("bn") == "batch":
        yield "freeze_backbone", "options: bn=batch moves the statistics of a frozen backbone; leave it out"
    if p.freeze_backbone and "augmentation" in p.training:
        unchanged = "features kept in memory belong to images as they are"
        yield "freeze_backbone", f"training: {unchanged}; leave augmentation or freeze_backbone out"
    known = [field.name for field in fields(Schedule) if field.name not in _OWN_DETAIL] + list(TRAINING)
    for name, value in p.training.items():
        if name in _OWN_DETAIL:
            yield "", f"training: {name!r} has a parameter of its own, {_OWN_DETAIL[name]}"
        elif name not in known:
            yield "", f"training: {name!r} is unknown{near(name, known)}"
        else:
            try:
                if name in ("validation_episodes", "epochs"):
                    check_count(value, name, error=ParameterError)
                else:
                    Protocol(augmentation=value) if name == "augmentation" else Schedule(1, **{name: value})
            except FsslibError as error:
                yield "", f"training: {str(error).removeprefix('Protocol.').rstrip('.')}"
    if p.episodic_steps and "epochs" in p.training:
        yield "episodic_steps", "training: epochs say how long; set episodic_steps to 0, or leave epochs out"
    for name, needs, value in (("momentum", "optimiser", "sgd"), ("power", "decay", "poly")):
        if name in p.training and p.training.get(needs) != value:
            yield "", f"training: {name} does nothing without {needs}={value}; set it, or leave {name} out"
    try:
        Schedule(1, batch=p.batch, devices=p.devices, nodes=p.nodes, compile=bool(p.training.get("compile")))
    except FsslibError as error:
        yield "batch nodes training", f"devices: {str(error).rstrip('.')}"
    if p.logger == "tensorboard" and not any(find_spec(package) for package in ("tensorboard", "tensorboardX")):
        yield "", "logger: tensorboard is not installed; pip install 'fsslib[tensorboard]', or take csv"


def _selection(p: ExperimentParameters) -> Iterator[Problem]:
    from .recipe import HELD_BACK

    if p.selection == "test_fold" and p.protocol != "published":
        wrong = "test_fold picks the checkpoint on the classes it is scored on, which only protocol=published does"
        yield "protocol", f"selection: {wrong}; use val_classes or last"
    if p.selection == "last":
        if p.validate_every:
            yield "selection", "validate_every: nothing is selected; set selection to val_classes"
        if "validation_episodes" in p.training:
            yield "selection", "training: nothing is selected; leave validation_episodes out"
        return
    if not p.validate_every and "epochs" not in p.training:
        yield "selection", f"validate_every: selection={p.selection} needs a number of steps above 0"
    if not p.episodic_steps and "epochs" not in p.training:
        yield "episodic_steps", "selection: nothing is trained; set episodic_steps, or selection to last"
    if p.selection == "val_classes" and p.checkpoint:
        yield "checkpoint", "selection: trained weights know the validation classes; set checkpoint to null"
    if p.selection == "val_classes" and p.way > HELD_BACK:
        yield "selection", f"way: selection=val_classes holds back {HELD_BACK} classes, {p.way} are asked for"


def unreadable(p: ExperimentParameters) -> Iterator[str]:
    """Of valid parameters: what is wrong with the data, weights and checkpoint that they name, found by reading them.
    Labels that are counted for this are kept for the run."""
    from ..checkpoints import load_model, without_memory
    from ..nn.backbones.weights import load_weights
    from .recipe import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again where they can be read
        try:
            if p.dataset != "shapes" and not p.data_options.get("download"):
                datasets(p)
        except (FsslibError, TypeError, ValueError) as error:
            yield f"{'data_options' if p.data_options else 'root'}: {error}"
        try:
            if p.start and p.checkpoint != "shipped":
                load_model(p.start)
        except FsslibError as error:
            yield f"checkpoint: {error}"
        try:
            if p.weights not in (None, "imagenet", "pretrained"):
                load_weights(without_memory(p.configuration).backbone, p.weights)
        except FsslibError as error:
            yield f"weights: {error}"
