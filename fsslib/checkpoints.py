"""Weight files: ours (safetensors, self-describing) and the authors' own checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import files
from .errors import CheckpointError, OutputError
from .files import atomic, located, plain
from .models import build_model
from .models.base import WRAPPERS, FewShotModel, unwrapped
from .names import __version__
from .nn.backbones.weights import clean_state, read_state


def finite(state: Mapping[str, Tensor], source: str | Path) -> Mapping[str, Tensor]:
    """The state itself; raises CheckpointError when a tensor holds NaN or infinity."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        cause = "the training that made them diverged. Use an earlier checkpoint or a lower learning rate."
        raise CheckpointError(f"{source}: {len(bad)} tensors hold NaN or infinity ({', '.join(bad[:3])}): {cause}")
    return state


def save_model(model: nn.Module, path: str | Path, *, half: bool = False, note: dict | None = None) -> Path:
    """Write weights and the configuration that rebuilds the model, atomically, and read them back before that counts.

    Args:
        model: a method; wrapped by torch.compile, DataParallel or Fabric (as a whole or in parts) it is unwrapped.
        half: store floating-point tensors in half precision (for shipping).
        note: further facts to keep, e.g. the command that made the weights; must be JSON (paths and NumPy will do).
    Raises CheckpointError: another file ending than `.safetensors`, a model that cannot be rebuilt, weights that are
        not finite (or too large for half precision), a note that is no JSON. OutputError: a place that cannot be
        written.
    """
    path, model = located(path, "weights", CheckpointError), unwrapped(model)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: weights are written as safetensors; give a name that ends in .safetensors.")
    config = getattr(model, "config", None)
    if not config:
        raise CheckpointError("this model has no config: build it with fsslib.build_model so that it can be rebuilt.")
    if "backbone" not in config:
        raise CheckpointError("this model was built on a ready backbone: pass the backbone's name to save a model.")
    facts = _facts(config, note)
    state = _rebuilt_from(json.loads(facts["config"]), finite(_state(model), "this model"))
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        large = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if large:
            raise CheckpointError(f"{', '.join(large[:3])}: too large for half precision. Save with half=False.")
    with atomic(path) as part:
        _write(state, part, {"format": "fsslib", "version": __version__, **facts})
    return path


def _facts(config: dict, note: dict | None) -> dict[str, str]:
    """Configuration and note as JSON. Raises CheckpointError for what would not be read back as it was given."""
    if not isinstance(note or {}, Mapping) or "config" in (note or {}):
        raise CheckpointError(f"note={note!r:.80}: expected a dictionary, without 'config', which holds the model's.")
    try:
        return {"config": json.dumps(plain(config, "config")), "note": json.dumps(plain(note or {}, "note"))}
    except (TypeError, RecursionError) as error:
        raise CheckpointError(f"note or configuration cannot be written as JSON: {error}.") from error


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors on the CPU, each in memory of its own: safetensors refuses shared ones."""
    try:
        return {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    except (NotImplementedError, AttributeError) as error:
        cure = "a model on the device meta, or a quantised one, has no weights to save"
        raise CheckpointError(f"{type(model).__name__} holds other things than numbers ({error}): {cure}.") from error


def _rebuilt_from(config: dict, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state under the names that a model rebuilt from `config` has; CheckpointError if it does not fit that one."""
    try:
        twin = without_memory(config)
    except Exception as error:  # whatever a constructor makes of its options
        raise CheckpointError(f"this model cannot be rebuilt from its configuration ({error}).") from error
    expected = twin.state_dict()
    # Parts may be wrapped, too; their names say it.
    inside = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in state}
    state = {name if name in expected else inside[name]: value for name, value in state.items()}
    check_fit(twin, state, "this model", "What was changed by hand is not in its config: build it with the options.")
    return state


def _write(state: dict[str, Tensor], path: Path, facts: dict[str, str]) -> None:
    """Write a safetensors file and read it again. Raises OutputError unless it holds what was given, bit for bit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        save_file(state, path, facts)
        back = load_file(path)
    except SafetensorError as error:
        raise OutputError(f"{path.parent}: weights cannot be written there ({error}). Is there room enough?") from error
    if any(not torch.equal(_bits(value), _bits(back[name])) for name, value in state.items()):
        raise OutputError(f"{path.parent}: what was written there is read back differently. Use another disk.")


def _bits(value: Tensor) -> Tensor:
    return value.reshape(-1).view(torch.uint8)


def read_note(path: str | Path) -> dict:
    """What `save_model` was told to keep beside the weights, and the model's configuration as `"config"`."""
    from safetensors import SafetensorError, safe_open

    path = located(path, "weight file", CheckpointError)
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable fsslib checkpoint ({error}).") from error
    if facts.get("format") != "fsslib" or not {"note", "config"} <= facts.keys():
        raise CheckpointError(f"{path}: not written by fsslib. For an authors' checkpoint use load_official.")
    try:
        note, config = json.loads(facts["note"]), json.loads(facts["config"])
        return {**note, "config": {**config}}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}): copy or download it again.") from error


def load_model(path: str | Path) -> FewShotModel:
    """Rebuild a model saved by `save_model`, in eval mode. Raises CheckpointError for anything else."""
    state = finite(read_state(path), path)
    config = read_note(path)["config"]
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        # First without memory: what does not fit is not built, nor are sizes that a damaged header asks for.
        check_fit(without_memory(config), state, path)
        model = build_model(**config | {"weights": None})
    except CheckpointError:
        raise
    except Exception as error:  # whatever a constructor makes of the options of another version
        question = "Was it made by another version?"
        raise CheckpointError(f"{path}: its model cannot be built here ({error}). {question}") from error
    model.load_state_dict(state)
    if "weights" in config:
        model.config["weights"] = model.backbone.weights = config["weights"]
    return model.eval()


def without_memory(config: Mapping[str, Any]) -> FewShotModel:
    """The model that `build_model` makes of these arguments, on the device "meta": sizes without numbers."""

    class Undrawn(TorchFunctionMode):
        """Draws no normal numbers: on "meta" the first ones cost seconds of imports."""

        def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            return args[0] if function is torch.Tensor.normal_ else function(*args, **(kwargs or {}))

    with torch.device("meta"), Undrawn():
        return build_model(**{**config, "weights": None})


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
    on_disk, model = not isinstance(source, Mapping), unwrapped(whole := model)
    label = source if on_disk else "the given state"
    state = finite(read_state(source) if on_disk else clean_state(source), label)
    expected = model.state_dict()
    ours = {model.official_name(name): name for name in expected}
    unused = tuple(model.official_unused)
    translated = {ours.get(name, name): value for name, value in state.items() if not name.startswith(unused)}
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            translated.setdefault(name, torch.zeros_like(value))
    check_fit(model, translated, label)
    model.load_state_dict(translated)
    return whole


def check_fit(
    model: nn.Module, state: Mapping[str, Tensor], source: str | Path,
    advice: str = "Build the model with the backbone, stem and options that the file was made for.",
) -> None:  # fmt: skip
    """Raise CheckpointError, listing all that does not fit, unless `state` has the names and shapes of `model`."""
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
        raise CheckpointError(f"{source} does not fit this {type(model).__name__}: {'; '.join(problems)}. {advice}")
