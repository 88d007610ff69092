"""In the kernel that runs a submission: the limits it sets itself, and all checks of the notebook at once."""

import contextlib
import difflib
import inspect
import io
import json
import sys
import threading
from typing import Any

from .check import Result, TooLong, check, time_limit
from .exercise import Exercise, exercises

LONGEST = 20_000  # characters of a written answer that are kept


def verdicts(space: dict[str, Any], stage: str) -> str:
    """JSON: one object per exercise of `stage` (name, status, slip, message, and the text of a written answer).

    Args: space: the names that the notebook defined. stage: e.g. "01_prototypes".
    """
    unguard()
    rows = []
    for name, task in exercises(stage).items():
        function = space.get(name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = check(function) if inspect.isfunction(function) else _missing(task, space)
            # A function that was bound to the name of another exercise would be checked as that one.
            if result.name != name:
                result = Result(name, "missing", f"`{name}` is now another function, {result.name}: keep its name.")
            text = _text(function) if task.written and result else ""
        rows.append({"name": name, "status": result.status, "slip": result.slip, "message": result.message})
        rows[-1] |= {"answer": text} if text else {}
    return json.dumps(rows)


def _missing(task: Exercise, space: dict[str, Any]) -> Result:
    known = exercises()
    functions = {n: f for n, f in space.items() if inspect.isfunction(f) and f.__module__ == "__main__"}
    others = {n: list(inspect.signature(f).parameters) for n, f in functions.items() if n not in known}
    near = difflib.get_close_matches(task.name, others, n=1, cutoff=0.6)
    alike = [n for n, parameters in others.items() if parameters == task.parameters and parameters]
    renamed = (near or alike or [None])[0]
    if renamed:
        hint = f"Was it renamed to `{renamed}`? Give it the name `{task.name}` again."
    else:
        hint = f"Bring the cell with its first line back: `def {task.name}({', '.join(task.parameters)}):`."
    message = f"No function `{task.name}` in this notebook; exercises are found by their function's name. {hint}"
    return Result(task.name, "missing", message, "renamed" if renamed else "missing")


def _text(function: Any) -> str:
    try:
        with time_limit(2):
            return str(function())[:LONGEST]
    except (Exception, TooLong):
        return ""


class TooMuchOutput(BaseException):
    """A cell has printed more than its limit. Not an Exception: `except Exception` must not swallow it."""


def _limit_memory(size: int | None) -> None:
    """At most `size` bytes; None: as much as the system allows."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard if size is None else size, hard))
    except (ImportError, ValueError, OSError):
        pass


def unguard() -> None:
    """Give the checks the memory that they need, however much the cells have left behind."""
    _limit_memory(None)


def guard(shell: Any, memory: int, output: int) -> None:
    """Limit this process.

    Args:
        shell: the running InteractiveShell.
        memory: bytes; asking for more raises MemoryError instead of taking the machine's last memory. Not on Windows;
            macOS does not count it.
        output: characters that a cell may print; the cell that prints more stops with TooMuchOutput.
    """
    _limit_memory(memory)
    printed, kind = [0], type(sys.stdout)
    write = kind.write

    def counted(self: Any, text: str) -> int:
        if threading.current_thread() is not threading.main_thread():
            return write(self, text)  # of another process, passed on by a thread that must live; the reader counts it
        printed[0] += len(text)
        if printed[0] > output:
            raise TooMuchOutput(f"more than {output / 1e6:g} million characters in one cell")
        return write(self, text)

    # In the class: IPython puts its own functions over the streams while a cell runs, and leaves the old ones there.
    for stream in (sys.stdout, sys.stderr):
        vars(stream).pop("write", None)
    kind.write = counted  # type: ignore[method-assign]
    shell.events.register("pre_run_cell", lambda *_: printed.__setitem__(0, 0))
