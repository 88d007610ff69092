"""Progress bars that fit where they run: a widget in a notebook, a line in a terminal, nothing where it is unwanted."""

import os
from collections.abc import Iterable
from typing import Any


def bar(steps: Iterable | None = None, *, desc: str, show: bool = True, **options) -> Any:
    """A tqdm bar that disappears when it is done; `show=False` or TQDM_DISABLE=1 in the environment leaves it out.

    The notebook's bar ignores that variable by itself.
    """
    from tqdm.auto import tqdm as auto

    quiet = not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return auto(steps, desc=desc, leave=False, disable=quiet, **options)
