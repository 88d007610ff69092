"""Many runs from one grid of parameters: all checked before the first starts, one process each, restartable, on this
machine or where `engines` leads."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..arguments import check_count
from ..errors import FsslibError, OutputError, ParameterError
from ..files import claim, located, lock_of
from ..progress import say
from . import engines
from .execute_notebook import REPORT
from .notebook import find
from .runs import ENVIRONMENT, EXPERIMENT, check, forget_training, run, run_name, stop_all

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # combinations whose problems are listed in full


def plan(
    grid: dict[str, list], base: dict[str, Any] | None = None, notebook: str | Path = EXPERIMENT
) -> dict[str, dict[str, Any]]:
    """Run name -> all its parameters, for every combination of the grid's values on top of `base`.
    Raises ParameterError for a grid that is not one, or listing what is wrong with which combination."""
    base = {} if base is None else base
    for what, values in (("grid", grid), ("base", base)):
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            kind = "names with lists of values" if what == "grid" else "names with values"
            raise ParameterError(f"{what}: expected {kind}, found {type(values).__name__} {values!r:.60}.")
    wrong = [f"{n}: expected a list of values, found {v!r}" for n, v in grid.items() if not isinstance(v, list)]
    wrong += [f"{n}: the list of values is empty" for n, v in grid.items() if v == []]
    wrong += [f"{n}: {value!r} stands twice" for n, v in grid.items() if isinstance(v, list) for value in _twice(v)]
    wrong += [f"{n}: stands in the grid and beside it" for n in grid if n in base]
    if wrong:
        raise ParameterError("\n".join(wrong))
    planned, problems, made_by = {}, {}, {}
    for values in itertools.product(*grid.values()):
        combination = dict(zip(grid, values))
        try:
            checked = check(base | combination, notebook)
            name = run_name(checked, notebook)
            if name in planned:
                raise ParameterError(f"the same run as {made_by[name]}")
            planned[name], made_by[name] = checked, _words(combination)
        except ParameterError as error:
            problems.setdefault(str(error), []).append(_words(combination))
    for text, where in problems.items():
        more = [f"    and {len(where) - SHOWN} more"] if len(where) > SHOWN else []
        wrong += [text, *(f"    in {combination}" for combination in where[:SHOWN]), *more]
    if wrong:
        raise ParameterError("\n".join(wrong))
    return planned


def _words(combination: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in combination.items())


def _twice(values: list) -> list:
    """The values that stand in a list before, in the same type."""
    return [v for at, v in enumerate(values) if any(type(w) is type(v) and w == v for w in values[:at])]


def side_by_side(
    calls: dict[str, Callable[[], Any]], jobs: int, report: Callable[[str], None] = say, gpus: Sequence[str] = ()
) -> dict[str, str]:
    """Make several runs, `jobs` at a time, started in the order given; a failure does not stop the others.

    Args: calls: name -> what makes this run. report: gets a line for each run that ends. gpus: each run sees one of
        them, those under way different ones as long as there are enough.
    Returns: Name -> what went wrong, empty where nothing did.
    Raises:
        ParameterError: `jobs` is not a whole number from 1.
        KeyboardInterrupt: once every run has been stopped; finished ones stay.
    """
    check_count(jobs, "jobs", error=ParameterError)
    problems: dict[str, str] = {}
    free = SimpleQueue()
    for slot in range(jobs if gpus else 0):
        free.put(gpus[slot % len(gpus)])

    def one(name: str) -> None:
        began, problem, gpu = time.monotonic(), "", free.get() if gpus else None
        ENVIRONMENT.set({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        try:
            calls[name]()
        except Exception as error:  # whatever it was: it belongs to this run
            problem = str(error) if isinstance(error, FsslibError) else f"{type(error).__name__}: {error}"
        problems[name] = problem
        free.put(gpu)
        if not stopped:
            state, seconds = "failed" if problem else "done", time.monotonic() - began
            report(f"{name}: {state} ({len(problems)} of {len(calls)}, {seconds:.0f} s)")

    # Threads only wait here: every run is a process of its own.
    stopped = False
    with ThreadPoolExecutor(jobs) as pool:
        under_way = []
        try:
            for name in calls:
                under_way.append(pool.submit(one, name))
            wait(under_way)
        except KeyboardInterrupt:
            stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in under_way):
                stop_all()  # again and again: a run may just have been about to start
                time.sleep(0.1)
            raise
    return {name: problems[name] for name in calls}


def _gpus(planned: Iterable[dict[str, Any]]) -> list[str]:
    """The GPUs to share out among runs that train on one: where this machine shows several, their names."""
    if any(parameters.get("devices", 1) != 1 or parameters.get("accelerator") == "cpu" for parameters in planned):
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return named.split(",") if "," in named else []


def _elsewhere(
    kind: str, rest: str, planned: dict[str, dict[str, Any]], runs: Path, notebook: str | Path,
    report: Callable[[str], None],
) -> dict[str, str]:  # fmt: skip
    """As `side_by_side`, by an engine."""
    problems, where = {}, {"runs": str(runs.absolute()), "notebook": str(find(notebook).absolute())}

    def told(name: str, problem: str) -> None:
        problems[name] = problem
        report(f"{name}: {_state(problem)} ({len(problems)} of {len(planned)})")

    tasks = [engines.Task(name, parameters, place=os.getcwd(), **where) for name, parameters in planned.items()]
    if tasks:
        engines.make(kind, rest, tasks, told)
    return problems


def _state(problem: str) -> str:
    return "lost" if problem.startswith(f"{engines.LOST}:") else "failed" if problem else "done"


def sweep(
    grid: dict[str, list], *, base: dict[str, Any] | None = None, jobs: int = 1, on: str | None = None,
    runs: str | Path = "runs", dry_run: bool = False, notebook: str | Path = EXPERIMENT,
    report: Callable[[str], None] = say,
) -> "pd.DataFrame":  # fmt: skip
    """Run every combination of a grid; finished runs are skipped, a failure does not stop the others.

    Args:
        grid: parameter -> list of values. base: parameters that all runs share. jobs: processes at a time.
        on: where: `"local:4"` (the same as jobs=4), `"dask"` (a worker for each core), `"dask:4"`,
            `"dask:tcp://host:8786"`, `"dask:cluster.yaml"` (batch systems, see `engines`), or a Slurm array:
            `"slurm:timeout_min=480,partition=gpu,gpus_per_node=1,array_parallelism=16"`.
        dry_run: only say what would be done. report: gets a line for each run that ends.
    Returns: One row for each run: `run`, the grid's parameters, `state` (done, skipped, failed, lost, planned),
        `problem`. Lost are runs whose machines went away, again and again.
    Raises: ParameterError: before the first run starts, if any combination is not valid, or `on` is none.
    """
    import pandas as pd

    kind, rest = ("local", "") if on is None else engines.engine(on)
    jobs = int(rest) if kind == "local" and rest else jobs
    planned, place = plan(grid, base, notebook), located(runs, "runs")
    states = {name: "skipped" if (place / name / REPORT).is_file() else "planned" for name in planned}
    todo = [] if dry_run else [name for name, state in states.items() if state == "planned"]
    for name in [] if dry_run else planned.keys() - todo:
        forget_training(place / name)  # a run that was killed in its last moment has kept it, and its lock
        if lock_of(place / name).exists():
            with contextlib.suppress(BlockingIOError, OutputError), claim(place / name):
                pass  # whoever takes a dead holder's lock removes it
    left = {name: planned[name] for name in todo}
    if kind == "local":
        how = {"runs": runs, "notebook": notebook, "progress": False}
        calls = {name: partial(run, parameters, **how) for name, parameters in left.items()}
        problems = side_by_side(calls, jobs, report, () if jobs == 1 else _gpus(left.values()))
    else:
        problems = _elsewhere(kind, rest, left, place, notebook, report)
    states |= {name: _state(problem) for name, problem in problems.items()}
    rows = [(name, *map(p.get, grid), states[name], problems.get(name, "")) for name, p in planned.items()]
    return pd.DataFrame(rows, columns=["run", *grid, "state", "problem"])
