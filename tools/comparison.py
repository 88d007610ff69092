"""Trains and scores the four methods on Shapes-5i, fold 0, with one budget, for `data/results/comparison`.

python tools/comparison.py train [SEEDS] [METHODS]   one papermill run each (finished ones are kept)
python tools/comparison.py keep                      result files and counts of all episodes to data/results/comparison
python tools/comparison.py ship [METHODS]            the weights of seed 0, in half precision, to data/weights
python tools/comparison.py knobs                     every model on harder images: data/results/comparison-knobs.json

Every run has its own base pre-training of 2,500 steps and 1,500 episodic steps, and is scored on the same 1,000
episodes. `train 0,1 asgnet,hdmnet` runs only those.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from fsslib import load_model, paths, recipe, save_model
from fsslib.experiments import run
from fsslib.experiments.parameters import check_parameters
from fsslib.files import atomic

RUNS = paths.repository() / "runs" / "comparison"
KEPT = paths.data() / "results" / "comparison"
SEEDS = (0, 1, 2)
COMMON = {"checkpoint": None, "episodes": 1000, "accelerator": "cpu", "precision": "bf16"}
COMMON |= {"pretrain_steps": 2500, "pretrain_lr": 3e-3, "episodic_steps": 1500, "batch": 8}
SCALES = [1.0, 0.5, 0.25, 0.125]
# What differs from the authors' code: the width, grids relative to the small images, and less dropout for 32 channels.
METHODS = {
    "panet": {"lr": 2e-3},
    "sdaanet": {"width": 32, "lr": 4e-3, "options": {"scales": SCALES, "dropout": 0.1}},
}


def parameters(method: str, seed: int) -> dict:
    """What the notebook `experiment` is run with."""
    return {**COMMON, **METHODS[method], "method": method, "seed": seed}


def train(seeds: str = "0,1,2", methods: str = "") -> None:
    """One papermill run for every seed and method."""
    for seed in map(int, seeds.split(",")):
        for method in methods.split(",") if methods else METHODS:
            folder = run(parameters(method, seed), runs=RUNS)
            scores = json.loads((folder / "result.json").read_text())["scores"]
            print(method, seed, {k: round(v["miou"], 1) for k, v in scores.items()}, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train}[sys.argv[1]](*sys.argv[2:])
