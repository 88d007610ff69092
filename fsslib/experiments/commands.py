"""The command line of `python -m fsslib.experiments`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .. import experiments, paths
from ..errors import FsslibError, ParameterError
from ..files import atomic
from .files import read_parameters
from .parameters import ExperimentParameters, parameters_help
from .runs import EXPERIMENT

# What `make reports` runs from scratch, beside the stage notebooks; short enough for a coffee break on two cores.
# Stride 8 and 32 bits: half the time of the shipped recipe on any processor, some ten points below it.
REPORT_PARAMETERS: dict[str, Any] = {
    "checkpoint": None,
    "options": {"backbone_options": {"stride": 8}},
    "pretrain_steps": 1500,
    "episodic_steps": 900,
    "lr": 2e-3,
    "episodes": 500,
}
REPORT_NAME = "experiment"


def parse_value(text: str, name: str = "") -> Any:
    """A value from the command line: JSON where it is JSON (5, 0.1, true, null, [1, 5]), otherwise the text itself.

    A parameter whose default is a text takes the text in any case: `precision=32` means "32".
    """
    try:
        value = json.loads(text)
    except ValueError:
        return {"None": None, "True": True, "False": False}.get(text, text)
    field = ExperimentParameters.model_fields.get(name)
    wants_text = field is not None and isinstance(field.default, str)
    return text if wants_text and not isinstance(value, str | None) else value


def _given(pairs: list[str], file: str | None = None) -> dict[str, Any]:
    given = read_parameters(file) if file else {}
    seen = set()
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ParameterError(f"-p {pair}: expected NAME=VALUE.")
        if name in seen:
            raise ParameterError(f"-p {pair}: {name} is given twice.")
        seen.add(name)
        given[name] = parse_value(value, name)
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fsslib.experiments", description="Runs of the notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--runs", default="runs", help="folder of all runs (default: runs)")
    many = argparse.ArgumentParser(add_help=False)
    many.add_argument("-p", dest="pairs", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    many.add_argument("--notebook", default=EXPERIMENT, help="name or path (default: experiment)")
    one = commands.add_parser("run", parents=[common, many], help="run a notebook with parameters")
    one.add_argument("-f", "--file", help="YAML or JSON file with parameters; -p goes before it")
    one.add_argument("--name", help="name of the run (default: made from the parameters)")
    one.add_argument("--force", action="store_true", help="run again what is done")
    grid = commands.add_parser("sweep", parents=[common, many], help="run every combination of a grid")
    grid.add_argument(
        "-f", "--file", required=True, help="YAML or JSON file: parameter -> list of values; -p holds for all runs"
    )
    grid.add_argument("--jobs", type=int, default=1, help="processes at a time")
    grid.add_argument("--dry-run", action="store_true", help="only say what would be run")
    table = commands.add_parser("collect", parents=[common], help="print the scores of all finished runs")
    table.add_argument("--over-seeds", action="store_true", help="one row for runs that differ in the seed alone")
    table.add_argument("--csv", help="write them to this file instead")
    pair = commands.add_parser("compare", help="difference of two runs, paired on the same episodes")
    pair.add_argument("run", help="folder of a finished experiment")
    pair.add_argument("reference", help="folder of the one it is compared with")
    commands.add_parser("status", parents=[common], help="list all runs and how they stand")
    commands.add_parser("help", help="list the parameters of an experiment")
    pages = commands.add_parser("reports", parents=[common], help="run all notebooks and write an index page")
    pages.add_argument("--force", action="store_true", help="run again what is done")
    return parser


def reports(runs: str | Path = "runs", force: bool = False) -> Path:
    """Run every stage notebook with its defaults and one experiment from scratch; returns the index page.

    What is done with the present notebooks is not run again.
    """
    from .gallery import write_index

    folder = paths.notebooks()
    stages = sorted({p.stem for p in [*folder.glob("[0-9]*.ipynb"), *folder.glob("src/[0-9]*.py")]})
    todo = [(stage, stage, {}) for stage in stages] + [(EXPERIMENT, REPORT_NAME, REPORT_PARAMETERS)]
    for notebook, name, parameters in todo:
        print(f"{name} …", flush=True)
        experiments.run_notebook(notebook, Path(runs) / name, parameters, force=force)
    return write_index(runs)


def _do(given: argparse.Namespace) -> int:
    if given.command == "help":
        print(parameters_help())
    elif given.command == "run":
        parameters = _given(given.pairs, given.file)
        print(experiments.run(parameters, runs=given.runs, notebook=given.notebook, name=given.name, force=given.force))
    elif given.command == "sweep":
        table = experiments.sweep(
            read_parameters(given.file),
            base=_given(given.pairs),
            jobs=given.jobs,
            runs=given.runs,
            dry_run=given.dry_run,
            notebook=given.notebook,
        )
        print(table.drop(columns="problem").to_string(index=False))
        failed = table[table.state == "failed"]
        for problem in failed.problem:
            print(problem, file=sys.stderr)
        return int(len(failed) > 0)
    elif given.command == "collect":
        table = experiments.collect(given.runs)
        if given.over_seeds and not table.empty:
            table = experiments.over_seeds(table)
        if given.csv:
            with atomic(given.csv) as part:
                table.to_csv(part, index=False)
            print(given.csv)
        else:
            print("no finished run with scores" if table.empty else table.to_string(index=False))
    elif given.command == "compare":
        print(experiments.compare(given.run, given.reference).round(2).to_string(index=False))
    elif given.command == "status":
        rows = experiments.status(given.runs)
        width = max((len(name) for name, _, _ in rows), default=0)
        print("\n".join(f"{n.ljust(width)}  {s:<11}  {r}".rstrip() for n, s, r in rows) or "no runs yet")
    else:
        print(reports(given.runs, given.force).resolve())
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if runs of a sweep failed, 2 for anything refused or failed."""
    given = _parser().parse_args(arguments)
    try:
        return _do(given)
    except FsslibError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130
