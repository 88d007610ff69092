"""All checks of a notebook at once, in the kernel that ran it."""

import contextlib
import difflib
import inspect
import io
import json
from typing import Any

from .check import check
from .exercise import Exercise, exercises
from .guard import unguard
from .limits import TooLong, time_limit
from .result import Result

LONGEST = 20_000  # characters of a written answer that are kept


def verdicts(space: dict[str, Any], stage: str) -> str:
    """JSON: one object per exercise of `stage` (name, status, slip, message, and the text of a written answer).

    Args:
        space: the names that the notebook defined.
        stage: e.g. "01_prototypes".
    """
    unguard()
    rows = []
    for name, made in exercises(stage).items():
        function = space.get(name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = check(function) if inspect.isfunction(function) else _missing(made, space)
            # A function that was bound to the name of another exercise would be checked as that one.
            if result.name != name:
                result = Result(name, "missing", f"`{name}` is now another function, {result.name}: keep its name.")
            text = _text(function) if made.written and result else ""
        rows.append({"name": name, "status": result.status, "slip": result.slip, "message": result.message})
        rows[-1] |= {"answer": text} if text else {}
    return json.dumps(rows)


def _missing(made: Exercise, space: dict[str, Any]) -> Result:
    known = exercises()
    own = {
        name: value
        for name, value in space.items()
        if inspect.isfunction(value) and value.__module__ == "__main__" and name not in known
    }
    near = difflib.get_close_matches(made.name, own, n=1, cutoff=0.6)
    alike = [n for n, f in own.items() if list(inspect.signature(f).parameters) == made.parameters and made.parameters]
    renamed = (near or alike or [None])[0]
    if renamed:
        hint = f"Was it renamed to `{renamed}`? Give it the name `{made.name}` again."
    else:
        hint = f"Bring the cell with its first line back: `def {made.name}({', '.join(made.parameters)}):`."
    said = f"No function `{made.name}` in this notebook; exercises are found by their function's name. {hint}"
    return Result(made.name, "missing", said, "renamed" if renamed else "missing")


def _text(function: Any) -> str:
    try:
        with time_limit(2):
            return str(function())[:LONGEST]
    except (Exception, TooLong):
        return ""
