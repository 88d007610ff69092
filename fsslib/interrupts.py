"""Ctrl-C at a moment when the work can be kept."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called; a second one gets through at once."""
    waiting: list[int] = []

    def note(number: int, frame: object) -> None:
        if waiting:
            raise KeyboardInterrupt
        waiting.append(number)

    def release() -> None:
        if waiting:
            raise KeyboardInterrupt

    # Only Python's own handler is replaced: whoever ignores or redirects the signal has a reason.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield release
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
