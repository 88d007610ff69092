"""What an exercise is: a reference answer, cases to try, and the usual slips with the idea that each one misses.

An exercise is known by the name of its function and by nothing else, so that cells may be copied, split and moved.
"""

import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

Cases = dict[str, tuple]
WORDS = 25  # of an answer to an open question, at least


class Wrong(Exception):
    """Raised by a test of an answer: `message` names the missing idea, `slip` is its short name for the class table."""

    def __init__(self, slip: str, message: str):
        super().__init__(message)
        self.slip, self.message = slip, message


@dataclass(frozen=True)
class Slip:
    """A common wrong answer.

    Args:
        name: a few words for the table of a class, e.g. "mean over the wrong axis".
        message: what the student reads: which idea is missing, not how to write it.
        answer: computes the wrong result from the arguments of a case. It may raise where it has no result.
    """

    name: str
    message: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One exercise; made by `exercise` or `essay`.

    `cases()` gives new arguments on every call, the same values each time; its keys are read by students ("On an empty
    mask: ..."). `tests` are called with the student's function and raise `Wrong`.
    """

    stage: str
    reference: Callable[..., Any]
    cases: Callable[[], Cases]
    slips: Sequence[Slip] = ()
    tests: Sequence[Callable[[Callable], None]] = ()
    atol: float = 1e-4
    written: bool = False

    @property
    def name(self) -> str:
        """The name of the function a student has to write."""
        return self.reference.__name__

    @property
    def parameters(self) -> list[str]:
        """The names of its arguments, in order."""
        return list(inspect.signature(self.reference).parameters)


_ALL: dict[str, Exercise] = {}


def add(task: Exercise) -> Exercise:
    """Register an exercise; ValueError if another one has its name."""
    if _ALL.setdefault(task.name, task).stage != task.stage:
        raise ValueError(f"two exercises are called {task.name!r}: in {_ALL[task.name].stage} and in {task.stage}")
    return task


def exercise(
    stage: str, cases: Callable[[], Cases], slips: Mapping[str, Callable] | Sequence[Slip] = (), **options: Any
) -> Callable[[Callable], Exercise]:
    """Decorator: the function below it is the reference answer of an exercise in the notebook `stage`.

    Args:
        stage: the notebook's name, e.g. "01_prototypes".
        cases: called without arguments, returns {description: arguments}.
        slips: the usual wrong answers, {"name: message": answer} in the words of `Slip`, or `Slip` objects.
        options: `tests` and `atol` of `Exercise`.
    """
    if isinstance(slips, Mapping):
        slips = [Slip(*words.split(": ", 1), answer) for words, answer in slips.items()]
    return lambda reference: add(Exercise(stage, reference, cases, slips, **options))


@cache
def _load() -> None:
    package = import_module(".exercises", __package__)
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def exercises(stage: str | None = None) -> dict[str, Exercise]:
    """All exercises by name, or those of one notebook, in the order of their files."""
    _load()
    return {name: task for name, task in _ALL.items() if stage in (None, task.stage)}


def essay(stage: str, name: str, terms: Sequence[str]) -> Exercise:
    """An open question: the function takes nothing and returns a text of at least `WORDS` words, in which a measured
    number is quoted. Its form is checked, its content is for the instructor.

    Args:
        stage: the notebook's name. name: of the function.
        terms: words of the field, at least one of which a relevant answer contains (any case, parts of words count).
    """

    def reference() -> str:
        return ""

    def judge(answer) -> None:
        given = answer()
        if not isinstance(given, str):
            raise Wrong("no text", 'Return your answer as a text: return "...". A printed text is lost.')
        written = re.findall(r"[^\W\d_]+", given.lower())
        if len(written) < WORDS:
            raise Wrong("too short", f"{len(written)} words: say in at least {WORDS} words what happens, and why.")
        if len(set(written)) < WORDS // 2:
            raise Wrong("repeats itself", "Most words are the same: say what happens, and why, in sentences.")
        if not any(term.lower() in given.lower() for term in terms):
            raise Wrong("beside the point", f"Use the idea of this notebook that explains it: {' or '.join(terms)}.")
        if not re.search(r"\d", given):
            raise Wrong("no measurement", "Quote at least one number that you measured in this notebook.")

    reference.__name__ = name
    return add(Exercise(stage, reference, lambda: {}, tests=(judge,), written=True))
