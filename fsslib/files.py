"""Text files read and written in one way: whole or not at all. And the folders of the clone."""

import codecs
import contextlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import DatasetError, FsslibError

# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it only when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


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
        raw = Path(file).expanduser().read_bytes()
        text = raw.decode(next((kind for mark, kind in _MARKS if raw.startswith(mark)), "utf-8"))
    except UnicodeDecodeError as problem:
        return "", _encoding(raw, problem)
    except (OSError, RuntimeError, TypeError, ValueError) as problem:  # TypeError: no path; ValueError: a NUL in one
        return "", getattr(problem, "strerror", None) or str(problem)
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
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsslib"
