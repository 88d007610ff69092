"""Trains and scores the four methods on Shapes-5i, fold 0, with one budget, for `data/results/comparison`.

python tools/comparison.py train [SEEDS] [METHODS]   one papermill run each (finished ones are kept)
python tools/comparison.py keep                      result files and counts of all episodes to data/results/comparison
python tools/comparison.py ship [METHODS]            the weights of seed 0, in half precision, to data/weights
python tools/comparison.py knobs                     every model on harder images: data/results/comparison-knobs.json
python tools/comparison.py settings [METHODS]        learning rates on held-back base classes: comparison-settings.json

Every run has its own base pre-training of 2,500 steps and 1,500 episodic steps, and is scored on the same 1,000
episodes. `train 0,1 asgnet,hdmnet` runs only those.
"""

import copy
import json
import shutil
import sys
import time
from functools import lru_cache
from pathlib import Path

import torch

from fsslib import Protocol, evaluate, files, load_dataset, load_model, save_model
from fsslib.data.base import SegmentationDataset
from fsslib.evaluation import Evaluation
from fsslib.experiments import check_parameters, recipe, run
from fsslib.experiments.runs import check, run_name
from fsslib.metrics import over_trainings

RUNS = files.repository_folder() / "runs" / "comparison"
KEPT = files.data_folder() / "results" / "comparison"
WEIGHTS = files.data_folder() / "weights"
SEEDS = (0, 1, 2)
COMMON = {"checkpoint": None, "episodes": 1000, "accelerator": "cpu", "precision": "bf16"}
COMMON |= {"pretrain_steps": 2500, "pretrain_lr": 3e-3, "episodic_steps": 1500, "batch": 8}
SCALES = [1.0, 0.5, 0.25, 0.125]
# What differs from the authors' code: the width, grids relative to the small images, and less or no dropout.
METHODS = {
    "panet": {"lr": 2e-3},
    "sdaanet": {"width": 32, "lr": 4e-3, "options": {"scales": SCALES, "dropout": 0.1}},
    "asgnet": {"width": 32, "lr": 1e-3, "options": {"scales": SCALES, "dropout": 0.0, "superpixel_area": 15.0}},
    "hdmnet": {"width": 32, "lr": 4e-3, "options": {"dropout": 0.1}},
}
# One phenomenon each, see fsslib.data.ShapesKnobs; the first value is the standard difficulty.
KNOBS = {
    "gap": (0.0, 0.5, 1.0),
    "parts": (1, 2, 4),
    "area": (1.0, 0.5),
    "co_occurrence": (0.0, 1.0),
}
KNOB_EPISODES = 300
# What the learning rates of METHODS were chosen from, and the base classes that choose without a look at the test fold.
RATES = (1e-3, 2e-3, 4e-3)
HELD_BACK = 3


def parameters(method: str, seed: int) -> dict:
    """What the notebook `experiment` is run with."""
    return {**COMMON, **METHODS[method], "method": method, "seed": seed}


def folder_of(method: str, seed: int) -> Path:
    """Where its run leaves its files."""
    return RUNS / run_name(check(parameters(method, seed)))


def train(seeds: str = "0,1,2", methods: str = "") -> None:
    """One papermill run for every seed and method."""
    for seed in map(int, seeds.split(",")):
        for method in methods.split(",") if methods else METHODS:
            folder = run(parameters(method, seed), runs=RUNS)
            scores = json.loads((folder / "result.json").read_text())["scores"]
            print(method, seed, {k: round(v["miou"], 1) for k, v in scores.items()}, flush=True)


def keep() -> None:
    """Copy what the runs wrote, as it is."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for method in METHODS:
        for seed in SEEDS:
            folder = folder_of(method, seed)
            for source, ending in (("result.json", "json"), ("trained.npz", "npz")):
                shutil.copyfile(folder / source, KEPT / f"{method}-{seed}.{ending}")
            print(f"{method}-{seed}", flush=True)


def ship(methods: str = "") -> None:
    """Keep the weights of seed 0 in half precision."""
    for method in methods.split(",") if methods else METHODS:
        folder = folder_of(method, 0)
        result = json.loads((folder / "result.json").read_text())
        miou = {k: round(v["miou"], 2) for k, v in result["scores"].items()}
        command = f"python tools/comparison.py train 0 {method}; python tools/comparison.py ship {method}"
        # PANet's other weights of this fold had a larger budget.
        name = "panet-shapes-fold0-short" if method == "panet" else f"{method}-shapes-fold0"
        path = WEIGHTS / f"{name}.safetensors"
        note = {"command": command, "miou": miou, "torch": torch.__version__}
        save_model(load_model(folder / "model.safetensors"), path, half=True, note=note)
        print(path.name, flush=True)


def knobs() -> None:
    """mIoU at one shot of every trained model against every knob, over the training seeds; goes on where it stopped."""
    rows = []
    for knob, values in KNOBS.items():
        for value in values:
            found = {m: [_harder(knob, value, m, seed) for seed in SEEDS] for m in METHODS}
            scores = {m: [evaluation.scores[1] for evaluation in own] for m, own in found.items()}
            for method, own in scores.items():
                numbers = {"miou": over_trainings(own), "gain over panet": over_trainings(own, scores["panet"])}
                numbers["per_seed"] = [s.miou for s in own]
                row = {"knob": knob, "value": value, "method": method}
                rows.append(row | {k: [round(100 * x, 2) for x in v] for k, v in numbers.items()})
                rows[-1]["list_hash"] = found[method][0].protocol.list_hash
            print(knob, value, {r["method"]: r["miou"][0] for r in rows[-len(METHODS) :]}, flush=True)
    content = {"command": "python tools/comparison.py knobs", "episodes": KNOB_EPISODES, "shots": 1, "rows": rows}
    text = json.dumps({**content, "versions": recipe.versions()}, indent=1)
    files.write_text(files.data_folder() / "results" / "comparison-knobs.json", text)


def settings(methods: str = "sdaanet,asgnet,hdmnet") -> None:
    """mIoU at one shot of every learning rate on held-back base classes, seed 0, with the full budget of a training.
    The paired gain is over the rate that the comparison uses; a part that is done is kept."""
    path = files.data_folder() / "results" / "comparison-settings.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    held = {"fold": 0, "val_classes": HELD_BACK}
    train_set, val_set = (load_dataset("shapes", split=split, **held) for split in ("train", "val"))
    for method in methods.split(","):
        began, found = time.process_time(), {}
        p = check_parameters(parameters(method, 0) | {"episodes": KNOB_EPISODES, "shots": [1]})
        start = recipe.model(p)
        recipe.train(p, start, train_set, stage="pretrain")
        used = METHODS[method]["lr"]
        for lr in (used, *(rate for rate in RATES if rate != used)):
            net = copy.deepcopy(start)
            recipe.train(check_parameters({**p.model_dump(), "lr": lr}), net, train_set, stage="episodic")
            found[lr] = recipe.score(p, net, val_set).scores[1]
            numbers = {"miou": (found[lr].miou, *found[lr].interval()), "gain": found[lr].difference(found[used])}
            row = {"method": method, "lr": lr, **{k: [round(100 * x, 2) for x in v] for k, v in numbers.items()}}
            rows = [r for r in rows if (r["method"], r["lr"]) != (method, lr)] + [row]
            print(row, f"{time.process_time() - began:.0f} s", flush=True)
            classes = [val_set.names[c] for c in val_set.classes]
            content = {"command": "python tools/comparison.py settings", "held_back": classes, "rows": rows}
            files.write_text(path, json.dumps({**content, "versions": recipe.versions()}, indent=1))


def _harder(knob: str, value: float, method: str, seed: int) -> Evaluation:
    """One model on the images of one knob, evaluated once and kept."""
    # The first values of all knobs are the same images.
    name = "standard" if value == KNOBS[knob][0] else f"{knob}-{value}"
    kept = RUNS.with_name("comparison-knobs") / f"{name}-{method}-{seed}.npz"
    if not kept.is_file():
        rules, test_set = _images(knob, value)
        net = load_model(folder_of(method, seed) / "model.safetensors")
        evaluate(net, test_set, rules, shots=[1], batch=8).save(kept)
    return Evaluation.load(kept)


@lru_cache(maxsize=1)  # the models of one knob share its drawn images
def _images(knob: str, value: float) -> tuple[Protocol, SegmentationDataset]:
    p = check_parameters({**COMMON, "knobs": {knob: value}, "episodes": KNOB_EPISODES})
    return recipe.protocol(p), recipe.datasets(p)[1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "keep": keep, "ship": ship, "knobs": knobs, "settings": settings}[sys.argv[1]](*sys.argv[2:])
