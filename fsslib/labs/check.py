"""`check(my_function)`: cases, the usual slips and properties of one exercise, in less than a second."""

import difflib
import inspect
import os
import re
import traceback
from collections.abc import Callable
from typing import Any

from .exercise import Exercise, Wrong, exercises
from .limits import TooLong, time_limit
from .result import Result
from .shell import soften_stubs

LIMIT = 5.0  # seconds of processor time; a right answer needs less than one


# What an exception usually means here: pattern of its text -> (slip, message).
_CAUSES = {
    r"must match the size|shape mismatch|shapes? .* not (aligned|match)|size mismatch|could not be broadcast|cannot be "
    r"multiplied": (
        "sizes do not fit",
        "Tensors of different sizes meet. Masks have the size of the image, features that of the grid: was one of them "
        "resized to the other? Print both shapes.",
    ),
    r"requires grad.*numpy|call \.?detach": (
        "left the graph",
        "The answer leaves PyTorch on its way: stay with tensors.",
    ),
}


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
    result = _check(function, limit)
    if not result and os.environ.get("NBGRADER_EXECUTION"):
        raise AssertionError(repr(result))  # nbgrader gives points to every cell that does not raise
    return result


def _check(function: Callable, limit: float) -> Result:
    if not inspect.isfunction(function):
        return Result(_name_of(function), "unknown", _no_function(function))
    known = exercises()
    if function.__name__ not in known:
        return Result(function.__name__, "unknown", _no_exercise(function.__name__, list(known)))
    made = known[function.__name__]
    import torch  # here: the command line needs the name of an exercise at most

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            with time_limit(limit):
                _try(made, function)
        except TooLong as end:
            return Result(made.name, "slow", str(end), "slow")
        except Wrong as found:
            return Result(made.name, "wrong", found.message, found.slip)
        except _Stopped as found:
            return _stopped(made, function, found)
        except Exception as error:  # an answer that is unlike anything: not even its comparison works
            said = f"The result cannot be compared with what is expected ({type(error).__name__}): look at its type."
            return Result(made.name, "wrong", said, "")
    return Result(made.name, "right", "" if not made.written else "Your words are kept for your instructor.")


def _try(made: Exercise, function: Callable) -> None:
    from .compare import difference

    _parameters(made, function)
    found = {label: _run(function, label, arguments) for label, arguments in made.cases().items()}
    for slip in made.slips:
        if _is_slip(slip.answer, made, found):
            raise Wrong(slip.name, slip.message)
    for label, arguments in made.cases().items():
        if isinstance(found[label], _Stopped):
            raise found[label]
        if (said := difference(found[label], made.reference(*arguments), made.atol)) is not None:
            raise Wrong("", f"On {label}: {said}")
    for test in made.tests:
        test(_guarded(function))


def _run(function: Callable, label: str, arguments: tuple) -> Any:
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
    for name, old, new in zip(inspect.signature(function).parameters, before, arguments):
        if old is not None and not (
            old.shape == new.shape and torch.equal(old.nan_to_num(), new.detach().nan_to_num())
        ):
            raise Wrong(
                "input changed",
                f"On {label}: the argument `{name}` was changed in place. Whoever calls the function still needs it: "
                "work on a copy.",
            )
    return result


def _is_slip(answer: Callable, made: Exercise, found: dict[str, Any]) -> bool:
    """True if the slip explains every case on which it can be computed, and is wrong on one of them."""
    import torch

    from .compare import agree

    seen = False
    for label, arguments in made.cases().items():
        torch.manual_seed(0)
        try:
            slipped = answer(*arguments)
        except Exception:  # no result of this slip on this case: an empty mask, one shot, ...
            continue
        if isinstance(found[label], _Stopped) or not agree(found[label], slipped, made.atol):
            return False
        seen = seen or not agree(slipped, made.reference(*made.cases()[label]), made.atol)
    return seen


def _guarded(function: Callable) -> Callable:
    """The student's function for the tests: what it raises becomes a message, not a traceback."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (Exception, SystemExit) as error:
            raise _Stopped("another input", error) from None

    return call


def _parameters(made: Exercise, function: Callable) -> None:
    try:
        inspect.signature(function).bind(*made.parameters)
    except TypeError:
        wanted, given = ", ".join(made.parameters), ", ".join(inspect.signature(function).parameters)
        raise Wrong(
            "other arguments", f"The function takes ({given}), but it is called with ({wanted}): keep the first line."
        ) from None


def _stopped(made: Exercise, function: Callable, found: _Stopped) -> Result:
    error = found.error
    if isinstance(error, NotImplementedError):
        return Result(made.name, "unsolved", "Replace the line with `raise NotImplementedError` by your own answer.")
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == function.__code__.co_filename]
    where = f" in line {lines[-1]} of its cell" if lines else ""
    said = str(error).strip().splitlines()
    words = f"{type(error).__name__}{': ' + said[0][:200] if said else ''}"
    slip, cause = type(error).__name__, ""
    for pattern, named in _CAUSES.items():
        if re.search(pattern, str(error)):
            slip, cause = named
    return Result(made.name, "stopped", f"On {found.label} it stopped{where} with {words}\n{cause}".strip(), slip)


def _name_of(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _no_function(value: Any) -> str:
    if isinstance(value, str):
        return f"A text was given. Give the function itself: check({value}) without quotes."
    if callable(value):
        return "Give a plain function, made with `def`: exercises are found by the function's name."
    return "A value was given. Give the function itself, without brackets behind its name."


def _no_exercise(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no exercise of this name; exercises are found by the name of their function.{hint}"
