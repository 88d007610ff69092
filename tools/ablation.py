"""Trains the ablation of SD-AANet on Shapes-5i, fold 0, and writes `data/results/sdaanet-ablation.json`.

python tools/ablation.py train 0 1 2      all variants for each training seed (finished ones are skipped)
python tools/ablation.py table            the paired table
python tools/ablation.py ship             the weights that ship: variant "both", seed 0

All variants of a seed share budget, batches and the pre-trained backbone, and are scored on the same 1,000 episodes.
"""

import json
import sys
import time
from pathlib import Path

import torch

from fsslib import files, load_model, save_model
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters, recipe
from fsslib.files import atomic
from fsslib.metrics import over_trainings
from fsslib.training import History

RUNS = files.repository_folder() / "runs" / "ablation"
SEEDS = (0, 1, 2)
SCALES = [1.0, 0.5, 0.25, 0.125]
COMMON = {"method": "sdaanet", "width": 32, "checkpoint": None, "episodes": 1000, "accelerator": "cpu"}
COMMON |= {"pretrain_steps": 2500, "episodic_steps": 1500, "pretrain_lr": 3e-3, "lr": 4e-3, "precision": "bf16"}
# Everything but the scales and the dropout is as the authors' code has it: half of 32 channels is too many to drop.
OWN = {"scales": SCALES, "dropout": 0.1}
VARIANTS = {
    "PANet": {"method": "panet", "width": None, "lr": 2e-3, "options": {}},
    "baseline": {"options": OWN | {"sdpm": False, "saam": False}},
    "+ SDPM": {"options": OWN | {"saam": False}},
    "+ SAAM": {"options": OWN | {"sdpm": False}},
    "both": {"options": OWN},
    "both, mean factor": {"options": OWN | {"query_factor": "mean"}},
    "both, average factor": {"options": OWN | {"query_factor": "average"}},
}
# At one shot, as in training, both compute the same: the weights of one serve the other.
TRAINED_AS = {"both, average factor": "both"}


def folder_of(variant: str, seed: int) -> Path:
    """Where a run leaves its files."""
    return RUNS / f"{variant.replace('+', 'with').replace(',', '').replace(' ', '-')}-{seed}"


def train(*seeds: str) -> None:
    """Train and score every variant for the given training seeds."""
    for seed in map(int, seeds or SEEDS):
        pretrained = RUNS / f"backbone-{seed}.pt"
        for variant, changes in VARIANTS.items():
            folder = folder_of(variant, seed)
            began = time.time()
            p = check_parameters({**COMMON, **changes, "seed": seed})
            if (folder / "result.json").is_file():
                if check_parameters(json.loads((folder / "result.json").read_text())["parameters"]) != p:
                    raise SystemExit(f"{folder} was made with other parameters: delete it, then run this again.")
                continue
            train_set, test_set = recipe.datasets(p)
            net = recipe.model(p)
            # The backbone is initialised and pre-trained by the seed alone, so once is enough for all variants.
            if not pretrained.is_file():
                recipe.train(p, net, train_set, folder=folder, stage="pretrain")
                with atomic(pretrained) as part:
                    torch.save(net.backbone.state_dict(), part)
            net.backbone.load_state_dict(torch.load(pretrained, weights_only=True))
            if variant in TRAINED_AS:
                trained = load_model(folder_of(TRAINED_AS[variant], seed) / "model.safetensors")
                net.load_state_dict(trained.state_dict())
                history = History()
            else:
                history = recipe.train(p, net, train_set, folder=folder, stage="episodic")["episodic training"]
            evaluation = recipe.score(p, net, test_set)
            evaluation.save(folder / "trained.npz")
            save_model(net, folder / "model.safetensors")
            found = recipe.result(p, {"trained": evaluation}, test_set.names, began)
            found["training_seconds"] = round(history.seconds, 1)
            names = history.rows[-1] if history.rows else ()
            found["losses"] = {name: round(history.smooth(name, 100)[-1], 6) for name in names}
            files.write_text(folder / "result.json", json.dumps(found, indent=1))
            scores = {k: round(v["miou"], 1) for k, v in evaluation.summary().items()}
            print(f"{folder.name}: {scores}, {history.seconds:.0f} s of episodic training", flush=True)


def table() -> None:
    """Collect the finished runs."""
    counts = {v: [Evaluation.load(folder_of(v, s) / "trained.npz") for s in SEEDS] for v in VARIANTS}
    results = {v: [json.loads((folder_of(v, s) / "result.json").read_text()) for s in SEEDS] for v in VARIANTS}
    rows = []
    for shot in (1, 5):
        for variant, runs in counts.items():
            own = [run.scores[shot] for run in runs]
            miou = over_trainings(own)
            row = {"shots": shot, "model": variant, "miou": miou, "per_seed": [s.miou for s in own]}
            for name in ("baseline", "PANet"):
                reference = [run.scores[shot] for run in counts[name]]
                row[f"gain over {name}"] = over_trainings(own, reference)
                row[f"gain over {name} per seed"] = [a.miou - b.miou for a, b in zip(own, reference)]
            row = {k: _percent(v) for k, v in row.items()}
            if variant not in TRAINED_AS:
                row["kd, saam at the end"] = [[r["losses"].get(n, 0) for n in ("kd", "saam")] for r in results[variant]]
            rows.append(row)
    first = results["both"][0]
    content = {
        "command": "python tools/ablation.py train 0 1 2; python tools/ablation.py table",
        "training_seeds": SEEDS,
        "rows": rows,
        "parameters": {v: runs[0]["parameters"] for v, runs in results.items()},
        "learnable": {v: _learnable(folder_of(v, 0)) for v in VARIANTS},
        **{key: first[key] for key in ("protocol", "list_hash", "versions")},
    }
    target = files.data_folder() / "results" / "sdaanet-ablation.json"
    files.write_text(target, json.dumps(content, indent=1))
    print(target.name)


def ship() -> None:
    """Keep the weights of the whole method's first seed in half precision."""
    folder = folder_of("both", 0)
    result = json.loads((folder / "result.json").read_text())
    miou = {k: round(v["miou"], 2) for k, v in result["scores"].items()}
    note = {"command": "python tools/ablation.py train 0; python tools/ablation.py ship", "miou": miou}
    path = files.data_folder() / "weights" / "sdaanet-shapes-fold0.safetensors"
    save_model(load_model(folder / "model.safetensors"), path, half=True, note=note | {"torch": torch.__version__})
    print(path.name)


def _learnable(folder: Path) -> int:
    return sum(x.numel() for x in load_model(folder / "model.safetensors").parameters() if x.requires_grad)


def _percent(value):
    return [round(100 * x, 2) for x in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "table": table, "ship": ship}[sys.argv[1]](*sys.argv[2:])
