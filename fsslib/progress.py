"""Progress bars that fit where they run: a widget in a notebook, a line in a terminal, nothing where it is unwanted."""

import os
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
