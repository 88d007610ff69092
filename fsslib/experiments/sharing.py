"""A trained model to pass on: a folder with its weights, and a card that says how its numbers came about."""

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..checkpoints import load_model, read_note, save_model
from ..errors import CheckpointError, DownloadError
from ..files import located, write_text
from ..models.base import FewShotModel, unwrapped

if TYPE_CHECKING:
    from torch import nn

    from ..evaluation import Evaluation

WEIGHTS, CARD = "model.safetensors", "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(
    model: "nn.Module", folder: str | Path, evaluation: "Evaluation | None" = None, *, command: str | None = None,
    licence: str = "mit", title: str | None = None,
) -> Path:  # fmt: skip
    """Write `model.safetensors` and `README.md`, the model card, to `folder`; returns the folder.

    Args:
        model: a method built with `build_model`. evaluation: of this model; the card shows its scores with their
            intervals and its protocol, without it the card says that nothing was measured.
        command: what made the weights. licence: of the weights, as the Hub spells it. title: of the card.
    Raises CheckpointError: as `save_model`. OutputError: a place that cannot be written.
    """
    folder = files.make_folder(located(folder, "folder", CheckpointError))
    scores = {} if evaluation is None else {str(k): row for k, row in evaluation.summary().items()}
    save_model(model, folder / WEIGHTS, note={"command": command, "scores": scores})
    write_text(folder / CARD, model_card(unwrapped(model), evaluation, command, licence, title))
    return folder


def model_card(
    model: FewShotModel, evaluation: "Evaluation | None" = None, command: str | None = None, licence: str = "mit",
    title: str | None = None,
) -> str:  # fmt: skip
    """The card in Markdown: what it is, whose idea, how to load it, scores with 95 % intervals, and the protocol."""
    from .recipe import versions

    config = model.config
    about = (sys.modules[type(model).__module__].__doc__ or "").strip()
    head = ["---", f"license: {licence}", "library_name: fsslib", "pipeline_tag: image-segmentation"]
    head += ["tags:", "- few-shot-segmentation", f"- {config['name']}", "---"]
    lines = [*head, f"# {title or '{name} on {backbone}'.format(**config)}", "", about, ""]
    lines += ["```python", "import fsslib", "", 'model = fsslib.load_pretrained("this/folder")', "```", ""]
    if evaluation is None:
        lines += ["Nothing was measured with these weights.", ""]
    else:
        lines += ["| shots | mIoU | 95 % interval | FB-IoU |", "|---|---|---|---|"]
        for shot, row in evaluation.summary().items():
            lines.append("| {} | {miou:.1f} | {low:.1f} to {high:.1f} | {fb_iou:.1f} |".format(shot, **row))
        lines += [
            "",
            f"Episodes: list {evaluation.protocol.list_hash}.",
            "",
            "```",
            evaluation.protocol.card(),
            "```",
            "",
        ]
    made = [f"Made by `{command}`."] if command else []
    return "\n".join([*lines, *made, f"Versions: {', '.join(f'{k} {v}' for k, v in versions().items())}.", ""])


def load_pretrained(source: str | Path, *, download: bool = False, revision: str | None = None) -> FewShotModel:
    """The model that `save_pretrained` wrote to a folder, or that lies on the Hub as `owner/name`; in eval mode.

    Args: download: ask the Hub for what was not fetched before. revision: branch, tag or commit on the Hub.
    Raises CheckpointError: neither a folder with a model nor an id, or weights that are not ours. DownloadError: not
        fetched yet, and not allowed to; or the Hub cannot be reached or does not have it.
    """
    folder = located(source, "folder", CheckpointError)
    if (folder / WEIGHTS).is_file():
        return load_model(folder / WEIGHTS)
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        raise CheckpointError(f"{source}: no folder with {WEIGHTS}, and no id of the Hub such as owner/name.")
    hub, name = _hub(), str(source)
    if not download:  # hf_hub_download asks the Hub even where it must not (huggingface_hub 2.4)
        path = hub.try_to_load_from_cache(name, WEIGHTS, revision=revision)
        if not isinstance(path, str):
            raise DownloadError(f"{name}: {WEIGHTS} was not fetched yet. Pass download=True to fetch it.")
        return load_model(path)
    try:
        path = hub.hf_hub_download(name, WEIGHTS, revision=revision)
    except Exception as error:  # whatever lies between here and the Hub
        why = str(error).splitlines()[0]
        raise DownloadError(f"{name}: the Hub did not give {WEIGHTS} ({why}). Is the id right?") from error
    return load_model(path)


def push_to_hub(
    source: "str | Path | nn.Module", name: str, evaluation: "Evaluation | None" = None, *, private: bool = True,
    token: str | None = None, **about: Any,
) -> str:  # fmt: skip
    """Send a model, or a folder of `save_pretrained`, to the Hub; returns its address there.

    Args: name: `owner/name`, made if it is not there. private: only for you. token: yours; None: as you are logged in.
        about: as for `save_pretrained`, where `source` is a model.
    Raises CheckpointError: no such folder, or a name of another form. DownloadError: the Hub refuses it.
    """
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"{name!r}: expected the name of a model on the Hub, owner/name.")
    with tempfile.TemporaryDirectory() as room:
        if isinstance(source, str | Path):
            folder = located(source, "folder", CheckpointError)
            if not (folder / WEIGHTS).is_file():
                raise CheckpointError(f"{folder} holds no {WEIGHTS}: write it with save_pretrained.")
            read_note(folder / WEIGHTS)
        else:
            folder = save_pretrained(source, room, evaluation, **about)
        interface = _hub().HfApi(token=token)
        try:
            interface.create_repo(name, private=private, exist_ok=True)
            return str(interface.upload_folder(repo_id=name, folder_path=folder, allow_patterns=[WEIGHTS, CARD]))
        except Exception as error:  # whatever lies between here and the Hub
            raise DownloadError(f"{name}: the Hub did not take it ({str(error).splitlines()[0]}).") from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError("sharing on the Hub needs huggingface_hub: pip install 'fsslib[hub]'.") from error
    return huggingface_hub
