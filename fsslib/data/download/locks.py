"""Writing large things where there may be no room, no permission, or somebody else at work."""

import contextlib
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ...errors import DownloadError
from ...files import claim, lock_of


def amount(size: int) -> str:
    """Bytes for people: `"1.9 GB"`."""
    power = min((len(str(size)) - 1) // 3, 4)
    value = size / 1000**power
    return f"{value:.{int(power > 0 and value < 100)}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError unless the disk of `folder` (it may not be there yet) has `needed` bytes free."""
    free = shutil.disk_usage(next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())).free
    if free < needed:
        raise DownloadError(
            f"{what} needs {amount(needed)} more on the disk of {folder}, and {amount(free)} are free. "
            "Free some space, or choose a folder on another disk; what is there already is kept.",
        )


@contextlib.contextmanager
def writing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn what the system says about `path` into a DownloadError that says what to do; `needed` bytes are to come."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            more = f"; {amount(needed)} more are needed" if needed else ""
            text = f"the disk (or your quota) is full while writing {path}{more}. Free some space and run again."
        elif error.errno == errno.EFBIG:
            text = f"the file system does not allow a file as large as {path}: choose a folder on another disk."
        else:
            reason = error.strerror or error
            text = f"cannot write {error.filename or path}: {reason}. Choose a folder you can write to."
        raise DownloadError(text) from error


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold `path` for this process (see `files.claim`); whoever comes second waits.
    Raises DownloadError if its lock file cannot be written."""
    with contextlib.ExitStack() as held:
        with writing(lock_of(path)):
            try:
                held.enter_context(claim(path))
            except BlockingIOError:
                print(f"{path.name}: another process is at work on it; waiting for it …", file=sys.stderr, flush=True)
                held.enter_context(claim(path, wait=-1))
        yield
