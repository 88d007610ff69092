"""kill -9 at random moments of a piece of work, again and again: nothing half, nothing lost, and the end is the same.

`FSSLIB_KILLS=100` kills each piece of work that often; without it a small number is kept in the tests.
"""

import ctypes
import os
import random
import re
import select
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import RawArray
from pathlib import Path

KEPT = int(os.environ.get("FSSLIB_KILLS", "10"))
# Functions in C that change files: a step is right before and right after each call of one.
CHANGING = {"open", "write", "writelines", "close", "__exit__", "flush", "truncate", "utime", "touch", "mkdir", "rmdir"}
CHANGING |= {"rename", "replace", "remove", "unlink", "write_record", "write_end_of_file"}
WAYS = ("at a step", "by time")


@dataclass
class Work:
    """What is killed.

    Attributes:
        do: makes everything in a folder, or goes on with what is there; fails where its own result is wrong.
        kept: how much of the work is safe in a folder; no kill may make it less. Fails where that cannot be read.
        read: what counts of a file. Fails for half a file.
        begin: what lies in the folder before.
        growing: files that change until the end, by the end of their name.
    """

    do: Callable[[Path], object]
    kept: Callable[[Path], int]
    read: Callable[[Path], object] = Path.read_bytes
    begin: Callable[[Path], object] = Path.mkdir
    growing: tuple[str, ...] = ()


def attempt(work: Work, folder: Path, step: int = 0, seconds: float = 0.0) -> tuple[bool, float, float]:
    """Do it in a fork, which is killed at a step of its or any process that it forks (0: never), or when it has used so
    many seconds of the processor, wherever it is then. Returns whether it came to its end, its steps, its seconds.

    Whatever it has started ends with it. Raises AssertionError if something lives on, or for an error of the work.
    """
    used, (living, held) = RawArray("d", 2), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(living)
            _arm(used, step, seconds)
            work.do(folder)
            sys.setprofile(None)
            used[1] = time.process_time()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    os.close(held)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert select.select([living], [], [], 600)[0], "something that it started is still at work"
    os.close(living)
    assert status in (0, -signal.SIGKILL), f"it ended with status {status}"
    return status == 0, used[0], used[1]


def _arm(used: RawArray, step: int, seconds: float) -> None:
    main = os.getpid()

    def count(frame: object, event: str, function: object) -> None:
        if event[:2] == "c_" and getattr(function, "__name__", "") in CHANGING:
            used[0] += 1
            if used[0] == step:
                os.kill(main, signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    if seconds:  # timer_create and timer_settime, of the clock CLOCK_PROCESS_CPUTIME_ID: the system sends the signal
        system, timer = ctypes.CDLL(None), ctypes.c_void_p()
        refused = system.timer_create(2, struct.pack("Pii48x", 0, signal.SIGKILL, 0), ctypes.byref(timer))
        when = struct.pack("4l", 0, 0, int(seconds), int(seconds % 1 * 1e9))
        assert not refused and not system.timer_settime(timer, 0, when, None)


def survives(work: Work, folder: Path, seed: str, kills: int = KEPT) -> Counter:
    """Kill `work` that often, half of the times again while it goes on, and compare every end with that of an
    undisturbed one. An hour passes after each kill. Returns how often what happened."""
    work.begin(folder)
    work.do(folder)  # in this process: what it imports and keeps in memory is in every fork
    whole, draw, counts = _files(work, folder), random.Random(seed), Counter()
    shutil.rmtree(folder)
    work.begin(folder)
    ended, steps, seconds = attempt(work, folder)
    assert ended and whole and _files(work, folder) == whole
    while sum(counts[by] for by in WAYS) < kills:
        shutil.rmtree(folder)
        work.begin(folder)
        kept, again, ended = 0, True, False
        while not ended:
            by, fraction = draw.choice(WAYS), draw.random()
            moment = {"at a step": {"step": 1 + int(fraction * steps)}, "by time": {"seconds": fraction * seconds}}[by]
            ended, *_ = attempt(work, folder, **(moment if again else {}))
            if not ended:
                counts[by] += 1
                _check(work, folder, whole)
                assert work.kept(folder) >= kept, "something that was safe is lost"
                kept, again = work.kept(folder), draw.random() < 0.5
        end = _files(work, folder)
        other = [name for name in {*end, *whole} if name not in end or name not in whole or end[name] != whole[name]]
        assert not other, f"another end in {', '.join(other)}"
        counts["same ends"] += 1
    return counts


def _files(work: Work, folder: Path) -> dict[str, object]:
    return {str(file.relative_to(folder)): work.read(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def _check(work: Work, folder: Path, whole: dict[str, object]) -> None:
    """What lies under its final name is whole; what does not gets old."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        name = str(file.relative_to(folder))
        if re.search(r"(^|/)\.|\.part(/|$)", name):
            os.utime(file, (1, 1))
        else:
            assert work.read(file) == whole.get(name) or name.endswith(work.growing), f"{name} is not whole"
