"""One table of bad input for the whole library: each gets a typed error that says what was found and what to do.

What only one data set refuses is tested with it, in tests/data.
"""

from dataclasses import replace

import pytest
import torch
from core_tools import SIZE, panet, random_episode, shapes

from fsslib import (
    EpisodeSampler,
    FsslibError,
    Protocol,
    build_model,
    evaluate,
    load_dataset,
    load_model,
    save_model,
    segment,
)
from fsslib import load_official as official
from fsslib.data.download.fetch import fetch
from fsslib.errors import (
    CheckpointError,
    DatasetError,
    DownloadError,
    EpisodeError,
    ModelError,
    ParameterError,
    ProtocolError,
    TrainingError,
)
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters
from fsslib.labs.collect import collect
from fsslib.labs.submit import SubmissionError, read_notebook, submit
from fsslib.nn.backbones import build_backbone
from fsslib.training import Schedule, train_episodes

RULES = Protocol(input_size=SIZE, episodes=2)
EPISODE = random_episode()


def weights(tmp, name="m.safetensors", cut=None, state=None):
    path = tmp / name
    if state is not None:
        torch.save(state, path)
    else:
        save_model(panet(), path)
        path.write_bytes(path.read_bytes()[:cut])
    return path


def nan_state():
    state = panet().state_dict()
    state["backbone.layer1.0.conv1.weight"][0] = float("nan")
    return {f"encoder.{name}": value for name, value in state.items()}


def nan_training():
    model = panet()
    with torch.no_grad():
        model.backbone.layer0[0].weight[0] = float("nan")
    return train_episodes(model, EpisodeSampler(shapes(), RULES), Schedule(steps=1, batch=1), progress=False)


# name: (what is done in a temporary folder, the error's type, words that its message must contain)
CASES = {
    # episodes
    "image dtype": (
        lambda t: replace(EPISODE, query_images=EPISODE.query_images.double()).validate(),
        EpisodeError,
        ["query_images", "float64", "float32", "normalise"],
    ),
    "image size": (
        lambda t: panet()(replace(EPISODE, query_images=EPISODE.query_images[..., :-2])),
        EpisodeError,
        ["query_images", "(2, 3, 33, 31)", "expected"],
    ),
    "mask values": (
        lambda t: replace(EPISODE, support_masks=EPISODE.support_masks + 1).validate(),
        EpisodeError,
        ["support_masks", "2", "0..1", "255"],
    ),
    "labels missing": (
        lambda t: panet().losses(replace(EPISODE, query_masks=None)),
        EpisodeError,
        ["query_masks", "None"],
    ),
    "too many shots of an episode": (lambda t: EPISODE.shots(5), EpisodeError, ["shots(5)", "holds 1"]),
    # data sets
    "data set name": (lambda t: load_dataset("shape"), DatasetError, ["'shape'", "did you mean 'shapes'"]),
    "no root": (lambda t: load_dataset("pascal"), DatasetError, ["folder", "root="]),
    "root of the embedded set": (lambda t: load_dataset("shapes", root="x"), DatasetError, ["leave root out"]),
    "data set option": (lambda t: load_dataset("shapes", sise=33), DatasetError, ["'sise'", "help"]),
    "pictures that are none": (
        lambda t: segment("no.jpg", "no.jpg", "no.png", model=panet()),
        DatasetError,
        ["no.jpg", "no image file"],
    ),
    "host that is down": (
        lambda t: fetch("http://127.0.0.1:1/a.tar", t / "a.tar", attempts=1, progress=False),
        DownloadError,
        ["127.0.0.1:1/a.tar", "by hand"],
    ),
    # sampling
    "fewer images than shots": (
        lambda t: EpisodeSampler(shapes("test", 5), RULES, shot=5),
        DatasetError,
        ["5-shot", "at least 6 images", "Use fewer"],
    ),
    "more ways than classes": (
        lambda t: EpisodeSampler(shapes("test"), RULES.replace(way=6)),
        DatasetError,
        ["6-way", "5 have them", "Use fewer ways"],
    ),
    "no shot": (lambda t: EpisodeSampler(shapes("test"), RULES, shot=0), DatasetError, ["shot=0", "from 1"]),
    "negative seed": (lambda t: EpisodeSampler(shapes("test"), RULES, seed=-1), DatasetError, ["seed=-1", "from 0"]),
    # submissions
    "no notebook": (
        lambda t: (t / "mine.ipynb").write_text("{") and read_notebook(t / "mine.ipynb"),
        SubmissionError,
        ["mine.ipynb", "not a notebook", "save it"],
    ),
    "no such submission": (lambda t: submit(t / "mine.ipynb"), SubmissionError, ["mine.ipynb", "cannot be read"]),
    "empty class": (lambda t: collect(t, t), SubmissionError, ["neither notebooks", ".result.json"]),
    # models
    "method": (lambda t: build_model("panett", backbone="tiny"), ModelError, ["'panett'", "did you mean 'panet'"]),
    "backbone": (lambda t: panet_on("resnet5"), ModelError, ["'resnet5'", "resnet50", "vgg16"]),
    "no backbone": (lambda t: panet_on(None), ModelError, ["backbone=None", "'tiny'"]),
    "method option": (lambda t: panet_on("tiny", widht=8), ModelError, ["'widht'", "'width'"]),
    "backbone option": (
        lambda t: panet_on("tiny", backbone_options={"strid": 8}),
        ModelError,
        ["'strid'", "'stride'"],
    ),
    "batch norm mode": (lambda t: panet_on("tiny", bn="freeze"), ModelError, ["'freeze'", "'frozen'"]),
    "stage": (lambda t: panet_on("tiny", stage="layer9"), ModelError, ["'layer9'", "'layer4'"]),
    "stage not built": (lambda t: panet_on("tiny", stage="layer4", last="layer2"), ModelError, ["layer4", "'layer2'"]),
    "width": (lambda t: panet_on("tiny", width=0), ModelError, ["width=0", "from 1"]),
    "shots of a model": (lambda t: panet_on("tiny", shots=0), ModelError, ["shots=0", "from 1"]),
    "stem of tiny": (lambda t: panet_on("tiny", stem="deep"), ModelError, ["ResNets only", "leave `stem` out"]),
    "deep stem from imagenet": (
        lambda t: panet_on("resnet18", stem="deep", weights="imagenet"),
        ModelError,
        ["deep stem", "stem='classic'", "PATH"],
    ),
    "tiny from imagenet": (lambda t: panet_on("tiny", weights="imagenet"), ModelError, ["tiny", "PATH"]),
    "options of a ready backbone": (
        lambda t: build_model("panet", backbone=build_backbone("tiny"), weights="m.pth"),
        ModelError,
        ["weights", "built already"],
    ),
    # weight files
    "backbone weights missing": (
        lambda t: panet_on("tiny", weights=str(t / "no.pth")),
        CheckpointError,
        ["no.pth", "does not exist", "give the path"],
    ),
    "checkpoint missing": (
        lambda t: load_model(t / "no.safetensors"),
        CheckpointError,
        ["does not exist", "give the path"],
    ),
    "checkpoint truncated": (
        lambda t: load_model(weights(t, cut=9000)),
        CheckpointError,
        ["m.safetensors", "truncated", "get it again"],
    ),
    "checkpoint empty": (
        lambda t: official(panet(), (t / "e.pth", (t / "e.pth").write_bytes(b""))[0]),
        CheckpointError,
        ["e.pth", "cannot be read"],
    ),
    "NaN weights": (lambda t: official(panet(), nan_state()), CheckpointError, ["NaN", "layer1.0.conv1", "Use an"]),
    "NaN weights in a file": (
        lambda t: official(panet(), weights(t, "n.pth", state=nan_state())),
        CheckpointError,
        ["n.pth", "NaN", "lower learning rate"],
    ),
    "authors' file as ours": (
        lambda t: load_model(weights(t, "a.pth", state=panet().state_dict())),
        CheckpointError,
        ["a.pth", "not a readable fsslib checkpoint"],
    ),
    "weights of another model": (
        lambda t: official(panet(), {"encoder.x": torch.ones(1)}),
        CheckpointError,
        ["missing", "unexpected: encoder.x", "Build the model with"],
    ),
    # protocol and evaluation
    "protocol field": (lambda t: Protocol.shapes5i(episods=5), ProtocolError, ["episods", "episodes"]),
    "protocol choice": (lambda t: Protocol(void="yes"), ProtocolError, ["void", "'yes'", "ignore, background"]),
    "protocol seeds": (lambda t: Protocol(seeds=(1, 1)), ProtocolError, ["seeds", "only once"]),
    "published method": (lambda t: Protocol.published("unet"), ProtocolError, ["'unet'", "panet, asgnet"]),
    "selection on the test fold": (lambda t: Protocol(selection="test_fold"), ProtocolError, ["val_classes"]),
    "evaluation shots": (
        lambda t: evaluate(panet(), shapes("test"), RULES, shots=(0,)),
        ProtocolError,
        ["shots=[0]", "(1, 5)"],
    ),
    "result file": (lambda t: Evaluation.load(t / "r.npz"), ProtocolError, ["r.npz", "run the evaluation again"]),
    # training
    "precision": (lambda t: Schedule(1, precision="16"), TrainingError, ["'16'", "32, bf16"]),
    "learning rate": (lambda t: Schedule(1, lr=-1.0), TrainingError, ["lr=-1.0", "above 0"]),
    "nothing to train": (
        lambda t: train_episodes(panet(freeze=True), EpisodeSampler(shapes(), RULES), Schedule(1), progress=False),
        TrainingError,
        ["no parameter to train", "unfreeze", "width"],
    ),
    "loss is NaN": (lambda t: nan_training(), TrainingError, ["nan", "step 0", "lower the learning rate"]),
    # experiments
    "parameter name": (lambda t: check_parameters({"epsodes": 5}), ParameterError, ["epsodes", "episodes"]),
    "parameter type": (lambda t: check_parameters({"fold": "1"}), ParameterError, ["fold", "whole number", "'1'"]),
    "parameter method": (lambda t: check_parameters({"method": "pa_net"}), ParameterError, ["pa_net", "panet"]),
    "impossible ways": (lambda t: check_parameters({"way": 6}), ParameterError, ["way", "6", "5"]),
    "several at once": (
        lambda t: check_parameters({"fold": 9, "shots": [], "colour": 1}),
        ParameterError,
        ["fold", "shots", "empty", "colour"],
    ),
    "parameters that exclude each other": (
        lambda t: check_parameters({"dataset": "pascal"}),
        ParameterError,
        ["root", "pascal"],
    ),
}


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
    assert kinds == {*FsslibError.__subclasses__(), DownloadError} and len(CASES) >= 30
