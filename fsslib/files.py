"""Paths as people give them, text files read and written in one way, and the folders of the clone."""

import codecs
import contextlib
import errno
import hashlib
import itertools
import json
import math
import multiprocessing.process
import multiprocessing.util
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DatasetError, FsslibError, OutputError

LONGEST_NAME = 255  # bytes of a file's name on all usual file systems
SHORTEST_PLACE = 5  # letters of a folder of this machine that is taken out of printed text
ABANDONED = 3600  # seconds after which a temporary file belongs to a writer that was killed
LEASE = 120.0  # seconds without a sign of life after which a claim may be taken over from another machine
LONGEST_SOCKET = 100  # bytes of a socket's path: 104 on macOS, 108 on Linux, with the closing zero
_CURES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free space there, or name another place.")
_CURES |= dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "A part of this path is a file: name a folder.")
_CURES |= {
    errno.ENAMETOOLONG: "Choose a shorter name.", errno.EISDIR: "This is a folder: name a file in it.",
    errno.EFBIG: "The file would be larger than is allowed here.",
}  # fmt: skip
# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


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
    except FsslibError:
        raise
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


def clear_abandoned(folder: Path, names: str) -> None:
    """Remove what killed writers (see `atomic`) have left in `folder` of files whose whole name fits the regular
    expression `names`. What was written to within an hour may have a living writer, and stays."""
    ours = re.compile(rf"({names})\.\d+\.part")
    with contextlib.suppress(OSError):
        for entry in filter(lambda entry: ours.fullmatch(entry.name), os.scandir(folder)):
            with contextlib.suppress(OSError):  # another process clears it
                if time.time() - entry.stat().st_mtime > ABANDONED:
                    os.unlink(entry)


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


def lock_of(path: Path) -> Path:
    """The hidden file of `claim(path)`: there while somebody is at work, or after a kill."""
    return path.with_name(f".{path.name.removeprefix('.')}.lock")


def _lease(path: Path) -> Any:
    from filelock import SoftFileLease

    return SoftFileLease(lock_of(path), lease_duration=LEASE)


def _silent(path: Path) -> bool:
    """Whether the holder of `path` has given no sign of life for LEASE seconds, by the clocks of the machines."""
    try:
        return time.time() - lock_of(path).stat().st_mtime > LEASE
    except OSError:
        return False


@contextlib.contextmanager
def claim(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold `path` for this process alone among all that see its folder, on any machine and file system.

    It is a file beside `path` that a thread renews as long as this process lives. A holder that died on this machine is
    followed at once; one elsewhere, or one that was stopped, after LEASE seconds in which nothing moved. A holder that
    was only stopped does not know: what it does in the end has to fail by itself where another one has been at work.

    Args: wait: seconds to wait for another holder, -1 for ever.
    Raises: BlockingIOError: another one holds it, see `holder`. OutputError: the file cannot be written.
    """
    from filelock import Timeout

    lease, end = _lease(path), time.monotonic() + (wait if wait >= 0 else math.inf)
    with contextlib.ExitStack() as held:
        for turn in itertools.count():
            if _silent(path):
                _remove_empty(lock_of(path))
                end = max(end, time.monotonic() + 1.5 * LEASE) if turn == 0 else end
            left = max(end - time.monotonic(), 0)
            with output(lock_of(path)), contextlib.suppress(Timeout):
                held.enter_context(lease.acquire(timeout=min(turn, left)))
                break
            if turn and not left:
                raise BlockingIOError(errno.EWOULDBLOCK, holder(path) or "now gone")
        with contextlib.suppress(OSError):  # what was killed while it took over
            for left in os.scandir(path.parent):
                if left.name.startswith(f"{lock_of(path).name}.") and time.time() - left.stat().st_mtime > LEASE:
                    os.unlink(left)
        yield


def _remove_empty(lock: Path) -> None:
    """Remove the file of a holder that died before it had written who it is, which nobody else will ever do."""
    aside = lock.with_name(f"{lock.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        if not lock.stat().st_size:
            os.rename(lock, aside)
            if aside.stat().st_size:  # another process has been here first, and holds it now
                os.link(aside, lock)
            aside.unlink()


def holder(path: Path) -> str:
    """Which process holds `path` (see `claim`), and where; empty: none that is alive."""
    from filelock import Timeout

    lease = _lease(path)
    owner = lease.owner
    if owner is None or _silent(path):
        return ""
    with contextlib.suppress(Timeout, OSError), lease.acquire(timeout=0):
        return ""  # it died on this machine
    return f"process {owner.pid} on {owner.hostname.partition('?')[0]}"


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A temporary folder for sockets, whose paths the system limits to about 100 bytes: not below a long TMPDIR.
    Raises FsslibError where no short place can be written."""
    folder = _short_folder()
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shorten_sockets() -> None:
    """Let this process and those that it starts with `multiprocessing` keep their sockets in a short place, where
    TMPDIR is too long for them."""
    config = multiprocessing.process.current_process()._config  # where multiprocessing keeps its temporary folder
    if config.get("tempdir") is None and not _holds_sockets(tempfile.gettempdir()):
        config["tempdir"] = _short_folder()
        # As multiprocessing does with its own; a child leaves it alone.
        how = {"args": [config["tempdir"]], "kwargs": {"ignore_errors": True}, "exitpriority": -100}
        multiprocessing.util.Finalize(None, shutil.rmtree, **how)


def _short_folder() -> str:
    for place in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp"):
        if place and _holds_sockets(place):
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="fsslib-", dir=place)
    raise FsslibError(f"{tempfile.gettempdir()} is too long a path for sockets: set TMPDIR to a shorter one.")


def _holds_sockets(place: str) -> bool:
    return len(os.fsencode(place)) + len("/fsslib-12345678/listener-12345678") <= LONGEST_SOCKET


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file, UTF-8, whole or not at all. Returns its path; raises OutputError."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return located(path)


def read_text(file: str | Path, what: str, cure: str, error: type[FsslibError] = DatasetError) -> str:
    """What a text file holds, its lines ended by newlines alone: UTF-8, or UTF-16 or UTF-32 behind their marks.

    Args: what: the file is for messages, e.g. "class names from". cure: a sentence that says what is expected.
    Raises `error` for what cannot be read or is no such text, with the line and what it is instead.
    """
    text, reason = text_or_reason(file)
    if reason:
        raise error(f"cannot read {what} {file}: {reason}. {cure}")
    return text


def text_or_reason(file: str | Path) -> tuple[str, str]:
    """The text of `read_text` and why there is none; one of the two is empty."""
    try:
        raw = located(file, "its path").read_bytes()
        text = raw.decode(next((kind for mark, kind in _MARKS if raw.startswith(mark)), "utf-8"))
    except UnicodeDecodeError as problem:
        return "", _encoding(raw, problem)
    except FsslibError as problem:
        return "", str(problem).rstrip(".")
    except OSError as problem:
        return "", problem.strerror or str(problem)
    if "\0" in text:
        return "", "it is not a text file, or UTF-16 without its mark. Save it as UTF-8"
    return text.replace("\r\n", "\n").replace("\r", "\n"), ""


def _encoding(raw: bytes, problem: UnicodeDecodeError) -> str:
    """What a file is that is not UTF-8: Latin-1 with the line as it reads there, or no text."""
    if problem.encoding != "utf-8" or re.search(rb"[\0-\x08\x0e-\x1f\x7f]", raw):
        return "it is not a text file"
    number = raw.count(b"\n", 0, problem.start) + 1
    line = raw.split(b"\n")[number - 1].decode("cp1252", "replace").strip()
    shown = line if len(line) <= 60 else f"{line[:60]}…"
    return f"line {number} is not UTF-8; in Latin-1 (Windows-1252) it reads {shown!r}. Save the file as UTF-8"


def read_lines(file: str | Path, what: str, cure: str, error: type[FsslibError] = DatasetError) -> dict[int, str]:
    """Line number -> line, of a list in a text file (see `read_text`): without empty lines and those that begin with
    #, and without what stands behind " # "; names in one form of Unicode (NFC)."""
    lines = enumerate(read_text(file, what, cure, error).split("\n"), 1)
    plain = ((number, composed(re.sub(r"(^|\s)#(\s.*|$)", "", line)).strip()) for number, line in lines)
    return {number: line for number, line in plain if line and not line.startswith("#")}


def read_json(file: str | Path, what: str, cure: str, error: type[FsslibError] = DatasetError) -> Any:
    """What a JSON file holds. Raises `error` for a file that is none, or gives a key twice in one object."""
    return parse_json(read_text(file, what, cure, error), f"cannot read {what} {file}", cure, error)


def parse_json(text: str, where: str, cure: str, error: type[FsslibError] = DatasetError) -> Any:
    """What a JSON text holds; `where` begins the message of an `error`, see `read_json`."""
    try:
        value = json.loads(text, object_pairs_hook=once)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # half a character passes JSON, and fails wherever it is written
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as problem:
        raise error(f"{where}: a text in it holds half a character (\\ud800 to \\udfff). {cure}") from problem
    except RecursionError as problem:
        raise error(f"{where}: it is nested too deeply. {cure}") from problem
    except ValueError as problem:
        raise error(f"{where}: {problem}. {cure}") from problem


def parse_yaml(text: str, where: str, cure: str, error: type[FsslibError] = DatasetError) -> Any:
    """What a YAML text of plain values holds; as `parse_json` in everything else."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only, each name once; 1e-3 is a number, as everywhere else."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            once([(self.construct_object(key), None) for key, _ in node.value])
            return super().construct_mapping(node, deep)

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except Exception as problem:  # PyYAML raises a dozen types at wrong tags, keys and numbers
        what = "it is nested too deeply" if isinstance(problem, RecursionError) else problem
        raise error(f"{where}: {what}. {cure}") from problem


def once(pairs: list[tuple[Any, Any]]) -> dict:
    """A dictionary of `pairs`. Raises ValueError for a key that is given twice, of which dict() keeps the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({str(key) for key in content if keys.count(key) > 1})
        raise ValueError(f"{', '.join(twice)} is given twice")
    return content


def composed(name: str) -> str:
    """The form in which names are compared: é as one character (NFC), as most systems write it, never e with an accent
    behind it (NFD), as names from a Mac may have it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def comparable(name: str) -> str:
    """A file's name in the form in which it is looked for: `composed`, and its ending in small letters."""
    stem, ending = os.path.splitext(composed(name))
    return stem + ending.lower()


def without_places(text: str, places: Mapping[str, str], mime: str = "text/plain") -> str:
    """Printed text (of HTML only what stands between the tags) without the paths of this machine.

    Whole components only, and nothing that is not a text, such as a picture or the source of a cell, is for this.

    Args: places: folder -> what stands for it; "" leaves out the slash behind it, too. Folders with short names (/,
        /me) are left alone: their letters stand in links and formulas.
    """
    if mime == "text/html":
        parts = re.split(r"(<[^>]*>)", text)
        return "".join(part if n % 2 else without_places(part, places) for n, part in enumerate(parts))
    for place in sorted((place for place in places if len(place) >= SHORTEST_PLACE), key=len, reverse=True):
        short = places[place]
        # Before a path may stand the code of a colour, which ends in a letter, or the beginning of a file's link.
        pattern = rf"(^|[^\w.~+/-]|\x1b\[[\d;]*m|file://){re.escape(place)}"
        for rest, stands in ((r"/(?=\S)", f"{short}/" if short else ""), (r"(?![\w~+-]|\.\w)", short or ".")):
            text = re.sub(pattern + rest, lambda found, stands=stands: found[1] + stands, text, flags=re.M)
    return text


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
