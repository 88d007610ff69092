"""`submit`: one notebook, run again from nothing: its exercises, and the cells that lived on hidden state."""

import ast
import codecs
import hashlib
import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import FsslibError
from ..files import located, write_text
from ..names import __version__
from ..progress import bar
from .check import TURN
from .exercise import exercises
from .hidden_state import Finding, hidden_state, names
from .kernel import Kernel, Limits, Outcome, fresh_kernel

FORMAT = 1
SUFFIX = ".result.json"


class SubmissionError(FsslibError, ValueError):
    """A file that is not a notebook of this course."""


def submit(path: str | Path, name: str = "", limits: Limits | None = None, progress: bool = True) -> dict[str, Any]:
    """Run a notebook in a fresh kernel and check its exercises.

    Args:
        path: the finished notebook. It is read only, and runs in an empty folder.
        name: of the student, written into the result.
        limits: time, output and memory; what exceeds them is stopped and reported.
        progress: show a bar on standard error.
    Returns: the result; `write_result` makes a file of it.
    Raises SubmissionError if there is no such notebook, or none with exercises.
    """
    path = located(path, "notebook", SubmissionError)
    book, digest = read_notebook(path)
    stage = stage_of(book, path)
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    sources = [c["source"] for c in cells]
    start = time.monotonic()
    outcomes, rows = _run(sources, stage, limits or Limits(), partial(bar, desc=path.stem, show=progress))
    counts = [c["execution_count"] for c in cells]
    messages = [outcome.message for outcome in outcomes] + [row["message"] for row in rows or ()]
    missed = {name for text in messages for name in re.findall(r"name '(\w+)' is not defined", text)}
    well = [i for i, outcome in enumerate(outcomes) if outcome.status == "ok"]
    hidden = hidden_state(sources, counts, book["metadata"]["fsslib"]["names"], missed, well)
    # What the checks had said when the notebook was saved.
    claims = [[mark for text in c["said"] for mark in _marks(text)] for c in cells]
    reports = _reports(sources, outcomes, hidden, claims)
    numbers = [count for count in counts if count is not None]
    if numbers != sorted(numbers):
        reports.insert(0, {"cell": 0, "problem": "order", "message": "The cells were not run from top to bottom."})
    result = {"format": FORMAT, "stage": stage, "name": str(name), "notebook": path.name, "notebook_sha256": digest}
    result |= {"fsslib": __version__, "seconds": round(time.monotonic() - start, 1)}
    result |= {"exercises": rows if rows is not None else _unchecked(stage, outcomes), "cells": reports}
    # Half of a pair of surrogates, as in "\ud800", is no letter: no file could hold it.
    result = json.loads(json.dumps(result, ensure_ascii=False).encode("utf-8", "replace"))
    return result | {"sha256": sign(result)}


def read_notebook(path: str | Path) -> tuple[dict[str, Any], str]:
    """The notebook as a dict of format 4 and the SHA-256 of the file. Raises SubmissionError.

    Every cell has its `source` as one text, a whole number or None as `execution_count`, and `said`: the texts of its
    results.
    """
    path = located(path, "notebook", SubmissionError)
    try:
        raw = path.read_bytes()
    except OSError as error:
        places = path.parent / "notebooks" / path.name, Path(path.name), Path(f"{path}.ipynb")
        near = [place for place in places if place.is_file()]
        cure = f"Is it {near[0]}?" if near else "Name the .ipynb file, with its folder."
        raise SubmissionError(f"{path} cannot be read: {error.strerror}. {cure}") from error
    try:
        book = json.loads(raw.removeprefix(codecs.BOM_UTF8))
        meta = book.setdefault("metadata", {})
        meta["fsslib"] = ours = dict(meta.get("fsslib") or {})
        ours["names"] = {str(k): str(v) for k, v in dict(ours.get("names") or {}).items()}
        for cell in book["cells"]:
            # A half of a surrogate pair cannot be sent to a kernel.
            cell["source"] = "".join(cell["source"]).encode("utf-8", "replace").decode()
            count = cell.get("execution_count")
            cell["execution_count"] = count if isinstance(count, int) and not isinstance(count, bool) else None
            texts = [o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", [])]
            cell["said"] = ["".join(text) for text in texts]
        if book["nbformat"] != 4 or not {c["cell_type"] for c in book["cells"]} >= {"code"}:
            raise ValueError("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        advice = "open it in JupyterLab, save it and try again"
        raise SubmissionError(f"{path} is not a notebook (format 4), or it was cut short: {advice}.") from error
    return book, hashlib.sha256(raw).hexdigest()


def stage_of(book: dict[str, Any], path: Path) -> str:
    """Which notebook of the course this is: its metadata, else its exercises' names. Raises SubmissionError."""
    named = book["metadata"]["fsslib"].get("stage")
    if isinstance(named, str) and exercises(named):
        return named
    text = "\n".join(c["source"] for c in book["cells"])
    stages = [m.stage for m in exercises().values() if re.search(rf"^(def |### \d · `){m.name}\b", text, re.M)]
    if not stages:
        raise SubmissionError(f"{path} contains no exercise of this course: is it the right file?")
    return max(set(stages), key=stages.count)


def sign(result: dict[str, Any]) -> str:
    """SHA-256 of a result without its own signature: shows accidents and careless edits, not a determined forger."""
    text = json.dumps({k: v for k, v in result.items() if k != "sha256"}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_result(result: dict[str, Any], path: str | Path) -> Path:
    """Write a result beside its notebook (`NAME.result.json`) or to `path` if that ends in .json; returns the file.
    Raises OutputError."""
    path = located(path, "result")
    target = path if path.suffix == ".json" else path.with_name(path.stem + SUFFIX)
    return write_text(target, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _run(
    sources: list[str], stage: str, limits: Limits, shown: Callable
) -> tuple[list[Outcome], list[dict[str, Any]] | None]:
    """What became of each cell, and the verdicts on the exercises, None where there are none.

    Where a cell ends the kernel, those below it run in another one, together with all the others above it: a right
    answer stays right.
    """
    outcomes, rows = _attempt(sources, stage, limits, shown)
    gone = next((i for i, outcome in enumerate(outcomes) if outcome.gone), None)
    if gone is None:
        return outcomes, rows
    last = max(gone - 1, 0) if outcomes[gone].status == "skipped" else gone  # it ended between two cells
    if last < gone:
        outcomes[last].status = "dead"
    others, rows = _attempt([text if i != last else "" for i, text in enumerate(sources)], stage, limits, shown)
    for first, second in zip(outcomes, others):
        first.effects = first.effects or second.effects  # those of the first run went with its kernel
    return outcomes[: last + 1] + others[last + 1 :], rows


def _attempt(
    sources: list[str], stage: str, limits: Limits, shown: Callable
) -> tuple[list[Outcome], list[dict[str, Any]] | None]:
    """All cells in one kernel; see `_run`."""
    outcomes = []
    with fresh_kernel(limits) as kernel:
        for source in shown(sources, unit="cell"):
            outcomes.append(kernel.run(source) if source.strip() else Outcome("ok"))
        rows = _in_kernel(kernel, f"verdicts(globals(), {stage!r})", 10.0 + 8.0 * len(exercises(stage)))
        effects = _in_kernel(kernel, "effects()", 10.0) or []
    for outcome in outcomes:
        done = [(problem, what) for request, problem, what in effects if outcome.request == request != ""]
        outcome.effects = done or [("left", "exit()")] * outcome.left
    return outcomes, rows


def _in_kernel(kernel: Kernel, call: str, seconds: float) -> Any:
    """The value of JSON that a function of `fsslib.labs.in_kernel` returns, or None."""
    answer = kernel.ask(f"__import__('fsslib.labs.in_kernel', fromlist=['x']).{call}", seconds)
    try:
        return json.loads(ast.literal_eval(answer)) if answer else None
    except (ValueError, SyntaxError, TypeError):
        return None


def _unchecked(stage: str, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    last = max((i + 1 for i, o in enumerate(outcomes) if o.status in ("dead", "slow", "loud")), default=0)
    last = next((i + 1 for i, o in enumerate(outcomes) if o.effects), last)
    why = f"Not checked: the kernel had ended in cell {last}." if last else "Not checked: the kernel gave no answer."
    return [{"name": n, "status": "unchecked", "slip": "", "message": why} for n in exercises(stage)]


def _marks(text: str) -> list[str]:
    return re.findall(r"^[✓✎✗…?] \w+: [a-z ]+", text)


def _reports(
    sources: list[str], outcomes: list[Outcome], hidden: list[Finding], claims: list[list[str]]
) -> list[dict[str, Any]]:
    """What to tell about cells, in their order; numbers count code cells from 1."""
    rows = []

    def tell(i: int, problem: str, message: str) -> None:
        first = next((x.strip() for x in sources[i].splitlines() if x.strip()), "")
        rows.append({"cell": i + 1, "source": first[:60], "problem": problem, "message": message})

    waiting: set[str] = set()
    for i, outcome in enumerate(outcomes):
        findings = [f for f in hidden if f.cell == i]
        for problem, what in outcome.effects:
            tell(i, problem, _EFFECTS[problem].format(what))
        lost = re.fullmatch(r"name '(\w+)' is not defined", outcome.message)
        stub = outcome.error == "NotImplementedError" and outcome.message.endswith(TURN)
        if stub or (lost and lost[1] in waiting):
            waiting |= names(sources[i]).bound  # what follows from an unsolved exercise is no mistake
        elif outcome.error == "NameError" and lost:
            stopped = [k for k in range(i) if outcomes[k].status != "ok"]
            failed = [k + 1 for k in stopped if _would_define(sources[k], lost[1])]
            reason = [f.message for f in findings if f.name == lost[1] and not failed]
            cause = [f"Cell {failed[-1]} would have defined it, but it stopped."] if failed else reason
            tell(i, "hidden state" if reason else "error", " ".join([f"{outcome.message}.", *cause]))
        elif outcome.error == "EndsPython":
            continue  # told with its effects
        elif outcome.error == "MemoryError":
            tell(i, "memory", "Stopped: it asked for more memory than a submission may use (MemoryError).")
        elif outcome.status == "error":
            tell(i, "error", ": ".join(filter(None, (outcome.error, outcome.message))))
        elif outcome.status == "slow":
            tell(i, "slow", outcome.message)
        elif outcome.status in _ENDS and not (i and outcomes[i - 1].status == outcome.status == "skipped"):
            tell(i, outcome.status, _ENDS[outcome.status])
        elif outcome.status == "ok":
            for finding in findings:
                tell(i, "hidden state", finding.message)
            now = [m for text in outcome.texts for m in _marks(text)]
            if claims[i] and now and claims[i] != now:
                message = f'The saved notebook says "{claims[i][0]}", the fresh run "{now[0]}": the definitions it was '
                tell(i, "hidden state", message + "run with are not those that are in the notebook now.")
    return rows


def _would_define(source: str, name: str) -> bool:
    """Whether a cell that stopped sets a name; one that is no Python may, if it mentions it."""
    found = names(source)
    return bool({name, "*"} & found.bound) or (not any(found) and bool(re.search(rf"\b{name}\b", source)))


_ENDS = {
    "loud": "Stopped: it printed more than the limit of output. Print less, or only at the end of a loop.",
    "dead": "The kernel ended while this cell ran: too much memory, a fault in compiled code, or something that was "
    "started here or in a cell above. The cells below were run without it.",
    "skipped": "Not run: the kernel had ended, or the time for the whole notebook was over.",
}
_EFFECTS = {
    "left": "{} ends the kernel: in JupyterLab no cell below it runs. Remove it; here they were run all the same.",
    "loud": "Stopped: {} of this cell went on printing beyond the limit of output. Let it end, or print less.",
}
