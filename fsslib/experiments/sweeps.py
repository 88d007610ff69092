"""Many runs from one grid of parameters: all checked before the first starts, one process each, restartable."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FsslibError, ParameterError
from .runs import EXPERIMENT, check, run, run_name
from .workplace import stop_all

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # combinations whose problems are listed in full


def combinations(grid: dict[str, list], base: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every combination of the grid's values, on top of `base`. Raises ParameterError for a grid that is not one."""
    if not isinstance(grid, dict):
        raise ParameterError(f"grid: expected names with lists of values, found {type(grid).__name__}.")
    problems = [f"{n}: expected a list of values, found {v!r}" for n, v in grid.items() if not isinstance(v, list)]
    problems += [f"{n}: the list of values is empty" for n, v in grid.items() if v == []]
    problems += [f"{n}: stands in the grid and beside it" for n in grid if n in (base or {})]
    if problems:
        raise ParameterError("\n".join(problems))
    return [{**(base or {}), **dict(zip(grid, values))} for values in itertools.product(*grid.values())]


def plan(
    grid: dict[str, list], base: dict[str, Any] | None = None, notebook: str | Path = EXPERIMENT
) -> dict[str, dict[str, Any]]:
    """Run name -> all its parameters. Raises ParameterError listing what is wrong with which combination."""
    planned, problems = {}, {}
    for given in combinations(grid, base):
        try:
            checked = check(given, notebook)
            planned[run_name(checked, notebook)] = checked
        except ParameterError as error:
            problems.setdefault(str(error), []).append(", ".join(f"{n}={given[n]!r}" for n in grid))
    if problems:
        lines = []
        for text, where in problems.items():
            more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
            lines += [*text.splitlines(), *(f"    in {w}" for w in where[:SHOWN])] + ([f"   {more}"] if more else [])
        raise ParameterError("\n".join(lines))
    return planned


def sweep(
    grid: dict[str, list],
    *,
    base: dict[str, Any] | None = None,
    jobs: int = 1,
    runs: str | Path = "runs",
    dry_run: bool = False,
    notebook: str | Path = EXPERIMENT,
    report: Callable[[str], None] = print,
) -> "pd.DataFrame":
    """Run every combination of a grid; finished runs are skipped, a failure does not stop the others.

    Args:
        grid: parameter -> list of values.
        base: parameters that all runs share.
        jobs: processes at a time.
        dry_run: only say what would be done.
        report: gets a line for each run that ends.
    Returns:
        One row for each run: `run`, the grid's parameters, `state` (done, skipped, failed, planned), `problem`.
    Raises:
        ParameterError: before the first run starts, if any combination is not valid.
    """
    import pandas as pd

    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ParameterError(f"jobs: expected a whole number from 1, found {jobs!r}.")
    planned = plan(grid, base, notebook)
    done = {name for name in planned if (Path(runs) / name / "report.ipynb").is_file()}

    def one(name: str) -> tuple[str, str]:
        if name in done:
            return "skipped", ""
        if dry_run:
            return "planned", ""
        try:
            run(planned[name], runs=runs, notebook=notebook, progress=False)
        except FsslibError as error:
            report(f"{name}: failed")
            return "failed", str(error)
        report(f"{name}: done")
        return "done", ""

    # Threads only wait here: every run is a process of its own.
    with ThreadPoolExecutor(jobs) as pool:
        try:
            outcomes = list(pool.map(one, planned))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_all()
            raise
    rows = [
        {"run": name, **{n: checked[n] for n in grid}, "state": state, "problem": problem}
        for (name, checked), (state, problem) in zip(planned.items(), outcomes)
    ]
    return pd.DataFrame(rows, columns=["run", *grid, "state", "problem"])
