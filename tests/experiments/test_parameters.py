"""The parameters of an experiment: every problem is said at once, in plain words."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fsslib import checkpoints, experiments, files
from fsslib.checkpoints import read_note, shipped
from fsslib.errors import FsslibError, ParameterError
from fsslib.experiments import ExperimentParameters, check_parameters, notebook, parameters_help, recipe
from fsslib.experiments.__main__ import parse_value
from fsslib.experiments.parameters import read_parameters
from fsslib.experiments.runs import _stamp, check

SCRATCH = {"checkpoint": None}  # a checkpoint leaves little to choose


def test_every_problem_is_listed_at_once():
    with pytest.raises(ParameterError) as caught:
        check_parameters(
            {"episods": 3, "fold": "1", "shots": [1, 0], "dataset": "pascal", "lr": True, "seeds": []} | SCRATCH
        )
    text = str(caught.value)
    for line in (
        "episods: unknown parameter, did you mean episodes?",
        "fold: expected a whole number, found '1'",
        "shots[1]: must be greater than or equal to 1, found 0",
        "root: the data set pascal needs the folder",
        "lr: expected a number, found True",
        "seeds: the list is empty",
    ):
        assert line in text
    assert len(text.splitlines()) == 6


@pytest.mark.parametrize("given, words", [
    ({"method": "pannet"}, "did you mean panet"), ({"backbone": "resnet34"}, "backbone: must be 'tiny'"),
    ({"fold": 4}, "fold: must be less than or equal to 3"), ({"way": 6}, "a fold has 5"),
    ({"episodes": 1}, "episodes: must be greater"), ({"lr": float("nan")}, "lr: expected a finite number"),
    ({"shots": [1, 1]}, "names a value twice"), ({"shots": 1}, "shots: expected a list, found 1"),
    ({"dataset": "pascal", "root": "no/such/folder", **SCRATCH}, "there is no folder"),
    ({"root": "."}, "has no folder; leave root out"),
    ({"dataset": "coco", **SCRATCH}, "root: the data set coco needs the folder"),
    ({"dataset": "coco", "root": ".", "way": 21, **SCRATCH}, "a fold has 20"),
    ({"dataset": "fss1000", "root": ".", "fold": 1, **SCRATCH}, "fss1000 has one split"),
    ({"dataset": "folder", "root": ".", "protocol": "published", **SCRATCH}, "set dataset to pascal"),
    ({"data_options": {"novel": "drop"}}, "use the parameter novel_pixels"),
    ({"data_options": {"fold_shceme": "x"}}, "shapes has no option 'fold_shceme', did you mean fold_scheme?"),
    (
        {"dataset": "pascal", "root": ".", "data_options": {"images": "list.txt"}, **SCRATCH},
        "would serve training and test",
    ),
    ({"weights": "imagenet", **SCRATCH}, "tiny has no imagenet ones"),
    ({"backbone": "resnet50", "weights": "no.pth", "checkpoint": None}, "there is no file 'no.pth'"),
    ({"checkpoint": "no.safetensors"}, "write shipped"),
    ({"backbone": "vgg16"}, "shipped for tiny, not vgg16; set null"),
    ({"freeze_backbone": True, "width": 8, "pretrain_steps": 9, **SCRATCH}, "set pretrain_steps to 0"),
    ({"freeze_backbone": True}, "nothing would train, panet is its backbone; set width, or episodic_steps to 0"),
    ({"method": "matching", "pretrain_steps": 9, **SCRATCH}, "matching is its backbone; set episodic_steps to 0"),
    ({"method": "matching"}, "no weights are shipped for matching"),
    ({"method": "sdaanet", **SCRATCH}, "sdaanet keeps its backbone as it is, and this one would be random"),
    ({"training": {"momentum": 0.8}}, "momentum does nothing without optimiser=sgd"),
    ({"training": {"decay": "linear", "power": 0.8}}, "power does nothing without decay=poly"),
    ({"training": {"epochs": 0}, "episodic_steps": 0}, "epochs=0"),
    ({"training": {"epochs": 2}}, "set episodic_steps to 0, or leave epochs out"),
    ({"options": {"freeze": True}, **SCRATCH}, "use the parameter freeze_backbone"),
    ({"options": {"backbone_options": object()}, **SCRATCH}, "can be passed on"),
    ({"training": {"lr": 1}}, "'lr' has a parameter of its own, lr"),
    ({"training": {"decai": "poly"}}, "'decai' is unknown, did you mean decay?"),
    ({"training": {"decay": "cosine"}}, "training: decay 'cosine': expected one of linear, poly"),
    ({"training": {"clip": "none"}}, "training: clip='none': expected a finite number"),
    ({"training": {"augmentation": "wild"}}, "training: augmentation: found 'wild', expected one of"),
    ({"training": {"validation_episodes": 9}}, "nothing is selected; leave validation_episodes out"),
    ({"selection": "val_classes", **SCRATCH}, "validate_every: selection=val_classes needs a number of steps"),
    ({"validate_every": 5}, "nothing is selected"),
    ({"selection": "val_classes", "validate_every": 5}, "trained weights know the validation classes"),
    ({"selection": "val_classes", "validate_every": 5, "way": 4, **SCRATCH}, "holds back 3 classes, 4 are asked"),
    ({"selection": "test_fold", "validate_every": 5, **SCRATCH}, "only protocol=published"),
    ({"selection": "last", "train_size": 32}, "train_size: must be greater than or equal to 33"),
    ({"method": "sdaanet", "options": {"teacher": "x"}, **SCRATCH}, "sdaanet cannot be built like this"),
    ({"freeze_backbone": True, "width": 8, "training": {"augmentation": "flip"}, **SCRATCH}, "leave augmentation"),
    ({"training": {"compile": "yes"}}, "training: compile='yes': expected True or False"),
    ({"training": {"workers": 2}}, "'workers' is unknown"),
    ({"workers": -1}, "workers: must be greater than or equal to 0"),
    ({"precision": 32}, "precision: must be '32' or 'bf16', found 32"),
    ({"options": {"aling": False}, **SCRATCH}, "panet has no option 'aling', did you mean align?"),
    ({"width": 64}, "width: a checkpoint says how its model is built; leave width out"),
    ({"options": {"align": False}}, "options: a checkpoint says how its model is built"),
    ({"dataset": "pascal", "root": "."}, "no weights are shipped for panet on pascal, fold 0; there are: asgnet-"),
])  # fmt: skip
def test_impossible_parameters_are_refused_in_plain_words(given, words):
    with pytest.raises(ParameterError) as caught:
        check_parameters(given)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_valid_parameters_are_completed():
    checked = check_parameters({"freeze_backbone": True, "pretrain_steps": 0, "width": 16, "lr": 1} | SCRATCH)
    assert checked.width == checked["width"] == 16 and checked.shots == [1, 5]
    assert check_parameters({"freeze_backbone": True, "pretrain_steps": 0, "episodic_steps": 0}).width is None
    # A method with layers of its own trains on a frozen backbone.
    for method, steps in (("sdaanet", 40), ("matching", 0)):
        given = {"method": method, "freeze_backbone": True, "episodic_steps": steps}
        assert check_parameters(given | SCRATCH).width is None
    assert all(name in parameters_help() for name in checked.model_dump())
    assert all(field.description for field in ExperimentParameters.model_fields.values())


def test_a_checkpoint_is_read_once(monkeypatch):
    """Checks, protocols and the model ask for it again and again."""
    read = []
    monkeypatch.setattr(checkpoints, "read_note", lambda path: read.append(path) or read_note(path))
    p = check_parameters({})
    assert recipe.protocol(p).bn == recipe.protocol(p).bn == "frozen" and p.built_with["name"] == "panet"
    assert read == [shipped("panet")]


def test_several_details_are_wrong_at_once():
    training = {"momentum": 2, "optimiser": "sgd", "validation_episodes": 0, "batch": 3, "clip": None}
    given = {"training": training, "selection": "val_classes", "validate_every": 10, "episodic_steps": 0} | SCRATCH
    with pytest.raises(ParameterError) as caught:
        check_parameters(given)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and all(any(word in line for line in lines) for word in ("momentum", "batch", "nothing is"))


@pytest.mark.parametrize("name, text, words", [
    ("a.yaml", "fold: 1\nfold: 2\n", "fold is given twice"),
    ("a.json", '{"fold": 1, "fold": 2}', "fold is given twice"),
    ("a.yaml", "training: {clip: 1, clip: 2}\n", "clip is given twice"),
    ("a.yaml", "fold: [1\n", "cannot be read as YAML"),
    ("a.json", "fold: 1", "cannot be read as JSON"),
    ("a.yaml", "- fold\n", "expected names with values, found list"),
    ("a.yaml", "!!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
    ("none.yaml", None, "cannot be read as YAML"),
])  # fmt: skip
def test_parameter_files_that_cannot_be_read(name, text, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ParameterError, match=words):
        read_parameters(tmp_path / name)


def test_the_notebook_experiment_has_these_parameters():
    source = files.notebooks_folder() / "src" / "experiment.py"
    assert notebook.defaults(notebook.load(source)) == ExperimentParameters().model_dump() | {notebook.OUT: None}


def test_values_of_the_command_line():
    texts = {"5": 5, "0.1": 0.1, "[1, 5]": [1, 5], "true": True, "None": None, "resnet50": "resnet50", '"7"': "7"}
    assert {text: parse_value(text) for text in texts} == texts
    assert parse_value("32", "precision") == "32" and parse_value("null", "checkpoint") is None


def test_a_later_parameter_leaves_older_runs_their_name():
    """The name of a run that was made before `data_options` existed."""
    stored = json.loads((files.data_folder() / "results" / "comparison" / "panet-0.json").read_text())["parameters"]
    assert "data_options" not in stored
    today = check(stored)
    assert experiments.run_name(today) == "panet-tiny-shapes-f0-s0-773ebbe5"
    other = today | {"data_options": {"fold_scheme": "held_out_shape"}}
    assert experiments.run_name(other) != experiments.run_name(today)


def test_loader_processes_are_no_other_run():
    source = files.notebooks_folder() / "src" / "experiment.py"
    one, other = (check({"workers": workers}, source) for workers in (0, 2))
    assert one != other and experiments.run_name(one) == experiments.run_name(other)
    assert _stamp(source, one) == _stamp(source, other), "also when it was killed and goes on"


def test_run_names_tell_runs_apart():
    a, b = (experiments.run_name(check({"fold": 1, "lr": lr})) for lr in (0.1, 0.2))
    assert a.startswith("panet-tiny-shapes-f1-s0-") and a != b and a[:-8] == b[:-8]


def test_parameter_cells_that_compute_are_refused():
    def book(source):
        return new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})])

    assert notebook.defaults(book("a: int = 3\nb = [1]  # c = d\n")) == {"a": 3, "b": [1]}
    with pytest.raises(FsslibError, match="plain value"):
        notebook.defaults(book("a = 1 + len('x')"))
