"""The README tells the truth: its Python runs, its links and commands exist."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_tools import run_here

from fsslib import EpisodeSampler, Protocol, load_model, models
from fsslib.errors import CheckpointError, ModelError, ParameterError
from fsslib.experiments import ExperimentParameters, check_parameters, recipe, run
from fsslib.experiments.__main__ import _parser, parse_value

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_python_example_runs(capsys):
    block = re.search(r"```python\n(.*?)```", TEXT, re.S)[1]
    exec(block.replace("episodes=200", "episodes=4"), {})
    assert "'miou'" in capsys.readouterr().out


@pytest.fixture
def own_method(tmp_path, monkeypatch) -> Iterator[Path]:
    """The README's file of a fifth method; forgotten again after the test."""
    monkeypatch.setattr(models, "_METHODS", dict(models._METHODS))
    path = tmp_path / "nearest.py"
    path.write_text(re.search(r"```python\n(# nearest.py.*?)```", TEXT, re.S)[1], encoding="utf-8")
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if name.startswith("fsslib_plugin_"):  # a training in other processes would take it along
            del sys.modules[name]


def test_a_method_of_ones_own_is_one_short_file_that_works_by_name(own_method):
    assert len(own_method.read_text(encoding="utf-8").splitlines()) <= 40
    parameters = {"plugin": str(own_method), "method": "nearest", "checkpoint": None, "options": {"scale": 10.0}}
    parameters |= {"pretrain_steps": 2, "episodic_steps": 2, "episodes": 6, "shots": [1, 2], "accelerator": "cpu"}
    p = check_parameters(parameters)
    train_set, test_set = recipe.datasets(p)
    net = recipe.model(p)
    histories = recipe.train(p, net, train_set)
    assert list(histories["episodic training"].rows[-1]) == ["main", "total"] and float(net.scale.detach()) != 10
    evaluation = recipe.score(p, net, test_set)
    assert {k: s["miou"] > 0 for k, s in evaluation.summary().items()} == {1: True, 2: True}
    two_ways = EpisodeSampler(test_set, Protocol(way=2), shot=3).batch(0, 2)
    assert net(two_ways).logits.shape == (2, 3, 97, 97)


def test_a_method_of_ones_own_can_be_explored(own_method):
    widgets = pytest.importorskip("fsslib.widgets")
    models.use(own_method)
    net = models.build_model("nearest", backbone="tiny")
    explorer = widgets.explore_episode(models=net)
    assert explorer.controls["method"].options == ("nearest",) and 0 <= explorer.scene.facts["iou"] <= 1
    assert list(widgets.compare_methods({"mine": net, "PANet": "panet"}).scene.facts["masks"]) == ["mine", "PANet"]


def test_the_explorers_of_the_readme_exist():
    pytest.importorskip("anywidget")
    block = next(code for code in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "explore_episode()" in code)
    from fsslib import widgets

    named = re.findall(r"^widgets\.(\w+)\(\)", block, re.M)
    assert set(named) == set(widgets.__all__) - {"SupportPainter", "Explorer"}
    exec(block, {})
    explorer = widgets.explore_episode()
    assert explorer.set(query=7, shots=5).scene.facts["episode"].shot == 5


def test_a_report_of_a_method_of_ones_own(own_method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch)
    parameters = {"plugin": own_method.name, "method": "nearest", "checkpoint": None, "shots": [1]}
    folder = run(parameters | {"pretrain_steps": 1, "episodic_steps": 1, "episodes": 4}, runs=tmp_path, progress=False)
    assert json.loads((folder / "result.json").read_text())["parameters"]["method"] == "nearest"
    assert models._METHODS.pop("nearest")
    with pytest.raises(CheckpointError, match="nearest"):
        load_model(folder / "model.safetensors")
    assert models.use(own_method) == ("nearest",)
    assert type(load_model(folder / "model.safetensors")).__name__ == "Nearest"


def test_a_changed_file_is_run_anew(own_method):
    text = own_method.read_text(encoding="utf-8")
    assert models.use(own_method) == ("nearest",)
    own_method.write_text(text.replace('"nearest"', '"closest"'), encoding="utf-8")
    assert models.use(own_method) == ("closest",)
    assert "nearest" not in models.available() and not (own_method.parent / "__pycache__").exists()
    own_method.write_text("a = 1", encoding="utf-8")
    with pytest.raises(ModelError, match="registers no method"):
        models.use(own_method)
    assert "closest" in models.available()


@pytest.mark.parametrize(("text", "said"), [
    ("import nothing_like_this", "ModuleNotFoundError"),
    ("raise SystemExit(3)", "SystemExit"),
    ("a = 1", "registers no method"),
    (
        "import fsslib\nfrom fsslib.models.panet import PANet\n@fsslib.register('panet')\nclass Mine(PANet): pass",
        "taken",
    ),
    (None, "no Python file"),
])  # fmt: skip
def test_a_file_that_is_no_method(tmp_path, text, said):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    before = models.available()
    assert "nearest" not in before
    with pytest.raises(ModelError, match=said):
        models.use(path)
    with pytest.raises(ParameterError, match=said):
        check_parameters({"plugin": str(path)})
    assert models.available() == before


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 5
    assert [
        link for link in links if not link.startswith(("http", "../../actions/")) and not (ROOT / link).exists()
    ] == []


def test_commands_are_understood():
    lines = re.sub(r"\\\n\s*", "", TEXT).splitlines()
    calls = [
        line.split("#")[0].split()[3:] for line in lines if line.strip().startswith("python -m fsslib.experiments")
    ]
    assert len(calls) >= 5
    for call in calls:
        given = _parser().parse_args(call)
        for pair in getattr(given, "pairs", []):
            name, _, value = pair.partition("=")
            assert name in ExperimentParameters.model_fields
            parse_value(value, name)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)`", TEXT)) <= targets
