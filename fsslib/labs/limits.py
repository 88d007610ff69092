"""Stopping an answer that does not end."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

WAIT = 60.0  # seconds by the clock in which an answer may do next to nothing


class TooLong(BaseException):
    """The time is over, and which. Not an Exception: a student's `except Exception` must not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float, wait: float = WAIT) -> Iterator[None]:
    """Raise TooLong in the block after `seconds` of the thread's processor time, so that the machine's speed and its
    other work do not matter, or after `wait` seconds by the clock in which it computed next to nothing.

    Works in the main thread of systems that have alarms (not Windows); elsewhere the block runs on without a limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    computed, window = time.thread_time(), (time.monotonic(), time.thread_time())

    def look(*_: Any) -> None:
        nonlocal window
        now, used = time.monotonic(), time.thread_time()
        if used - computed > seconds:
            end = f"Stopped after {seconds:g} seconds of processor time: is there a loop without an end?"
        elif now - window[0] > wait:
            if used - window[1] > 0.02 * wait:
                window = now, used
                return
            end = f"Stopped: it waited {wait:g} seconds without computing. Does it sleep, or wait for an answer?"
        else:
            return
        # Again after a second: this one may be caught by a bare `except:` in a loop.
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
        raise TooLong(end)

    before = signal.signal(signal.SIGALRM, look)
    tick = min(0.5, seconds / 4)
    signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
