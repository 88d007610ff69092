"""Paths as people give them, files written whole or not at all, and the folders of the clone."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import FsslibError, OutputError

LONGEST_NAME = 255  # bytes of a file's name on all usual file systems
LONGEST_SOCKET = 100  # bytes of a socket's path: 104 on macOS, 108 on Linux, with the closing zero
_CURES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free space there, or name another place.")
_CURES |= dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "A part of this path is a file: name a folder.")
_CURES |= {
    errno.ENAMETOOLONG: "Choose a shorter name.", errno.EISDIR: "This is a folder: name a file in it.",
    errno.EFBIG: "The file would be larger than is allowed here.",
}  # fmt: skip


def located(path: str | os.PathLike, what: str = "path", error: type[FsslibError] = FsslibError) -> Path:
    """The path that a person means; every public function that takes a path begins with this.

    `~` is the home folder. Spaces around a text and the backslashes of Windows are mended where nothing has that very
    name. Nothing needs to be there; relative paths stay relative, links stay links.

    Args: what: begins the message. error: the type that is raised.
    Raises `error`: no path at all, an unknown home, a drive of another system, a name that is too long, a folder on the
        way that cannot be entered.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise error(f"{what}: found {path!r}, expected a path: a text or pathlib.Path.")
    try:
        if not os.path.lexists(text):
            text = text.strip()
            if os.sep == "/" and "\\" in text and not os.path.lexists(text):
                if re.match(r"[A-Za-z]:", text):
                    cure = "name the path that it has on this machine"
                    raise error(f"{what}: {text} is a path of Windows, and this machine has no drives: {cure}.")
                text = text.replace("\\", "/")
        if not text:
            raise error(f"{what}: found an empty text, expected a path.")
        found = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(found)
    except RuntimeError as problem:
        raise error(f"{what}: {text}: {str(problem).rstrip('.')}. Write the folder's full path.") from problem
    except OSError as problem:
        cure = _CURES.get(problem.errno, "Check the path and who may read it.")
        raise error(f"{what}: {_short(text)} cannot be reached: {problem.strerror}. {cure}") from problem
    except ValueError as problem:  # a zero byte, or letters that the file system cannot write
        raise error(f"{what}: {_short(text)!r} cannot be a path here: {problem}. Use other letters.") from problem
    return found


def _short(text: str) -> str:
    return text if len(text) < 200 else f"{text[:80]} … {text[-80:]} ({len(text)} letters)"


@contextlib.contextmanager
def output(path: str | os.PathLike) -> Iterator[None]:
    """Turns the system's errors inside the block into one OutputError about `path`."""
    try:
        yield
    except FsslibError:
        raise
    except OSError as error:
        reason, cure = error.strerror or error, _CURES.get(error.errno, "Name a place that you may write to.")
        made = OutputError(f"{_short(os.fspath(path))} cannot be written: {reason}. {cure}")
        made.errno, made.strerror = error.errno, error.strerror
        raise made from error


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it only when the block ends without an error.

    A link is kept: the file that it leads to is replaced. What is no file (/dev/stdout) is written to, not replaced.
    Raises OutputError: what the system says against it, before the block runs where that can be known.
    """
    path = located(path, error=OutputError)
    with output(path):
        target = path.resolve() if path.is_symlink() else path
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        special = target.exists() and not target.is_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.gettempdir()) if special else target.parent
        part = folder / _temporary_name(target.name)
        try:
            part.touch()  # refused here, whatever library writes it later
            yield part
            _replace(part, target, special)
        finally:
            part.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """`name` with this process's number behind it; a hash of it where that would be too long for a file's name."""
    end = f".{os.getpid()}.part"
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    fits = len(os.fsencode(name + end)) <= LONGEST_NAME
    return (name if fits else hashlib.sha256(os.fsencode(name)).hexdigest()[:32]) + end


def _replace(part: Path, target: Path, special: bool) -> None:
    try:
        if special:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        os.replace(part, target)
    except OSError as error:
        # A single file mounted into a container cannot be replaced, and a device must not be.
        if error.errno not in (errno.EXDEV, errno.EBUSY):
            raise
        with open(part, "rb") as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink)


def make_folder(path: str | os.PathLike) -> Path:
    """The folder, made if it is not there. Raises OutputError unless files can be written into it."""
    path = located(path, error=OutputError)
    with output(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A temporary folder for sockets, whose paths the system limits to about 100 bytes: not below a long TMPDIR.
    Raises FsslibError where no short place can be written."""
    for place in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp"):
        if place and len(os.fsencode(place)) + len("/fsslib-12345678/socket-12345") <= LONGEST_SOCKET:
            with contextlib.suppress(OSError):
                folder = tempfile.mkdtemp(prefix="fsslib-", dir=place)
                break
    else:
        raise FsslibError(f"{tempfile.gettempdir()} is too long a path for sockets: set TMPDIR to a shorter one.")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file, UTF-8, whole or not at all. Returns its path; raises OutputError."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return located(path)


def read_text(path: str | os.PathLike, what: str = "file", error: type[FsslibError] = FsslibError) -> str:
    """What a text file holds: UTF-8, with or without a byte order mark. Raises `error`, which names the file."""
    path = located(path, what, error)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as problem:
        raise error(f"there is no {what} {path}: check the path.") from problem
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not text in UTF-8"
        raise error(f"{what} {path} cannot be read: {reason}.") from problem


def plain(value: Any, place: str = "value") -> Any:
    """`value` as JSON gives it back: numbers of NumPy as Python's, paths as texts, tuples and arrays as lists, keys as
    texts. Raises TypeError, which names the place: anything else, numbers that are not finite, keys that coincide."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if hasattr(value, "tolist"):  # a number or an array
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{place} is {value}, which JSON cannot hold")
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        made = {_key(key): plain(inner, f"{place}.{key}") for key, inner in value.items()}
        if len(made) < len(value):
            raise TypeError(f"{place} has two keys that JSON writes alike, among {', '.join(map(repr, value))}")
        return made
    if isinstance(value, (list, tuple)):
        return [plain(inner, f"{place}[{number}]") for number, inner in enumerate(value)]
    if value is None:
        return None
    raise TypeError(f"{place} is of type {type(value).__name__}, which JSON cannot hold")


def _key(key: Any) -> str:
    """A key of a dictionary as JSON writes it."""
    return key if type(key) is str else next(iter(json.loads(json.dumps({plain(key, "a key"): 0}))))


# The notebooks and the shipped files live beside the package in a clone, not in the wheel.
_ROOT = Path(__file__).resolve().parents[1]


def repository_folder() -> Path:
    """The folder of the clone this package is installed from. Raises FsslibError without one."""
    if not (_ROOT / "pyproject.toml").is_file() or not (_ROOT / "notebooks").is_dir():
        raise FsslibError(
            "the notebooks and shipped files are part of the repository, not of the installed package: clone the "
            "repository and install it with `pip install -e .`."
        )
    return _ROOT


def notebooks_folder() -> Path:
    """The folder with the built notebooks; their sources are in its folder `src`. Raises FsslibError without one."""
    return repository_folder() / "notebooks"


def data_folder() -> Path:
    """The folder with shipped weights and results. Raises FsslibError outside a clone or when the folder is gone."""
    folder = repository_folder() / "data"
    if not folder.is_dir():
        raise FsslibError("the repository's folder data/ is missing: restore it with `git checkout -- data`.")
    return folder


def cache_folder() -> Path:
    """The folder for what can be made again: FSSLIB_CACHE, or `fsslib` in XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("FSSLIB_CACHE"):
        return located(named, "FSSLIB_CACHE")
    return located(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "fsslib"
