"""The command line: `python -m fsslib.experiments help`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
