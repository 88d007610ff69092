"""The parameters of the notebook `experiment` and files that give them. What excludes what stands in `conflicts`.

papermill itself runs on after a misspelt name or a wrong type, with the default: a wrong result that looks right.
"""

import json
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import ParameterError
from ..files import located, parse_json, parse_yaml, text_or_reason
from ..progress import aligned

EXPECTED = "Expected a name and a value a line, as in `fold: 1`."
MANY, DEEP = 100_000, 50  # values in a file, and how deep they lie: a YAML anchor within itself has no end
BACKBONES = ("tiny", "resnet18", "resnet50", "resnet101", "vgg16", "vgg16_bn", "efficientnet_lite0")

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Shots = Annotated[int, Field(ge=1, lt=2**63)]


def _backbone(name: str) -> str:
    """The name itself if it can be that of a backbone; which ones timm knows is seen when it is built."""
    if name in BACKBONES or name.startswith("timm/"):
        return name
    raise ValueError(f"must be {', '.join(map(repr, BACKBONES))} or 'timm/<name>'")


class ExperimentParameters(BaseModel):
    """Everything an experiment can be asked for; unknown names and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    method: str = Field("panet", description="which model: a name of fsslib.models.available()")
    plugin: str | None = Field(None, description="Python file that registers a method of your own; none: ours")
    backbone: Annotated[str, AfterValidator(_backbone)] = Field(
        "tiny", description=f"feature extractor: {', '.join(BACKBONES)}, or timm/ and a name of timm"
    )
    weights: str | None = Field(
        None,
        description="backbone weights: none (random), packaged (of efficientnet_lite0), imagenet or pretrained "
        "(torchvision's or timm's, which are downloaded) or a file",
    )
    checkpoint: str | None = Field("shipped", description="trained model to start from: shipped, a file, or none")
    dataset: Literal["shapes", "pascal", "coco", "fss1000", "folder"] = Field("shapes", description="data set")
    root: str | None = Field(None, description="folder of the data set's files; shapes has none")
    data_options: dict[str, Any] = Field({}, description="further options of load_dataset: fold_scheme, layout, ...")
    fold: int = Field(0, ge=0, le=3, description="which quarter of the classes is held out as novel")
    way: int = Field(1, ge=1, description="classes in an episode")
    shots: list[Shots] = Field(
        [1, 5], min_length=1, description="labelled images of a class in evaluation, one or more"
    )
    train_shot: int = Field(1, ge=1, description="labelled images of a class in training")
    size: int = Field(97, ge=33, description="side of the images, in pixels")
    train_size: int | None = Field(None, ge=33, description="side of the images in training; none: the same")
    knobs: dict[str, Any] = Field({}, description="difficulty of the shapes in evaluation, of fsslib.data.ShapesKnobs")
    train_knobs: dict[str, Any] = Field({}, description="the same for the training images")
    novel_pixels: Literal["background", "ignore", "drop"] | None = Field(
        None,
        description="novel classes in training images; drop leaves such images out; none: the protocol's habit, for "
        "shapes drop",
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
        description="details of training on episodes: optimiser, decay, weight_decay, clip, ... of fsslib.training, "
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
    seeds: list[Seed] = Field([0], min_length=1, description="seeds of the evaluation lists")
    seed: Seed = Field(0, description="seed of initialisation and training")
    precision: Literal["32", "bf16"] = Field(
        "32", description="number format of training; scores are always computed in 32 bits"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="device; auto takes a GPU if there is one")
    devices: int = Field(1, ge=1, description="devices that share a training step; their processes write here, too")
    nodes: int = Field(1, ge=1, description="machines with so many devices each, inside a job of Slurm")
    workers: int = Field(0, ge=0, description="processes that load images ahead; they change the speed alone")
    logger: Literal["csv", "tensorboard"] | None = Field(
        None, description="also write the losses of every step to the run's folder logs, in this form"
    )
    protocol: Literal["honest", "published"] = Field("honest", description="evaluation rules: ours, or the paper's")
    options: dict[str, Any] = Field({}, description="further keyword options of build_model")

    def __getitem__(self, name: str) -> Any:
        """`p["fold"]` is `p.fold`, as in a stored result."""
        return getattr(self, name)

    @cached_property
    def start(self) -> Path | None:
        """The file training starts from, if any. Raises CheckpointError when none is shipped for these parameters."""
        if self.checkpoint is None:
            return None
        if self.checkpoint != "shipped":
            return located(self.checkpoint, "checkpoint", ParameterError)
        from ..checkpoints import shipped  # imports torch, which only a check or a run needs

        return shipped(self.method, self.dataset, self.fold)

    @cached_property
    def built_with(self) -> dict[str, Any]:
        """The arguments of `build_model`: those that the checkpoint was built with, or `configuration`.
        Raises CheckpointError for a checkpoint that is missing or not one of ours."""
        if self.start is None:
            return self.configuration
        from ..checkpoints import read_note

        return read_note(self.start)["config"]

    @property
    def configuration(self) -> dict[str, Any]:
        """The arguments of `build_model` that the parameters ask for when there is no checkpoint."""
        named = {"name": self.method, "backbone": self.backbone, "shots": self.train_shot, "weights": self.weights}
        optional = {"width": self.width, "freeze": self.freeze_backbone}
        return named | {key: value for key, value in optional.items() if value is not None} | self.options


def parameters_help() -> str:
    """A table of all parameters: name, type, default, description."""
    fields, kinds = ExperimentParameters.model_fields.items(), get_type_hints(ExperimentParameters)
    return aligned([(n, _type_name(kinds[n]), json.dumps(f.default), f.description) for n, f in fields])


def _type_name(annotation: Any) -> str:
    """`int | None`, `list[int]`, or the accepted words."""
    values = getattr(annotation, "__args__", ())
    if values and all(isinstance(v, str) for v in values):
        return "|".join(values)
    plain_type = isinstance(annotation, type) and not values
    return annotation.__name__ if plain_type else str(annotation).replace("typing.", "")


def read_parameters(path: str | Path) -> dict[str, Any]:
    """Names and values of a parameter file as `papermill -f` takes it: JSON if its name ends in `.json`, else YAML.

    Raises ParameterError for a file that cannot be read, holds something else than plain values, or gives a name twice
    (of which YAML and JSON silently keep the last).
    """
    path = located(path, "parameter file", ParameterError)
    kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
    text, reason = text_or_reason(path)
    if reason:
        raise ParameterError(f"{path} cannot be read as {kind}: {reason}. {EXPECTED}")
    parse = parse_json if kind == "JSON" else parse_yaml
    content = parse(text, f"{path} cannot be read as {kind}", EXPECTED, ParameterError)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ParameterError(f"{path}: expected names with values, found {type(content).__name__}.")
    check_plain(content, f"{path}: ")
    return content


def check_plain(values: dict[str, Any], where: str = "") -> None:
    """Raise ParameterError, which `where` begins, unless `values` can be written as JSON and read again alike: dicts by
    names, lists, texts, finite numbers, True, False and None, and not endlessly many of them."""
    waiting, seen = list(values.items()), 0
    while waiting:
        place, value = waiting.pop()
        seen += 1
        if seen > MANY or place.count(".") > DEEP:
            raise ParameterError(f"{where}{place[:60]}: more values, or deeper, than any parameter has. {EXPECTED}")
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            waiting += [(f"{place}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{place}.{at}", part) for at, part in enumerate(value)]
        elif not _is_plain(value):
            raise ParameterError(
                f"{where}{place}: {value!r:.60} ({type(value).__name__}) is no plain value: write a number of usual "
                "size, true, false or null, or a text in quotes."
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)  # half a character, which no file takes
    if isinstance(value, int | float):
        return -(2**63) <= value < 2**63 or (isinstance(value, float) and math.isfinite(value))
    return value is None
