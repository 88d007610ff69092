"""What is wrong with the model that parameters ask for; see `conflicts`."""

import difflib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import FsslibError

if TYPE_CHECKING:
    from .parameters import ExperimentParameters

# Base and novel classes of a fold, where the data set alone says it.
CLASSES = {"shapes": (15, 5), "pascal": (15, 5), "coco": (60, 20), "fss1000": (760, 240)}
# What has a parameter of its own: arguments of `build_model`.
_OWN_OPTION = {"name": "method", "backbone": "backbone", "weights": "weights", "width": "width"} | {
    "freeze": "freeze_backbone",
    "shots": "train_shot",
}
Problem = tuple[str, str]  # see `conflicts`


def near(name: str, known: Any) -> str:
    """The end of a sentence about an unknown name: the nearest valid one, or all of them."""
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f", did you mean {found[0]}?" if found else f"; known: {', '.join(known)}"


def model_conflicts(p: "ExperimentParameters") -> Iterator[Problem]:
    """Method and options by themselves, then what only the built model can tell."""
    from ..models import available, options_of  # imports torch, which only a check needs

    if p.method not in available():
        yield "", f"method: {p.method!r} is unknown{near(p.method, available())}"
        return
    known = options_of(p.method)
    for name in sorted(p.options):
        if name in _OWN_OPTION:
            yield "", f"options: {name!r} is not an option, use the parameter {_OWN_OPTION[name]}"
        elif name not in known:
            yield "", f"options: {p.method} has no option {name!r}{near(name, known)}"
    if problem := _not_json(p.options):
        yield "", f"options: {problem}"
    elif p.options.keys() <= set(known) - set(_OWN_OPTION) and not (p.checkpoint and p.options):
        yield from _build(p)


def _build(p: "ExperimentParameters") -> Iterator[Problem]:
    """What only the model itself can tell; built without memory behind it."""
    import torch

    from ..models import build_model

    names = "method backbone options width checkpoint"
    try:
        arguments = p.built_with | {"weights": None}
    except FsslibError:
        return  # said above, or by `load_model`
    try:
        with torch.device("meta"):
            net = build_model(**arguments)
    except Exception as error:  # options are free-form: whatever a constructor makes of them
        text = str(error).removeprefix(f"{p.method}: ")
        yield names, f"options: {p.method} cannot be built like this: {text}"
        return
    taught = p.checkpoint or p.weights or p.pretrain_steps
    if p.freeze_backbone is None and net.freeze and p.episodic_steps and not taught:
        wrong = f"{p.method} keeps its backbone as it is, and this one would be random"
        yield (
            f"{names} weights episodic_steps",
            f"pretrain_steps: {wrong}; set pretrain_steps, weights or checkpoint",
        )
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
    if p.freeze_backbone and p.episodic_steps and not any(x.requires_grad for x in net.parameters()):
        wrong = f"nothing would train, {p.method} is its backbone"
        yield f"{names} episodic_steps", f"freeze_backbone: {wrong}; set width, or episodic_steps to 0"


def _not_json(value: Any) -> str:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"only numbers, texts, lists and dictionaries can be passed on ({error})"
    return ""
