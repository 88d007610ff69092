"""Training and evaluation on a GPU; skipped where there is none."""

import pytest
import torch
from core_tools import SIZE, interrupted, panet, shapes

from fsslib import EpisodeSampler, Protocol, evaluate
from fsslib.training import Schedule, Selection, train_episodes, validation_score

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RULES = Protocol.shapes5i(input_size=SIZE, episodes=12)


class Watch:
    """Lets nothing wait for the GPU between the steps 2 and 8: there torch raises an error instead."""

    def due(self, step):
        return False

    def __call__(self, step, model):
        torch.cuda.set_sync_debug_mode("error" if 2 <= step < 8 else "default")


@pytest.mark.parametrize("change", [
    {}, {"precision": "bf16"}, {"optimiser": "sgd"}, {"compile": True}, {"clip": None}, {"workers": 2},
], ids=str)  # fmt: skip
def test_steps_wait_for_nothing(change):
    how = {"workers": 2} if "workers" in change else {}
    change = {name: value for name, value in change.items() if name not in how}
    sampler = EpisodeSampler(shapes(), Protocol(input_size=SIZE), augment=True)
    model = panet(bn="batch")
    try:
        schedule = Schedule(10, batch=2, accelerator="gpu", **change)
        rows = train_episodes(model, sampler, schedule, progress=False, log_every=100, callback=Watch(), **how).rows
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(rows) == 10 and all("total" in row for row in rows)
    assert all(weight.is_cuda and weight.dtype == torch.float32 for weight in model.parameters())


def test_a_gpu_training_goes_on(tmp_path):
    sampler = EpisodeSampler(shapes(), Protocol(input_size=SIZE))
    schedule = Schedule(6, batch=2, accelerator="gpu")
    with pytest.raises(KeyboardInterrupt):
        train_episodes(panet(), sampler, schedule, progress=False, folder=tmp_path, callback=interrupted(2))
    rows = train_episodes(panet(), sampler, schedule, progress=False, folder=tmp_path, workers=1).rows
    expected = train_episodes(panet(), sampler, schedule, progress=False).rows
    assert [row["total"] for row in rows] == pytest.approx([row["total"] for row in expected], rel=1e-3)


def test_scores_of_a_gpu():
    own = evaluate(panet(), shapes("test"), RULES, shots=(1, 2), progress=False)
    for workers in (0, 2):
        found = evaluate(panet(), shapes("test"), RULES, shots=(1, 2), device="cuda", workers=workers, progress=False)
        for shot in (1, 2):
            assert found.scores[shot].miou == pytest.approx(own.scores[shot].miou, abs=2e-3)
        assert min(found.seconds.values()) > 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("change", [{}, {"precision": "bf16"}], ids=str)
def test_two_gpus_are_one(tmp_path, change):
    """Processes of their own, with batch statistics and a validation that the second one waits for."""
    ends = []
    for devices in (1, 2):
        model, sampler = panet(bn="batch"), EpisodeSampler(shapes(), Protocol(input_size=SIZE), augment=True)
        score, rules = validation_score(shapes("test"), RULES)
        chosen = Selection(score, every=2, steps=6, rules=rules)
        schedule = Schedule(6, batch=4, accelerator="gpu", devices=devices, **change)
        how = {"folder": tmp_path / str(devices), "callback": chosen, "workers": 1, "progress": False}
        ends.append([row["total"] for row in train_episodes(model, sampler, schedule, **how).rows])
    assert ends[1] == pytest.approx(ends[0], rel=0.05 if change else 1e-3)


def test_shards_take_turns_on_the_gpus():
    """Two processes, which the GPUs of this process do not disturb."""
    how = {"shots": (1, 2), "batch": 3, "device": "cuda", "progress": False}
    own = evaluate(panet(), shapes("test"), RULES, **how)
    found = evaluate(panet(), shapes("test"), RULES, shards=3, on="local:2", cache="memory", **how)
    for shot in (1, 2):
        assert found.scores[shot].miou == pytest.approx(own.scores[shot].miou, abs=2e-3)
