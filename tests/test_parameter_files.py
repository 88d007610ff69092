"""The recipes that come along: read alike by us and by papermill, valid, and in miniature they run end to end."""

import json

import pytest
import torch
from papermill.iorw import read_yaml_file
from voc_tree import make_voc

from fsslib import EpisodeSampler, load_model, paths, recipe
from fsslib.errors import ParameterError
from fsslib.experiments.commands import main
from fsslib.experiments.files import read_parameters
from fsslib.experiments.parameters import check_parameters

FILES = sorted((paths.data() / "recipes").glob("*.yaml"))
# Everything that costs time, and nothing else.
SMALL = {"backbone": "tiny", "weights": None, "width": 4, "train_size": 33, "size": 41, "batch": 2, "shots": [1]}
SMALL |= {"pretrain_steps": 1, "episodic_steps": 6, "validate_every": 2, "episodes": 5}
each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Photographs large enough for the published area filter."""
    return make_voc(tmp_path_factory.mktemp("photographs"), scale=8)


def small(path, voc):
    """The recipe of a file with small numbers; fewer validation episodes belong to the dictionary `training`."""
    given = read_parameters(path)
    options = {**given.get("options", {}), "scales": [4, 2]}
    training = {**given["training"], "validation_episodes": 5}
    training.pop("epochs", None)
    return {**given, **SMALL, "options": options, "training": training, "root": str(voc)}


def test_there_are_recipes():
    assert {"sdaanet-pascal-published", "sdaanet-pascal-honest"} <= {path.stem for path in FILES}


@each
def test_a_recipe_is_valid_once_it_has_its_folder(path, tmp_path):
    given = read_parameters(path)
    assert given == read_yaml_file(str(path))
    with pytest.raises(ParameterError, match=r"^root: the data set pascal needs the folder"):
        check_parameters(given)
    p = check_parameters({**given, "root": str(tmp_path)})
    protocol = recipe.protocol(p)
    assert protocol.selection == p["selection"] != "last" and (protocol.train_size, protocol.input_size) == (321, 473)
    published = p["protocol"] == "published"
    assert protocol.bn == ("batch" if published else "frozen")
    assert protocol.label_size == ("input" if published else "original")
    assert protocol.seeds == ((321,) if published else (0, 1, 2))
    assert "not as there" not in protocol.card(), "a published recipe has all the habits of its paper"


@pytest.mark.filterwarnings("ignore:PASCAL-5i fold 0")
@each
def test_a_recipe_in_miniature(path, voc):
    p = check_parameters(small(path, voc))
    train_set, test_set = recipe.datasets(p)
    val = recipe.selection(p)
    net = recipe.model(p)
    history = recipe.train(p, net, train_set)["episodic training"]
    assert [i for i, row in enumerate(history.rows, 1) if "val_miou" in row] == [2, 4, 6]
    assert val.score(net) == pytest.approx(history.selected["val_miou"], abs=1e-3)
    assert recipe.score(p, net, test_set).scores[1].miou >= 0
    if p["selection"] == "test_fold":
        # One list of the same seed: the published score is that of the very episodes it was chosen on.
        assert 100 * recipe.score(p, net, test_set).scores[1].miou == pytest.approx(history.selected["val_miou"])


@pytest.mark.filterwarnings("ignore:PASCAL-5i fold 0")
def test_epochs_are_passes_over_the_images_and_each_is_validated(voc):
    path = next(file for file in FILES if file.stem == "sdaanet-pascal-published")
    assert read_parameters(path)["training"]["epochs"] == 200
    given = small(path, voc)
    given |= {"episodic_steps": 0, "validate_every": 0, "training": {**given["training"], "epochs": 2}}
    p = check_parameters(given)
    train_set, _ = recipe.datasets(p)
    images = EpisodeSampler(train_set, recipe.protocol(p)).images
    rows = recipe.train(p, recipe.model(p), train_set)["episodic training"].rows
    epoch = len(images) // 2
    assert len(rows) == 2 * epoch
    assert [i for i, row in enumerate(rows, 1) if "val_miou" in row] == [epoch, 2 * epoch]
    with pytest.raises(ParameterError, match="set episodic_steps to 0, or leave epochs out"):
        check_parameters({**given, "episodic_steps": 3})


@pytest.mark.filterwarnings("ignore:PASCAL-5i fold 0")
def test_the_command_line_runs_a_recipe(voc, tmp_path, capsys):
    path = next(file for file in FILES if file.stem == "sdaanet-pascal-published")
    source = paths.notebooks() / "src" / "experiment.py"
    command = ["run", "-f", str(path), "--notebook", str(source), "--runs", str(tmp_path), "--name", "mini"]
    assert main([*command, "-p", f"root={voc}", "-p", "selection=best"]) == 2
    assert "selection: must be 'last'" in capsys.readouterr().err and not list(tmp_path.iterdir())
    given = {name: value for name, value in small(path, voc).items() if read_parameters(path).get(name) != value}
    pairs = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]
    assert main([*command, *(part for pair in pairs for part in ("-p", pair))]) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "mini" / "result.json").read_text())
    assert result["protocol"]["selection"] == result["selection"]["rule"] == "test_fold"
    assert result["protocol"]["train_size"] == 33 and result["selection"]["step"] in (2, 4, 6)
    p = check_parameters(small(path, voc))
    chosen = load_model(tmp_path / "mini" / "model.safetensors")
    assert recipe.selection(p).score(chosen) == pytest.approx(result["selection"]["val_miou"], abs=1e-3)
    assert torch.isfinite(next(chosen.parameters())).all()
    assert "selected after step" in (tmp_path / "mini" / "report.html").read_text()
