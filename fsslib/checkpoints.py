"""Weight files: ours (safetensors, self-describing) and the authors' own checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from . import files
from .errors import CheckpointError, ModelError
from .files import atomic
from .models import build_model
from .models.base import FewShotModel
from .nn.backbones.weights import clean_state, read_state
from .version import __version__


def finite(state: Mapping[str, Tensor], source: str | Path) -> Mapping[str, Tensor]:
    """The state itself; raises CheckpointError when a tensor holds NaN or infinity."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        cause = "the training that made them diverged. Use an earlier checkpoint or a lower learning rate."
        raise CheckpointError(f"{source}: {len(bad)} tensors hold NaN or infinity ({', '.join(bad[:3])}): {cause}")
    return state


def save_model(model: FewShotModel, path: str | Path, *, half: bool = False, note: dict | None = None) -> Path:
    """Write weights and the configuration that rebuilds the model, atomically.

    Args:
        half: store floating-point tensors in half precision (for shipping).
        note: further facts to keep, e.g. the command that made the weights; must be JSON.
    Raises CheckpointError: another file ending than `.safetensors`, a model that cannot be rebuilt, weights that are
        not finite (or too large for half precision), a note that is no JSON.
    """
    from safetensors.torch import save_file

    if Path(path).suffix != ".safetensors":
        raise CheckpointError(f"{path}: weights are written as safetensors; give a name that ends in .safetensors.")
    if not model.config:
        raise CheckpointError("this model has no config: build it with fsslib.build_model so that it can be rebuilt.")
    if "backbone" not in model.config:
        raise CheckpointError("this model was built on a ready backbone: pass the backbone's name to save a model.")
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    finite(state, "this model")
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        large = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if large:
            raise CheckpointError(f"{', '.join(large[:3])}: too large for half precision. Save with half=False.")
    try:
        facts = {"config": json.dumps(model.config), "note": json.dumps(note or {})}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"note or configuration cannot be written as JSON: {error}.") from error
    with atomic(path) as part:
        save_file(state, part, {"format": "fsslib", "version": __version__, **facts})
    return Path(path)


def read_note(path: str | Path) -> dict:
    """What `save_model` was told to keep beside the weights, and the model's configuration as `"config"`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            facts = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable fsslib checkpoint ({error}).") from error
    if facts.get("format") != "fsslib" or not {"note", "config"} <= facts.keys():
        raise CheckpointError(f"{path}: not written by fsslib. For an authors' checkpoint use load_official.")
    try:
        return {**json.loads(facts["note"]), "config": json.loads(facts["config"])}
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}): copy or download it again.") from error


def load_model(path: str | Path) -> FewShotModel:
    """Rebuild a model saved by `save_model`, in eval mode. Raises CheckpointError for anything else."""
    state = finite(read_state(path), path)
    try:
        config = dict(read_note(path)["config"])
        model = build_model(config.pop("name"), **config)
    except (ModelError, KeyError, TypeError) as error:
        question = "Was it made by another version?"
        raise CheckpointError(f"{path}: its model cannot be built here ({error}). {question}") from error
    load_strict(model, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, path)
    return model.eval()


def shipped(method: str, dataset: str = "shapes", fold: int = 0) -> Path:
    """The trained weights that come with the repository. Raises CheckpointError, listing what there is."""
    folder = files.data_folder() / "weights"
    path = folder / f"{method}-{dataset}-fold{fold}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"no weights are shipped for {method} on {dataset}, fold {fold}; there are: {known}.")
    return path


def load_official(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Load an authors' checkpoint into `model` (in place; returned too).

    Args:
        model: a method, or HDMNet's `base_learner`: anything with `official_name` and `official_unused`.
        source: path of the file, or its state dict; with or without a `state_dict` wrapper and `module.` prefixes.
    Raises: CheckpointError: missing or unexpected names (listed) or shapes. Entries in `model.official_unused` are
        dropped; an absent `num_batches_tracked` counts as 0.
    """
    on_disk = isinstance(source, (str, Path))
    label = source if on_disk else "the given state"
    state = finite(read_state(source) if on_disk else clean_state(source), label)
    expected = model.state_dict()
    ours = {model.official_name(name): name for name in expected}
    unused = tuple(model.official_unused)
    translated = {ours.get(name, name): value for name, value in state.items() if not name.startswith(unused)}
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            translated.setdefault(name, torch.zeros_like(value))
    load_strict(model, translated, label)
    return model


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """`load_state_dict(strict=True)` that lists all that does not fit before it touches a weight."""
    expected = model.state_dict()
    misfits = {"missing": expected.keys() - state.keys(), "unexpected": state.keys() - expected.keys()}
    shapes = {n: (tuple(state[n].shape), tuple(expected[n].shape)) for n in expected.keys() & state.keys()}
    misfits["of another shape"] = [f"{n} is {a}, the model has {b}" for n, (a, b) in shapes.items() if a != b]
    problems = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:6])}{' …' * (len(names) > 6)}"
        for what, names in misfits.items()
        if names
    ]
    if problems:
        advice = "Build the model with the backbone, stem and options that the file was made for."
        raise CheckpointError(f"{source} does not fit this {type(model).__name__}: {'; '.join(problems)}. {advice}")
    model.load_state_dict(state)
