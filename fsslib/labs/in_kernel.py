"""In the kernel that runs a submission: the limits it sets itself, and all checks of the notebook at once."""

import contextlib
import contextvars
import difflib
import faulthandler
import inspect
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from .check import Result, TooLong, check_named, time_limit
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
            own = str(getattr(function, "__name__", name))
            if not callable(function) or isinstance(function, type):
                result = _missing(task, space)
            elif own != name and own in exercises():
                result = Result(name, "missing", f"`{name}` is now another function, {own}: keep its name.")
            else:
                result = check_named(function, name)
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


class EndsPython(SystemExit):
    """Raised in place of what would have ended the kernel, and with it all the cells below."""


# Which run of a cell the present code belongs to: what a cell starts may act when another cell runs.
_origin: contextvars.ContextVar[str] = contextvars.ContextVar("_origin", default="")
_effects: list[tuple[str, str, str]] = []


def effects() -> str:
    """JSON: [run of a cell, problem, what it did] for all that would have ended the kernel, or printed without end,
    also where a thread or a timer did it long after the cell."""
    return json.dumps(_effects)


def _note(problem: str, what: str) -> None:
    origin = getattr(threading.current_thread(), "_started_by", "") or _origin.get()
    if (entry := (origin, problem, what)) not in _effects:
        _effects.append(entry)


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
    """Limit this process, and keep it alive.

    Args:
        shell: the running InteractiveShell.
        memory: bytes; asking for more raises MemoryError instead of taking the machine's last memory. Not on Windows;
            macOS does not count it.
        output: characters that a cell may print, with the threads it starts; what prints more stops with TooMuchOutput.
    """
    _limit_memory(memory)
    _effects.clear()
    _count_output(shell, output)
    _know_origins(shell)
    _stay_alive(shell)


def _count_output(shell: Any, most: int) -> None:
    printed: dict[str, int] = {}
    kind = type(sys.stdout)

    def counted(self: Any, text: str) -> int:
        thread = threading.current_thread()
        origin = getattr(thread, "_started_by", "")
        if thread is not threading.main_thread() and not origin:
            return write(self, text)  # of another process, passed on by a thread that must live; the reader counts it
        printed[origin] = printed.get(origin, 0) + len(text)
        if printed[origin] > most:
            if origin:  # the error itself is seen by nobody
                _note("loud", "a thread")
            raise TooMuchOutput(f"more than {most / 1e6:g} million characters in one cell")
        return write(self, text)

    # In the class: IPython puts its own functions over the streams while a cell runs, and leaves the old ones there.
    for stream in (sys.stdout, sys.stderr):
        vars(stream).pop("write", None)
    write = _instead_of(kind, "write", counted)
    shell.events.register("pre_run_cell", lambda *_: printed.__setitem__("", 0))


def _instead_of(owner: Any, name: str, function: Callable) -> Callable:
    """Put a function in place of another one; returns that, however often it was replaced before."""
    present = getattr(owner, name)
    function._original = original = getattr(present, "_original", present)  # type: ignore[attr-defined]
    setattr(owner, name, function)
    return original


def _know_origins(shell: Any) -> None:
    """From now on each run of a cell, and each thread that it starts, knows its `_origin`."""
    before = getattr(shell, "_fsslib_origin", None)
    if before is not None:
        shell.events.unregister("pre_run_cell", before)

    def begin(*_: Any) -> None:
        _origin.set(shell.get_parent().get("header", {}).get("msg_id", ""))

    shell._fsslib_origin = begin
    shell.events.register("pre_run_cell", begin)
    shell.events.register("post_run_cell", _stop_alarms)

    def started(thread: threading.Thread) -> None:
        thread._started_by = getattr(threading.current_thread(), "_started_by", "") or _origin.get()  # type: ignore
        start(thread)

    start = _instead_of(threading.Thread, "start", started)


def _stay_alive(shell: Any) -> None:
    """What a cell does to end Python is noted instead, whoever does it and when: a thread, a timer, an event loop."""
    kernel = os.getpid()
    shell.ask_exit = lambda: _note("left", "exit()")
    loop = getattr(getattr(getattr(shell, "kernel", None), "io_loop", None), "asyncio_loop", None)
    if loop is not None:  # the one that waits for the next cell
        loop.stop = lambda: _note("left", "stopping the kernel's event loop")

    def guarded(owner: Any, name: str, ends: Callable[..., bool]) -> None:
        def refuse(*arguments: Any, **options: Any) -> Any:
            # Other processes may end; ipykernel itself ends this one when nobody listens any more.
            by = sys._getframe(1).f_globals.get("__name__", "")
            if os.getpid() != kernel or by.startswith("ipykernel") or not ends(*arguments):
                return original(*arguments, **options)
            _note("left", f"{owner.__name__}.{name}")
            raise EndsPython(f"{owner.__name__}.{name} ends Python, and with it the kernel")

        original = _instead_of(owner, name, refuse)

    for name in ("_exit", "abort", "execv", "execve"):
        guarded(os, name, lambda *_: True)
    ours = {kernel, 0, -1, -os.getpgrp(), os.getppid()} if hasattr(os, "getpgrp") else {kernel}
    guarded(os, "kill", lambda pid, number: pid in ours and _is_fatal(number))
    guarded(signal, "raise_signal", _is_fatal)
    if hasattr(os, "killpg"):
        guarded(os, "killpg", lambda group, number: group in (0, os.getpgrp()) and _is_fatal(number))


def _is_fatal(number: int) -> bool:
    """Whether a signal ends this process: nobody handles it, and that is what the system then does."""
    harmless = {getattr(signal, f"SIG{name}", None) for name in ("INT", "CHLD", "CONT", "URG", "WINCH")}
    return number != 0 and number not in harmless and signal.getsignal(number) in (signal.SIG_DFL, None)


def _stop_alarms(*_: Any) -> None:
    """An alarm that a cell has set would ring in another one."""
    faulthandler.cancel_dump_traceback_later()
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        if hasattr(signal, name):
            signal.setitimer(getattr(signal, name), 0)
