"""What people see while something runs: bars that fit where they run, lines and tables for any terminal."""

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


def bar(steps: Iterable | None = None, *, desc: str, show: bool = True, **options) -> Any:
    """A tqdm bar that disappears when it is done; `show=False` or TQDM_DISABLE=1 in the environment leaves it out.
    The notebook's bar ignores that variable by itself."""
    if not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        # Not a disabled tqdm: its lock is shared with forked processes, and one killed while holding it blocks all.
        return Silent(steps)
    from tqdm.auto import tqdm as auto

    return auto(steps, desc=desc, leave=False, **options)


class Silent:
    """What a bar can do, without a bar."""

    def __init__(self, steps: Iterable | None = None):
        self.steps, self.n = steps, 0

    def __iter__(self):
        return iter(self.steps)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, n: float = 1) -> None:
        """One step further."""
        self.n += n

    def close(self) -> None:
        """The end: nothing."""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many texts as lines of columns, each as wide as its widest text."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths)).rstrip() for row in rows)


# What stands for a mark that a terminal has not.
_MARKS = {"…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "±": "+/-", "≤": "<=", "≥": ">=", "→": "->"}
_MARKS |= {"✓": "+", "✔": "+", "✗": "x", "✘": "x", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\u00a0": " "}


def _legible(error: UnicodeError) -> tuple[str, int]:
    """Instead of an error at a terminal without these letters: other marks, letters without accents, or `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    made = ""
    for letter in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        made += _MARKS.get(letter) or plain or "?" * (not unicodedata.combining(letter))
    try:
        made.encode(error.encoding)
    except UnicodeEncodeError:
        made = "?" * (error.end - error.start)
    return made, error.end


codecs.register_error("fsslib", _legible)


def any_terminal() -> None:
    """Let what is printed from now on reach a terminal or log that is no UTF-8, with other marks where it has to be;
    every command line begins with this."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "backslashreplace") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="fsslib")


def say(*texts: object) -> None:
    """`print`, at once and at any terminal: it never raises UnicodeEncodeError."""
    any_terminal()
    print(*texts, flush=True)
