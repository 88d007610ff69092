"""Paths as people give them, at every door: `~`, relative, links, backslashes, spaces around, text or Path."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from core_tools import panet
from PIL import Image

from fsslib import build_model, load_dataset, load_model, load_official, save_model
from fsslib.checkpoints import read_note
from fsslib.data.folder.check import check_folder
from fsslib.data.folder.layouts import LAYOUTS
from fsslib.data.pictures import image_tensor, mask_tensor
from fsslib.errors import FsslibError
from fsslib.evaluation import Evaluation
from fsslib.experiments import read_result, status, write_result
from fsslib.experiments.__main__ import main
from fsslib.experiments.notebook import find
from fsslib.experiments.pages import write_page
from fsslib.experiments.parameters import ExperimentParameters, read_parameters
from fsslib.experiments.results import finished
from fsslib.files import atomic, cache_folder, located, make_folder, write_text
from fsslib.metrics import Scores
from fsslib.models import use
from fsslib.nn.backbones.cached import DiskStore
from fsslib.protocol import Protocol
from fsslib.training import Schedule, fit
from fsslib.widgets import strokes

SMALL = {"width": 2, "backbone_options": {"width": 2}}
EVALUATION = Evaluation(
    {1: Scores(np.ones((2, 1, 4), np.int64), np.array([1]), np.array([0, 0]))}, Protocol(), {1: 0.5}, ()
)
RESULT = {
    "scores": {"1": {"miou": 50.0}}, "protocol": {}, "versions": {}, "seed": 0, "list_hash": "a", "duration_s": 2,
    "parameters": {},
}  # fmt: skip
PLUGIN = """
import fsslib
from fsslib.models.panet import PANet
@fsslib.register("of_paths")
class OfPaths(PANet):
    pass
"""
BOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
# Door -> (name of what it reads, how it is opened).
READ = {
    "load_model": ("m.safetensors", load_model),
    "read_note": ("m.safetensors", read_note),
    "load_official": ("m.pth", lambda path: load_official(panet(**SMALL), path)),
    "weights=": ("w.pth", lambda path: build_model("panet", backbone="tiny", weights=path, **SMALL)),
    "checkpoint=": ("m.safetensors", lambda path: ExperimentParameters(checkpoint=str(path)).built_with),
    "plugin": ("plugin.py", use),
    "drawing": ("d.json", strokes.load),
    "Evaluation.load": ("e.npz", Evaluation.load),
    "read_result": ("result.json", read_result),
    "read_result of a folder": ("", read_result),
    "parameter file": ("p.yaml", read_parameters),
    "notebook": ("n.ipynb", find),
    "picture": ("own/images/a.png", image_tensor),
    "mask": ("own/masks/a.png", mask_tensor),
    "data root": ("own", lambda path: load_dataset("folder", root=path, split="test", cache=False)),
    "names=": ("names.txt", lambda path: load_dataset("folder", root=OWN[0], split="test", names=path, cache=False)),
    "check_folder": ("own", check_folder),
    "runs= of status": ("runs", lambda path: status(path)[0]),
    "runs= of finished": ("runs", lambda path: finished(path)[0]),
}
OWN: list = []
# Door -> (name of what it writes, how).
WRITE = {
    "save_model": ("o.safetensors", lambda path: save_model(panet(**SMALL), path)),
    "drawing": ("o.json", lambda path: strokes.save(strokes.empty(), path)),
    "Evaluation.save": ("o.npz", lambda path: EVALUATION.save(path)),
    "write_result": ("o.json", lambda path: write_result(path, RESULT)),
    "write_text": ("o.txt", lambda path: write_text(path, "text")),
    "atomic": ("o.txt", lambda path: _write(path)),
    "make_folder": ("o", make_folder),
    "features": ("o", lambda path: DiskStore(path)),
    "figure": ("o.png", lambda path: _figure(path)),
    "collect --csv": ("o.csv", lambda path: main(["collect", f"--runs={OWN[0].parent}/runs", f"--csv={path}"])),
    "page": ("o.html", lambda path: write_page(OWN[0].parent / "n.ipynb", path)),
    "training": ("o", lambda path: _train(path)),
}  # fmt: skip


def _write(path) -> None:
    with atomic(path) as part:
        part.write_bytes(b"1")


def _figure(path) -> None:
    from matplotlib.figure import Figure

    from fsslib.plots.display import save

    save(Figure((1, 1)), path, "a figure without any line in it")


def _train(path) -> None:
    model = torch.nn.Linear(1, 1)
    model.losses = lambda batch: {"total": model(batch).sum()}
    fit(model, lambda step: torch.ones(1, 1), Schedule(1, accelerator="cpu"), name="o", folder=path, progress=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder in which all that is read lies, and a working folder beside it."""
    base = tmp_path_factory.mktemp("paths")
    home = base / "home"
    (home / "own" / "images").mkdir(parents=True)
    (home / "own" / "masks").mkdir()
    mask = np.zeros((24, 24), np.uint8)
    mask[4:12, 4:12] = 1
    for number, name in enumerate("abc"):
        Image.fromarray(np.full((24, 24, 3), 50 * number, np.uint8)).save(home / "own" / "images" / f"{name}.png")
        Image.fromarray(mask).save(home / "own" / "masks" / f"{name}.png")
    model = panet(**SMALL)
    save_model(model, home / "m.safetensors")
    torch.save(model.state_dict(), home / "m.pth")
    torch.save(model.backbone.state_dict(), home / "w.pth")
    (home / "plugin.py").write_text(PLUGIN)
    strokes.save(strokes.empty(), home / "d.json")
    EVALUATION.save(home / "e.npz")
    write_result(home, RESULT)
    (home / "p.yaml").write_text("fold: 1\n")
    (home / "names.txt").write_text("thing\n")
    (home / "n.ipynb").write_text(json.dumps(BOOK))
    (home / "runs" / "one").mkdir(parents=True)
    shutil.copy(home / "n.ipynb", home / "runs" / "one" / "report.ipynb")
    write_result(home / "runs" / "one", RESULT)
    OWN[:] = [home / "own"]
    return home


@pytest.fixture
def here(home, monkeypatch, tmp_path):
    """The working folder: beside it, `near` leads to the home folder."""
    monkeypatch.setenv("HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "near").symlink_to(home)
    monkeypatch.chdir(work)
    return work


FORMS = {
    "tilde": lambda home, name: f"~/{name}",
    "tilde in a Path": lambda home, name: Path("~") / name,
    "relative through a link": lambda home, name: f"../near/{name}",
    "Path": lambda home, name: home / name,
    "spaces around": lambda home, name: f" {home / name}\n",
    "backslashes": lambda home, name: f"..\\near\\{name}".replace("/", "\\"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", READ)
def test_read_in_every_form(door, form, home, here):
    name, opens = READ[door]
    assert opens(FORMS[form](home, name)) is not None
    assert not list(here.iterdir())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", WRITE)
def test_written_in_every_form(door, form, home, here, tmp_path, monkeypatch):
    monkeypatch.delenv("FSSLIB_FIGURES", raising=False)
    name, write = WRITE[door]
    folder = home / "new" / form / door
    write(FORMS[form](home, f"new/{form}/{door}/{name}"))
    assert (folder / name).exists() and [path.name for path in folder.iterdir()] == [name]
    assert not list(here.iterdir()), "something was written where one happened to be"


BAD = {
    "nothing": "",
    "a number": 7,
    "a zero byte": "a\0b",
    "a name too long": "n" * 300,
    "a stranger": "~nobody-here/x",
}
BAD |= {"a drive": "C:\\data\\x", "a file as a folder": f"{__file__}/x"}


DOORS = [*READ, *(f"write: {door}" for door in WRITE)]
# A command line knows texts alone; without a folder training keeps nothing, and without runs there are none.
NOT_BAD = {("write: collect --csv", "nothing"), ("write: collect --csv", "a number"), ("checkpoint=", "a number")}
NOT_BAD |= {("write: training", "nothing")}


@pytest.mark.parametrize(("door", "bad"), [(d, b) for d in DOORS for b in BAD if (d, b) not in NOT_BAD])
def test_no_path_is_an_error_of_ours(door, bad, home, here):
    (name, call), given = WRITE[door[7:]] if door.startswith("write: ") else READ[door], BAD[bad]
    if isinstance(given, str) and given:
        given += Path(name).suffix  # so that the path itself is what is wrong
    try:
        assert call(given) == 2, "the command line says so by its status"
    except FsslibError as error:
        assert 10 < len(str(error)) < 800
    except IndexError:
        assert door.startswith("runs="), "a folder that is not there holds no run"
    assert not list(here.iterdir())


def test_what_has_that_very_name_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (" a ", "a\\b"):
        Path(name).write_text(name)
        assert located(name).read_text() == name


def test_folders_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FSSLIB_CACHE", "~/c")
    assert cache_folder() == tmp_path / "c"
    monkeypatch.delenv("FSSLIB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")
    assert cache_folder() == tmp_path / "x" / "fsslib"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "fsslib"


def test_every_door_goes_through_one_function():
    """A new `expanduser` or `Path(path)` at a door of its own would forget what `located` knows."""
    package = Path(load_dataset.__code__.co_filename).parents[1]
    found = [f.name for f in package.rglob("*.py") if "expanduser()" in f.read_text("utf-8") and f.name != "files.py"]
    assert not found and LAYOUTS and os.sep == "/"
