"""Models in folders and on the Hub: the same masks come back, and the card holds what was measured."""

import shutil
from pathlib import Path

import pytest
import torch

import fsslib
from fsslib.checkpoints import read_note
from fsslib.errors import CheckpointError, DownloadError


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A model, its evaluation and the folder that both were saved to."""
    torch.manual_seed(0)
    model = fsslib.build_model("panet", backbone="tiny", width=8).eval()
    data = fsslib.load_dataset("shapes", fold=1, split="test", size=49)
    rules = fsslib.Protocol(episodes=6, input_size=49)
    evaluation = fsslib.evaluate(model, data, rules, shots=(1, 5), progress=False)
    folder = tmp_path_factory.mktemp("shared") / "a model"
    fsslib.save_pretrained(model, folder, evaluation, command="python train.py", licence="cc0-1.0")
    return model, evaluation, folder


def test_what_comes_back_is_what_was_saved(shared):
    model, evaluation, folder = shared
    back = fsslib.load_pretrained(folder)
    assert back.config["name"] == "panet" and not back.training
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    note = read_note(folder / "model.safetensors")
    assert note["command"] == "python train.py"
    assert note["scores"]["5"]["miou"] == pytest.approx(evaluation.summary()[5]["miou"])


def test_the_card_is_the_protocol_card(shared):
    _, evaluation, folder = shared
    card = (folder / "README.md").read_text("utf-8")
    row = evaluation.summary()[1]
    assert card.startswith("---\nlicense: cc0-1.0\n") and "- few-shot-segmentation\n" in card
    assert f"| 1 | {row['miou']:.1f} | {row['low']:.1f} to {row['high']:.1f} |" in card
    assert evaluation.protocol.card() in card and str(evaluation.protocol.list_hash) in card
    assert "Prototype Alignment" in card and "`python train.py`" in card


def test_without_an_evaluation_the_card_says_so(shared, tmp_path):
    folder = fsslib.save_pretrained(shared[0], tmp_path / "bare")
    assert "Nothing was measured" in (folder / "README.md").read_text("utf-8")


class Hub:
    """The Hub as a folder of folders."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def HfApi(self, token=None):
        return self

    def create_repo(self, name, *, private, exist_ok):
        if name.startswith("others/"):
            raise PermissionError("403: not yours")
        (self.place / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        for name in allow_patterns:
            shutil.copyfile(Path(folder_path) / name, self.place / repo_id / name)
        return f"https://hub.example/{repo_id}"

    def hf_hub_download(self, name, file, *, revision):
        return str(self.place / name / file)


@pytest.mark.parametrize("kind", ["model", "folder"])
def test_push_and_load_again(shared, kind, tmp_path, monkeypatch):
    model, evaluation, folder = shared
    monkeypatch.setattr("fsslib.experiments.sharing._hub", lambda: Hub(tmp_path))
    source = model if kind == "model" else folder
    assert fsslib.push_to_hub(source, "me/panet", evaluation).endswith("me/panet")
    assert (tmp_path / "me" / "panet" / "README.md").is_file()
    back = fsslib.load_pretrained("me/panet", download=True)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(DownloadError, match="403: not yours"):
        fsslib.push_to_hub(source, "others/panet")


def test_nothing_is_fetched_unless_asked(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="download=True"):
        fsslib.load_pretrained("me/panet")


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda place: fsslib.load_pretrained(place), "no folder with model.safetensors"),
        (lambda place: fsslib.load_pretrained("a/b/c"), "no id of the Hub"),
        (lambda place: fsslib.push_to_hub(place, "me/panet"), "holds no model.safetensors"),
        (lambda place: fsslib.push_to_hub(place, "panet"), "owner/name"),
    ],
    ids=["empty", "no id", "nothing to push", "no name"],
)
def test_bad_places_are_named(does, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        does(tmp_path)
