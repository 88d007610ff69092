"""The working folder of one run: held by one process at a time, and where a fresh process runs the notebook."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import FsslibError, ParameterError, TrainingError
from ..files import atomic
from ..pages import write_page
from . import notebook as books
from . import runner
from .results import RESULT, read_result


@contextlib.contextmanager
def claimed(part: Path) -> Iterator[int]:
    """Hold the working folder of a run for this process alone; the system lets go of it when the process dies.

    Yields the lock's file descriptor. An empty folder is removed again. Raises FsslibError if another process has it.
    """
    while True:
        part.mkdir(parents=True, exist_ok=True)
        lock = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the opening and the locking the folder may have been renamed to the finished run.
            if part.exists() and os.path.samestat(os.fstat(lock), os.stat(part)):
                break
        except BlockingIOError:
            os.close(lock)
            raise FsslibError(f"{part.stem} is being run by another process: wait for it, or stop it.") from None
        os.close(lock)
    try:
        yield lock
    finally:
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()
        os.close(lock)


def busy(part: Path) -> bool:
    """True while a process is at work in the folder."""
    lock = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def execute(source: Path, part: Path, checked: dict[str, Any], title: str, progress: bool, lock: int) -> None:
    """Let a fresh process run the notebook in `part`; it holds the lock too, as long as it lives.

    Raises TrainingError if a cell fails, the process dies, or no valid result is left although the notebook takes a
    folder for it.
    """
    loaded = books.load(source)
    passed = {name: _absolute(name, value) for name, value in checked.items()}
    returns = books.OUT in books.defaults(loaded)
    if returns:
        passed[books.OUT] = "."
    if not _ended_well({"notebook": loaded, "parameters": passed, "title": title, "progress": progress}, part, lock):
        raise TrainingError(f"{title}: {reason(part)} The partial notebook is in {part}.")
    if returns:
        try:
            read_result(part)
        except ParameterError as error:
            raise TrainingError(f"{title}: the notebook left no valid {RESULT}: {error}") from error
    _tidy(part, title)


# Standard inputs of the processes at work: a process whose input is closed leaves.
_AT_WORK: set = set()


def stop_all() -> None:
    """End every notebook that this process has under way."""
    for pipe in list(_AT_WORK):
        with contextlib.suppress(OSError):
            pipe.close()


def _ended_well(order: dict[str, Any], part: Path, lock: int) -> bool:
    child = subprocess.Popen(
        [sys.executable, "-P", runner.__file__],  # -P: this package's folder must not shadow other modules
        cwd=part,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=None if order["progress"] else subprocess.DEVNULL,
        pass_fds=[lock],
        start_new_session=True,  # an interrupt reaches this process, which then closes the child's standard input
        text=True,
    )
    _AT_WORK.add(child.stdin)
    try:
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        return child.wait() == 0
    except BrokenPipeError:
        return False
    finally:
        _AT_WORK.discard(child.stdin)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.wait()


def _tidy(part: Path, title: str) -> None:
    """Remove paths and widget state from the executed notebook, then write its page."""
    import nbformat

    path = part / runner.REPORT
    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:  # a bar or slider without its state is only a line of noise
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _only_widget(o.get("data", {}))]
    for name in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(name, None)
    text = nbformat.writes(notebook).replace(str(part.resolve()), ".")
    text = text.replace(str(paths.repository()) + os.sep, "").replace(str(Path.home()) + os.sep, "~/")
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    write_page(path, path.with_suffix(".html"), title=title)


def _only_widget(data: dict[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data and not any(k.startswith("image/") for k in data)


def _absolute(name: str, value: Any) -> Any:
    """A path stays valid in the run's folder, which is another working folder."""
    own = {"root": (), "plugin": (), "plugin_checkpoint": ()}
    keyword = {"weights": ("imagenet",), "checkpoint": ("shipped",), **own}.get(name)
    if not isinstance(value, str) or keyword is None or value in keyword:
        return value
    return str(Path(value).expanduser().resolve())


def reason(part: Path) -> str:
    """Why the run in this folder failed, in a sentence."""
    try:
        failure = json.loads((part / runner.ERROR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "its process ended without a word (killed, or out of memory)."
    where = f"{failure['cell']} stopped with " if failure["cell"] else ""
    return f"{where}{failure['name']}: {failure['message']}".rstrip(". ") + "."
