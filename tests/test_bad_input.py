"""One table of bad input for the whole library: each gets a typed error that says what was found and what to do.

What only one data set or one part refuses is tested with it.
"""

from dataclasses import replace

import pytest
import torch
from core_tools import SIZE, panet, random_episode, shapes

from fsslib import EpisodeSampler, FsslibError, Protocol, build_model, errors, load_dataset, segment
from fsslib import load_official as official
from fsslib.data.download.fetch import fetch
from fsslib.errors import DatasetError, DownloadError, EpisodeError, ModelError, ParameterError, TrainingError
from fsslib.experiments import check_parameters
from fsslib.labs.collect import collect
from fsslib.labs.submit import SubmissionError, read_notebook, submit, write_result
from fsslib.nn.backbones import build_backbone
from fsslib.training import Schedule

RULES = Protocol(input_size=SIZE, episodes=2)
EPISODE = random_episode()

# name: (what is done in a temporary folder, the error's type, words that its message must contain)
CASES = {
    # episodes
    "image dtype": (lambda t: replace(EPISODE, query_images=EPISODE.query_images.double()).validate(), EpisodeError,
        ["query_images", "float64", "float32", "normalise"]),
    # data sets
    "data set name": (lambda t: load_dataset("shape"), DatasetError, ["'shape'", "did you mean 'shapes'"]),
    "no root": (lambda t: load_dataset("pascal"), DatasetError, ["folder", "root="]),
    "root of the embedded set": (lambda t: load_dataset("shapes", root="x"), DatasetError, ["leave root out"]),
    "data set option": (lambda t: load_dataset("shapes", sise=33), DatasetError, ["'sise'", "help"]),
    "pictures that are none": (lambda t: segment("no.jpg", "no.jpg", "no.png", model=panet()), DatasetError,
        ["no.jpg", "no image file"]),
    "host that is down": (lambda t: fetch("http://127.0.0.1:1/a.tar", t / "a.tar", attempts=1, progress=False),
        DownloadError, ["127.0.0.1:1/a.tar", "by hand"]),
    # sampling
    "fewer images than shots": (lambda t: EpisodeSampler(shapes("test", 5), RULES, shot=5), DatasetError,
        ["5-shot", "at least 6 images", "Use fewer"]),
    "more ways than classes": (lambda t: EpisodeSampler(shapes("test"), RULES.replace(way=6)), DatasetError,
        ["6-way", "5 have them", "Use fewer ways"]),
    "no shot": (lambda t: EpisodeSampler(shapes("test"), RULES, shot=0), DatasetError, ["shot=0", "from 1"]),
    "negative seed": (lambda t: EpisodeSampler(shapes("test"), RULES, seed=-1), DatasetError, ["seed=-1", "from 0"]),
    # submissions
    "no notebook": (lambda t: (t / "mine.ipynb").write_text("{") and read_notebook(t / "mine.ipynb"), SubmissionError,
        ["mine.ipynb", "not a notebook", "save it"]),
    "no such submission": (lambda t: submit(t / "mine.ipynb"), SubmissionError, ["mine.ipynb", "cannot be read"]),
    "a file in place of a folder": (lambda t: (t / "file").write_text("") or write_result({}, t / "file" / "x.json"),
        errors.OutputError, ["file", "cannot be written", "name a folder"]),
    "empty class": (lambda t: collect(t, t), SubmissionError, ["neither notebooks", ".result.json"]),
    # models
    "method": (lambda t: build_model("panett", backbone="tiny"), ModelError, ["'panett'", "did you mean 'panet'"]),
    "no backbone": (lambda t: panet_on(None), ModelError, ["backbone=None", "'tiny'"]),
    "stage": (lambda t: panet_on("tiny", stage="layer9"), ModelError, ["'layer9'", "'layer4'"]),
    "stage not built": (lambda t: panet_on("tiny", stage="layer4", last="layer2"), ModelError, ["layer4", "'layer2'"]),
    "options of a ready backbone": (lambda t: build_model("panet", backbone=build_backbone("tiny"), weights="m.pth"),
        ModelError, ["weights", "built already"]),
    "weights of another model": (lambda t: official(panet(), {"encoder.x": torch.ones(1)}), errors.CheckpointError,
        ["missing", "unexpected: encoder.x", "Build the model with"]),
    "published method": (lambda t: Protocol.published("unet"), errors.ProtocolError, ["'unet'", "panet, asgnet"]),
    # training
    "precision": (lambda t: Schedule(1, precision="16"), TrainingError, ["'16'", "32, bf16"]),
    # experiments
    "parameter name": (lambda t: check_parameters({"epsodes": 5}), ParameterError, ["epsodes", "episodes"]),
    "parameter type": (lambda t: check_parameters({"fold": "1"}), ParameterError, ["fold", "whole number", "'1'"]),
    "parameter method": (lambda t: check_parameters({"method": "pa_net"}), ParameterError, ["pa_net", "panet"]),
    "impossible ways": (lambda t: check_parameters({"way": 6}), ParameterError, ["way", "6", "5"]),
    "several at once": (lambda t: check_parameters({"fold": 9, "shots": [], "colour": 1}), ParameterError,
        ["fold", "shots", "empty", "colour"]),
    "parameters that exclude each other": (lambda t: check_parameters({"dataset": "pascal"}), ParameterError,
        ["root", "pascal"]),
}  # fmt: skip


def panet_on(backbone, **options):
    return build_model("panet", backbone=backbone, **options)


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, tmp_path):
    act, kind, words = CASES[name]
    with pytest.raises(kind) as caught:
        act(tmp_path)
    text = str(caught.value)
    assert issubclass(kind, FsslibError) and type(caught.value) is not FsslibError
    assert [word for word in words if word not in text] == [], text
    assert len(text) > 30 and "Traceback" not in text


def test_the_table_covers_every_kind_of_error():
    kinds = {kind for _, kind, _ in CASES.values()}
    assert kinds == {*FsslibError.__subclasses__(), DownloadError} and len(CASES) >= 25


def test_an_endless_word_does_not_hide_what_to_do():
    error = DatasetError(f"names: found {'x' * 5000}: give a name of up to 200 letters.")
    assert len(str(error)) < 400 and str(error).endswith(": give a name of up to 200 letters.")
    assert len(error.args[0]) > 5000 and str(DatasetError("/" + "a" * 300)) == "/" + "a" * 300
