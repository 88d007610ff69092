"""Recomputes `data/results/*.json`: each file is what the notebook `experiment` wrote, copied as it is.

python tools/results.py              all of them, every fold of the shipped weights on 1,000 episodes
python tools/results.py 0 2          some folds
"""

import shutil
import sys

from fsslib import paths
from fsslib.experiments import run

PARAMETERS = {"checkpoint": "shipped", "pretrain_steps": 0, "episodic_steps": 0, "episodes": 1000, "shots": [1, 5]}


def main(*folds: str) -> None:
    """Evaluate the shipped PANet of every fold through papermill and keep its result file."""
    for fold in map(int, folds or "0123"):
        folder = run({**PARAMETERS, "fold": fold}, runs=paths.repository() / "runs" / "results", force=True)
        target = paths.data() / "results" / f"panet-shapes-fold{fold}.json"
        shutil.copyfile(folder / "result.json", target)
        print(target.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
