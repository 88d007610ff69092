"""One training run for the kill test, as a process of its own: python killed_run.py FOLDER KILL [SAVING].

Kills itself (SIGKILL: no clean-up of any kind) after step KILL, or with SAVING half-way through writing the resume
file at that step. Finished runs leave `final.pt`.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from core_tools import panet, shapes

from fsslib import EpisodeSampler, Protocol, training
from fsslib.training import Schedule, train_episodes

SCHEDULE = Schedule(steps=8, batch=2, lr=1e-2, warmup=2, seed=3)


def run(folder: Path, kill: int | None, saving: bool) -> None:
    """Train to the end, or to the kill."""
    model = panet(bn="batch")
    # Random drops have to come back too.
    model.project = torch.nn.Dropout(0.3)
    sampler = EpisodeSampler(shapes(), Protocol(input_size=33), seed=5, augment=True)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def callback(step, _):
        return die() if step == kill and not saving else {"seen": step}

    whole = training.torch.save

    def half(state, path):
        whole(state, path)
        if saving and kill is not None and state["step"] >= kill:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    training.torch.save = half
    history = train_episodes(
        model, sampler, SCHEDULE, folder=folder, save_every=2, progress=False, callback=callback
    )
    training.torch.save = whole
    torch.save({"model": model.state_dict(), "rows": history.rows}, folder / "final.pt")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    run(where, int(sys.argv[2]) if sys.argv[2] != "-" else None, "saving" in sys.argv)
