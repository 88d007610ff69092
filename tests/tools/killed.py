"""Stands for SIGKILL without a process: from one step on, nothing below a folder changes a file any more."""

import contextlib
import os
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
    if not _running or event not in EVENTS:
        return
    run, name = _running[0], str(arguments[0])
    if run.root in name or (event in ("os.remove", "os.rmdir") and os.sep not in name):  # as rmtree names them
        try:
            run.step()
        except _Killed:
            if event == "open" and run.steps == run.moment and arguments[2] & os.O_CREAT:
                _running.clear()  # killed just after opening, before a byte was written
                os.close(os.open(arguments[0], arguments[2], 0o666))
                _running.append(run)
            raise


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
