"""Reports without a kernel, for tests that are not about kernels, and made-up scores."""

from pathlib import Path

import numpy as np

from fsslib import Protocol, models
from fsslib.evaluation import Evaluation
from fsslib.experiments import notebook, runs
from fsslib.metrics import Scores


def scored(shift: int, **protocol) -> Evaluation:
    """40 episodes at one shot and at five, in which `shift` more pixels are right than with another shift."""
    rng, scores = np.random.default_rng(0), {}
    for shot in (1, 5):
        hits = rng.integers(100, 200, 40) + shift
        table = np.zeros((40, 2, 3), int)
        table[:, 1] = np.stack([hits, 300 - hits, np.full(40, 50)], -1)
        scores[shot] = Scores(table, rng.integers(1, 6, (40, 1)), np.zeros(40, int))
    return Evaluation(scores, Protocol(**{"list_hash": "abc", "episodes": 40} | protocol), {1: 0.1, 5: 0.1}, ())


def run_here(monkeypatch) -> None:
    """Runs execute their notebook in this process, where torch is imported already, instead of in a kernel.

    As in one, no method of one's own is known before a cell asks for it.
    """

    def execute(source, part, checked, *_):
        given = {name: runs._absolute(name, value) for name, value in checked.items()} | {"out": "."}
        monkeypatch.chdir(part)
        own = {name: method for name, method in models._METHODS.items() if method.__module__.startswith("fsslib.")}
        monkeypatch.setattr(models, "_METHODS", own)
        scope = {}
        for cell in notebook.load(source).cells:
            if cell.cell_type == "code":
                exec(cell.source, scope)
            if "parameters" in cell.metadata.get("tags", []):
                scope |= given
        Path("report.ipynb").touch()

    monkeypatch.setattr(runs, "execute", execute)
