"""Where a sweep makes its runs beside this machine: on Dask, or in an array of Slurm jobs.

A task carries a run's name, its parameters and paths, never a model, and makes the same `run`. So what is done is not
done again; the task of a worker that was lost goes on from the run's own resume file, wherever it is given another try.
What fails by itself (a wrong cell, a loss that is not finite) is not tried again. All machines have to see the folder
of the runs, the data and the packages under the same paths.
"""

import contextlib
import importlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ..errors import FsslibError, ParameterError
from ..files import LEASE, located, parse_yaml, read_text, write_text
from ..progress import say
from .runs import SUBMITTED, run, stop_all

WAYS = "local:N, dask, dask:N, dask:tcp://HOST:PORT, dask:FILE.yaml or slurm:timeout_min=480,partition=gpu"
LOST = "lost"  # begins the problem of a run whose machine went away too often
RETRIES = 2  # of a task that raised what is no fault of its run
REQUEUES = 20  # of a Slurm job that had too little time
POLL = 1.0  # seconds between two looks at the jobs of Slurm
# What is not to be taken for a lost worker, and what is: a training may keep Python busy for long, and a task that five
# lost workers had is looked at with suspicion. Then one task a worker, and a worker for each task that waits.
SETTINGS = {
    "distributed.scheduler.worker-ttl": None, "distributed.scheduler.allowed-failures": 5,
    "distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.unknown-task-duration": "1h",
}  # fmt: skip

Told = Callable[[str, str], None]  # gets a run's name and what went wrong, empty for nothing, as soon as it has ended


@dataclass(frozen=True, eq=False)
class Task:
    """One run, to be made elsewhere. Paths in its parameters are read from the folder `place`."""

    name: str
    parameters: dict[str, Any]
    runs: str
    notebook: str
    place: str

    def __call__(self) -> str:
        """Make the run. Returns what went wrong, empty if nothing did; raises what another machine may do better."""
        os.chdir(self.place)
        how = {"runs": self.runs, "notebook": self.notebook, "name": self.name}
        try:
            run(self.parameters, **how, progress=False, wait=2 * LEASE)  # its former worker may have died just now
        except FsslibError as error:
            return str(error) or type(error).__name__
        return ""

    def checkpoint(self) -> Any:
        """What Slurm is to start again when the time of a job is over: the same task, which goes on."""
        return _needed("submitit").helpers.DelayedSubmission(self)


def engine(where: str) -> tuple[str, str]:
    """The kind of a place (`local`, `dask` or `slurm`) and what stands behind it. Raises ParameterError for none."""
    kind, _, rest = where.partition(":") if isinstance(where, str) else ("", "", "")
    if kind not in ("local", "dask", "slurm") or (kind == "local" and not rest.isdecimal()):
        raise ParameterError(f"on: expected {WAYS}, found {where!r}.")
    return kind, rest


def make(kind: str, rest: str, tasks: list[Task], told: Told) -> None:
    """Make runs on `dask` or `slurm`. Raises FsslibError where that is not installed, or not there; KeyboardInterrupt
    once what was begun has been cancelled (Dask) or the way back to it has been told (Slurm)."""
    {"dask": _dask, "slurm": _slurm}[kind](rest, tasks, told)


def _needed(module: str) -> Any:
    try:
        with mock.patch("signal.signal"):  # dask-jobqueue takes Ctrl-C for itself as soon as it is imported
            return importlib.import_module(module)
    except ImportError:
        raise FsslibError(f"{module} is not installed, and this sweep needs it: pip install -e '.[cluster]'") from None


def _dask(rest: str, tasks: list[Task], told: Told) -> None:
    dask, distributed = _needed("dask"), _needed("distributed")
    with (
        dask.config.set(SETTINGS),
        _cluster(rest, distributed, tasks[0].runs) as cluster,
        distributed.Client(cluster) as client,
    ):
        # A key of its own: a scheduler that lives on must not answer with the end of an earlier attempt.
        how = {"pure": False, "retries": RETRIES}
        futures = {client.submit(t, key=f"{t.name}-{uuid.uuid4().hex[:8]}", **how): t for t in tasks}
        try:
            for future in distributed.as_completed(futures):
                told(futures[future].name, _outcome(future, distributed))
        except KeyboardInterrupt:
            client.cancel(list(futures), force=True)
            client.run(stop_all, tasks[0].runs, on_error="ignore")
            raise


def _outcome(future: Any, distributed: Any) -> str:
    if future.status == "finished":
        return future.result()
    if future.status != "error":
        return f"{LOST}: its task was {future.status}"
    error = future.exception()
    if isinstance(error, distributed.KilledWorker):
        return f"{LOST}: {SETTINGS['distributed.scheduler.allowed-failures'] + 1} workers died while they made it"
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _cluster(rest: str, distributed: Any, runs: str) -> Iterator[Any]:
    """The address of a scheduler that runs, a cluster on this machine, or one that a batch system provides."""
    if "://" in rest:
        yield rest
    elif not rest or rest.isdecimal():
        how = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}  # none, but a port of its own
        how["scheduler_kwargs"] = {"dashboard_address": ":0"}
        with distributed.LocalCluster(n_workers=int(rest) if rest else None, **how) as cluster:
            yield cluster
    else:
        with _batch_cluster(rest, Path(runs, ".dask")) as cluster:
            yield cluster


def _batch_cluster(file: str, logs: Path) -> Any:
    """A cluster of dask-jobqueue from a file that names the batch system, with that package's options, and `maximum`:
    how many jobs there may be at a time. One job is one worker, which makes one run at a time."""
    cure = "Write `slurm:` (pbs, lsf, sge, ...), below it options of dask-jobqueue, and beside it `maximum: 8`."
    where = f"on: {file}"
    given = parse_yaml(read_text(located(file), "cluster file", cure, ParameterError), where, cure, ParameterError)
    jobqueue = _needed("dask_jobqueue")
    known = {
        name.removesuffix("Cluster").lower(): kind for name, kind in vars(jobqueue).items() if name.endswith("Cluster")
    }
    del known["jobqueue"]
    systems = sorted(known.keys() & given.keys()) if isinstance(given, dict) else []
    if len(systems) != 1 or not isinstance(given[systems[0]], dict) or given.keys() - {systems[0], "maximum"}:
        raise ParameterError(f"{where}: expected one of {', '.join(sorted(known))}, and maximum. {cure}")
    options = {name.replace("-", "_"): value for name, value in given[systems[0]].items()}
    extra = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    if walltime := options.get("walltime"):
        seconds = walltime if isinstance(walltime, int) else _seconds(walltime, systems[0])  # YAML reads 8:00:00 so
        options["walltime"] = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if systems[0] == "lsf":
            options["walltime"] = options["walltime"][:-3]
        # Before the system ends the job, and not all at once.
        extra += ["--lifetime", f"{int(0.85 * seconds)}s", "--lifetime-stagger", f"{int(0.05 * seconds)}s"]
    options["worker_extra_args"] = extra + list(options.get("worker_extra_args", []))
    quiet = {"dashboard": False, "dashboard_address": ":0"}
    options["scheduler_options"] = quiet | options.get("scheduler_options", {})
    usual = {"processes": 1, "log_directory": str(logs)}
    try:
        cluster = known[systems[0]](**usual | options)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{where}: {error}") from error
    cluster.adapt(minimum=0, maximum=given.get("maximum", 8))
    return cluster


def _seconds(walltime: str, system: str) -> int:
    """Of `D-HH:MM:SS`, without what a short one leaves out: MM or MM:SS, with days or for LSF HH or HH:MM."""
    days, _, clock = str(walltime).rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        if len(parts) < 3:
            parts = [*parts, 0, 0][:3] if days or system == "lsf" else [0, *parts, 0][:3]
        hours, minutes, seconds = parts
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    except ValueError:
        raise ParameterError(f"on: walltime {walltime!r}: expected HH:MM:SS.") from None


def _slurm(rest: str, tasks: list[Task], told: Told) -> None:
    submitit = _needed("submitit")
    folder = Path(tasks[0].runs) / SUBMITTED
    executor = _executor(submitit, folder, rest)
    jobs = {task: _under_way(submitit, folder, task) for task in tasks}
    new = [task for task, job in jobs.items() if job is None]
    if new:
        with executor.batch():
            made = [executor.submit(task) for task in new]
        for task, job in zip(new, made):
            write_text(folder / f"{task.name}.job", job.job_id)
            jobs[task] = job
    ids = ", ".join(sorted({job.job_id.partition("_")[0] for job in jobs.values()}))
    try:
        while jobs:
            for task in [task for task, job in jobs.items() if job.done()]:
                told(task.name, _end(submitit, jobs.pop(task)))
                (folder / f"{task.name}.job").unlink(missing_ok=True)
            time.sleep(POLL if jobs else 0)
    except KeyboardInterrupt:
        say(
            f"Slurm goes on with {ids}: `status` lists the runs, the same sweep waits for them again, and "
            f"`scancel {ids.replace(',', '')}` ends them."
        )
        raise


def _executor(submitit: Any, folder: Path, rest: str) -> Any:
    pairs = [part.partition("=") for part in rest.split(",")]
    if not all(name and equals for name, equals, _ in pairs) or "timeout_min" not in [name for name, *_ in pairs]:
        cure = "and with timeout_min, the minutes of a job"
        raise ParameterError(f"on: slurm:{rest}: expected NAME=VALUE with commas between, {cure}.")
    common = submitit.AutoExecutor._typed_parameters()
    given = {name if name in common else f"slurm_{name}": _value(value) for name, _, value in pairs}
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(**{"name": "fsslib"} | given)
    except (NameError, AssertionError, ValueError) as error:
        raise ParameterError(f"on: slurm:{rest}: {error}") from error
    except RuntimeError as error:  # no srun
        raise FsslibError(f"on: slurm: {error}") from error
    return executor


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _under_way(submitit: Any, folder: Path, task: Task) -> Any:
    """The job that an earlier sweep has submitted for a run and that has not ended; None if there is none."""
    note = folder / f"{task.name}.job"
    if not note.exists():
        return None
    job = submitit.SlurmJob(folder, note.read_text())
    ended = job.done(force_check=True)
    forgotten = job.state == "UNKNOWN" and time.time() - note.stat().st_mtime > LEASE
    return None if ended or forgotten else job


def _end(submitit: Any, job: Any) -> str:
    error = job.exception()
    if error is None:
        return job.result()
    last = (str(error).partition("You can check")[0].strip("- \n").splitlines() or [""])[-1]
    lost = isinstance(error, submitit.core.utils.UncompletedJobError) or "Job not requeued" in last
    return f"{LOST}: Slurm job {job.job_id} ended as {job.state}, see {job.paths.stderr}" if lost else last
