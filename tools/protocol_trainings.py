"""Measures what choices of a training move in mIoU, for `data/results/protocol-lab.json`.

python tools/protocol_trainings.py shapes                     checkpoint selection and batch norm, Shapes-5i
python tools/protocol_trainings.py photographs ROOT WEIGHTS   novel pixels, PASCAL photographs

Afterwards `python tools/protocol_lab.py table` collects everything.
"""

import copy
import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from fsslib import EpisodeSampler, Protocol, build_model, evaluate, files, load_dataset
from fsslib.evaluation import Evaluation
from fsslib.files import atomic
from fsslib.metrics import over_trainings
from fsslib.models.base import FewShotModel
from fsslib.nn.backbones.cached import CachedBackbone, MemoryStore
from fsslib.pretraining import pretrain
from fsslib.training import Schedule, train_episodes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it finds its neighbour

from tools.protocol_lab import RUNS, main, measured, network, percent, protocol_of

SEEDS = (0, 1, 2)
PICKS = {"val_classes": "val", "test_fold": "test"}


def against(name: str, data: str, runs: Mapping[str, Sequence[Evaluation]], reference: str) -> list[dict]:
    """Rows of choices that need a training: mean over the training seeds, paired on the same episodes."""
    found = []
    for setting, own in runs.items():
        scores, others = ([e.scores[1] for e in side] for side in (own, runs[reference]))
        row = {"data": data, "switch": name, "setting": setting, "shots": 1, "miou": percent(over_trainings(scores))}
        row |= {"difference": percent(over_trainings(scores, others)), "per_seed": percent([s.miou for s in scores])}
        row["difference per seed"] = percent([a.miou - b.miou for a, b in zip(scores, others)])
        found.append(row | {"paired": True, "lists": sorted({e.protocol.list_hash for e in own})})
    return found


def photographs(root: str, weights: str, steps: int = 100) -> list[dict]:
    """What novel classes are in training images; PANet learns a 1x1 projection of frozen features."""
    store, runs = MemoryStore(8 * 2**30), {}

    def trained(policy: str, seed: int) -> Evaluation:
        torch.manual_seed(seed)
        net = network(weights, width=256)
        net.backbone = CachedBackbone(net.backbone, store=store)
        images = functools.partial(load_dataset, "pascal", root=root, fold=1, val_classes=0)
        train, test = images(split="train", novel=policy), images(split="test")
        rules = protocol_of("photographs", {"protocol": {"novel_pixels": policy, "augmentation": "none"}})
        sampler = EpisodeSampler(train, rules, shot=1, seed=seed, keep=2**30)
        train_episodes(net, sampler, Schedule(steps, batch=4, lr=2e-3, seed=seed, precision="bf16"))
        return evaluate(net, test, rules)

    for seed, policy in itertools.product(SEEDS, ("background", "ignore", "drop")):
        found = measured(f"novel-{policy}-{seed}", functools.partial(trained, policy, seed))
        runs.setdefault(policy, []).append(found)
    found = against("novel pixels", "photographs", runs, "background")
    return [row | {"fold": 1, "training": f"{steps} steps, batch 4, 1x1 projection to 256"} for row in found]


def shapes(steps: int = 600, every: int = 50) -> list[dict]:
    """Which checkpoint is scored, and batch norm in training: PANet from the same pre-trained backbone."""
    sets = {s: load_dataset("shapes", fold=0, split=s, val_classes=3) for s in ("train", "val", "test")}
    runs, curves = {}, []
    for seed in SEEDS:
        torch.manual_seed(seed)
        start = build_model("panet", backbone="tiny")
        ready = RUNS / f"backbone-{seed}.pt"
        if not ready.is_file():
            pretrain(start.backbone, sets["train"], Schedule(1200, batch=16, lr=3e-3, seed=seed, precision="bf16"))
            with atomic(ready) as part:
                torch.save(start.state_dict(), part)
        start.load_state_dict(torch.load(ready, weights_only=True))
        curve, found = episodic(start, sets, seed, steps, every)
        curves.append(curve)
        for name, evaluation in found.items():
            runs.setdefault(name, []).append(evaluation)
    told = {"fold": 0, "training": f"1,200 steps of base pre-training, {steps} on episodes", "steps": steps}
    chosen = {name: runs[name] for name in ("last", "val_classes", "test_fold")}
    found = against("selection", "shapes", chosen, "last")
    found += against("batch norm", "shapes", {"frozen": runs["last"], "batch": runs["batch"]}, "frozen")
    return [row | told | ({"curves": curves} if row["setting"] == "last" else {}) for row in found]


def episodic(start: FewShotModel, sets: Mapping, seed: int, steps: int, every: int) -> tuple[list[dict], dict]:
    """A training in each BN mode: the scores that select (200 episodes of seed 321), and those of what they chose."""
    selecting, rules = (Protocol.shapes5i(episodes=n, seeds=(s,)) for n, s in ((200, 321), (1000, 0)))
    schedule = Schedule(steps, batch=8, lr=2e-3, seed=seed, precision="bf16")
    kept, curve, found = {}, [], {}
    said = RUNS / f"curve-{seed}.json"

    def watch(step: int, net: FewShotModel) -> None:
        if (step + 1) % every == 0:
            kept[step + 1] = copy.deepcopy(net.state_dict())
            scores = {s: evaluate(net, sets[s], selecting).scores[1].miou for s in ("val", "test")}
            curve.append({"step": step + 1, **{s: round(100 * v, 2) for s, v in scores.items()}})

    def run(bn: str) -> FewShotModel:
        net = build_model("panet", backbone="tiny", bn=bn)
        net.load_state_dict(start.state_dict())
        sampler = EpisodeSampler(sets["train"], rules.replace(bn=bn), shot=1, seed=seed, augment=True)
        train_episodes(net, sampler, schedule, callback=watch if bn == "frozen" else None)
        return net

    if not said.is_file():
        run("frozen")
        files.write_text(said, json.dumps(curve))
    curve = json.loads(said.read_text())
    steps_of = {"last": steps, **{n: max(curve, key=lambda row: row[s])["step"] for n, s in PICKS.items()}}
    for name, step in steps_of.items():

        def compute(step: int = step) -> Evaluation:
            if not kept:
                raise SystemExit(f"{said} is there without its scores: delete it, then run this again.")
            chosen = copy.deepcopy(start)
            chosen.load_state_dict(kept[step])
            return evaluate(chosen, sets["test"], rules)

        found[name] = measured(f"selection-{name}-{seed}", compute)
    found["batch"] = measured(
        f"batch-norm-{seed}", lambda: evaluate(run("batch"), sets["test"], rules.replace(bn="batch"))
    )
    return curve, found


if __name__ == "__main__":
    main({"shapes": (shapes, "trainings"), "photographs": (photographs, "novel_pixels")}, __doc__)
