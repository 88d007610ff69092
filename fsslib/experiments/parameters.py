"""The parameters of the notebook `experiment`: names, types, defaults, and which of them exclude each other.

papermill itself runs on after a misspelt name or a wrong type, with the default: a wrong result that looks right.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ParameterError

CLASSES_PER_FOLD = 5
BACKBONES = ("tiny", "resnet18", "resnet50", "resnet101", "vgg16", "vgg16_bn")
# Arguments of `build_model` that have a parameter of their own.
_OWN_PARAMETER = {"name": "method", "backbone": "backbone", "weights": "weights", "width": "width"} | {
    "freeze": "freeze_backbone",
    "shots": "train_shot",
}


class ExperimentParameters(BaseModel):
    """Everything an experiment can be asked for; unknown names and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    method: str = Field("panet", description="which model: a name of fsslib.models.available()")
    backbone: Literal[BACKBONES] = Field("tiny", description="feature extractor")
    weights: str | None = Field(None, description="backbone weights: none (random), imagenet (downloads) or a file")
    checkpoint: str | None = Field("shipped", description="trained model to start from: shipped, a file, or none")
    dataset: Literal["shapes", "pascal"] = Field("shapes", description="data set")
    root: str | None = Field(None, description="folder of the data set's files; only for pascal")
    fold: int = Field(0, ge=0, le=3, description="which quarter of the classes is held out as novel")
    way: int = Field(1, ge=1, description="classes in an episode")
    shots: list[int] = Field([1, 5], min_length=1, description="labelled images of a class in evaluation, one or more")
    train_shot: int = Field(1, ge=1, description="labelled images of a class in training")
    size: int = Field(97, ge=33, description="side of the images, in pixels")
    width: int | None = Field(None, ge=1, description="channels of the layers behind the backbone; none: the method's")
    freeze_backbone: bool = Field(False, description="keep the backbone as it is")
    pretrain_steps: int = Field(0, ge=0, description="steps of ordinary segmentation training on the base classes")
    episodic_steps: int = Field(40, ge=0, description="steps of training on episodes")
    batch: int = Field(8, ge=1, description="images or episodes in a training step")
    lr: float = Field(1e-4, gt=0, description="learning rate on episodes")
    pretrain_lr: float = Field(3e-3, gt=0, description="learning rate of the pre-training")
    annotation: Literal["mask", "box", "scribble"] = Field("mask", description="how the support images are labelled")
    episodes: int = Field(200, ge=2, description="evaluation episodes for each shot and list")
    seeds: list[int] = Field([0], min_length=1, description="seeds of the evaluation lists")
    seed: int = Field(0, ge=0, description="seed of initialisation and training")
    precision: Literal["32", "bf16"] = Field(
        "32", description="number format of training; scores are always computed in 32 bits"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="device; auto takes a GPU if there is one")
    protocol: Literal["honest", "published"] = Field("honest", description="evaluation rules: ours, or the paper's")
    options: dict[str, Any] = Field({}, description="further keyword options of build_model")


def conflicts(p: ExperimentParameters) -> Iterator[tuple[set[str], str]]:
    """The names involved in, and a sentence about, every combination of valid values that cannot work."""
    from ..models import available, options_of  # imports torch, which only a check needs

    if p.method not in available():
        yield {"method"}, f"method: {p.method!r} is unknown{_near(p.method, available())}"
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
    if p.way > CLASSES_PER_FOLD:
        yield {"way"}, f"way: {p.way} classes are asked for, a fold has {CLASSES_PER_FOLD}"
    if p.backbone == "tiny" and p.weights is not None:
        yield {"backbone", "weights"}, "weights: the backbone tiny has none of its own; use checkpoint, or leave it out"
    elif p.weights not in (None, "imagenet") and not Path(p.weights).expanduser().is_file():
        yield {"weights"}, f"weights: there is no file {p.weights!r}; write imagenet to download the usual ones"
    if p.checkpoint == "shipped" and p.backbone != "tiny":
        yield (
            {"checkpoint", "backbone"},
            f"checkpoint: weights are shipped for tiny, not {p.backbone}; set null or a file",
        )
    elif p.checkpoint == "shipped" and p.dataset != "shapes":
        yield (
            {"checkpoint", "dataset"},
            f"checkpoint: weights are shipped for shapes, not {p.dataset}; set null or a file",
        )
    elif p.checkpoint not in (None, "shipped") and not Path(p.checkpoint).expanduser().is_file():
        yield (
            {"checkpoint"},
            f"checkpoint: there is no file {p.checkpoint!r}; write shipped for the one that comes along",
        )
    if p.checkpoint is not None:
        for name in ("weights", "width", "options"):
            if getattr(p, name):
                yield {"checkpoint", name}, f"{name}: a checkpoint says how its model is built; leave {name} out"
    if p.protocol == "published" and (p.dataset == "shapes" or p.seeds != [0]):
        wrong = "has papers on photographs only" if p.dataset == "shapes" else "has the paper's own seeds"
        name = "dataset" if p.dataset == "shapes" else "seeds"
        yield {"protocol", name}, f"{name}: the published protocol {wrong}; use protocol=honest, or leave {name} out"
    if p.freeze_backbone and p.options.get("bn") == "batch":
        yield (
            {"freeze_backbone", "options"},
            "options: bn=batch moves the statistics of a frozen backbone; leave it out",
        )
    if p.freeze_backbone and p.pretrain_steps > 0:
        yield (
            {"freeze_backbone", "pretrain_steps"},
            f"freeze_backbone: pre-training trains the backbone; set pretrain_steps to 0 (it is {p.pretrain_steps})",
        )
    scratch = p.checkpoint is None or p.checkpoint == "shipped"  # a file may hold a projection that can train
    if p.method == "panet" and p.freeze_backbone and p.width is None and p.episodic_steps > 0 and scratch:
        yield (
            {"method", "freeze_backbone", "width", "episodic_steps"},
            "freeze_backbone: nothing would train, panet is its backbone; set width, or episodic_steps to 0",
        )
    known = options_of(p.method) if p.method in available() else tuple(p.options)
    for name in sorted(p.options):
        if name in _OWN_PARAMETER:
            yield {"options"}, f"options: {name!r} is not an option, use the parameter {_OWN_PARAMETER[name]}"
        elif name not in known:
            yield {"options"}, f"options: {p.method} has no option {name!r}{_near(name, known)}"
    try:
        json.dumps(p.options, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield {"options"}, f"options: only numbers, texts, lists and dictionaries can be passed on ({error})"


def check_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of an experiment, the defaults filled in.

    Raises:
        ParameterError: lists every problem: unknown names (with the nearest valid one), wrong types, impossible
            combinations.
    """
    problems, bad = [], set()
    try:
        checked = ExperimentParameters.model_validate(given)
    except ValidationError as error:
        fields = ExperimentParameters.model_fields
        problems = [plain(e, fields) for e in error.errors()]
        bad = {str(e["loc"][0]) for e in error.errors()}
        # The rest is checked against the defaults, so that one attempt shows everything there is to mend.
        checked = ExperimentParameters.model_construct(
            **{n: v for n, v in given.items() if n in fields and n not in bad}
        )
    problems += [text for names, text in conflicts(checked) if not names & bad]
    if problems:
        raise ParameterError("\n".join(problems))
    return checked.model_dump()


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f", did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a dictionary",
}


def plain(error: Any, known: Any) -> str:
    """One of pydantic's error entries as a line in plain words; `known` holds the valid names."""
    name, *inside = map(str, error["loc"])
    place = name + "".join(f"[{i}]" for i in inside if i.isdigit())
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown parameter{_near(name, known)}"
    if error["type"] == "too_short":
        return f"{place}: the list is empty"
    value = repr(error["input"])
    found = f"found {value[:60]}{'…' if len(value) > 60 else ''}"
    if error["type"] in _EXPECTED:
        return f"{place}: expected {_EXPECTED[error['type']]}, {found}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{place}: must be {message}, {found}" if "should be" in error["msg"] else f"{place}: {message}, {found}"


def parameters_help() -> str:
    """A table of all parameters: name, type, default, description."""
    rows = []
    for name, field in ExperimentParameters.model_fields.items():
        rows.append((name, _type_name(field.annotation), json.dumps(field.default), field.description or ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[3]]) for row in rows)


def _type_name(annotation: Any) -> str:
    """`int | None`, `list[int]`, or the accepted words."""
    values = getattr(annotation, "__args__", ())
    if values and all(isinstance(v, str) for v in values):
        return "|".join(values)
    return (
        annotation.__name__ if isinstance(annotation, type) and not values else str(annotation).replace("typing.", "")
    )
