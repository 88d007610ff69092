"""Files written whole or not at all, and the folders of the clone."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import FsslibError


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
