"""Limits that a kernel sets itself before a submission's first cell: memory, and what a cell prints."""

import sys
import threading
from typing import Any


class TooMuchOutput(BaseException):
    """A cell has printed more than its limit. Not an Exception: `except Exception` must not swallow it."""


def _limit_memory(size: int | None) -> None:
    """At most `size` bytes; None: as much as the system allows."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard if size is None else size, hard))
    except (ImportError, ValueError, OSError):
        pass


def unguard() -> None:
    """Give the checks the memory that they need, however much the cells have left behind."""
    _limit_memory(None)


def guard(shell: Any, memory: int, output: int) -> None:
    """Limit this process.

    Args:
        shell: the running InteractiveShell.
        memory: bytes; asking for more raises MemoryError instead of taking the machine's last memory. Not on Windows;
            macOS does not count it.
        output: characters that a cell may print; the cell that prints more stops with TooMuchOutput.
    """
    _limit_memory(memory)
    printed, kind = [0], type(sys.stdout)
    write = kind.write

    def counted(self: Any, text: str) -> int:
        if threading.current_thread() is not threading.main_thread():
            return write(self, text)  # of another process, passed on by a thread that must live; the reader counts it
        printed[0] += len(text)
        if printed[0] > output:
            raise TooMuchOutput(f"more than {output / 1e6:g} million characters in one cell")
        return write(self, text)

    # In the class: IPython puts its own functions over the streams while a cell runs, and leaves the old ones there.
    for stream in (sys.stdout, sys.stderr):
        vars(stream).pop("write", None)
    kind.write = counted  # type: ignore[method-assign]
    shell.events.register("pre_run_cell", lambda *_: printed.__setitem__(0, 0))
