"""Stands for SIGKILL without a process: from one step on, nothing below a folder changes a file any more."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class _Killed(BaseException):
    pass


@dataclass
class Run:
    """A run that dies at its `moment`-th step: whatever opens, makes, renames or removes something below `root`."""

    root: str
    moment: int
    steps: int = 0
    killed: bool = False

    def step(self, *_) -> None:
        """One more step, or the end."""
        self.steps += 1
        if 0 < self.moment <= self.steps:
            raise _Killed


_running: list[Run] = []


def _audit(event: str, arguments: tuple) -> None:
    if _running and event in EVENTS and _running[0].root in str(arguments[0]):
        _running[0].step()


sys.addaudithook(_audit)  # stays; does nothing while nothing is to be killed


@contextlib.contextmanager
def killed_at(moment: int, root: Path) -> Iterator[Run]:
    """The block runs up to a step (0: to its end); `killed` says afterwards whether it came so far."""
    run = Run(str(root), moment)
    _running.append(run)
    try:
        yield run
    except _Killed:
        run.killed = True
    finally:
        _running.clear()
