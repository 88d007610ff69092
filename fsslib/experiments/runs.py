"""A run of a notebook: parameters checked first, a process of its own, a folder that appears when it is done.

A run is claimed by one process at a time (`files.claim`), on whatever machine. It works in a folder of its own,
`<runs>/<name>@<token>.part/`, renamed to `<runs>/<name>/` at the very end: a folder without `.part` is complete
(`report.ipynb`, `report.html`, `run.json` and, for an experiment, `result.json`). A run that fails leaves its folder as
`<runs>/<name>.part/`. Whoever takes a claim over renames the former holder's folder away, so that the former holder,
should it wake up, has nothing left that it could write to or put in the place of the finished run.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
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
SUBMITTED = ".slurm"  # folder beside the runs: what `engines` has given to Slurm, `<name>.job` holds a run's job
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
    else:
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
    name: str | None = None, force: bool = False, progress: bool = True, wait: float = 0.0,
) -> Path:  # fmt: skip
    """Run a notebook with parameters; returns the finished run's folder, at once if it is there already.

    Args:
        parameters: names and values; what is not given keeps its default. runs: folder of all runs.
        notebook: a notebook's name or path. name: of the run; by default made from the parameters.
        force: run again; the old run is replaced when the new one has succeeded. progress: show a bar.
        wait: seconds to wait for another process that is at this run.
    Raises:
        ParameterError: before anything runs, or if `name` is taken by a run with other parameters.
        TrainingError: a cell failed. The partial notebook and `error.json` stay in `<runs>/<name>.part/`.
        FsslibError: another process is at this run.
    """
    checked = check(parameters, notebook)
    folder = files.located(runs, "runs") / _valid_name(name or run_name(checked, notebook))
    return _run(find(notebook), folder, checked, force, progress, wait)


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
    fits = len(os.fsencode(name)) + len("@01234567.part") <= files.LONGEST_NAME
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


def _run(source: Path, folder: Path, checked: dict[str, Any], force: bool, progress: bool, wait: float = 0.0) -> Path:
    old = folder.with_name(folder.name + ".old.part")
    with claimed(folder, wait) as part:
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
        files.write_text(part / RECORD, json.dumps(stamp, indent=1) + "\n")
        _follow(folder, part, None if force else stamp)
        try:
            execute(source, part, checked, folder.name, progress)
        except Exception:
            if part.exists():
                raise
            raise _lost(folder) from None
        _put(part, folder, old, force)
        for left in _attempts(folder):  # what a killed one wrote while it died
            shutil.rmtree(left, ignore_errors=True)
        forget_training(folder)  # not before: killed in between, the run would have to train again
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _attempts(folder: Path) -> list[Path]:
    """The folders of unfinished attempts at a run."""
    ours = re.compile(rf"{re.escape(folder.name)}(@[0-9a-f]+)?\.part")
    return [path for path in folder.parent.iterdir() if ours.fullmatch(path.name)]


def _follow(folder: Path, part: Path, stamp: dict[str, Any] | None) -> None:
    """Take over from earlier attempts: the state of their training if it was this very run, and nothing else. Their
    folders are renamed first: from then on they can no longer become the finished run, nor can this one's be theirs."""
    taken = []
    for attempt in filter(part.__ne__, _attempts(folder)):
        with contextlib.suppress(FileNotFoundError):
            taken.append(attempt.rename(_token(folder)))
    states = [state for attempt in taken if _record(attempt) == stamp for state in attempt.glob(TRAINING)]
    for state in sorted(states, key=lambda state: state.stat().st_mtime_ns):  # the latest stays
        os.replace(state, part / state.name)
    for attempt in taken:
        shutil.rmtree(attempt, ignore_errors=True)


def _token(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}@{secrets.token_hex(4)}.part")


def _put(part: Path, folder: Path, old: Path, force: bool) -> None:
    """Make the working folder the finished run. Raises FsslibError, and changes nothing, for a holder that has lost its
    claim: its folder is gone, or another one has finished the run."""
    with files.output(folder):
        replaced = force and folder.exists()
        if replaced:
            os.rename(folder, old)
        try:
            os.rename(part, folder)
        except OSError as error:
            if replaced:
                os.rename(old, folder)
            if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise _lost(folder) from None
            raise


def _lost(folder: Path) -> FsslibError:
    silent = f"this process was stopped for more than {files.LEASE:g} s, and another one took the run over"
    return FsslibError(f"{folder.name}: {silent}; nothing of this attempt is kept.")


def forget_training(folder: Path) -> None:
    """Remove the state of its training from a finished run; what was put there later stays."""
    with contextlib.suppress(OSError):
        ended = (folder / REPORT).stat().st_mtime_ns
        for state in folder.glob(TRAINING):
            if state.stat().st_mtime_ns <= ended:
                state.unlink()


def status(runs: str | Path = "runs") -> list[tuple[str, str, str]]:
    """Name, state (done, running, submitted, failed, interrupted) and a remark, such as where, for every run."""
    rows, folders = {}, files.located(runs, "runs").glob("*")
    for folder in sorted(p for p in folders if p.is_dir() and not p.name.endswith(".old.part")):
        unfinished = folder.name.endswith(".part")
        name = folder.name.removesuffix(".part").partition("@")[0] if unfinished else folder.name
        if not unfinished and (folder / REPORT).is_file():
            rows[name, False] = "done", ""
        elif unfinished and (where := files.holder(folder.with_name(name))):
            rows[name, True] = "running", where
        elif unfinished:
            failed = (folder / ERROR).is_file()
            rows[name, True] = ("failed", reason(folder)) if failed else ("interrupted", "run it again to go on")
    for job in files.located(runs, "runs").glob(f"{SUBMITTED}/*.job"):
        if {rows.get((job.stem, unfinished), [""])[0] for unfinished in (False, True)} <= {"", "interrupted"}:
            rows[job.stem, True] = "submitted", f"Slurm job {job.read_text()}"
    return [(name, *row) for (name, _), row in sorted(rows.items())]


@contextlib.contextmanager
def claimed(folder: Path, wait: float = 0.0) -> Iterator[Path]:
    """Claim a run for this process alone and yield an empty working folder. What is left in it, if anything, stays as
    `<name>.part`. Raises FsslibError if another process has the run for `wait` more seconds."""
    files.make_folder(folder.parent)
    try:
        with files.claim(folder, wait):
            part = files.make_folder(_token(folder))
            try:
                yield part
            finally:
                with contextlib.suppress(OSError):  # gone, or another attempt lies there
                    part.rename(folder.with_name(folder.name + ".part")) if any(part.iterdir()) else part.rmdir()
    except BlockingIOError as error:
        who = f"another process ({error.strerror})"
        raise FsslibError(f"{folder.name} is being run by {who}: wait for it, or stop it.") from None


def execute(source: Path, part: Path, checked: dict[str, Any], title: str, progress: bool) -> None:
    """Let a fresh process run the notebook in `part`; it ends with this one.

    Raises TrainingError if a cell fails, the process dies, or no valid result is left although the notebook takes a
    folder for it.
    """
    loaded = load(source)
    passed = {name: _absolute(name, value) for name, value in checked.items()}
    returns = OUT in defaults(loaded)
    if returns:
        passed[OUT] = "."
    if not _ended_well({"notebook": loaded, "parameters": passed, "title": title, "progress": progress}, part):
        kept = part.with_name(f"{title}.part")
        raise TrainingError(f"{title}: {reason(part)} The partial notebook is in {kept}.")
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


busy = files.holder  # its former name
# Standard inputs of the processes at work, and where: a process whose input is closed leaves.
_AT_WORK: dict[Any, Path] = {}
# What the processes that a thread starts find in their environment beside this one's.
ENVIRONMENT: ContextVar[dict[str, str]] = ContextVar("ENVIRONMENT")


def stop_all(runs: str | Path | None = None) -> None:
    """End every notebook that this process has under way, or those in one folder of runs."""
    for pipe, part in list(_AT_WORK.items()):
        if runs is None or part.parent == Path(runs):
            with contextlib.suppress(OSError):
                pipe.close()


def _ended_well(order: dict[str, Any], part: Path) -> bool:
    command = [sys.executable, "-P", execute_notebook.__file__]  # -P: this folder must not shadow other modules
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    pipes["stderr"] = None if order["progress"] else subprocess.DEVNULL
    # A session of its own: an interrupt reaches this process, which then closes the child's standard input.
    environment = {**os.environ, **ENVIRONMENT.get({})}
    child = subprocess.Popen(command, cwd=part, start_new_session=True, env=environment, **pipes)
    _AT_WORK[child.stdin] = part
    try:
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        return child.wait() == 0
    except BrokenPipeError:
        return False
    finally:
        _AT_WORK.pop(child.stdin, None)
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
