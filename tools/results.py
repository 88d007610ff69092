"""Recomputes `data/results/METHOD-shapes-foldN.json`: each file is what the notebook `experiment` wrote, as it is.

python tools/results.py                      all shipped weights on 1,000 episodes
python tools/results.py panet-0 sdaanet-0    some of them
"""

import shutil
import sys

from fsslib import files
from fsslib.experiments import run

PARAMETERS = {"checkpoint": "shipped", "pretrain_steps": 0, "episodic_steps": 0, "episodes": 1000, "shots": [1, 5]}
SHIPPED = ("panet-0", "panet-1", "panet-2", "panet-3", "sdaanet-0")


def main(*names: str) -> None:
    """Evaluate shipped weights through papermill and keep the result files."""
    for name in names or SHIPPED:
        method, fold = name.split("-")
        parameters = {**PARAMETERS, "method": method, "fold": int(fold)}
        folder = run(parameters, runs=files.repository_folder() / "runs" / "results", force=True)
        target = files.data_folder() / "results" / f"{method}-shapes-fold{fold}.json"
        shutil.copyfile(folder / "result.json", target)
        if name == "panet-0":  # with the counts of all episodes, which the tests compare
            shutil.copyfile(folder / "trained.npz", target.with_suffix(".npz"))
        print(target.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
