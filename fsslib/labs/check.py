"""`check(my_function)`: cases, the usual slips and properties of one exercise, in less than a second."""

import contextlib
import difflib
import html
import inspect
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .exercise import Exercise, Wrong, exercises

LIMIT = 5.0  # seconds of processor time; a right answer needs less than one
WAIT = 60.0  # seconds by the clock in which an answer may do next to nothing
IDLE = 0.02  # share of the time below which something waits; one of fifty busy programs on a core still gets more
TURN = "your turn"  # the stubs raise NotImplementedError("name: your turn")
# status -> (mark, words, colour of the bar beside it); the words say it without the colour.
_LOOKS = {
    "right": ("✓", "right", "#009e73"), "recorded": ("✎", "recorded", "#0072b2"), "wrong": ("✗", "not yet", "#d55e00"),
    "stopped": ("✗", "stopped with an error", "#d55e00"), "slow": ("✗", "took too long", "#d55e00"),
    "unknown": ("?", "not an exercise", "#d55e00"), "missing": ("?", "not found", "#d55e00"),
    "unsolved": ("…", "not solved yet", "#0072b2"),
}  # fmt: skip
DONE = ("right", "recorded")
# What an exception usually means here: pattern of its text -> "slip: message".
_CAUSES = {
    r"must match the size|shape mismatch|shapes? .* not (aligned|match)|size mismatch|could not be broadcast|cannot be "
    r"multiplied": "sizes do not fit: Tensors of different sizes meet. Masks have the size of the image, features that "
    "of the grid: was one of them resized to the other? Print both shapes.",
    r"requires grad.*numpy|call \.?detach": "left the graph: The answer leaves PyTorch on its way: stay with tensors.",
}


class TooLong(BaseException):
    """The time is over, and which. Not an Exception: a student's `except Exception` must not swallow it."""


class Meter:
    """What is used from now on: at most `seconds` of processor time, so that the machine's speed and its other work do
    not matter, and never `wait` seconds by the clock with next to none. `clock` gives the processor time."""

    def __init__(self, clock: Callable[[], float], seconds: float, wait: float):
        self.clock, self.seconds, self.wait = clock, seconds, wait
        self.start = clock()
        self.looked = time.monotonic()
        self.window = self.looked, self.start

    def exceeded(self) -> str:
        """Which of the two limits was hit, as a sentence, or ""."""
        now = time.monotonic()
        if now < self.looked + 0.3:  # looking costs time, too
            return ""
        used, asleep = self.clock(), now > self.looked + 30  # a laptop that was closed
        self.looked = now
        if used - self.start > self.seconds:
            return f"Stopped: it used {self.seconds:g} s of processor time. Is there a loop without an end?"
        if now < self.window[0] + self.wait and not asleep:
            return ""
        if asleep or used - self.window[1] > IDLE * self.wait:
            self.window = now, used
            return ""
        time_waited = f"{self.wait / 60:.3g} minutes" if self.wait > 60 else f"{self.wait:.3g} seconds"
        return f"Stopped: it waited {time_waited} without computing. Does it sleep, or wait for somebody's answer?"


@contextlib.contextmanager
def time_limit(seconds: float, wait: float = WAIT) -> Iterator[None]:
    """Raise TooLong in the block after `seconds` of the thread's processor time, or `wait` seconds with next to none.

    Works in the main thread of systems that have alarms (not Windows, which is said once); elsewhere the block runs on
    without a limit.
    """
    alarms = hasattr(signal, "setitimer")
    if not alarms:
        warnings.warn("This system has no alarms: answers are checked without a limit of time.", stacklevel=3)
    if threading.current_thread() is not threading.main_thread() or not alarms:
        yield
        return
    meter = Meter(time.thread_time, seconds, wait)

    def look(*_: Any) -> None:
        if end := meter.exceeded():
            # Again after a second: this one may be caught by a bare `except:` in a loop.
            signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
            raise TooLong(end)

    before = signal.signal(signal.SIGALRM, look)
    tick = min(0.5, seconds / 4)
    signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Result:
    """The outcome of one check; true if the answer is right, or written and recorded, so that `assert check(answer)`
    grades in pytest.

    Attributes:
        name: of the exercise, which is the function's.
        status: "right", "recorded" (an open question: only its form was checked), "wrong", "stopped" (an exception),
            "slow", "unsolved" (the stub), "missing" (the notebook has no such function) or "unknown" (no exercise).
        message: for the student; names the missing idea.
        slip: short name of the misconception for the class table, or "".
    """

    name: str
    status: str
    message: str
    slip: str = ""

    def __bool__(self) -> bool:
        return self.status in DONE

    def __repr__(self) -> str:
        mark, words, _ = _LOOKS[self.status]
        return f"{mark} {self.name}: {words}. {self.message}".rstrip()

    def _repr_html_(self) -> str | None:
        if self and not self.message:  # a short line needs no box, and stored notebooks stay small
            return None
        mark, words, colour = _LOOKS[self.status]
        lines = "".join(f"<br>{_marked(line)}" for line in self.message.splitlines())
        return (
            f'<div role="status" style="border-left:4px solid {colour};padding:2px 10px">'
            f"<b>{mark} <code>{html.escape(self.name)}</code>: {words}.</b>{lines}</div>"
        )


def _marked(text: str) -> str:
    """`code` and *emphasis* as HTML; everything else as it is."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"(?<![\w*])\*(\w[^*]*?)\*(?![\w*])", r"<em>\1</em>", safe)


class _Stopped(Exception):
    """An answer raised `error` on the case `label`."""

    def __init__(self, label: str, error: BaseException):
        super().__init__(label)
        self.label, self.error = label, error


def check(function: Callable, limit: float = LIMIT) -> Result:
    """Check the answer to an exercise, which is found by the name of the function.

    Args:
        function: the student's function itself, without brackets behind it.
        limit: seconds of processor time after which an answer that does not end is stopped.
    Returns:
        a `Result`: shown by a notebook, true if the answer is right; the solution is never shown. Nothing is raised
        for a wrong answer, whatever the function does, except under nbgrader, which needs an AssertionError.
    """
    soften_stubs()
    result = check_named(function, _name(function, sys._getframe(1)), limit)
    if not result and os.environ.get("NBGRADER_EXECUTION"):
        raise AssertionError(repr(result))  # nbgrader gives points to every cell that does not raise
    return result


def _name(function: Any, caller: FrameType) -> str:
    """The exercise that a function answers: its own name, else the name that the calling cell has given to it, as
    decorators, `partial`, `lambda` and compilers make functions with other names, or with none."""
    own, known = str(getattr(function, "__name__", "")), exercises()
    if own in known or not callable(function) or isinstance(function, type):
        return own or type(function).__name__
    given = [n for n, value in {**caller.f_globals, **caller.f_locals}.items() if value is function and n in known]
    return (given or [own or type(function).__name__])[0]


def check_named(function: Any, name: str, limit: float = LIMIT) -> Result:
    """`check` of the answer to the exercise `name`, whatever the function calls itself."""
    known = exercises()
    if not callable(function) or isinstance(function, type) or (name not in known and not inspect.isroutine(function)):
        return Result(name, "unknown", _no_function(function))
    if name not in known:
        return Result(name, "unknown", _no_exercise(name, list(known)))
    task = known[name]
    import torch  # here: the command line needs the name of an exercise at most

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            with time_limit(limit):
                _try(task, function)
        except TooLong as end:
            return Result(task.name, "slow", str(end), "slow")
        except Wrong as mistake:
            return Result(task.name, "wrong", mistake.message, mistake.slip)
        except _Stopped as stop:
            return _stopped(task, function, stop)
        except Exception as error:  # an answer that is unlike anything: not even its comparison works
            words = f"The result cannot be compared with what is expected ({type(error).__name__}): look at its type."
            return Result(task.name, "wrong", words)
    words = "Nobody has judged it yet: your words are kept for your instructor, and the marking notes say for what."
    return Result(task.name, "recorded", words) if task.written else Result(task.name, "right", "")


def _try(task: Exercise, function: Callable) -> None:
    from .answers import difference

    _parameters(task, function)
    results = {label: _run(task, function, label, arguments) for label, arguments in task.cases().items()}
    for slip in task.slips:
        if _is_slip(slip.answer, task, results):
            raise Wrong(slip.name, slip.message)
    for label, arguments in task.cases().items():
        if isinstance(results[label], _Stopped):
            raise results[label]
        if problem := difference(results[label], task.reference(*arguments), task.atol):
            raise Wrong("", f"On {label}: {problem}")
    for test in task.tests:
        test(_guarded(function))


def _run(task: Exercise, function: Callable, label: str, arguments: tuple) -> Any:
    """The answer on one case, or the exception it stopped with. Raises Wrong if it wrote into its arguments."""
    import torch

    torch.manual_seed(0)
    before = [a.detach().clone() if isinstance(a, torch.Tensor) else None for a in arguments]
    try:
        result = function(*arguments)
    except NotImplementedError as error:
        raise _Stopped(label, error) from None
    except (Exception, SystemExit) as error:
        return _Stopped(label, error)
    for name, old, new in zip(task.parameters, before, arguments):
        if old is not None and not torch.equal(old.nan_to_num(), new.detach().nan_to_num()):
            why = f"the argument `{name}` was changed in place. Whoever calls the function still needs it"
            raise Wrong("input changed", f"On {label}: {why}: work on a copy.")
    return result


def _is_slip(answer: Callable, task: Exercise, results: dict[str, Any]) -> bool:
    """True if the slip explains every case on which it can be computed, and is wrong on one of them."""
    import torch

    from .answers import agree

    wrong = False
    for label, arguments in task.cases().items():
        torch.manual_seed(0)
        try:
            slipped = answer(*arguments)
        except Exception:  # no result of this slip on this case: an empty mask, one shot, ...
            continue
        if isinstance(results[label], _Stopped) or not agree(results[label], slipped, task.atol):
            return False
        wrong = wrong or not agree(slipped, task.reference(*task.cases()[label]), task.atol)
    return wrong


def _guarded(function: Callable) -> Callable:
    """The student's function for the tests: what it raises becomes a message, not a traceback."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (Exception, SystemExit) as error:
            raise _Stopped("another input", error) from None

    return call


def _parameters(task: Exercise, function: Callable) -> None:
    try:
        taken = inspect.signature(function)
    except (TypeError, ValueError):  # compiled code may not say
        return
    try:
        taken.bind(*task.parameters)
    except TypeError:
        wanted, given = ", ".join(task.parameters), ", ".join(taken.parameters)
        why = f"The function takes ({given}), but it is called with ({wanted}): keep the first line."
        raise Wrong("other arguments", why) from None


def _stopped(task: Exercise, function: Callable, stop: _Stopped) -> Result:
    error = stop.error
    if isinstance(error, NotImplementedError):
        return Result(task.name, "unsolved", "Replace the line with `raise NotImplementedError` by your own answer.")
    code = getattr(inspect.unwrap(function), "__code__", None) or getattr(type(function).__call__, "__code__", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    where = f" in line {lines[-1]} of its cell" if lines else ""
    text = str(error).strip().splitlines()
    words = f"{type(error).__name__}{': ' + text[0][:200] if text else ''}"
    slip, cause = type(error).__name__, ""
    for pattern, named in _CAUSES.items():
        if re.search(pattern, str(error)):
            slip, cause = named.split(": ", 1)
    return Result(task.name, "stopped", f"On {stop.label} it stopped{where} with {words}\n{cause}".strip(), slip)


def _no_function(value: Any) -> str:
    if isinstance(value, str):
        return f"A text was given. Give the function itself: check({value}) without quotes."
    if callable(value):
        return "Give a plain function, made with `def` or bound to the exercise's name: it is found by that name."
    return "A value was given. Give the function itself, without brackets behind its name."


def _no_exercise(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no exercise of this name; exercises are found by the name of their function.{hint}"


def soften_stubs() -> None:
    """In a notebook: a stub that is called says kindly whose turn it is, without a traceback. The cell still counts as
    failed, so that "run all" stops there. Nothing outside IPython, or where somebody handles exceptions already."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((NotImplementedError,), _say)


def _say(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None) -> list[str] | None:
    stub = re.fullmatch(rf"(\w+): {TURN}", str(error))
    if not stub:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return None
    lines = [f"{stub[1]} is not solved yet.", "The notebook stops here until it is; its question stands above."]
    shell._showtraceback(kind, error, lines)
    return lines
