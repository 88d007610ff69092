"""Training runs for the kill test, each a process of its own: python killed_run.py FOLDER:PLAN [FOLDER:PLAN ...].

A plan is `-` (run to the end), `4` (SIGKILL after step 4: no clean-up of any kind) or `4s` (SIGKILL half-way through
writing the first resume file from step 4 on); `@2` behind it means with two loader processes. `full` instead of a plan:
no training, but writing where there is no room. Prints one exit status a plan; finished runs leave `final.pt`.
The parent imports torch and forks before it computes anything: a fresh process without the seconds of an import.
"""

import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

import lightning_fabric  # noqa: F401 (imported once for all children)
import torch
from core_tools import Line, at, panet, shapes

from fsslib import EpisodeSampler, Protocol, save_model, training
from fsslib.errors import OutputError
from fsslib.training import Schedule, Selection, train_episodes, validation_score

SCHEDULE = Schedule(steps=8, batch=2, lr=1e-2, warmup=2, seed=3)


def run(folder: Path, kill: int | None, saving: bool, workers: int) -> None:
    """Train to the end, or to the kill."""
    model = panet(bn="batch")
    # Random drops have to come back too.
    model.project = torch.nn.Dropout(0.3)
    sampler = EpisodeSampler(shapes(), Protocol(input_size=33), seed=5, augment=True)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    class Dying(Selection):
        """Validates after steps 3, 6 and 8, then is killed before anybody hears of it."""

        def __call__(self, step, model):
            found = super().__call__(step, model) or {}
            return die() if step == kill and not saving else {"seen": step, **found}

    score, rules = validation_score(shapes("test"), Protocol(input_size=33, episodes=6), batch=6)
    chosen = Dying(score, every=3, steps=SCHEDULE.steps, rules=rules)
    whole = training.torch.save

    def half(state, path):
        whole(state, path)
        if saving and kill is not None and state["step"] >= kill:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    training.torch.save = half
    how = {"folder": folder, "save_every": 2, "progress": False, "workers": workers}
    history = train_episodes(model, sampler, SCHEDULE, callback=chosen, **how)
    training.torch.save = whole
    facts = {"model": {name: value.clone() for name, value in model.state_dict().items()}, "rows": history.rows}
    chosen.restore(model)
    torch.save({**facts, "selected": model.state_dict(), "summary": chosen.summary()}, folder / "final.pt")


def full_disk(folder: Path) -> None:
    """A limit for the size of files ends a writing like a full disk: in the middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    for write in (
        lambda: save_model(panet(), folder / "m.safetensors"),
        lambda: training.fit(Line(), at, Schedule(1), name="line", folder=folder, progress=False),
    ):
        with contextlib.suppress(OutputError):
            write()
            os._exit(1)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        where, (plan, _, workers) = Path(argument.rpartition(":")[0]), argument.rpartition(":")[2].partition("@")
        where.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            if plan == "full":
                full_disk(where)
                os._exit(0)
            run(where, None if plan == "-" else int(plan.rstrip("s")), plan.endswith("s"), int(workers or 0))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (where / "final.pt").exists(), flush=True)
