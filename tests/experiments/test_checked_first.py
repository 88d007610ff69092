"""What README promises: a run whose parameters or files cannot work is refused before a kernel starts."""

import json

import numpy as np
import pytest
import torch
from core_tools import panet
from folder_tree import images_masks

from fsslib import save_model
from fsslib.errors import ParameterError
from fsslib.experiments.runs import _absolute, check
from fsslib.nn.backbones import build_backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an own data set, and files that do not serve."""
    place = tmp_path_factory.mktemp("checked")
    images_masks(place / "own")
    (place / "empty").mkdir()
    (place / "text.safetensors").write_text("no weights")
    (place / "text.pth").write_text("no weights")
    (place / "empty.json").write_text("{}")
    whole = save_model(panet(), place / "panet.safetensors").read_bytes()
    (place / "cut.safetensors").write_bytes(whole[:-100])
    torch.save(build_backbone("resnet18").state_dict(), place / "resnet18.pth")
    for part, numbers in (("train", range(6)), ("test", range(6, 12))):
        (place / f"{part}.txt").write_text("".join(f"n{number:02}\n" for number in numbers))
    return place


OWN = {"dataset": "folder", "root": "own", "checkpoint": None}
REFUSED = {
    "a seed that torch cannot take": ({"seed": 2**63}, "^seed: must be less than"),
    "a list's seed that is too large": ({"seeds": [0, 10**30]}, r"^seeds\[1\]: must be less than"),
    "no annotation file": ({**OWN, "root": "none.json"}, "^root: there is no annotation file"),
    "an annotation file of nothing": ({**OWN, "root": "empty.json"}, r"^root: .*empty\.json"),
    "an empty folder": ({**OWN, "root": "empty"}, "^root: .*empty"),
    "a layout that does not exist": ({**OWN, "data_options": {"layout": "voc"}}, "^data_options: layout='voc'"),
    "folds that do not exist": ({**OWN, "data_options": {"folds": "3"}}, "^data_options: folds='3'"),
    "classes that do not exist": ({**OWN, "data_options": {"novel_classes": ["cow"]}}, "^data_options: .*cow"),
    "names that are not there": ({**OWN, "data_options": {"names": "no.txt"}}, r"^data_options: .*no\.txt"),
    "lists that are not there": ({**OWN, "data_options": {"lists": {"train": "no", "test": "no"}}}, "^data_options: "),
    "no PASCAL": ({"dataset": "pascal", "root": "empty", "checkpoint": None}, "^root: "),
    "no COCO": ({"dataset": "coco", "root": "empty", "checkpoint": None}, "^root: "),
    "no FSS-1000": ({"dataset": "fss1000", "root": "empty", "checkpoint": None}, "^root: "),
    "a checkpoint of text": ({"checkpoint": "text.safetensors"}, r"^checkpoint: .*text\.safetensors"),
    "a checkpoint cut off": ({"checkpoint": "cut.safetensors"}, r"^checkpoint: .*cut\.safetensors"),
    "a checkpoint of others": ({"checkpoint": "resnet18.pth"}, "^checkpoint: "),
    "a folder as a checkpoint": ({"checkpoint": "own"}, "^checkpoint: there is no file"),
    "another method's": ({"checkpoint": "panet.safetensors", "method": "asgnet"}, "held for panet, not asgnet"),
    "another backbone's": ({"checkpoint": "panet.safetensors", "backbone": "vgg16"}, "held for tiny, not vgg16"),
    "weights of text": ({"backbone": "resnet18", "weights": "text.pth", "checkpoint": None}, r"^weights: .*text\.pth"),
    "another network's": ({"backbone": "resnet50", "weights": "resnet18.pth", "checkpoint": None}, "^weights: .*fit"),
    "a plugin that is none": ({"plugin": "train.txt"}, "^plugin: "),
    "no path at all": ({"checkpoint": "a\0b"}, "^checkpoint: "),
    "not a number": ({**OWN, "data_options": {"min_area": float("nan")}}, "^data_options.min_area is nan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_runs(case, place, monkeypatch):
    monkeypatch.chdir(place)
    given, words = REFUSED[case]
    with pytest.raises(ParameterError, match=words):
        check(given)


def test_what_serves_is_accepted(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    lists = {"train": "train.txt", "test": "test.txt"}
    options = {"lists": lists, "novel_classes": [2]}
    checked = check({**OWN, "root": place / "own", "seed": np.int64(3), "data_options": options})
    assert checked["root"] == str(place / "own") and checked["seed"] == 3 and type(checked["seed"]) is int
    passed = _absolute("data_options", checked["data_options"])
    assert passed["lists"] == {name: str((place / file).resolve()) for name, file in lists.items()}
    assert passed["novel_classes"] == [2] and json.loads(json.dumps(checked)) == checked
    assert check({"checkpoint": "panet.safetensors"})["checkpoint"] == "panet.safetensors"
    assert check({"backbone": "resnet18", "weights": "resnet18.pth", "checkpoint": None})["weights"]
