"""Writing large things where there may be no room, no permission, or somebody else at work."""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import DownloadError

# What file systems answer that know no locks (some cluster and network disks): then one process is taken for granted.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def amount(size: int) -> str:
    """Bytes for people: `"1.9 GB"`."""
    value, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 100 or unit == "bytes" else f"{value:.1f} {unit}"


def existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(existing(folder)).free
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
        if error.errno in _FULL:
            more = f"; {amount(needed)} more are needed" if needed else ""
            text = f"the disk (or your quota) is full while writing {path}{more}. Free some space and run again."
        elif error.errno == errno.EFBIG:
            text = f"the file system does not allow a file as large as {path}: choose a folder on another disk."
        else:
            text = (
                f"cannot write {error.filename or path}: {error.strerror or error}. Choose a folder you can write to."
            )
        raise DownloadError(text) from error


def lock_of(path: Path) -> Path:
    """The lock file of `alone(path)`; there while somebody is at work, or after a kill."""
    return path.with_name(f".{path.name.removeprefix('.')}.lock")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold `path` for this process (a hidden lock file beside it); whoever comes second waits.

    The system lets go of the lock when the process dies, however it dies. Raises DownloadError where no lock file can
    be written.
    """
    name, handle = lock_of(path), None
    while handle is None:
        with writing(name):
            handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            handle = _locked(handle, name, path)
        except BaseException:
            os.close(handle)
            raise
    try:
        yield
    finally:
        # Removed while it is held: whoever waits for it finds that the name has gone, and takes a new one.
        with contextlib.suppress(OSError):
            name.unlink()
        os.close(handle)


def _locked(handle: int, name: Path, path: Path) -> int | None:
    """The handle, locked; None (and closed) if its file was removed while this process waited."""
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{path.name}: another process is at work on it; waiting for it …", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise DownloadError(f"cannot lock {name}: {error.strerror}.") from error
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), os.stat(name)):
            return handle
    os.close(handle)
    return None
