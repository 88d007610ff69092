"""Training: it learns, it repeats itself, and it says why it cannot start or go on."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from core_tools import QUIET, SIZE, TEN, Line, at, panet, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib import EpisodeSampler, Protocol, build_model, load_dataset
from fsslib.errors import TrainingError
from fsslib.nn.backbones import build_backbone
from fsslib.pretraining import BaseSegmenter, labelled_batch, pretrain
from fsslib.training import History, Schedule, fit, train_episodes


def sampler(**how):
    return EpisodeSampler(shapes(), Protocol(input_size=SIZE), **how)


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 400), lr=st.floats(1e-6, 10))
def test_learning_rates(steps, warmup, lr):
    rates = [Schedule(steps=steps, warmup=warmup, lr=lr).lr_at(step) for step in range(steps)]
    assert all(0 < rate <= lr for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    if warmup < steps:
        assert max(rates) == pytest.approx(lr) and rates[-1] == pytest.approx(lr * min(1, 1 / max(steps - warmup, 1)))
        if warmup > 1:
            assert rates[0] == pytest.approx(lr / warmup)


@pytest.mark.parametrize("warmup", [0, 100])
def test_poly_rates_are_the_published_ones(shared, warmup):
    """The authors' helper multiplies every group by ten, so that the rate in their configuration is a tenth of ours."""
    from safetensors.torch import load_file

    golden = load_file(shared / "golden" / "sdaanet" / "units.safetensors")
    schedule = Schedule(steps=2000, lr=10 * 0.0025, decay="poly", power=0.9, warmup=warmup)
    found = [schedule.lr_at(int(it) - 1) for it in golden["units/poly_iters"]]
    for group in golden[f"units/poly_lr_warmup{int(warmup > 0)}"].double().T.tolist():
        assert found == pytest.approx(group, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("change", [{"momentum": 0.5}, {"momentum": 0}, {"clip": None}, {"clip": 0.01}])
def test_momentum_and_clipping(change):
    """Against the same steps written out."""
    schedule = Schedule(steps=3, lr=0.05, warmup=0, optimiser="sgd", weight_decay=0, **change)
    model, plain = Line(), Line()
    fit(model, at, schedule, **QUIET)
    speed = torch.zeros(4)
    for step in range(3):
        torch.manual_seed(step)
        loss = plain.losses(at(step))["total"]
        (gradient,) = torch.autograd.grad(loss, plain.weight)
        if schedule.clip is not None:
            gradient = gradient * min(1, schedule.clip / (gradient.norm() + 1e-6))
        speed = schedule.momentum * speed + gradient
        plain.weight.data -= schedule.lr_at(step) * speed
    assert torch.allclose(model.weight, plain.weight, rtol=1e-5)


def test_episodic_training_learns():
    model = panet(bn="batch")
    history = train_episodes(
        model, sampler(seed=1), Schedule(steps=30, batch=4, lr=3e-3, warmup=3), folder=None, progress=False
    )
    values = [row["query"] for row in history.rows]
    assert sum(values[-8:]) / 8 < 0.8 * sum(values[:4]) / 4, values
    assert len(history.rows) == 30 and set(history.rows[0]) == {"query", "align", "total"} and history.seconds > 0
    smooth = history.smooth("total", 5)
    assert smooth[0] == history.rows[0]["total"] and len(smooth) == 30
    assert smooth[9] == pytest.approx(sum(row["total"] for row in history.rows[5:10]) / 5) and not model.training


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_repeated_run_is_the_same_run(optimiser):
    schedule = Schedule(steps=3, batch=2, optimiser=optimiser, seed=2)
    states = []
    for noise in (0, 1):
        model = panet(seed=4)
        torch.manual_seed(noise)
        train_episodes(model, sampler(augment=True), schedule, progress=False)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())


def test_nothing_to_train():
    with pytest.raises(TrainingError, match=r"PANet has no parameter.*width"):
        train_episodes(panet(freeze=True), sampler(), TEN, progress=False)
    frozen = panet(freeze=True)
    assert train_episodes(frozen, sampler(), Schedule(steps=0), progress=False) == History()
    with pytest.raises(TrainingError, match=r"frozen.*freeze=True"):
        pretrain(frozen.backbone, shapes(), TEN, size=SIZE, progress=False)


@pytest.mark.parametrize(("name", "value"), [
    ("precision", "16"), ("optimiser", "adam"), ("accelerator", "gqu"), ("steps", -1), ("steps", 2.5), ("batch", 0),
    ("warmup", -1), ("seed", -1), ("lr", 0), ("lr", math.nan), ("lr", math.inf), ("lr", "1e-3"), ("clip", 0),
    ("clip", True), ("decay", "cosine"), ("power", 0), ("momentum", 1.0), ("momentum", -0.1), ("weight_decay", -0.1),
    ("compile", 1),
])  # fmt: skip
def test_impossible_schedules(name, value):
    with pytest.raises(TrainingError, match=rf"{name}.*expected"):
        Schedule(**{"steps": 5, name: value})


def test_other_impossible_requests():
    with pytest.raises(TrainingError, match="save_every=0"):
        fit(Line(), at, TEN, save_every=0, **QUIET)
    with pytest.raises(TrainingError, match="log_every=0"):
        fit(Line(), at, TEN, log_every=0, **QUIET)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="accelerator 'gpu' is not usable"):
            fit(Line(), at, replace(TEN, accelerator="gpu"), **QUIET)


def test_callback_values_join_the_row_and_survive_a_resume(tmp_path):
    import numpy as np

    history = fit(Line(), at, TEN, folder=tmp_path, callback=lambda step, _: {"miou": np.float64(step)}, **QUIET)
    assert [row["miou"] for row in history.rows] == list(range(10))
    assert fit(Line(), at, TEN, folder=tmp_path, **QUIET).rows == history.rows


def test_bfloat16():
    model = panet(width=8)
    history = train_episodes(model, sampler(), Schedule(steps=2, batch=2, precision="bf16"), progress=False)
    assert all(math.isfinite(row["total"]) for row in history.rows)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(("precision", "inside"), [("32", False), ("bf16", True)])
def test_single_precision_is_no_tf32(precision, inside):
    seen = []
    assert torch.backends.cudnn.allow_tf32, "torch's default"
    schedule = replace(TEN, steps=2, precision=precision)
    fit(Line(), at, schedule, callback=lambda *_: seen.append(torch.backends.cudnn.allow_tf32), **QUIET)
    assert seen == [inside, inside] and torch.backends.cudnn.allow_tf32


def test_a_compiled_training(monkeypatch, tmp_path):
    """Without generating code, which takes its time: the same steps, and a resume file with plain names."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, model = Line(), Line()
    rows = fit(plain, at, TEN, **QUIET).rows
    history = fit(model, at, replace(TEN, compile=True), folder=tmp_path, **QUIET)
    assert torch.equal(model.weight, plain.weight) and history.rows == rows
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["model"].keys() == plain.state_dict().keys()

    def refuses(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile.func, backend=refuses))
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"cannot be compiled here.*no compiler.*leave compile out"):
        fit(Line(), at, replace(TEN, compile=True), **QUIET)


@pytest.mark.parametrize("mode", ["frozen", "batch"])
def test_pretraining(mode):
    backbone = build_backbone("tiny", bn=mode)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    history = pretrain(backbone, shapes(), Schedule(steps=12, batch=6, lr=1e-2, warmup=2), size=SIZE, progress=False)
    assert backbone.bn == mode
    now = backbone.state_dict()
    assert not any(torch.equal(now[k], v) for k, v in before.items() if "running" in k or k.endswith("0.weight"))
    assert now["layer0.1.num_batches_tracked"] == 12
    values = [row["total"] for row in history.rows]
    assert sum(values[-4:]) < sum(values[:4])
    with pytest.raises(TrainingError, match="save_every"):
        pretrain(backbone, shapes(), TEN, size=SIZE, progress=False, save_every=0)
    assert backbone.bn == mode, "also after an error"


def test_labels_are_base_classes_in_order():
    data = shapes("train")
    assert data.base_classes == tuple(sorted(data.base_classes)) and len(data.base_classes) == 15
    one, again = (labelled_batch(data, SIZE, seed=3, step=5, batch=8) for _ in range(2))
    assert torch.equal(one.images, again.images) and torch.equal(one.masks, again.masks)
    other = labelled_batch(data, SIZE, seed=3, step=6, batch=8)
    assert not torch.equal(one.masks, other.masks)
    assert one.images.dtype == torch.float32 and one.masks.dtype == torch.long and one.masks.shape == (8, SIZE, SIZE)
    seen = {v for step in range(12) for v in labelled_batch(data, SIZE, 0, step, 8).masks.unique().tolist()}
    assert seen <= {0, 255, *range(1, 16)} and len(seen) > 10

    class Row:
        augmentation, base_classes, names = "none", (2, 4, 9), range(1, 21)

        def __len__(self):
            return 1

        def __getitem__(self, index):
            mask = torch.zeros(32, 32, dtype=torch.uint8)
            for column, value in enumerate((2, 4, 9, 7, 255)):
                mask[:, 4 * column : 4 * column + 4] = value
            return torch.zeros(3, 32, 32, dtype=torch.uint8), mask

    masks = labelled_batch(Row(), 32, seed=0, step=0, batch=1).masks[0, 0]
    assert masks[:24:4].tolist() == [1, 2, 3, 0, 255, 0], "another class counts as background"


def test_the_segmenter_sees_background_and_base_classes():
    model = BaseSegmenter(build_backbone("tiny"), 15)
    assert model(torch.randn(2, 3, 33, 33)).shape == (2, 16, 9, 9)


def test_a_resume_file_of_other_data_is_refused(tmp_path):
    schedule = Schedule(2, batch=1)
    for fold in (0, 1):
        data = load_dataset("shapes", fold=fold, size=33, pool=30)
        sampler = EpisodeSampler(data, Protocol(input_size=33))
        model = build_model("panet", backbone="tiny")
        if fold == 0:
            train_episodes(model, sampler, schedule, folder=tmp_path, progress=False)
        else:
            with pytest.raises(TrainingError, match=r"another run \(other data\)"):
                train_episodes(model, sampler, schedule, folder=tmp_path, progress=False)
