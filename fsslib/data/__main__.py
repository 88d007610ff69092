"""`python -m fsslib.data`: check a folder of your own pictures, or download a data set."""

import argparse
import sys
from collections.abc import Sequence

from ..errors import FsslibError
from ..progress import any_terminal
from .folder import LAYOUTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 for a clean folder or a finished download, 1 for problems, 2 when there is nothing to check."""
    any_terminal()
    parser = argparse.ArgumentParser(prog="python -m fsslib.data", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="{check,download}")
    check = commands.add_parser("check", help="list every problem of a folder with its file and its cure")
    check.add_argument("root", help="the folder, a COCO annotation file, or YOLO's data.yaml")
    check.add_argument("--layout", default="auto", choices=("auto", *LAYOUTS), help="default: found by itself")
    check.add_argument("--names", help="file with class names, one a line, or JSON")
    check.add_argument("--min-area", type=int, default=0, help="pixels from which on an image counts for a class")
    check.add_argument("--all", action="store_true", help="every problem, not only the first three of each kind")
    fetch = commands.add_parser("download", help="fetch what is missing of a data set; goes on where it was cut off")
    fetch.add_argument("name", choices=("pascal", "coco", "fss1000"))
    fetch.add_argument("root", help="folder to put it in")
    fetch.add_argument("--parts", nargs="+", help="only these, e.g. voc, or val2017 annotations2017")
    fetch.add_argument("--keep-archives", action="store_true", help="do not delete archives once they are unpacked")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "download":
            from .download.sources import download

            print(download(chosen.name, chosen.root, parts=chosen.parts, keep_archives=chosen.keep_archives))
            return 0
        from .folder.check import check_folder

        report = check_folder(chosen.root, layout=chosen.layout, names=chosen.names, min_area=chosen.min_area)
    except FsslibError as error:
        print(error, file=sys.stderr)
        return 1 if chosen.command == "download" else 2
    print(report.table(None if chosen.all else 3))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
