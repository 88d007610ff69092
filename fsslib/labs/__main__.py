"""The command line: `python -m fsslib.labs submit NOTEBOOK` and `python -m fsslib.labs collect FOLDER`."""

import argparse
import sys
from pathlib import Path

from ..errors import FsslibError
from .class_table import class_table, report, write_table
from .collect import OWN, collect
from .kernel import Limits
from .submit import submit, write_result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fsslib.labs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("submit", help="run a notebook in a fresh kernel, check its exercises, write the result")
    one.add_argument("notebook", type=Path)
    one.add_argument("--name", default="", help="your name, for the class table")
    one.add_argument("--out", type=Path, help="the result file (default: NOTEBOOK.result.json beside the notebook)")
    what = "the table of a class from a folder with notebooks and result files (submits what has no result)"
    every = commands.add_parser("collect", help=what)
    every.add_argument("folder", type=Path)
    every.add_argument("--rerun", action="store_true", help="run every notebook, whatever its result file says")
    every.add_argument("--out", type=Path, help="where class.csv, class.html and the results go (default: FOLDER)")
    every.add_argument("--jobs", type=int, default=1, help="notebooks at the same time (default 1)")
    for command in (one, every):
        for option, limit, what in (("--cell-limit", Limits.cell, "cell"), ("--limit", Limits.total, "notebook")):
            words = f"seconds of processor time for a {what} (default %(default)g)"
            command.add_argument(option, type=float, default=limit, help=words)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 if all exercises are right (`submit`), or the table was made (`collect`)."""
    given = _parser().parse_args(arguments)
    limits = Limits(cell=given.cell_limit, total=given.limit)
    try:
        if given.command == "submit":
            result = submit(given.notebook, given.name, limits, sys.stderr.isatty())
            target = write_result(result, given.out or given.notebook)
            print(report(result))
            print(f"\nResult: {target} - hand it in together with the notebook.")
            return int(any(row["status"] != "right" for row in result["exercises"]))
        rows = collect(given.folder, given.out or given.folder, limits, given.rerun, given.jobs)
        print(class_table(rows))
        for target in write_table(rows, (given.out or given.folder) / OWN):
            print(f"written: {target}")
        return 0
    except FsslibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
