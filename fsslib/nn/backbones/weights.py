"""Backbone weights from torchvision, an installed package or a file, checked before anything is overwritten."""

import os
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import CheckpointError, ModelError
from ...files import located
from .base import STAGES, Backbone

# Classification heads; a backbone has no use for them and their absence or presence says nothing.
_HEADS = ("fc.", "classifier.", "avgpool.")
_SHOWN = 4


def load_weights(backbone: Backbone, weights: str | os.PathLike | Mapping[str, Tensor]) -> None:
    """Load `"imagenet"`, `"packaged"`, a file or a state dict into a backbone, in place.

    `"imagenet"` are torchvision's `IMAGENET1K_V1` weights, downloaded on this request only, into torch.hub's cache.
    A file (`.pth`, `.pt`: `torch.save` of a state dict; `.safetensors`) may use torchvision's names, the deep stem's
    names (`conv1 … bn3`) or ours, with or without a `state_dict` wrapper and the prefixes `module.` and `backbone.`
    (of a file with `backbone.` names only these are read). Half precision is converted. A backbone of timm takes
    timm's names instead of torchvision's. `"packaged"`: see `fsslib.nn.backbones.packaged`.

    A file may end early: stages missing from its end (a file without layer4) keep their initial values, with a
    UserWarning that names them. Anything else that does not fit leaves the backbone untouched and is an error.

    Raises:
        ModelError: `"imagenet"` for a network that torchvision has no weights for (tiny, deep stem, stride on the 1x1,
            timm's); `"packaged"` for any but efficientnet_lite0; `"pretrained"` for one that is not timm's.
        CheckpointError: missing, unreadable or truncated file, failed download, holes, unknown names, other shapes,
            values that are not finite; names the file, the first few entries and what to do.
    """
    if isinstance(weights, str) and weights == "imagenet":
        apply_state(backbone, _imagenet_state(backbone), "torchvision's ImageNet weights")
    elif isinstance(weights, str) and weights == "packaged":
        from .packaged import packaged_weights

        apply_state(backbone, packaged_weights(backbone), "the packaged weights")
    elif isinstance(weights, str) and weights == "pretrained":
        cure = "write weights='imagenet' for torchvision's, or name the network as timm does: 'timm/…'"
        raise ModelError(f"weights='pretrained' are timm's, and {backbone.name} is not of timm: {cure}.")
    elif isinstance(weights, Mapping):
        apply_state(backbone, weights, "the given state dict")
    elif isinstance(weights, (str, os.PathLike)):
        apply_state(backbone, read_state(weights), str(weights))
    else:
        raise ModelError(
            f"weights={weights!r:.80}: expected None, 'imagenet' or the path of a weight file (or its contents)."
        )


def _imagenet_state(backbone: Backbone) -> dict[str, Tensor]:
    ways_out = "give weights a PATH to a file made for this network, or weights=None (random)"
    reason = None
    if backbone.name == "efficientnet_lite0":
        reason = "those are torchvision's; for efficientnet_lite0 write weights='packaged'"
    elif backbone.name.startswith("timm/"):
        reason = f"those are torchvision's; timm's own are weights='pretrained', or {ways_out}"
    elif backbone.name == "tiny":
        reason = f"there are no ImageNet weights for tiny; {ways_out}"
    elif getattr(backbone, "stem", "classic") == "deep":
        reason = f"torchvision has no {backbone.name} with a deep stem. Ways out: stem='classic', {ways_out}"
    elif getattr(backbone, "stride_on", "3x3") == "1x1":
        reason = f"torchvision's {backbone.name} strides on the 3x3; drop stride_on or {ways_out}"
    if reason:
        raise ModelError(f"weights='imagenet': {reason}.")
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(backbone.name).IMAGENET1K_V1.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # no connection, full disk, hash mismatch: the advice is the same
        raise CheckpointError(
            f"weights='imagenet': could not download {backbone.name} ({type(error).__name__}: {error}). Check the "
            f"connection, put the file into torch.hub's cache ({torch.hub.get_dir()}), or {ways_out}."
        ) from error


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """`clean_state` of a `.pth`, `.pt` or `.safetensors` file, on the CPU, without executing any code in it.
    Raises CheckpointError: the file is missing, unreadable, truncated, or holds something else than named tensors."""
    path = located(path, "weight file", CheckpointError)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"weight file {path} {what}; give the path of a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers' own errors are of a dozen kinds, from EOFError to UnpicklingError
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"weight file {path} cannot be read ({type(error).__name__}: {reason}). It is truncated, no weight file, "
            "or holds code besides tensors: get it again, or save its state dict alone."
        ) from error
    return clean_state(state, f"weight file {path}")


def clean_state(state: Mapping, source: str = "the given state") -> dict[str, Tensor]:
    """Name -> tensor without a `state_dict` wrapper and `module.` prefixes; anything else is a CheckpointError."""
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    wrong = f"expected a dictionary of tensors, found {type(state).__name__}"
    if isinstance(state, Mapping):
        others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
        wrong = f"expected tensors by name; not tensors: {', '.join(others[:5]) or 'it is empty'}"
        if state and not others:
            return {str(name).removeprefix("module."): value for name, value in state.items()}
    raise CheckpointError(f"{source} holds no state dict: {wrong}. Save `model.state_dict()`.")


def apply_state(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    """Check a state dict against a backbone, then copy it in; `source` names it in messages. See `load_weights`."""
    entries = clean_state(state, source)
    if any(key.startswith("backbone.") for key in entries):
        entries = {k.removeprefix("backbone."): v for k, v in entries.items() if k.startswith("backbone.")}
    entries = backbone.translated(entries)
    entries = {backbone.rename(key): value for key, value in entries.items() if not key.startswith(_HEADS)}
    entries.pop(None, None)  # what a backbone has no use for
    left_out = set(STAGES) - set(backbone.channels)
    entries = {key: value for key, value in entries.items() if backbone.stage_of(key) not in left_out}
    absent = _absent_stages(backbone, entries)
    problems = _problems(backbone, entries, absent)
    if problems:
        text = f"{'; '.join(problems)}.{_hint(backbone, entries)}"
        raise CheckpointError(f"{source} does not fit {backbone.name}: {text}")
    backbone.load_state_dict(entries, strict=False)
    if absent:
        names = " and ".join(absent)
        warnings.warn(
            f"{source} holds no weights for {names}: there {backbone.name} keeps its random initial values, so "
            f"features or a prior taken from {names} mean nothing until trained. Use an earlier stage, train {names} "
            f"on the base classes, or leave it out with last={STAGES[STAGES.index(absent[0]) - 1]!r}.",
            UserWarning,
            stacklevel=4,
        )


def _absent_stages(backbone: Backbone, entries: Mapping[str, Tensor]) -> list[str]:
    """Stages after the last one that the file knows; all other stages have to be complete."""
    known = {backbone.stage_of(key) for key in entries}
    reached = max((i for i, stage in enumerate(backbone.channels) if stage in known), default=len(STAGES))
    return list(backbone.channels)[reached + 1 :]


def _problems(backbone: Backbone, entries: Mapping[str, Tensor], absent: list[str]) -> list[str]:
    ours = backbone.state_dict()
    needed = [k for k in ours if backbone.stage_of(k) not in absent and not k.endswith("num_batches_tracked")]
    wrong = {"missing": [key for key in needed if key not in entries]}
    wrong["unknown"] = [key for key in entries if key not in ours]
    pairs = [(key, value, ours[key]) for key, value in entries.items() if key in ours]
    shapes = [(key, tuple(new.shape), tuple(old.shape)) for key, new, old in pairs]
    wrong["of another shape"] = [f"{key} {new} instead of {old}" for key, new, old in shapes if new != old]
    kinds = [(key, new.dtype) for key, new, old in pairs if new.is_floating_point() != old.is_floating_point()]
    wrong["of another kind"] = [f"{key} {dtype}" for key, dtype in kinds]
    wrong["not finite (NaN or inf)"] = [key for key, value, _ in pairs if not torch.isfinite(value).all()]
    more = {what: ", …" if len(keys) > _SHOWN else "" for what, keys in wrong.items()}
    return [f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{more[what]})" for what, keys in wrong.items() if keys]


def _hint(backbone: Backbone, entries: Mapping[str, Tensor]) -> str:
    first = entries.get("layer0.0.weight")
    if backbone.name.startswith("resnet") and first is not None and first.ndim == 4:
        stem = {7: "classic", 3: "deep"}.get(first.shape[-1])
        if stem and stem != backbone.stem:
            return f" The file has a {stem} stem: build the backbone with stem={stem!r}."
    return " Was it made for another network, or is it damaged? Choose the backbone it was made for, or get it again."
