"""A run of a notebook: parameters checked first, a process of its own, a folder that appears when it is done.

A run works in `<runs>/<name>.part/`, held by one process at a time and renamed to `<runs>/<name>/` at the very end: a
folder without `.part` is complete (`report.ipynb`, `report.html`, `run.json` and, for an experiment, `result.json`).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..errors import FsslibError, ParameterError, TrainingError
from . import execute_notebook
from .execute_notebook import ERROR, REPORT
from .notebook import OUT, check_against, defaults, digest, find, hide_places, load
from .pages import write_page
from .results import RESULT, read_result

EXPERIMENT, RECORD = "experiment", "run.json"
TRAINING = "*.ckpt"  # resume files of fsslib.training: of use to an unfinished run only
# Parameters that came later: at their defaults they leave a run the name it had before.
LATER = {"data_options": {}, "logger": None, "devices": 1, "nodes": 1}
# Parameters that change the speed of a run, and nothing that it leaves.
SPEED_ALONE = {"workers"}
# Parameters that are paths, and the words they may hold instead.
PATHS = {
    "root": (),
    "plugin": (),
    "plugin_checkpoint": (),
    "weights": ("imagenet", "packaged", "pretrained"),
    "checkpoint": ("shipped",),
}
DATA_PATHS = ("names", "lists", "val_list", "sbd")  # options of data sets that may be paths


def check(parameters: dict[str, Any], notebook: str | Path = EXPERIMENT) -> dict[str, Any]:
    """All parameters of a run, defaults filled in; raises ParameterError listing every problem.
    The notebook `experiment` is held to `ExperimentParameters`, any other to its own parameters cell."""
    from .parameters import check_plain  # imports pydantic

    source, parameters = find(notebook), _as_json(parameters)
    if source.stem != EXPERIMENT:
        checked = check_against(load(source), parameters)
        check_plain(checked)
        return checked
    from .conflicts import check_parameters

    checked = check_parameters(parameters, opening=True).model_dump()
    check_plain(checked)
    if missing := sorted(checked.keys() - defaults(load(source)).keys()):
        names = ", ".join(missing)
        raise ParameterError(f"{source.name} has no parameter {names}: its parameters cell is out of date.")
    return checked


def _as_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the notebook and the record of the run will have them: paths as texts, NumPy's numbers as Python's.
    Raises ParameterError, listing what cannot be passed on, such as dates and NaN in a YAML file."""
    if not isinstance(parameters, dict):
        raise ParameterError(f"parameters: expected names with values, found {type(parameters).__name__}.")
    passed, problems = {}, []
    for name, value in parameters.items():
        try:
            passed[str(name)] = value if isinstance(value, float) else files.plain(value, str(name))
        except (TypeError, RecursionError) as error:
            problems.append(f"{error}: no plain value; write a number, a text, a list or names with values")
    if problems:
        raise ParameterError("\n".join(problems))
    return passed


def run_name(checked: dict[str, Any], notebook: str | Path = EXPERIMENT) -> str:
    """A readable name that ends in eight digits of all parameters, e.g. `panet-tiny-shapes-f0-s0-1a2b3c4d`."""
    text = json.dumps([Path(notebook).stem, _identity(checked), *_plugin(checked)], sort_keys=True)
    parts = [str(checked[name]) for name in ("method", "backbone", "dataset") if checked.get(name)]
    parts = parts or [Path(notebook).stem]
    parts += [f"{name[0]}{checked[name]}" for name in ("fold", "seed") if name in checked]
    slug = re.sub(r"[^a-z0-9_-]+", "-", "-".join(parts).lower()).strip("-")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _identity(checked: dict[str, Any]) -> dict[str, Any]:
    """What tells runs apart: the lasting parameters, without those that came later and stand at their defaults."""
    return {name: value for name, value in _lasting(checked).items() if name not in LATER or value != LATER[name]}


def _lasting(checked: dict[str, Any]) -> dict[str, Any]:
    """The parameters that leave a trace in what a run leaves."""
    return {name: value for name, value in checked.items() if name not in SPEED_ALONE}


def run(
    parameters: dict[str, Any], *, runs: str | Path = "runs", notebook: str | Path = EXPERIMENT,
    name: str | None = None, force: bool = False, progress: bool = True,
) -> Path:  # fmt: skip
    """Run a notebook with parameters; returns the finished run's folder, at once if it is there already.

    Args:
        parameters: names and values; what is not given keeps its default. runs: folder of all runs.
        notebook: a notebook's name or path. name: of the run; by default made from the parameters.
        force: run again; the old run is replaced when the new one has succeeded. progress: show a bar.
    Raises:
        ParameterError: before anything runs, or if `name` is taken by a run with other parameters.
        TrainingError: a cell failed. The partial notebook and `error.json` stay in `<runs>/<name>.part/`.
        FsslibError: another process is at this run.
    """
    checked = check(parameters, notebook)
    folder = files.located(runs, "runs") / _valid_name(name or run_name(checked, notebook))
    return _run(find(notebook), folder, checked, force, progress)


def run_notebook(
    path: str | Path, out: str | Path, parameters: dict[str, Any] | None = None, *, force: bool = False,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Run any notebook (a path or a name) into the folder `out`; otherwise like `run`.
    A run with another version of the notebook, or with other parameters, is replaced."""
    source, out = find(path), files.located(out, "out")
    checked, record = check(parameters or {}, source), _record(out)
    changed = record is not None and record != {**record, **_stamp(source, checked)}
    return _run(source, out.with_name(_valid_name(out.name)), checked, force or changed, progress)


def _valid_name(name: str) -> str:
    fits = len(os.fsencode(name)) + len(".old.part") <= files.LONGEST_NAME
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name.endswith((".part", ".old")) or not fits:
        rule = "use at most 240 letters, digits, '-', '_' and '.', and no '.part' or '.old' at the end"
        raise ParameterError(f"name: {name!r} cannot name a run; {rule}.")
    return name


def _stamp(source: Path, checked: dict[str, Any]) -> dict[str, Any]:
    stamp = {"notebook": source.stem, "notebook_hash": digest(load(source)), "parameters": _lasting(checked)}
    return stamp | dict(zip(["plugin_hash"], _plugin(checked)))


def _plugin(checked: dict[str, Any]) -> list[str]:
    """The digest of a method of one's own, whose file may change under the same name; empty without one."""
    path = files.located(checked["plugin"], "plugin", ParameterError) if checked.get("plugin") else None
    return [hashlib.sha256(path.read_bytes()).hexdigest()[:12]] if path and path.is_file() else []


def _record(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """What a run was started with (or another of its JSON files); None if that is missing or cannot be read."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _run(source: Path, folder: Path, checked: dict[str, Any], force: bool, progress: bool) -> Path:
    part, old = (folder.with_name(folder.name + end) for end in (".part", ".old.part"))
    with claimed(part) as lock:
        if old.exists() and not folder.exists():
            os.rename(old, folder)  # a forced run was killed between its two renames
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists() and not force:
            record = _record(folder) or {}
            if _identity(record.get("parameters", {})) != _identity(checked) or record.get("notebook") != source.stem:
                wrong = f"{folder} exists and is not a run of {source.stem} with these parameters"
                raise ParameterError(f"{wrong}: choose another name, or force it.")
            forget_training(folder)
            return folder
        stamp = _stamp(source, checked)
        _clear(part, keep_training=_record(part) == stamp and not force)
        files.write_text(part / RECORD, json.dumps(stamp, indent=1) + "\n")
        execute(source, part, checked, folder.name, progress, lock)
        with files.output(folder):
            if folder.exists():
                os.rename(folder, old)
            os.rename(part, folder)
        forget_training(folder)  # not before: killed in between, the run would have to train again
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _clear(part: Path, keep_training: bool) -> None:
    """Remove what a failed or killed run left, except the state of its training if it was this very run."""
    for leftover in part.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif not (keep_training and leftover.match(TRAINING)):
            leftover.unlink()


def forget_training(folder: Path) -> None:
    """Remove the state of its training from a finished run; what was put there later stays."""
    with contextlib.suppress(OSError):
        ended = (folder / REPORT).stat().st_mtime_ns
        for state in folder.glob(TRAINING):
            if state.stat().st_mtime_ns <= ended:
                state.unlink()


def status(runs: str | Path = "runs") -> list[tuple[str, str, str]]:
    """Name, state (done, running, failed, interrupted) and a remark for every run, by name."""
    rows, folders = [], files.located(runs, "runs").glob("*")
    for folder in sorted(p for p in folders if p.is_dir() and not p.name.endswith(".old.part")):
        state, remark = "interrupted", "run it again to start over"
        if not folder.name.endswith(".part"):
            if not (folder / REPORT).is_file():
                continue
            state, remark = "done", ""
        elif busy(folder):
            state, remark = "running", ""
        elif (folder / ERROR).is_file():
            state, remark = "failed", reason(folder)
        rows.append((folder.name.removesuffix(".part"), state, remark))
    return rows


@contextlib.contextmanager
def claimed(part: Path) -> Iterator[int]:
    """Hold the working folder of a run for this process alone; the system lets go of it when the process dies. Yields
    the lock's file descriptor. An empty folder is removed again. Raises FsslibError if another process has it."""
    while True:
        files.make_folder(part)
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
    loaded = load(source)
    passed = {name: _absolute(name, value) for name, value in checked.items()}
    returns = OUT in defaults(loaded)
    if returns:
        passed[OUT] = "."
    if not _ended_well({"notebook": loaded, "parameters": passed, "title": title, "progress": progress}, part, lock):
        raise TrainingError(f"{title}: {reason(part)} The partial notebook is in {part}.")
    if returns:
        try:
            read_result(part)
        except ParameterError as error:
            raise TrainingError(f"{title}: the notebook left no valid {RESULT}: {error}") from error
    _tidy(part, title)


def _absolute(name: str, value: Any) -> Any:
    """A path stays valid in the run's folder, which is another working folder."""
    if name == "data_options":
        return {option: _from_here(inner) if option in DATA_PATHS else inner for option, inner in value.items()}
    if not isinstance(value, str) or value in PATHS.get(name, (value,)):
        return value
    return str(files.located(value, name, ParameterError).resolve())


def _from_here(value: Any) -> Any:
    """What is a path from here becomes absolute; what is none may be one below the data set's root."""
    if isinstance(value, dict):
        return {name: _from_here(inner) for name, inner in value.items()}
    there = isinstance(value, str) and files.located(value, "data_options", ParameterError).exists()
    return str(files.located(value).resolve()) if there else value


# Standard inputs of the processes at work: a process whose input is closed leaves.
_AT_WORK: set = set()


def stop_all() -> None:
    """End every notebook that this process has under way."""
    for pipe in list(_AT_WORK):
        with contextlib.suppress(OSError):
            pipe.close()


def _ended_well(order: dict[str, Any], part: Path, lock: int) -> bool:
    command = [sys.executable, "-P", execute_notebook.__file__]  # -P: this folder must not shadow other modules
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True, "pass_fds": [lock]}
    pipes["stderr"] = None if order["progress"] else subprocess.DEVNULL
    # A session of its own: an interrupt reaches this process, which then closes the child's standard input.
    child = subprocess.Popen(command, cwd=part, start_new_session=True, **pipes)
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

    path = part / REPORT
    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:  # a bar or slider without its state is only a line of noise
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _only_widget(o.get("data", {}))]
    for name in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(name, None)
    home, repository = os.path.expanduser("~"), str(files.repository_folder())
    hide_places(notebook, {home: "~", repository: "", str(part.resolve()): "."})
    files.write_text(path, nbformat.writes(notebook) + "\n")
    write_page(path, path.with_suffix(".html"), title=title)


def _only_widget(data: dict[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data and not any(k.startswith("image/") for k in data)


def reason(part: Path) -> str:
    """Why the run in this folder failed, in a sentence."""
    failure = _record(part, ERROR)
    if failure is None:
        return "its process ended without a word (killed, or out of memory)."
    where = f"{failure['cell']} stopped with " if failure["cell"] else ""
    return f"{where}{failure['name']}: {failure['message']}".rstrip(". ") + "."
