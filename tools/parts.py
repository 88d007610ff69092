"""ASGNet with several prototypes and with one on objects of several parts: `data/results/asgnet-parts.json`.

python tools/parts.py train [SEEDS]      both variants on objects of three parts (finished ones are skipped)
python tools/parts.py table              mIoU against the number of parts, with paired intervals

Everything but the number of prototypes is equal: budget, batches, the pre-trained backbone of a seed, test episodes.
"""

import json
import sys
from pathlib import Path

import torch
from comparison import COMMON, METHODS

from fsslib import evaluate, load_model, paths, recipe, save_model
from fsslib.experiments.parameters import check_parameters
from fsslib.files import atomic
from fsslib.metrics import over_trainings

RUNS = paths.repository() / "runs" / "parts"
SEEDS = (0, 1)
PARTS = (1, 2, 3, 4)
TRAINED_ON = 3
VARIANTS = {"several": {}, "one": {"max_superpixels": 1}}
EPISODES = 500
BUDGET = {"pretrain_steps": 1500, "episodic_steps": 1000}


def settings(variant: str, seed: int, **more) -> dict:
    """Parameters of a training, or with `more` of an evaluation."""
    own = METHODS["asgnet"]
    options = own["options"] | VARIANTS[variant]
    train_knobs = {"parts": TRAINED_ON}
    return check_parameters(
        {
            **COMMON,
            **BUDGET,
            **own,
            "method": "asgnet",
            "seed": seed,
            "options": options,
            "train_knobs": train_knobs,
            **more,
        }
    )


def train(seeds: str = "0,1,2") -> None:
    """Train both variants of each seed on one pre-trained backbone."""
    for seed in map(int, seeds.split(",")):
        pretrained = RUNS / f"backbone-{seed}.pt"
        for variant in VARIANTS:
            path = RUNS / f"{variant}-{seed}.safetensors"
            if path.is_file():
                continue
            p = settings(variant, seed)
            train_set, _ = recipe.datasets(p)
            net = recipe.model(p)
            if not pretrained.is_file():
                recipe.train(p, net, train_set, stage="pretrain")
                with atomic(pretrained) as part:
                    torch.save(net.backbone.state_dict(), part)
            net.backbone.load_state_dict(torch.load(pretrained, weights_only=True))
            recipe.train(p, net, train_set, stage="episodic")
            save_model(net, path)
            print(path.name, flush=True)


def table() -> None:
    """Score every model on objects of one to four parts."""
    rows = []
    for parts in PARTS:
        p = settings("several", 0, knobs={"parts": parts}, episodes=EPISODES)
        _, test_set = recipe.datasets(p)
        for shot in (1, 5):
            found = {}
            for variant in VARIANTS:
                nets = [load_model(RUNS / f"{variant}-{seed}.safetensors") for seed in SEEDS]
                scored = [evaluate(net, test_set, recipe.protocol(p), shots=[shot], batch=8) for net in nets]
                found[variant] = [evaluation.scores[shot] for evaluation in scored]
            row = {"parts": parts, "shots": shot, "list_hash": scored[0].protocol.list_hash}
            row |= {variant: _percent(over_trainings(own)) for variant, own in found.items()}
            row |= {f"{variant} per seed": _percent([s.miou for s in own]) for variant, own in found.items()}
            row["gain of several"] = _percent(over_trainings(found["several"], found["one"]))
            rows.append(row)
            print(row, flush=True)
    content = {"command": "python tools/parts.py train; python tools/parts.py table", "training_seeds": SEEDS}
    content |= {"episodes": EPISODES, "trained_on_parts": TRAINED_ON, "rows": rows}
    content |= {"parameters": {v: settings(v, 0) for v in VARIANTS}, "versions": recipe.versions()}
    with atomic(paths.data() / "results" / "asgnet-parts.json") as part:
        Path(part).write_text(json.dumps(content, indent=1))


def _percent(values) -> list[float]:
    return [round(100 * value, 2) for value in values]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "table": table}[sys.argv[1]](*sys.argv[2:])
