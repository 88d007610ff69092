"""The recipes that come along: read alike by us and by papermill, valid, and in miniature they run end to end."""

import json

import pytest
import torch
from papermill.iorw import read_yaml_file
from report_tools import run_here
from voc_tree import make_voc

from fsslib import EpisodeSampler, build_model, files, load_model, load_official, save_model
from fsslib.checkpoints import without_memory
from fsslib.errors import ModelError, ParameterError
from fsslib.experiments import check_parameters, recipe
from fsslib.experiments.__main__ import main
from fsslib.experiments.parameters import read_parameters
from fsslib.nn.backbones import build_backbone
from fsslib.training import Schedule, _optimiser

FILES = sorted((files.data_folder() / "recipes").glob("*-pascal-*.yaml"))
QUICK = sorted((files.data_folder() / "recipes").glob("photographs-*.yaml"))
# Everything that costs time, and nothing else.
SMALL = {"backbone": "tiny", "weights": None, "width": 4, "train_size": 33, "size": 41, "batch": 2, "shots": [1]}
SMALL |= {"pretrain_steps": 1, "episodic_steps": 6, "validate_every": 2, "episodes": 5}
NARROW = {"sdaanet": 4, "asgnet": 4, "hdmnet": 32}
# What the paper's protocol asks for: training size, batch norm, label size, first list of episodes, novel pixels.
PUBLISHED = {
    "sdaanet": (321, "batch", "input", 321, "background"),
    "asgnet": (473, "batch", "original", 321, "background"),
    "hdmnet": (473, "frozen", "original", 510, "drop"),
}
assert {path.stem for path in FILES} == {f"{m}-pascal-{p}" for m in PUBLISHED for p in ("published", "honest")}
each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
pytestmark = pytest.mark.filterwarnings("ignore:PASCAL-5i fold 0")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Photographs large enough for the published area filter."""
    return make_voc(tmp_path_factory.mktemp("photographs"), scale=8)


def small(path, voc):
    """The recipe of a file with small numbers; fewer validation episodes belong to the dictionary `training`."""
    given = read_parameters(path)
    options = {name: value for name, value in given.get("options", {}).items() if name != "stem"}
    if given["method"] != "hdmnet":
        options["scales"] = [4, 2]
    training = {**given["training"], "validation_episodes": 5}
    training.pop("epochs", None)
    own = {"options": options, "training": training, "root": str(voc), "width": NARROW[given["method"]]}
    return {**given, **SMALL, **own}


@each
def test_a_recipe_is_valid_once_it_has_its_folder(path, tmp_path):
    given = read_parameters(path)
    assert given == read_yaml_file(str(path))
    with pytest.raises(ParameterError, match=r"^root: the data set pascal needs the folder"):
        check_parameters(given)
    p = check_parameters({**given, "root": str(tmp_path)})
    protocol = recipe.protocol(p)
    train_size, *habits = PUBLISHED[p.method]
    assert protocol.selection == p.selection != "last"
    assert (protocol.train_size, protocol.input_size) == (train_size, 473)
    published = p.protocol == "published"
    seen = [protocol.bn, protocol.label_size, protocol.seeds[0], protocol.novel_pixels]
    assert seen == (habits if published else ["frozen", "original", 0, "background"])
    assert protocol.area_filter == (2048 if published else 0)
    assert protocol.queries == "every_image" if published else protocol.seeds == (0, 1, 2)
    assert "not as there" not in protocol.card(), "a published recipe has all the habits of its paper"


@each
def test_a_recipe_trains_as_its_paper_says(path):
    """Rates of the first, the middle and the last step, of every group of the optimiser, and how they are used."""
    p = check_parameters({**read_parameters(path), "root": str(path.parent)})
    details = {name: value for name, value in p.training.items() if name not in recipe.TRAINING}
    steps = 1000
    schedule = Schedule(steps, batch=p.batch, lr=p.lr, **details)
    # What the authors' configurations say, and what their code makes of it: ten times that for what is no transformer.
    base = {"sdaanet": 0.0025, "asgnet": 0.0025, "hdmnet": 0.0001}[p.method]
    net = without_memory(p.configuration | {"shots": 5})
    groups = {group["factor"]: group for group in _optimiser(net, schedule).param_groups}
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    held = {factor: {names[id(w)].split(".")[0] for w in group["params"]} for factor, group in groups.items()}
    for it in (1, 500, 1000):
        assert schedule.lr_at(it - 1) == pytest.approx(10 * base * (1 - it / steps) ** 0.9)
    assert (schedule.batch, schedule.clip, schedule.warmup) == (4, None, 0)
    if p.method == "hdmnet":
        assert held[0.1] == {"transformer"} and held[0.0] == {"ensemble"} and len(groups) == 3
        fixed = {names[id(w)] for w in groups[0.0]["params"]}
        assert fixed == {name for name in names.values() if name.startswith("ensemble.reweight")}
        others = {"down_query", "down_supp", "query_merge", "supp_merge", "ensemble"}
        assert held[1.0] == others, "the base learner is in no group"
        assert all(g["betas"] == (0.9, 0.999) and g["weight_decay"] == 0.01 for g in groups.values())
    else:
        assert set(groups) == {1.0} and "backbone" not in held[1.0]
        assert all(g["momentum"] == 0.9 and g["weight_decay"] == 0.0001 for g in groups.values())
    if p.protocol == "published":
        assert p.training["epochs"] == 200 and p.training["augmentation"] in ("sdaanet", "pfenet", "hdmnet")


def test_a_deep_stem_needs_a_file_and_takes_it(tmp_path):
    """What the recipes say about the authors' initial weights: names as in their files, options without the stem."""
    for method in ("asgnet", "hdmnet"):
        with pytest.raises(ModelError, match="torchvision has no resnet50 with a deep stem"):
            build_model(method, backbone="resnet50", weights="imagenet", last="layer3")
    given = read_parameters(files.data_folder() / "recipes" / "asgnet-pascal-published.yaml")
    deep = build_backbone("resnet50", stem="deep", last="layer3").state_dict()
    back = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}
    file, renamed = tmp_path / "resnet50_v2.pth", {}
    for name, value in deep.items():
        stage, number, *rest = name.split(".")
        renamed[".".join([back[int(number)], *rest]) if stage == "layer0" else name] = value
    torch.save({**renamed, "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, file)
    options = {"bn": "batch", "last": "layer3"}
    net = recipe.model(check_parameters({**given, "root": str(tmp_path), "weights": str(file), "options": options}))
    assert net.backbone.stem == "deep" and net.backbone.channels["layer0"] == 128
    assert all(torch.equal(value, net.backbone.state_dict()[name]) for name, value in deep.items())


def test_the_authors_base_learner_can_stand_in_for_the_pre_training(voc, tmp_path):
    """As hdmnet-pascal-published.yaml says: load it, save the model, and give that as the checkpoint."""
    start, theirs = (build_model("hdmnet", backbone="tiny", width=32) for _ in range(2))
    names = {name: theirs.base_learner.official_name(name) for name in theirs.base_learner.state_dict()}
    state = {f"module.{names[name]}": value for name, value in theirs.base_learner.state_dict().items()}
    load_official(start.base_learner, {"state_dict": state})
    save_model(start, tmp_path / "start.safetensors")
    given = small(files.data_folder() / "recipes" / "hdmnet-pascal-published.yaml", voc)
    given |= {"checkpoint": str(tmp_path / "start.safetensors"), "weights": None, "options": {}, "pretrain_steps": 0}
    given |= {"width": None, "episodic_steps": 2, "validate_every": 1}
    p = check_parameters(given)
    net = recipe.model(p)
    done = recipe.train(p, net, recipe.datasets(p)[0])
    assert list(done) == ["episodic training"]
    kept = net.base_learner.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in theirs.base_learner.state_dict().items())


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
    if p.selection == "test_fold" and len(recipe.protocol(p).seeds) == 1:
        # One list of the same seed: the published score is that of the very episodes it was chosen on.
        assert 100 * recipe.score(p, net, test_set).scores[1].miou == pytest.approx(history.selected["val_miou"])


@pytest.mark.parametrize("path", QUICK, ids=lambda p: p.stem)
def test_a_quick_recipe_begins_with_what_needs_no_training(path, voc):
    """Those for photographs: frozen features, held-back classes, and an untrained answer to begin with."""
    given = read_parameters(path)
    assert given["freeze_backbone"] and given["selection"] == "val_classes" and given["weights"] == "packaged"
    quick = SMALL | {"root": str(voc), "fold": 0, "size": 33, "train_size": None, "width": given["width"]}
    quick |= {"training": {**given["training"], "validation_episodes": 5}}
    p = check_parameters(given | quick | {"pretrain_steps": min(1, given.get("pretrain_steps", 0))})
    net, (train_set, test_set) = recipe.model(p), recipe.datasets(p)
    begins = "matching" if "start" in p.options else "panet"
    plain = build_model(begins, backbone=net.backbone).eval()
    plain, begun = (recipe.score(p, one, test_set).scores[1] for one in (plain, net))
    assert begun.miou == pytest.approx(plain.miou, abs=0.05)
    assert recipe.train(p, net, train_set)["episodic training"].selected["step"] in (0, 2, 4, 6)


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
    assert len(rows) == 2 * epoch and [i for i, row in enumerate(rows, 1) if "val_miou" in row] == [epoch, 2 * epoch]
    with pytest.raises(ParameterError, match="set episodic_steps to 0, or leave epochs out"):
        check_parameters({**given, "episodic_steps": 3})


def test_the_command_line_runs_a_recipe(voc, tmp_path, capsys, monkeypatch):
    run_here(monkeypatch)
    path = next(file for file in FILES if file.stem == "sdaanet-pascal-published")
    source = files.notebooks_folder() / "src" / "experiment.py"
    command = ["run", "-f", str(path), "--notebook", str(source), "--runs", str(tmp_path), "--name", "mini"]
    assert main([*command, "-p", f"root={voc}", "-p", "selection=best"]) == 2
    assert "selection: must be 'last'" in capsys.readouterr().err and not list(tmp_path.iterdir())
    given = {name: value for name, value in small(path, voc).items() if read_parameters(path).get(name) != value}
    pairs = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]
    assert main([*command, *(part for pair in pairs for part in ("-p", pair))]) == 0
    assert "selected after step" in capsys.readouterr().out
    result = json.loads((tmp_path / "mini" / "result.json").read_text())
    assert result["protocol"]["selection"] == result["selection"]["rule"] == "test_fold"
    assert result["protocol"]["train_size"] == 33 and result["selection"]["step"] in (2, 4, 6)
    chosen = load_model(tmp_path / "mini" / "model.safetensors")
    score = recipe.selection(check_parameters(small(path, voc))).score(chosen)
    assert score == pytest.approx(result["selection"]["val_miou"], abs=1e-3)
    assert torch.isfinite(next(chosen.parameters())).all()
