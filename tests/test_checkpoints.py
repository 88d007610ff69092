"""Weight files: a round trip loses nothing, and whatever does not fit is refused before a weight is touched."""

import json
import pickle

import numpy as np
import pytest
import torch
from core_tools import panet, random_episode
from safetensors import safe_open
from safetensors.torch import save_file

from fsslib import build_model, load_model, load_official, save_model
from fsslib.checkpoints import read_note, shipped
from fsslib.errors import CheckpointError, OutputError
from fsslib.models.panet import PANet
from fsslib.nn.backbones.weights import clean_state


def official(model) -> dict:
    """The model's weights under the authors' names."""
    return {model.official_name(name): value.clone() for name, value in model.state_dict().items()}


def same(a, b) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("options", [
    {}, {"width": 12, "freeze": True}, {"bn": "batch", "align_weight": 0.5}, {"last": "layer3", "stage": "layer2"},
])  # fmt: skip
def test_round_trip(tmp_path, options):
    model = panet(seed=3, backbone_options={"stride": 8, "width": 8}, **options)
    model.backbone.layer0[1].running_mean += 1
    path = save_model(model, tmp_path / "new" / "m.safetensors", note={"command": "make weights", "mIoU": 43.2})
    torch.manual_seed(9)
    back = load_model(path)
    assert same(model, back) and back.config == model.config and not back.training
    assert (back.freeze, back.backbone.bn, back.align_weight) == (model.freeze, model.backbone.bn, model.align_weight)
    episode = random_episode()
    assert torch.equal(model(episode).logits, back(episode).logits)
    note = read_note(path)
    assert note["command"] == "make weights" and note["mIoU"] == 43.2 and note["config"]["name"] == "panet"
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"]
    with safe_open(str(path), "pt") as file:  # without us
        assert set(file.keys()) == set(model.state_dict())
        assert json.loads(file.metadata()["config"])["backbone"] == "tiny"


def test_half_precision(tmp_path):
    model = panet(width=8)
    full = save_model(model, tmp_path / "full.safetensors")
    half = save_model(model, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    back = load_model(half)
    assert all(p.dtype == torch.float32 for p in back.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.project.weight[0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"project\.weight.*half=False"):
        save_model(model, half, half=True)
    assert same(load_model(half), back), "the old file is still there"


def test_saving_is_atomic(tmp_path, monkeypatch):
    model, path = panet(), tmp_path / "m.safetensors"
    save_model(model, path)
    before = path.read_bytes()

    def full_disk(state, part, facts):
        part.write_bytes(b"half a fi")
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(panet(seed=1), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_models_that_cannot_be_saved(tmp_path):
    path = tmp_path / "m.safetensors"
    model = panet()
    with pytest.raises(CheckpointError, match="build_model"):
        save_model(PANet(model.backbone), path)
    with pytest.raises(CheckpointError, match="ready backbone"):
        save_model(build_model("panet", backbone=model.backbone), path)
    with pytest.raises(CheckpointError, match=r"note.*JSON"):
        save_model(model, path, note={"when": object()})
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        save_model(model, tmp_path / "m.pth")
    with torch.no_grad():
        model.backbone.layer0[0].weight[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"backbone\.layer0\.0\.weight.*diverged"):
        save_model(model, path)
    assert not list(tmp_path.iterdir())


class Bomb:
    """A pickle that would run code when it is opened."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code in a weight file was run')",)


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


BROKEN = {
    "code.pth": lambda path: torch.save({"weight": Bomb()}, path),
    "raw.pth": lambda path: path.write_bytes(pickle.dumps({"weight": Bomb()}, protocol=2)),
    "text.safetensors": lambda path: path.write_text("404: not found"),
    "short.safetensors": lambda path: cut(save_model(panet(), path), 5000),
    "short.pth": lambda path: (torch.save(panet().state_dict(), path), cut(path, 5000)),
    "empty.pth": lambda path: path.touch(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_files(tmp_path, name):
    BROKEN[name](tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read"):
        load_model(tmp_path / name)


def test_files_that_are_not_ours(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"panet on shapes, fold 9; there are:"):
        shipped("panet", fold=9)
    for facts in (None, {"format": "fsslib"}):
        save_file({"weight": torch.ones(2)}, path, facts)
        with pytest.raises(CheckpointError, match=r"not written by fsslib.*load_official"):
            load_model(path)
    torch.save(panet().state_dict(), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m\.pth.*not a readable fsslib"):
        load_model(tmp_path / "m.pth")
    # Ours, but its tensors are another model's.
    save_file({"weight": torch.ones(2)}, path, {"format": "fsslib", "note": "{}", "config": json.dumps(panet().config)})
    with pytest.raises(CheckpointError, match="unexpected: weight"):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    state = official(panet())
    name = next(iter(state))
    state[name].view(-1)[3] = value
    torch.save(state, tmp_path / "m.pth")
    for source in (state, tmp_path / "m.pth"):
        with pytest.raises(CheckpointError, match=rf"1 tensors hold NaN or infinity \({name}"):
            load_official(panet(seed=2), source)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["dict", "pth", "safetensors"])
def test_official_forms(tmp_path, prefix, wrapped, kind):
    trained, model = panet(seed=1), panet(seed=2)
    for value in model.state_dict().values():
        value.zero_()
    state = {prefix + name: value for name, value in official(trained).items()}
    source, path = {"state_dict": state, "epoch": 30} if wrapped else state, tmp_path / f"m.{kind}"
    if kind != "dict":
        torch.save(source, path) if kind == "pth" else save_file(state, path)
        source = path if kind == "pth" else str(path)
    assert load_official(model, source) is model and same(trained, model)


def test_official_misfits_list_names_and_change_nothing():
    model = panet(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = official(panet(seed=1))
    names = list(state)
    del state[names[3]]
    state["head.weight"] = torch.ones(3)
    state[names[0]] = torch.ones(4, 3, 3, 3)
    with pytest.raises(CheckpointError) as caught:
        load_official(model, state)
    text = str(caught.value)
    ours = names[3].removeprefix("encoder.")
    assert f"1 missing: {ours}" in text and "1 unexpected: head.weight" in text and "the given state" in text
    shape = tuple(next(iter(before.values())).shape)
    assert "1 of another shape" in text and f"(4, 3, 3, 3), the model has {shape}" in text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_absent_batch_counter_is_zero():
    trained, model = panet(seed=1, bn="batch"), panet(seed=2)
    trained.train()(random_episode())
    model.backbone.layer0[1].num_batches_tracked += 5
    state = {k: v for k, v in official(trained).items() if not k.endswith("num_batches_tracked")}
    load_official(model, state)
    assert model.backbone.layer0[1].num_batches_tracked == 0
    assert torch.equal(model.backbone.layer0[1].running_var, trained.backbone.layer0[1].running_var)


def test_entries_that_a_method_never_uses_are_dropped():
    class Picky(PANet):
        official_unused = ("classifier.", "mean")

    trained, model = panet(seed=1), Picky(panet(seed=2).backbone)
    state = {**official(trained), "classifier.0.weight": torch.ones(2), "mean": torch.ones(3)}
    load_official(model, {f"module.{name}": value for name, value in state.items()})
    assert same(trained, model)
    with pytest.raises(CheckpointError, match="unexpected: classifier"):
        load_official(panet(), state)


@pytest.mark.parametrize("source", [[1, 2], {}, {"state_dict": {}}, {"epoch": 3, "lr": 0.1}])
def test_states_that_are_none(source):
    with pytest.raises(CheckpointError, match=r"expected (a dictionary of )?tensors"):
        clean_state(source)


class OfFabric(torch.nn.Module):
    """Fabric's own wrapper has these names: `_forward_module` what it calls, `module` what the user gave."""

    def __init__(self, model):
        super().__init__()
        self._forward_module = self._original_module = model

    @property
    def module(self):
        return self._original_module


def compiled_in_parts(model):
    model.backbone.layer1 = torch.compile(model.backbone.layer1)
    return model


def compiled_in_place(model):
    model.compile()
    return model


WRAPPERS = {
    "compiled": torch.compile, "parallel": torch.nn.DataParallel, "fabric": OfFabric, "in parts": compiled_in_parts,
    "in place": compiled_in_place, "twice": lambda model: torch.nn.DataParallel(torch.compile(model)),
    "a part parallel": lambda model: setattr(model, "project", torch.nn.DataParallel(model.project)) or model,
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_models_are_saved_as_what_they_wrap(wrapper, tmp_path):
    model, plain = panet(width=8), panet(width=8)
    wrapped = WRAPPERS[wrapper](model)
    back = load_model(save_model(wrapped, tmp_path / "m.safetensors"))
    assert same(back, plain)
    if wrapper in ("compiled", "parallel", "fabric", "twice"):
        assert load_official(wrapped, official(plain)) is wrapped and same(model, plain)


def test_what_a_rebuilt_model_would_not_have_is_refused(tmp_path):
    def pruned(model):
        from torch.nn.utils import prune

        prune.l1_unstructured(model.project, "weight", 0.5)

    def another_layer(model):
        model.extra = torch.nn.Linear(1, 1)

    def renamed(model):
        model.config["width"] = 16

    for change in (pruned, another_layer, renamed, lambda model: model.to("meta")):
        change(model := panet(width=8))
        with pytest.raises(CheckpointError, match=r"build it with the options|no weights to save"):
            save_model(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_shared_weights_and_what_a_note_may_hold(tmp_path):
    model = panet(width=8)
    model.backbone.layer0[1].bias = model.backbone.layer0[1].weight
    note = {"file": tmp_path / "a", "mIoU": np.float32(0.5), "shots": (1, np.int64(5)), "at": {"fold": np.arange(2)}}
    path = save_model(model, tmp_path / "m.safetensors", note=note)
    assert same(load_model(path), model)
    facts = read_note(path)
    assert facts.pop("config") == model.config
    assert facts == {"file": str(tmp_path / "a"), "mIoU": 0.5, "shots": [1, 5], "at": {"fold": [0, 1]}}
    for wrong in ({"mIoU": float("nan")}, {"a": {1}}, {"config": {}}, [1], "text", {1: 0, "1": 0}):
        with pytest.raises(CheckpointError, match="note"):
            save_model(model, tmp_path / "w.safetensors", note=wrong)
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_disk_that_changes_what_is_written(tmp_path, monkeypatch):
    changed = {name: value + 1 for name, value in panet(width=8).state_dict().items()}
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: changed)
    with pytest.raises(OutputError, match="read back differently"):
        save_model(panet(width=8), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
