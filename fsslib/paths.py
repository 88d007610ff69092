"""Where the notebooks and the shipped files are: they live beside the package in a clone, not in the wheel."""

import os
from pathlib import Path

from .errors import FsslibError

_ROOT = Path(__file__).resolve().parents[1]


def repository() -> Path:
    """The folder of the clone this package is installed from. Raises FsslibError without one."""
    if not (_ROOT / "pyproject.toml").is_file() or not (_ROOT / "notebooks").is_dir():
        raise FsslibError(
            "the notebooks and shipped files are part of the repository, not of the installed package: clone the "
            "repository and install it with `pip install -e .`."
        )
    return _ROOT


def notebooks() -> Path:
    """The folder with the built notebooks; their sources are in its folder `src`. Raises FsslibError without one."""
    return repository() / "notebooks"


def data() -> Path:
    """The folder with shipped weights and results. Raises FsslibError outside a clone or when the folder is gone."""
    folder = repository() / "data"
    if not folder.is_dir():
        raise FsslibError("the repository's folder data/ is missing: restore it with `git checkout -- data`.")
    return folder


def cache() -> Path:
    """The folder for what can be made again: FSSLIB_CACHE, or `fsslib` in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("FSSLIB_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsslib"
