"""`python -m fsslib COMMAND` in a clone: what the Makefile does, for machines without `make`. Imports no torch."""

import argparse
import subprocess
import sys
from importlib.util import find_spec

from .errors import FsslibError
from .files import repository_folder
from .progress import any_terminal

PYTHON = "python"  # the interpreter that runs this
# Command -> what it is for, and its calls; `make COMMAND` runs the same after the set-up.
COMMANDS: dict[str, tuple[str, list[list[str]]]] = {
    "reports": ("run the notebooks, train SD-AANet beside PANet, write runs/index.html",
                [[PYTHON, "-m", "fsslib.experiments", "reports"]]),
    "test": ("style, unit tests, and the notebooks' stored outputs",
             [[PYTHON, "-m", "ruff", "check", "."], [PYTHON, "-m", "ruff", "format", "--check", "."],
              [PYTHON, "-m", "pytest", "-q", "-n", "2"]]),
    "results": ("recompute data/results with the shipped weights", [[PYTHON, "tools/results.py"]]),
    "notebooks": ("rebuild the notebooks that are out of date", [[PYTHON, "tools/build.py"]]),
    "student": ("the edition for students: editions/student.zip", [[PYTHON, "tools/editions.py", "student"]]),
    "instructor": ("the edition for instructors: solutions, times, marking notes",
                   [[PYTHON, "tools/editions.py", "instructor"]]),
    "nbgrader": ("the course for nbgrader: editions/nbgrader", [[PYTHON, "tools/grading.py", "nbgrader"]]),
    "otter": ("the course for otter-grader: editions/otter", [[PYTHON, "tools/grading.py", "otter"]]),
    "site": ("notebooks, guides, reference and reports as a web site in site/", [[PYTHON, "tools/site.py"]]),
    "lab": ("open JupyterLab at the first notebook",
            [[PYTHON, "-m", "jupyter", "lab", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]]),
}  # fmt: skip
# What a command needs beyond its own file: a folder of the repository; a module, and the extra that brings it.
FOLDERS = {"test": "tests"}
EXTRAS = {"test": ("pytest", "test"), "site": ("sphinx", "site"), "lab": ("jupyterlab", "notebooks"),
          "reports": ("papermill", "notebooks")}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command in the repository's folder; words behind it go to its last call. Returns the exit status, 2 where
    a file or a module is missing."""
    any_terminal()
    listed = "\n".join(f"  {name:12}{what}" for name, (what, _) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m fsslib", epilog=f"commands:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command; --help lists them")
    given = parser.parse_args(arguments)
    calls, rest = COMMANDS[given.command][1], given.options
    try:
        folder = repository_folder()
    except FsslibError as error:
        print(error, file=sys.stderr)
        return 2
    needed = [word for call in calls for word in call if word.startswith("tools/")]
    gone = [word for word in [*needed, FOLDERS.get(given.command, "")] if not (folder / word).exists()]
    if gone:
        print(f"{gone[0]} is not in this copy: `{given.command}` needs the whole repository.", file=sys.stderr)
        return 2
    module, extra = EXTRAS.get(given.command, ("sys", ""))
    if not find_spec(module):
        print(f'{module} is not installed: `{given.command}` needs pip install -e ".[{extra}]"', file=sys.stderr)
        return 2
    for call in calls:
        words = [sys.executable if word == PYTHON else word for word in call] + (rest if call is calls[-1] else [])
        try:
            status = subprocess.run(words, cwd=folder).returncode
        except KeyboardInterrupt:
            status = 130
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
