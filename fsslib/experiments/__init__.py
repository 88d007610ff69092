"""Strict, restartable runs of the notebooks: one place to import them from, and the command line.

python -m fsslib.experiments run -p method=panet -p fold=1
python -m fsslib.experiments sweep --file grid.json --jobs 2
python -m fsslib.experiments collect
"""

# ruff: noqa: F401

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors
    from .comparison import compare, over_seeds
    from .conflicts import check_parameters
    from .gallery import write_index
    from .parameters import ExperimentParameters, parameters_help
    from .results import collect, read_result, write_result
    from .runs import run, run_name, run_notebook, status
    from .sweeps import sweep

# name -> the module it is taken from when it is first used
_HOMES = {
    "ExperimentParameters": "parameters",
    "check_parameters": "conflicts",
    "collect": "results",
    "compare": "comparison",
    "over_seeds": "comparison",
    "parameters_help": "parameters",
    "read_result": "results",
    "run": "runs",
    "run_name": "runs",
    "run_notebook": "runs",
    "status": "runs",
    "sweep": "sweeps",
    "write_index": "gallery",
    "write_result": "results",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
