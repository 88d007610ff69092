"""ASGNet with several prototypes and with one on objects of several parts: `data/results/asgnet-parts.json`.

python tools/parts.py train [SEEDS]      the variant with one prototype (finished ones are skipped)
python tools/parts.py table              mIoU against the number of parts, with paired intervals

The variant with several is the ASGNet of `tools/comparison.py`. Its partner has the same pre-trained backbone, budget
and batches. Both learned from objects of one part; only the test objects have more.
"""

import json
import sys
from pathlib import Path

import torch
from comparison import folder_of, parameters

from fsslib import evaluate, files, load_model, save_model
from fsslib.experiments import ExperimentParameters, check_parameters, recipe
from fsslib.metrics import over_trainings

RUNS = files.repository_folder() / "runs" / "parts"
SEEDS = (0, 1)
PARTS = (1, 2, 3, 4)
VARIANTS = {"several": {}, "one": {"max_superpixels": 1}}
EPISODES = 500


def settings(variant: str, seed: int, **more) -> ExperimentParameters:
    """Parameters of a training, or with `more` of an evaluation."""
    given = parameters("asgnet", seed)
    return check_parameters(given | {"options": given["options"] | VARIANTS[variant]} | more)


def file_of(variant: str, seed: int) -> Path:
    """Where the weights lie."""
    if variant == "several":
        return folder_of("asgnet", seed) / "model.safetensors"
    return RUNS / f"{variant}-{seed}.safetensors"


def train(seeds: str = "0,1") -> None:
    """Train the partner of each seed on the backbone of the comparison's run."""
    for seed in map(int, seeds.split(",")):
        if file_of("one", seed).is_file():
            continue
        p = settings("one", seed)
        train_set, _ = recipe.datasets(p)
        net = recipe.model(p)
        net.backbone.load_state_dict(load_model(file_of("several", seed)).backbone.state_dict())
        recipe.train(p, net, train_set, stage="episodic")
        save_model(net, file_of("one", seed))
        print(file_of("one", seed).name, flush=True)


def table() -> None:
    """Score every model on objects of one to four parts."""
    rows = []
    nets = {v: [load_model(file_of(v, seed)) for seed in SEEDS] for v in VARIANTS}
    for parts in PARTS:
        p = settings("several", 0, knobs={"parts": parts}, episodes=EPISODES)
        _, test_set = recipe.datasets(p)
        found = {
            v: [evaluate(net, test_set, recipe.protocol(p), shots=[1, 5], batch=8) for net in own]
            for v, own in nets.items()
        }
        for shot in (1, 5):
            scores = {v: [evaluation.scores[shot] for evaluation in own] for v, own in found.items()}
            row = {"parts": parts, "shots": shot, "list_hash": found["one"][0].protocol.list_hash}
            row |= {v: _percent(over_trainings(own)) for v, own in scores.items()}
            row |= {f"{v} per seed": _percent([s.miou for s in own]) for v, own in scores.items()}
            row["gain of several"] = _percent(over_trainings(scores["several"], scores["one"]))
            rows.append(row)
            print(row, flush=True)
    content = {"command": "python tools/parts.py train; python tools/parts.py table", "training_seeds": SEEDS}
    content |= {"episodes": EPISODES, "trained_on_parts": 1, "rows": rows}
    content |= {"parameters": {v: settings(v, 0).model_dump() for v in VARIANTS}, "versions": recipe.versions()}
    files.write_text(files.data_folder() / "results" / "asgnet-parts.json", json.dumps(content, indent=1))


def _percent(values) -> list[float]:
    return [round(100 * value, 2) for value in values]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "table": table}[sys.argv[1]](*sys.argv[2:])
