"""Trains the weights that ship in `data/weights`, with the command kept inside each file.

python tools/train_shipped.py panet 0 1 2 3      method, then folds
"""

import shutil
import sys
import time
from pathlib import Path

import torch

from fsslib import files, save_model
from fsslib.experiments import check_parameters, recipe

# Steps, not seconds: the same command makes the same weights, give or take the last bits of another processor.
BUDGET = {"pretrain_steps": 4000, "episodic_steps": 4000, "pretrain_lr": 3e-3, "lr": 2e-3, "precision": "bf16"}


def main(method: str, *folds: str) -> None:
    """Train `method` on Shapes-5i for every fold, print its score, and write the weights in half precision."""
    for fold in map(int, folds):
        began = time.time()
        p = check_parameters(
            {"method": method, "fold": fold, "checkpoint": None, "episodes": 1000, "accelerator": "cpu", **BUDGET}
        )
        train_set, test_set = recipe.datasets(p)
        net = recipe.model(p)
        folder = Path(f"runs/shipped/{method}-{fold}")
        recipe.train(p, net, train_set, folder=folder)
        scores = {k: round(v["miou"], 2) for k, v in recipe.score(p, net, test_set).summary().items()}
        note = {"command": f"python tools/train_shipped.py {method} {fold}", "miou": scores, "torch": torch.__version__}
        path = save_model(
            net, files.data_folder() / "weights" / f"{method}-shapes-fold{fold}.safetensors", half=True, note=note
        )
        shutil.rmtree(folder)  # the next call of this command shall train again, not load
        print(f"{path.name}: mIoU {scores}, {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
