"""Reports: strict, restartable runs of the notebooks, sweeps, and pages; nothing in the library imports it.

python -m fsslib.experiments run -p method=panet -p fold=1
python -m fsslib.experiments sweep --file grid.json --jobs 2
python -m fsslib.experiments collect

Names of parameters and of the fields of `result.json` are what stored runs are read by: add, do not rename.
"""

# ruff: noqa: F401

from typing import TYPE_CHECKING

from ..names import on_demand

if TYPE_CHECKING:  # for editors
    from .conflicts import check_parameters
    from .pages import write_index
    from .parameters import ExperimentParameters, parameters_help
    from .results import collect, compare, over_seeds, read_result, write_result
    from .runs import run, run_name, run_notebook, status
    from .sweeps import sweep

__getattr__, __dir__, __all__ = on_demand(__name__, {
    "conflicts": "check_parameters", "pages": "write_index", "parameters": "ExperimentParameters parameters_help",
    "results": "collect compare over_seeds read_result write_result", "runs": "run run_name run_notebook status",
    "sweeps": "sweep",
})  # fmt: skip
