"""The parameters of the notebook `experiment`: names, types, defaults, and which of them exclude each other.

papermill itself runs on after a misspelt name or a wrong type, with the default: a wrong result that looks right.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ModelError, ParameterError
from .conflicts import conflicts
from .model_conflicts import near

BACKBONES = ("tiny", "resnet18", "resnet50", "resnet101", "vgg16", "vgg16_bn")


class ExperimentParameters(BaseModel):
    """Everything an experiment can be asked for; unknown names and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    method: str = Field("panet", description="which model: a name of fsslib.models.available()")
    plugin: str | None = Field(None, description="Python file that registers a method of your own; none: ours")
    backbone: Literal[BACKBONES] = Field("tiny", description="feature extractor")
    weights: str | None = Field(None, description="backbone weights: none (random), imagenet (downloads) or a file")
    checkpoint: str | None = Field("shipped", description="trained model to start from: shipped, a file, or none")
    dataset: Literal["shapes", "pascal", "coco", "fss1000", "folder"] = Field("shapes", description="data set")
    root: str | None = Field(None, description="folder of the data set's files; shapes has none")
    data_options: dict[str, Any] = Field({}, description="further options of load_dataset: fold_scheme, layout, ...")
    fold: int = Field(0, ge=0, le=3, description="which quarter of the classes is held out as novel")
    way: int = Field(1, ge=1, description="classes in an episode")
    shots: list[int] = Field([1, 5], min_length=1, description="labelled images of a class in evaluation, one or more")
    train_shot: int = Field(1, ge=1, description="labelled images of a class in training")
    size: int = Field(97, ge=33, description="side of the images, in pixels")
    train_size: int | None = Field(None, ge=33, description="side of the images in training; none: the same")
    knobs: dict[str, Any] = Field({}, description="difficulty of the shapes in evaluation, of fsslib.data.ShapesKnobs")
    train_knobs: dict[str, Any] = Field({}, description="the same for the training images")
    novel_pixels: Literal["background", "ignore", "drop"] | None = Field(
        None, description="novel classes in training images; drop leaves such images out; none: the protocol's habit"
    )
    width: int | None = Field(None, ge=1, description="channels of the layers behind the backbone; none: the method's")
    freeze_backbone: bool | None = Field(
        None, description="true: keep the backbone as it is, and its features in memory; none: the method's habit"
    )
    pretrain_steps: int = Field(0, ge=0, description="steps of ordinary segmentation training on the base classes")
    episodic_steps: int = Field(40, ge=0, description="steps of training on episodes")
    batch: int = Field(8, ge=1, description="images or episodes in a training step")
    lr: float = Field(1e-4, gt=0, description="learning rate on episodes")
    pretrain_lr: float = Field(3e-3, gt=0, description="learning rate of the pre-training")
    training: dict[str, Any] = Field(
        {},
        description="details of training on episodes: optimiser, decay, weight_decay, clip, ... of fsslib.schedule, "
        "augmentation (of fsslib.data.transforms), validation_episodes",
    )
    selection: Literal["last", "val_classes", "test_fold"] = Field(
        "last",
        description="which state is scored: the last, or the best on held-back base classes (or, published, on "
        "the test fold)",
    )
    validate_every: int = Field(0, ge=0, description="steps between two validations; 0: never")
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


# Parameters that came later: at their defaults they leave a run the name it had before.
LATER = {"data_options": {}}


def identity(checked: dict[str, Any]) -> dict[str, Any]:
    """What tells runs apart: all parameters but those that came later and stand at their defaults."""
    return {name: value for name, value in checked.items() if name not in LATER or value != LATER[name]}


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
    if "plugin" not in bad and checked.plugin:
        from ..models import use  # imports torch, which only a check needs

        try:
            use(checked.plugin)
        except ModelError as error:
            problems, bad = [*problems, f"plugin: {error}"], bad | {"method", "options"}
    problems += [text for names, text in conflicts(checked) if not names & bad]
    if problems:
        raise ParameterError("\n".join(problems))
    return checked.model_dump()


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
        return f"{name}: unknown parameter{near(name, known)}"
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
