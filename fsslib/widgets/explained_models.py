"""Models as explorers use them: they explain themselves, remember features, and are left as they were found."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import torch
from torch import nn

from ..checkpoints import load_model, shipped
from ..episode import Episode, Prediction
from ..errors import CheckpointError, ModelError
from ..inference import SIZES, USUAL_SIZE
from ..models.base import FewShotModel, device_of, evaluating, in_single_precision, unwrapped
from ..nn.backbones.base import Backbone
from ..nn.backbones.cached import CachedBackbone

NAMES = {"panet": "PANet", "sdaanet": "SD-AANet", "asgnet": "ASGNet", "hdmnet": "HDMNet"}
Models = FewShotModel | str | Mapping[str, object] | None
MEMORY = 512 * 2**20  # bytes of features that a model keeps


class ExplainedModel:
    """A model in eval mode with explanations; features of images it has seen are not computed again.

    Args: model: a method, the name of one (its shipped weights on fold `fold`), or a file of `save_model`.
    Attributes: size: pixels a side that suit its backbone.
    """

    def __init__(self, model: FewShotModel | str | Path, fold: int = 0):
        self._note, self._warned = "", {}
        if isinstance(model, str) and model in NAMES:
            model, self._note = _shipped(model, fold)
        elif isinstance(model, (str, Path)):
            model = load_model(model)
        model = in_single_precision(unwrapped(model)) if isinstance(model, nn.Module) else model
        if not isinstance(model, FewShotModel):
            raise ModelError(f"model: found {type(model).__name__}, expected a method, its name, or a saved file.")
        self.model, self._cached = model, None
        self.size = SIZES.get(model.config.get("backbone"), USUAL_SIZE)

    def __call__(self, episode: Episode, **options: object) -> Prediction:
        """The prediction with its maps, on the CPU; see `ready` for `options`."""
        with self.ready(**options), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            prediction = self.model(episode.to(self.device))
        self._warned[episode.shot] = " ".join(dict.fromkeys(str(warning.message) for warning in heard))
        return Prediction(prediction.logits.cpu(), {name: value.cpu() for name, value in prediction.maps.items()})

    def note(self, shot: int) -> str:
        """What to know before believing its prediction from so many supports; may be empty."""
        return f"{self._note} {self._warned.get(shot, '')}".strip()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return device_of(self.model)

    @contextmanager
    def ready(self, **options: object) -> Iterator[FewShotModel]:
        """The model in eval mode, without gradients, explaining, with `options` in force: attributes of the model,
        those of its parts with `__` for the dot (`sdpm__query_factor="mean"`). Everything is put back."""
        model = self.model
        plain, before = getattr(model, "backbone", None), []
        with evaluating(model, explain=True):
            try:
                if isinstance(plain, Backbone) and not isinstance(plain, CachedBackbone):
                    if self._cached is None or self._cached.plain is not plain:
                        # Single precision: a remembered answer must be the one that was computed.
                        self._cached = CachedBackbone(plain, MEMORY, dtype=torch.float32)
                    model.backbone = self._cached.eval()
                for name, value in options.items():
                    *parts, last = name.split("__")
                    owner = reduce(getattr, parts, model)
                    before.append((owner, last, getattr(owner, last)))
                    setattr(owner, last, value)
                yield model
            finally:
                for owner, last, value in reversed(before):
                    setattr(owner, last, value)
                if plain is not None:
                    model.backbone = plain


class ModelChoice:
    """Methods to choose from: label -> model, its name or file, or a function fold -> one of these; made when needed.
    None means the four methods with the shipped weights."""

    def __init__(self, models: Models = None):
        self.shipped = models is None
        if models is None:
            models = {label: name for name, label in NAMES.items()}
        elif not isinstance(models, Mapping):
            name = models if isinstance(models, str) else models.config.get("name", type(models).__name__)
            models = {NAMES.get(name, name): models}
        self._given, self._ready = dict(models), Memo()
        self.labels = list(models)

    def __call__(self, label: str, fold: int = 0) -> ExplainedModel:
        given = self._given[label]
        by_fold = callable(given) and not isinstance(given, torch.nn.Module)
        by_name = isinstance(given, str) and given in NAMES
        key = (label, fold if by_fold or by_name else None)
        return self._ready(key, lambda: ExplainedModel(given(fold) if by_fold else given, fold))


class Memo:
    """The last few results of a function, by the arguments that make them."""

    def __init__(self, size: int = 32):
        self._kept, self._size = OrderedDict(), size

    def __call__(self, key: tuple, make: Callable[[], object]) -> object:
        """What `make()` returned for this key, called only when it is not remembered."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _shipped(name: str, fold: int) -> tuple[FewShotModel, str]:
    try:
        return load_model(shipped(name, "shapes", fold)), ""
    except CheckpointError:
        note = f"{NAMES[name]} ships for fold 0 only: its training has seen the classes of fold {fold}."
        return load_model(shipped(name, "shapes", 0)), note


def only(
    name: str, kind: type[FewShotModel], model: FewShotModel | str | Path | Callable[[int], FewShotModel] | None,
    explorer: str, fits: Callable[[FewShotModel], bool] = lambda _: True, lacking: str = "",
) -> Callable[[int], ExplainedModel]:  # fmt: skip
    """For an explorer of one method: fold -> the given model, or the method's shipped weights.

    Args:
        name, kind: of the method. model: one, a file, or a function fold -> model; None: the shipped weights.
        fits: what else the explorer needs of a model; `lacking` says it in words.
    Raises ModelError (of a function's models when they are made): a model of another kind, or one that does not fit.
    """
    choice = ModelChoice({NAMES[name]: name if model is None else model})

    def model_of(fold: int) -> ExplainedModel:
        explained = choice(NAMES[name], fold)
        if not isinstance(explained.model, kind) or not fits(explained.model):
            raise ModelError(
                f"{explorer}: found {type(explained.model).__name__}, expected {NAMES[name]}{lacking}: "
                f"build_model({name!r}, …), a file of its weights, or no model at all for the shipped one."
            )
        return explained

    return model_of
