"""The command line: `python -m fsslib.labs submit NOTEBOOK` and `python -m fsslib.labs collect FOLDER`."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import FsslibError, OutputError
from ..progress import any_terminal, say
from .check import DONE
from .class_table import class_table, report, write_table
from .collect import OWN, collect, keep_all
from .gradebook import COLUMNS, DOUBLES, SYSTEMS, gradebook, read_roster, write_gradebook
from .kernel import Limits
from .submit import SubmissionError, submit, write_result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fsslib.labs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("submit", help="run a notebook in a fresh kernel, check its exercises, write the result")
    one.add_argument("notebook", type=Path, help="the finished notebook, e.g. notebooks/01_prototypes.ipynb")
    one.add_argument("--name", default="", help="your name, for the class table")
    one.add_argument("--out", type=Path, help="the result file (default: NOTEBOOK.result.json beside the notebook)")
    what = "the table of a class from a folder with notebooks and result files (submits what has no result)"
    every = commands.add_parser("collect", help=what)
    every.add_argument("folder", type=Path, help="with a subfolder or a file for each student")
    every.add_argument("--rerun", action="store_true", help="run every notebook, whatever its result file says")
    every.add_argument("--out", type=Path, help="what is written goes into OUT/class (default: FOLDER/class)")
    every.add_argument("--jobs", type=int, default=1, help="notebooks at the same time (default 1)")
    every.add_argument("--gradebook", choices=SYSTEMS, help="also write gradebook.csv, as this system imports it")
    every.add_argument("--roster", type=Path, help="CSV of the class with ids, e.g. the exported gradebook")
    every.add_argument("--columns", choices=COLUMNS, default="sum", help="a column a notebook, or one an exercise")
    every.add_argument("--due", type=_moment, help="2027-01-31, or 2027-01-31T12:00: a file changed later is late")
    every.add_argument("--late", type=float, default=1.0, help="share of its points that late work keeps (default 1)")
    every.add_argument("--double", choices=DOUBLES, default="best", help="which of several counts (default best)")
    for command in (one, every):
        for option, limit, what in (("--cell-limit", Limits.cell, "cell"), ("--limit", Limits.total, "notebook")):
            words = f"seconds of processor time for a {what} (default %(default)g)"
            command.add_argument(option, type=float, default=limit, help=words)
    return parser


def _moment(text: str) -> datetime:
    """A date, which lasts till its end, or a date with a time."""
    try:
        return datetime.fromisoformat(text + "T23:59:59" * (len(text) == 10))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as 2027-01-31 or 2027-01-31T12:00.") from error


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 if all exercises are done (`submit`), or the table was made (`collect`)."""
    given = _parser().parse_args(arguments)
    try:
        limits = Limits(cell=given.cell_limit, total=given.limit)
        return (_submit if given.command == "submit" else _collect)(given, limits)
    except FsslibError as error:
        any_terminal()
        print(f"error: {error}", file=sys.stderr)
        return 2


def _submit(given: argparse.Namespace, limits: Limits) -> int:
    result = submit(given.notebook, given.name, limits, sys.stderr.isatty())
    target, problem = _saved(partial(write_result, result), given.out or given.notebook, given.notebook.name)
    say(report(result))
    if problem:
        raise problem
    say(f"\nResult: {target} - hand it in together with the notebook.")
    return int(any(row["status"] not in DONE for row in result["exercises"]))


def _collect(given: argparse.Namespace, limits: Limits) -> int:
    out = given.out or given.folder
    roster = read_roster(given.roster) if given.roster else []  # before anything runs
    if given.gradebook:
        gradebook([], given.gradebook, late=given.late)
    elif given.roster or given.due:
        raise SubmissionError("--roster and --due are for a gradebook: add --gradebook canvas, moodle or csv.")
    rows = collect(given.folder, out, limits, given.rerun, given.jobs)

    text, remarks = "", []
    if given.gradebook:
        rules = {name: getattr(given, name) for name in ("columns", "due", "late", "double")}
        text, remarks = gradebook(rows, given.gradebook, roster=roster, **rules)

    def write(place: Path) -> list[Path]:
        if place != out:  # where `collect` has kept them already
            keep_all(rows, place)
        return [
            *write_table(rows, place / OWN),
            *([write_gradebook(text, place / OWN / "gradebook.csv")] if text else []),
        ]

    files, problem = _saved(write, out, "")
    say(class_table(rows))
    for remark in remarks:
        say(f"gradebook: {remark}")
    if problem:
        raise problem
    for file in files:
        say(f"written: {file}")
    return 0


def _saved(write: Callable[[Path], Any], place: Path, name: str) -> tuple[Any, OutputError | None]:
    """What `write(place)` returns. Where `place` cannot be written to, a new folder takes what took so long to find:
    the error says which."""
    try:
        return write(place), None
    except OutputError as error:
        with contextlib.suppress(OSError):
            elsewhere = Path(tempfile.mkdtemp(prefix="fsslib-labs-"))
            made = write(elsewhere / name)
            return made, OutputError(f"{error} Meanwhile it lies in {elsewhere}. --out names another place.")
        return None, error


if __name__ == "__main__":
    sys.exit(main())
