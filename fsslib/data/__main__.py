"""`python -m fsslib.data check FOLDER`: what is wrong with a folder of your own pictures, and how to mend it."""

import argparse
import sys
from collections.abc import Sequence

from ..errors import DatasetError
from .folder_checks import check_folder
from .folder_layouts import LAYOUTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report. Returns 0 for a clean folder, 1 for problems, 2 when there is nothing to check."""
    parser = argparse.ArgumentParser(prog="python -m fsslib.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="check")
    check = commands.add_parser("check", help="list every problem of a folder with its file and its cure")
    check.add_argument("root", help="the folder, or a COCO annotation file")
    check.add_argument("--layout", default="auto", choices=("auto", *LAYOUTS), help="default: found by itself")
    check.add_argument("--names", help="file with class names, one a line, or JSON")
    check.add_argument("--min-area", type=int, default=0, help="pixels from which on an image counts for a class")
    check.add_argument("--all", action="store_true", help="every problem, not only the first three of each kind")
    chosen = parser.parse_args(arguments)
    try:
        report = check_folder(chosen.root, layout=chosen.layout, names=chosen.names, min_area=chosen.min_area)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.table(None if chosen.all else 3))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
