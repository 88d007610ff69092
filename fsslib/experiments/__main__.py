"""The command line: `python -m fsslib.experiments help`. Every command imports what it runs: most need no torch."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import FsslibError, ParameterError
from ..files import atomic, parse_json
from ..progress import aligned, any_terminal, say

# What `make reports` trains from scratch, beside the stage notebooks; short enough for a coffee break on two cores.
# Stride 8 and 32 bits: half the time of the shipped recipe on any processor, some ten points below it.
_BUDGET = {"checkpoint": None, "pretrain_steps": 1500, "episodic_steps": 900, "episodes": 500}
_STRIDE_8 = {"backbone_options": {"stride": 8}}
# What is a method's own is as in the stored comparison (tools/comparison.py), nothing is tried out for this page.
_SDAANET = {"scales": [1.0, 0.5, 0.25, 0.125], "dropout": 0.1}
# Folder of the run -> its parameters, the longest training first.
TRAININGS: dict[str, dict[str, Any]] = {
    "experiment-sdaanet": {
        **_BUDGET, "method": "sdaanet", "width": 32, "lr": 4e-3, "options": {**_STRIDE_8, **_SDAANET}
    },
    "experiment-panet": {**_BUDGET, "method": "panet", "lr": 2e-3, "options": _STRIDE_8},
}  # fmt: skip
# What the index page ends with: the first minus the second, by the folder of the run.
COMPARED = {"experiment-sdaanet": "SD-AANet", "experiment-panet": "PANet"}


def parse_value(text: str, name: str = "") -> Any:
    """A value from the command line: JSON where it is JSON (5, 0.1, true, null, [1, 5]), otherwise the text itself.
    A parameter whose default is a text takes the text in any case: `precision=32` means "32"."""
    from .parameters import ExperimentParameters

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"None": None, "True": True, "False": False}.get(text, text)
    if isinstance(value, (dict, list)):
        value = parse_json(text, f"-p {name}", "Give each name once.", ParameterError)
    field = ExperimentParameters.model_fields.get(name)
    wants_text = field is not None and isinstance(field.default, str)
    return text if wants_text and not isinstance(value, str | None) else value


def _given(pairs: list[str], file: str | None = None) -> dict[str, Any]:
    from .parameters import read_parameters

    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ParameterError(f"-p {pair}: expected NAME=VALUE.")
        if name in values:
            raise ParameterError(f"-p {pair}: {name} is given twice.")
        values[name] = parse_value(value, name)
    return (read_parameters(file) if file else {}) | values


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fsslib.experiments", description="Runs of the notebooks.")
    commands = parser.add_subparsers(required=True)

    def command(name: str, does: Any, *parents: argparse.ArgumentParser, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=parents, help=help)
        added.set_defaults(does=does)
        return added

    common, forced, many = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    common.add_argument("--runs", default="runs", help="folder of all runs (default: runs)")
    forced.add_argument("--force", action="store_true", help="run again what is done")
    many.add_argument("-p", dest="pairs", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    many.add_argument("--notebook", default="experiment", help="name or path (default: experiment)")
    one = command("run", _run, common, many, forced, help="run a notebook with parameters")
    one.add_argument("-f", "--file", help="YAML or JSON file with parameters; -p goes before it")
    one.add_argument("--name", help="name of the run (default: made from the parameters)")
    grid = command("sweep", _sweep, common, many, help="run every combination of a grid")
    values = "YAML or JSON file: parameter -> list of values; -p holds for all runs"
    grid.add_argument("-f", "--file", required=True, help=values)
    grid.add_argument("--jobs", type=int, default=1, help="processes at a time: the same as --on local:JOBS")
    where = "local:N, dask, dask:N, dask:tcp://HOST:PORT, dask:FILE.yaml or slurm:NAME=VALUE,... (notebooks/CLUSTER.md)"
    grid.add_argument("--on", metavar="WHERE", help=where)
    grid.add_argument("--dry-run", action="store_true", help="only say what would be run")
    table = command("collect", _collect, common, help="print the scores of all finished runs")
    table.add_argument("--over-seeds", action="store_true", help="one row for runs that differ in the seed alone")
    table.add_argument("--csv", help="write them to this file instead")
    pair = command("compare", _compare, help="difference of two runs, paired on the same episodes")
    pair.add_argument("run", help="folder of a finished experiment")
    pair.add_argument("reference", help="folder of the one it is compared with")
    command("status", _status, common, help="list all runs and how they stand")
    command("help", _help, help="list the parameters of an experiment")
    all_notebooks = command("reports", _reports, common, forced, help="run all notebooks and write an index page")
    all_notebooks.add_argument("--jobs", type=int, default=_cores(), help="notebooks at a time (default: all cores)")
    return parser


def _help(given: argparse.Namespace) -> None:
    from .parameters import parameters_help

    print(parameters_help())


def _run(given: argparse.Namespace) -> None:
    from .runs import run

    parameters = _given(given.pairs, given.file)
    print(run(parameters, runs=given.runs, notebook=given.notebook, name=given.name, force=given.force))


def _sweep(given: argparse.Namespace) -> Iterable[str]:
    from .parameters import read_parameters
    from .sweeps import sweep

    grid, base = read_parameters(given.file), _given(given.pairs)
    how = {"jobs": given.jobs, "on": given.on, "runs": given.runs, "dry_run": given.dry_run}
    how["notebook"] = given.notebook
    table = sweep(grid, base=base, **how)
    print(table.drop(columns="problem").to_string(index=False))
    return list(table.problem)


def _collect(given: argparse.Namespace) -> None:
    from .results import rows

    scores = rows(given.runs)
    if given.over_seeds and scores:
        import pandas as pd

        from .results import over_seeds

        scores = over_seeds(pd.DataFrame(scores)).to_dict("records")
    names = list(dict.fromkeys(name for row in scores for name in row))
    if given.csv:
        import csv

        with atomic(given.csv) as part, open(part, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(scores)
        print(given.csv)
    elif scores:
        cells = [[row.get(name) for name in names] for row in scores]
        print(aligned([names, *([f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in cells)]))
    else:
        print("no finished run with scores")


def _compare(given: argparse.Namespace) -> None:
    from .results import compare

    print(compare(given.run, given.reference).round(2).to_string(index=False))


def _status(given: argparse.Namespace) -> None:
    from .runs import status

    print(aligned([(name, state.ljust(11), remark) for name, state, remark in status(given.runs)]) or "no runs yet")


def _reports(given: argparse.Namespace) -> Iterable[str]:
    problems = reports(given.runs, given.force, given.jobs)
    return [f"{name}: {text.removeprefix(f'{name}: ')}" for name, text in problems.items() if text]


def reports(runs: str | Path, force: bool, jobs: int) -> dict[str, str]:
    """Run every stage notebook with its defaults and the `TRAININGS`, then write the index page and print its place.

    What is done with the present notebooks is not run again. The trainings start first, then the longest notebooks,
    `jobs` at a time. Returns name -> what went wrong, empty where nothing did.
    """
    from .notebook import find, load, names
    from .pages import write_index
    from .results import finished
    from .runs import EXPERIMENT, run_notebook
    from .sweeps import side_by_side

    minutes = {name: load(find(name)).metadata.get("minutes", 0) for name in names() if name[:1].isdigit()}
    calls = {}
    for name in [*TRAININGS, *sorted(minutes, key=minutes.get, reverse=True)]:
        book = EXPERIMENT if name in TRAININGS else name
        given = Path(runs, name), TRAININGS.get(name, {})
        calls[name] = partial(run_notebook, book, *given, force=force, progress=jobs == 1)
    say(f"{len(calls)} notebooks, {jobs} at a time; the first two train, which takes minutes …")
    problems = side_by_side(calls, jobs, say)
    if finished(runs):
        say(write_index(runs, compared=COMPARED).resolve())
    return problems


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if some of several runs failed, 2 for anything refused or failed."""
    any_terminal()
    given = _parser().parse_args(arguments)
    try:
        failures = [text for text in given.does(given) or () if text]
        status = int(bool(failures))
    except FsslibError as error:
        failures, status = [error], 2
    except KeyboardInterrupt:
        failures, status = ["interrupted; run it again to go on"], 130
    for failure in failures:
        print(failure, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
